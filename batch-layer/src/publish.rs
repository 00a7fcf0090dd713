//! Publishing: the one conditional flip, and what is written down about it.

use std::collections::BTreeMap;

use dwell_model::event::{Checksum, Kind};
use dwell_model::ids::VenueKey;
use dwell_model::metrics::DaySlices;
use dwell_runtime::failpoint;
use dwell_storage::api::{Flip, GenerationInfo, LateArrivals, LateLedger, publications};
use dwell_storage::error::StorageError;

use crate::error::{Doing, Error, Result};
use crate::late::LateEvents;
use crate::layer::BatchLayer;
use crate::plan::Cause;
use crate::run::{DayRun, Inputs};

/// Tries of a flip whose outcome stays unknown.
const TRIES: u32 = 3;

/// Publishes a generation. A write that may or may not have happened is looked up and, if it did not, tried again:
/// its condition keeps it from happening twice. `OutcomeUnknown` when that cannot be found out either.
///
/// The feed of publications is told before and after, so that a death in between leaves nothing out of it.
pub(crate) async fn publish(layer: &BatchLayer, day: &DayRun, info: GenerationInfo) -> Result<Flip> {
    let before = day.before.as_ref().map(|before| before.generation);
    // One of another cut is compared with nothing, so that the entry replaces the day as a whole: an hour that went to a
    // neighbouring day must not be told as gone by this one.
    let same_cut = day
        .before
        .as_ref()
        .filter(|before| before.calendar == info.calendar);
    let listed_before = same_cut.map(|before| before.generation);
    let stores = layer.stores();
    publications::announce(
        stores.documents.as_ref(),
        stores.venue_days.as_ref(),
        &day.venue,
        day.request.day,
        info.generation,
        listed_before,
    )
    .await
    .doing("announce the generation")?;
    failpoint!("batch.after_announce");
    let flip = flip(layer, day, before, info).await?;
    failpoint!("batch.before_listed");
    if flip == Flip::Done {
        layer.settle_feed(&day.venue).await;
    }
    Ok(flip)
}

/// The flip itself.
async fn flip(layer: &BatchLayer, day: &DayRun, before: Option<u64>, info: GenerationInfo) -> Result<Flip> {
    let days = &layer.stores().venue_days;
    let mut doubt: Option<StorageError> = None;
    for _ in 0..TRIES {
        match days.publish(&day.lease, before, info.clone()).await {
            Err(failed) if failed.kind().is_retryable() => doubt = Some(failed),
            // Lost to an earlier try of its own, perhaps.
            Ok(Flip::Lost) if doubt.is_some() => {}
            flip => return flip.doing("publish the generation"),
        }
        match was_published(layer, day, info.generation).await {
            Ok(true) => return Ok(Flip::Done),
            Ok(false) => {}
            Err(failed) => doubt = Some(failed),
        }
    }
    match doubt {
        Some(source) => Err(Error::OutcomeUnknown { source }),
        None => Ok(Flip::Lost),
    }
}

impl BatchLayer {
    /// Brings what was published into the venue's feed. What fails is done by whoever settles next: the next
    /// publication of the venue, or its next night.
    pub(crate) async fn settle_feed(&self, venue: &VenueKey) {
        let stores = self.stores();
        let (documents, days) = (stores.documents.as_ref(), stores.venue_days.as_ref());
        if let Err(error) = publications::settle(documents, days, venue, self.now_ms()).await {
            tracing::warn!(%venue, %error, "publications not listed yet");
        }
    }
}

/// Raises the marks of a generation whose input has not changed.
pub(crate) async fn raise_marks(layer: &BatchLayer, day: &DayRun, before: &GenerationInfo) -> Result<Flip> {
    let days = &layer.stores().venue_days;
    let mut tries = 0;
    loop {
        tries += 1;
        match days
            .raise_marks(&day.lease, before.generation, &day.marks, before.provisional)
            .await
        {
            Err(failed) if failed.kind().is_retryable() => {
                let raised = |now: GenerationInfo| {
                    now.generation == before.generation && !day.marks.exceed(&now.marks)
                };
                if published_now(layer, day).await.is_some_and(raised) {
                    return Ok(Flip::Done);
                }
                if tries == TRIES {
                    return Err(failed).doing("raise the published marks");
                }
            }
            flip => return flip.doing("raise the published marks"),
        }
    }
}

