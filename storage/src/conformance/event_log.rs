//! What [`EventLog`] promises.
//!
//! A backend may split records between events and join neighbours of one venue, receipt and time when they are read, so
//! the cases compare events, and records only by what holds for both.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dwell_model::event::Kind;
use dwell_model::ids::VenueKey;
use dwell_model::time::TsMs;
use dwell_runtime::clock::{self, ManualClock, SystemClock};

use super::samples::{DAY_START, describe, events, position, receipt, record, shop, strangers};
use super::{assert_kind, run_cases};
use crate::api::{
    Appended, ErasedSubject, Erasure, EventLog, LedgerKey, LogBounds, LogLag, LogRecord, LoggedRecord,
    NewErasure, Partition, Position, SubjectClass,
};
use crate::erasure::ErasureFilter;
use crate::error::ErrorKind;

/// A fresh log, and what the suite may do with it.
#[derive(Clone)]
pub struct LogUnderTest {
    /// The log.
    pub log: Arc<dyn EventLog>,
    /// The log's clock, where it can be set; the cases that need it are left out otherwise.
    pub clock: Option<ManualClock>,
}

impl std::fmt::Debug for LogUnderTest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogUnderTest")
            .field("clock", &self.clock)
            .finish_non_exhaustive()
    }
}

/// Runs all cases, each on a fresh log that `make` gives.
pub async fn suite<M, F>(make: M)
where
    M: Fn() -> F,
    F: Future<Output = LogUnderTest>,
{
    run_cases!(
        "event log",
        make,
        [
            every_partition_belongs_to_one_shard_and_a_venue_to_one_shard,
            the_only_member_of_a_group_is_given_every_shard,
            an_empty_log_has_nothing_to_read,
            what_was_appended_is_read_in_order_and_as_it_was,
            a_call_without_records_appends_nothing,
            a_record_that_cannot_be_right_is_refused_with_its_whole_call,
            a_repeated_record_is_there_twice,
            calls_at_the_same_time_lose_nothing_and_keep_their_order,
            reading_gives_at_least_one_record_and_about_as_many_bytes_as_asked_for,
            times_of_receipt_never_fall,
            a_records_own_time_is_kept_and_moves_no_other,
            reading_before_the_start_or_beyond_the_end_is_a_gap,
            trimming_stops_at_a_time_and_at_a_position,
            positions_and_times_go_on_after_everything_was_trimmed,
            lag_counts_the_events_after_a_position,
            waiting_ends_with_a_record_or_with_the_time,
            a_partition_that_is_not_there_is_refused,
            a_new_life_has_a_higher_epoch_each_time,
            erasing_takes_events_out_and_leaves_positions,
        ]
    );
}

/// All records from a position on.
async fn read_all(log: &dyn EventLog, partition: Partition, from: Position) -> Vec<LoggedRecord> {
    let (mut all, mut next) = (Vec::new(), from);
    loop {
        let chunk = log.read(partition, next, 1 << 16).await.unwrap();
        if chunk.records.is_empty() {
            assert_eq!(chunk.next, next, "an empty chunk leads nowhere");
            return all;
        }
        assert!(chunk.next > next, "reading goes on");
        next = chunk.next;
        all.extend(chunk.records);
    }
}

/// The events of records, each with what it was appended with, as text.
fn described(records: &[LoggedRecord]) -> Vec<String> {
    let of_record = |record: &LoggedRecord| {
        record.events.check().unwrap();
        let LoggedRecord {
            venue,
            receipt,
            events,
            ..
        } = record;
        (0..events.len())
            .map(|row| format!("{venue} {receipt} {}", describe(events, row)))
            .collect::<Vec<_>>()
    };
    records.iter().flat_map(of_record).collect()
}

/// Number of events of records.
fn count(records: &[LoggedRecord]) -> usize {
    records.iter().map(|record| record.events.len()).sum()
}

/// Lets the log's time move on.
async fn let_time_pass(clock: Option<&ManualClock>) {
    let step = Duration::from_millis(5);
    match clock {
        Some(clock) => clock.advance(step),
        None => SystemClock::shared().sleep(step).await,
    }
}

async fn start(log: &dyn EventLog, venue: &VenueKey) -> (Partition, Position) {
    start_of(log, venue, Kind::Position).await
}

