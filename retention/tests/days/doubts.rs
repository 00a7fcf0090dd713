//! What holds a day back: a damaged or missing file, a row that the archive lacks, a legal hold.

use dwell_batch_layer::spec::{RunSpec, What};
use dwell_model::event::{Delivery, RawRows};
use dwell_model::ids::{Receipt, VenueId};
use dwell_model::time::DAY_MS;
use dwell_retention::holds::{self, Hold, Lifted};
use dwell_retention::{KeepReason, Verdict, policy};
use dwell_retention::{Policy, marks::Mark};
use dwell_storage::api::{MarkSource, RawWrite};
use tokio_util::sync::CancellationToken;

use crate::common::events::visit;
use crate::common::{Shop, day};
use crate::harness::{
    HUNDRED_DAYS, archived, contents, mark, mark_as_of, path_of, raw_rows, retention, run, sweep,
};
use crate::sweeps::FAILPOINTS;

const DAMAGED: &str = "2026-03-08";
const SOUND: &str = "2026-03-09";

/// Two days, computed and old.
async fn two_days() -> Shop {
    let shop = Shop::open().await;
    shop.post(visit("a", shop.local(DAMAGED, 10.0), 600), 1).await;
    shop.post(visit("b", shop.local(SOUND, 10.0), 600), 2).await;
    shop.recompute().await;
    shop.advance(HUNDRED_DAYS);
    shop
}

fn reasons(made: &Mark) -> Vec<KeepReason> {
    let kept = made
        .kept
        .iter()
        .find(|kept| kept.day == day(DAMAGED))
        .expect("the day is kept");
    kept.reasons().cloned().collect()
}