/// Why the generation was computed, for people: what differs from the one before.
pub(crate) fn reason(
    day: &DayRun,
    inputs: &Inputs,
    events: &BTreeMap<Kind, Checksum>,
    late: &LateEvents,
) -> String {
    let mut reasons: Vec<String> = Vec::new();
    match &day.before {
        None => reasons.push(Cause::NeverComputed.to_string()),
        Some(before) => {
            if before.slices.is_none() && inputs.slices != DaySlices::default() {
                reasons.push("first slices".to_owned());
            }
            let mut cause = |cause: Cause, holds: bool| {
                if holds {
                    reasons.push(cause.to_string());
                }
            };
            cause(Cause::DayClosed, before.provisional && !day.open);
            cause(Cause::CutChanged, before.calendar != day.calendar);
            cause(Cause::LayoutChanged, before.layout != inputs.layout);
            cause(
                Cause::DefinitionsChanged,
                before.definitions != inputs.definitions,
            );
            cause(Cause::CarryChanged, before.carry_in != inputs.carry_in);
            let excluded = exclusions_changed(day, inputs);
            cause(Cause::ExclusionsChanged, excluded);
            // What exclusions take out or bring back is neither new nor late.
            if before.events != *events && (!excluded || late.events > 0) {
                let grown = added(&before.events, events) > 0;
                reasons.push(match (before.provisional, grown || late.events > 0) {
                    (true, _) => "new events".to_owned(),
                    (false, true) => "late events".to_owned(),
                    (false, false) => "events changed".to_owned(),
                });
            }
            if reasons.is_empty() {
                let why = if day.request.force {
                    "forced"
                } else {
                    "archive rewritten"
                };
                reasons.push(why.to_owned());
            }
        }
    }
    let reasons = reasons.join(", ");
    match &day.request.reason {
        Some(asked) => format!("{reasons} (asked for: {asked})"),
        None => reasons,
    }
}

/// Whether the generation before was computed with other exclusions.
pub(crate) fn exclusions_changed(day: &DayRun, inputs: &Inputs) -> bool {
    day.before
        .as_ref()
        .is_some_and(|before| before.exclusions.fingerprint != inputs.exclusions.fingerprint)
}

/// The day's late ledger, going on from the generation before. What came after a provisional generation was in time.
pub(crate) fn ledger(
    before: Option<&GenerationInfo>,
    events: &BTreeMap<Kind, Checksum>,
    late: &LateEvents,
    exclusions_changed: bool,
) -> LateLedger {
    let Some(before) = before else {
        return LateLedger::default();
    };
    let kept = LateLedger {
        added: None,
        ..before.late.clone()
    };
    if before.provisional || before.events == *events {
        return kept;
    }
    // Deliveries date an event by its first arrival, counts see those that an import dated before; but what an undo
    // brings back had come before.
    let missed = match exclusions_changed {
        true => late.events,
        false => late.events.max(added(&before.events, events)),
    };
    if missed == 0 {
        return kept;
    }
    let earliest = late.earliest_ts.unwrap_or(before.day_end).min(before.day_end);
    LateLedger {
        events: kept.events + missed,
        max_late_ms: kept.max_late_ms.max(before.published_at - earliest),
        receipts: kept.receipts + late.receipts,
        added: Some(LateArrivals {
            events: missed,
            ..late.arrivals.clone()
        }),
    }
}

/// How many events more, over all kinds that have more.
fn added(before: &BTreeMap<Kind, Checksum>, now: &BTreeMap<Kind, Checksum>) -> u64 {
    let had = |kind| before.get(kind).map_or(0, |sum| sum.rows);
    now.iter()
        .map(|(kind, sum)| sum.rows.saturating_sub(had(kind)))
        .sum()
}

