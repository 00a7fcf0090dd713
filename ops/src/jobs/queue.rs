//! Which job a free place takes next. Pure: told what waits and what runs, it answers with one of those that wait.
//!
//! - *Lanes*: nightly before demand before backfill. A lane that has been passed over [`PASSED_OVER_MAX`] times while it
//!   could have had the place is next, so that none starves.
//! - *Places*: backfill never takes the last places ([`Places::backfill`] of [`Places::all`] are its most), so that what
//!   is short does not wait behind what takes hours.
//! - *Tenants in turn* within a lane: the one whose last turn is longest ago. Within a tenant the oldest job.
//! - A kind that is not to run twice at a time waits while a job of its kind and tenant runs.
//!
//! Turns are counted in this process: of several processes each is fair by itself, and with it all of them.

use std::collections::BTreeMap;

use dwell_model::ids::TenantId;
use dwell_model::time::TsMs;
use dwell_storage::api::{Job, JobState, Lane};
use serde::{Deserialize, Serialize};

use super::LEASE_MS;

/// How often a lane that could have had a place is passed over.
pub(super) const PASSED_OVER_MAX: u32 = 8;

/// How many jobs a process works on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Places {
    /// Jobs at a time. Default 3.
    #[serde(rename = "places")]
    pub(crate) all: usize,
    /// Of these, jobs of the lane backfill; at least one place is always left to others. Default 1.
    #[serde(rename = "backfill_places")]
    pub(crate) backfill: usize,
}

impl Default for Places {
    fn default() -> Self {
        Self { all: 3, backfill: 1 }
    }
}

impl Places {
    /// A command's: one job after the other. It ends with its own, so whatever else it has begun would be dropped.
    pub(crate) fn of_command() -> Self {
        Self { all: 1, backfill: 1 }
    }

    /// Why these cannot be meant.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        if !(2..=64).contains(&self.all) {
            return Some("jobs.places must be from 2 to 64");
        }
        if self.backfill == 0 || self.backfill >= self.all {
            return Some("jobs.backfill_places must be from 1 to one less than jobs.places");
        }
        None
    }
}

/// A job as far as the queue cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) id: String,
    pub(super) tenant: TenantId,
    pub(super) lane: Lane,
    pub(super) created_at: TsMs,
}

impl Waiting {
    /// Those of some jobs that a worker may take. `is_alone`: whether a kind is not to run twice at a time.
    pub(super) fn of(unfinished: &[Job], now: TsMs, is_alone: impl Fn(&Job) -> bool) -> Vec<Self> {
        let runs = |job: &Job| job.state == JobState::Running && !job.is_claimable(now, LEASE_MS);
        let is_taken = |job: &Job| {
            is_alone(job)
                && unfinished
                    .iter()
                    .any(|other| runs(other) && other.kind == job.kind && other.tenant == job.tenant)
        };
        unfinished
            .iter()
            .filter(|job| job.is_claimable(now, LEASE_MS) && !is_taken(job))
            .map(|job| Self {
                id: job.id.clone(),
                tenant: job.tenant.clone(),
                lane: job.lane,
                created_at: job.created_at,
            })
            .collect()
    }
}

/// Whose turn it is, and what runs in this process.
#[derive(Debug, Default)]
pub(super) struct Queue {
    running: BTreeMap<Lane, usize>,
    turn: u64,
    last_turns: BTreeMap<(Lane, TenantId), u64>,
    passed_over: BTreeMap<Lane, u32>,
}

impl Queue {
    /// Jobs that run here.
    pub(super) fn running(&self) -> usize {
        self.running.values().sum()
    }

    /// The job that a free place takes; `None` when there is no place, or nothing that may have it.
    pub(super) fn next<'a>(&self, waiting: &'a [Waiting], places: &Places) -> Option<&'a Waiting> {
        let open = self.open_lanes(waiting, places);
        let starved = |lane: &&Lane| self.passed_over.get(lane).copied().unwrap_or(0) >= PASSED_OVER_MAX;
        let lane = open.iter().find(starved).or(open.first())?;
        let in_lane = || waiting.iter().filter(|job| job.lane == *lane);
        let tenant = in_lane().min_by_key(|job| (self.last_turn(job), job.created_at, &job.id))?;
        in_lane()
            .filter(|job| job.tenant == tenant.tenant)
            .min_by_key(|job| (job.created_at, &job.id))
    }

    /// Takes down that a job has begun, picked from those that waited.
    pub(super) fn begun(&mut self, job: &Waiting, waiting: &[Waiting], places: &Places) {
        for lane in Lane::ALL {
            let could_have = self.open_lanes(waiting, places).contains(&lane);
            let passed_over = self.passed_over.entry(lane).or_default();
            match lane == job.lane || !waiting.iter().any(|waiting| waiting.lane == lane) {
                true => *passed_over = 0,
                false => *passed_over += u32::from(could_have),
            }
        }
        self.turn += 1;
        self.last_turns.insert((job.lane, job.tenant.clone()), self.turn);
        *self.running.entry(job.lane).or_default() += 1;
    }

    /// Takes down that a job of a lane has ended here.
    pub(super) fn ended(&mut self, lane: Lane) {
        if let Some(running) = self.running.get_mut(&lane) {
            *running = running.saturating_sub(1);
        }
    }

    /// The lanes of which a job waits and may have a place, the first to go first.
    fn open_lanes(&self, waiting: &[Waiting], places: &Places) -> Vec<Lane> {
        if self.running() >= places.all {
            return Vec::new();
        }
        let backfills = self.running.get(&Lane::Backfill).copied().unwrap_or(0);
        let may = |lane: &Lane| *lane != Lane::Backfill || backfills < places.backfill;
        Lane::ALL
            .into_iter()
            .filter(|lane| may(lane) && waiting.iter().any(|job| job.lane == *lane))
            .collect()
    }

    fn last_turn(&self, job: &Waiting) -> u64 {
        let last = self.last_turns.get(&(job.lane, job.tenant.clone()));
        last.copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
