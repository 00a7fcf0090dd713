//! Days cut anew: numbers held against the model folded over the events day by day, deaths at every step, and whatever
//! comes in meanwhile. Failpoints are global to the process, so these tests run one after the other.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code")]

#[path = "../common/mod.rs"]
mod common;
mod copies;
mod reverts;

use std::collections::BTreeMap;
use std::time::Duration;

use common::events::{busy_day, cumulative, visit};
use common::gate::Gate;
use common::{Shop, day, deliver, naive, one_zone, visits};
use dwell_batch_layer::recut::{RecutOutcome, RecutReport};
use dwell_batch_layer::report::Outcome;
use dwell_batch_layer::spec::{RunSpec, What};
use dwell_batch_layer::{BatchLayer, DayRequest, Error};
use dwell_model::event::{Delivery, EventBatch, Kind};
use dwell_model::ids::Receipt;
use dwell_model::metrics::{AggregateRow, Carry, Family};
use dwell_model::time::{HOUR_MS, LocalDay, VenueCalendar};
use dwell_runtime::failpoints;
use dwell_storage::api::periods::{self, ClosedPeriod};
use dwell_storage::api::recuts::{self, RecutPhase, Wish};
use dwell_storage::api::{GenerationInfo, RowFilter, publications};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// Held by each test: failpoints are global.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Longer than a lease lasts.
const PAST_THE_LEASE: Duration = Duration::from_secs(61);

/// All points at which a recut may die.
const POINTS: [&str; 15] = [
    "recut.after_fences",
    "recut.after_archive",
    "recut.after_files",
    "recut.before_generation",
    "batch.after_rows",
    "recut.after_rows",
    "recut.after_day",
    "recut.before_decision",
    "recut.after_decision",
    "recut.before_flip",
    "recut.after_flip",
    "recut.after_commit",
    "recut.after_announce",
    "recut.after_pointer",
    "recut.before_done",
];

type Winners = BTreeMap<Kind, EventBatch>;
type Numbers = BTreeMap<LocalDay, Vec<AggregateRow>>;

fn calendar(tz: &str, day_start: u8) -> VenueCalendar {
    VenueCalendar::from_names(tz, day_start).unwrap()
}

/// The wish of a job; jobs' ids sort by time.
fn wish(job: &str, to: VenueCalendar) -> Wish {
    Wish {
        job: job.to_owned(),
        from: to,
        to,
        by: "operator".to_owned(),
        at: 1,
    }
}

async fn recut_by(layer: &BatchLayer, shop: &Shop, wish: &Wish) -> Result<RecutReport, Error> {
    let cancel = CancellationToken::new();
    layer.recut(&shop.venue, wish, None, &|_| {}, &cancel).await
}

async fn recut(shop: &Shop, job: &str, to: VenueCalendar) -> RecutReport {
    let report = recut_by(&shop.layer, shop, &wish(job, to)).await.unwrap();
    assert_eq!(report.outcome, RecutOutcome::Flipped, "{report:?}");
    report
}

/// The venue's published cut.
async fn cut_of(shop: &Shop) -> VenueCalendar {
    let stored = shop.stores.registry.venue(&shop.venue).await.unwrap();
    stored.unwrap().venue.calendar
}

/// What a reader sees: the published cut, and the rows of each day's generation under it.
async fn read(shop: &Shop) -> (VenueCalendar, BTreeMap<LocalDay, GenerationInfo>, Numbers) {
    let cut = cut_of(shop).await;
    let (first, last) = LocalDay::first_and_last();
    let days = shop.stores.venue_days.as_ref();
    let rows = recuts::list_under(days, &shop.venue, &cut, first, last)
        .await
        .unwrap();
    let (mut infos, mut numbers) = (BTreeMap::new(), Numbers::new());
    for row in rows {
        let Some(info) = row.published else { continue };
        let all = RowFilter::default();
        let aggregates = &shop.stores.aggregates;
        let mut read = aggregates
            .read(&shop.venue, row.day, info.generation, &all)
            .await
            .unwrap();
        assert_eq!(read.len() as u64, info.rows, "a whole generation of {}", row.day);
        // Counters go on from day to day; a test of their own has them.
        read.retain(|row| row.family != Family::Counter);
        // A day of which nothing is left is computed and empty.
        if !read.is_empty() {
            numbers.insert(row.day, read);
        }
        infos.insert(row.day, info);
    }
    (cut, infos, numbers)
}

