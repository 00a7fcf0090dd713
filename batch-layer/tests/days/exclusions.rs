//! Days without what was reverted, compared with a computation that never heard of exclusions: the deliveries are
//! filtered by the rule as it is written, and what is left is computed as if nothing else had come.

use dwell_batch_layer::Config;
use dwell_batch_layer::excluding::{CoveredDay, Turn};
use dwell_batch_layer::report::Outcome;
use dwell_batch_layer::spec::{RunSpec, What};
use dwell_model::event::{Delivery, EventBatch, Kind};
use dwell_model::exclusion::{DaySet, Ended, Exclusion, Scope};
use dwell_model::ids::Receipt;
use dwell_model::metrics::{AggregateRow, Carry};
use dwell_model::testing::position_batch;
use dwell_model::time::{HOUR_MS, TsMs};
use dwell_runtime::limits::ByteSize;
use dwell_storage::api::{DeliveredRows, Flip, documents, exclusions};
use tokio_util::sync::CancellationToken;

use crate::common::events::{Dice, busy_day, cumulative, visit};
use crate::common::naive::{fold, winners};
use crate::common::{Shop, assert_outcome, counted, day, deliver, one_zone, visits};

const DAY: &str = "2026-03-09";

fn sensor(name: &str) -> Scope {
    Scope {
        sensor: Some(name.to_owned()),
        ..Scope::default()
    }
}

fn receipt(number: u128) -> Scope {
    Scope {
        receipt: Some(Receipt::from_u128(number)),
        ..Scope::default()
    }
}

fn window(from: TsMs, to: TsMs) -> Scope {
    Scope {
        from: Some(from),
        to: Some(to),
        ..Scope::default()
    }
}

fn made(shop: &Shop, id: &str, scope: Scope) -> Exclusion {
    Exclusion {
        id: id.to_owned(),
        venue: shop.venue.venue.clone(),
        scope,
        reason: "rubbish".to_owned(),
        made_by: "operator".to_owned(),
        made_at: shop.now(),
        ended: None,
        days: DaySet::default(),
        is_searched: false,
    }
}

async fn store(shop: &Shop, exclusion: &Exclusion) -> Flip {
    let (documents, tenant) = (&*shop.stores.documents, &shop.venue.tenant);
    documents::store(documents, tenant, &exclusion.id, exclusion, None)
        .await
        .unwrap()
}

async fn find(shop: &Shop, exclusion: &Exclusion) -> Vec<CoveredDay> {
    let cancel = CancellationToken::new();
    shop.layer
        .find_covered(&shop.venue, exclusion, &|_| {}, &cancel)
        .await
        .unwrap()
}

/// What the job `revert` does, but for the computing.
async fn revert(shop: &Shop, id: &str, scope: Scope) -> Vec<CoveredDay> {
    let exclusion = made(shop, id, scope);
    assert_eq!(store(shop, &exclusion).await, Flip::Done);
    search(shop, &exclusion).await
}

async fn search(shop: &Shop, exclusion: &Exclusion) -> Vec<CoveredDay> {
    let found = find(shop, exclusion).await;
    let days: Vec<_> = found.iter().map(|found| found.day).collect();
    let (documents, tenant) = (&*shop.stores.documents, &shop.venue.tenant);
    exclusions::add_days(documents, tenant, &exclusion.id, &days, true)
        .await
        .unwrap();
    found
}

/// What the job `undo` does, but for the computing.
async fn undo(shop: &Shop, id: &str) {
    let (documents, tenant, at) = (&*shop.stores.documents, &shop.venue.tenant, shop.now());
    documents::update::<Exclusion>(documents, tenant, id, |known| {
        let mut ended = known.unwrap().clone();
        ended.ended = Some(Ended {
            at,
            job: "undo".to_owned(),
            by: "operator".to_owned(),
            reason: None,
        });
        Some(ended)
    })
    .await
    .unwrap();
}

async fn days_of(shop: &Shop, id: &str) -> Vec<String> {
    let all = exclusions::of_tenant(&*shop.stores.documents, &shop.venue.tenant)
        .await
        .unwrap();
    let exclusion = all.into_iter().find(|exclusion| exclusion.id == id).unwrap();
    exclusion.days.iter().map(|day| day.to_string()).collect()
}

