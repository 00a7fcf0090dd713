//! What [`Archive`] promises.

mod erasing;
mod keeping;
mod replacing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use dwell_model::event::{Column, Delivery, EventBatch, Kind, NO_I64, NO_TEXT, RawRows};
use dwell_model::ids::VenueKey;
use dwell_model::time::LocalDay;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::run_cases;
use super::samples::{
    DAY_START, Dice, day, delivery, describe, events, position, shop, strangers, tenant, venue,
};
use crate::api::{
    Archive, ArchivedDay, Committed, Dataset, DeliveredRows, ErasedSubject, Generation, NewErasure,
    Projection, PurgedFiles, Rewrite, StagedDay, StillHeld, SubjectClass,
};
use crate::error::{ErrorKind, Result};

/// A fresh archive, and what the suite may do with it.
#[derive(Clone)]
pub struct ArchiveUnderTest {
    /// The archive.
    pub archive: Arc<dyn Archive>,
    /// The same archive, opened by somebody else.
    pub other: Arc<dyn Archive>,
    /// The store below it, whose root is the archive's folder.
    pub store: Arc<dyn ObjectStore>,
}

impl std::fmt::Debug for ArchiveUnderTest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArchiveUnderTest")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

/// Runs all cases, each on a fresh archive that `make` gives.
pub async fn suite<M, F>(make: M)
where
    M: Fn() -> F,
    F: Future<Output = ArchiveUnderTest>,
{
    run_cases!(
        "archive",
        make,
        [
            an_empty_archive_holds_nothing,
            every_kind_reads_back_as_it_was_written,
            odd_floats_and_texts_survive_bit_for_bit,
            what_is_staged_is_not_visible_and_can_be_discarded,
            a_repeated_rewrite_is_unchanged_and_writes_nothing,
            a_redelivery_changes_no_events_file,
            a_correction_covers_the_earlier_payload_and_a_stale_retry_changes_nothing,
            replacing::a_replaced_day_holds_its_new_rows_and_nothing_of_before,
            of_two_first_commits_one_wins_and_nothing_is_lost,
            a_day_changed_by_somebody_else_is_stale,
            a_day_whose_fence_is_lost_is_left_out,
            a_commit_that_stops_after_the_superseded_rows_loses_nothing,
            a_commit_repeated_is_committed,
            many_days_go_into_one_commit,
            a_replaced_file_can_be_read_until_it_is_removed,
            venues_and_tenants_do_not_see_each_other,
            a_damaged_file_is_found_and_named,
            a_missing_file_is_found,
            any_split_in_any_order_ends_the_same,
            erasing::whom_the_ledger_names_is_left_out_of_every_rewrite,
            erasing::a_day_of_which_an_erasure_leaves_nothing_is_empty,
            keeping::what_no_table_names_is_found_and_removed_and_nothing_else,
            keeping::a_day_whose_staged_file_was_removed_is_left_out,
            keeping::versions_rise_with_commits,
            keeping::a_broken_file_is_written_anew_only_as_it_was,
        ]
    );
}

/// Says that every fence is held.
struct AllHeld;

#[async_trait]
impl StillHeld for AllHeld {
    async fn still_held(&self, _: &StagedDay) -> Result<bool> {
        Ok(true)
    }
}

const DAY: &str = "2026-03-29";

async fn rewrite(archive: &dyn Archive, rows: DeliveredRows, fence: Generation) -> Rewrite {
    let kind = rows.events.kind;
    archive
        .rewrite_day(&shop(), kind, day(DAY), fence, Box::new(rows))
        .await
        .unwrap()
}

#[track_caller]
fn staged(rewrite: Rewrite) -> StagedDay {
    match rewrite {
        Rewrite::Staged(day) => day,
        Rewrite::Unchanged(day) => panic!("unchanged: {day:?}"),
    }
}

