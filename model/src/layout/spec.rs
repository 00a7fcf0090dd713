//! Venues as people write them, checked and turned into [`Venue`]s.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    FoldRules, Layout, Line, LineRole, MAX_ZONES, OpenSpan, OpeningHours, Polygon, Sensor, TrackScope,
    VENUE_ZONE, Venue, Weekday, Zone,
};
use crate::ids::{VenueId, check_name};
use crate::time::{LocalDay, VenueCalendar};

/// Most lines, most sensors and most staff tags of a layout.
const MAX_LISTED: usize = 10_000;
/// Longest session gap and zone blink: a day.
const MAX_GAP_MS: i64 = 86_400_000;

/// A venue as written in `dwell venues apply`. Without `valid_from` it describes what is valid since ever; with one,
/// what is valid from that local day on. Fields that are not known are refused by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VenueSpec {
    /// Id of the venue.
    pub id: String,
    /// IANA time zone.
    pub tz: String,
    /// For people.
    #[serde(default)]
    pub name: Option<String>,
    /// Local hour at which a day starts: a whole hour, or `"04:00"`.
    #[serde(default)]
    pub day_start: Option<DayStart>,
    /// Extent of the plan along x, metres.
    #[serde(default)]
    pub width: Option<f64>,
    /// Extent of the plan along y, metres.
    #[serde(default)]
    pub height: Option<f64>,
    /// Zones.
    #[serde(default)]
    pub zones: Vec<ZoneSpec>,
    /// Counting lines.
    #[serde(default)]
    pub lines: Vec<LineSpec>,
    /// Sensors of which something is known.
    #[serde(default)]
    pub sensors: Vec<SensorSpec>,
    /// Local hour at which the venue opens every day; goes with `close`.
    #[serde(default)]
    pub open: Option<f64>,
    /// Local hour at which it closes; at or before `open` means past midnight.
    #[serde(default)]
    pub close: Option<f64>,
    /// Opening hours by weekday and date; instead of `open` and `close`.
    #[serde(default)]
    pub opening_hours: Option<HoursSpec>,
    /// Tracks of staff.
    #[serde(default)]
    pub staff_tags: Vec<String>,
    /// Groups that queries may ask for.
    #[serde(default)]
    pub tags: Vec<String>,
    /// First local day of this layout.
    #[serde(default)]
    pub valid_from: Option<LocalDay>,
    /// See [`FoldRules`]; default 30,000.
    #[serde(default)]
    pub session_gap_ms: Option<i64>,
    /// See [`FoldRules`]; default 5,000.
    #[serde(default)]
    pub zone_blink_ms: Option<i64>,
    /// See [`FoldRules`]; default 50.
    #[serde(default)]
    pub heat_cell_cm: Option<u32>,
}

/// When a day starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum DayStart {
    /// A whole hour.
    Hour(u8),
    /// `"HH:00"`.
    Text(String),
}

/// A zone as people write it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZoneSpec {
    /// Id of the zone.
    pub id: String,
    /// Corners in metres.
    pub polygon: Vec<[f64; 2]>,
    /// For people.
    #[serde(default)]
    pub name: Option<String>,
    /// The floor whose events it takes; any when left out.
    #[serde(default)]
    pub floor: Option<String>,
    /// Layer of transitions; `default` when left out.
    #[serde(default)]
    pub layer: Option<String>,
    /// Length from which a visit is engaged; default 10,000.
    #[serde(default)]
    pub engaged_after_ms: Option<i64>,
    /// Groups that queries may ask for.
    #[serde(default)]
    pub tags: Vec<String>,
}

/// A line as people write it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LineSpec {
    /// Id of the line.
    pub id: String,
    /// What crossing it means; `entrance` when left out.
    #[serde(default)]
    pub role: Option<LineRole>,
    /// For people.
    #[serde(default)]
    pub name: Option<String>,
}

/// A sensor as people write it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SensorSpec {
    /// Id of the sensor.
    pub id: String,
    /// Where its track ids are unique; `venue` when left out.
    #[serde(default)]
    pub track_scope: TrackScope,
    /// Interval at which it is declared to send.
    #[serde(default)]
    pub interval_ms: Option<i64>,
    /// Value at which its cumulative counters wrap to 0.
    #[serde(default)]
    pub counter_wrap: Option<i64>,
    /// For people.
    #[serde(default)]
    pub name: Option<String>,
}

/// Opening hours as people write them: spans of `["09:00", "21:00"]`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoursSpec {
    /// By weekday; those left out are closed.
    #[serde(default)]
    pub weekly: BTreeMap<Weekday, Vec<[String; 2]>>,
    /// By date; an empty list is closed.
    #[serde(default)]
    pub exceptions: BTreeMap<LocalDay, Vec<[String; 2]>>,
}

/// Why a venue was refused: which, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("venue {venue:?}: {field}: {problem}")]
pub struct SpecError {
    /// The venue's id as written.
    pub venue: String,
    /// The field, for example `zones[3].polygon`.
    pub field: String,
    /// What is wrong with it and what to do.
    pub problem: String,
}