async fn start_of(log: &dyn EventLog, venue: &VenueKey, kind: Kind) -> (Partition, Position) {
    let partition = log.partition_of(venue, kind);
    (partition, log.bounds(partition).await.unwrap().end)
}

async fn every_partition_belongs_to_one_shard_and_a_venue_to_one_shard(under_test: LogUnderTest) {
    let log = under_test.log;
    let mut all: Vec<Partition> = (0..log.shards())
        .flat_map(|shard| log.partitions_of(shard))
        .collect();
    all.sort_unstable();
    assert_eq!(all, (0..log.partitions()).collect::<Vec<_>>());
    assert!(log.partitions_of(log.shards()).is_empty());
    for venue in [vec![shop()], strangers()].concat() {
        let shard = log.partitions_of(log.shard_of(&venue));
        for kind in Kind::ALL {
            assert!(
                shard.contains(&log.partition_of(&venue, kind)),
                "{venue} {kind:?}"
            );
        }
    }
}

async fn the_only_member_of_a_group_is_given_every_shard(under_test: LogUnderTest) {
    let log = under_test.log;
    let member = log.join("raw-writer").await.unwrap();
    let mut shards = member.shards();
    let all = |given: &BTreeSet<u32>| given.iter().copied().eq(0..log.shards());
    let given = clock::timeout(&SystemClock::new(), Duration::from_secs(60), shards.wait_for(all)).await;
    given.expect("the group answers").unwrap();
    member.mirror(0, 1);
}

async fn an_empty_log_has_nothing_to_read(under_test: LogUnderTest) {
    let log = under_test.log;
    assert!(log.partitions() > 0);
    let epoch = log.epoch();
    for partition in 0..log.partitions() {
        let LogBounds { start, end } = log.bounds(partition).await.unwrap();
        assert_eq!(start, end);
        let chunk = log.read(partition, end, 1_000).await.unwrap();
        assert_eq!((chunk.records, chunk.next), (vec![], end));
        assert_eq!(log.lag(partition, end).await.unwrap(), LogLag::default());
        assert_eq!(log.trim(partition, i64::MAX, Position::MAX).await.unwrap(), 0);
    }
    assert_eq!(log.epoch(), epoch);
}

async fn what_was_appended_is_read_in_order_and_as_it_was(under_test: LogUnderTest) {
    let log = under_test.log;
    let venues: Vec<VenueKey> = [vec![shop()], strangers()].concat();
    let mut by_partition: BTreeMap<Partition, Vec<(LogRecord, Appended)>> = BTreeMap::new();
    for (i, kind) in Kind::ALL.into_iter().cycle().take(20).enumerate() {
        let venue = &venues[i % venues.len()];
        let records: Vec<LogRecord> = (0..1 + i % 3)
            .map(|n| {
                record(
                    venue,
                    (i * 10 + n) as u128,
                    events(kind, DAY_START, 1 + i, n as u8),
                )
            })
            .collect();
        let answers = log.append(records.clone()).await.unwrap();
        assert_eq!(answers.len(), records.len(), "an answer per record");
        for (record, answer) in records.into_iter().zip(answers) {
            assert_eq!(answer.partition, log.partition_of(venue, kind));
            by_partition
                .entry(answer.partition)
                .or_default()
                .push((record, answer));
        }
    }
    for (partition, appended) in by_partition {
        let LogBounds { start, end } = log.bounds(partition).await.unwrap();
        let read = read_all(&*log, partition, start).await;
        let written: Vec<LoggedRecord> = appended
            .iter()
            .map(|(record, answer)| LoggedRecord {
                position: answer.position,
                received_at: answer.received_at,
                venue: record.venue.clone(),
                receipt: record.receipt,
                events: record.events.clone(),
            })
            .collect();
        assert_eq!(described(&read), described(&written));
        for record in &written {
            let first = read.iter().find(|logged| logged.position == record.position);
            let first = first.expect("a receipt's first record is told of by its position");
            assert_eq!(
                (first.received_at, &first.venue, first.receipt),
                (record.received_at, &record.venue, record.receipt)
            );
        }
        assert!(read.windows(2).all(|pair| pair[0].position < pair[1].position));
        let last = log
            .read(partition, read.last().unwrap().position, usize::MAX)
            .await
            .unwrap();
        assert_eq!(
            last.next, end,
            "the end is where to read on after the last record"
        );
    }
}

