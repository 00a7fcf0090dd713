//! Several partitions as one stream: what is read first must not make late what is read second.

use std::collections::BTreeMap;

use dwell_model::event::Kind;
use dwell_model::time::TsMs;
use dwell_storage::api::Partition;

use super::*;
use crate::shard::reader::{ShardReader, Start};
use crate::testing::Dice;
use crate::testing::events::{Event, assorted, counter, other, put, walk};

/// Two hours in which each minute brings a few positions, and every fifth minute something of each other kind: as it
/// happens, each event received when it happens. Positions are many, so that one read holds minutes of them and hours
/// of the rest.
async fn two_hours(shop: &Shop, dice: &mut Dice) {
    for minute in 0..120 {
        let from = shop.now();
        let mut events: Vec<Event> = walk(&format!("t{}", minute % 7), from, 20, dice)
            .into_iter()
            .filter(|event| event.ts[0] < from + 60_000)
            .collect();
        if minute % 5 == 0 {
            events.extend(assorted(from + 1_000, dice));
        }
        events.sort_by_key(|event| event.ts[0]);
        for event in events {
            shop.clock.set_ms(event.ts[0].max(shop.now()));
            shop.post(event).await;
        }
        shop.clock.set_ms(from + 60_000);
    }
}

/// Reads the log to its end as the loop does: a tick comes between any two reads.
async fn catch_up_ticking(shard: &mut Shard) {
    while shard.follow().await.unwrap() {
        shard.tick().unwrap();
    }
    shard.tick().unwrap();
}

fn partition(shop: &Shop, kind: Kind) -> Partition {
    shop.deps.log.partition_of(&shop.venue, kind)
}

#[tokio::test]
async fn a_backlog_makes_no_kind_late_because_another_was_read_before_it() {
    let mut shop = Shop::open("Europe/Madrid", DAY, 10.0).await.split_log(2);
    shop.config.read_bytes = 2_000;
    let mut shard = shop.start().await;
    shop.post(walker("t0", shop.now(), 3, 1.0)).await;
    shop.catch_up(&mut shard).await;
    shard.checkpoint().await.unwrap();
    drop(shard);
    two_hours(&shop, &mut Dice(5)).await;

    let mut shard = shop.start().await;
    catch_up_ticking(&mut shard).await;
    assert_eq!(shop.live().late_events, 0);
    assert_eq!(shop.rebuild(&mut shard).await, 0, "nothing was out of order");
    shop.assert_equals_batch(DAY).await;
}

#[tokio::test]
async fn nothing_is_late_because_the_raw_writer_is_further_in_one_partition_than_in_another() {
    for ahead in [Kind::Position, Kind::Crossing] {
        let mut shop = Shop::open("Europe/Madrid", DAY, 10.0).await.split_log(2);
        shop.config.read_bytes = 2_000;
        two_hours(&shop, &mut Dice(6)).await;
        shop.write_raw_of(partition(&shop, ahead)).await;

        let mut shard = shop.start().await;
        shard.tick().unwrap();
        catch_up_ticking(&mut shard).await;
        assert_eq!(
            shop.live().late_events,
            0,
            "raw held all of kind {}",
            ahead.name()
        );
        assert_eq!(
            shop.rebuild(&mut shard).await,
            0,
            "raw held all of kind {}",
            ahead.name()
        );
        shop.assert_equals_batch(DAY).await;
    }
}

#[tokio::test]
async fn what_is_really_late_is_counted_once_whatever_partition_it_comes_in() {
    let mut shop = Shop::open("Europe/Madrid", DAY, 10.0).await.split_log(2);
    shop.config.read_bytes = 2_000;
    let mut shard = shop.start().await;
    two_hours(&shop, &mut Dice(7)).await;
    shop.post(walker("late", shop.now() - 3_600_000, 4, 1.0)).await;
    let crossing = |ts: TsMs| {
        other(Kind::Crossing, "d1", "door\u{1f}in\u{1f}late", ts, |batch| {
            put(batch, 0, "door");
            put(batch, 1, "in");
            put(batch, 2, 1);
        })
    };
    shop.post(crossing(shop.now() - 1_800_000)).await;
    catch_up_ticking(&mut shard).await;
    assert_eq!(shop.live().late_events, 5);
    shard.checkpoint().await.unwrap();
    shop.write_raw_of(partition(&shop, Kind::Crossing)).await;
    drop(shard);

    let mut shard = shop.start().await;
    catch_up_ticking(&mut shard).await;
    shop.rebuild(&mut shard).await;
    assert_eq!(shop.live().late_events, 5, "not again after a restart");
    shop.assert_equals_batch(DAY).await;
}

#[tokio::test]
async fn positions_are_kept_per_partition_and_a_restart_goes_on_from_each() {
    let shop = Shop::open("Europe/Madrid", DAY, 12.0).await.split_log(3);
    let mut shard = shop.start().await;
    for i in 0..4 {
        shop.post(walker("t1", shop.now() + i * 1_000, 1, 1.0)).await;
    }
    shop.post(counter("c1", "people", "delta", shop.now(), 3)).await;
    shop.catch_up(&mut shard).await;
    shard.checkpoint().await.unwrap();
    let name = checkpoint::name(shop.deps.log.epoch(), shard.number());
    let stored = shop.deps.checkpoints.load(&name).await.unwrap().unwrap();
    let state = checkpoint::decode(&stored.bytes).unwrap();
    let start = |kind| {
        let log = std::sync::Arc::clone(&shop.deps.log);
        let partition = partition(&shop, kind);
        async move { log.bounds(partition).await.unwrap().start }
    };
    assert_eq!(state.positions.len(), 7, "a partition per kind");
    let read = |kind| state.position(partition(&shop, kind)).unwrap();
    assert_eq!(read(Kind::Position) - start(Kind::Position).await, 4);
    assert_eq!(read(Kind::Count) - start(Kind::Count).await, 1);
    assert_eq!(read(Kind::Crossing) - start(Kind::Crossing).await, 0);

    let mut shard = shop.start().await;
    shard.tick().unwrap();
    assert_eq!(
        shop.occupancy("left"),
        1,
        "built from the log before its positions"
    );
    shop.assert_equals_batch(DAY).await;
    shop.catch_up(&mut shard).await;
    shop.assert_equals_batch(DAY).await;
}