async fn commit(archive: &dyn Archive, day: StagedDay) -> Committed {
    let committed = archive.commit(vec![day], &AllHeld).await.unwrap();
    assert_eq!(committed.len(), 1);
    committed[0]
}

/// Stages and commits; what the archive holds then.
async fn put(archive: &dyn Archive, rows: DeliveredRows) -> ArchivedDay {
    let kind = rows.events.kind;
    let staged = staged(rewrite(archive, rows, 1).await);
    let holds = staged.holds.clone();
    assert_eq!(commit(archive, staged).await, Committed::Yes);
    let now = archive.day(&shop(), kind, day(DAY)).await.unwrap();
    assert_eq!(now, holds, "the archive holds what was staged");
    archive.verify(&shop(), &now).await.unwrap();
    now
}

fn once(batch: EventBatch, by: Delivery) -> DeliveredRows {
    DeliveredRows::delivered_once(batch, by)
}

/// One position of one delivery.
fn row(track: &str, ts: i64, x: f32, received: i64) -> DeliveredRows {
    once(
        position("s", track, DAY_START + ts, x, 0.5),
        delivery(received, received as u128),
    )
}

fn join(rows: &[DeliveredRows]) -> DeliveredRows {
    let mut all = DeliveredRows::new(rows[0].events.kind);
    rows.iter().for_each(|rows| all.append(rows));
    all
}

/// An event's text with one of its deliveries.
type Told = (String, Delivery);

/// The winners with their first deliveries, in the order of reading.
async fn winners(archive: &dyn Archive, of: &VenueKey, held: &ArchivedDay) -> Vec<Told> {
    let mut reader = archive
        .open(of, held, Projection::EventsAndDeliveries)
        .await
        .unwrap();
    let read = move || {
        let mut all = Vec::new();
        while let Some(chunk) = reader.next_chunk().unwrap() {
            chunk.events.check().unwrap();
            assert_eq!(chunk.first.len(), chunk.events.len());
            all.extend((0..chunk.events.len()).map(|row| (describe(chunk.events, row), chunk.first[row])));
        }
        all
    };
    dwell_runtime::tasks::blocking("conformance", read).await.unwrap()
}

fn told(rows: &RawRows) -> BTreeSet<Told> {
    rows.check().unwrap();
    let of_row = |row: usize| {
        rows.deliveries(row)
            .iter()
            .map(move |&by| (describe(&rows.events, row), by))
    };
    (0..rows.len()).flat_map(of_row).collect()
}

async fn superseded(archive: &dyn Archive, kind: Kind, held: &ArchivedDay) -> BTreeSet<Told> {
    told(&archive.superseded(&shop(), kind, held).await.unwrap())
}

/// Winners, and every delivery of every payload.
async fn content(archive: &dyn Archive, kind: Kind) -> (Vec<Told>, BTreeSet<Told>) {
    let held = archive.day(&shop(), kind, day(DAY)).await.unwrap();
    archive.verify(&shop(), &held).await.unwrap();
    let winners = winners(archive, &shop(), &held).await;
    let mut all = superseded(archive, kind, &held).await;
    all.extend(winners.iter().cloned());
    (winners, all)
}

/// Paths of the data files on the store, whether or not a log names them.
async fn data_files(store: &dyn ObjectStore) -> BTreeSet<String> {
    let all: Vec<_> = store.list(None).try_collect().await.unwrap();
    let paths = all.into_iter().map(|meta| meta.location.to_string());
    paths
        .filter(|path| path.ends_with(".parquet") && !path.contains("_delta_log"))
        .collect()
}

async fn commits(store: &dyn ObjectStore, table: &str) -> usize {
    let log = Path::from(format!("acme/{table}/_delta_log"));
    let all: Vec<_> = store.list(Some(&log)).try_collect().await.unwrap();
    all.into_iter()
        .filter(|meta| meta.location.as_ref().ends_with(".json"))
        .count()
}

