//! What [`VenueDays`] promises.

use std::collections::BTreeMap;
use std::sync::Arc;

use dwell_model::event::{Checksum, Kind};
use dwell_model::metrics::{Carry, CounterSample};
use dwell_model::time::{DAY_MS, VenueCalendar};

use super::samples::{DAY_START, day, shop, strangers};
use super::{assert_kind, run_cases};
use crate::api::{
    ArchiveFile, Dataset, Drift, Flip, Generation, GenerationChange, GenerationInfo, LateArrivals,
    LateLedger, LateSource, Lease, MarkSource, Marks, RestoredDay, VenueDays,
};
use crate::error::ErrorKind;

/// Runs all cases, each on a fresh store that `make` gives.
pub async fn suite<M, F>(make: M)
where
    M: Fn() -> F,
    F: Future<Output = Arc<dyn VenueDays>>,
{
    run_cases!(
        "venue-days",
        make,
        [
            a_day_that_was_never_leased_is_not_there,
            every_lease_has_a_higher_fence,
            a_lease_keeps_others_out_until_it_expires,
            a_lease_from_a_clock_that_was_set_back_keeps_nobody_out,
            of_many_who_ask_at_once_one_gets_the_lease,
            the_same_holder_may_take_its_lease_again_and_loses_the_former,
            renewing_needs_the_highest_fence,
            releasing_lets_others_in_and_leaves_a_lost_lease_alone,
            publishing_needs_the_highest_fence_and_the_generation_before,
            an_expired_lease_may_publish_while_nobody_took_it,
            of_two_publishers_one_wins,
            a_generation_is_published_once_under_its_own_lease,
            everything_in_a_generation_comes_back,
            the_history_has_all_generations_newest_first,
            forgotten_generations_leave_the_history_and_the_published_one_never_does,
            a_staged_generation_is_kept_and_not_published,
            staging_needs_the_highest_fence_which_is_the_number,
            a_staged_generation_is_published_by_one_flip,
            publishing_a_staged_generation_needs_the_fence_and_the_generation_before,
            a_staged_generation_can_be_forgotten,
            raising_marks_never_lowers_them,
            raising_marks_needs_the_fence_and_the_published_generation,
            days_are_listed_in_order_both_ends_included,
            venues_and_days_are_kept_apart,
            a_restored_day_is_as_the_backup_has_it_and_the_former_life_cannot_publish,
            restoring_needs_a_higher_fence_and_can_be_repeated,
            a_restored_day_whose_parts_do_not_match_is_refused,
        ]
    );
}

fn marks(positions: &[(u64, i64)]) -> Marks {
    Marks(
        positions
            .iter()
            .map(|&(epoch, position)| (MarkSource::log(epoch, 0), position))
            .collect(),
    )
}

/// A generation with something in every field.
pub(super) fn info(generation: Generation) -> GenerationInfo {
    let file = |dataset, path: &str| ArchiveFile {
        kind: Kind::Position,
        dataset,
        path: path.to_owned(),
        rows: 12,
        bytes: 345,
        checksum: Checksum {
            rows: 12,
            sum: u128::MAX - u128::from(generation),
        },
    };
    let sample = CounterSample {
        ts: DAY_START - 5,
        value: i64::MIN,
    };
    GenerationInfo {
        generation,
        published_at: DAY_START + DAY_MS + generation as i64,
        duration_ms: 1_234,
        provisional: generation.is_multiple_of(2),
        lagging: generation % 2 == 1,
        reason: "late events: \"ünïcode\"".to_owned(),
        calendar: VenueCalendar::from_names("Europe/Berlin", 3).unwrap(),
        day_start: DAY_START,
        day_end: DAY_START + 23 * 3_600_000,
        layout: u64::MAX,
        definitions: 3,
        marks: marks(&[(u64::MAX / 2, 41), (2, i64::MAX)]),
        events: BTreeMap::from([
            (
                Kind::Position,
                Checksum {
                    rows: u64::MAX,
                    sum: u128::MAX,
                },
            ),
            (Kind::Status, Checksum::default()),
        ]),
        conflicts: 1,
        rows: 2,
        sessions: 3,
        files: vec![
            file(Dataset::Events, "venue=shop/a.parquet"),
            file(Dataset::Superseded, "venue=shop/b.parquet"),
        ],
        late: LateLedger {
            events: 4,
            max_late_ms: 5,
            receipts: 6,
            added: Some(LateArrivals {
                events: 4,
                received: Some((DAY_START, DAY_START + 1)),
                event_times: None,
                delay_p50_ms: Some(1),
                delay_p90_ms: Some(2),
                delay_max_ms: Some(i64::MAX),
                sensors: vec![LateSource {
                    name: "sénsor".to_owned(),
                    events: 3,
                }],
                sensors_all: 1,
                receipts: Vec::new(),
                receipts_all: 1_000,
            }),
        },
        drift: Some(Drift {
            buckets: 7,
            differing: 1,
            examples: vec!["zone/a visits 5≠4".to_owned()],
        }),
        changed: (generation > 1).then_some(GenerationChange {
            added: 1,
            removed: 2,
            changed: 3,
        }),
        carry: Carry(BTreeMap::from([("s\u{1f}c\u{1f}cumulative".to_owned(), sample)])),
        carry_in: Carry::default(),
        exclusions: Default::default(),
        slices: None,
    }
}