impl VenueSpec {
    /// Checks the venue and unites it with the one that is there: without `valid_from` the first layout is replaced,
    /// with it that date's layout is added or replaced; other layouts stay.
    pub fn to_venue(&self, existing: Option<&Venue>) -> Result<Venue, SpecError> {
        let id = VenueId::new(&self.id).map_err(|error| self.refuse("id", error.to_string()))?;
        let layout = self.layout()?;
        let mut layouts = existing.map(|venue| venue.layouts.clone()).unwrap_or_default();
        if layouts.is_empty() && layout.valid_from.is_some() {
            // Nothing is known of the time before: a layout without zones.
            layouts.push(Layout::empty());
        }
        match layouts
            .iter()
            .position(|other| other.valid_from == layout.valid_from)
        {
            Some(i) => layouts[i] = layout,
            None => layouts.push(layout),
        }
        layouts.sort_by_key(|layout| layout.valid_from);
        Ok(Venue {
            id,
            name: self.name.clone(),
            calendar: self.calendar()?,
            tags: self.tags.clone(),
            layouts,
        })
    }

    fn refuse(&self, field: impl Into<String>, problem: impl Into<String>) -> SpecError {
        SpecError {
            venue: self.id.chars().take(64).collect(),
            field: field.into(),
            problem: problem.into(),
        }
    }

    fn calendar(&self) -> Result<VenueCalendar, SpecError> {
        let hour = match &self.day_start {
            None => 0,
            Some(DayStart::Hour(hour)) => *hour,
            Some(DayStart::Text(text)) => match text.strip_suffix(":00").map(str::parse::<u8>) {
                Some(Ok(hour)) => hour,
                _ => {
                    return Err(self.refuse(
                        "day_start",
                        format!("{text:?} is no whole hour; write it like \"04:00\""),
                    ));
                }
            },
        };
        VenueCalendar::from_names(&self.tz, hour)
            .map_err(|error| self.refuse("tz or day_start", error.to_string()))
    }

    fn layout(&self) -> Result<Layout, SpecError> {
        for (field, extent) in [("width", self.width), ("height", self.height)] {
            if extent.is_some_and(|metres| !(metres.is_finite() && metres > 0.0)) {
                return Err(self.refuse(field, "give metres, more than 0"));
            }
        }
        let defaults = FoldRules::default();
        let rules = FoldRules {
            session_gap_ms: self.duration("session_gap_ms", self.session_gap_ms, defaults.session_gap_ms)?,
            zone_blink_ms: self.duration("zone_blink_ms", self.zone_blink_ms, defaults.zone_blink_ms)?,
            heat_cell_cm: self.heat_cell_cm.unwrap_or(defaults.heat_cell_cm),
        };
        if !(1..=10_000).contains(&rules.heat_cell_cm) {
            return Err(self.refuse("heat_cell_cm", "give 1 to 10,000 centimetres"));
        }
        for (i, tag) in self.staff_tags.iter().enumerate() {
            if i == MAX_LISTED {
                return Err(self.refuse("staff_tags", format!("give at most {MAX_LISTED}")));
            }
            self.name(format!("staff_tags[{i}]"), tag)?;
        }
        Ok(Layout {
            valid_from: self.valid_from,
            width_m: self.width,
            height_m: self.height,
            zones: self.zones()?,
            lines: self.lines()?,
            sensors: self.sensors()?,
            opening_hours: self.opening_hours()?,
            staff_tags: self.staff_tags.clone(),
            rules,
        })
    }

    fn zones(&self) -> Result<Vec<Zone>, SpecError> {
        if self.zones.len() > MAX_ZONES {
            return Err(self.refuse(
                "zones",
                format!("{} zones; give at most {MAX_ZONES}", self.zones.len()),
            ));
        }
        self.distinct("zones", self.zones.iter().map(|zone| zone.id.as_str()))?;
        let mut zones = Vec::with_capacity(self.zones.len());
        for (i, spec) in self.zones.iter().enumerate() {
            if spec.id == VENUE_ZONE {
                return Err(self.refuse(
                    format!("zones[{i}].id"),
                    format!("{VENUE_ZONE} is the whole venue; rename it"),
                ));
            }
            let polygon = Polygon::new(spec.polygon.clone()).map_err(|error| {
                self.refuse(
                    format!("zones[{i}].polygon (zone {:?})", spec.id),
                    error.to_string(),
                )
            })?;
            for (field, value) in [("floor", &spec.floor), ("layer", &spec.layer)] {
                if let Some(value) = value {
                    self.name(format!("zones[{i}].{field}"), value)?;
                }
            }
            let engaged = format!("zones[{i}].engaged_after_ms");
            zones.push(Zone {
                id: spec.id.clone(),
                name: spec.name.clone(),
                polygon,
                floor: spec.floor.clone(),
                layer: spec.layer.clone().unwrap_or_else(|| "default".to_owned()),
                engaged_after_ms: self.duration(&engaged, spec.engaged_after_ms, 10_000)?,
                tags: spec.tags.clone(),
            });
        }
        zones.sort_by(|a, b| a.id.as_bytes().cmp(b.id.as_bytes()));
        Ok(zones)
    }

