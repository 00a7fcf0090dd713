//! Schedules: the jobs that are asked for by themselves, and when.
//!
//! A [`Schedule`] is a document that operators write: a kind of job, a cron expression with a time zone (one's own, or
//! each venue's), and what must be done before. When it was last due, and by which job that was answered, is a
//! [`ScheduleRun`] beside it, changed by conditional writes: of any number of schedulers one asks for the job. [`due`]
//! says when; [`service`] looks again and again.

mod builtin;
mod due;
mod service;
#[cfg(test)]
mod tests;

use chrono_tz::Tz;
use dwell_model::ids::{TenantId, VenueId};
use dwell_model::time::TsMs;
use dwell_serving_api::{JobCatalogue, JobRefusal, JobRequest};
use dwell_storage::api::{DocumentKind, Lane};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub(crate) use self::builtin::BuiltIn;
pub(crate) use self::due::{Due, Timetable};
pub(crate) use self::service::{Remembered, Scheduler, standings};

/// The word for "in each venue's own time": a job per venue.
pub(crate) const VENUE_TIME: &str = "venue";
/// What a schedule waits for when it waits for the nights: that no closed day is left to be computed.
pub(crate) const NIGHTS: &str = "nights";
/// Longest name of a schedule, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// Most schedules that one waits for.
const AFTER_MAX: usize = 16;

/// A job that is asked for by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Schedule {
    /// Kind of the job.
    pub(crate) kind: String,
    /// When: minute, hour, day of the month, month, day of the week.
    pub(crate) cron: String,
    /// In which time zone: an IANA name, or `venue` for a job per venue in its own time.
    #[serde(default = "utc")]
    pub(crate) time_zone: String,
    /// Which venues; all when left out.
    #[serde(default)]
    pub(crate) venues: Option<Vec<VenueId>>,
    /// What the kind wants to know besides.
    #[serde(default)]
    pub(crate) options: Map<String, Value>,
    /// Why, for kinds that want a reason (`revert`), and for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// Which queue its jobs wait in; nightly when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lane: Option<Lane>,
    /// What must be done first: other schedules, or `nights`.
    #[serde(default)]
    pub(crate) after: Vec<String>,
    /// Made by Dwell itself: see [`builtin`].
    #[serde(default)]
    pub(crate) built_in: bool,
    /// Does nothing until it is resumed.
    #[serde(default)]
    pub(crate) paused: bool,
    /// Taken back; its name can be used again.
    #[serde(default)]
    pub(crate) removed: bool,
    /// Due times count from here on: when it was made, or resumed.
    #[serde(default)]
    pub(crate) since: TsMs,
}

impl DocumentKind for Schedule {
    const COLLECTION: &'static str = "schedules";
}

/// When a schedule was last due, and what was done about it. By the schedule's name, or `name@venue`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ScheduleRun {
    /// The time of which the job is.
    pub(crate) planned_at: TsMs,
    /// The job's id, decided before the job is stored: whoever finds no such job stores it.
    pub(crate) job: String,
}

impl DocumentKind for ScheduleRun {
    const COLLECTION: &'static str = "schedule-runs";
}

fn utc() -> String {
    "UTC".to_owned()
}

impl Schedule {
    /// Checks a schedule by its name, with the others that there are.
    pub(crate) fn check(
        &self,
        tenant: &TenantId,
        name: &str,
        others: &[(String, Schedule)],
        kinds: &dyn JobCatalogue,
    ) -> Result<(), JobRefusal> {
        let refuse = |why: String| Err(JobRefusal(why));
        let in_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(in_name) || name == NIGHTS {
            return refuse(format!(
                "a schedule is named by 1 to {NAME_BYTES_MAX} small letters, digits and dashes, not {NIGHTS:?}"
            ));
        }
        Timetable::parse(&self.cron, self.zone(Tz::UTC)?)?;
        let request = self.request(tenant, self.venues.clone());
        if let Err(refusal) = kinds.decide(&request) {
            return refuse(refusal.to_string());
        }
        if self.after.len() > AFTER_MAX {
            return refuse(format!("after names more than {AFTER_MAX} schedules"));
        }
        for before in self.after.iter().filter(|before| *before != NIGHTS) {
            if !others.iter().any(|(other, _)| other == before) {
                return refuse(format!("after names {before:?}: there is no such schedule"));
            }
            if waits_for(before, name, others, AFTER_MAX) {
                return refuse(format!(
                    "{before:?} waits for {name:?} itself: neither would ever run"
                ));
            }
        }
        Ok(())
    }

    /// Whether it asks for a job per venue.
    pub(crate) fn is_per_venue(&self) -> bool {
        self.time_zone == VENUE_TIME
    }

    /// The zone in which its times are read, of a venue in `of_venue`.
    pub(crate) fn zone(&self, of_venue: Tz) -> Result<Tz, JobRefusal> {
        if self.is_per_venue() {
            return Ok(of_venue);
        }
        self.time_zone.parse().map_err(|_| {
            JobRefusal(format!(
                "{:?} is neither {VENUE_TIME:?} nor a time zone of the IANA database, as Europe/Madrid",
                self.time_zone
            ))
        })
    }

    /// The job that it asks for.
    pub(crate) fn request(&self, tenant: &TenantId, venues: Option<Vec<VenueId>>) -> JobRequest {
        JobRequest {
            tenant: tenant.clone(),
            kind: self.kind.clone(),
            venues,
            from: None,
            to: None,
            dry_run: false,
            reason: self.reason.clone(),
            lane: Some(self.lane.unwrap_or(Lane::Nightly)),
            options: self.options.clone(),
        }
    }
}

/// Whether a schedule waits for another one, over others.
fn waits_for(name: &str, other: &str, all: &[(String, Schedule)], steps_left: usize) -> bool {
    if name == other {
        return true;
    }
    let Some((_, schedule)) = all.iter().find(|(known, _)| known == name) else {
        return false;
    };
    steps_left > 0
        && schedule
            .after
            .iter()
            .any(|before| waits_for(before, other, all, steps_left - 1))
}