async fn a_call_without_records_appends_nothing(under_test: LogUnderTest) {
    let log = under_test.log;
    let (partition, end) = start(&*log, &shop()).await;
    assert_eq!(log.append(vec![]).await.unwrap(), []);
    assert_eq!(log.bounds(partition).await.unwrap().end, end);
}

async fn a_record_that_cannot_be_right_is_refused_with_its_whole_call(under_test: LogUnderTest) {
    let log = under_test.log;
    let (partition, end) = start(&*log, &shop()).await;
    let good = record(&shop(), 1, events(Kind::Position, DAY_START, 3, 0));
    let empty = record(&shop(), 2, events(Kind::Position, DAY_START, 0, 0));
    let mut damaged = good.clone();
    damaged.events.sensor[1] = 99;
    for bad in [empty, damaged] {
        assert_kind(log.append(vec![good.clone(), bad]).await, ErrorKind::Invalid);
    }
    assert_eq!(log.bounds(partition).await.unwrap().end, end);
    log.append(vec![good]).await.unwrap();
}

async fn a_repeated_record_is_there_twice(under_test: LogUnderTest) {
    let log = under_test.log;
    let (partition, first) = start_of(&*log, &shop(), Kind::Count).await;
    let again = record(&shop(), 1, events(Kind::Count, DAY_START, 2, 0));
    let one = log.append(vec![again.clone()]).await.unwrap();
    let two = log.append(vec![again]).await.unwrap();
    assert!(one[0].position < two[0].position);
    let twice = described(&read_all(&*log, partition, first).await);
    assert_eq!((twice.len(), &twice[..2]), (4, &twice[2..]));
}

async fn calls_at_the_same_time_lose_nothing_and_keep_their_order(under_test: LogUnderTest) {
    let log = under_test.log;
    let (partition, first) = start(&*log, &shop()).await;
    let call = |caller: u128| {
        let log = &log;
        async move {
            let mut answers = Vec::new();
            for n in 0..10_u128 {
                let records: Vec<LogRecord> = (0..3)
                    .map(|part| {
                        record(
                            &shop(),
                            caller * 1_000 + n * 10 + part,
                            position("s", "t", DAY_START, 1.0, 1.0),
                        )
                    })
                    .collect();
                let receipts: Vec<_> = records.iter().map(|record| record.receipt).collect();
                let appended = log.append(records).await.unwrap();
                assert!(
                    appended
                        .windows(2)
                        .all(|pair| pair[0].position < pair[1].position),
                    "a call keeps its order"
                );
                answers.extend(receipts.into_iter().zip(appended));
            }
            answers
        }
    };
    let answers: Vec<_> = futures::future::join_all((0..24).map(call)).await.concat();
    let told: BTreeMap<Position, _> = answers
        .iter()
        .map(|(receipt, at)| (at.position, *receipt))
        .collect();
    assert_eq!(told.len(), 24 * 10 * 3, "no position is given out twice");
    let read = read_all(&*log, partition, first).await;
    let found: BTreeMap<Position, _> = read
        .iter()
        .map(|logged| (logged.position, logged.receipt))
        .collect();
    assert_eq!(found, told);
}

async fn reading_gives_at_least_one_record_and_about_as_many_bytes_as_asked_for(under_test: LogUnderTest) {
    let log = under_test.log;
    let (partition, first) = start(&*log, &shop()).await;
    let records: Vec<LogRecord> = (0..40)
        .map(|n| record(&shop(), n, events(Kind::Position, DAY_START, 200, 0)))
        .collect();
    log.append(records).await.unwrap();
    let tiny = log.read(partition, first, 0).await.unwrap();
    assert_eq!((tiny.records.len(), tiny.next), (1, tiny.records[0].position + 1));
    // An event takes at least 8 bytes (two coordinates) and less than 100.
    let some = log.read(partition, first, 20_000).await.unwrap();
    assert!(
        (201..=14 * 200).contains(&count(&some.records)),
        "{} events for 20,000 bytes",
        count(&some.records)
    );
    let all = log.read(partition, first, usize::MAX).await.unwrap();
    assert_eq!(count(&all.records), 40 * 200);
    let read = read_all(&*log, partition, first).await;
    assert_eq!(count(&read), 40 * 200);
    let mut receipts: Vec<_> = read.iter().map(|record| record.receipt).collect();
    receipts.dedup();
    assert_eq!(receipts, (0..40).map(receipt).collect::<Vec<_>>());
}