/// The same worked out from the events: each day under a cut, the counters handed on.
fn expected(delivered: &[(EventBatch, Delivery)], cut: &VenueCalendar) -> Numbers {
    let winners: Winners = naive::winners(delivered);
    let times: Vec<i64> = winners.values().flat_map(|events| events.ts.clone()).collect();
    let (first, last) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    let mut numbers = Numbers::new();
    for day in cut.day_of(*first).through(cut.day_of(*last)) {
        let mut rows = naive::fold(&cut.cut(day), &one_zone(10_000), &winners, Carry::default());
        rows.retain(|row| row.family != Family::Counter);
        if !rows.is_empty() {
            numbers.insert(day, rows);
        }
    }
    numbers
}

/// Nothing is left to be computed.
async fn assert_clean(shop: &Shop, when: &str) {
    let spec = RunSpec::all_dirty(What::Recompute);
    let mut planned = shop.layer.plan_venue(&shop.venue, &spec).await.unwrap();
    planned.retain(|planned| !planned.open);
    assert_eq!(planned, [], "{when}");
}

/// Events of each kind, as identities.
fn identities(delivered: &[(EventBatch, Delivery)]) -> BTreeMap<Kind, u64> {
    let winners = naive::winners(delivered);
    winners
        .into_iter()
        .map(|(kind, events)| (kind, events.len() as u64))
        .collect()
}

/// Archived events, and that each lies in the day that its file says.
async fn archived(shop: &Shop) -> BTreeMap<Kind, u64> {
    let mut found = BTreeMap::new();
    for (of, kind) in shop.stores.archive.days(&shop.venue).await.unwrap() {
        let held = shop.stores.archive.day(&shop.venue, kind, of).await.unwrap();
        shop.stores.archive.verify(&shop.venue, &held).await.unwrap();
        *found.entry(kind).or_default() += held.events_checksum().rows;
        let (start, end) = cut_of(shop).await.bounds(of);
        let projection = dwell_storage::api::Projection::Events;
        let mut reader = shop
            .stores
            .archive
            .open(&shop.venue, &held, projection)
            .await
            .unwrap();
        let look = move || {
            while let Some(chunk) = reader.next_chunk().unwrap() {
                let outside = chunk.events.ts.iter().find(|ts| !(start..end).contains(*ts));
                assert_eq!(outside, None, "an event of another day in {of}");
            }
        };
        dwell_runtime::tasks::blocking("look", look).await.unwrap();
    }
    found
}

/// Days with redeliveries and corrections, computed; at noon of the 31st in Madrid.
async fn busy_shop() -> (Shop, Vec<(EventBatch, Delivery)>) {
    let shop = Shop::open().await;
    let (start, _) = shop.calendar.bounds(day("2026-03-28"));
    let (_, end) = shop.calendar.bounds(day("2026-03-30"));
    shop.clock.set_ms(end + 12 * HOUR_MS);
    let mut posts = busy_day(start + 6_000, end, 3);
    posts.extend(busy_day(start + 6_000, end, 4).into_iter().step_by(2));
    let delivered = deliver(&shop, posts).await;
    shop.recompute().await;
    (shop, delivered)
}

/// Two visits that change their day between Madrid and Lisbon, one that does not, and a counter.
async fn small_shop() -> (Shop, Vec<(EventBatch, Delivery)>) {
    let shop = Shop::open().await;
    let posts = vec![
        visit("a", shop.local("2026-03-08", 23.5), 60),
        visit("b", shop.local("2026-03-09", 0.5), 60),
        visit("c", shop.local("2026-03-09", 12.0), 60),
    ];
    let delivered = deliver(&shop, posts).await;
    shop.recompute().await;
    (shop, delivered)
}

