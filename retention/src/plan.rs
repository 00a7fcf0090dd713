//! The plan: for each venue-day, what of it may be deleted and what holds the rest back.
//!
//! A day's raw rows may go when all of this is true: no legal hold, the day is old enough (from the later of its end
//! and its last mark), its published generation is final and includes every mark, and a comparison found every raw row
//! with every delivery in the archive. Then only rows written before that comparison may go; what was written since
//! waits for the next. Sessions can be computed anew from what the archive holds, so they follow the same rule with an
//! age of their own. Generations that are no longer published go when they are old enough and nobody needs them. The
//! aggregates of a published generation are never part of a plan.

use std::collections::BTreeMap;

use dwell_model::event::Kind;
use dwell_model::ids::VenueKey;
use dwell_model::time::{LocalDay, TsMs};
use serde::{Deserialize, Serialize};

use crate::facts::{ArchiveProof, DayFacts, OldGeneration, Policy};

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
    /// About its raw rows, kind by kind; kinds without rows are left out.
    pub raw: BTreeMap<Kind, Verdict>,
    /// About its sessions.
    pub sessions: Verdict,
    /// About its generations that are no longer published.
    pub generations: Vec<GenerationPlan>,
}

/// What may be done with one class of a day's rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// There is nothing to delete.
    Empty,
    /// Nothing is against it, but the archive has not been compared: the rows may go once it has, if it holds them.
    Compare {
        /// How many there are, by the description.
        rows: u64,
    },
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

/// What may be done with a generation that is no longer published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationPlan {
    /// Its number.
    pub generation: u64,
    /// What holds it back; it may go when nothing does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<KeepReason>,
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
    /// The archive has nothing of the day, or lacks a kind of its events.
    NotArchived,
    /// The archive could not be read back.
    ArchiveUnreadable {
        /// What is wrong, naming the file.
        what: String,
    },
    /// The comparison missed rows or deliveries in the archive.
    ArchiveDiffers {
        /// Rows with their deliveries that raw held.
        raw_rows: u64,
        /// Those of them that the archive held.
        found_rows: u64,
    },
    /// A backup that is being made, or a closed period, needs the generation.
    Pinned,
}

/// Sums over a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Days of which something may go.
    pub days_to_delete: u64,
    /// Days of which something may go once the archive has been compared, and nothing may before.
    pub days_to_compare: u64,
    /// Days with rows of which nothing may go.
    pub days_to_keep: u64,
    /// Raw rows that may go.
    pub raw_rows: u64,
    /// Sessions that may go.
    pub sessions: u64,
    /// Old generations that may go.
    pub generations: u64,
}

/// Decides for each day what may be deleted at `now`. Each day is decided for itself.
pub fn plan(policy: &Policy, now: TsMs, days: &[DayFacts]) -> Plan {
    let mut totals = Totals::default();
    let days = days
        .iter()
        .map(|facts| {
            let raw = facts.raw_rows.iter().map(|(&kind, &rows)| {
                let verdict = verdict(facts, rows, policy.raw_ms_of(kind), now);
                (kind, verdict)
            });
            let generations = facts.old_generations.iter();
            let decided = DayPlan {
                venue: facts.venue.clone(),
                day: facts.day,
                raw: raw.collect(),
                sessions: verdict(facts, facts.sessions, policy.sessions_ms, now),
                generations: generations
                    .map(|old| generation(facts, old, policy.generations_ms, now))
                    .collect(),
            };
            totals.add(&decided);
            decided
        })
        .collect();
    Plan {
        now,
        policy: policy.clone(),
        days,
        totals,
    }
}

impl KeepReason {
    /// What is wrong with the archive, for people; `None` for a reason of another kind.
    pub fn doubt(&self) -> Option<String> {
        match self {
            KeepReason::ArchiveUnreadable { what } => Some(what.clone()),
            KeepReason::ArchiveDiffers { raw_rows, found_rows } => Some(format!(
                "the archive holds {found_rows} of {raw_rows} raw rows with their deliveries"
            )),
            KeepReason::NotArchived => Some("the archive lacks events of the day".to_owned()),
            KeepReason::LegalHold { .. }
            | KeepReason::TooYoung { .. }
            | KeepReason::NotPublished
            | KeepReason::Provisional { .. }
            | KeepReason::Dirty { .. }
            | KeepReason::Pinned => None,
        }
    }
}

impl DayPlan {
    /// Whether something of the day may go now.
    pub fn deletes(&self) -> bool {
        self.verdicts()
            .any(|verdict| matches!(verdict, Verdict::Delete { .. }))
            || self.generations.iter().any(|old| old.reasons.is_empty())
    }

