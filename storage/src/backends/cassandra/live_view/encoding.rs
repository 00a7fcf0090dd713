//! A live state as bytes: a version byte, then zstd of postcard. Aggregate rows are as in the aggregates' tables.

use std::io::Read;
use std::sync::Arc;

use dwell_model::ids::VenueKey;
use dwell_model::metrics::{AggregateRow, Family, Grain, Slice, decode_value, encode_value};
use dwell_model::time::{LocalDay, TsMs};
use serde::{Deserialize, Serialize};

use super::super::values::damaged_value;
use crate::api::{LiveDay, LiveVenue};
use crate::error::{ErrorKind, Result, StorageError};

const VERSION: u8 = 1;

/// States are made every second: speed counts more than the last per cent.
const ZSTD_LEVEL: i32 = 1;
/// Largest state once it is unpacked.
const UNPACKED_BYTES_MAX: u64 = 1 << 30;

/// The stored form. Its fields keep their order for ever; a change is a new version. Venue, fence and moment stand in
/// the row.
#[derive(Serialize, Deserialize)]
struct Stored {
    watermark: TsMs,
    occupancy: Vec<(String, u64)>,
    open_sessions: u64,
    late_events: u64,
    days: Vec<StoredDay>,
}

#[derive(Serialize, Deserialize)]
struct StoredDay {
    epoch_days: i32,
    layout: u64,
    rows: Vec<StoredRow>,
}

#[derive(Serialize, Deserialize)]
struct StoredRow {
    is_day: bool,
    start: TsMs,
    length_ms: i64,
    family: u8,
    subject: String,
    slice: u8,
    value: Vec<u8>,
}

pub(super) fn encode(state: &LiveVenue) -> Result<Vec<u8>> {
    let refuse = |error: String| {
        StorageError::new(
            ErrorKind::Invalid,
            format!("a live state is not to be encoded: {error}"),
        )
    };
    let stored = Stored {
        watermark: state.watermark,
        occupancy: state.occupancy.clone(),
        open_sessions: state.open_sessions,
        late_events: state.late_events,
        days: state.days.iter().map(stored_day).collect(),
    };
    let plain = postcard::to_stdvec(&stored).map_err(|error| refuse(error.to_string()))?;
    let packed = zstd::bulk::compress(&plain, ZSTD_LEVEL).map_err(|error| refuse(error.to_string()))?;
    let mut bytes = Vec::with_capacity(packed.len() + 1);
    bytes.push(VERSION);
    bytes.extend_from_slice(&packed);
    Ok(bytes)
}

pub(super) fn decode(bytes: &[u8], venue: &VenueKey, (fence, as_of): (u64, TsMs)) -> Result<LiveVenue> {
    let packed = match bytes.split_first() {
        Some((&VERSION, packed)) => packed,
        found => {
            let version = found.map(|(version, _)| version);
            return Err(damaged_value(format_args!(
                "a live state of version {version:?}; this program reads version {VERSION}"
            )));
        }
    };
    let mut plain = Vec::new();
    let unpacking = zstd::stream::read::Decoder::new(packed)
        .and_then(|unpacked| unpacked.take(UNPACKED_BYTES_MAX).read_to_end(&mut plain));
    unpacking.map_err(damaged_value)?;
    let stored: Stored = match postcard::take_from_bytes(&plain) {
        Ok((stored, [])) => stored,
        Ok(_) => return Err(damaged_value("bytes are left over after a live state")),
        Err(error) => return Err(damaged_value(error)),
    };
    Ok(LiveVenue {
        venue: venue.clone(),
        fence,
        as_of,
        watermark: stored.watermark,
        occupancy: stored.occupancy,
        open_sessions: stored.open_sessions,
        late_events: stored.late_events,
        days: stored.days.into_iter().map(live_day).collect::<Result<_>>()?,
    })
}

fn stored_day(day: &LiveDay) -> StoredDay {
    let stored_row = |row: &AggregateRow| StoredRow {
        is_day: row.grain == Grain::Day,
        start: row.start,
        length_ms: row.length_ms,
        family: row.family as u8,
        subject: row.subject.clone(),
        slice: row.slice as u8,
        value: encode_value(&row.value),
    };
    StoredDay {
        epoch_days: day.day.to_epoch_days(),
        layout: day.layout,
        rows: day.rows.iter().map(stored_row).collect(),
    }
}

fn live_day(stored: StoredDay) -> Result<LiveDay> {
    let row = |row: StoredRow| {
        Ok(AggregateRow {
            grain: if row.is_day { Grain::Day } else { Grain::Hour },
            start: row.start,
            length_ms: row.length_ms,
            family: Family::from_number(row.family)
                .ok_or_else(|| damaged_value(format_args!("family {}", row.family)))?,
            subject: row.subject,
            slice: Slice::from_number(row.slice)
                .ok_or_else(|| damaged_value(format_args!("slice {}", row.slice)))?,
            value: decode_value(&row.value).map_err(damaged_value)?,
        })
    };
    let rows: Result<Vec<AggregateRow>> = stored.rows.into_iter().map(row).collect();
    Ok(LiveDay {
        day: LocalDay::from_epoch_days(stored.epoch_days)
            .ok_or_else(|| damaged_value(format_args!("day number {}", stored.epoch_days)))?,
        layout: stored.layout,
        rows: Arc::new(rows?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::samples::shop;

    #[test]
    fn bytes_that_are_no_state_are_damaged() {
        let state = LiveVenue {
            venue: shop(),
            fence: 1,
            as_of: 2,
            watermark: 3,
            occupancy: vec![("_venue".to_owned(), 7)],
            open_sessions: 4,
            late_events: 5,
            days: vec![],
        };
        let good = encode(&state).unwrap();
        assert_eq!(decode(&good, &shop(), (1, 2)).unwrap(), state);
        let mut newer = good.clone();
        newer[0] = 2;
        for damaged in [
            &good[..good.len() - 3],
            &newer,
            &[],
            &[VERSION],
            &[VERSION, 1, 2, 3][..],
        ] {
            let error = decode(damaged, &shop(), (1, 2)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        }
    }
}
