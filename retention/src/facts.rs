//! What a plan is made from: the rules of a tenant and the facts of each venue-day.

use std::collections::BTreeMap;

use dwell_model::event::{Checksum, Kind};
use dwell_model::ids::VenueKey;
use dwell_model::time::{DAY_MS, LocalDay, TsMs};
use serde::{Deserialize, Serialize};

/// The shortest age that a policy may set: a day and what comes late to it must have had time to be archived.
pub const AGE_MS_MIN: i64 = DAY_MS;

/// How long a tenant's data is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Age at which raw events may go, in milliseconds (default 90 days of 24 hours). Counted from the later of the
    /// day's end and its last mark.
    pub raw_ms: i64,
    /// Kinds of events with an age of their own.
    pub raw_of_kind_ms: BTreeMap<Kind, i64>,
    /// The same for sessions.
    pub sessions_ms: i64,
    /// Age at which a generation that is no longer published may go, counted from the moment that another replaced it
    /// (default 400 days).
    pub generations_ms: i64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            raw_ms: 90 * DAY_MS,
            raw_of_kind_ms: BTreeMap::new(),
            sessions_ms: 90 * DAY_MS,
            generations_ms: 400 * DAY_MS,
        }
    }
}

/// A policy that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an age of {what} must be at least {AGE_MS_MIN} ms (one day), not {ms} ms")]
pub struct PolicyError {
    what: &'static str,
    ms: i64,
}

impl Policy {
    /// Age at which raw events of a kind may go.
    pub fn raw_ms_of(&self, kind: Kind) -> i64 {
        self.raw_of_kind_ms.get(&kind).copied().unwrap_or(self.raw_ms)
    }

    /// The shortest age at which raw events or sessions may go.
    pub fn first_due_ms(&self) -> i64 {
        let kinds = Kind::ALL.into_iter().map(|kind| self.raw_ms_of(kind));
        kinds.fold(self.sessions_ms, i64::min)
    }

    /// Refuses ages that are too short.
    pub fn check(&self) -> Result<(), PolicyError> {
        let of_kinds = self.raw_of_kind_ms.iter().map(|(kind, ms)| (kind.name(), *ms));
        let all = [
            ("raw events", self.raw_ms),
            ("sessions", self.sessions_ms),
            ("old generations", self.generations_ms),
        ];
        match all.into_iter().chain(of_kinds).find(|(_, ms)| *ms < AGE_MS_MIN) {
            Some((what, ms)) => Err(PolicyError { what, ms }),
            None => Ok(()),
        }
    }
}

/// What is known of one venue-day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DayFacts {
    /// Whose day.
    pub venue: VenueKey,
    /// The day.
    pub day: LocalDay,
    /// First instant after the day.
    pub day_end: TsMs,
    /// Raw rows that the day still has, by kind; kinds without rows are left out.
    pub raw_rows: BTreeMap<Kind, u64>,
    /// Sessions that the day still has, over all its generations.
    pub sessions: u64,
    /// Generations that are no longer published.
    pub old_generations: Vec<OldGeneration>,
    /// When the last mark of the day was written; `None` when none ever was.
    pub last_mark_at: Option<TsMs>,
    /// The published generation; `None` when the day was never computed.
    pub published: Option<Published>,
    /// What is proven of the archive.
    pub archive: ArchiveProof,
    /// Somebody forbids deleting anything of the day.
    pub legal_holds: Vec<LegalHold>,
}

/// A generation that is no longer published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OldGeneration {
    /// Its number.
    pub generation: u64,
    /// When the one after it was published.
    pub replaced_at: TsMs,
    /// A backup that is being made, or a closed period, needs it.
    pub pinned: bool,
}

/// The state of a published generation, as far as deleting depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// Its number.
    pub generation: u64,
    /// Computed while the day was open.
    pub provisional: bool,
    /// A mark is missing from, or above, those that it was computed with; or the venue cuts its days otherwise now.
    pub dirty: bool,
}

/// How sure it is that the archive holds a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ArchiveProof {
    /// The archive has nothing of the day, or lacks a kind that the published generation was made of.
    Missing,
    /// Nobody has compared it with raw since raw last changed.
    Unverified,
    /// It could not be read back.
    Unreadable {
        /// What is wrong, naming the file.
        what: String,
    },
    /// Every raw row with each of its deliveries was looked for in the files read back.
    Verified {
        /// When the comparison began: only rows written before count as compared.
        at: TsMs,
        /// Over identities, payloads and deliveries of the raw rows compared.
        raw: Checksum,
        /// The same over those of them that were found in the archive, as a winner or as superseded.
        found: Checksum,
    },
}

/// A reason, given by a person, to delete nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LegalHold {
    /// Why, for people.
    pub reason: String,
    /// First instant at which it no longer holds; `None`: until it is lifted.
    pub until: Option<TsMs>,
}

impl LegalHold {
    /// Whether it forbids deleting at an instant.
    pub fn holds_at(&self, now: TsMs) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}