const TTL: i64 = 60_000;

async fn lease_at(store: &dyn VenueDays, holder: &str, now: i64) -> Option<Lease> {
    store
        .acquire(&shop(), day("2026-03-29"), holder, now, TTL)
        .await
        .unwrap()
}

async fn lease(store: &dyn VenueDays, holder: &str, now: i64) -> Lease {
    lease_at(store, holder, now).await.expect("the lease is free")
}

async fn published(store: &dyn VenueDays) -> Option<Generation> {
    let day = store.get(&shop(), day("2026-03-29")).await.unwrap()?;
    day.published.map(|info| info.generation)
}

async fn a_day_that_was_never_leased_is_not_there(store: Arc<dyn VenueDays>) {
    let d = day("2026-03-29");
    assert_eq!(store.get(&shop(), d).await.unwrap(), None);
    assert_eq!(
        store
            .list(&shop(), day("2000-01-01"), day("2100-01-01"))
            .await
            .unwrap(),
        []
    );
    assert_eq!(store.history(&shop(), d).await.unwrap(), []);
    let never = Lease {
        venue: shop(),
        day: d,
        fence: 1,
        holder: "a".into(),
        expires_at: 0,
    };
    assert_eq!(store.renew(&never, 0, TTL).await.unwrap(), Flip::Lost);
    store.release(&never).await.unwrap();
    assert_eq!(store.publish(&never, None, info(1)).await.unwrap(), Flip::Lost);
    assert_eq!(
        store
            .raise_marks(&never, 1, &Marks::default(), false)
            .await
            .unwrap(),
        Flip::Lost
    );
    assert_eq!(store.get(&shop(), d).await.unwrap(), None);
}

async fn every_lease_has_a_higher_fence(store: Arc<dyn VenueDays>) {
    let mut fences = Vec::new();
    for n in 0..5 {
        let lease = lease(&*store, &format!("holder-{n}"), n * TTL).await;
        assert_eq!((&lease.venue, lease.day), (&shop(), day("2026-03-29")));
        assert_eq!(
            (&*lease.holder, lease.expires_at),
            (&*format!("holder-{n}"), n * TTL + TTL)
        );
        let row = store.get(&shop(), lease.day).await.unwrap().unwrap();
        assert_eq!(row.fence, lease.fence);
        assert_eq!(row.lease, Some((lease.holder, lease.expires_at)));
        assert_eq!(row.published, None);
        fences.push(lease.fence);
    }
    assert!(fences.is_sorted_by(|a, b| a < b), "{fences:?}");
}