/// Whether a generation is, or ever was, published.
async fn was_published(layer: &BatchLayer, day: &DayRun, generation: u64) -> Result<bool, StorageError> {
    let days = &layer.stores().venue_days;
    let row = days.get(&day.venue, day.request.day).await?;
    if row
        .and_then(|row| row.published)
        .is_some_and(|now| now.generation == generation)
    {
        return Ok(true);
    }
    // Another worker may have published after it.
    let history = days.history(&day.venue, day.request.day).await?;
    Ok(history.iter().any(|info| info.generation == generation))
}

/// What is published after a write that failed; nothing when that cannot be told either.
async fn published_now(layer: &BatchLayer, day: &DayRun) -> Option<GenerationInfo> {
    layer
        .stores()
        .venue_days
        .get(&day.venue, day.request.day)
        .await
        .ok()??
        .published
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::generation;

    fn events(rows: u64, sum: u128) -> BTreeMap<Kind, Checksum> {
        BTreeMap::from([(Kind::Position, Checksum { rows, sum })])
    }

    fn published(rows: u64) -> GenerationInfo {
        GenerationInfo {
            published_at: 5_000,
            day_end: 1_000,
            events: events(rows, 7),
            ..generation()
        }
    }

    #[test]
    fn the_first_generation_has_nothing_late() {
        assert_eq!(
            ledger(None, &events(3, 1), &LateEvents::default(), false),
            LateLedger::default()
        );
    }

    #[test]
    fn late_events_add_up_over_generations_with_the_longest_delay() {
        let mut before = published(10);
        before.late = LateLedger {
            events: 2,
            max_late_ms: 100,
            receipts: 1,
            added: None,
        };
        let late = LateEvents {
            events: 3,
            earliest_ts: Some(400),
            receipts: 2,
            arrivals: LateArrivals {
                sensors_all: 7,
                ..LateArrivals::default()
            },
        };
        let after = ledger(Some(&before), &events(13, 9), &late, false);
        assert_eq!(
            after,
            LateLedger {
                events: 5,
                max_late_ms: 4_600,
                receipts: 3,
                added: Some(LateArrivals {
                    events: 3,
                    sensors_all: 7,
                    ..LateArrivals::default()
                }),
            }
        );
    }

    #[test]
    fn events_that_an_import_dates_before_the_publishing_are_late_too() {
        let after = ledger(
            Some(&published(10)),
            &events(14, 9),
            &LateEvents::default(),
            false,
        );
        assert_eq!(
            after,
            LateLedger {
                events: 4,
                max_late_ms: 4_000,
                receipts: 0,
                added: Some(LateArrivals {
                    events: 4,
                    ..LateArrivals::default()
                }),
            }
        );
    }

    #[test]
    fn what_follows_a_provisional_generation_was_in_time() {
        let mut before = published(10);
        before.provisional = true;
        let late = LateEvents {
            events: 3,
            earliest_ts: Some(400),
            receipts: 2,
            arrivals: LateArrivals {
                sensors_all: 7,
                ..LateArrivals::default()
            },
        };
        assert_eq!(
            ledger(Some(&before), &events(13, 9), &late, false),
            LateLedger::default()
        );
    }

    #[test]
    fn a_recompute_of_the_same_events_leaves_the_ledger_alone() {
        let mut before = published(10);
        before.late = LateLedger {
            events: 2,
            max_late_ms: 100,
            receipts: 1,
            added: None,
        };
        assert_eq!(
            ledger(Some(&before), &events(10, 7), &LateEvents::default(), false),
            before.late
        );
    }

    #[test]
    fn what_an_undo_brings_back_is_not_late() {
        let (mut before, all) = (published(10), events(14, 9));
        before.exclusions.fingerprint = 1;
        assert_eq!(
            ledger(Some(&before), &all, &LateEvents::default(), true),
            before.late
        );
        let late = LateEvents {
            events: 1,
            earliest_ts: Some(400),
            receipts: 1,
            ..LateEvents::default()
        };
        assert_eq!(
            ledger(Some(&before), &all, &late, true).events,
            1,
            "what came since is"
        );
    }
}