    /// Whether something of the day waits for a comparison with the archive.
    pub fn compares(&self) -> bool {
        self.verdicts()
            .any(|verdict| matches!(verdict, Verdict::Compare { .. }))
    }

    /// Whether a doubt about the archive holds something back: a comparison may have another result by now.
    pub fn doubts_the_archive(&self) -> bool {
        self.reasons().any(|reason| reason.doubt().is_some())
    }

    /// Everything that holds rows back, with repetitions.
    pub fn reasons(&self) -> impl Iterator<Item = &KeepReason> {
        let of_rows = self.verdicts().flat_map(|verdict| match verdict {
            Verdict::Keep { reasons, .. } => reasons.as_slice(),
            _ => &[],
        });
        of_rows.chain(self.generations.iter().flat_map(|old| &old.reasons))
    }

    fn verdicts(&self) -> impl Iterator<Item = &Verdict> {
        self.raw.values().chain([&self.sessions])
    }
}

fn holds(facts: &DayFacts, now: TsMs) -> Vec<KeepReason> {
    let in_force = facts.legal_holds.iter().filter(|hold| hold.holds_at(now));
    in_force
        .map(|hold| KeepReason::LegalHold {
            because: hold.reason.clone(),
            until: hold.until,
        })
        .collect()
}

fn verdict(facts: &DayFacts, rows: u64, keep_ms: i64, now: TsMs) -> Verdict {
    if rows == 0 {
        return Verdict::Empty;
    }
    let mut reasons = holds(facts, now);
    let until = old_enough_at(facts.day_end, facts.last_mark_at, keep_ms);
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
    match written_before(&facts.archive) {
        Err(reason) => {
            reasons.push(reason);
            Verdict::Keep { rows, reasons }
        }
        Ok(_) if !reasons.is_empty() => Verdict::Keep { rows, reasons },
        Ok(Some(written_before)) => Verdict::Delete { rows, written_before },
        Ok(None) => Verdict::Compare { rows },
    }
}

/// When rows of a day are old enough to go.
pub(crate) fn old_enough_at(day_end: TsMs, last_mark_at: Option<TsMs>, keep_ms: i64) -> TsMs {
    // Saturating: a nonsensical age keeps for ever instead of wrapping into the past.
    last_mark_at
        .map_or(day_end, |mark| mark.max(day_end))
        .saturating_add(keep_ms)
}

/// When the comparison began that lets rows go, `None` when nobody has made one; else the doubt that it left.
pub(crate) fn written_before(archive: &ArchiveProof) -> Result<Option<TsMs>, KeepReason> {
    match archive {
        ArchiveProof::Missing => Err(KeepReason::NotArchived),
        ArchiveProof::Unreadable { what } => Err(KeepReason::ArchiveUnreadable { what: what.clone() }),
        ArchiveProof::Verified { raw, found, .. } if raw != found => Err(KeepReason::ArchiveDiffers {
            raw_rows: raw.rows,
            found_rows: found.rows,
        }),
        ArchiveProof::Verified { at, .. } => Ok(Some(*at)),
        ArchiveProof::Unverified => Ok(None),
    }
}

fn generation(facts: &DayFacts, old: &OldGeneration, keep_ms: i64, now: TsMs) -> GenerationPlan {
    let mut reasons = holds(facts, now);
    let until = old.replaced_at.saturating_add(keep_ms);
    if now < until {
        reasons.push(KeepReason::TooYoung { until });
    }
    if old.pinned {
        reasons.push(KeepReason::Pinned);
    }
    GenerationPlan {
        generation: old.generation,
        reasons,
    }
}

impl Totals {
    /// Adds a day.
    pub fn add(&mut self, day: &DayPlan) {
        for verdict in day.raw.values() {
            if let Verdict::Delete { rows, .. } = verdict {
                self.raw_rows += rows;
            }
        }
        if let Verdict::Delete { rows, .. } = day.sessions {
            self.sessions += rows;
        }
        self.generations += day
            .generations
            .iter()
            .filter(|old| old.reasons.is_empty())
            .count() as u64;
        if day.deletes() {
            self.days_to_delete += 1;
        } else if day.compares() {
            self.days_to_compare += 1;
        } else if day.reasons().next().is_some() {
            self.days_to_keep += 1;
        }
    }

    /// Adds the sums of another plan.
    pub fn merge(&mut self, other: &Totals) {
        self.days_to_delete += other.days_to_delete;
        self.days_to_compare += other.days_to_compare;
        self.days_to_keep += other.days_to_keep;
        self.raw_rows += other.raw_rows;
        self.sessions += other.sessions;
        self.generations += other.generations;
    }
}

#[cfg(test)]
mod tests;
