//! Many writers at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use dwell_model::event::{Column, Kind};
use dwell_model::testing::position_batch;
use dwell_runtime::tasks::blocking;
use dwell_storage::api::{
    ArchiveReader, ArchiveWriter, ArchivedDay, Committed, DeliveredRows, Projection, Rewrite, StagedDay,
    StillHeld,
};
use dwell_storage::archive::DeltaArchive;
use dwell_storage::conformance::samples::{DAY_START, Dice, day, delivery, shop};
use dwell_storage::error::Result;
use futures::future::join_all;
use object_store::ObjectStore;
use object_store::path::Path;

use super::{clear, clock, stores};

pub(crate) const DAY: &str = "2026-03-29";

/// Says that every fence is held.
pub(crate) struct AllHeld;

#[async_trait]
impl StillHeld for AllHeld {
    async fn still_held(&self, _: &StagedDay) -> Result<bool> {
        Ok(true)
    }
}

/// Holds only the highest fence.
struct Highest(u64);

#[async_trait]
impl StillHeld for Highest {
    async fn still_held(&self, day: &StagedDay) -> Result<bool> {
        Ok(day.fence >= self.0)
    }
}

/// So many positions of a track, a second apart from a second of the day on.
pub(crate) fn rows(track: &str, from_second: i64, count: i64) -> DeliveredRows {
    let positions: Vec<_> = (from_second..from_second + count)
        .map(|second| ("s", track, DAY_START + second * 1_000, 1.0, 2.0))
        .collect();
    DeliveredRows::delivered_once(position_batch(&positions), delivery(1, 7))
}

/// A day of more than 16 MiB: each position has a floor of its own with a long name that does not compress.
pub(crate) fn large_day() -> DeliveredRows {
    let positions: Vec<_> = (0..20_000)
        .map(|second| ("s", "t", DAY_START + second * 1_000, 1.0, 2.0))
        .collect();
    let mut events = position_batch(&positions);
    let mut dice = Dice::new(7);
    let name = |dice: &mut Dice| -> String {
        let sign = |_| char::from(b' ' + dice.below(90) as u8);
        (0..1_100).map(sign).collect()
    };
    let floors = (0..events.len()).map(|_| name(&mut dice)).collect::<Vec<_>>();
    let floors = floors.iter().map(|floor| events.strings.intern(floor)).collect();
    events.payload[2] = Column::Text(floors);
    DeliveredRows::delivered_once(events, delivery(1, 7))
}

/// Stages rows of the shop's day, as a worker with this fence.
pub(crate) async fn stage(archive: &DeltaArchive, rows: DeliveredRows, fence: u64) -> StagedDay {
    let kind = rows.events.kind;
    let rewrite = archive
        .rewrite_day(&shop(), kind, day(DAY), fence, Box::new(rows))
        .await
        .unwrap();
    match rewrite {
        Rewrite::Staged(staged) => staged,
        Rewrite::Unchanged(held) => panic!("unchanged: {held:?}"),
    }
}

/// Stages and commits until nobody else was faster.
pub(crate) async fn put(archive: &DeltaArchive, rows: DeliveredRows) -> ArchivedDay {
    loop {
        let staged = stage(archive, rows.clone(), 1).await;
        let holds = staged.holds.clone();
        match archive.commit(vec![staged.clone()], &AllHeld).await.unwrap()[..] {
            [Committed::Yes] => return holds,
            _ => archive.discard(vec![staged]).await.unwrap(),
        }
    }
}

/// The tracks of a day with the number of their positions.
async fn tracks(archive: &DeltaArchive) -> BTreeSet<(String, i64)> {
    let held = archive.day(&shop(), Kind::Position, day(DAY)).await.unwrap();
    archive.verify(&shop(), &held).await.unwrap();
    let mut reader = archive.open(&shop(), &held, Projection::Events).await.unwrap();
    let read = move || {
        let mut all = BTreeSet::new();
        while let Some(chunk) = reader.next_chunk().unwrap() {
            let row = |row| (chunk.events.key(row).to_owned(), chunk.events.ts[row]);
            all.extend((0..chunk.events.len()).map(row));
        }
        all
    };
    blocking("test", read).await.unwrap()
}