async fn a_lease_keeps_others_out_until_it_expires(store: Arc<dyn VenueDays>) {
    let first = lease(&*store, "a", 1_000).await;
    assert_eq!(lease_at(&*store, "b", 1_000).await, None);
    assert_eq!(lease_at(&*store, "b", 1_000 + TTL - 1).await, None);
    let row = store.get(&shop(), first.day).await.unwrap().unwrap();
    assert_eq!(
        (row.fence, row.lease),
        (first.fence, Some(("a".to_owned(), 1_000 + TTL))),
        "a refusal changes nothing"
    );
    let second = lease(&*store, "b", 1_000 + TTL).await;
    assert!(second.fence > first.fence);
}

async fn a_lease_from_a_clock_that_was_set_back_keeps_nobody_out(store: Arc<dyn VenueDays>) {
    const HOUR: i64 = 3_600_000;
    let ahead = lease(&*store, "a", 24 * HOUR).await;
    // Within an hour it may be another machine's clock.
    assert_eq!(lease_at(&*store, "b", 23 * HOUR).await, None);
    let next = lease(&*store, "b", 23 * HOUR - 1).await;
    assert!(next.fence > ahead.fence);
    assert_eq!(store.renew(&ahead, 24 * HOUR + 1, TTL).await.unwrap(), Flip::Lost);
}

async fn of_many_who_ask_at_once_one_gets_the_lease(store: Arc<dyn VenueDays>) {
    let holders: Vec<String> = (0..12).map(|n| format!("holder-{n}")).collect();
    let asking = holders.iter().map(|holder| lease_at(&*store, holder, 0));
    let leases: Vec<Lease> = futures::future::join_all(asking)
        .await
        .into_iter()
        .flatten()
        .collect();
    assert_eq!(leases.len(), 1, "{leases:?}");
}

async fn the_same_holder_may_take_its_lease_again_and_loses_the_former(store: Arc<dyn VenueDays>) {
    let former = lease(&*store, "a", 0).await;
    let again = lease(&*store, "a", 10).await;
    assert!(again.fence > former.fence);
    assert_eq!(store.renew(&former, 20, TTL).await.unwrap(), Flip::Lost);
    assert_eq!(
        store.publish(&former, None, info(former.fence)).await.unwrap(),
        Flip::Lost
    );
    assert_eq!(
        store.publish(&again, None, info(again.fence)).await.unwrap(),
        Flip::Done
    );
}

async fn renewing_needs_the_highest_fence(store: Arc<dyn VenueDays>) {
    let first = lease(&*store, "a", 0).await;
    assert_eq!(store.renew(&first, TTL - 1, TTL).await.unwrap(), Flip::Done);
    assert_eq!(lease_at(&*store, "b", TTL).await, None, "the lease was extended");
    // Expired, but nobody took it.
    assert_eq!(store.renew(&first, 5 * TTL, TTL).await.unwrap(), Flip::Done);
    assert_eq!(lease_at(&*store, "b", 6 * TTL - 1).await, None);
    let second = lease(&*store, "b", 6 * TTL).await;
    assert_eq!(store.renew(&first, 6 * TTL, TTL).await.unwrap(), Flip::Lost);
    let row = store.get(&shop(), second.day).await.unwrap().unwrap();
    assert_eq!(row.lease, Some(("b".to_owned(), 7 * TTL)));
}

async fn releasing_lets_others_in_and_leaves_a_lost_lease_alone(store: Arc<dyn VenueDays>) {
    let first = lease(&*store, "a", 0).await;
    store.release(&first).await.unwrap();
    assert_eq!(store.get(&shop(), first.day).await.unwrap().unwrap().lease, None);
    let second = lease(&*store, "b", 1).await;
    assert!(second.fence > first.fence, "a fence is never reused");
    store.release(&first).await.unwrap();
    assert_eq!(lease_at(&*store, "c", 2).await, None, "b still holds it");
    store.release(&second).await.unwrap();
    store.release(&second).await.unwrap();
    lease(&*store, "c", 3).await;
}