    fn lines(&self) -> Result<Vec<Line>, SpecError> {
        self.distinct("lines", self.lines.iter().map(|line| line.id.as_str()))?;
        let mut lines: Vec<Line> = self
            .lines
            .iter()
            .map(|spec| Line {
                id: spec.id.clone(),
                name: spec.name.clone(),
                role: spec.role.unwrap_or(LineRole::Entrance),
            })
            .collect();
        lines.sort_by(|a, b| a.id.as_bytes().cmp(b.id.as_bytes()));
        Ok(lines)
    }

    fn sensors(&self) -> Result<Vec<Sensor>, SpecError> {
        self.distinct("sensors", self.sensors.iter().map(|sensor| sensor.id.as_str()))?;
        let mut sensors = Vec::with_capacity(self.sensors.len());
        for (i, spec) in self.sensors.iter().enumerate() {
            for (field, value) in [
                ("interval_ms", spec.interval_ms),
                ("counter_wrap", spec.counter_wrap),
            ] {
                if value.is_some_and(|value| value <= 0) {
                    return Err(self.refuse(format!("sensors[{i}].{field}"), "give a number above 0"));
                }
            }
            sensors.push(Sensor {
                id: spec.id.clone(),
                name: spec.name.clone(),
                track_scope: spec.track_scope,
                interval_ms: spec.interval_ms,
                counter_wrap: spec.counter_wrap,
            });
        }
        sensors.sort_by(|a, b| a.id.as_bytes().cmp(b.id.as_bytes()));
        Ok(sensors)
    }

    fn opening_hours(&self) -> Result<Option<OpeningHours>, SpecError> {
        match (self.open, self.close, &self.opening_hours) {
            (None, None, None) => Ok(None),
            (None, None, Some(hours)) => {
                let mut weekly = BTreeMap::new();
                for (weekday, spans) in &hours.weekly {
                    weekly.insert(
                        *weekday,
                        self.spans(&format!("opening_hours.weekly.{weekday:?}"), spans)?,
                    );
                }
                let mut exceptions = BTreeMap::new();
                for (day, spans) in &hours.exceptions {
                    exceptions.insert(
                        *day,
                        self.spans(&format!("opening_hours.exceptions.{day}"), spans)?,
                    );
                }
                Ok(Some(OpeningHours::new(weekly, exceptions)))
            }
            (Some(open), Some(close), None) => {
                let minute = |field: &str, hours: f64| {
                    let minutes = hours * 60.0;
                    let whole = (0.0..=1440.0).contains(&minutes) && minutes.fract() == 0.0;
                    match whole {
                        true => Ok(minutes as u16),
                        false => {
                            Err(self.refuse(field, format!("{hours} is no hour of the day; give 0 to 24")))
                        }
                    }
                };
                let (open, close) = (minute("open", open)?, minute("close", close)?);
                let span = OpenSpan::new(open, close)
                    .map_err(|error| self.refuse("open and close", error.to_string()))?;
                Ok(Some(OpeningHours::every_day(span)))
            }
            (_, _, Some(_)) => Err(self.refuse("open", "give either open and close, or opening_hours")),
            _ => Err(self.refuse("open", "open and close go together")),
        }
    }

    fn spans(&self, field: &str, spans: &[[String; 2]]) -> Result<Vec<OpenSpan>, SpecError> {
        let minute = |text: &str| {
            let (hours, minutes) = text.split_once(':')?;
            let (hours, minutes) = (hours.parse::<u16>().ok()?, minutes.parse::<u16>().ok()?);
            (hours <= 24 && minutes < 60).then_some(hours * 60 + minutes)
        };
        spans
            .iter()
            .map(|[open, close]| match (minute(open), minute(close)) {
                (Some(open), Some(close)) => {
                    OpenSpan::new(open, close).map_err(|error| self.refuse(field, error.to_string()))
                }
                _ => Err(self.refuse(
                    field,
                    format!("{open:?} to {close:?}: write times like \"09:00\""),
                )),
            })
            .collect()
    }

    fn duration(&self, field: &str, value: Option<i64>, default: i64) -> Result<i64, SpecError> {
        let ms = value.unwrap_or(default);
        match (0..=MAX_GAP_MS).contains(&ms) {
            true => Ok(ms),
            false => Err(self.refuse(field, format!("{ms} ms; give 0 to {MAX_GAP_MS}"))),
        }
    }

    fn name(&self, field: impl Into<String>, name: &str) -> Result<(), SpecError> {
        check_name(name).map_err(|error| self.refuse(field, format!("{name:?} {error}")))
    }

    /// Refuses bad names and names that stand twice.
    fn distinct<'a>(&self, list: &str, ids: impl Iterator<Item = &'a str>) -> Result<(), SpecError> {
        let mut seen = BTreeSet::new();
        for (i, id) in ids.enumerate() {
            if i == MAX_LISTED {
                return Err(self.refuse(list, format!("give at most {MAX_LISTED}")));
            }
            self.name(format!("{list}[{i}].id"), id)?;
            if !seen.insert(id) {
                return Err(self.refuse(
                    format!("{list}[{i}].id"),
                    format!("{id:?} stands twice; ids are unique"),
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
