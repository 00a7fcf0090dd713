//! The recompute step: a venue-day's events through the model's folds, to sessions and aggregate rows.
//!
//! A closed day is read from its archive, winners only, chunk by chunk as the reader gives them. Where the archive's
//! winners are not enough (the day is still open and its rows stay in raw, or an exclusion may bring back what a covered
//! delivery had superseded) all that is known of a kind is united and resolved, part by part (see
//! [`pieces`]). Both ways end in one [`DayFolder`] on a blocking thread, so memory is bounded by a chunk or a part, and by
//! what the day's sessions and buckets take.

mod conflicts;
mod folder;
pub(crate) mod pieces;

use std::collections::{BTreeMap, BTreeSet};

use dwell_model::event::{Checksum, Kind};
use dwell_model::exclusion::DayExclusions;
use dwell_model::ids::VenueKey;
use dwell_model::layout::Layout;
use dwell_model::metrics::{AggregateRow, Carry};
use dwell_model::session::FoldContext;
use dwell_model::time::{DayCut, TsMs};
use dwell_runtime::tasks::blocking;
use dwell_storage::api::StoredSession;
use tokio::sync::mpsc;

use crate::error::{Doing, Result};
use crate::late::LateEvents;
use crate::layer::BatchLayer;
use crate::lease::Stop;
use crate::parts::check_count;
use crate::run::DayRun;
use conflicts::Conflicts;
use folder::DayFolder;
use pieces::{Piece, Purpose, Winners};

/// Version of the metric definitions that the folds follow.
pub(crate) const DEFINITIONS_VERSION: u32 = dwell_model::definitions::VERSION;

/// What a day's events come to.
#[derive(Debug)]
pub(crate) struct Computed {
    /// Sorted as a generation stores them.
    pub(crate) rows: Vec<AggregateRow>,
    pub(crate) sessions: Vec<StoredSession>,
    /// The counters' last samples, for the next day.
    pub(crate) carry: Carry,
    /// Per kind, the events that counted.
    pub(crate) events: BTreeMap<Kind, Checksum>,
    /// Identities with more than one payload.
    pub(crate) conflicts: u64,
    /// What came after the generation before.
    pub(crate) late: LateEvents,
    /// What exclusions took out.
    pub(crate) excluded: Excluded,
}

/// What exclusions took out of a day.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Excluded {
    /// Those that cover any delivery of the day, by id.
    pub(crate) by: BTreeSet<String>,
    /// Per kind: events of which no delivery is left.
    pub(crate) events: BTreeMap<Kind, u64>,
    /// Events that count with a payload which an excluded one had covered.
    pub(crate) restored: u64,
}

/// What a fold needs besides events; owned, so that it can go to a blocking thread.
struct Setting {
    venue: VenueKey,
    cut: DayCut,
    layout: Layout,
    carry_in: Carry,
    exclusions: DayExclusions,
    /// When the generation before was published, if it was final: what was received later is late.
    published_before: Option<TsMs>,
    stop: Stop,
}

/// Folds a day.
pub(crate) async fn compute(
    layer: &BatchLayer,
    day: &DayRun,
    layout: &Layout,
    carry_in: Carry,
) -> Result<Computed> {
    let _share = layer.memory_share(&day.stop).await?;
    let setting = Setting {
        venue: day.venue.clone(),
        cut: day.cut.clone(),
        layout: layout.clone(),
        carry_in,
        exclusions: day.exclusions.clone(),
        published_before: day
            .before
            .as_ref()
            .filter(|info| !info.provisional)
            .map(|info| info.published_at),
        stop: day.stop.clone(),
    };
    let (pieces, incoming) = mpsc::channel(1);
    let (produced, folded) = tokio::join!(
        // The sender goes with the future: its end ends the fold.
        async move { pieces::read(layer, day, Purpose::Fold, pieces).await },
        blocking("batch.fold", move || fold(setting, incoming)),
    );
    let folded = folded?;
    produced?;
    folded
}

fn fold(setting: Setting, mut pieces: mpsc::Receiver<Piece>) -> Result<Computed> {
    let context = FoldContext::new(&setting.cut, &setting.layout);
    let mut folder = DayFolder::new(&context, &setting.cut, &setting.layout, setting.carry_in.clone());
    folder.late_after(setting.published_before);
    folder.exclude(setting.exclusions.clone());
    while let Some(piece) = pieces.blocking_recv() {
        setting.stop.check()?;
        match piece {
            Piece::Part(rows) => folder.part(&rows),
            Piece::Winners(winners) => fold_winners(&setting, &mut folder, winners)?,
        }
    }
    Ok(folder.finish())
}

fn fold_winners(setting: &Setting, folder: &mut DayFolder<'_>, winners: Winners) -> Result<()> {
    let Winners {
        kind,
        mut reader,
        written,
        superseded,
    } = winners;
    let mut conflicts = superseded.map(Conflicts::new);
    let mut read = 0;
    while let Some(chunk) = reader.next_chunk().doing("read an archived day")? {
        setting.stop.check()?;
        read += chunk.events.len() as u64;
        if let Some(conflicts) = &mut conflicts {
            conflicts.compare(chunk.events);
        }
        folder.chunk(chunk.events, chunk.first);
    }
    check_count(&setting.venue, setting.cut.day, kind, read, written.rows)?;
    // Writing verified the files against this sum; what the day's bounds or an exclusion left out is taken off it.
    folder.count(kind, written);
    folder.conflicts(conflicts.map_or(0, |conflicts| conflicts.found()));
    Ok(())
}