async fn an_empty_archive_holds_nothing(test: ArchiveUnderTest) {
    let archive = &*test.archive;
    let nothing = archive.day(&shop(), Kind::Position, day(DAY)).await.unwrap();
    assert_eq!(nothing, ArchivedDay::default());
    assert!(nothing.is_empty());
    assert!(archive.days(&shop()).await.unwrap().is_empty());
    assert!(archive.tables().await.unwrap().is_empty());
    assert!(winners(archive, &shop(), &nothing).await.is_empty());
    assert!(
        archive
            .superseded(&shop(), Kind::Position, &nothing)
            .await
            .unwrap()
            .is_empty()
    );
    archive.verify(&shop(), &nothing).await.unwrap();
    assert_eq!(
        rewrite(archive, DeliveredRows::new(Kind::Position), 1).await,
        Rewrite::Unchanged(nothing)
    );
    assert!(archive.commit(Vec::new(), &AllHeld).await.unwrap().is_empty());
    assert!(data_files(&*test.store).await.is_empty());
}

async fn every_kind_reads_back_as_it_was_written(test: ArchiveUnderTest) {
    let archive = &*test.archive;
    for kind in Kind::ALL {
        let batch = events(kind, DAY_START, 60, 0);
        let by = delivery(DAY_START + 5, 7);
        let mut expected: Vec<(String, i64, String, Told)> = (0..batch.len())
            .map(|row| {
                let place = (
                    batch.key(row).to_owned(),
                    batch.ts[row],
                    batch.sensor(row).to_owned(),
                );
                (place.0, place.1, place.2, (describe(&batch, row), by))
            })
            .collect();
        expected.sort_by(|a, b| (&a.0, a.1, &a.2).cmp(&(&b.0, b.1, &b.2)));
        let expected: Vec<Told> = expected.into_iter().map(|row| row.3).collect();
        let held = put(archive, once(batch.clone(), by)).await;
        assert_eq!(winners(archive, &shop(), &held).await, expected, "{kind}");
        assert!(held.superseded.is_empty(), "{kind}");
        assert_eq!((held.events[0].rows, held.deliveries.rows), (60, 60), "{kind}");

        let mut reader = archive.open(&shop(), &held, Projection::Events).await.unwrap();
        let read = move || {
            let mut all = Vec::new();
            while let Some(chunk) = reader.next_chunk().unwrap() {
                assert!(chunk.first.is_empty(), "not asked for");
                all.extend((0..chunk.events.len()).map(|row| describe(chunk.events, row)));
            }
            all
        };
        let read = dwell_runtime::tasks::blocking("conformance", read).await.unwrap();
        let expected_texts: Vec<String> = expected.iter().map(|told| told.0.clone()).collect();
        assert_eq!(read, expected_texts, "{kind}");

        // Identities with their deliveries, and no payload.
        let projection = Projection::IdentitiesAndDeliveries;
        let mut reader = archive.open(&shop(), &held, projection).await.unwrap();
        let read = move || {
            let mut all = Vec::new();
            while let Some(chunk) = reader.next_chunk().unwrap() {
                chunk.events.check().unwrap();
                let absent = |column: &Column| match column {
                    Column::F32(values) => values.iter().all(|value| value.is_nan()),
                    Column::F64(values) => values.iter().all(|value| value.is_nan()),
                    Column::I64(values) => values.iter().all(|&value| value == NO_I64),
                    Column::Text(values) => values.iter().all(|&value| value == NO_TEXT),
                };
                assert!(
                    chunk.events.payload.iter().all(absent),
                    "payloads were not asked for"
                );
                let identity = |row: usize| {
                    let events = chunk.events;
                    (
                        events.key(row).to_owned(),
                        events.ts[row],
                        events.sensor(row).to_owned(),
                    )
                };
                all.extend((0..chunk.events.len()).map(|row| (identity(row), chunk.first[row])));
            }
            all
        };
        let read = dwell_runtime::tasks::blocking("conformance", read).await.unwrap();
        let mut identities: Vec<_> = (0..batch.len())
            .map(|row| {
                (
                    batch.key(row).to_owned(),
                    batch.ts[row],
                    batch.sensor(row).to_owned(),
                )
            })
            .map(|identity| (identity, by))
            .collect();
        identities.sort();
        assert_eq!(read, identities, "{kind}");
    }
    let all = Kind::ALL.map(|kind| (day(DAY), kind));
    assert_eq!(archive.days(&shop()).await.unwrap(), all);
    assert_eq!(
        archive.tables().await.unwrap(),
        Kind::ALL.map(|kind| (tenant("acme"), kind))
    );
}