/// Reads everything; gives for each record when it was received, and its partition's kind.
async fn read_all(reader: &mut ShardReader, shop: &Shop) -> Vec<(TsMs, Kind)> {
    let mut taken = Vec::new();
    while reader.fill(shop.deps.clock.monotonic()).await.unwrap() {
        while let Some(next) = reader.take() {
            taken.push((next.record.received_at, next.record.events.kind));
        }
    }
    taken
}

fn reader_of(shop: &Shop, read_bytes: usize) -> ShardReader {
    let log = Arc::clone(&shop.deps.log);
    let shard = log.shard_of(&shop.venue);
    let start = |partition| Start {
        partition,
        position: 0,
        received_at: TsMs::MIN,
        counted_before: 0,
    };
    let starts = log.partitions_of(shard).into_iter().map(start).collect();
    ShardReader::new(log, starts, read_bytes)
}

#[tokio::test]
async fn records_come_in_the_order_in_which_they_were_received() {
    let shop = Shop::open("Europe/Madrid", DAY, 10.0).await.split_log(1);
    let partition = partition(&shop, Kind::Position);
    assert_eq!(shop.deps.log.bounds(partition).await.unwrap().start, 0);
    two_hours(&shop, &mut Dice(8)).await;
    for read_bytes in [0, 700, 1 << 20] {
        let mut reader = reader_of(&shop, read_bytes);
        let taken = read_all(&mut reader, &shop).await;
        assert!(taken.is_sorted_by_key(|(received_at, _)| *received_at));
        let mut kinds: BTreeMap<u8, usize> = BTreeMap::new();
        taken
            .iter()
            .for_each(|(_, kind)| *kinds.entry(*kind as u8).or_default() += 1);
        assert_eq!(kinds[&(Kind::Crossing as u8)], 24, "every fifth of 120 minutes");
        assert_eq!(kinds.len(), 7);
        assert!(reader.is_caught_up() && reader.log_time() == TsMs::MAX);
    }
}

#[tokio::test]
async fn an_end_is_looked_at_again_while_another_partition_has_much_to_read() {
    let shop = Shop::open("Europe/Madrid", DAY, 10.0).await.split_log(1);
    for _ in 0..10 {
        shop.post(walker("t1", shop.now(), 1, 1.0)).await;
        shop.pass(10.0);
    }
    let mut reader = reader_of(&shop, 0);
    let mut taken = Vec::new();
    for _ in 0..5 {
        assert!(reader.fill(shop.deps.clock.monotonic()).await.unwrap());
        taken.push(reader.take().unwrap().record);
        assert!(reader.take().is_none(), "the next position is not read yet");
    }
    assert!(!reader.is_caught_up());
    assert_eq!(reader.log_time(), taken[4].received_at);
    // Meanwhile something comes where there was nothing, before more positions do.
    shop.post(counter("c1", "people", "delta", shop.now(), 1)).await;
    shop.pass(30.0);
    shop.post(walker("t1", shop.now(), 1, 1.0)).await;
    let rest = read_all(&mut reader, &shop).await;
    let kinds: Vec<Kind> = rest.iter().map(|(_, kind)| *kind).collect();
    let mut expected = vec![Kind::Position; 5];
    expected.extend([Kind::Count, Kind::Position]);
    assert_eq!(kinds, expected);
}

#[tokio::test]
async fn waiting_at_all_ends_ends_with_the_partition_that_has_something() {
    let shop = Shop::open("Europe/Madrid", DAY, 10.0).await.split_log(1);
    let mut reader = reader_of(&shop, 1 << 20);
    assert!(!reader.fill(Duration::ZERO).await.unwrap());
    let (found, ()) = tokio::join!(
        reader.wait(Duration::from_secs(3_600)),
        shop.post(counter("c1", "people", "delta", shop.now(), 1))
    );
    let found = found.unwrap();
    let place = shop
        .deps
        .log
        .partitions_of(0)
        .iter()
        .position(|partition| *partition == self::partition(&shop, Kind::Count));
    assert_eq!(Some(found[0]), place);
    assert_eq!(found.len(), 1);
    let kind_log = shop.kind_log.as_ref().unwrap();
    let before = kind_log.reads.load(std::sync::atomic::Ordering::Relaxed);
    reader.heard(&found, Duration::ZERO);
    assert!(reader.fill(Duration::ZERO).await.unwrap());
    let reads = kind_log.reads.load(std::sync::atomic::Ordering::Relaxed) - before;
    assert_eq!(reads, 1, "the others are known to be at their ends");
    assert_eq!(reader.take().unwrap().record.events.kind, Kind::Count);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_stalls_none_behind_it() {
    let shop = Shop::open("Europe/Madrid", DAY, 12.0).await;
    let mut shard = shop.start().await;
    for track in ["t1", "t2", "t3"] {
        shop.post(walker(track, shop.now(), 1, 1.0)).await;
    }
    shop.damage_record(1);
    shop.catch_up(&mut shard).await;
    assert_eq!(shop.occupancy("left"), 2, "the first and the third");
}
