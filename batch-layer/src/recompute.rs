//! The recompute step: a venue-day's events through the model's folds, to sessions and aggregate rows.
//!
//! A closed day is read from its archive, winners only, chunk by chunk as the reader gives them. A day that is still
//! open stays in raw: its rows are united with what the archive may hold and resolved, part by part. Both ways end in
//! one [`DayFolder`] on a blocking thread, so memory is bounded by a chunk or a part, and by what
//! the day's sessions and buckets take.

mod conflicts;
mod folder;

use std::collections::BTreeMap;

use dwell_model::event::{Checksum, Kind, RawRows};
use dwell_model::ids::VenueKey;
use dwell_model::layout::Layout;
use dwell_model::metrics::{AggregateRow, Carry};
use dwell_model::session::FoldContext;
use dwell_model::time::{DayCut, TsMs};
use dwell_runtime::tasks::blocking;
use dwell_storage::api::{ArchivedDay, DayReader, Projection, StoredSession};
use tokio::sync::mpsc;

use crate::error::{Doing, Error, Result};
use crate::layer::BatchLayer;
use crate::lease::Stop;
use crate::parts::DaySources;
use crate::publish::LateEvents;
use crate::run::DayRun;
use conflicts::Conflicts;
use folder::DayFolder;

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
}

/// What a fold needs besides events; owned, so that it can go to a blocking thread.
struct Setting {
    venue: VenueKey,
    cut: DayCut,
    layout: Layout,
    carry_in: Carry,
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
    let setting = Setting {
        venue: day.venue.clone(),
        cut: day.cut.clone(),
        layout: layout.clone(),
        carry_in,
        published_before: day
            .before
            .as_ref()
            .filter(|info| !info.provisional)
            .map(|info| info.published_at),
        stop: day.stop.clone(),
    };
    if day.open {
        from_raw(layer, day, setting).await
    } else {
        from_archive(layer, day, setting).await
    }
}

/// An archived kind, opened.
struct Opened {
    kind: Kind,
    reader: Box<dyn DayReader>,
    written: Checksum,
    superseded: Option<RawRows>,
}

async fn from_archive(layer: &BatchLayer, day: &DayRun, setting: Setting) -> Result<Computed> {
    let archive = &layer.stores().archive;
    let mut opened = Vec::with_capacity(day.archived.len());
    for (&kind, held) in day.archived.iter().filter(|(_, held)| !held.events.is_empty()) {
        // Deliveries are only worth reading where they can tell which events are new.
        let projection = match &day.before {
            Some(before) if before.events.get(&kind) != Some(&held.events_checksum()) => {
                Projection::EventsAndDeliveries
            }
            _ => Projection::Events,
        };
        let reader = archive
            .open(&day.venue, held, projection)
            .await
            .doing("open an archived day")?;
        let superseded = superseded(layer, day, kind, held).await?;
        opened.push(Opened {
            kind,
            reader,
            written: held.events_checksum(),
            superseded,
        });
    }
    blocking("batch.fold", move || fold_archived(setting, opened)).await?
}

async fn superseded(
    layer: &BatchLayer,
    day: &DayRun,
    kind: Kind,
    held: &ArchivedDay,
) -> Result<Option<RawRows>> {
    if held.superseded.is_empty() {
        return Ok(None);
    }
    let rows = layer.stores().archive.superseded(&day.venue, kind, held).await;
    rows.doing("read superseded rows").map(Some)
}

fn fold_archived(setting: Setting, opened: Vec<Opened>) -> Result<Computed> {
    let context = FoldContext::new(&setting.cut, &setting.layout);
    let mut folder = DayFolder::new(&context, &setting.cut, &setting.layout, setting.carry_in.clone());
    folder.late_after(setting.published_before);
    for Opened {
        kind,
        mut reader,
        written,
        superseded,
    } in opened
    {
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
        if read != written.rows {
            let (venue, day, expected) = (setting.venue, setting.cut.day, written.rows);
            return Err(Error::ArchiveCount {
                venue,
                day,
                kind,
                read,
                expected,
            });
        }
        // Writing verified the files against this sum; what the day's bounds left out is taken off it.
        folder.count(kind, written);
        folder.conflicts(conflicts.map_or(0, |conflicts| conflicts.found()));
    }
    Ok(folder.finish())
}

/// Folds an open day from raw and from what the archive may hold of it.
async fn from_raw(layer: &BatchLayer, day: &DayRun, setting: Setting) -> Result<Computed> {
    let stop = setting.stop.clone();
    let (parts, incoming) = mpsc::channel(1);
    let (produced, folded) = tokio::join!(
        // The sender goes with the future: its end ends the fold.
        async move { read_parts(layer, day, &stop, parts).await },
        blocking("batch.fold", move || fold_parts(setting, incoming)),
    );
    let folded = folded?;
    produced?;
    folded
}

async fn read_parts(
    layer: &BatchLayer,
    day: &DayRun,
    stop: &Stop,
    parts: mpsc::Sender<(Kind, RawRows)>,
) -> Result<()> {
    let counted = layer
        .stores()
        .raw
        .count(&day.venue, day.range())
        .await
        .doing("count raw events")?;
    for kind in Kind::ALL {
        let raw_rows = counted
            .iter()
            .find(|(counted, _)| *counted == kind)
            .map_or(0, |(_, rows)| *rows);
        let mut archived = day.neighbours(layer, kind).await?;
        archived.extend(day.archived.get(&kind).cloned());
        if raw_rows == 0 && archived.is_empty() {
            continue;
        }
        let sources = DaySources {
            layer,
            venue: &day.venue,
            kind,
            range: day.range(),
            raw_rows,
            archived,
            erasures: &day.erasures,
        };
        let cuts = sources.cuts(stop).await?;
        for i in 0..=cuts.len() {
            let from = i.checked_sub(1).and_then(|i| cuts.get(i));
            let part = sources.part(from, cuts.get(i), stop).await?;
            if !part.is_empty() && parts.send((kind, part)).await.is_err() {
                // The fold has ended early and tells why.
                return Ok(());
            }
        }
    }
    Ok(())
}

fn fold_parts(setting: Setting, mut parts: mpsc::Receiver<(Kind, RawRows)>) -> Result<Computed> {
    let context = FoldContext::new(&setting.cut, &setting.layout);
    let mut folder = DayFolder::new(&context, &setting.cut, &setting.layout, setting.carry_in.clone());
    folder.late_after(setting.published_before);
    while let Some((_, part)) = parts.blocking_recv() {
        setting.stop.check()?;
        folder.part(&part);
    }
    Ok(folder.finish())
}
