//! The raw table, beyond its contract: several processes, wide ranges, large answers, what other tools see, damage.

use std::collections::BTreeMap;

use dwell_model::event::{Column, Delivery, EventBatch, Kind, NO_TEXT, RawRows};
use dwell_model::ids::VenueKey;
use dwell_model::time::{DAY_MS, SLOT_MS, TsMs};
use dwell_runtime::clock::{Clock, ManualClock, SystemClock};
use dwell_storage::api::{
    ComparedSlot, ConsumerPosition, Mark, MarkSource, Marks, RawApplied, RawEventsReader, RawEventsWriter,
    RawWrite,
};
use dwell_storage::backends::cassandra::{CassandraConfig, CassandraStores};
use dwell_storage::conformance::samples::{
    DAY_START, Dice, delivered, delivery, describe, events, position, shop,
};
use dwell_storage::error::ErrorKind;
use scylla::value::CqlDate;

use super::{Keyspace, in_fresh_keyspace};

fn write_of(rows: RawRows) -> RawWrite {
    RawWrite {
        rows: vec![(shop(), rows)],
        ..RawWrite::default()
    }
}

/// Deliveries by event, whatever the order of rows.
fn contents(rows: &RawRows) -> BTreeMap<String, Vec<Delivery>> {
    let mut contents = BTreeMap::new();
    for row in 0..rows.len() {
        let before = contents.insert(describe(&rows.events, row), rows.deliveries(row).to_vec());
        assert_eq!(before, None, "an identity and payload stands in two rows");
    }
    contents
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_tools_see_typed_columns_and_nothing_where_a_value_is_absent() {
    in_fresh_keyspace(async |keyspace| {
        let raw = keyspace.stores().await.raw;
        let mut batch = position("cam", "t-1", DAY_START + 11 * SLOT_MS + 5, 1.5, -2.25);
        batch.append(&position("cam", "t-2", DAY_START + 11 * SLOT_MS + 5, 0.0, 0.0));
        let floor = batch.strings.intern("EG");
        batch.payload[2] = Column::Text(vec![NO_TEXT, floor]);
        batch.revision[1] = -3;
        raw.apply(write_of(delivered(batch, delivery(77, 9)))).await.unwrap();

        let select = "SELECT ts, sensor, key, received_at, receipt, revision, x, y, floor, writetime(floor) FROM \
                      {ks}.raw_position WHERE tenant = 'acme' AND venue = 'shop' AND utc_date = '2026-03-29' AND slot = 11";
        type Row = (i64, String, String, i64, Vec<u8>, Option<i64>, f32, f32, Option<String>, Option<i64>);
        let found = keyspace.session.query_unpaged(keyspace.text(select), ()).await.unwrap().into_rows_result().unwrap();
        let found: Vec<Row> = found.rows::<Row>().unwrap().map(Result::unwrap).collect();
        let (ts, receipt) = (DAY_START + 6_600_005, [vec![0; 15], vec![9]].concat());
        let text = str::to_owned;
        assert_eq!(found[0], (ts, text("cam"), text("t-1"), 77, receipt.clone(), None, 1.5, -2.25, None, None));
        let second = (ts, text("cam"), text("t-2"), 77, receipt, Some(-3), 0.0, 0.0, Some(text("EG")), found[1].9);
        assert_eq!(found[1..], [second]);
        assert!(found[1].9.is_some(), "an ordinary write time stands with the value");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_that_write_at_once_end_in_the_same_rows() {
    in_fresh_keyspace(async |keyspace| {
        let processes = [keyspace.stores().await.raw, keyspace.stores().await.raw];
        let source = MarkSource::log(1, 0);
        // Each position of the log brings eight events and repeats those of the position before.
        let write = |number: i64| {
            let mut rows = delivered(
                events(Kind::Position, DAY_START + number * SLOT_MS / 3, 8, 0),
                delivery(number, number as u128),
            );
            rows.append(&delivered(
                events(Kind::Position, DAY_START + (number - 1) * SLOT_MS / 3, 8, 0),
                delivery(number, number as u128),
            ));
            let slots = [number - 1, number].map(|n| (DAY_START + n * SLOT_MS / 3).div_euclid(SLOT_MS));
            let mark = |slot| Mark {
                venue: shop(),
                slot,
                source: source.clone(),
                position: number,
            };
            RawWrite {
                rows: vec![(shop(), rows)],
                marks: slots.map(mark).to_vec(),
                position: Some(at(number)),
            }
        };
        // One owner is behind the other and writes what the other has written, each in an order of its own.
        let runs = processes.iter().zip([1, 2]).map(async |(raw, seed)| {
            let mut order: Vec<i64> = (1..=24).collect();
            Dice::new(seed).shuffle(&mut order);
            for number in order {
                raw.apply(write(number)).await.unwrap();
            }
        });
        futures::future::join_all(runs).await;

        let mut expected: BTreeMap<String, Vec<Delivery>> = BTreeMap::new();
        for number in 0..=24_i64 {
            let batch = events(Kind::Position, DAY_START + number * SLOT_MS / 3, 8, 0);
            for row in 0..8 {
                let both = [number, number + 1].into_iter().filter(|n| (1..=24).contains(n));
                let both = both.map(|n| delivery(n, n as u128)).collect();
                expected.insert(describe(&batch, row), both);
            }
        }
        for raw in processes {
            let found = raw
                .scan(&shop(), Kind::Position, DAY_START - DAY_MS..DAY_START + DAY_MS)
                .await
                .unwrap();
            assert_eq!(contents(&found), expected);
            assert_eq!(raw.position("raw-writer", 1, 0).await.unwrap(), Some(24));
            let last = DAY_START + 8 * SLOT_MS;
            let marks = raw.marks(&shop(), last..last + 1).await.unwrap();
            assert_eq!(marks, Marks(BTreeMap::from([(source.clone(), 24)])));
        }
    })
    .await;
}

fn at(position: i64) -> ConsumerPosition {
    ConsumerPosition {
        consumer: "raw-writer",
        epoch: 1,
        partition: 0,
        position,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_owner_never_lowers_a_position() {
    in_fresh_keyspace(async |keyspace| {
        let raw = keyspace.stores().await.raw;
        for (stored, expected) in [(0, 0), (500, 500), (120, 500), (500, 500), (501, 501)] {
            raw.apply(RawWrite {
                position: Some(at(stored)),
                ..RawWrite::default()
            })
            .await
            .unwrap();
            assert_eq!(raw.position("raw-writer", 1, 0).await.unwrap(), Some(expected));
        }
        let negative = raw
            .apply(RawWrite {
                position: Some(at(-1)),
                ..RawWrite::default()
            })
            .await
            .unwrap_err();
        assert_eq!(negative.kind(), ErrorKind::Invalid);
        let far = Mark {
            venue: shop(),
            slot: i64::MAX,
            source: MarkSource::job("j"),
            position: 1,
        };
        let far = raw
            .apply(RawWrite {
                marks: vec![far],
                ..RawWrite::default()
            })
            .await
            .unwrap_err();
        assert_eq!(far.kind(), ErrorKind::Invalid);
    })
    .await;
}

/// One event in each of some slots over years, so that dates and slots must be looked up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wide_ranges_find_what_another_process_wrote() {
    in_fresh_keyspace(async |keyspace| {
        let times: Vec<TsMs> = [-800, -33, -1, 0, 1, 2, 31, 400]
            .into_iter()
            .flat_map(|days| [0, 17, 143].map(|slot| DAY_START + days * DAY_MS + slot * SLOT_MS + 3))
            .collect();
        let mut all = EventBatch::new(Kind::Reading);
        times
            .iter()
            .for_each(|&ts| all.append(&events(Kind::Reading, ts, 1, 0)));
        keyspace
            .stores()
            .await
            .raw
            .apply(write_of(delivered(all, delivery(1, 1))))
            .await
            .unwrap();

        let raw = keyspace.stores().await.raw;
        for (from_days, to_days) in [(-1_000, 1_000), (-33, 32), (-1, 3), (0, 1), (3, 31), (31, 401)] {
            let range = DAY_START + from_days * DAY_MS..DAY_START + to_days * DAY_MS;
            let expected: Vec<TsMs> = times.iter().copied().filter(|ts| range.contains(ts)).collect();
            let found = raw.scan(&shop(), Kind::Reading, range.clone()).await.unwrap();
            assert_eq!(found.events.ts, expected, "{from_days}..{to_days}");
            let counts = match expected.len() {
                0 => vec![],
                n => vec![(Kind::Reading, n as u64)],
            };
            assert_eq!(raw.count(&shop(), range.clone()).await.unwrap(), counts);
            assert!(raw.scan(&shop(), Kind::Position, range).await.unwrap().is_empty());
        }
    })
    .await;
}

/// A slot of more rows than a page holds, each with three deliveries, written in few calls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_whose_deliveries_lie_on_two_pages_are_one_row() {
    in_fresh_keyspace(async |keyspace| {
        let raw = keyspace.stores().await.raw;
        const ROWS: usize = 4_000;
        let names: Vec<String> = (0..ROWS).map(|n| format!("track-{n:05}")).collect();
        let rows: Vec<_> = names
            .iter()
            .map(|name| ("cam", name.as_str(), DAY_START + 7, 1.0, 2.0))
            .collect();
        let batch = dwell_model::testing::position_batch(&rows);
        for number in [3, 1, 2] {
            let applied = raw
                .apply(write_of(delivered(batch.clone(), delivery(number, 5))))
                .await
                .unwrap();
            assert_eq!(
                applied,
                RawApplied {
                    new_rows: ROWS as u64,
                    repeated_rows: 0
                }
            );
        }
        let found = raw
            .scan(&shop(), Kind::Position, DAY_START..DAY_START + 8)
            .await
            .unwrap();
        assert_eq!(found.len(), ROWS);
        let expected = [1, 2, 3].map(|number| delivery(number, 5));
        assert!(
            (0..ROWS).all(|row| found.deliveries(row) == expected && found.events.key(row) == names[row])
        );
        assert_eq!(
            raw.count(&shop(), DAY_START..DAY_START + 8).await.unwrap(),
            [(Kind::Position, ROWS as u64)]
        );
    })
    .await;
}

/// Cassandra refuses batches of several partitions above 50 KiB; those of one partition it takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_of_one_partition_may_be_larger_than_cassandras_limit_for_others() {
    in_fresh_keyspace(async |keyspace| {
        let raw = keyspace.stores().await.raw;
        let sensor = "s".repeat(256);
        let names: Vec<String> = (0..500).map(|n| format!("{n:0256}")).collect();
        let rows: Vec<_> = names
            .iter()
            .map(|name| (sensor.as_str(), name.as_str(), DAY_START, 1.0, 2.0))
            .collect();
        let batch = dwell_model::testing::position_batch(&rows);
        raw.apply(write_of(delivered(batch, delivery(1, 1))))
            .await
            .unwrap();
        assert_eq!(
            raw.count(&shop(), DAY_START..DAY_START + 1).await.unwrap(),
            [(Kind::Position, 500)]
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_bound_on_requests_in_flight_slows_and_does_not_fail() {
    in_fresh_keyspace(async |keyspace| {
        let narrow = CassandraConfig {
            concurrency: 2,
            ..keyspace.config.clone()
        };
        let raw = CassandraStores::open(&narrow, SystemClock::shared())
            .await
            .unwrap()
            .raw;
        let write = |number: i64| {
            write_of(delivered(
                events(Kind::Count, DAY_START + number, 300, 0),
                delivery(number, 1),
            ))
        };
        let all = futures::future::join_all((0..40).map(|number| raw.apply(write(number)))).await;
        assert!(all.iter().all(Result::is_ok));
        let counts = raw.count(&shop(), DAY_START..DAY_START + DAY_MS).await.unwrap();
        assert_eq!(counts, [(Kind::Count, 40 * 300)]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_after_a_deletion_is_there_whatever_the_clocks_of_both_say() {
    in_fresh_keyspace(async |keyspace| {
        let opened = async |off_ms: i64| {
            let clock = ManualClock::at_ms(SystemClock::new().now_ms() + off_ms);
            let stores = CassandraStores::open(&keyspace.config, clock.shared()).await;
            stores.unwrap().raw
        };
        let (ahead, behind) = (opened(DAY_MS).await, opened(-DAY_MS).await);
        let rows = delivered(events(Kind::Count, DAY_START, 20, 0), delivery(1, 1));
        ahead.apply(write_of(rows.clone())).await.unwrap();
        // A manual clock stands still, and so does the time that is counted by it.
        SystemClock::new()
            .sleep(std::time::Duration::from_millis(20))
            .await;
        let deleter = opened(DAY_MS).await;
        let written_before = deleter.now_ms().await.unwrap();
        let now = SystemClock::new().now_ms();
        assert!(
            (now - 5_000..=now + 1_000).contains(&written_before),
            "{written_before} {now}"
        );
        let slot = ComparedSlot {
            venue: shop(),
            slot: DAY_START.div_euclid(SLOT_MS),
            rows: rows.clone(),
            written_before,
        };
        deleter.delete_compared(slot).await.unwrap();
        let all = DAY_START..DAY_START + DAY_MS;
        assert_eq!(behind.count(&shop(), all.clone()).await.unwrap(), []);
        let behind = opened(-DAY_MS).await;
        behind.apply(write_of(rows)).await.unwrap();
        assert_eq!(behind.count(&shop(), all).await.unwrap(), [(Kind::Count, 20)]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_does_not_decode_is_told_as_damage() {
    in_fresh_keyspace(async |keyspace| {
        let raw = keyspace.stores().await.raw;
        insert_with_receipt(keyspace, &shop(), &[1, 2, 3]).await;
        let error = raw
            .scan(&shop(), Kind::Status, DAY_START..DAY_START + 1)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        assert!(error.to_string().contains("16 bytes has 3"), "{error}");
    })
    .await;
}

async fn insert_with_receipt(keyspace: &Keyspace, venue: &VenueKey, receipt: &[u8]) {
    let insert = keyspace.text(
        "INSERT INTO {ks}.raw_status (tenant, venue, utc_date, slot, ts, sensor, key, payload_hash, received_at, receipt, \
         state) VALUES (?, ?, ?, 0, ?, 's', '', 1, 1, ?, 'ok')",
    );
    let date = CqlDate((1 << 31) + (DAY_START / DAY_MS) as u32);
    let values = (
        venue.tenant.as_str(),
        venue.venue.as_str(),
        date,
        DAY_START,
        receipt,
    );
    keyspace.session.query_unpaged(insert, values).await.unwrap();
}
