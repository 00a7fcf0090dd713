//! Instants as foreign files write them.

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeZone};
use dwell_model::time::{TsMs, VenueCalendar, parse_ts};
use dwell_runtime::limits::HumanDuration;

use super::TimeSpec;

/// How `ts` is read.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct TimeRule {
    pub(super) format: TimeFormat,
    pub(super) zone: ZoneRule,
    pub(super) ambiguous: Ambiguous,
    /// Added to every instant.
    pub(super) shift_ms: i64,
}

/// How an instant is written.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum TimeFormat {
    /// Integer milliseconds or RFC 3339: left to the decoder.
    #[default]
    AsIs,
    /// A number since 1970 in units of so many nanoseconds.
    Since1970 { unit_ns: i64 },
    /// A chrono format with an offset in it.
    WithOffset(String),
    /// A chrono format of a wall time.
    Wall(String),
}

/// The time zone of a wall time.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum ZoneRule {
    /// UTC.
    #[default]
    Utc,
    /// The venue's own.
    Venue,
    /// This one.
    Named(VenueCalendar),
}

/// What a repeated wall time means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Ambiguous {
    #[default]
    First,
    Second,
    Ordered,
    Refuse,
}

/// Gives the calendar of a venue, for wall times in the venue's zone.
pub(crate) trait ZoneOfVenue {
    /// The venue's calendar; `None` for a venue that is not known.
    fn calendar(&self, venue: &str) -> Option<VenueCalendar>;

    /// The calendar where a row names no venue; `None` where none is meant then.
    fn of_unnamed(&self) -> Option<VenueCalendar> {
        None
    }
}

impl TimeRule {
    pub(super) fn resolve(spec: &TimeSpec) -> Result<Self, String> {
        let format = match spec.format.as_deref() {
            None | Some("rfc3339") => TimeFormat::AsIs,
            Some("ms") => TimeFormat::Since1970 { unit_ns: 1_000_000 },
            Some("s") => TimeFormat::Since1970 {
                unit_ns: 1_000_000_000,
            },
            Some("us") => TimeFormat::Since1970 { unit_ns: 1_000 },
            Some("ns") => TimeFormat::Since1970 { unit_ns: 1 },
            Some(format) => strftime(format)?,
        };
        let is_wall = matches!(format, TimeFormat::Wall(_));
        let zone = match spec.zone.as_deref() {
            Some(_) if !is_wall => {
                return Err(
                    "mapping: ts.zone stands beside a format that names the instant itself".to_owned(),
                );
            }
            None if is_wall => {
                return Err(
                    "mapping: ts.format has no offset, so ts.zone is needed: an IANA name such as \
                            \"Europe/Zurich\", \"venue\" or \"utc\""
                        .to_owned(),
                );
            }
            None => ZoneRule::Utc,
            Some(name) if name.eq_ignore_ascii_case("utc") => ZoneRule::Utc,
            Some("venue") => ZoneRule::Venue,
            Some(name) => ZoneRule::Named(
                VenueCalendar::from_names(name, 0).map_err(|error| format!("mapping: ts.zone: {error}"))?,
            ),
        };
        let ambiguous = match spec.ambiguous.as_deref() {
            None | Some("first") => Ambiguous::First,
            Some("second") => Ambiguous::Second,
            Some("ordered") => Ambiguous::Ordered,
            Some("refuse") => Ambiguous::Refuse,
            Some(other) => {
                return Err(format!(
                    "mapping: ts.ambiguous is first, second, ordered or refuse, not {other:?}"
                ));
            }
        };
        Ok(Self {
            format,
            zone,
            ambiguous,
            shift_ms: spec.shift.as_deref().map_or(Ok(0), shift_ms)?,
        })
    }
}

/// Reads a duration with a sign.
fn shift_ms(text: &str) -> Result<i64, String> {
    let (sign, length) = match text.trim().strip_prefix('-') {
        Some(length) => (-1, length),
        None => (1, text.trim().trim_start_matches('+')),
    };
    match length.trim().parse::<HumanDuration>() {
        Ok(length) => Ok(sign * length.as_ms()),
        Err(error) => Err(format!("mapping: ts.shift {text:?}: {error}; write 90s or -1h")),
    }
}

fn strftime(format: &str) -> Result<TimeFormat, String> {
    use chrono::format::{Fixed, Item, Numeric, StrftimeItems};
    let mut has_offset = false;
    let mut has_fields = false;
    for item in StrftimeItems::new(format) {
        match item {
            Item::Error => return Err(format!("mapping: ts.format {format:?} is not a time format")),
            Item::Numeric(Numeric::Timestamp, _) => has_offset = true,
            Item::Fixed(
                Fixed::TimezoneOffset
                | Fixed::TimezoneOffsetColon
                | Fixed::TimezoneOffsetZ
                | Fixed::TimezoneOffsetColonZ
                | Fixed::RFC2822
                | Fixed::RFC3339,
            ) => has_offset = true,
            Item::Numeric(..) | Item::Fixed(_) => has_fields = true,
            _ => {}
        }
    }
    match (has_offset, has_fields) {
        (true, _) => Ok(TimeFormat::WithOffset(format.to_owned())),
        (false, true) => Ok(TimeFormat::Wall(format.to_owned())),
        (false, false) => Err(format!(
            "mapping: ts.format is ms, s, us, ns, rfc3339 or a format like \"%Y-%m-%d %H:%M:%S\", not {format:?}"
        )),
    }
}

