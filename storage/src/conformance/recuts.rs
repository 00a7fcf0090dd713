//! What the steps of a recut promise, on whatever keeps its document.

use std::sync::Arc;

use dwell_model::event::{Checksum, Kind};
use dwell_model::time::{LocalDay, VenueCalendar};

use super::samples::{day, shop, strangers};
use crate::api::recuts::{self, Asked, CutDayInput, Recut, RecutPhase, StagedCutDay, Wish, flipping_holder};
use crate::api::{ArchivedDay, Documents, Generation, Marks, StagedDay};

fn calendar(tz: &str) -> VenueCalendar {
    VenueCalendar::from_names(tz, 0).unwrap()
}

fn wish(job: &str, to: &str) -> Wish {
    Wish {
        job: job.to_owned(),
        from: calendar("Europe/Madrid"),
        to: calendar(to),
        by: "operator".to_owned(),
        at: 5,
    }
}

async fn ask(store: &dyn Documents, job: &str, to: &str) -> Asked {
    recuts::ask(store, &shop(), &wish(job, to)).await.unwrap()
}

async fn stands(store: &dyn Documents) -> Recut {
    recuts::load(store, &shop()).await.unwrap().unwrap().value
}

async fn stage(store: &dyn Documents, number: u64, holder: &str, now: i64) -> bool {
    let stands = recuts::begin_staging(store, &shop(), number, holder, now, now + 100)
        .await
        .unwrap();
    stands.is_some_and(|stands| stands.is_staged_by(holder))
}

const DECIDED: [(&str, Generation); 2] = [("2026-03-28", 4), ("2026-03-29", 7)];

async fn decide(store: &dyn Documents, number: u64, holder: &str, now: i64) -> bool {
    let days: Vec<(LocalDay, Generation)> = DECIDED.iter().map(|(of, fence)| (day(of), *fence)).collect();
    let stands = recuts::decide(store, &shop(), number, holder, now, &days)
        .await
        .unwrap();
    stands.is_some_and(|stands| matches!(stands.phase, RecutPhase::Flipping { at, .. } if at == now))
}

pub(super) async fn the_newest_wish_stands_and_one_job_asks_once(store: Arc<dyn Documents>) {
    let Asked::New(first) = ask(&*store, "job-2", "Europe/Lisbon").await else {
        panic!("there was none")
    };
    assert_eq!((first.number, first.phase.clone()), (1, RecutPhase::Asked));
    assert_eq!(
        ask(&*store, "job-2", "Europe/Lisbon").await,
        Asked::Standing(first.clone())
    );
    assert_eq!(
        ask(&*store, "job-1", "Europe/Rome").await,
        Asked::Superseded(first)
    );
    let Asked::New(second) = ask(&*store, "job-3", "Europe/Rome").await else {
        panic!("it is newer")
    };
    assert_eq!((second.number, second.to), (2, calendar("Europe/Rome")));
    assert_eq!(stands(&*store).await, second);
    for venue in strangers() {
        assert_eq!(recuts::load(&*store, &venue).await.unwrap(), None, "{venue:?}");
    }
}

pub(super) async fn one_at_a_time_stages_and_keeps_others_away(store: Arc<dyn Documents>) {
    ask(&*store, "job-1", "Europe/Lisbon").await;
    assert!(!stands(&*store).await.keeps_away("night", 0));
    assert!(stage(&*store, 1, "a", 1_000).await);
    assert!(!stage(&*store, 1, "b", 1_099).await, "until 1100 it is a's");
    assert!(!stage(&*store, 2, "b", 1_050).await, "there is no second one");
    assert!(stage(&*store, 1, "a", 1_050).await, "renewed until 1150");
    let held = stands(&*store).await;
    assert!(held.keeps_away("night", 1_149));
    assert!(held.keeps_away("ab", 1_149), "a name that only begins alike");
    assert!(!held.keeps_away("a", 1_149) && !held.keeps_away("a/3", 1_149));
    assert!(
        !held.keeps_away("night", 1_150),
        "whoever died keeps nobody away for ever"
    );
    assert!(stage(&*store, 1, "b", 1_150).await);
    assert!(!stage(&*store, 1, "a", 1_160).await);
    // Given back by who has it, and by nobody else.
    recuts::pause_staging(&*store, &shop(), 1, "a").await.unwrap();
    assert!(stands(&*store).await.is_staged_by("b"));
    recuts::pause_staging(&*store, &shop(), 1, "b").await.unwrap();
    assert_eq!(stands(&*store).await.phase, RecutPhase::Asked);
}

