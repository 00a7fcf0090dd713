use std::collections::BTreeMap;

use dwell_model::event::{Delivery, EventBatch};
use dwell_model::ids::{Receipt, TenantId, VenueId};
use dwell_model::testing::position_batch;
use proptest::prelude::*;

use super::*;

fn venue(tenant: &str, venue: &str) -> VenueKey {
    VenueKey::new(TenantId::new(tenant).unwrap(), VenueId::new(venue).unwrap())
}

fn day(day: &str) -> LocalDay {
    day.parse().unwrap()
}

fn delivery(n: i64) -> Delivery {
    Delivery {
        received_at: n,
        receipt: Receipt::from_u128(n as u128),
    }
}

/// A row as plain values.
type Plain = (String, i64, String, u32, u32, Option<String>, i64, i64);

fn plain(rows: &DeliveredRows) -> Vec<Plain> {
    rows.check().unwrap();
    let events = &rows.events;
    let row = |i: usize| {
        let (x, y) = (events.f32s(0)[i].to_bits(), events.f32s(1)[i].to_bits());
        let (key, sensor) = (events.key(i).to_owned(), events.sensor(i).to_owned());
        let floor = events.text(2, i).map(str::to_owned);
        (
            key,
            events.ts[i],
            sensor,
            x,
            y,
            floor,
            events.revision[i],
            rows.delivery(i).received_at,
        )
    };
    (0..rows.len()).map(row).collect()
}

/// All parts of a day; checks that they follow each other without sharing a (key, ts).
fn drain(mut incoming: Box<dyn IncomingDay>) -> Vec<DeliveredRows> {
    let mut parts = Vec::new();
    let mut remaining = incoming.remaining();
    while let Some(part) = incoming.next_part().unwrap() {
        remaining -= part.len() as u64;
        assert_eq!(incoming.remaining(), remaining);
        parts.push(part);
    }
    assert_eq!(remaining, 0);
    for pair in parts.windows(2) {
        let place = |row: &Plain| (row.0.clone(), row.1);
        let (before, after) = (plain(&pair[0]), plain(&pair[1]));
        assert!(before.iter().map(place).max() < after.iter().map(place).min());
    }
    parts
}

fn one(sensor: &str, track: &str, ts: i64, x: f32) -> EventBatch {
    position_batch(&[(sensor, track, ts, x, 0.5)])
}

#[test]
fn days_come_in_the_order_of_tenant_venue_day_and_kind() {
    let dir = tempfile::tempdir().unwrap();
    let mut sorter = BulkSorter::new(dir.path(), 1 << 20).unwrap();
    let status = |ts: i64| {
        let mut batch = EventBatch::new(Kind::Status);
        let name = batch.strings.intern("s");
        (batch.ts, batch.sensor, batch.key, batch.revision) = (vec![ts], vec![name], vec![name], vec![0]);
        batch
            .payload
            .iter_mut()
            .for_each(dwell_model::event::Column::push_absent);
        batch
    };
    let mut push = |v: &VenueKey, d: &str, batch| {
        sorter
            .push(v, day(d), DeliveredRows::delivered_once(batch, delivery(1)))
            .unwrap();
    };
    push(&venue("b", "v"), "2026-01-01", one("s", "t", 1, 0.0));
    push(&venue("a", "w"), "2026-01-01", one("s", "t", 1, 0.0));
    push(&venue("a", "v"), "2026-01-02", status(5));
    push(&venue("a", "v"), "2026-01-02", one("s", "t", 1, 0.0));
    push(&venue("a", "v"), "2026-01-01", one("s", "t", 1, 0.0));
    push(&venue("a", "v"), "2026-01-02", one("s", "t", 2, 0.0));
    assert_eq!((sorter.rows(), sorter.spilled_rows()), (6, 0));
    let seen: Vec<_> = sorter
        .finish()
        .map(|day| {
            (
                day.venue.to_string(),
                day.day.to_string(),
                day.kind,
                day.rows.remaining(),
            )
        })
        .collect();
    let expected = [
        ("a/v", "2026-01-01", Kind::Position, 1),
        ("a/v", "2026-01-02", Kind::Position, 2),
        ("a/v", "2026-01-02", Kind::Status, 1),
        ("a/w", "2026-01-01", Kind::Position, 1),
        ("b/v", "2026-01-01", Kind::Position, 1),
    ];
    assert_eq!(
        seen,
        expected.map(|(v, d, kind, rows)| (v.to_owned(), d.to_owned(), kind, rows))
    );
}

