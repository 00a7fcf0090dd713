//! Marks and positions: their write time is their position, so the highest one wins whatever the order of writing.

use std::collections::BTreeSet;
use std::ops::Range;

use dwell_model::ids::VenueKey;
use dwell_model::time::TsMs;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::super::cluster::{Cluster, Cql};
use super::super::values::to_stored;
use super::index::SlotIndex;
use super::slots::{Span, date, slot_at, stored_slot};
use crate::api::{ConsumerPosition, Mark, MarkSource, Marks, Partition, Position};
use crate::error::{ErrorKind, Result, StorageError};

/// Requests of one call in flight.
const REQUESTS_AT_ONCE: usize = 16;

const RAISE: Cql = Cql::write(
    "raise a mark",
    "INSERT INTO {ks}.raw_marks (tenant, venue, utc_date, slot, source, position) VALUES (?, ?, ?, ?, ?, ?) \
     USING TIMESTAMP ?",
);
const MARKS: Cql = Cql::read(
    "read marks",
    "SELECT slot, source, position FROM {ks}.raw_marks \
     WHERE tenant = ? AND venue = ? AND utc_date = ? AND slot >= ? AND slot <= ?",
);
const NOTE_TIME: Cql = Cql::write(
    "note when a slot was marked",
    "INSERT INTO {ks}.raw_mark_times (tenant, venue, utc_date, slot, marked_at) VALUES (?, ?, ?, ?, ?) \
     USING TIMESTAMP ?",
);
const TIMES: Cql = Cql::read(
    "read when slots were marked",
    "SELECT slot, marked_at FROM {ks}.raw_mark_times \
     WHERE tenant = ? AND venue = ? AND utc_date = ? AND slot >= ? AND slot <= ?",
);
const STORE_POSITION: Cql = Cql::write(
    "store a position",
    "INSERT INTO {ks}.consumer_positions (consumer, epoch, log_partition, position) VALUES (?, ?, ?, ?) \
     USING TIMESTAMP ?",
);
const POSITION: Cql = Cql::read(
    "read a position",
    "SELECT position FROM {ks}.consumer_positions WHERE consumer = ? AND epoch = ? AND log_partition = ?",
);

/// The write time of a position: microseconds that mean no time. Positive, and growing with the position; of two equal
/// ones the values are equal, too. `Invalid` for a position that has none.
pub(super) fn write_time(position: i64) -> Result<i64> {
    let time = position.checked_add(1).filter(|&time| time > 0);
    time.ok_or_else(|| {
        let why = format!("{position} is no position: 0 to {} are", i64::MAX - 1);
        StorageError::new(ErrorKind::Invalid, why)
    })
}

/// Raises marks, after noting the time for their slots; durable when it returns.
pub(super) async fn raise(cluster: &Cluster, marks: &[Mark]) -> Result<()> {
    note_times(cluster, marks).await?;
    stream::iter(marks)
        .map(Ok)
        .try_for_each_concurrent(REQUESTS_AT_ONCE, |mark| async move {
            let (days, number) = stored_slot(mark.slot);
            let values = (
                mark.venue.tenant.as_str(),
                mark.venue.venue.as_str(),
                date(days),
                number,
                mark.source.as_str(),
                mark.position,
                write_time(mark.position)?,
            );
            cluster.execute(RAISE, values).await
        })
        .await
}

async fn note_times(cluster: &Cluster, marks: &[Mark]) -> Result<()> {
    let now = cluster.write_clock().await?.now_ms();
    let slots: BTreeSet<(&VenueKey, i64)> = marks.iter().map(|mark| (&mark.venue, mark.slot)).collect();
    stream::iter(slots)
        .map(Ok)
        .try_for_each_concurrent(REQUESTS_AT_ONCE, |(venue, slot)| async move {
            let (days, number) = stored_slot(slot);
            let (tenant, venue) = (venue.tenant.as_str(), venue.venue.as_str());
            let values = (tenant, venue, date(days), number, now, write_time(now)?);
            cluster.execute(NOTE_TIME, values).await
        })
        .await
}

/// When the slots that overlap a range were last marked, slot by slot.
pub(super) async fn marked_at(
    cluster: &Cluster,
    index: &SlotIndex,
    venue: &VenueKey,
    range: Range<TsMs>,
) -> Result<Vec<(i64, TsMs)>> {
    let Some(span) = Span::of(&range) else {
        return Ok(Vec::new());
    };
    let (tenant, id) = (venue.tenant.as_str(), venue.venue.as_str());
    let mut slots = Vec::new();
    let mut answers = stream::iter(index.dates(venue, span).await?)
        .map(|days| async move {
            let numbers = span.slots_of(days);
            let values = (tenant, id, date(days), *numbers.start(), *numbers.end());
            let found: Vec<(i16, i64)> = cluster.all(TIMES, values).await?;
            Ok::<_, StorageError>((days, found))
        })
        .buffered(REQUESTS_AT_ONCE);
    while let Some((days, found)) = answers.try_next().await? {
        slots.extend(found.into_iter().map(|(number, at)| (slot_at(days, number), at)));
    }
    Ok(slots)
}

/// The marks of the slots that overlap a range, slot by slot.
pub(super) async fn marked_slots(
    cluster: &Cluster,
    index: &SlotIndex,
    venue: &VenueKey,
    range: Range<TsMs>,
) -> Result<Vec<(i64, Marks)>> {
    let mut slots: Vec<(i64, Marks)> = Vec::new();
    let Some(span) = Span::of(&range) else {
        return Ok(slots);
    };
    let mut answers = stream::iter(index.dates(venue, span).await?)
        .map(|days| async move {
            let numbers = span.slots_of(days);
            let values = (
                venue.tenant.as_str(),
                venue.venue.as_str(),
                date(days),
                *numbers.start(),
                *numbers.end(),
            );
            let found: Vec<(i16, String, i64)> = cluster.all(MARKS, values).await?;
            Ok::<_, StorageError>((days, found))
        })
        .buffered(REQUESTS_AT_ONCE);
    while let Some((days, found)) = answers.try_next().await? {
        for (number, source, position) in found {
            let (slot, source) = (slot_at(days, number), MarkSource::from_stored(source));
            match slots.last_mut() {
                Some((last, marks)) if *last == slot => marks.raise(&source, position),
                _ => {
                    let mut marks = Marks::default();
                    marks.raise(&source, position);
                    slots.push((slot, marks));
                }
            }
        }
    }
    Ok(slots)
}

/// Stores how far a reader is. A lower position than the stored one changes nothing: it comes from a former owner.
pub(super) async fn store_position(cluster: &Cluster, at: &ConsumerPosition) -> Result<()> {
    let values = (
        at.consumer,
        to_stored(at.epoch)?,
        i64::from(at.partition),
        at.position,
        write_time(at.position)?,
    );
    cluster.execute(STORE_POSITION, values).await
}

/// How far a reader is.
pub(super) async fn position(
    cluster: &Cluster,
    consumer: &str,
    epoch: u64,
    partition: Partition,
) -> Result<Option<Position>> {
    let values = (consumer, to_stored(epoch)?, i64::from(partition));
    let found: Option<(i64,)> = cluster.first(POSITION, values).await?;
    Ok(found.map(|(position,)| position))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_time_grows_with_its_position_and_is_positive() {
        assert_eq!(write_time(0).unwrap(), 1);
        assert_eq!(write_time(i64::MAX - 1).unwrap(), i64::MAX);
        for none in [-1, i64::MIN, i64::MAX] {
            assert_eq!(write_time(none).unwrap_err().kind(), ErrorKind::Invalid, "{none}");
        }
    }
}