async fn publishing_needs_the_highest_fence_and_the_generation_before(store: Arc<dyn VenueDays>) {
    let first = lease(&*store, "a", 0).await;
    assert_eq!(
        store.publish(&first, Some(99), info(first.fence)).await.unwrap(),
        Flip::Lost,
        "there is none before"
    );
    assert_eq!(published(&*store).await, None);
    assert_eq!(store.history(&shop(), first.day).await.unwrap(), []);
    assert_eq!(
        store.publish(&first, None, info(first.fence)).await.unwrap(),
        Flip::Done
    );
    assert_eq!(published(&*store).await, Some(first.fence));

    let second = lease(&*store, "a", 1).await;
    let third = lease(&*store, "a", 2).await;
    assert_eq!(
        store
            .publish(&second, Some(first.fence), info(second.fence))
            .await
            .unwrap(),
        Flip::Lost
    );
    assert_eq!(
        store.publish(&third, None, info(third.fence)).await.unwrap(),
        Flip::Lost,
        "there is one before"
    );
    assert_eq!(
        store
            .publish(&third, Some(second.fence), info(third.fence))
            .await
            .unwrap(),
        Flip::Lost
    );
    assert_eq!(published(&*store).await, Some(first.fence));
    assert_eq!(
        store
            .publish(&third, Some(first.fence), info(third.fence))
            .await
            .unwrap(),
        Flip::Done
    );
    assert_eq!(published(&*store).await, Some(third.fence));
    // Whoever lost the answer sends again and is told that the state before is no longer that; reading tells why.
    assert_eq!(
        store
            .publish(&third, Some(first.fence), info(third.fence))
            .await
            .unwrap(),
        Flip::Lost
    );
    assert_eq!(store.history(&shop(), third.day).await.unwrap().len(), 2);
}

async fn an_expired_lease_may_publish_while_nobody_took_it(store: Arc<dyn VenueDays>) {
    let lease = lease(&*store, "a", 0).await;
    assert_eq!(
        store.publish(&lease, None, info(lease.fence)).await.unwrap(),
        Flip::Done
    );
    store.release(&lease).await.unwrap();
    assert_eq!(
        published(&*store).await,
        Some(lease.fence),
        "giving the lease back unpublishes nothing"
    );
}

async fn of_two_publishers_one_wins(store: Arc<dyn VenueDays>) {
    // The first one was paused, its lease expired, the second one took over: both publish now.
    let paused = lease(&*store, "a", 0).await;
    let owner = lease(&*store, "b", TTL).await;
    let (lost, done) = futures::join!(
        store.publish(&paused, None, info(paused.fence)),
        store.publish(&owner, None, info(owner.fence)),
    );
    assert_eq!((lost.unwrap(), done.unwrap()), (Flip::Lost, Flip::Done));
    assert_eq!(published(&*store).await, Some(owner.fence));
}

async fn a_generation_is_published_once_under_its_own_lease(store: Arc<dyn VenueDays>) {
    let lease = lease(&*store, "a", 0).await;
    assert_kind(
        store.publish(&lease, None, info(lease.fence + 1)).await,
        ErrorKind::Invalid,
    );
    assert_eq!(published(&*store).await, None);
    assert_eq!(
        store.publish(&lease, None, info(lease.fence)).await.unwrap(),
        Flip::Done
    );
    let again = store.publish(&lease, Some(lease.fence), info(lease.fence)).await;
    assert_kind(again, ErrorKind::Invalid);
    assert_eq!(store.history(&shop(), lease.day).await.unwrap().len(), 1);
}

async fn everything_in_a_generation_comes_back(store: Arc<dyn VenueDays>) {
    let lease = lease(&*store, "a", 0).await;
    let expected = info(lease.fence);
    assert_eq!(
        store.publish(&lease, None, expected.clone()).await.unwrap(),
        Flip::Done
    );
    let row = store.get(&shop(), lease.day).await.unwrap().unwrap();
    assert_eq!(row.published.as_ref(), Some(&expected));
    assert_eq!(store.history(&shop(), lease.day).await.unwrap(), [expected]);
}

async fn the_history_has_all_generations_newest_first(store: Arc<dyn VenueDays>) {
    let mut before = None;
    let mut expected = Vec::new();
    for n in 0..12 {
        // A lease in between that publishes nothing leaves no trace.
        lease(&*store, "idle", n * 2 * TTL).await;
        let lease = lease(&*store, "a", n * 2 * TTL + TTL).await;
        assert_eq!(
            store.publish(&lease, before, info(lease.fence)).await.unwrap(),
            Flip::Done
        );
        before = Some(lease.fence);
        expected.insert(0, info(lease.fence));
    }
    assert_eq!(store.history(&shop(), day("2026-03-29")).await.unwrap(), expected);
}