async fn odd_floats_and_texts_survive_bit_for_bit(test: ArchiveUnderTest) {
    let archive = &*test.archive;
    let floats = [
        0.0,
        -0.0,
        1.0,
        0.1,
        -0.01,
        12.345,
        1.0 / 3.0,
        f32::MIN_POSITIVE,
        f32::EPSILON,
        -9_999_999.0,
        167_772.16,
        167_772.19,
        123_456.78,
        3.4e38,
        f32::INFINITY,
        0.005,
        16_777_216.0,
    ];
    let names = [
        "",
        " ",
        "ä",
        "日本",
        "a\u{1f}b",
        "\"quoted\"",
        "line\\",
        &"x".repeat(256),
    ];
    let mut batch = EventBatch::new(Kind::Position);
    for (i, &x) in floats.iter().enumerate() {
        let name = names[i % names.len()];
        let mut one = position(name, name, DAY_START + i as i64, x, -x);
        if i % 3 == 0 {
            let floor = one.strings.intern(names[(i + 3) % names.len()]);
            one.payload[2] = dwell_model::event::Column::Text(vec![floor]);
        }
        batch.append(&one);
    }
    let plain = |batch: &EventBatch, row: usize| {
        let bits = [batch.f32s(0)[row].to_bits(), batch.f32s(1)[row].to_bits()];
        let names = [batch.key(row), batch.sensor(row)].map(str::to_owned);
        (names, batch.ts[row], bits, batch.text(2, row).map(str::to_owned))
    };
    let expected: BTreeSet<_> = (0..batch.len()).map(|row| plain(&batch, row)).collect();
    let held = put(archive, once(batch, delivery(1, 1))).await;
    let mut reader = archive.open(&shop(), &held, Projection::Events).await.unwrap();
    let read = move || {
        let mut all = BTreeSet::new();
        while let Some(chunk) = reader.next_chunk().unwrap() {
            all.extend((0..chunk.events.len()).map(|row| plain(chunk.events, row)));
        }
        all
    };
    assert_eq!(
        dwell_runtime::tasks::blocking("conformance", read).await.unwrap(),
        expected
    );
}

async fn what_is_staged_is_not_visible_and_can_be_discarded(test: ArchiveUnderTest) {
    let archive = &*test.archive;
    put(archive, row("t", 1, 1.0, 10)).await;
    let before = content(archive, Kind::Position).await;
    let files = data_files(&*test.store).await;
    // A correction and a redelivery: both datasets get a file.
    let staged = staged(rewrite(archive, join(&[row("t", 1, 2.0, 20), row("u", 1, 1.0, 20)]), 2).await);
    assert_eq!(data_files(&*test.store).await.len(), files.len() + 2);
    for somebody in [archive, &*test.other] {
        assert_eq!(content(somebody, Kind::Position).await, before);
    }
    archive.discard(vec![staged.clone()]).await.unwrap();
    assert_eq!(data_files(&*test.store).await, files);
    archive.discard(vec![staged]).await.unwrap();
    assert_eq!(content(archive, Kind::Position).await, before);
}

