//! Whole streams: late, twice, in disorder, over a clock change and a day's end, with restarts in the middle. At the
//! end the live rows must be those of the batch computation over all that was posted, to the last digit.

use dwell_model::event::{Column, Kind, NO_I64, NO_TEXT};
use dwell_model::metrics::{Carry, CounterSample, Family, Grain, Slice, Value};
use dwell_model::time::TsMs;
use proptest::prelude::*;

use super::*;
use crate::testing::events::{Event, assorted, counter, other, walk};
use crate::testing::{Dice, assert_same_rows};

/// Events with the times of their arrival: most within the reorder window, some twice, some minutes late.
fn arrivals(events: Vec<Event>, dice: &mut Dice) -> Vec<(TsMs, Event)> {
    let mut arrivals = Vec::new();
    for event in events {
        let ts = event.ts[0];
        let delay = match dice.below(100) {
            0 => 60_000 + dice.below(400_000) as i64,
            _ => dice.below(3_500) as i64,
        };
        if dice.below(20) == 0 {
            arrivals.push((ts + delay + 1 + dice.below(200_000) as i64, event.clone()));
        }
        arrivals.push((ts + delay, event));
    }
    arrivals.sort_by_key(|(at, _)| *at);
    arrivals
}

/// Plays arrivals in posts of `step_ms`; before some posts the process is killed and starts anew. Returns the shard
/// and how many rebuilds there were on the way.
async fn play(
    shop: &Shop,
    arrivals: &[(TsMs, Event)],
    step_ms: i64,
    kill_every: usize,
    dice: &mut Dice,
) -> (Shard, usize) {
    let mut shard = shop.start().await;
    let (mut from, mut posts, mut rebuilds) = (0, 0, 0);
    while let Some((first, _)) = arrivals.get(from) {
        let until = first + step_ms;
        let count = arrivals[from..].iter().take_while(|(at, _)| *at < until).count();
        shop.clock.set_ms(until);
        // A request holds one venue's events of one kind.
        for kind in Kind::ALL {
            let mut batch = EventBatch::new(kind);
            let of_kind = arrivals[from..from + count]
                .iter()
                .filter(|(_, event)| event.kind == kind);
            of_kind.for_each(|(_, event)| batch.append(event));
            if !batch.is_empty() {
                shop.post(batch).await;
            }
        }
        from += count;
        posts += 1;
        if dice.below(3) == 0 {
            shop.write_raw().await;
        }
        if posts % kill_every == 0 {
            if dice.below(2) == 0 {
                shard.checkpoint().await.unwrap();
            }
            shard = shop.start().await;
        }
        shop.catch_up(&mut shard).await;
        if let Some(job) = shard.next_rebuild().await.unwrap() {
            let outcome = job.run().await;
            shard.adopt(outcome).await.unwrap();
            rebuilds += 1;
        }
    }
    (shard, rebuilds)
}

#[tokio::test]
async fn the_night_of_the_clock_change_and_the_end_of_its_day_equal_the_batch_computation() {
    the_night_of_the_clock_change(Shop::open("Europe/Madrid", "2026-10-24", 23.5).await).await;
}

#[tokio::test]
async fn the_same_night_from_a_partition_for_each_kind_equals_the_batch_computation() {
    let mut shop = Shop::open("Europe/Madrid", "2026-10-24", 23.5).await.split_log(2);
    shop.config.read_bytes = 3_000;
    the_night_of_the_clock_change(shop).await;
}

async fn the_night_of_the_clock_change(shop: Shop) {
    let (before, dst, after) = ("2026-10-24", "2026-10-25", "2026-10-26");
    let mut dice = Dice(11);
    let midnight = shop.at(dst, 0.0).await;
    let end = shop.at(after, 0.0).await;
    assert_eq!(end - midnight, 25 * 3_600_000, "the day has 25 hours");
    let mut events = Vec::new();
    for (person, hours) in [
        -0.1, 0.4, 0.9, 1.9, 2.0, 2.5, 2.95, 3.1, 8.0, 8.02, 24.9, 24.98, 25.05,
    ]
    .into_iter()
    .enumerate()
    {
        let from = midnight + (hours * 3_600_000.0) as i64;
        events.extend(walk(&format!("t{}", person % 9), from, 120, &mut dice));
        events.extend(assorted(from + 1_000, &mut dice));
    }
    let arrivals = arrivals(events, &mut dice);
    let (mut shard, rebuilds) = play(&shop, &arrivals, 4_000, 40, &mut dice).await;
    assert!(rebuilds > 0, "the stream holds events that need a rebuild");
    shop.write_raw().await;
    shop.rebuild(&mut shard).await;
    shop.assert_equals_batch(before).await;
    // Nothing is published: the counter's last sample of each day is the live one's of the day before.
    let mut carry = Carry::default();
    for day in [before, dst, after] {
        let batch = shop.batch(day, carry.clone()).await;
        assert_same_rows(&shop.rows(day), &batch);
        carry = shop.carry_out(day, carry).await;
    }
    assert!(!carry.0.is_empty());
}