async fn forgotten_generations_leave_the_history_and_the_published_one_never_does(store: Arc<dyn VenueDays>) {
    let day = day("2026-03-29");
    let mut before = None;
    for n in 0..4 {
        let lease = lease(&*store, "a", n * 2 * TTL).await;
        let flip = store.publish(&lease, before, info(lease.fence)).await.unwrap();
        assert_eq!(flip, Flip::Done);
        before = Some(lease.fence);
    }
    let numbers = async || {
        let history = store.history(&shop(), day).await.unwrap();
        history.iter().map(|info| info.generation).collect::<Vec<_>>()
    };
    let all = numbers().await;
    let [newest, third, second, first] = all[..] else {
        panic!("{all:?}")
    };
    let lost = lease(&*store, "a", 20 * TTL).await;
    let held = lease(&*store, "a", 22 * TTL).await;
    assert_eq!(store.forget(&lost, &[first]).await.unwrap(), Flip::Lost);
    assert_kind(store.forget(&held, &[first, newest]).await, ErrorKind::Invalid);
    assert_eq!(numbers().await, all, "refused as a whole");
    assert_eq!(store.forget(&held, &[first, third]).await.unwrap(), Flip::Done);
    assert_eq!(numbers().await, [newest, second]);
    // Again, and what was never there.
    assert_eq!(store.forget(&held, &[first, 99]).await.unwrap(), Flip::Done);
    assert_eq!(store.forget(&held, &[]).await.unwrap(), Flip::Done);
    assert_eq!(numbers().await, [newest, second]);
    assert_eq!(published(&*store).await, Some(newest));
}

/// Publishes a generation and stages another; the staged one's lease.
async fn staged_beside_published(store: &dyn VenueDays) -> (Generation, Lease) {
    let first = lease(store, "a", 0).await;
    let flip = store.publish(&first, None, info(first.fence)).await.unwrap();
    assert_eq!(flip, Flip::Done);
    let held = lease(store, "a", 2 * TTL).await;
    assert_eq!(store.stage(&held, info(held.fence)).await.unwrap(), Flip::Done);
    (first.fence, held)
}

async fn a_staged_generation_is_kept_and_not_published(store: Arc<dyn VenueDays>) {
    let (first, held) = staged_beside_published(&*store).await;
    assert_eq!(published(&*store).await, Some(first));
    let expected = [info(held.fence), info(first)];
    assert_eq!(store.history(&shop(), day("2026-03-29")).await.unwrap(), expected);
    // Again, by whoever does not know whether it happened.
    assert_eq!(store.stage(&held, info(held.fence)).await.unwrap(), Flip::Done);
    assert_eq!(store.history(&shop(), day("2026-03-29")).await.unwrap(), expected);
    // A later generation is published in the ordinary way.
    let next = lease(&*store, "a", 4 * TTL).await;
    let flip = store.publish(&next, Some(first), info(next.fence)).await.unwrap();
    assert_eq!(flip, Flip::Done);
    assert_eq!(published(&*store).await, Some(next.fence));
}

async fn staging_needs_the_highest_fence_which_is_the_number(store: Arc<dyn VenueDays>) {
    let (first, lost) = staged_beside_published(&*store).await;
    let held = lease(&*store, "a", 4 * TTL).await;
    assert_eq!(store.stage(&lost, info(lost.fence)).await.unwrap(), Flip::Lost);
    assert_kind(store.stage(&held, info(held.fence + 1)).await, ErrorKind::Invalid);
    assert_kind(store.stage(&held, info(lost.fence)).await, ErrorKind::Invalid);
    // What is published is not staged.
    let flip = store.publish(&held, Some(first), info(held.fence)).await.unwrap();
    assert_eq!(flip, Flip::Done);
    assert_eq!(store.stage(&held, info(held.fence)).await.unwrap(), Flip::Lost);
}