async fn a_repeated_rewrite_is_unchanged_and_writes_nothing(test: ArchiveUnderTest) {
    let archive = &*test.archive;
    let rows = join(&[
        row("t", 1, 1.0, 10),
        row("t", 1, 2.0, 20),
        row("u", 2, 1.0, 10),
        row("u", 2, 1.0, 30),
    ]);
    let held = put(archive, rows.clone()).await;
    let files = data_files(&*test.store).await;
    assert_eq!(rewrite(archive, rows, 2).await, Rewrite::Unchanged(held.clone()));
    assert_eq!(
        rewrite(archive, row("u", 2, 1.0, 30), 3).await,
        Rewrite::Unchanged(held.clone())
    );
    assert_eq!(
        rewrite(&*test.other, DeliveredRows::new(Kind::Position), 4).await,
        Rewrite::Unchanged(held)
    );
    assert_eq!(data_files(&*test.store).await, files);
}

async fn a_redelivery_changes_no_events_file(test: ArchiveUnderTest) {
    let archive = &*test.archive;
    let first = put(archive, row("t", 1, 1.0, 10)).await;
    let second = put(archive, row("t", 1, 1.0, 20)).await;
    assert_eq!(second.events, first.events);
    assert_eq!(second.superseded.len(), 1);
    let (winners, all) = content(archive, Kind::Position).await;
    assert_eq!(winners[0].1, delivery(10, 10));
    assert_eq!(all.len(), 2);
    // An earlier delivery becomes the first one, and what was first is kept.
    put(archive, row("t", 1, 1.0, 5)).await;
    let (winners, all) = content(archive, Kind::Position).await;
    assert_eq!((winners.len(), winners[0].1), (1, delivery(5, 5)));
    assert_eq!(
        all.iter().map(|told| told.1.received_at).collect::<Vec<_>>(),
        [5, 10, 20]
    );
}

async fn a_correction_covers_the_earlier_payload_and_a_stale_retry_changes_nothing(test: ArchiveUnderTest) {
    let archive = &*test.archive;
    put(archive, row("t", 1, 1.0, 10)).await;
    put(archive, row("t", 1, 2.0, 20)).await;
    let corrected = content(archive, Kind::Position).await;
    assert!(corrected.0[0].0.contains("x=2.0"), "{corrected:?}");
    put(archive, row("t", 1, 1.0, 30)).await;
    let (winners, all) = content(archive, Kind::Position).await;
    assert_eq!(winners, corrected.0);
    assert_eq!(
        all.iter().map(|told| told.1.received_at).collect::<BTreeSet<_>>(),
        [10, 20, 30].into()
    );
}

async fn of_two_first_commits_one_wins_and_nothing_is_lost(test: ArchiveUnderTest) {
    let (ours, theirs) = (
        row("t", 1, 1.0, 10),
        join(&[row("t", 1, 2.0, 20), row("u", 1, 1.0, 20)]),
    );
    let our_day = staged(rewrite(&*test.archive, ours.clone(), 1).await);
    let their_day = staged(rewrite(&*test.other, theirs.clone(), 2).await);
    let (a, b) = futures::join!(commit(&*test.archive, our_day), commit(&*test.other, their_day));
    assert!(
        matches!(
            (a, b),
            (Committed::Yes, Committed::Stale) | (Committed::Stale, Committed::Yes)
        ),
        "{a:?} {b:?}"
    );
    let (archive, again) = if a == Committed::Stale {
        (&test.archive, ours)
    } else {
        (&test.other, theirs)
    };
    put(&**archive, again).await;
    for somebody in [&test.archive, &test.other] {
        let (winners, all) = content(&**somebody, Kind::Position).await;
        assert_eq!(winners.len(), 2);
        assert_eq!(all.len(), 3);
    }
}