#[tokio::test]
async fn rows_of_a_simple_night_are_those_counted_by_hand() {
    // The repeated hour: 02:00 to 03:00 comes twice, and the second is a bucket of its own.
    let shop = Shop::open("Europe/Madrid", "2026-10-25", 1.9).await;
    let mut shard = shop.start().await;
    let two = shop.at("2026-10-25", 2.0).await;
    shop.post(walker("t1", two - 5_000, 10, 1.0)).await; // 01:59:55 to 02:00:04
    shop.post(walker("t2", two + 3_600_000, 6, 1.0)).await; // 02:00:00 again
    shop.clock.set_ms(two + 3_700_000);
    shop.catch_up(&mut shard).await;
    let rows = shop.rows("2026-10-25");
    let hours: Vec<(i64, u64, u64)> = rows
        .iter()
        .filter(|row| (row.grain, row.family, row.subject.as_str()) == (Grain::Hour, Family::Zone, "left"))
        .filter(|row| row.slice == Slice::All)
        .map(|row| match &row.value {
            Value::Zone(zone) => ((row.start - two) / 3_600_000, zone.visits, zone.dwell_ms),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(hours, [(-1, 1, 5_000), (0, 0, 4_000), (1, 1, 5_000)]);
    assert_eq!(zone_of_day(&rows, "left").unwrap().dwells_ms, [5_000, 9_000]);
}

#[tokio::test]
async fn a_counter_goes_on_from_the_published_day_before() {
    let shop = Shop::open("Europe/Madrid", DAY, 12.0).await;
    let sample = CounterSample {
        ts: shop.at("2026-03-08", 20.0).await,
        value: 1_000,
    };
    let carry = Carry([("c1\u{1f}total\u{1f}cumulative".to_owned(), sample)].into());
    shop.publish("2026-03-08", false, carry.clone()).await;
    let mut shard = shop.start().await;
    shop.post(counter("c1", "total", "cumulative", shop.now(), 1_030))
        .await;
    shop.catch_up(&mut shard).await;
    let rows = shop.rows(DAY);
    let counted = rows
        .iter()
        .find(|row| (row.grain, row.family) == (Grain::Day, Family::Counter))
        .unwrap();
    assert!(
        matches!(&counted.value, Value::Counter(value) if value.value == 30),
        "{counted:?}"
    );
    assert_same_rows(&rows, &shop.batch(DAY, carry).await);
}

#[tokio::test]
async fn a_file_received_before_what_it_repeats_can_change_which_payload_counts() {
    let shop = Shop::open("Europe/Madrid", DAY, 12.0).await;
    let mut shard = shop.start().await;
    let from = shop.now();
    let (left, right) = (walker("t1", from, 3, 1.0), walker("t1", from, 3, 6.0));
    shop.pass(10.0);
    shop.post(right.clone()).await;
    shop.pass(10.0);
    shop.post(left.clone()).await;
    shop.catch_up(&mut shard).await;
    shop.rebuild(&mut shard).await;
    assert!(
        zone_of_day(&shop.rows(DAY), "left").is_some(),
        "the later one counts"
    );
    // A file whose import began before both brings the payload of the left: its first delivery is now the earliest.
    shop.post_received(left, Some(from)).await;
    shop.catch_up(&mut shard).await;
    shop.rebuild(&mut shard).await;
    assert!(zone_of_day(&shop.rows(DAY), "right").is_some());
    shop.assert_equals_batch(DAY).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Any order of arrival, any repetition, corrections, any number of restarts, from one partition or from several.
    #[test]
    fn whatever_the_arrival_the_live_rows_end_equal_to_the_batch_computation(
        seed in any::<u64>(),
        people in 1_usize..5,
        posts in 3_usize..14,
        kill_every in 2_usize..9,
        shards in 0_u32..4,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut shop = Shop::open("Australia/Lord_Howe", "2026-04-05", 12.0).await;
            if shards > 0 {
                shop = shop.split_log(shards);
                shop.config.read_bytes = 1 << (seed % 16);
            }
            let mut dice = Dice(seed);
            let noon = shop.now();
            let mut events = Vec::new();
            for person in 0..people {
                let from = noon - dice.below(43_000_000) as i64;
                events.extend(walk(&format!("t{}", person % 3), from, 30, &mut dice));
                events.extend(assorted(from, &mut dice));
            }
            // A tenth comes twice, a tenth is corrected.
            for i in 0..events.len() {
                match dice.below(10) {
                    0 => events.push(events[i].clone()),
                    1 => {
                        let mut corrected = events[i].clone();
                        match &mut corrected.payload[0] {
                            Column::F32(x) => x[0] += 1.5,
                            Column::F64(value) => value[0] += 1.5,
                            Column::I64(value) if value[0] != NO_I64 => value[0] += 2,
                            _ => corrected.revision[0] = 1,
                        }
                        events.push(corrected);
                    }
                    _ => {}
                }
            }
            dice.shuffle(&mut events);
            let mut shard = shop.start().await;
            for (i, chunk) in events.chunks(events.len().div_ceil(posts)).enumerate() {
                shop.pass(dice.below(9) as f64);
                for kind in Kind::ALL {
                    let mut batch = EventBatch::new(kind);
                    chunk.iter().filter(|event| event.kind == kind).for_each(|event| batch.append(event));
                    if !batch.is_empty() {
                        shop.post(batch).await;
                    }
                }
                match dice.below(4) {
                    0 => shop.write_raw().await,
                    // It is further in some partitions than in others.
                    1 => shop.write_raw_of(dice.below(u64::from(shop.deps.log.partitions())) as u32).await,
                    _ => {}
                }
                if i % kill_every == kill_every - 1 {
                    shard = shop.start().await;
                }
                shop.catch_up(&mut shard).await;
            }
            shop.rebuild(&mut shard).await;
            shop.assert_equals_batch("2026-04-05").await;
        });
    }
}

#[test]
fn absent_fields_are_absent() {
    let event = counter("c", "k", "delta", 1, 2);
    assert_eq!((event.i64s(0), event.text(1, 0)), (&[2_i64][..], Some("delta")));
    let presence = other(Kind::Presence, "w", "d", 1, |_| {});
    assert_eq!(presence.i64s(0), [NO_I64]);
    assert!(presence.text_ids(1).is_empty() || presence.text_ids(1)[0] == NO_TEXT);
}
