//! A day's events, kind by kind, in the form in which they need least work.

use dwell_model::event::{Checksum, Kind, RawRows};
use dwell_runtime::tasks::blocking;
use dwell_storage::api::{ArchivedDay, DayReader, Projection};
use tokio::sync::mpsc;

use crate::error::{Doing, Result};
use crate::layer::BatchLayer;
use crate::parts::DaySources;
use crate::run::DayRun;

/// What a reader gets.
pub(crate) enum Piece {
    /// Rows with all their deliveries, to be resolved. Parts of a kind follow each other in the order (key, ts) and
    /// share no identity.
    Part(RawRows),
    /// A kind whose archived winners need nothing else.
    Winners(Winners),
}

/// An archived kind, opened.
pub(crate) struct Winners {
    pub(crate) kind: Kind,
    pub(crate) reader: Box<dyn DayReader>,
    /// Of the rows that the files were written with.
    pub(crate) written: Checksum,
    /// Further deliveries and covered payloads; no exclusion covers any of them.
    pub(crate) superseded: Option<RawRows>,
}

/// What the events are read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To be computed with.
    Fold,
    /// To see which of them are covered: payloads are left out where they can be.
    LookUp,
}

/// Reads a day and hands it on, until everything is read or nobody takes it any more.
pub(crate) async fn read(
    layer: &BatchLayer,
    day: &DayRun,
    purpose: Purpose,
    pieces: mpsc::Sender<Piece>,
) -> Result<()> {
    let counted = if day.unites_raw {
        let counted = layer.stores().raw.count(&day.venue, day.range()).await;
        counted.doing("count raw events")?
    } else {
        Vec::new()
    };
    for kind in Kind::ALL {
        let raw_rows = counted
            .iter()
            .find(|(counted, _)| *counted == kind)
            .map_or(0, |(_, rows)| *rows);
        let own = day.archived.get(&kind);
        let neighbours = if day.unites_raw {
            day.neighbours(layer, kind).await?
        } else {
            Vec::new()
        };
        if raw_rows == 0 && neighbours.is_empty() {
            let Some(own) = own.filter(|own| !own.events.is_empty()) else {
                continue;
            };
            // Winners are enough where no delivery is covered, or each has only the one that they stand with. An
            // exclusion may stay in force for ever, and few days hold what it covers.
            if day.exclusions.is_empty()
                || own.superseded.is_empty()
                || !is_any_covered(layer, day, kind, own).await?
            {
                let winners = open(layer, day, kind, own, purpose).await?;
                if pieces.send(Piece::Winners(winners)).await.is_err() {
                    return Ok(());
                }
                continue;
            }
        }
        let mut archived = neighbours;
        archived.extend(own.cloned());
        let sources = DaySources {
            layer,
            venue: &day.venue,
            day: day.request.day,
            kind,
            range: day.range(),
            raw_rows,
            archived,
            projection: match purpose {
                Purpose::Fold => Projection::EventsAndDeliveries,
                Purpose::LookUp => Projection::IdentitiesAndDeliveries,
            },
            erasures: &day.erasures,
        };
        let cuts = sources.cuts(&day.stop).await?;
        for i in 0..=cuts.len() {
            let from = i.checked_sub(1).and_then(|i| cuts.get(i));
            let part = sources.part(from, cuts.get(i), &day.stop).await?;
            // Nobody takes it any more: the fold has ended early and tells why.
            if !part.is_empty() && pieces.send(Piece::Part(part)).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Whether any delivery of an archived kind is covered; payloads of the winners are not read.
async fn is_any_covered(layer: &BatchLayer, day: &DayRun, kind: Kind, held: &ArchivedDay) -> Result<bool> {
    let archive = &layer.stores().archive;
    let superseded = archive.superseded(&day.venue, kind, held).await;
    let superseded = superseded.doing("read superseded rows")?;
    let on = day.exclusions.on(&superseded.events);
    let is_covered = |row: usize| {
        let mut deliveries = superseded.deliveries(row).iter();
        deliveries.any(|delivery| on.covers(&superseded.events, row, delivery))
    };
    if (0..superseded.len()).any(is_covered) {
        return Ok(true);
    }
    let reader = archive
        .open(&day.venue, held, Projection::IdentitiesAndDeliveries)
        .await;
    let mut reader = reader.doing("open an archived day")?;
    let (exclusions, stop) = (day.exclusions.clone(), day.stop.clone());
    let look = move || -> Result<bool> {
        while let Some(chunk) = reader.next_chunk().doing("read an archived day")? {
            stop.check()?;
            let on = exclusions.on(chunk.events);
            let mut rows = chunk.first.iter().enumerate();
            if rows.any(|(row, first)| on.covers(chunk.events, row, first)) {
                return Ok(true);
            }
        }
        Ok(false)
    };
    blocking("batch.look_up", look).await?
}

async fn open(
    layer: &BatchLayer,
    day: &DayRun,
    kind: Kind,
    held: &ArchivedDay,
    purpose: Purpose,
) -> Result<Winners> {
    let archive = &layer.stores().archive;
    // Deliveries are only worth reading where they are asked for, or can tell which events are new.
    let has_changed = match &day.before {
        Some(before) => before.events.get(&kind) != Some(&held.events_checksum()),
        None => false,
    };
    let projection = match purpose {
        Purpose::LookUp => Projection::IdentitiesAndDeliveries,
        Purpose::Fold if has_changed || !day.exclusions.is_empty() => Projection::EventsAndDeliveries,
        Purpose::Fold => Projection::Events,
    };
    let reader = archive.open(&day.venue, held, projection).await;
    let superseded = if held.superseded.is_empty() {
        None
    } else {
        let rows = archive.superseded(&day.venue, kind, held).await;
        Some(rows.doing("read superseded rows")?)
    };
    Ok(Winners {
        kind,
        reader: reader.doing("open an archived day")?,
        written: held.events_checksum(),
        superseded,
    })
}

impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Piece::Part(rows) => f.debug_tuple("Part").field(&rows.len()).finish(),
            Piece::Winners(winners) => f.debug_tuple("Winners").field(&winners.kind).finish(),
        }
    }
}