async fn a_staged_generation_is_published_by_one_flip(store: Arc<dyn VenueDays>) {
    let (first, of_staged) = staged_beside_published(&*store).await;
    let held = lease(&*store, "b", 4 * TTL).await;
    let at = DAY_START + 77;
    let before = Some(first);
    for _ in 0..2 {
        let flip = store.promote(&held, before, of_staged.fence, at).await.unwrap();
        assert_eq!(flip, Flip::Done, "twice is once");
        let expected = GenerationInfo {
            published_at: at,
            ..info(of_staged.fence)
        };
        let row = store.get(&shop(), day("2026-03-29")).await.unwrap().unwrap();
        assert_eq!(row.published.as_ref(), Some(&expected));
        let history = store.history(&shop(), day("2026-03-29")).await.unwrap();
        assert_eq!(history, [expected, info(first)]);
    }
    // A day without a published one, too.
    let other = day("2026-03-30");
    let alone = store.acquire(&shop(), other, "a", 0, TTL).await.unwrap().unwrap();
    assert_eq!(store.stage(&alone, info(alone.fence)).await.unwrap(), Flip::Done);
    let row = store.get(&shop(), other).await.unwrap().unwrap();
    assert_eq!(row.published, None);
    let flip = store.promote(&alone, None, alone.fence, at).await.unwrap();
    assert_eq!(flip, Flip::Done);
    let row = store.get(&shop(), other).await.unwrap().unwrap();
    assert_eq!(row.published.map(|info| info.generation), Some(alone.fence));
}

async fn publishing_a_staged_generation_needs_the_fence_and_the_generation_before(store: Arc<dyn VenueDays>) {
    let (first, of_staged) = staged_beside_published(&*store).await;
    let lost = lease(&*store, "b", 4 * TTL).await;
    let held = lease(&*store, "b", 6 * TTL).await;
    let staged = of_staged.fence;
    let promote =
        async |lease: &Lease, before, generation| store.promote(lease, before, generation, DAY_START).await;
    assert_eq!(promote(&lost, Some(first), staged).await.unwrap(), Flip::Lost);
    assert_eq!(promote(&held, None, staged).await.unwrap(), Flip::Lost);
    assert_eq!(promote(&held, Some(staged), staged).await.unwrap(), Flip::Lost);
    assert_kind(promote(&held, Some(first), held.fence).await, ErrorKind::Invalid);
    assert_eq!(published(&*store).await, Some(first), "nothing was changed");
    // One that lies below the published one is of the past.
    let flip = store.publish(&held, Some(first), info(held.fence)).await.unwrap();
    assert_eq!(flip, Flip::Done);
    assert_kind(promote(&held, Some(held.fence), staged).await, ErrorKind::Invalid);
}

async fn a_staged_generation_can_be_forgotten(store: Arc<dyn VenueDays>) {
    let (first, of_staged) = staged_beside_published(&*store).await;
    let held = lease(&*store, "b", 4 * TTL).await;
    assert_eq!(store.forget(&held, &[of_staged.fence]).await.unwrap(), Flip::Done);
    assert_eq!(
        store.history(&shop(), day("2026-03-29")).await.unwrap(),
        [info(first)]
    );
    let promoted = store
        .promote(&held, Some(first), of_staged.fence, DAY_START)
        .await;
    assert_kind(promoted, ErrorKind::Invalid);
    assert_eq!(published(&*store).await, Some(first));
}

