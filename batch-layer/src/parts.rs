//! A venue-day's rows of one kind from raw and from the archive, in parts that fit in memory.
//!
//! Raw gives rows by time, the archive and the folds want them by key. A day that fits is read once and is one part. A
//! larger one is read once for a sample of its (key, ts) pairs, which cuts it into parts of about equal size, and then
//! once per part: no temporary files, and memory bounded by the part whatever the day holds. Parts follow each other
//! in the order (key, ts), names compared as bytes, and share no (key, ts), so no identity is torn.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use dwell_model::event::{Delivery, EventBatch, Kind, RawRows};
use dwell_model::ids::VenueKey;
use dwell_model::time::{LocalDay, SLOT_MS, TsMs};
use dwell_runtime::tasks::blocking;
use dwell_storage::api::{ArchivedDay, Projection};
use dwell_storage::erasure::ErasureFilter;
use dwell_storage::erasure::filter::pick_events;

use crate::error::{Doing, Error, Result};
use crate::layer::BatchLayer;
use crate::lease::Stop;

/// Memory of a row while it is being united with others, roughly: columns, delivery, and the order they are sorted in.
const ROW_BYTES: u64 = 96;
/// Rows that one scan of raw should give, about.
const SCAN_ROWS: u64 = 200_000;
/// Pairs that are kept of a day to cut it by.
const SAMPLE_MAX: u64 = 65_536;

/// First (key, ts) of a part.
pub(crate) type Cut = (String, TsMs);

/// Where a day's rows of one kind come from.
#[derive(Debug)]
pub(crate) struct DaySources<'a> {
    pub(crate) layer: &'a BatchLayer,
    pub(crate) venue: &'a VenueKey,
    pub(crate) day: LocalDay,
    pub(crate) kind: Kind,
    /// The day's bounds; rows outside are left out.
    pub(crate) range: Range<TsMs>,
    /// Rows that raw has in `range`, as counted before.
    pub(crate) raw_rows: u64,
    /// What to read of the archive.
    pub(crate) archived: Vec<ArchivedDay>,
    /// Whom to leave out.
    pub(crate) erasures: &'a Arc<ErasureFilter>,
    /// Which columns of it, deliveries among them.
    pub(crate) projection: Projection,
}

impl DaySources<'_> {
    /// Rows to be read, about: an archived row of a neighbouring day is counted and left out later.
    pub(crate) fn rows(&self) -> u64 {
        let files = self
            .archived
            .iter()
            .flat_map(|day| day.events.iter().chain(&day.superseded));
        self.raw_rows + files.map(|file| file.rows).sum::<u64>()
    }

    /// Where to cut the rows so that each part fits; none for a day that fits as a whole.
    pub(crate) async fn cuts(&self, stop: &Stop) -> Result<Vec<Cut>> {
        let part_rows = (self.layer.config().part_bytes() as u64 / ROW_BYTES).max(1);
        let parts = self.rows().div_ceil(part_rows);
        if parts <= 1 {
            return Ok(Vec::new());
        }
        let sampler = Sampler {
            range: self.range.clone(),
            every: self.rows().div_ceil(SAMPLE_MAX),
            ..Sampler::default()
        };
        Ok(self.read(sampler, stop).await?.cuts(parts))
    }

    /// The rows from one cut to the next; `None` stands for the day's ends.
    pub(crate) async fn part(&self, from: Option<&Cut>, to: Option<&Cut>, stop: &Stop) -> Result<RawRows> {
        let collector = Collector {
            range: self.range.clone(),
            from: from.cloned(),
            to: to.cloned(),
            rows: RawRows::new(EventBatch::new(self.kind)),
        };
        Ok(self.read(collector, stop).await?.rows)
    }

    /// Gives all rows to a sink, piece by piece.
    async fn read<S: Sink>(&self, mut sink: S, stop: &Stop) -> Result<S> {
        let stores = self.layer.stores();
        for range in scan_ranges(self.range.clone(), self.raw_rows) {
            stop.check()?;
            let rows = stores
                .raw
                .scan(self.venue, self.kind, range)
                .await
                .doing("scan raw events")?;
            let rows = self.erasures.apply_raw(self.venue, rows);
            sink.piece(&rows.events, Deliveries::Sets(&rows));
        }
        for day in &self.archived {
            stop.check()?;
            if !day.superseded.is_empty() {
                let rows = stores
                    .archive
                    .superseded(self.venue, self.kind, day)
                    .await
                    .doing("read superseded rows")?;
                let rows = self.erasures.apply_raw(self.venue, rows);
                sink.piece(&rows.events, Deliveries::Sets(&rows));
            }
            if day.events.is_empty() {
                continue;
            }
            let opened = stores.archive.open(self.venue, day, self.projection).await;
            let mut reader = opened.doing("open an archived day")?;
            let (stop, erasures, venue) = (stop.clone(), Arc::clone(self.erasures), self.venue.clone());
            let read = move || -> Result<(S, u64)> {
                let mut rows = 0;
                while let Some(chunk) = reader.next_chunk().doing("read an archived day")? {
                    stop.check()?;
                    rows += chunk.events.len() as u64;
                    match erasures.kept(&venue, chunk.events) {
                        None => sink.piece(chunk.events, Deliveries::First(chunk.first)),
                        Some(kept) => {
                            let first: Vec<_> = kept.iter().map(|&row| chunk.first[row as usize]).collect();
                            sink.piece(&pick_events(chunk.events, &kept), Deliveries::First(&first));
                        }
                    }
                }
                Ok((sink, rows))
            };
            let rows;
            (sink, rows) = blocking("batch.read_archived", read).await??;
            check_count(self.venue, self.day, self.kind, rows, day.events_checksum().rows)?;
        }
        Ok(sink)
    }
}

