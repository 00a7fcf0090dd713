//! The archive step: what raw has of a closed day becomes part of its archive.
//!
//! Per kind the day's raw rows are united with what the archive holds and written beside it ([`stage`]), verified by
//! reading back; many days go into one commit ([`commit`]), which is conditional on their fences and on the files that
//! were read. A kind of which raw has nothing is left as it is.

use std::collections::BTreeMap;

use async_trait::async_trait;
use dwell_model::event::Kind;
use dwell_storage::api::{
    ArchivedDay, BrokenFile, Committed, DeliveredRows, IncomingDay, Projection, Rebuilt, Rewrite, StagedDay,
    StillHeld,
};
use dwell_storage::error::{ErrorKind, Result as StorageResult, StorageError};
use tokio::sync::mpsc;

use crate::error::{Doing, Error, Result};
use crate::layer::BatchLayer;
use crate::metrics;
use crate::parts::DaySources;
use crate::run::DayRun;

/// What became of a day's kinds.
#[derive(Debug, Default)]
pub(crate) struct StagedKinds {
    /// Kinds of which the archive needs no new files, with what it holds.
    pub(crate) settled: BTreeMap<Kind, ArchivedDay>,
    /// Kinds with new files, to be committed.
    pub(crate) staged: Vec<StagedDay>,
}

/// Reads what the archive holds of a day, writing nothing.
pub(crate) async fn look_up(layer: &BatchLayer, day: &DayRun) -> Result<BTreeMap<Kind, ArchivedDay>> {
    let mut archived = BTreeMap::new();
    for kind in Kind::ALL {
        let held = layer
            .stores()
            .archive
            .day(&day.venue, kind, day.request.day)
            .await;
        let held = held.doing("look a day up in the archive")?;
        if !held.is_empty() {
            archived.insert(kind, held);
        }
    }
    Ok(archived)
}

/// Writes what raw has of a day beside the archive, kind by kind.
pub(crate) async fn stage(layer: &BatchLayer, day: &DayRun) -> Result<StagedKinds> {
    let mut out = StagedKinds::default();
    let counted = layer
        .stores()
        .raw
        .count(&day.venue, day.range())
        .await
        .doing("count raw events")?;
    for kind in Kind::ALL {
        day.stop.check()?;
        let raw_rows = counted
            .iter()
            .find(|(counted, _)| *counted == kind)
            .map_or(0, |(_, rows)| *rows);
        let neighbours = day.neighbours(layer, kind).await?;
        // What is archived is written anew, too, where somebody is to be forgotten.
        let is_touched = day.erasures.touches(&day.venue, &day.range());
        if raw_rows == 0 && neighbours.is_empty() && !is_touched {
            let held = layer
                .stores()
                .archive
                .day(&day.venue, kind, day.request.day)
                .await;
            out.settled
                .insert(kind, held.doing("look a day up in the archive")?);
            continue;
        }
        let sources = DaySources {
            layer,
            venue: &day.venue,
            day: day.request.day,
            kind,
            range: day.range(),
            raw_rows,
            archived: neighbours,
            erasures: &day.erasures,
            projection: Projection::EventsAndDeliveries,
        };
        match rewrite(day, &sources).await {
            Ok(Rewrite::Unchanged(held)) => {
                out.settled.insert(kind, held);
            }
            Ok(Rewrite::Staged(staged)) => out.staged.push(staged),
            Err(error) => {
                if !matches!(error, Error::Injected(_)) {
                    discard(layer, out.staged).await;
                }
                return Err(error);
            }
        }
    }
    Ok(out)
}

/// Makes staged days of one venue part of the archive, in one commit per dataset and kind.
pub(crate) async fn commit(layer: &BatchLayer, staged: Vec<StagedDay>) -> Result<Vec<Committed>> {
    if staged.is_empty() {
        return Ok(Vec::new());
    }
    let count = staged.len() as u64;
    let committed = layer
        .stores()
        .archive
        .commit(staged, &Fences { layer })
        .await
        .doing("commit to the archive")?;
    metrics::archive_committed(count);
    Ok(committed)
}

/// Removes files that will not be committed; vacuum takes what is left when this fails.
pub(crate) async fn discard(layer: &BatchLayer, staged: Vec<StagedDay>) {
    if staged.is_empty() {
        return;
    }
    if let Err(error) = layer.stores().archive.discard(staged).await {
        tracing::warn!(%error, "files written beside the archive were not removed");
    }
}