async fn a_day_changed_by_somebody_else_is_stale(test: ArchiveUnderTest) {
    put(&*test.archive, row("t", 1, 1.0, 10)).await;
    let late = staged(rewrite(&*test.archive, row("t", 2, 1.0, 10), 2).await);
    put(&*test.other, row("t", 3, 1.0, 10)).await;
    assert_eq!(commit(&*test.archive, late.clone()).await, Committed::Stale);
    test.archive.discard(vec![late]).await.unwrap();
    assert_eq!(content(&*test.archive, Kind::Position).await.0.len(), 2);
    put(&*test.archive, row("t", 2, 1.0, 10)).await;
    assert_eq!(content(&*test.other, Kind::Position).await.0.len(), 3);

    // The same where only superseded rows were added in between.
    let late = staged(rewrite(&*test.archive, row("t", 4, 1.0, 10), 3).await);
    put(&*test.other, row("t", 3, 1.0, 20)).await;
    assert_eq!(commit(&*test.archive, late).await, Committed::Stale);
}

/// Says no for the days of some fences.
struct Lost(Vec<Generation>);

#[async_trait]
impl StillHeld for Lost {
    async fn still_held(&self, day: &StagedDay) -> Result<bool> {
        Ok(!self.0.contains(&day.fence))
    }
}

async fn a_day_whose_fence_is_lost_is_left_out(test: ArchiveUnderTest) {
    let archive = &*test.archive;
    let days = ["2026-03-28", "2026-03-29", "2026-03-30"];
    let mut all = Vec::new();
    for (fence, date) in (1..).zip(days) {
        let rows = Box::new(row("t", 1, 1.0, 10));
        all.push(staged(
            archive
                .rewrite_day(&shop(), Kind::Position, day(date), fence, rows)
                .await
                .unwrap(),
        ));
    }
    let committed = archive.commit(all.clone(), &Lost(vec![2])).await.unwrap();
    assert_eq!(committed, [Committed::Yes, Committed::Stale, Committed::Yes]);
    let there = archive.days(&shop()).await.unwrap();
    assert_eq!(
        there,
        [(day(days[0]), Kind::Position), (day(days[2]), Kind::Position)]
    );
    archive.discard(all).await.unwrap();
    assert_eq!(
        data_files(&*test.store).await.len(),
        2,
        "files of committed days stay"
    );
}

/// Says yes a few times and no from then on.
struct YesFor(AtomicUsize);

#[async_trait]
impl StillHeld for YesFor {
    async fn still_held(&self, _: &StagedDay) -> Result<bool> {
        Ok(self
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
            .is_ok())
    }
}

async fn a_commit_that_stops_after_the_superseded_rows_loses_nothing(test: ArchiveUnderTest) {
    let archive = &*test.archive;
    put(archive, join(&[row("t", 1, 1.0, 10), row("u", 1, 1.0, 10)])).await;
    let before = content(archive, Kind::Position).await;
    let more = join(&[row("t", 1, 2.0, 20), row("u", 1, 1.0, 5)]);
    let staged = staged(rewrite(archive, more.clone(), 2).await);
    // The fence is asked for once per dataset.
    let committed = archive
        .commit(vec![staged.clone()], &YesFor(AtomicUsize::new(1)))
        .await
        .unwrap();
    assert_eq!(committed, [Committed::Stale]);
    archive.discard(vec![staged]).await.unwrap();
    let half = content(&*test.other, Kind::Position).await;
    assert_eq!(half.0, before.0, "the winners are as before");
    assert!(half.1.is_superset(&before.1));
    put(archive, more).await;
    let (winners, all) = content(&*test.other, Kind::Position).await;
    assert!(winners[0].0.contains("x=2.0"), "{winners:?}");
    assert_eq!(winners[1].1, delivery(5, 5));
    assert_eq!(all.len(), 4);
}