/// Reads the instants of one file.
#[derive(Debug, Default)]
pub(super) struct TimeReader {
    /// The wall time before this one while it is a repeated one, and whether the second pass has begun.
    repeated: Option<(NaiveDateTime, bool)>,
}

impl TimeReader {
    /// Reads an instant; `None` where the decoder is to read the text itself.
    pub(super) fn read(
        &mut self,
        rule: &TimeRule,
        text: &str,
        venue: impl FnOnce() -> Option<VenueCalendar>,
    ) -> Result<Option<TsMs>, String> {
        let read = self.unshifted(rule, text.trim(), venue)?;
        if rule.shift_ms == 0 {
            return Ok(read);
        }
        let ts = match read {
            Some(ts) => ts,
            None => parse_ts(text.trim())
                .map_err(|_| "neither milliseconds since 1970 nor RFC 3339".to_owned())?,
        };
        let shifted = ts.checked_add(rule.shift_ms);
        shifted
            .map(Some)
            .ok_or_else(|| "shifted beyond all time".to_owned())
    }

    /// The instant as it is written.
    fn unshifted(
        &mut self,
        rule: &TimeRule,
        text: &str,
        venue: impl FnOnce() -> Option<VenueCalendar>,
    ) -> Result<Option<TsMs>, String> {
        match &rule.format {
            TimeFormat::AsIs => Ok(None),
            TimeFormat::Since1970 { unit_ns } => since_1970(text, *unit_ns).map(Some),
            TimeFormat::WithOffset(format) => DateTime::parse_from_str(text, format)
                .map(|time| Some(time.timestamp_millis()))
                .map_err(|_| format!("not a time of the form {format}")),
            TimeFormat::Wall(format) => {
                let wall = parse_wall(text, format)?;
                let calendar = match &rule.zone {
                    ZoneRule::Utc => return Ok(Some(wall.and_utc().timestamp_millis())),
                    ZoneRule::Named(calendar) => *calendar,
                    ZoneRule::Venue => {
                        venue().ok_or("the venue is not known, and so its time zone is not")?
                    }
                };
                self.instant(wall, calendar, rule.ambiguous).map(Some)
            }
        }
    }

    fn instant(
        &mut self,
        wall: NaiveDateTime,
        calendar: VenueCalendar,
        rule: Ambiguous,
    ) -> Result<TsMs, String> {
        let tz = calendar.tz();
        let utc_ms = wall.and_utc().timestamp_millis();
        match tz.offset_from_local_datetime(&wall) {
            chrono::LocalResult::Single(offset) => {
                self.repeated = None;
                Ok(utc_ms - i64::from(offset.fix().local_minus_utc()) * 1_000)
            }
            chrono::LocalResult::None => Err(format!(
                "a wall time that does not exist in {}: the clocks are set forward over it",
                tz.name()
            )),
            chrono::LocalResult::Ambiguous(first, second) => {
                let second_pass = match rule {
                    Ambiguous::First => false,
                    Ambiguous::Second => true,
                    Ambiguous::Refuse => {
                        return Err(format!(
                            "a wall time that {} has twice: the clocks are set back",
                            tz.name()
                        ));
                    }
                    Ambiguous::Ordered => {
                        let second_pass = self
                            .repeated
                            .is_some_and(|(before, passed)| passed || wall < before);
                        self.repeated = Some((wall, second_pass));
                        second_pass
                    }
                };
                let offset = if second_pass { second } else { first };
                Ok(utc_ms - i64::from(offset.fix().local_minus_utc()) * 1_000)
            }
        }
    }
}

fn parse_wall(text: &str, format: &str) -> Result<NaiveDateTime, String> {
    NaiveDateTime::parse_from_str(text, format)
        .or_else(|_| NaiveDate::parse_from_str(text, format).map(|date| date.and_time(NaiveTime::MIN)))
        .map_err(|_| format!("not a time of the form {format}"))
}

/// Reads a decimal number of units since 1970, exactly, cut to milliseconds.
fn since_1970(text: &str, unit_ns: i64) -> Result<TsMs, String> {
    let refuse = || "not a number of units since 1970".to_owned();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i128 = whole.parse::<i64>().map_err(|_| refuse())?.into();
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(refuse());
    }
    let mut ns = whole * i128::from(unit_ns);
    let mut digit_ns = i128::from(unit_ns);
    let sign = if text.starts_with('-') { -1 } else { 1 };
    for byte in fraction.bytes() {
        digit_ns /= 10;
        ns += sign * i128::from(byte - b'0') * digit_ns;
    }
    i64::try_from(ns.div_euclid(1_000_000)).map_err(|_| refuse())
}