async fn times_of_receipt_never_fall(under_test: LogUnderTest) {
    let Some(clock) = under_test.clock else { return };
    let log = under_test.log;
    let mut received = Vec::new();
    for now in [
        DAY_START,
        DAY_START + 50,
        DAY_START - 9_000,
        DAY_START + 49,
        DAY_START + 51,
    ] {
        clock.set_ms(now);
        let appended = log
            .append(vec![record(&shop(), 1, position("s", "t", DAY_START, 1.0, 1.0))])
            .await
            .unwrap();
        received.push(appended[0].received_at - DAY_START);
    }
    assert_eq!(received, [0, 50, 50, 50, 51]);
}

async fn a_records_own_time_is_kept_and_moves_no_other(under_test: LogUnderTest) {
    let log = under_test.log;
    if let Some(clock) = &under_test.clock {
        clock.set_ms(DAY_START);
    }
    let (partition, first) = start(&*log, &shop()).await;
    let plain = record(&shop(), 1, position("s", "t", DAY_START, 1.0, 1.0));
    let of_a_file = |received_at| LogRecord {
        received_at: Some(received_at),
        ..plain.clone()
    };
    let (past, future) = (DAY_START - 86_400_000, DAY_START + 400 * 86_400_000);
    let before = log.append(vec![plain.clone()]).await.unwrap()[0].received_at;
    let mixed = log
        .append(vec![
            of_a_file(past),
            plain.clone(),
            of_a_file(future),
            plain.clone(),
        ])
        .await
        .unwrap();
    let times: Vec<_> = mixed.iter().map(|appended| appended.received_at).collect();
    assert_eq!((times[0], times[2]), (past, future));
    assert!(
        before <= times[1] && times[1] <= times[3] && times[3] < future,
        "{times:?}"
    );
    if under_test.clock.is_some() {
        assert_eq!((times[1], times[3]), (DAY_START, DAY_START));
    }
    let read: Vec<_> = read_all(&*log, partition, first)
        .await
        .iter()
        .map(|logged| logged.received_at)
        .collect();
    assert_eq!(read[1..], times);
}

async fn reading_before_the_start_or_beyond_the_end_is_a_gap(under_test: LogUnderTest) {
    let log = under_test.log;
    let (partition, _) = start(&*log, &shop()).await;
    let one = |number| vec![record(&shop(), number, position("s", "t", DAY_START, 1.0, 1.0))];
    for number in 0..4 {
        log.append(one(number)).await.unwrap();
    }
    let LogBounds { start, end } = log.bounds(partition).await.unwrap();
    assert!(log.read(partition, start, 1).await.is_ok());
    assert!(log.read(partition, end, 1).await.is_ok());
    assert_kind(log.read(partition, end + 1, 1).await, ErrorKind::Gap);
    assert_kind(log.read(partition, start - 1, 1).await, ErrorKind::Gap);
    let middle = read_all(&*log, partition, start).await[2].position;
    assert_eq!(log.trim(partition, i64::MAX, middle).await.unwrap(), 2);
    assert_kind(log.read(partition, start, 1).await, ErrorKind::Gap);
    assert_kind(log.read(partition, middle - 1, 1).await, ErrorKind::Gap);
    assert_eq!(read_all(&*log, partition, middle).await.len(), 2);
}

async fn trimming_stops_at_a_time_and_at_a_position(under_test: LogUnderTest) {
    let LogUnderTest { log, clock } = under_test;
    let (partition, _) = start(&*log, &shop()).await;
    let mut appended = Vec::new();
    for number in 0..5 {
        let one = record(&shop(), number, position("s", "t", DAY_START, 1.0, 1.0));
        appended.push(log.append(vec![one]).await.unwrap()[0]);
        let_time_pass(clock.as_ref()).await;
    }
    let at: Vec<Position> = appended.iter().map(|appended| appended.position).collect();
    let time: Vec<TsMs> = appended.iter().map(|appended| appended.received_at).collect();
    assert!(time.windows(2).all(|pair| pair[0] < pair[1]), "{time:?}");
    let trim = async |before, keep_from| log.trim(partition, before, keep_from).await.unwrap();
    let start = async || log.bounds(partition).await.unwrap().start;
    assert_eq!(
        trim(time[0], Position::MAX).await,
        0,
        "received at the time is not before it"
    );
    assert_eq!(trim(time[0] + 1, Position::MAX).await, 1);
    assert_eq!(start().await, at[1]);
    assert_eq!(
        trim(time[2], Position::MAX).await,
        1,
        "the record of that time stops it"
    );
    let much_later = time[4] + 1_000;
    assert_eq!(
        trim(much_later, at[2]).await,
        0,
        "nothing at the position to be kept"
    );
    assert_eq!(trim(much_later, at[4]).await, 2);
    let bounds = log.bounds(partition).await.unwrap();
    let left = LogBounds {
        start: at[4],
        end: at[4] + 1,
    };
    assert_eq!(bounds, left);
    let read = read_all(&*log, partition, at[4]).await;
    assert_eq!((read[0].receipt, read.len()), (receipt(4), 1));
}