async fn a_commit_repeated_is_committed(test: ArchiveUnderTest) {
    let staged = staged(
        rewrite(
            &*test.archive,
            join(&[row("t", 1, 1.0, 10), row("t", 1, 1.0, 20)]),
            1,
        )
        .await,
    );
    assert_eq!(commit(&*test.archive, staged.clone()).await, Committed::Yes);
    // As after a commit whose answer was lost.
    assert_eq!(commit(&*test.other, staged.clone()).await, Committed::Yes);
    test.archive.discard(vec![staged]).await.unwrap();
    let (winners, all) = content(&*test.archive, Kind::Position).await;
    assert_eq!((winners.len(), all.len()), (1, 2));
}

async fn many_days_go_into_one_commit(test: ArchiveUnderTest) {
    let archive = &*test.archive;
    put(archive, row("t", 1, 1.0, 10)).await;
    let before = commits(&*test.store, "position").await;
    let venues = [shop(), venue("acme", "shop2"), venue("acme", "a.b-c_d")];
    let dates: Vec<LocalDay> = day("2026-04-01").through(day("2026-04-12")).collect();
    let mut all = Vec::new();
    for (fence, &date) in (1..).zip(&dates) {
        for of in &venues {
            let rows = Box::new(row("t", fence, fence as f32, 10));
            let fence = fence as Generation;
            all.push(staged(
                archive
                    .rewrite_day(of, Kind::Position, date, fence, rows)
                    .await
                    .unwrap(),
            ));
        }
    }
    let expected: BTreeMap<_, _> = all
        .iter()
        .map(|day| ((day.venue.clone(), day.day), day.holds.clone()))
        .collect();
    let committed = archive.commit(all, &AllHeld).await.unwrap();
    assert!(committed.iter().all(|&outcome| outcome == Committed::Yes));
    assert_eq!(commits(&*test.store, "position").await, before + 1);
    for somebody in [archive, &*test.other] {
        for ((of, date), holds) in &expected {
            assert_eq!(&somebody.day(of, Kind::Position, *date).await.unwrap(), holds);
        }
    }
    let days = archive.days(&venues[2]).await.unwrap();
    assert_eq!(
        days,
        dates
            .into_iter()
            .map(|date| (date, Kind::Position))
            .collect::<Vec<_>>()
    );
}

async fn a_replaced_file_can_be_read_until_it_is_removed(test: ArchiveUnderTest) {
    let archive = &*test.archive;
    let before = put(archive, row("t", 1, 1.0, 10)).await;
    let told = winners(archive, &shop(), &before).await;
    let after = put(archive, row("t", 2, 1.0, 20)).await;
    assert_ne!(before.events, after.events);
    assert_eq!(winners(&*test.other, &shop(), &before).await, told);
    archive.verify(&shop(), &before).await.unwrap();
}

async fn venues_and_tenants_do_not_see_each_other(test: ArchiveUnderTest) {
    let archive = &*test.archive;
    put(archive, row("t", 1, 1.0, 10)).await;
    for stranger in strangers() {
        assert!(
            archive
                .day(&stranger, Kind::Position, day(DAY))
                .await
                .unwrap()
                .is_empty(),
            "{stranger}"
        );
        assert!(archive.days(&stranger).await.unwrap().is_empty(), "{stranger}");
    }
    assert!(
        archive
            .day(&shop(), Kind::Presence, day(DAY))
            .await
            .unwrap()
            .is_empty()
    );
    assert!(
        archive
            .day(&shop(), Kind::Position, day("2026-03-30"))
            .await
            .unwrap()
            .is_empty()
    );
}

