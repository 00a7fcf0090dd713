//! The plan: for each venue-day, what of it may be deleted and what holds the rest back.
//!
//! A day's raw rows may go when all of this is true: no legal hold, the day is old enough (from the later of its end
//! and its last mark), its published generation is final and includes every mark, and a comparison found every raw row
//! with every delivery in the archive. Then only rows written before that comparison may go; what was written since
//! waits for the next. Sessions can be computed anew from what the archive holds, so they follow the same rule with an
//! age of their own. Aggregates are never part of a plan.

use dwell_model::ids::VenueKey;
use dwell_model::time::{LocalDay, TsMs};
use serde::{Deserialize, Serialize};

use crate::facts::{ArchiveProof, DayFacts, Policy};

/// What may be deleted of which days.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The time it was made for.
    pub now: TsMs,
    /// The rules it follows.
    pub policy: Policy,
    /// An entry for each day described, in their order.
    pub days: Vec<DayPlan>,
    /// Sums over the days.
    pub totals: Totals,
}

/// What may be deleted of one venue-day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayPlan {
    /// Whose day.
    pub venue: VenueKey,
    /// The day.
    pub day: LocalDay,
    /// About its raw rows.
    pub raw: Verdict,
    /// About its sessions.
    pub sessions: Verdict,
}

/// What may be done with one class of a day's rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// There is nothing to delete.
    Empty,
    /// The rows may go.
    Delete {
        /// How many there are, by the description.
        rows: u64,
        /// Only rows written before this instant: when the comparison with the archive began.
        written_before: TsMs,
    },
    /// The rows stay.
    Keep {
        /// How many there are, by the description.
        rows: u64,
        /// Everything that holds them back; at least one reason.
        reasons: Vec<KeepReason>,
    },
}

/// Why rows stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum KeepReason {
    /// A legal hold forbids it.
    LegalHold {
        /// Why, as the hold says.
        because: String,
        /// Until when; `None`: until it is lifted.
        until: Option<TsMs>,
    },
    /// The day, or what last touched it, is not old enough.
    TooYoung {
        /// When it will be.
        until: TsMs,
    },
    /// The day was never computed.
    NotPublished,
    /// The published generation was computed while the day was open.
    Provisional {
        /// Its number.
        generation: u64,
    },
    /// Something came after the published generation had been computed.
    Dirty {
        /// Its number.
        generation: u64,
    },
    /// The archive has nothing of the day.
    NotArchived,
    /// Nobody has compared the archive with raw.
    NotVerified,
    /// The comparison missed rows or deliveries in the archive.
    ArchiveDiffers {
        /// Rows with their deliveries that raw held.
        raw_rows: u64,
        /// Those of them that the archive held.
        found_rows: u64,
    },
}

/// Sums over a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Days of which something may go.
    pub days_to_delete: u64,
    /// Days with rows of which nothing may go.
    pub days_to_keep: u64,
    /// Raw rows that may go.
    pub raw_rows: u64,
    /// Sessions that may go.
    pub sessions: u64,
}

/// Decides for each day what may be deleted at `now`. Each day is decided for itself.
pub fn plan(policy: &Policy, now: TsMs, days: &[DayFacts]) -> Plan {
    let mut totals = Totals::default();
    let days = days
        .iter()
        .map(|facts| {
            let raw = verdict(facts, facts.raw_rows, policy.raw_ms, now);
            let sessions = verdict(facts, facts.sessions, policy.sessions_ms, now);
            totals.add(&raw, &sessions);
            DayPlan {
                venue: facts.venue.clone(),
                day: facts.day,
                raw,
                sessions,
            }
        })
        .collect();
    Plan {
        now,
        policy: *policy,
        days,
        totals,
    }
}

fn verdict(facts: &DayFacts, rows: u64, keep_ms: i64, now: TsMs) -> Verdict {
    if rows == 0 {
        return Verdict::Empty;
    }
    let mut reasons = Vec::new();
    if let Some(hold) = facts.legal_hold.as_ref().filter(|hold| hold.holds_at(now)) {
        reasons.push(KeepReason::LegalHold {
            because: hold.reason.clone(),
            until: hold.until,
        });
    }
    // Saturating: a nonsensical age keeps for ever instead of wrapping into the past.
    let until = facts
        .last_mark_at
        .map_or(facts.day_end, |mark| mark.max(facts.day_end))
        .saturating_add(keep_ms);
    if now < until {
        reasons.push(KeepReason::TooYoung { until });
    }
    match facts.published {
        None => reasons.push(KeepReason::NotPublished),
        Some(published) => {
            let generation = published.generation;
            if published.provisional {
                reasons.push(KeepReason::Provisional { generation });
            }
            if published.dirty {
                reasons.push(KeepReason::Dirty { generation });
            }
        }
    }
    let written_before = match facts.archive {
        ArchiveProof::Missing => Err(KeepReason::NotArchived),
        ArchiveProof::Unverified => Err(KeepReason::NotVerified),
        ArchiveProof::Verified { raw, found, .. } if raw != found => Err(KeepReason::ArchiveDiffers {
            raw_rows: raw.rows,
            found_rows: found.rows,
        }),
        ArchiveProof::Verified { at, .. } => Ok(at),
    };
    match written_before {
        Ok(written_before) if reasons.is_empty() => Verdict::Delete { rows, written_before },
        Ok(_) => Verdict::Keep { rows, reasons },
        Err(reason) => {
            reasons.push(reason);
            Verdict::Keep { rows, reasons }
        }
    }
}

impl Totals {
    fn add(&mut self, raw: &Verdict, sessions: &Verdict) {
        if let Verdict::Delete { rows, .. } = raw {
            self.raw_rows += rows;
        }
        if let Verdict::Delete { rows, .. } = sessions {
            self.sessions += rows;
        }
        let both = [raw, sessions];
        if both
            .iter()
            .any(|verdict| matches!(verdict, Verdict::Delete { .. }))
        {
            self.days_to_delete += 1;
        } else if both.iter().any(|verdict| matches!(verdict, Verdict::Keep { .. })) {
            self.days_to_keep += 1;
        }
    }
}

#[cfg(test)]
mod tests;