/// A day computed from what is left when the rule, read literally, drops its deliveries.
fn expected(
    shop: &Shop,
    of: &str,
    delivered: &[(EventBatch, Delivery)],
    dropped: &[Exclusion],
) -> Vec<AggregateRow> {
    let drops = |exclusion: &Exclusion, sensor: &str, ts: TsMs, delivery: &Delivery| {
        let Scope {
            sensor: of_sensor,
            receipt,
            from,
            to,
        } = &exclusion.scope;
        let in_time = match receipt {
            Some(_) => true,
            None => delivery.received_at < exclusion.made_at,
        };
        in_time
            && of_sensor.as_deref().is_none_or(|name| name == sensor)
            && receipt.is_none_or(|receipt| receipt == delivery.receipt)
            && from.is_none_or(|from| from <= ts)
            && to.is_none_or(|to| ts < to)
    };
    let left: Vec<(EventBatch, Delivery)> = delivered
        .iter()
        .map(|(events, delivery)| {
            let is_left = |row: &u32| {
                let row = *row as usize;
                !dropped
                    .iter()
                    .any(|exclusion| drops(exclusion, events.sensor(row), events.ts[row], delivery))
            };
            let rows: Vec<u32> = (0..events.len() as u32).filter(is_left).collect();
            (events.take(&rows), *delivery)
        })
        .collect();
    let cut = shop.calendar.cut(day(of));
    fold(&cut, &one_zone(10_000), &winners(&left), Carry::default())
}