fn two_archives(store: &Arc<dyn ObjectStore>) -> [DeltaArchive; 2] {
    let open = || DeltaArchive::new(Arc::clone(store), Path::default(), clock());
    [open(), open()]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_writers_on_one_table_lose_nothing() {
    let (stores, bucket) = stores();
    for store in stores {
        let archives = two_archives(&store);
        // Each changes the same day again and again: the hardest way to share a table.
        let writer = |number: usize| {
            let archive = archives[number % 2].clone();
            async move {
                for round in 0..3 {
                    put(&archive, rows(&format!("t{number}"), round * 10, 2)).await;
                }
            }
        };
        join_all((0..8).map(writer)).await;
        let expected: BTreeSet<(String, i64)> = (0..8)
            .flat_map(|number| {
                let seconds = [0, 1, 10, 11, 20, 21].into_iter();
                seconds.map(move |second| (format!("t{number}"), DAY_START + second * 1_000))
            })
            .collect();
        for archive in two_archives(&store).iter().chain(&archives) {
            assert_eq!(tracks(archive).await, expected);
        }
    }
    clear(bucket).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_first_archives_of_a_day_the_one_with_the_higher_fence_stands() {
    let (stores, bucket) = stores();
    for store in stores {
        for round in 0..5_u64 {
            let below: Arc<dyn ObjectStore> = Arc::new(object_store::prefix::PrefixStore::new(
                Arc::clone(&store),
                format!("round-{round}"),
            ));
            let [one, two] = two_archives(&below);
            // Both have read a day of which nothing is archived; the second has taken the lease over.
            let (former, owner) = (
                stage(&one, rows("former", 0, 5), 1).await,
                stage(&two, rows("owner", 0, 5), 2).await,
            );
            let fences = Highest(2);
            let (of_former, of_owner) = tokio::join!(
                one.commit(vec![former], &fences),
                two.commit(vec![owner], &fences)
            );
            assert_eq!(of_former.unwrap(), [Committed::Stale]);
            assert_eq!(of_owner.unwrap(), [Committed::Yes]);
            let names: BTreeSet<String> = tracks(&one).await.into_iter().map(|(track, _)| track).collect();
            assert_eq!(names, BTreeSet::from(["owner".to_owned()]));
        }
    }
    clear(bucket).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_first_archives_of_a_day_that_both_believe_in_their_lease_one_stands_and_the_other_hears() {
    let (stores, bucket) = stores();
    for store in stores {
        for round in 0..5_u64 {
            let below: Arc<dyn ObjectStore> = Arc::new(object_store::prefix::PrefixStore::new(
                Arc::clone(&store),
                format!("round-{round}"),
            ));
            let [one, two] = two_archives(&below);
            let (first, second) = (
                stage(&one, rows("a", 0, 5), 1).await,
                stage(&two, rows("b", 0, 5), 2).await,
            );
            let (first, second) = tokio::join!(
                one.commit(vec![first], &AllHeld),
                two.commit(vec![second], &AllHeld)
            );
            let outcomes = [first.unwrap()[0], second.unwrap()[0]];
            let winners = outcomes
                .iter()
                .filter(|outcome| **outcome == Committed::Yes)
                .count();
            assert_eq!(winners, 1, "{outcomes:?}");
            let winner = if outcomes[0] == Committed::Yes { "a" } else { "b" };
            let names: BTreeSet<String> = tracks(&two).await.into_iter().map(|(track, _)| track).collect();
            assert_eq!(names, BTreeSet::from([winner.to_owned()]));
        }
    }
    clear(bucket).await;
}