pub(super) async fn only_who_stages_decides_and_nobody_takes_that_back(store: Arc<dyn Documents>) {
    ask(&*store, "job-1", "Europe/Lisbon").await;
    assert!(!decide(&*store, 1, "a", 1_000).await, "nobody stages");
    assert!(stage(&*store, 1, "a", 1_000).await);
    assert!(!decide(&*store, 1, "b", 1_010).await);
    assert!(!decide(&*store, 1, "a", 1_100).await, "its time has run out");
    assert!(decide(&*store, 1, "a", 1_099).await);
    let decided = stands(&*store).await;
    let days = DECIDED
        .map(|(of, fence)| (day(of).to_epoch_days(), fence))
        .to_vec();
    assert_eq!(
        decided.phase,
        RecutPhase::Flipping {
            at: 1_099,
            days: days.clone()
        }
    );
    assert!(decided.keeps_away("a", i64::MAX), "for ever");
    assert!(!decided.keeps_away(&format!("{}/1", flipping_holder(1)), 0));
    // No wish, no withdrawal and no other try changes it.
    assert_eq!(
        ask(&*store, "job-9", "Europe/Rome").await,
        Asked::Flipping(decided.clone())
    );
    recuts::withdraw(&*store, &shop(), 1, 2_000, "cancelled")
        .await
        .unwrap();
    assert!(!stage(&*store, 1, "b", 5_000).await);
    assert_eq!(stands(&*store).await, decided);
    // Dated anew while the registry has the former cut, never back.
    recuts::date_flip(&*store, &shop(), 1, 1_500).await.unwrap();
    recuts::date_flip(&*store, &shop(), 1, 1_400).await.unwrap();
    assert_eq!(
        stands(&*store).await.phase,
        RecutPhase::Flipping { at: 1_500, days }
    );
    // Another job may go on with it, once: where its own is lost.
    let handed = async |from: &str, to: &str| {
        let stands = recuts::hand_over(&*store, &shop(), 1, from, to).await.unwrap();
        stands.unwrap().job
    };
    assert_eq!(handed("job-1", "job-2").await, "job-2");
    assert_eq!(
        handed("job-1", "job-3").await,
        "job-2",
        "it is not job-1's any more"
    );
    assert_eq!(
        recuts::ask(&*store, &shop(), &wish("job-2", "Europe/Lisbon"))
            .await
            .unwrap(),
        Asked::Standing(stands(&*store).await)
    );
    recuts::finish(&*store, &shop(), 1).await.unwrap();
    recuts::finish(&*store, &shop(), 1).await.unwrap();
    assert_eq!(
        handed("job-2", "job-3").await,
        "job-2",
        "there is nothing left to do"
    );
    let done = stands(&*store).await;
    assert_eq!(done.phase, RecutPhase::Done { at: 1_500 });
    assert_eq!(done.former.len(), 1, "twice is once");
    assert!(!done.keeps_away("night", 0));
}

pub(super) async fn every_former_cut_is_remembered_with_its_end(store: Arc<dyn Documents>) {
    let (madrid, lisbon) = (calendar("Europe/Madrid"), calendar("Europe/Lisbon"));
    ask(&*store, "job-1", "Europe/Lisbon").await;
    assert!(stage(&*store, 1, "a", 1_000).await && decide(&*store, 1, "a", 1_050).await);
    let decided = stands(&*store).await;
    assert_eq!(decided.cut_at(madrid, 1_100), madrid, "decided, and not flipped");
    assert_eq!(
        (decided.cut_at(lisbon, 1_049), decided.cut_at(lisbon, 1_050)),
        (madrid, lisbon)
    );
    recuts::finish(&*store, &shop(), 1).await.unwrap();
    let back = Wish {
        from: lisbon,
        ..wish("job-2", "Europe/Madrid")
    };
    assert!(matches!(
        recuts::ask(&*store, &shop(), &back).await.unwrap(),
        Asked::New(_)
    ));
    recuts::withdraw(&*store, &shop(), 2, 1_100, "cancelled")
        .await
        .unwrap();
    let withdrawn = stands(&*store).await;
    assert!(!withdrawn.is_pending() && !withdrawn.keeps_away("night", 0));
    assert_eq!(
        (withdrawn.cut_at(lisbon, 1_049), withdrawn.cut_at(lisbon, 9_999)),
        (madrid, lisbon)
    );
}

pub(super) async fn of_a_staged_day_the_highest_fence_stands(store: Arc<dyn Documents>) {
    let staged = |fence: Generation| StagedCutDay {
        number: 3,
        fence,
        has_generation: true,
        made_of: CutDayInput {
            sources: vec!["venue=shop/a.parquet".to_owned()],
            layout: u64::MAX,
            definitions: 3,
            exclusions: u64::MAX - 1,
            in_force: u64::MAX - 2,
            erasures: 4,
            marks: Marks::default(),
        },
        files: vec![StagedDay {
            venue: shop(),
            day: day("2026-03-29"),
            kind: Kind::Position,
            fence,
            replaces: ArchivedDay::default(),
            holds: ArchivedDay {
                deliveries: Checksum {
                    rows: u64::MAX,
                    sum: u128::MAX,
                },
                ..ArchivedDay::default()
            },
        }],
    };
    let of = day("2026-03-29");
    for (fence, expected) in [(5, 5), (4, 5), (5, 5), (6, 6)] {
        let stands = recuts::write_staged_day(&*store, &shop(), of, &staged(fence))
            .await
            .unwrap();
        assert_eq!(
            stands,
            Some(staged(expected)),
            "a worker that is late changes nothing"
        );
        let read = recuts::staged_day(&*store, &shop(), of).await.unwrap().unwrap();
        assert_eq!(read.value, staged(expected));
    }
    assert_eq!(
        recuts::staged_day(&*store, &shop(), of.next()).await.unwrap(),
        None
    );
}