/// A shop with a day of all kinds, disordered, with repetitions and corrections; what was delivered.
async fn busy_shop(seed: u64) -> (Shop, Vec<(EventBatch, Delivery)>) {
    // 1 MiB parts: a kind with further deliveries is read in several.
    let config = Config {
        memory: ByteSize::mib(16),
        workers: 16,
        ..Config::default()
    };
    let shop = Shop::open_with("Europe/Madrid", config).await;
    let cut = shop.calendar.cut(day(DAY));
    let delivered = deliver(&shop, busy_day(cut.start + 6_000, cut.end - HOUR_MS, seed)).await;
    shop.advance(std::time::Duration::from_secs(60));
    shop.recompute().await;
    (shop, delivered)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_excluded_and_undone_the_day_is_that_of_the_deliveries_left() {
    for seed in 0..4_u64 {
        let (shop, delivered) = busy_shop(seed).await;
        let (cut, mut dice) = (shop.calendar.cut(day(DAY)), Dice(seed + 77));
        let full = shop.rows(DAY).await;
        assert_eq!(full, expected(&shop, DAY, &delivered, &[]), "seed {seed}");
        let first = shop.published(DAY).await;
        let mut in_force: Vec<Exclusion> = Vec::new();
        for step in 0..6 {
            shop.advance(std::time::Duration::from_secs(1));
            if in_force.len() > 1 && dice.below(3) == 0 {
                let ended = in_force.remove(dice.below(in_force.len() as u64) as usize);
                undo(&shop, &ended.id).await;
            } else {
                let from = cut.start + dice.below(20) as i64 * HOUR_MS;
                let mut scope = match dice.below(4) {
                    0 => sensor(["cam-1", "cam-2", "gate", "beam"][dice.below(4) as usize]),
                    1 => window(from, from + 4 * HOUR_MS),
                    2 => sensor("cam-1"),
                    _ => receipt(1 + u128::from(dice.below(delivered.len() as u64))),
                };
                if step % 2 == 1 {
                    scope.from = Some(from);
                }
                let exclusion = made(&shop, &format!("job-{step}"), scope);
                assert_eq!(store(&shop, &exclusion).await, Flip::Done);
                search(&shop, &exclusion).await;
                in_force.push(exclusion);
            }
            shop.recompute().await;
            let label = format!("seed {seed} step {step}: {in_force:?}");
            assert_eq!(
                shop.rows(DAY).await,
                expected(&shop, DAY, &delivered, &in_force),
                "{label}"
            );
            assert!(!shop.is_dirty(DAY).await, "{label}");
            let verified = shop.layer.verify_day(&shop.venue, day(DAY)).await;
            assert_outcome(&verified, Outcome::Verified);
        }
        for exclusion in in_force {
            undo(&shop, &exclusion.id).await;
        }
        shop.recompute().await;
        let last = shop.published(DAY).await;
        assert_eq!(shop.rows(DAY).await, full, "the former numbers, exactly");
        assert_eq!((&last.events, last.sessions), (&first.events, first.sessions));
        assert_eq!((&last.files, last.conflicts), (&first.files, first.conflicts));
        assert_eq!(last.late, first.late, "nothing of this was late");
        assert_eq!(last.exclusions, Default::default());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_covered_payload_comes_back_and_is_covered_again_after_the_undo() {
    let shop = Shop::open().await;
    let ten = shop.local(DAY, 10.0);
    shop.post(visit("a", ten, 60), 1).await;
    shop.clock.set_ms(shop.now() + 1_000);
    // A wrong correction: everybody stood elsewhere.
    let wrong: Vec<_> = (0..=60)
        .map(|s| ("cam", "a", ten + s * 1_000, 50.0, 50.0))
        .collect();
    shop.post(position_batch(&wrong), 2).await;
    shop.recompute().await;
    assert_eq!(visits(&shop.rows(DAY).await), 0);
    let before = shop.rows(DAY).await;
    shop.clock.set_ms(shop.now() + 1_000);
    let found = revert(&shop, "j", receipt(2)).await;
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].day, found[0].open), (day(DAY), false));
    assert_eq!(found[0].events, [(Kind::Position, 61)].into());
    let report = shop.recompute().await;
    assert_eq!(
        (report.computed, report.days[0].reason.as_str()),
        (1, "exclusions changed")
    );
    assert_eq!(visits(&shop.rows(DAY).await), 1);
    let info = shop.published(DAY).await;
    assert_eq!(
        (info.exclusions.jobs.as_slice(), info.exclusions.restored),
        (&["j".to_owned()][..], 61)
    );
    assert!(info.exclusions.excluded.is_empty(), "every event is still there");
    assert!(info.files.len() > 1, "it was made of what was superseded too");
    undo(&shop, "j").await;
    assert_eq!(shop.recompute().await.computed, 1);
    assert_eq!(shop.rows(DAY).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_sensor_sends_afterwards_counts_be_it_new_or_sent_again() {
    let shop = Shop::open().await;
    let ten = shop.local(DAY, 10.0);
    shop.post(visit("wrong", ten, 60), 1).await;
    shop.recompute().await;
    shop.clock.set_ms(shop.now() + 1_000);
    revert(&shop, "j", sensor("cam")).await;
    shop.recompute().await;
    let info = shop.published(DAY).await;
    assert_eq!(info.exclusions.excluded, [(Kind::Position, 61)].into());
    assert_eq!((info.events.len(), shop.rows(DAY).await.len()), (0, 0));
    // The same again, received after the exclusion was made, and other events of the day.
    shop.clock.set_ms(shop.now() + 1_000);
    shop.post(visit("wrong", ten, 60), 2).await;
    shop.post(visit("good", ten + HOUR_MS, 9), 3).await;
    shop.recompute().await;
    assert_eq!(visits(&shop.rows(DAY).await), 2);
    let info = shop.published(DAY).await;
    assert_eq!(info.events[&Kind::Position].rows, 71);
    assert_eq!(
        info.exclusions.jobs,
        ["j"],
        "its first delivery is still excluded"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_stays_excluded_when_it_is_delivered_again_on_whatever_day() {
    let shop = Shop::open().await;
    shop.post(visit("a", shop.local(DAY, 10.0), 60), 7).await;
    shop.post(visit("b", shop.local("2026-03-08", 10.0), 30), 1).await;
    shop.recompute().await;
    shop.clock.set_ms(shop.now() + 1_000);
    let found = revert(&shop, "j", receipt(7)).await;
    assert_eq!(found.len(), 1);
    shop.recompute().await;
    let eighth = shop.published("2026-03-08").await;
    assert_eq!(
        (visits(&shop.rows(DAY).await), eighth.exclusions.fingerprint),
        (0, 0)
    );
    // Delivered again, with events of a day that it had no part in.
    shop.clock.set_ms(shop.now() + 1_000);
    shop.append(visit("a", shop.local(DAY, 10.0), 60), 7).await;
    shop.append(visit("c", shop.local("2026-03-08", 12.0), 60), 7)
        .await;
    shop.write_raw().await;
    shop.recompute().await;
    assert_eq!(visits(&shop.rows(DAY).await), 0);
    assert_eq!(visits(&shop.rows("2026-03-08").await), 1, "only b's");
    assert_eq!(
        days_of(&shop, "j").await,
        ["2026-03-08", DAY],
        "the new day is written down"
    );
    assert!(!shop.is_dirty("2026-03-08").await && !shop.is_dirty(DAY).await);
    undo(&shop, "j").await;
    shop.recompute().await;
    assert_eq!(visits(&shop.rows(DAY).await), 1);
    assert_eq!(visits(&shop.rows("2026-03-08").await), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_began_before_and_goes_on_after_is_covered_by_its_time() {
    let shop = Shop::open().await;
    let ten = shop.local(DAY, 10.0);
    shop.post(visit("good", ten, 60), 1).await;
    shop.recompute().await;
    let began = shop.now();
    shop.clock.set_ms(shop.now() + 60_000);
    assert_eq!(
        revert(&shop, "j", window(ten + HOUR_MS, ten + 2 * HOUR_MS)).await,
        []
    );
    assert!(!shop.is_dirty(DAY).await, "it has no part in any day yet");
    shop.clock.set_ms(shop.now() + 60_000);
    let file = Delivery {
        received_at: began,
        receipt: Receipt::from_u128(99),
    };
    let rows = [
        visit("late", ten + HOUR_MS, 9),
        visit("other", ten + 3 * HOUR_MS, 9),
    ];
    let rows = rows.map(|events| DeliveredRows::delivered_once(events, file));
    let mut all = rows[0].clone();
    all.append(&rows[1]);
    shop.import(day(DAY), vec![all], 1).await;
    shop.recompute().await;
    assert_eq!(visits(&shop.rows(DAY).await), 2, "good and other");
    assert_eq!(days_of(&shop, "j").await, [DAY]);
    assert!(!shop.is_dirty(DAY).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn undoing_one_of_two_that_overlap_leaves_the_other() {
    let shop = Shop::open().await;
    let ten = shop.local(DAY, 10.0);
    shop.post(visit("a", ten, 60), 1).await;
    shop.post(visit("b", ten + HOUR_MS, 60), 2).await;
    shop.recompute().await;
    shop.clock.set_ms(shop.now() + 1_000);
    revert(&shop, "j1", window(ten, ten + 30 * 60_000)).await;
    revert(&shop, "j2", sensor("cam")).await;
    shop.recompute().await;
    assert_eq!(visits(&shop.rows(DAY).await), 0);
    undo(&shop, "j2").await;
    shop.recompute().await;
    assert_eq!(visits(&shop.rows(DAY).await), 1, "b is back, a is still excluded");
    let info = shop.published(DAY).await;
    assert_eq!(info.exclusions.jobs, ["j1"]);
    undo(&shop, "j1").await;
    shop.recompute().await;
    assert_eq!(visits(&shop.rows(DAY).await), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_dies_anywhere_ends_right_when_it_is_done_again() {
    let shop = Shop::open().await;
    shop.post(visit("a", shop.local(DAY, 10.0), 60), 1).await;
    shop.post(visit("b", shop.local("2026-03-08", 10.0), 60), 2).await;
    shop.recompute().await;
    let untouched = shop.published("2026-03-08").await;
    shop.clock.set_ms(shop.now() + 1_000);
    // It died after the exclusion was stored: no day is known to be affected, and nothing is half done.
    let exclusion = made(&shop, "j", receipt(1));
    assert_eq!(store(&shop, &exclusion).await, Flip::Done);
    assert_eq!(shop.recompute().await.computed, 0);
    assert_eq!(visits(&shop.rows(DAY).await), 1);
    // Again from the start: it is there, and there is one.
    assert_eq!(store(&shop, &exclusion).await, Flip::Lost);
    search(&shop, &exclusion).await;
    // It died before it computed: any run over dirty days does it.
    assert!(shop.is_dirty(DAY).await && !shop.is_dirty("2026-03-08").await);
    let report = shop.run(&RunSpec::all_dirty(What::Recompute)).await;
    assert_eq!((report.computed, visits(&shop.rows(DAY).await)), (1, 0));
    // And once more, all of it.
    search(&shop, &exclusion).await;
    assert_eq!(shop.recompute().await.days.len(), 0);
    assert_eq!(shop.published("2026-03-08").await, untouched);
    let known = exclusions::in_force(&*shop.stores.documents, &shop.venue)
        .await
        .unwrap();
    assert_eq!((known.len(), known[0].is_searched), (1, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_says_what_publishing_then_changes_and_publishes_nothing() {
    let (shop, delivered) = busy_shop(9).await;
    let before = shop.published(DAY).await;
    let exclusion = made(&shop, "j", sensor("cam-1"));
    let found = find(&shop, &exclusion).await;
    let cancel = CancellationToken::new();
    let preview = shop
        .layer
        .preview_exclusions(
            &shop.venue,
            &[day(DAY)],
            std::slice::from_ref(&exclusion),
            &|_| {},
            &cancel,
        )
        .await
        .unwrap();
    assert_eq!(shop.published(DAY).await, before, "nothing is published");
    assert_eq!(store(&shop, &exclusion).await, Flip::Done);
    assert_eq!(search(&shop, &exclusion).await, found);
    shop.recompute().await;
    assert_eq!(
        shop.rows(DAY).await,
        expected(&shop, DAY, &delivered, &[exclusion])
    );
    let published = shop
        .layer
        .published_difference(&shop.venue, day(DAY), "j", Turn::Made)
        .await;
    assert_eq!(preview[0], published.unwrap().unwrap());
    let change = shop.published(DAY).await.changed.unwrap();
    assert_eq!(preview[0].buckets, change);
    assert!(change.removed > 0 && change.changed > 0 && change.added == 0);
    let back = shop
        .layer
        .published_difference(&shop.venue, day(DAY), "j", Turn::Ended)
        .await;
    assert_eq!(back.unwrap(), None, "it has not been undone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_that_starts_from_an_excluded_sample_is_previewed_and_computed_too() {
    let shop = Shop::open().await;
    let (eighth, ninth) = (shop.local("2026-03-08", 20.0), shop.local(DAY, 9.0));
    shop.post(cumulative(&[(eighth - HOUR_MS, 100)]), 1).await;
    shop.post(cumulative(&[(eighth, 990)]), 2).await;
    shop.post(cumulative(&[(ninth, 1_000)]), 3).await;
    shop.recompute().await;
    assert_eq!(counted(&shop.rows(DAY).await), Some(10));
    shop.clock.set_ms(shop.now() + 1_000);
    let exclusion = made(&shop, "j", receipt(2));
    let cancel = CancellationToken::new();
    let preview = shop
        .layer
        .preview_exclusions(&shop.venue, &[day("2026-03-08")], &[exclusion], &|_| {}, &cancel)
        .await
        .unwrap();
    let sums: Vec<_> = preview
        .iter()
        .map(|day| {
            let sum = |side: &Option<dwell_batch_layer::totals::DayTotals>| {
                side.as_ref()
                    .and_then(|told| told.metrics.get("counter_value").copied())
            };
            (day.day.to_string(), sum(&day.before), sum(&day.after))
        })
        .collect();
    assert_eq!(
        sums,
        [
            ("2026-03-08".to_owned(), Some(890), Some(0)),
            (DAY.to_owned(), Some(10), Some(900))
        ]
    );
    revert(&shop, "j", receipt(2)).await;
    shop.recompute().await;
    assert_eq!(counted(&shop.rows(DAY).await), Some(900));
    undo(&shop, "j").await;
    shop.recompute().await;
    assert_eq!(counted(&shop.rows(DAY).await), Some(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_covered_payload_that_comes_while_its_rival_is_excluded_counts() {
    let shop = Shop::open().await;
    let ten = shop.local(DAY, 10.0);
    let mut right = visit("a", ten, 60);
    right.revision.fill(1);
    shop.post(right, 1).await;
    shop.recompute().await;
    shop.clock.set_ms(shop.now() + 1_000);
    revert(&shop, "j", receipt(1)).await;
    shop.recompute().await;
    assert_eq!(visits(&shop.rows(DAY).await), 0);
    // Without its revision it covers nothing, so that the archive's winners stay as they are.
    shop.clock.set_ms(shop.now() + 1_000);
    shop.post(visit("a", ten, 60), 2).await;
    shop.recompute().await;
    assert_eq!(visits(&shop.rows(DAY).await), 1);
    undo(&shop, "j").await;
    shop.recompute().await;
    let info = shop.published(DAY).await;
    assert_eq!((info.conflicts, info.events[&Kind::Position].rows), (61, 61));
}