async fn positions_and_times_go_on_after_everything_was_trimmed(under_test: LogUnderTest) {
    let log = under_test.log;
    let (partition, _) = start(&*log, &shop()).await;
    if let Some(clock) = &under_test.clock {
        clock.set_ms(DAY_START);
    }
    let batch = || vec![record(&shop(), 1, events(Kind::Position, DAY_START, 5, 0))];
    for appended in futures::future::join_all((0..600).map(|_| log.append(batch()))).await {
        appended.unwrap();
    }
    let end = log.bounds(partition).await.unwrap().end;
    // Counted are positions: of records, or of their five events each.
    let trimmed = log.trim(partition, i64::MAX, Position::MAX).await.unwrap();
    assert!([600, 3_000].contains(&trimmed), "{trimmed}");
    assert_eq!(
        log.bounds(partition).await.unwrap(),
        LogBounds { start: end, end }
    );
    assert_eq!(log.lag(partition, end).await.unwrap(), LogLag::default());
    assert!(log.read(partition, end, 1).await.unwrap().records.is_empty());
    assert_kind(log.read(partition, end - 1, 1).await, ErrorKind::Gap);
    if let Some(clock) = &under_test.clock {
        clock.set_ms(DAY_START - 1_000);
    }
    let next = log.append(batch()).await.unwrap()[0];
    assert_eq!(next.position, end, "positions are never given out again");
    assert!(
        next.received_at >= DAY_START || under_test.clock.is_none(),
        "times neither"
    );
    assert_eq!(log.lag(partition, end).await.unwrap().events, 5);
}

async fn lag_counts_the_events_after_a_position(under_test: LogUnderTest) {
    let log = under_test.log;
    let (partition, first) = start_of(&*log, &shop(), Kind::Reading).await;
    let mut appended = Vec::new();
    for (i, n) in [3_usize, 1, 10, 7].into_iter().enumerate() {
        if let Some(clock) = &under_test.clock {
            clock.set_ms(DAY_START + i as i64);
        }
        appended.extend(
            log.append(vec![record(&shop(), 1, events(Kind::Reading, DAY_START, n, 0))])
                .await
                .unwrap(),
        );
    }
    for (place, events) in [(0, 21), (1, 18), (2, 17), (3, 7)] {
        let lag = log.lag(partition, appended[place].position).await.unwrap();
        let expected = LogLag {
            events,
            oldest_received_at: Some(appended[place].received_at),
        };
        assert_eq!(lag, expected, "at record {place}");
    }
    let end = log.bounds(partition).await.unwrap().end;
    assert_eq!(log.lag(partition, end).await.unwrap(), LogLag::default());
    let trimmed = log.trim(partition, i64::MAX, appended[2].position).await.unwrap();
    assert_eq!(trimmed, appended[2].position.abs_diff(first));
    assert_eq!(log.lag(partition, appended[3].position).await.unwrap().events, 7);
    assert_eq!(
        log.lag(partition, first).await.unwrap().events,
        17,
        "only what is held can be counted"
    );
}

async fn waiting_ends_with_a_record_or_with_the_time(under_test: LogUnderTest) {
    let LogUnderTest { log, clock, .. } = under_test;
    let (partition, end) = start(&*log, &shop()).await;
    let one = || vec![record(&shop(), 1, position("s", "t", DAY_START, 1.0, 1.0))];
    let short = Duration::from_millis(20);
    let pass_time = async || {
        if let Some(clock) = &clock {
            clock.sleepers_reach(1).await;
            clock.advance(short);
        }
    };
    let (waited, ()) = futures::join!(log.wait(partition, end, short), pass_time());
    assert!(!waited.unwrap(), "there is no record, so the time must run out");
    let long = Duration::from_secs(600);
    let (waited, appended) = futures::join!(log.wait(partition, end, long), log.append(one()));
    assert!(waited.unwrap(), "an append wakes who waits");
    let at = appended.unwrap()[0].position;
    assert!(
        log.wait(partition, at, long).await.unwrap(),
        "a record that is there ends the wait at once"
    );
    let (waited, ()) = futures::join!(log.wait(partition, at + 1, short), pass_time());
    assert!(!waited.unwrap(), "the record before is not the one waited for");
}