#[tokio::test(flavor = "multi_thread")]
async fn all_days_change_their_cut_at_once_and_come_back_exactly() {
    let _alone = ALONE.lock().await;
    let madrid = calendar("Europe/Madrid", 0);
    for (tz, day_start) in [
        ("Europe/Lisbon", 0),
        ("Europe/Madrid", 4),
        ("America/New_York", 0),
        ("Australia/Lord_Howe", 3),
    ] {
        let (shop, delivered) = busy_shop().await;
        let (_, _, before) = read(&shop).await;
        assert_eq!(before, expected(&delivered, &madrid));
        let to = calendar(tz, day_start);
        let report = recut(&shop, "1", to).await;
        let (cut, infos, numbers) = read(&shop).await;
        assert_eq!(cut, to);
        // The last evening lies in a day of Lord Howe Island that goes on, which the live view has.
        let mut wanted = expected(&delivered, &to);
        wanted.retain(|day, _| to.bounds(*day).1 <= shop.now());
        assert!(wanted.len() >= 3, "{:?}", wanted.keys());
        assert_eq!(numbers, wanted, "{tz} {day_start}");
        assert_ne!(numbers, before);
        assert!(infos.values().all(|info| info.calendar == to));
        let events = identities(&delivered);
        assert_eq!(archived(&shop).await, events, "each event once, in its day");
        assert_eq!(report.events, events.values().sum::<u64>());
        for of in infos.keys() {
            let verified = shop.layer.verify_day(&shop.venue, *of).await;
            assert!(
                matches!(verified.outcome, Outcome::Verified | Outcome::Skipped),
                "{verified:?}"
            );
        }
        assert_clean(&shop, "nothing is dirty").await;
        // Again it changes nothing, and the way back gives the former numbers.
        let again = recut_by(&shop.layer, &shop, &wish("1", to)).await.unwrap();
        assert_eq!(again.outcome, RecutOutcome::Flipped);
        shop.advance(Duration::from_secs(3));
        recut(&shop, "2", madrid).await;
        let (cut, _, back) = read(&shop).await;
        assert_eq!((cut, back), (madrid, before.clone()), "{tz} {day_start}");
        assert_eq!(archived(&shop).await, events);
        // What was published when, under which cut.
        let known = recuts::load(&*shop.stores.documents, &shop.venue)
            .await
            .unwrap()
            .unwrap();
        let [first, second] = known.value.former[..] else {
            panic!("{known:?}")
        };
        assert_eq!((first.calendar, second.calendar), (madrid, to));
        assert_eq!(known.value.cut_at(madrid, first.until - 1), madrid);
        assert_eq!(known.value.cut_at(madrid, first.until), to);
        assert_eq!(known.value.cut_at(madrid, second.until), madrid);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_dies_anywhere_leaves_one_cut_to_readers_and_the_next_try_ends_right() {
    let _alone = ALONE.lock().await;
    let (madrid, lisbon) = (calendar("Europe/Madrid", 0), calendar("Europe/Lisbon", 0));
    for point in POINTS {
        // The first time, and in the midst of the days.
        for steps in ["1*error:died", "1*off->1*error:died"] {
            let (shop, delivered) = small_shop().await;
            let (before, after) = (expected(&delivered, &madrid), expected(&delivered, &lisbon));
            let guard = failpoints::set(point, steps).unwrap();
            let died = recut_by(&shop.layer, &shop, &wish("1", lisbon)).await;
            drop(guard);
            let (cut, infos, numbers) = read(&shop).await;
            assert!(infos.values().all(|info| info.calendar == cut), "{point}");
            let of_cut = if cut == madrid { &before } else { &after };
            assert_eq!(
                numbers, *of_cut,
                "{point} {steps}: readers see one cut and all of it"
            );
            if died.is_err() {
                // A night that comes by finds nothing to do, or is kept away.
                let night = shop.second_worker();
                let found = night
                    .run_group(
                        &shop.venue,
                        vec![DayRequest::recompute(day("2026-03-09"))],
                        &CancellationToken::new(),
                    )
                    .await;
                assert_eq!(found[0].outcome, Outcome::Skipped, "{point}: {:?}", found[0]);
                // So does the look at the feed that it begins with.
                let (documents, days) = (&*shop.stores.documents, shop.stores.venue_days.as_ref());
                publications::settle(documents, days, &shop.venue, shop.now())
                    .await
                    .unwrap();
                shop.advance(PAST_THE_LEASE);
                recut(&shop, "1", lisbon).await;
            }
            let (cut, _, numbers) = read(&shop).await;
            assert_eq!((cut, &numbers), (lisbon, &after), "{point} {steps}");
            assert_eq!(archived(&shop).await, identities(&delivered), "{point} {steps}");
            assert_clean(&shop, point).await;
            // Every generation stands in the feed once.
            let documents = &*shop.stores.documents;
            let head = publications::head(documents, &shop.venue).await.unwrap();
            let listed = publications::list(documents, &shop.venue, &head, 0, 100)
                .await
                .unwrap();
            let mut entries: Vec<_> = listed.iter().map(|entry| (entry.day, entry.generation)).collect();
            let all = entries.len();
            entries.sort_unstable();
            entries.dedup();
            assert_eq!((entries.len(), head.pending.len()), (all, 0), "{point} {steps}");
            for (of, info) in read(&shop).await.1 {
                assert!(
                    entries.contains(&(of, info.generation)),
                    "{point}: {of} is not in the feed"
                );
            }
        }
    }
}

/// Begins the recut of the job `1` in a task of its own.
fn begin_recut(shop: &Shop, to: VenueCalendar) -> tokio::task::JoinHandle<Result<RecutReport, Error>> {
    let (layer, venue) = (shop.layer.clone(), shop.venue.clone());
    #[allow(clippy::disallowed_methods, reason = "a test's own task, which it joins")]
    tokio::spawn(async move {
        let cancel = CancellationToken::new();
        layer.recut(&venue, &wish("1", to), None, &|_| {}, &cancel).await
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn while_days_are_cut_anew_nobody_else_works_on_them_and_late_events_are_not_lost() {
    let _alone = ALONE.lock().await;
    let lisbon = calendar("Europe/Lisbon", 0);
    for point in [
        "recut.after_archive",
        "recut.after_day",
        "recut.before_decision",
        "recut.after_flip",
    ] {
        let (shop, mut delivered) = small_shop().await;
        let gate = Gate::at(point);
        let working = begin_recut(&shop, lisbon);
        gate.reached().await;
        // At half past eleven in Lisbon on the 8th: on the 9th in Madrid.
        let late = visit("late", shop.local("2026-03-09", 0.4), 30);
        let delivery = Delivery {
            received_at: shop.now(),
            receipt: Receipt::from_u128(99),
        };
        shop.post(late.clone(), 99).await;
        delivered.push((late, delivery));
        let night = shop.second_worker();
        let request = vec![DayRequest::recompute(day("2026-03-09"))];
        let held = night
            .run_group(&shop.venue, request, &CancellationToken::new())
            .await;
        assert_eq!(
            (held[0].outcome, held[0].retryable),
            (Outcome::Skipped, true),
            "{point}"
        );
        gate.let_go();
        working.await.unwrap().unwrap();
        assert_eq!(cut_of(&shop).await, lisbon);
        assert!(shop.is_dirty("2026-03-08").await, "{point}");
        assert_eq!(shop.recompute().await.computed, 1, "{point}");
        assert_eq!(read(&shop).await.2, expected(&delivered, &lisbon), "{point}");
        assert_eq!(archived(&shop).await, identities(&delivered), "{point}");
        assert_eq!(
            shop.published("2026-03-08").await.late.events,
            31,
            "{point}: late events"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recut_taken_back_leaves_the_former_cut_as_it_was() {
    let _alone = ALONE.lock().await;
    let (madrid, lisbon) = (calendar("Europe/Madrid", 0), calendar("Europe/Lisbon", 0));
    let (shop, delivered) = small_shop().await;
    let before = read(&shop).await;
    let files = shop.stores.archive.versions(&shop.venue.tenant).await.unwrap();
    let guard = failpoints::set("recut.before_decision", "1*error:died").unwrap();
    recut_by(&shop.layer, &shop, &wish("1", lisbon))
        .await
        .unwrap_err();
    drop(guard);
    let staged = shop
        .stores
        .venue_days
        .history(&shop.venue, day("2026-03-08"))
        .await
        .unwrap();
    assert_eq!(staged.len(), 2, "a staged generation beside the published one");
    shop.advance(PAST_THE_LEASE);
    assert!(
        shop.layer
            .withdraw_recut(&shop.venue, 1, "cancelled")
            .await
            .unwrap()
    );
    assert_eq!(read(&shop).await, before);
    assert_eq!(
        shop.stores.archive.versions(&shop.venue.tenant).await.unwrap(),
        files
    );
    let kept = shop
        .stores
        .venue_days
        .history(&shop.venue, day("2026-03-08"))
        .await
        .unwrap();
    assert_eq!(kept.len(), 1, "what was staged is gone");
    let staged = staged[0].generation;
    assert_eq!(shop.rows_of("2026-03-08", staged).await, []);
    let again = recut_by(&shop.layer, &shop, &wish("1", lisbon)).await.unwrap();
    assert_eq!(again.outcome, RecutOutcome::Withdrawn);
    // Nights go on, and a new wish may come.
    shop.post(visit("d", shop.local("2026-03-09", 13.0), 60), 9).await;
    assert_eq!(shop.recompute().await.computed, 1);
    assert_eq!(cut_of(&shop).await, madrid);
    recut(&shop, "2", lisbon).await;
    assert_eq!(visits(&shop.rows("2026-03-08").await), 2);
    assert_eq!(visits(&shop.rows("2026-03-09").await), 2);
    assert_eq!(delivered.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_correction_takes_the_place_of_the_first() {
    let _alone = ALONE.lock().await;
    let (lisbon, athens) = (calendar("Europe/Lisbon", 0), calendar("Europe/Athens", 2));
    let (shop, delivered) = small_shop().await;
    let guard = failpoints::set("recut.before_decision", "1*error:died").unwrap();
    recut_by(&shop.layer, &shop, &wish("1", lisbon))
        .await
        .unwrap_err();
    drop(guard);
    // Not even when the first one's lease has run out: the newer wish needs not wait for it.
    recut(&shop, "2", athens).await;
    assert_eq!(read(&shop).await.2, expected(&delivered, &athens));
    let first = recut_by(&shop.layer, &shop, &wish("1", lisbon)).await.unwrap();
    assert_eq!(first.outcome, RecutOutcome::Superseded);
    assert_eq!(cut_of(&shop).await, athens);
    assert_eq!(archived(&shop).await, identities(&delivered));
    // One that is decided is published first.
    let guard = failpoints::set("recut.after_decision", "1*error:died").unwrap();
    recut_by(&shop.layer, &shop, &wish("3", lisbon))
        .await
        .unwrap_err();
    drop(guard);
    assert!(
        !shop
            .layer
            .withdraw_recut(&shop.venue, 3, "cancelled")
            .await
            .unwrap(),
        "too late"
    );
    recut(&shop, "4", calendar("Europe/Madrid", 0)).await;
    assert_eq!(
        read(&shop).await.2,
        expected(&delivered, &calendar("Europe/Madrid", 0))
    );
    let known = recuts::load(&*shop.stores.documents, &shop.venue)
        .await
        .unwrap()
        .unwrap();
    let cuts: Vec<VenueCalendar> = known.value.former.iter().map(|former| former.calendar).collect();
    assert_eq!(cuts, [calendar("Europe/Madrid", 0), athens, lisbon]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_job_with_the_same_wish_ends_a_recut_that_is_decided() {
    let _alone = ALONE.lock().await;
    let lisbon = calendar("Europe/Lisbon", 0);
    for point in ["recut.after_decision", "recut.after_flip"] {
        let (shop, delivered) = small_shop().await;
        let guard = failpoints::set(point, "1*error:died").unwrap();
        recut_by(&shop.layer, &shop, &wish("1", lisbon))
            .await
            .unwrap_err();
        drop(guard);
        recut(&shop, "2", lisbon).await;
        assert_eq!(read(&shop).await.2, expected(&delivered, &lisbon), "{point}");
        let known = recuts::load(&*shop.stores.documents, &shop.venue)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(known.value.number, 1, "{point}: there was no second wish");
        assert!(matches!(known.value.phase, RecutPhase::Done { .. }), "{point}");
        assert_clean(&shop, point).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn days_that_an_earlier_try_staged_are_taken_over_and_changed_ones_are_not() {
    let _alone = ALONE.lock().await;
    let lisbon = calendar("Europe/Lisbon", 0);
    let (shop, mut delivered) = small_shop().await;
    let guard = failpoints::set("recut.before_decision", "2*error:died").unwrap();
    recut_by(&shop.layer, &shop, &wish("1", lisbon))
        .await
        .unwrap_err();
    shop.advance(PAST_THE_LEASE);
    // A night in between computes what came late, and so touches a day of the former cut.
    let late = visit("late", shop.local("2026-03-09", 12.5), 60);
    let delivery = Delivery {
        received_at: shop.now(),
        receipt: Receipt::from_u128(9),
    };
    shop.post(late.clone(), 9).await;
    delivered.push((late, delivery));
    assert_eq!(shop.recompute().await.computed, 1);
    recut_by(&shop.layer, &shop, &wish("1", lisbon))
        .await
        .unwrap_err();
    drop(guard);
    shop.advance(PAST_THE_LEASE);
    let report = recut(&shop, "1", lisbon).await;
    assert_eq!((report.days, report.taken_over), (3, 3), "{report:?}");
    assert_eq!(read(&shop).await.2, expected(&delivered, &lisbon));
    assert_eq!(archived(&shop).await, identities(&delivered));
    assert_clean(&shop, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_period_is_not_cut_anew() {
    let _alone = ALONE.lock().await;
    let (madrid, lisbon) = (calendar("Europe/Madrid", 0), calendar("Europe/Lisbon", 0));
    let (shop, _) = small_shop().await;
    let before = read(&shop).await;
    let period = ClosedPeriod {
        venues: None,
        from: day("2026-03-09"),
        to: day("2026-03-09"),
        reason: "invoiced".to_owned(),
        closed_by: "operator".to_owned(),
        closed_at: shop.now(),
        opened: None,
    };
    periods::close(&*shop.stores.documents, &shop.venue.tenant, &period)
        .await
        .unwrap();
    let refused = recut_by(&shop.layer, &shop, &wish("1", lisbon))
        .await
        .unwrap_err();
    assert!(
        matches!(&refused, Error::Recut(why) if why.contains("2026-03-09 is in a closed period")),
        "{refused}"
    );
    assert_eq!(read(&shop).await, before);
    assert_eq!(cut_of(&shop).await, madrid);
    let known = recuts::load(&*shop.stores.documents, &shop.venue)
        .await
        .unwrap()
        .unwrap();
    assert!(
        matches!(known.value.phase, RecutPhase::Withdrawn { .. }),
        "{known:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_days_around_now_are_whole_too() {
    let _alone = ALONE.lock().await;
    let (madrid, athens) = (calendar("Europe/Madrid", 0), calendar("Europe/Athens", 0));
    let shop = Shop::open().await;
    // At half past eleven in the evening in Madrid it is the next day in Athens.
    shop.clock.set_ms(shop.local("2026-03-10", 23.5) - 60_000);
    let posts = vec![
        visit("a", shop.local("2026-03-09", 12.0), 60),
        visit("b", shop.local("2026-03-10", 9.0), 60),
        visit("c", shop.local("2026-03-10", 23.2), 60),
    ];
    let delivered = deliver(&shop, posts).await;
    let spec = RunSpec {
        include_open: false,
        ..RunSpec::all_dirty(What::Recompute)
    };
    assert_eq!(shop.run(&spec).await.computed, 1);
    recut(&shop, "1", athens).await;
    // Athens' 10th ended at 23:00 in Madrid. Its events are in raw alone.
    let info = shop.published("2026-03-10").await;
    assert!(info.provisional && info.files.is_empty(), "{info:?}");
    assert_eq!(visits(&shop.rows("2026-03-10").await), 1);
    assert_eq!(visits(&shop.rows("2026-03-09").await), 1);
    assert_eq!(
        shop.generation("2026-03-11").await.map(|info| info.generation),
        None
    );
    assert_eq!(shop.run(&spec).await.computed, 1, "the next run makes it final");
    let info = shop.published("2026-03-10").await;
    assert!(!info.provisional && !info.files.is_empty());
    shop.clock.set_ms(athens.bounds(day("2026-03-11")).1 + HOUR_MS);
    shop.recompute().await;
    assert_eq!(read(&shop).await.2, expected(&delivered, &athens));
    // And to the west, where a day that was over goes on: its archived rows are kept with it.
    shop.clock
        .set_ms(madrid.bounds(day("2026-03-12")).0 - HOUR_MS / 2);
    recut(&shop, "2", calendar("America/New_York", 0)).await;
    let newyork = calendar("America/New_York", 0);
    assert_eq!(archived(&shop).await, identities(&delivered));
    shop.clock.set_ms(newyork.bounds(day("2026-03-11")).1 + HOUR_MS);
    shop.recompute().await;
    assert_eq!(read(&shop).await.2, expected(&delivered, &newyork));
}

#[tokio::test(flavor = "multi_thread")]
async fn days_corrected_one_by_one_before_are_cut_anew_without_their_doubles() {
    let _alone = ALONE.lock().await;
    let (lisbon, athens) = (calendar("Europe/Lisbon", 0), calendar("Europe/Athens", 0));
    let (shop, delivered) = small_shop().await;
    // As versions before did it: the calendar at once, each day by itself, files with their neighbours' events.
    shop.put_venue(lisbon, vec![one_zone(10_000)]).await;
    shop.recompute().await;
    let all: u64 = identities(&delivered).values().sum();
    let mut doubled = 0;
    for (of, kind) in shop.stores.archive.days(&shop.venue).await.unwrap() {
        let held = shop.stores.archive.day(&shop.venue, kind, of).await.unwrap();
        doubled += held.events_checksum().rows;
    }
    assert!(doubled > all, "{doubled} of {all}");
    recut(&shop, "1", athens).await;
    assert_eq!(read(&shop).await.2, expected(&delivered, &athens));
    assert_eq!(archived(&shop).await, identities(&delivered));
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_are_handed_on_along_the_new_days() {
    let _alone = ALONE.lock().await;
    let lisbon = calendar("Europe/Lisbon", 0);
    let shop = Shop::open().await;
    // 10 people until 23:30 in Madrid on the 8th, 5 more until 00:30 on the 9th, which is the 8th in Lisbon; then 1.
    let samples = [
        (shop.local("2026-03-08", 8.0), 100),
        (shop.local("2026-03-08", 23.5), 110),
        (shop.local("2026-03-09", 0.5), 115),
        (shop.local("2026-03-09", 9.0), 116),
    ];
    shop.post(cumulative(&samples), 1).await;
    shop.recompute().await;
    let counted = async |of: &str| common::counted(&shop.rows(of).await);
    assert_eq!(
        (counted("2026-03-08").await, counted("2026-03-09").await),
        (Some(10), Some(6))
    );
    recut(&shop, "1", lisbon).await;
    assert_eq!(
        (counted("2026-03-08").await, counted("2026-03-09").await),
        (Some(15), Some(1))
    );
    assert_clean(&shop, "what is carried in is what was handed on").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_ahead_names_the_days_and_changes_nothing() {
    let _alone = ALONE.lock().await;
    let lisbon = calendar("Europe/Lisbon", 0);
    let (shop, delivered) = small_shop().await;
    let before = read(&shop).await;
    let plan = shop.layer.plan_recut(&shop.venue, lisbon).await.unwrap();
    assert_eq!(
        (plan.days, plan.first, plan.last),
        (3, Some(day("2026-03-07")), Some(day("2026-03-09")))
    );
    assert_eq!(plan.events, identities(&delivered).values().sum::<u64>());
    assert_eq!(read(&shop).await, before);
    assert_eq!(
        recuts::load(&*shop.stores.documents, &shop.venue).await.unwrap(),
        None
    );
    let unchanged = shop.layer.plan_recut(&shop.venue, shop.calendar).await.unwrap();
    assert_eq!((unchanged.outcome, unchanged.days), (RecutOutcome::Unchanged, 0));
}