async fn raising_marks_never_lowers_them(store: Arc<dyn VenueDays>) {
    let first = lease(&*store, "a", 0).await;
    let with_marks = GenerationInfo {
        marks: marks(&[(1, 10), (2, 20)]),
        provisional: true,
        ..info(first.fence)
    };
    assert_eq!(
        store.publish(&first, None, with_marks.clone()).await.unwrap(),
        Flip::Done
    );
    let second = lease(&*store, "a", 1).await;
    let raised = marks(&[(1, 5), (2, 25), (3, 1)]);
    assert_eq!(
        store
            .raise_marks(&second, first.fence, &raised, false)
            .await
            .unwrap(),
        Flip::Done
    );
    let expected = GenerationInfo {
        marks: marks(&[(1, 10), (2, 25), (3, 1)]),
        provisional: false,
        ..with_marks
    };
    let row = store.get(&shop(), first.day).await.unwrap().unwrap();
    assert_eq!(
        row.published,
        Some(expected.clone()),
        "nothing but the marks and the flag has changed"
    );
    assert_eq!(store.history(&shop(), first.day).await.unwrap(), [expected]);
    assert_eq!(
        store
            .raise_marks(&second, first.fence, &Marks::default(), true)
            .await
            .unwrap(),
        Flip::Done
    );
    assert!(
        store
            .get(&shop(), first.day)
            .await
            .unwrap()
            .unwrap()
            .published
            .unwrap()
            .provisional
    );
}

async fn raising_marks_needs_the_fence_and_the_published_generation(store: Arc<dyn VenueDays>) {
    let first = lease(&*store, "a", 0).await;
    let raised = marks(&[(1, i64::MAX)]);
    assert_eq!(
        store
            .raise_marks(&first, first.fence, &raised, false)
            .await
            .unwrap(),
        Flip::Lost,
        "nothing published"
    );
    assert_eq!(
        store.publish(&first, None, info(first.fence)).await.unwrap(),
        Flip::Done
    );
    let second = lease(&*store, "b", TTL).await;
    assert_eq!(
        store
            .raise_marks(&first, first.fence, &raised, false)
            .await
            .unwrap(),
        Flip::Lost
    );
    assert_eq!(
        store
            .raise_marks(&second, second.fence, &raised, false)
            .await
            .unwrap(),
        Flip::Lost
    );
    let row = store.get(&shop(), first.day).await.unwrap().unwrap();
    assert_eq!(row.published, Some(info(first.fence)));
}

async fn days_are_listed_in_order_both_ends_included(store: Arc<dyn VenueDays>) {
    let days = [
        "2026-03-29",
        "2025-12-31",
        "1970-01-01",
        "2026-01-01",
        "2199-12-31",
    ]
    .map(day);
    for (n, d) in days.into_iter().enumerate() {
        let lease = store.acquire(&shop(), d, "a", 0, TTL).await.unwrap().unwrap();
        if n % 2 == 0 {
            assert_eq!(
                store.publish(&lease, None, info(lease.fence)).await.unwrap(),
                Flip::Done
            );
        }
    }
    let listed = async |from, to| -> Vec<String> {
        store
            .list(&shop(), day(from), day(to))
            .await
            .unwrap()
            .iter()
            .map(|row| row.day.to_string())
            .collect()
    };
    assert_eq!(
        listed("1970-01-01", "2199-12-31").await,
        [
            "1970-01-01",
            "2025-12-31",
            "2026-01-01",
            "2026-03-29",
            "2199-12-31"
        ]
    );
    assert_eq!(
        listed("2025-12-31", "2026-03-29").await,
        ["2025-12-31", "2026-01-01", "2026-03-29"]
    );
    assert_eq!(listed("2026-01-02", "2026-03-28").await, [""; 0]);
    assert_eq!(listed("2026-03-29", "2025-12-31").await, [""; 0]);
    let rows = store
        .list(&shop(), day("1970-01-01"), day("2026-01-01"))
        .await
        .unwrap();
    let published: Vec<bool> = rows.iter().map(|row| row.published.is_some()).collect();
    assert_eq!(published, [true, false, false]);
}