/// Sessions of the day's published generation that are there.
pub(crate) async fn sessions(shop: &Shop, of: &str) -> usize {
    let generation = shop.published(of).await.generation;
    let sessions = &shop.stores.sessions;
    let listed = sessions.list(&shop.venue, day(of), generation, None, 10).await;
    listed.unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_with_a_damaged_file_stays_and_names_it() {
    let _shared = FAILPOINTS.read().await;
    let shop = two_days().await;
    let file = archived(&shop, day(DAMAGED)).await.events[0].path.clone();
    let path = path_of(&shop, file.rsplit('/').next().unwrap());
    let sound = std::fs::read(&path).unwrap();
    let mut bytes = sound.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    std::fs::write(&path, &bytes).unwrap();

    let retention = retention(&shop);
    let (made, swept) = run(&retention, &shop, "job-1").await;
    assert_eq!(swept.len(), 1);
    assert_eq!(raw_rows(&shop, day(SOUND)).await, 0);
    assert_eq!(raw_rows(&shop, day(DAMAGED)).await, 601, "that day stays");
    for reason in reasons(&made) {
        let KeepReason::ArchiveUnreadable { what } = reason else {
            panic!("{reason:?}")
        };
        assert!(what.contains(&file), "{what} does not name {file}");
    }
    assert_eq!(made.totals.days_to_keep, 1);
    // It is compared again each time, and goes once the file is what it was.
    std::fs::write(&path, sound).unwrap();
    let (_, swept) = run(&retention, &shop, "job-2").await;
    assert_eq!(
        swept.iter().map(|swept| swept.raw_rows).collect::<Vec<_>>(),
        [601]
    );
    assert!(contents(&shop).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_whose_file_is_gone_stays_and_names_it() {
    let _shared = FAILPOINTS.read().await;
    let shop = two_days().await;
    let file = archived(&shop, day(DAMAGED)).await.events[0].path.clone();
    std::fs::remove_file(path_of(&shop, file.rsplit('/').next().unwrap())).unwrap();
    let (made, _) = run(&retention(&shop), &shop, "job").await;
    assert_eq!(raw_rows(&shop, day(SOUND)).await, 0);
    assert_eq!(raw_rows(&shop, day(DAMAGED)).await, 601);
    let named = |reason: &KeepReason| matches!(reason, KeepReason::ArchiveUnreadable { what } if what.contains(&file));
    assert!(reasons(&made).iter().all(named), "{made:?}");
}

/// A file damaged after the mark was made: the sweep reads it again before it removes anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_damaged_after_the_mark_still_keeps_its_day() {
    let _shared = FAILPOINTS.read().await;
    let shop = two_days().await;
    let retention = retention(&shop);
    let (made, _) = mark(&retention, &shop, "job").await;
    let file = archived(&shop, day(DAMAGED)).await.events[0].path.clone();
    std::fs::remove_file(path_of(&shop, file.rsplit('/').next().unwrap())).unwrap();
    let swept = sweep(&retention, &shop, &made).await;
    assert!(swept[0].stayed[0].contains(&file), "{swept:?}");
    assert_eq!(raw_rows(&shop, day(DAMAGED)).await, 601);
    assert_eq!(raw_rows(&shop, day(SOUND)).await, 0);
    assert_eq!(
        (sessions(&shop, DAMAGED).await, sessions(&shop, SOUND).await),
        (1, 0)
    );
    assert_eq!((swept[0].sessions, swept[1].sessions), (0, 1));
}

/// Sessions that are kept for longer than raw rows: by then nothing of the day was read for long.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_outlive_their_rows_go_only_while_the_archive_can_be_read() {
    let _shared = FAILPOINTS.read().await;
    let shop = two_days().await;
    let retention = retention(&shop);
    let policy = Policy {
        sessions_ms: 180 * DAY_MS,
        ..Policy::default()
    };
    let cancel = CancellationToken::new();
    let mark = async |job| {
        let made = retention
            .mark(
                &shop.venue,
                &shop.calendar,
                &policy,
                shop.now(),
                None,
                job,
                &|_, _, _| {},
                &cancel,
            )
            .await;
        made.unwrap().0
    };
    let swept = sweep(&retention, &shop, &mark("job-1").await).await;
    assert!(swept.iter().all(|swept| swept.stayed.is_empty()), "{swept:?}");
    assert!(contents(&shop).await.is_empty());
    assert_eq!(
        (sessions(&shop, DAMAGED).await, sessions(&shop, SOUND).await),
        (1, 1)
    );

    shop.advance(HUNDRED_DAYS);
    let file = archived(&shop, day(DAMAGED)).await.events[0].path.clone();
    let path = path_of(&shop, file.rsplit('/').next().unwrap());
    let kept = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let swept = sweep(&retention, &shop, &mark("job-2").await).await;
    assert!(
        swept[0].stayed.len() == 1 && swept[0].stayed[0].contains(&file),
        "{swept:?}"
    );
    assert_eq!(
        (sessions(&shop, DAMAGED).await, sessions(&shop, SOUND).await),
        (1, 0)
    );
    // From now on it is known to be in doubt, and compared each time.
    let made = mark("job-3").await;
    assert!(made.days.is_empty() && made.kept.iter().any(|kept| kept.doubts_the_archive()));
    std::fs::write(&path, kept).unwrap();
    sweep(&retention, &shop, &mark("job-4").await).await;
    assert_eq!(sessions(&shop, DAMAGED).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_or_a_delivery_that_the_archive_lacks_keeps_the_day() {
    let _shared = FAILPOINTS.read().await;
    // A row that nobody archived; and a further delivery of one that was.
    for (rows, track) in [(1, "never"), (0, "a")] {
        let shop = two_days().await;
        let at = shop.local(DAMAGED, 10.0);
        let delivery = Delivery {
            received_at: at + 9_999,
            receipt: Receipt::from_u128(4_711),
        };
        let batch = RawRows::delivered_once(visit(track, at, 0), delivery);
        let write = RawWrite {
            rows: vec![(shop.venue.clone(), batch)],
            ..RawWrite::default()
        };
        shop.stores.raw.apply(write).await.unwrap();
        let (made, _) = run(&retention(&shop), &shop, "job").await;
        assert_eq!(raw_rows(&shop, day(DAMAGED)).await, 601 + rows);
        assert_eq!(raw_rows(&shop, day(SOUND)).await, 0);
        let lacks = KeepReason::ArchiveDiffers {
            raw_rows: 602,
            found_rows: 601,
        };
        assert!(reasons(&made).contains(&lacks), "{made:?}");
        // What to do about it: archive the day.
        let archive = RunSpec {
            from: Some(day(DAMAGED)),
            to: Some(day(DAMAGED)),
            ..RunSpec::all_dirty(What::Archive)
        };
        assert_eq!(shop.run(&archive).await.archived, 1);
        run(&retention(&shop), &shop, "job-2").await;
        assert!(contents(&shop).await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legal_hold_keeps_its_days_and_lifting_it_lets_them_go() {
    let _shared = FAILPOINTS.read().await;
    let shop = two_days().await;
    let retention = retention(&shop);
    let (documents, tenant) = (&*shop.stores.documents, &shop.venue.tenant);
    let hold = Hold {
        venue: Some(shop.venue.venue.clone()),
        from: Some(day(DAMAGED)),
        to: Some(day(DAMAGED)),
        reason: "case 12".into(),
        until: Some(shop.now() + DAY_MS),
        added_at: shop.now(),
        added_by: "k".into(),
        lifted: None,
    };
    let other = Hold {
        venue: Some(VenueId::new("elsewhere").unwrap()),
        from: None,
        ..hold.clone()
    };
    holds::add(documents, tenant, &other).await.unwrap();
    // Held between mark and sweep.
    let (made, _) = mark(&retention, &shop, "job-1").await;
    assert_eq!(made.days.len(), 2);
    let id = holds::add(documents, tenant, &hold).await.unwrap();
    let swept = sweep(&retention, &shop, &made).await;
    assert!(swept[0].stayed[0].contains("case 12"), "{swept:?}");
    assert_eq!(
        (
            raw_rows(&shop, day(DAMAGED)).await,
            raw_rows(&shop, day(SOUND)).await
        ),
        (601, 0)
    );
    // Held when it is planned, also as if the hold were long over.
    for now in [shop.now(), shop.now() + 300 * DAY_MS] {
        let (made, _) = mark_as_of(&retention, &shop, "job-2", now).await;
        assert_eq!(made.days.len(), 0);
        assert!(matches!(&reasons(&made)[0], KeepReason::LegalHold { because, .. } if because == "case 12"));
    }
    let lifted = Lifted {
        at: shop.now(),
        by: "k".into(),
        reason: "settled".into(),
    };
    let stands = holds::lift(documents, tenant, &id, &lifted).await.unwrap();
    assert_eq!(stands.value.lifted, Some(lifted.clone()));
    let again = Lifted {
        reason: "again".into(),
        ..lifted.clone()
    };
    let stands = holds::lift(documents, tenant, &id, &again).await.unwrap();
    assert_eq!(stands.value.lifted, Some(lifted), "it was lifted once");
    run(&retention, &shop, "job-3").await;
    assert!(contents(&shop).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_that_was_never_computed_stays() {
    let _shared = FAILPOINTS.read().await;
    let shop = Shop::open().await;
    shop.post(visit("a", shop.local(SOUND, 10.0), 60), 1).await;
    shop.advance(HUNDRED_DAYS);
    let (made, swept) = run(&retention(&shop), &shop, "job").await;
    assert_eq!((swept.len(), made.kept.len()), (0, 1));
    let verdict = made.kept[0].raw.values().next().unwrap();
    let Verdict::Keep { reasons, .. } = verdict else {
        panic!("{verdict:?}")
    };
    assert_eq!(reasons, &[KeepReason::NotPublished]);
    assert_eq!(raw_rows(&shop, day(SOUND)).await, 61);
}

/// A day that somebody else works on is left to them.
#[tokio::test(flavor = "multi_thread")]
async fn a_day_that_another_holds_is_passed_over() {
    let _shared = FAILPOINTS.read().await;
    let shop = two_days().await;
    let days = &shop.stores.venue_days;
    let lease = days
        .acquire(&shop.venue, day(DAMAGED), "other", shop.now(), 60_000)
        .await
        .unwrap()
        .unwrap();
    let retention = retention(&shop);
    let (made, decided) = mark(&retention, &shop, "job").await;
    assert_eq!(decided.busy, [day(DAMAGED)]);
    sweep(&retention, &shop, &made).await;
    assert_eq!(
        (
            raw_rows(&shop, day(DAMAGED)).await,
            raw_rows(&shop, day(SOUND)).await
        ),
        (601, 0)
    );
    days.release(&lease).await.unwrap();
    run(&retention, &shop, "job").await;
    assert!(contents(&shop).await.is_empty());
    let source = MarkSource::job("r");
    let lease = days
        .acquire(&shop.venue, day(SOUND), "other", shop.now(), 60_000)
        .await
        .unwrap()
        .unwrap();
    let cancel = CancellationToken::new();
    let restored = retention
        .restore_day(&shop.venue, &shop.calendar, day(SOUND), &source, 2, &cancel)
        .await;
    assert_eq!(restored.unwrap(), None);
    days.release(&lease).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_set_field_by_field_and_nonsense_is_refused() {
    let _shared = FAILPOINTS.read().await;
    let shop = Shop::open().await;
    let (documents, tenant) = (&*shop.stores.documents, &shop.venue.tenant);
    let default = Policy::default();
    assert_eq!(policy::stored(documents, tenant).await.unwrap(), None);
    let (before, after) = policy::change(documents, tenant, &default, |policy| policy.raw_ms = 5 * DAY_MS)
        .await
        .unwrap();
    assert_eq!(
        (before.raw_ms, after.raw_ms, after.sessions_ms),
        (90 * DAY_MS, 5 * DAY_MS, 90 * DAY_MS)
    );
    let refused = policy::change(documents, tenant, &default, |policy| policy.sessions_ms = 5).await;
    assert_eq!(
        refused.unwrap_err().kind(),
        dwell_storage::error::ErrorKind::Invalid
    );
    assert_eq!(policy::stored(documents, tenant).await.unwrap(), Some(after));
}