async fn a_damaged_file_is_found_and_named(test: ArchiveUnderTest) {
    let archive = &*test.archive;
    let mut rows = once(events(Kind::Position, DAY_START, 500, 0), delivery(1, 1));
    rows.append(&once(events(Kind::Position, DAY_START, 20, 0), delivery(2, 2)));
    let held = put(archive, rows).await;
    for (dataset, file) in [
        ("position", &held.events[0]),
        ("position_superseded", &held.superseded[0]),
    ] {
        let path = file
            .path
            .split('/')
            .fold(Path::from(format!("acme/{dataset}")), |path, part| {
                path.join(part)
            });
        let good = test.store.get(&path).await.unwrap().bytes().await.unwrap();
        assert_eq!(good.len() as u64, file.bytes);
        for at in (0..good.len()).step_by(good.len() / 150) {
            let mut bad = good.to_vec();
            bad[at] ^= 0x10;
            test.store.put(&path, bad.into()).await.unwrap();
            let error = archive.verify(&shop(), &held).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "byte {at}: {error}");
            let name = file.path.rsplit('/').next().unwrap();
            assert!(error.to_string().contains(name), "byte {at}: {error}");
            // A reader may notice or not, but must survive.
            if let Ok(mut reader) = archive
                .open(&shop(), &held, Projection::EventsAndDeliveries)
                .await
            {
                let read = move || while let Ok(Some(_)) = reader.next_chunk() {};
                dwell_runtime::tasks::blocking("conformance", read).await.unwrap();
            }
        }
        let mut cut = good.to_vec();
        cut.truncate(good.len() / 2);
        test.store.put(&path, cut.into()).await.unwrap();
        let error = archive.verify(&shop(), &held).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        test.store.put(&path, good.into()).await.unwrap();
        archive.verify(&shop(), &held).await.unwrap();
    }
}

async fn a_missing_file_is_found(test: ArchiveUnderTest) {
    let archive = &*test.archive;
    let held = put(archive, row("t", 1, 1.0, 10)).await;
    let path = data_files(&*test.store).await.pop_first().unwrap();
    test.store.delete(&Path::from(path)).await.unwrap();
    let error = archive.verify(&shop(), &held).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains(&held.events[0].path), "{error}");
}

async fn any_split_in_any_order_ends_the_same(test: ArchiveUnderTest) {
    let archive = &*test.archive;
    for round in 0..12_u64 {
        let mut dice = Dice::new(round + 1);
        let date = day("2026-05-01").plus(round);
        let mut rows: Vec<DeliveredRows> = (0..30)
            .map(|_| {
                let track = ["t", "u", "ü"][dice.below(3) as usize];
                let mut one = row(
                    track,
                    dice.below(6) as i64,
                    dice.below(3) as f32,
                    10 + dice.below(5) as i64,
                );
                one.events.revision[0] = i64::from(dice.below(10) == 0);
                one
            })
            .collect();
        let mut expected = None;
        for parts in [1, 3, 30] {
            dice.shuffle(&mut rows);
            let of = venue("acme", &format!("split-in-{parts}"));
            for part in rows.chunks(rows.len().div_ceil(parts)) {
                let part = Box::new(join(part));
                let rewrite = archive
                    .rewrite_day(&of, Kind::Position, date, 1, part)
                    .await
                    .unwrap();
                if let Rewrite::Staged(staged) = rewrite {
                    assert_eq!(commit(archive, staged).await, Committed::Yes);
                }
            }
            let held = archive.day(&of, Kind::Position, date).await.unwrap();
            archive.verify(&of, &held).await.unwrap();
            assert!(held.events.iter().all(|file| file.dataset == Dataset::Events));
            let winners = winners(archive, &of, &held).await;
            let superseded = told(&archive.superseded(&of, Kind::Position, &held).await.unwrap());
            let first: BTreeSet<_> = winners.iter().cloned().collect();
            // What counted for a while and counts again stays superseded as well: compare what does not count.
            let further: BTreeSet<_> = superseded.difference(&first).cloned().collect();
            assert_eq!(
                *expected.get_or_insert((winners.clone(), further.clone())),
                (winners, further),
                "{parts} parts"
            );
        }
        let (winners, further) = expected.unwrap();
        let all: BTreeSet<Told> = rows
            .iter()
            .map(|one| (describe(&one.events, 0), one.delivery(0)))
            .collect();
        assert_eq!(
            winners.len() + further.len(),
            all.len(),
            "every delivery is there once"
        );
    }
}