/// Refuses archive files that gave another number of events than they were written with.
pub(crate) fn check_count(
    venue: &VenueKey,
    day: LocalDay,
    kind: Kind,
    read: u64,
    expected: u64,
) -> Result<()> {
    if read == expected {
        return Ok(());
    }
    Err(Error::ArchiveCount {
        venue: venue.clone(),
        day,
        kind,
        read,
        expected,
    })
}

/// Cuts a day's bounds at slots, into stretches that hold about [`SCAN_ROWS`] each.
fn scan_ranges(range: Range<TsMs>, rows: u64) -> Vec<Range<TsMs>> {
    if rows == 0 {
        return Vec::new();
    }
    let slots = (range.end - range.start).div_euclid(SLOT_MS).max(1);
    let scans = i64::try_from(rows.div_ceil(SCAN_ROWS))
        .unwrap_or(slots)
        .clamp(1, slots);
    let step = slots.div_euclid(scans).max(1) * SLOT_MS;
    let mut ranges = Vec::new();
    let mut from = range.start;
    while from < range.end {
        let to = ((from + step).div_euclid(SLOT_MS) * SLOT_MS).min(range.end);
        ranges.push(from..to);
        from = to;
    }
    ranges
}

/// The deliveries of a piece's rows.
#[derive(Clone, Copy)]
enum Deliveries<'a> {
    Sets(&'a RawRows),
    First(&'a [Delivery]),
}

impl<'a> Deliveries<'a> {
    fn of(self, row: usize) -> &'a [Delivery] {
        match self {
            Deliveries::Sets(rows) => rows.deliveries(row),
            Deliveries::First(first) => &first[row..=row],
        }
    }
}

/// Takes the pieces of a day.
trait Sink: Send + 'static {
    fn piece(&mut self, events: &EventBatch, deliveries: Deliveries<'_>);
}

/// Keeps the rows of one part.
struct Collector {
    range: Range<TsMs>,
    from: Option<Cut>,
    to: Option<Cut>,
    rows: RawRows,
}

impl Sink for Collector {
    fn piece(&mut self, events: &EventBatch, deliveries: Deliveries<'_>) {
        let whole =
            self.from.is_none() && self.to.is_none() && events.ts.iter().all(|ts| self.range.contains(ts));
        if whole {
            match deliveries {
                Deliveries::Sets(rows) => self.rows.append(rows),
                Deliveries::First(first) => {
                    self.rows.events.append(events);
                    for &delivery in first {
                        self.rows.deliveries.push(delivery);
                        self.rows.ends.push(self.rows.deliveries.len() as u32);
                    }
                }
            }
            return;
        }
        let (from, to) = (
            Side::of(events, self.from.as_ref()),
            Side::of(events, self.to.as_ref()),
        );
        for row in 0..events.len() {
            let inside = self.range.contains(&events.ts[row])
                && from.order(events, row).is_none_or(Ordering::is_ge)
                && to.order(events, row).is_none_or(Ordering::is_lt);
            if inside {
                self.rows.events.push_from(events, row);
                self.rows.deliveries.extend_from_slice(deliveries.of(row));
                self.rows.ends.push(self.rows.deliveries.len() as u32);
            }
        }
    }
}

/// How a piece's keys stand to a cut: compared once per name, not once per row.
struct Side {
    keys: Vec<Ordering>,
    ts: TsMs,
}

impl Side {
    fn of(events: &EventBatch, cut: Option<&Cut>) -> Self {
        match cut {
            None => Self {
                keys: Vec::new(),
                ts: 0,
            },
            Some((key, ts)) => {
                let keys = events
                    .strings
                    .iter()
                    .map(|name| name.as_bytes().cmp(key.as_bytes()))
                    .collect();
                Self { keys, ts: *ts }
            }
        }
    }

    /// How a row stands to the cut; `None` without a cut.
    fn order(&self, events: &EventBatch, row: usize) -> Option<Ordering> {
        let key = self.keys.get(events.key[row] as usize)?;
        Some(key.then_with(|| events.ts[row].cmp(&self.ts)))
    }
}

/// Keeps every so many-th (key, ts).
#[derive(Default)]
struct Sampler {
    range: Range<TsMs>,
    every: u64,
    seen: u64,
    sample: Vec<Cut>,
}