#[test]
fn spilled_files_go_with_the_days_and_leftovers_with_a_clean_start() {
    let dir = tempfile::tempdir().unwrap();
    let files = || std::fs::read_dir(dir.path()).unwrap().count();
    let mut sorter = BulkSorter::new(dir.path(), 1).unwrap();
    for i in 0..3 {
        let rows = DeliveredRows::delivered_once(one("s", "t", i, 0.0), delivery(1));
        sorter.push(&venue("a", "v"), day("2026-01-01"), rows).unwrap();
    }
    assert_eq!(sorter.spilled_rows(), 3);
    assert_eq!(files(), 1);
    let mut days = sorter.finish();
    let first = days.next().unwrap();
    drop(days);
    assert_eq!(files(), 1, "the day's runs are still wanted");
    drop(first);
    assert_eq!(files(), 0);

    std::fs::create_dir(dir.path().join("sort-0123")).unwrap();
    std::fs::write(dir.path().join("sort-0123/1.run"), b"left behind").unwrap();
    std::fs::write(dir.path().join("other"), b"not ours").unwrap();
    BulkSorter::clean(dir.path()).unwrap();
    assert_eq!(files(), 1);
    BulkSorter::clean(&dir.path().join("missing")).unwrap();
}

#[test]
fn a_run_that_was_changed_on_disk_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut sorter = BulkSorter::new(dir.path(), 1).unwrap();
    for i in 0..2 {
        let rows = DeliveredRows::delivered_once(one("s", "t", i, 0.25), delivery(1));
        sorter.push(&venue("a", "v"), day("2026-01-01"), rows).unwrap();
    }
    let folder = std::fs::read_dir(dir.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let file = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let error = sorter.finish().next().unwrap().rows.next_part().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever fits in memory and wherever the pieces are cut, every day's rows come out as they went in.
    #[test]
    fn nothing_is_lost_or_changed_whatever_the_budget(
        rows in prop::collection::vec((0_u8..2, 0_u8..2, 0_u8..3, 0_u8..12, 0_i64..40, 0_u8..4, 0_u8..3), 1..400),
        budget in prop_oneof![Just(1_usize), 500_usize..6_000, Just(1 << 20)],
        piece in 1_usize..60,
        part_rows in 1_usize..100,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut sorter = BulkSorter::new(dir.path(), budget).unwrap();
        let mut expected: BTreeMap<(String, LocalDay), Vec<Plain>> = BTreeMap::new();
        let mut pieces: BTreeMap<(u8, u8), DeliveredRows> = BTreeMap::new();
        let name = |prefix: &str, n: u8| format!("{prefix}{}", ["b", "", "aa", "é"][usize::from(n % 4)].repeat(1 + usize::from(n / 4)));
        let take = |sorter: &mut BulkSorter, v: u8, d: u8, rows: DeliveredRows| {
            sorter.push(&venue("t", &format!("v{v}")), day(&format!("2026-01-0{}", d + 1)), rows).unwrap();
        };
        for &(v, d, sensor, track, ts, x, received) in &rows {
            let mut batch = one(&name("s", sensor), &name("t", track), 1_000_000 + ts, f32::from(x) / 3.0);
            if x == 3 {
                let floor = batch.strings.intern("upper");
                batch.payload[2] = dwell_model::event::Column::Text(vec![floor]);
                batch.revision[0] = i64::from(received);
            }
            let row = DeliveredRows::delivered_once(batch, delivery(i64::from(received)));
            let key = (format!("t/v{v}"), day(&format!("2026-01-0{}", d + 1)));
            expected.entry(key).or_default().extend(plain(&row));
            let held = pieces.entry((v, d)).or_insert_with(|| DeliveredRows::new(Kind::Position));
            held.append(&row);
            if held.len() >= piece {
                let full = std::mem::replace(held, DeliveredRows::new(Kind::Position));
                take(&mut sorter, v, d, full);
            }
        }
        pieces.into_iter().for_each(|((v, d), rest)| take(&mut sorter, v, d, rest));
        let mut days = sorter.finish();
        days.part_rows = part_rows;
        let mut got = BTreeMap::new();
        for sorted in days {
            let parts = drain(sorted.rows);
            let mut all: Vec<Plain> = parts.iter().flat_map(plain).collect();
            all.sort();
            got.insert((sorted.venue.to_string(), sorted.day), all);
        }
        expected.values_mut().for_each(|rows| rows.sort());
        prop_assert_eq!(got, expected);
    }
}
