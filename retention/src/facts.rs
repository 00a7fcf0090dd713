//! What a plan is made from: the rules of a tenant and the facts of each venue-day.

use dwell_model::event::Checksum;
use dwell_model::ids::VenueKey;
use dwell_model::time::{DAY_MS, LocalDay, TsMs};
use serde::{Deserialize, Serialize};

/// How long a tenant's data is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Age at which raw events may go, in milliseconds (default 90 days of 24 hours). Counted from the later of the
    /// day's end and its last mark.
    pub raw_ms: i64,
    /// The same for sessions.
    pub sessions_ms: i64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            raw_ms: 90 * DAY_MS,
            sessions_ms: 90 * DAY_MS,
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
    /// Raw rows of all kinds that the day still has.
    pub raw_rows: u64,
    /// Sessions that the day still has, over all its generations.
    pub sessions: u64,
    /// When the last mark of the day was written; `None` when none ever was.
    pub last_mark_at: Option<TsMs>,
    /// The published generation; `None` when the day was never computed.
    pub published: Option<Published>,
    /// What is proven of the archive.
    pub archive: ArchiveProof,
    /// Somebody forbids deleting anything of the day.
    pub legal_hold: Option<LegalHold>,
}

/// The state of a published generation, as far as deleting depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// Its number.
    pub generation: u64,
    /// Computed while the day was open.
    pub provisional: bool,
    /// A mark is missing from, or above, those that it was computed with.
    pub dirty: bool,
}

/// How sure it is that the archive holds a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ArchiveProof {
    /// The archive has nothing of the day.
    Missing,
    /// It has files that nobody has read back and compared with raw.
    Unverified,
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