async fn rewrite(day: &DayRun, sources: &DaySources<'_>) -> Result<Rewrite> {
    let archive = &sources.layer.stores().archive;
    let (venue, kind, fence) = (&day.venue, sources.kind, day.lease.fence);
    feed(day, sources, |incoming| {
        archive.rewrite_day(venue, kind, day.request.day, fence, incoming)
    })
    .await
}

/// Writes a kind beside the archive, as all that the day is to hold of it.
pub(crate) async fn replace(day: &DayRun, sources: &DaySources<'_>) -> Result<StagedDay> {
    let archive = &sources.layer.stores().archive;
    let (venue, kind, fence) = (&day.venue, sources.kind, day.lease.fence);
    feed(day, sources, |incoming| {
        archive.replace_day(venue, kind, day.request.day, fence, incoming)
    })
    .await
}

/// Writes a kind of which files are broken beside the archive, from raw and what can be read.
pub(crate) async fn rebuild(
    day: &DayRun,
    sources: &DaySources<'_>,
    broken: &[BrokenFile],
) -> Result<Rebuilt> {
    let archive = &sources.layer.stores().archive;
    let (venue, kind, fence) = (&day.venue, sources.kind, day.lease.fence);
    feed(day, sources, |incoming| {
        archive.rebuild_day(venue, kind, day.request.day, fence, incoming, broken)
    })
    .await
}

/// Gives a day's rows to the archive: at once, or in parts while those before are written.
async fn feed<T, F>(
    day: &DayRun,
    sources: &DaySources<'_>,
    write: impl FnOnce(Box<dyn IncomingDay>) -> F,
) -> Result<T>
where
    F: Future<Output = StorageResult<T>>,
{
    let _share = sources.layer.memory_share(&day.stop).await?;
    let cuts = sources.cuts(&day.stop).await?;
    if cuts.is_empty() {
        let rows = DeliveredRows::from(sources.part(None, None, &day.stop).await?);
        return write(Box::new(rows))
            .await
            .doing("write a day beside the archive");
    }
    let (parts, incoming) = mpsc::channel(1);
    let incoming = Box::new(Incoming {
        parts: incoming,
        remaining: sources.rows(),
    });
    let (produced, written) = tokio::join!(
        async {
            let produced = produce(day, sources, &cuts, &parts).await;
            if produced.is_err() {
                // The writer must not take the parts so far for the whole day. It may be gone already.
                let failed = StorageError::new(
                    ErrorKind::Unavailable,
                    "the rows to be archived could not be read",
                );
                let _ = parts.send(Err(failed)).await;
            }
            drop(parts);
            produced
        },
        write(incoming),
    );
    produced?;
    written.doing("write a day beside the archive")
}

async fn produce(
    day: &DayRun,
    sources: &DaySources<'_>,
    cuts: &[(String, i64)],
    parts: &mpsc::Sender<StorageResult<DeliveredRows>>,
) -> Result<()> {
    for i in 0..=cuts.len() {
        let from = i.checked_sub(1).and_then(|i| cuts.get(i));
        let part = sources.part(from, cuts.get(i), &day.stop).await?;
        if !part.is_empty() && parts.send(Ok(part.into())).await.is_err() {
            // The writer has failed and tells why.
            return Ok(());
        }
    }
    Ok(())
}

/// Parts handed over while the next one is being read.
struct Incoming {
    parts: mpsc::Receiver<StorageResult<DeliveredRows>>,
    remaining: u64,
}

impl IncomingDay for Incoming {
    fn remaining(&self) -> u64 {
        self.remaining
    }

    fn next_part(&mut self) -> StorageResult<Option<DeliveredRows>> {
        let part = self.parts.blocking_recv().transpose()?;
        let given = part.as_ref().map_or(self.remaining, |part| part.len() as u64);
        self.remaining = self.remaining.saturating_sub(given);
        Ok(part)
    }
}

/// Tells the archive whose fence is still the highest.
struct Fences<'a> {
    layer: &'a BatchLayer,
}

#[async_trait]
impl StillHeld for Fences<'_> {
    async fn still_held(&self, day: &StagedDay) -> StorageResult<bool> {
        let row = self.layer.stores().venue_days.get(&day.venue, day.day).await?;
        Ok(row.is_some_and(|row| row.fence == day.fence))
    }
}
