//! When a schedule is due. Pure.

use chrono::{DateTime, TimeZone, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds};
use dwell_model::time::{DAY_MS, TsMs};
use dwell_serving_api::JobRefusal;

/// The times of a cron expression in a zone.
///
/// Where clocks skip a time, what is due then is due at the first instant after; a time that comes twice is due once.
#[derive(Debug, Clone)]
pub(crate) struct Timetable {
    cron: Cron,
    zone: Tz,
}

/// What is to be done at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// Something was due at this time, after the time last answered. The latest one: what was missed while nothing ran
    /// is caught up with once and not once per time.
    Since(TsMs),
    /// Nothing before this time; `None`: never.
    At(Option<TsMs>),
}

impl Timetable {
    /// Reads an expression of five fields.
    pub(crate) fn parse(cron: &str, zone: Tz) -> Result<Self, JobRefusal> {
        let parser = CronParser::builder().seconds(Seconds::Disallowed).build();
        let cron = parser.parse(cron).map_err(|error| {
            JobRefusal(format!(
                "{cron:?} is no cron expression of five fields (minute, hour, day, month, weekday): {error}"
            ))
        })?;
        Ok(Self { cron, zone })
    }

    /// What is to be done at `now`, when everything up to and including `answered` has been done. A time answered that
    /// is more than a day ahead was that of a clock which has been set back since: it says nothing of what was done, and
    /// the schedule does not stand still until it has come round again.
    pub(crate) fn due(&self, answered: TsMs, now: TsMs) -> Due {
        let answered = match answered > now.saturating_add(DAY_MS) {
            true => TsMs::MIN,
            false => answered,
        };
        let latest = self
            .local(now)
            .and_then(|now| self.cron.find_previous_occurrence(&now, true).ok())
            .map(|latest| latest.timestamp_millis());
        match latest {
            Some(latest) if latest > answered => Due::Since(latest),
            _ => {
                let next = self
                    .local(now)
                    .and_then(|now| self.cron.find_next_occurrence(&now, false).ok());
                Due::At(next.map(|next| next.timestamp_millis()))
            }
        }
    }

    fn local(&self, ts: TsMs) -> Option<DateTime<Tz>> {
        let utc = DateTime::<Utc>::from_timestamp_millis(ts)?;
        Some(self.zone.from_utc_datetime(&utc.naive_utc()))
    }
}