async fn a_partition_that_is_not_there_is_refused(under_test: LogUnderTest) {
    let log = under_test.log;
    let beyond = log.partitions();
    assert_kind(log.read(beyond, 0, 1).await, ErrorKind::Invalid);
    assert_kind(log.bounds(beyond).await, ErrorKind::Invalid);
    assert_kind(log.lag(beyond, 0).await, ErrorKind::Invalid);
    assert_kind(log.wait(beyond, 0, Duration::ZERO).await, ErrorKind::Invalid);
    assert_kind(log.trim(beyond, 0, 0).await, ErrorKind::Invalid);
}

async fn erasing_takes_events_out_and_leaves_positions(under_test: LogUnderTest) {
    let log = under_test.log;
    let venue = shop();
    let partition = log.partition_of(&venue, Kind::Position);
    let from = log.bounds(partition).await.unwrap().start;
    let mut mixed = position("s", "gone", DAY_START, 1.0, 2.0);
    mixed.append(&position("s", "stays", DAY_START + 1, 1.0, 2.0));
    let records = vec![
        record(&venue, 1, mixed),
        record(&venue, 2, position("s", "gone", DAY_START + 2, 1.0, 2.0)),
        record(&venue, 3, position("s", "gone", DAY_START + 100, 1.0, 2.0)),
        record(&strangers()[1], 4, position("s", "gone", DAY_START, 1.0, 2.0)),
    ];
    let end = {
        log.append(records).await.unwrap();
        log.bounds(partition).await.unwrap()
    };
    let key = LedgerKey::new([7; 32]);
    let entry = Erasure {
        number: 1,
        erasure: NewErasure {
            id: "one".to_owned(),
            venue: venue.clone(),
            requested_at: DAY_START + 50,
            subjects: vec![ErasedSubject {
                class: SubjectClass::Track,
                name: key.hash(SubjectClass::Track, &venue, "gone"),
                sensor: None,
                from: i64::MIN,
                until: DAY_START + 51,
            }],
        },
    };
    let filter = Arc::new(ErasureFilter::new(key, &[entry]));
    let erase = async || {
        let (mut next, mut events, mut is_gone) = (Some(from), 0, true);
        while let Some(position) = next {
            let step = log.erase(partition, position, Arc::clone(&filter)).await.unwrap();
            events += step.events;
            is_gone = step.is_gone;
            assert!(step.next.is_none_or(|next| next > position), "it goes on");
            next = step.next;
        }
        (events, is_gone)
    };
    let (events, is_gone) = erase().await;
    assert_eq!(events, 2, "of the venue, and of the time covered");
    assert_eq!(log.bounds(partition).await.unwrap(), end, "positions stay");
    let left = read_all(&*log, partition, from).await;
    match is_gone {
        true => {
            assert_eq!(erase().await, (0, true));
            let tracks: Vec<String> = left
                .iter()
                .filter(|record| record.venue == venue)
                .flat_map(|record| (0..record.events.len()).map(|row| record.events.key(row).to_owned()))
                .collect();
            assert_eq!(tracks, ["stays", "gone"], "who comes later is somebody else");
            let texts: Vec<&str> = left[0].events.strings.iter().collect();
            assert!(!texts.contains(&"gone"), "nor in the dictionary: {texts:?}");
        }
        // What cannot be changed is counted each time.
        false => assert_eq!(erase().await, (2, false)),
    }
}

async fn a_new_life_has_a_higher_epoch_each_time(under_test: LogUnderTest) {
    let log = under_test.log;
    let former = log.epoch();
    let first = log.begin_new_life().await.unwrap();
    let second = log.begin_new_life().await.unwrap();
    assert!(former < first && first < second, "{former} {first} {second}");
    assert_eq!(log.epoch(), former, "who has it open goes on as before");
}