async fn venues_and_days_are_kept_apart(store: Arc<dyn VenueDays>) {
    let lease = lease(&*store, "a", 0).await;
    assert_eq!(
        store.publish(&lease, None, info(lease.fence)).await.unwrap(),
        Flip::Done
    );
    let mut elsewhere: Vec<_> = strangers()
        .into_iter()
        .map(|stranger| (stranger, lease.day))
        .collect();
    elsewhere.push((shop(), lease.day.next()));
    elsewhere.push((shop(), lease.day.prev()));
    for (venue, d) in elsewhere {
        assert_eq!(store.get(&venue, d).await.unwrap(), None);
        assert_eq!(store.list(&venue, d, d).await.unwrap(), []);
        assert_eq!(store.history(&venue, d).await.unwrap(), []);
        let forged = Lease {
            venue: venue.clone(),
            day: d,
            ..lease.clone()
        };
        assert_eq!(store.renew(&forged, 0, TTL).await.unwrap(), Flip::Lost);
        assert_eq!(
            store
                .raise_marks(&forged, lease.fence, &Marks::default(), false)
                .await
                .unwrap(),
            Flip::Lost
        );
        store.release(&forged).await.unwrap();
        assert!(
            store.acquire(&venue, d, "b", 0, TTL).await.unwrap().is_some(),
            "its lease is its own"
        );
    }
    let row = store.get(&shop(), lease.day).await.unwrap().unwrap();
    assert_eq!(row.lease, Some(("a".to_owned(), TTL)));
}

fn restored(fence: Generation, generations: &[Generation]) -> RestoredDay {
    RestoredDay {
        day: day("2026-03-29"),
        fence,
        published: generations.last().copied(),
        history: generations.iter().map(|&generation| info(generation)).collect(),
    }
}

async fn a_restored_day_is_as_the_backup_has_it_and_the_former_life_cannot_publish(
    store: Arc<dyn VenueDays>,
) {
    let d = day("2026-03-29");
    let former = store
        .acquire(&shop(), d, "former", 0, 1_000_000)
        .await
        .unwrap()
        .unwrap();
    let backup = restored(1 << 40, &[3, 5]);
    assert_eq!(store.restore(&shop(), backup).await.unwrap(), Flip::Done);
    let row = store.get(&shop(), d).await.unwrap().unwrap();
    assert_eq!((row.fence, &row.lease), (1 << 40, &None));
    assert_eq!(row.published, Some(info(5)));
    assert_eq!(store.history(&shop(), d).await.unwrap(), [info(5), info(3)]);
    let mut late = info(former.fence);
    late.generation = former.fence;
    assert_eq!(
        store.publish(&former, None, late.clone()).await.unwrap(),
        Flip::Lost
    );
    assert_eq!(store.publish(&former, Some(5), late).await.unwrap(), Flip::Lost);
    let next = store.acquire(&shop(), d, "new", 0, 1_000).await.unwrap().unwrap();
    assert_eq!(next.fence, (1 << 40) + 1);
    assert_eq!(
        store.publish(&next, Some(5), info(next.fence)).await.unwrap(),
        Flip::Done
    );
}

async fn restoring_needs_a_higher_fence_and_can_be_repeated(store: Arc<dyn VenueDays>) {
    let d = day("2026-03-29");
    assert_eq!(
        store.restore(&shop(), restored(9, &[3])).await.unwrap(),
        Flip::Done
    );
    assert_eq!(
        store.restore(&shop(), restored(9, &[3])).await.unwrap(),
        Flip::Done
    );
    assert_eq!(store.history(&shop(), d).await.unwrap(), [info(3)]);
    assert_eq!(
        store.restore(&shop(), restored(8, &[3])).await.unwrap(),
        Flip::Lost
    );
    let other = restored(9, &[4]);
    assert_eq!(store.restore(&shop(), other).await.unwrap(), Flip::Lost);
    assert_eq!(
        store.restore(&shop(), restored(10, &[])).await.unwrap(),
        Flip::Done
    );
    let row = store.get(&shop(), d).await.unwrap().unwrap();
    assert_eq!((row.fence, row.published), (10, None));
    assert_eq!(store.history(&shop(), d).await.unwrap(), []);
}

async fn a_restored_day_whose_parts_do_not_match_is_refused(store: Arc<dyn VenueDays>) {
    let mut unknown = restored(9, &[3]);
    unknown.published = Some(4);
    for refused in [unknown, restored(2, &[3])] {
        let outcome = store.restore(&shop(), refused).await;
        assert_kind(outcome, ErrorKind::Invalid);
    }
    assert_eq!(store.get(&shop(), day("2026-03-29")).await.unwrap(), None);
}