impl Sink for Sampler {
    fn piece(&mut self, events: &EventBatch, _: Deliveries<'_>) {
        for row in (0..events.len()).filter(|&row| self.range.contains(&events.ts[row])) {
            if self.seen.is_multiple_of(self.every.max(1)) {
                self.sample.push((events.key(row).to_owned(), events.ts[row]));
            }
            self.seen += 1;
        }
    }
}

impl Sampler {
    fn cuts(mut self, parts: u64) -> Vec<Cut> {
        self.sample
            .sort_unstable_by(|a, b| (a.0.as_bytes(), a.1).cmp(&(b.0.as_bytes(), b.1)));
        let n = self.sample.len() as u64;
        let mut cuts: Vec<Cut> = (1..parts)
            .filter_map(|part| self.sample.get((part * n / parts) as usize).cloned())
            .collect();
        cuts.dedup();
        cuts
    }
}

#[cfg(test)]
mod tests {
    use dwell_model::ids::Receipt;
    use dwell_model::testing::position_batch;
    use dwell_model::time::DAY_MS;

    use super::*;

    fn rows(events: EventBatch) -> RawRows {
        RawRows::delivered_once(
            events,
            Delivery {
                received_at: 1,
                receipt: Receipt::from_u128(1),
            },
        )
    }

    fn collect(pieces: &[RawRows], from: Option<&Cut>, to: Option<&Cut>) -> Vec<(String, TsMs)> {
        let mut collector = Collector {
            range: 0..1_000,
            from: from.cloned(),
            to: to.cloned(),
            rows: RawRows::new(EventBatch::new(Kind::Position)),
        };
        pieces
            .iter()
            .for_each(|piece| collector.piece(&piece.events, Deliveries::Sets(piece)));
        collector.rows.check().unwrap();
        (0..collector.rows.len())
            .map(|row| {
                (
                    collector.rows.events.key(row).to_owned(),
                    collector.rows.events.ts[row],
                )
            })
            .collect()
    }

    #[test]
    fn scans_cover_the_day_once_and_break_at_slots() {
        // A day that starts and ends off the slots, as where a zone is off the full ten minutes.
        let range = 5..DAY_MS + 5;
        for rows in [1, SCAN_ROWS, 10 * SCAN_ROWS, u64::MAX / 2] {
            let ranges = scan_ranges(range.clone(), rows);
            assert_eq!(ranges.first().unwrap().start, range.start);
            assert_eq!(ranges.last().unwrap().end, range.end);
            assert!(
                ranges
                    .windows(2)
                    .all(|pair| pair[0].end == pair[1].start && pair[0].end % SLOT_MS == 0)
            );
        }
        assert_eq!(scan_ranges(range.clone(), 0), []);
        assert!(
            scan_ranges(range.clone(), 3).len() <= 2,
            "a quiet day is read in one go"
        );
        assert_eq!(scan_ranges(range, u64::MAX / 2).len(), 145);
    }

    #[test]
    fn parts_follow_each_other_in_key_order_and_together_are_the_day() {
        let pieces: Vec<RawRows> = (0..10)
            .map(|i| {
                let names: Vec<String> = (0..20).map(|t| format!("t{}", (t * 7 + i) % 13)).collect();
                let events: Vec<_> = names
                    .iter()
                    .enumerate()
                    .map(|(n, name)| ("s", name.as_str(), i * 100 + n as i64 % 5, 0.0, 0.0))
                    .collect();
                rows(position_batch(&events))
            })
            .collect();
        let mut sampler = Sampler {
            range: 0..1_000,
            every: 3,
            ..Sampler::default()
        };
        pieces
            .iter()
            .for_each(|piece| sampler.piece(&piece.events, Deliveries::Sets(piece)));
        let cuts = sampler.cuts(4);
        assert_eq!(cuts.len(), 3);
        let mut ends: Vec<Option<&Cut>> = vec![None];
        ends.extend(cuts.iter().map(Some));
        ends.push(None);
        let mut all = Vec::new();
        for pair in ends.windows(2) {
            let mut part = collect(&pieces, pair[0], pair[1]);
            part.sort();
            assert!(!part.is_empty());
            assert!(all.last() < part.first(), "parts share no (key, ts) and ascend");
            all.extend(part);
        }
        let mut whole = collect(&pieces, None, None);
        whole.sort();
        assert_eq!(all, whole);
        assert_eq!(whole.len(), 200);
    }

    #[test]
    fn rows_outside_the_day_are_left_out() {
        let piece = rows(position_batch(&[
            ("s", "a", 999, 0.0, 0.0),
            ("s", "a", 1_000, 0.0, 0.0),
        ]));
        assert_eq!(collect(&[piece], None, None), [("a".to_owned(), 999)]);
    }

    #[test]
    fn one_key_alone_is_cut_by_time() {
        let events: Vec<_> = (0..100).map(|ts| ("s", "same", ts, 0.0, 0.0)).collect();
        let piece = rows(position_batch(&events));
        let mut sampler = Sampler {
            range: 0..1_000,
            every: 1,
            ..Sampler::default()
        };
        sampler.piece(&piece.events, Deliveries::Sets(&piece));
        assert_eq!(sampler.cuts(2), [("same".to_owned(), 50)]);
    }
}
