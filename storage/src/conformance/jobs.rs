//! What [`Jobs`] promises.

use std::sync::Arc;

use serde_json::json;

use super::samples::{DAY_START, tenant};
use super::{assert_kind, run_cases};
use crate::api::{Flip, Job, JobProgress, JobState, Jobs, Lane};
use crate::error::ErrorKind;

/// Runs all cases, each on a fresh store that `make` gives.
pub async fn suite<M, F>(make: M)
where
    M: Fn() -> F,
    F: Future<Output = Arc<dyn Jobs>>,
{
    run_cases!(
        "jobs",
        make,
        [
            a_job_comes_back_as_it_was_created,
            an_id_is_taken_once,
            jobs_are_listed_newest_first_in_pages,
            the_oldest_queued_job_is_claimed_first,
            a_running_job_is_claimed_again_when_its_lease_has_expired,
            a_job_that_is_handed_back_is_claimed_at_once,
            a_job_leased_by_a_clock_that_was_set_back_is_claimed_again,
            workers_at_the_same_time_get_different_jobs,
            an_update_needs_the_fence,
            an_update_keeps_what_was_decided_and_what_was_asked,
            a_final_state_ends_the_lease_and_stays,
            a_queued_job_is_cancelled_at_once_and_a_running_one_is_asked_to_stop,
            a_job_that_forgets_somebody_does_not_name_them_once_it_has_ended,
            no_tenant_sees_or_stops_anothers_jobs,
            unfinished_jobs_are_listed_oldest_first_whosever_they_are,
            one_job_is_claimed_once_by_its_tenant_and_id,
        ]
    );
}

const TTL: i64 = 30_000;

fn job(id: &str, owner: &str) -> Job {
    Job {
        id: id.to_owned(),
        tenant: tenant(owner),
        kind: "recompute".to_owned(),
        lane: Lane::Backfill,
        spec: json!({ "venues": ["shop"], "from": "2026-03-01", "n": 1.5, "none": null }),
        state: JobState::Queued,
        progress: JobProgress::default(),
        requested_by: "key-1".to_owned(),
        reason: Some("because".to_owned()),
        created_at: DAY_START,
        started_at: None,
        finished_at: None,
        attempts: 0,
        cancel_requested: false,
        report: None,
        error: None,
        fence: 0,
        leased_until: None,
    }
}

async fn get(store: &dyn Jobs, id: &str) -> Job {
    store
        .get(&tenant("acme"), id)
        .await
        .unwrap()
        .expect("the job is there")
}

async fn a_job_comes_back_as_it_was_created(store: Arc<dyn Jobs>) {
    assert_eq!(store.get(&tenant("acme"), "01").await.unwrap(), None);
    assert_eq!(store.claim(DAY_START, TTL).await.unwrap(), None);
    store.create(&job("01", "acme")).await.unwrap();
    assert_eq!(get(&*store, "01").await, job("01", "acme"));
}

async fn an_id_is_taken_once(store: Arc<dyn Jobs>) {
    store.create(&job("01", "acme")).await.unwrap();
    assert_kind(
        store
            .create(&Job {
                kind: "other".into(),
                ..job("01", "acme")
            })
            .await,
        ErrorKind::Conflict,
    );
    assert_kind(store.create(&job("01", "other")).await, ErrorKind::Conflict);
    assert_eq!(get(&*store, "01").await, job("01", "acme"));
}

async fn jobs_are_listed_newest_first_in_pages(store: Arc<dyn Jobs>) {
    for n in [3, 1, 5, 2, 4] {
        store
            .create(&job(&format!("0{n}"), if n == 4 { "other" } else { "acme" }))
            .await
            .unwrap();
    }
    let ids = async |owner: Option<&str>, before, limit| -> Vec<String> {
        let owner = owner.map(tenant);
        let jobs = store.list(owner.as_ref(), before, limit).await.unwrap();
        jobs.into_iter().map(|job| job.id).collect()
    };
    assert_eq!(ids(None, None, 100).await, ["05", "04", "03", "02", "01"]);
    assert_eq!(ids(Some("acme"), None, 100).await, ["05", "03", "02", "01"]);
    assert_eq!(ids(Some("acme"), None, 2).await, ["05", "03"]);
    assert_eq!(ids(Some("acme"), Some("03"), 2).await, ["02", "01"]);
    assert_eq!(ids(Some("acme"), Some("01"), 2).await, [""; 0]);
    assert_eq!(ids(None, Some("04"), 2).await, ["03", "02"]);
    assert_eq!(ids(Some("nobody"), None, 2).await, [""; 0]);
}

async fn the_oldest_queued_job_is_claimed_first(store: Arc<dyn Jobs>) {
    for id in ["02", "01", "03"] {
        store.create(&job(id, "acme")).await.unwrap();
    }
    for (n, id) in ["01", "02", "03"].into_iter().enumerate() {
        let now = DAY_START + n as i64;
        let claimed = store.claim(now, TTL).await.unwrap().unwrap();
        let expected = Job {
            state: JobState::Running,
            started_at: Some(now),
            attempts: 1,
            fence: claimed.fence,
            leased_until: Some(now + TTL),
            ..job(id, "acme")
        };
        assert_eq!(claimed, expected);
        assert!(claimed.fence > 0);
        assert_eq!(get(&*store, id).await, expected);
    }
    assert_eq!(store.claim(DAY_START + 3, TTL).await.unwrap(), None);
}

async fn a_running_job_is_claimed_again_when_its_lease_has_expired(store: Arc<dyn Jobs>) {
    store.create(&job("01", "acme")).await.unwrap();
    let first = store.claim(DAY_START, TTL).await.unwrap().unwrap();
    assert_eq!(store.claim(DAY_START + TTL - 1, TTL).await.unwrap(), None);
    // An update may extend the lease.
    let extended = Job {
        leased_until: Some(DAY_START + 2 * TTL),
        ..first.clone()
    };
    assert_eq!(store.update(&extended).await.unwrap(), Flip::Done);
    assert_eq!(store.claim(DAY_START + 2 * TTL - 1, TTL).await.unwrap(), None);
    let second = store.claim(DAY_START + 2 * TTL, TTL).await.unwrap().unwrap();
    assert!(second.fence > first.fence);
    assert_eq!(
        (second.attempts, second.started_at),
        (2, Some(DAY_START)),
        "started when first taken"
    );
    assert_eq!(second.leased_until, Some(DAY_START + 3 * TTL));
    assert_eq!(store.update(&first).await.unwrap(), Flip::Lost);
}

async fn a_job_that_is_handed_back_is_claimed_at_once(store: Arc<dyn Jobs>) {
    store.create(&job("01", "acme")).await.unwrap();
    let first = store.claim(DAY_START, TTL).await.unwrap().unwrap();
    let handed_back = Job {
        leased_until: Some(DAY_START + 7),
        attempts: 0,
        ..first.clone()
    };
    assert_eq!(store.update(&handed_back).await.unwrap(), Flip::Done);
    assert_eq!(get(&*store, "01").await, handed_back);
    let second = store.claim(DAY_START + 7, TTL).await.unwrap().unwrap();
    assert!(second.fence > first.fence);
    assert_eq!(second.attempts, 1);
    assert_eq!(store.update(&handed_back).await.unwrap(), Flip::Lost);
}

async fn a_job_leased_by_a_clock_that_was_set_back_is_claimed_again(store: Arc<dyn Jobs>) {
    const HOUR: i64 = 3_600_000;
    store.create(&job("01", "acme")).await.unwrap();
    let ahead = store.claim(DAY_START + HOUR, TTL).await.unwrap().unwrap();
    // Within an hour it may be another machine's clock.
    assert_eq!(store.claim(DAY_START, TTL).await.unwrap(), None);
    let next = store.claim(DAY_START - 1, TTL).await.unwrap().unwrap();
    assert!(next.fence > ahead.fence);
    assert_eq!(store.update(&ahead).await.unwrap(), Flip::Lost);
}

async fn workers_at_the_same_time_get_different_jobs(store: Arc<dyn Jobs>) {
    for n in 10..20 {
        store.create(&job(&n.to_string(), "acme")).await.unwrap();
    }
    let claims = futures::future::join_all((0..15).map(|_| store.claim(DAY_START, TTL))).await;
    let mut ids: Vec<String> = claims
        .into_iter()
        .filter_map(|claim| claim.unwrap())
        .map(|job| job.id)
        .collect();
    ids.sort();
    assert_eq!(ids, (10..20).map(|n| n.to_string()).collect::<Vec<_>>());
}

async fn an_update_needs_the_fence(store: Arc<dyn Jobs>) {
    store.create(&job("01", "acme")).await.unwrap();
    let unclaimed = Job {
        state: JobState::Succeeded,
        ..job("01", "acme")
    };
    assert_eq!(
        store.update(&unclaimed).await.unwrap(),
        Flip::Lost,
        "nobody has claimed it"
    );
    let claimed = store.claim(DAY_START, TTL).await.unwrap().unwrap();
    let stale = Job {
        fence: claimed.fence - 1,
        state: JobState::Failed,
        ..claimed.clone()
    };
    assert_eq!(store.update(&stale).await.unwrap(), Flip::Lost);
    assert_eq!(get(&*store, "01").await, claimed);
    assert_kind(
        store
            .update(&Job {
                id: "99".into(),
                ..claimed
            })
            .await,
        ErrorKind::NotFound,
    );
}

async fn an_update_keeps_what_was_decided_and_what_was_asked(store: Arc<dyn Jobs>) {
    store.create(&job("01", "acme")).await.unwrap();
    let claimed = store.claim(DAY_START, TTL).await.unwrap().unwrap();
    let asked = store
        .request_cancel(&tenant("acme"), "01", DAY_START + 1)
        .await
        .unwrap();
    assert!(asked.cancel_requested);
    // The worker does not know yet that it was asked to stop.
    let progress = JobProgress {
        done: 3,
        total: 10,
        doing: "acme/shop 2026-03-29".to_owned(),
    };
    let update = Job {
        progress: progress.clone(),
        report: Some(json!({"days": [1, 2]})),
        // Parameters that must not stay as they were given.
        spec: json!({ "sealed": "00" }),
        ..claimed.clone()
    };
    assert!(!update.cancel_requested);
    assert_eq!(store.update(&update).await.unwrap(), Flip::Done);
    let expected = Job {
        cancel_requested: true,
        progress,
        report: Some(json!({"days": [1, 2]})),
        spec: json!({ "sealed": "00" }),
        ..claimed
    };
    assert_eq!(get(&*store, "01").await, expected);
}

async fn a_final_state_ends_the_lease_and_stays(store: Arc<dyn Jobs>) {
    for (n, state) in [
        JobState::Succeeded,
        JobState::Partial,
        JobState::Failed,
        JobState::Cancelled,
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("0{n}");
        store.create(&job(&id, "acme")).await.unwrap();
        let claimed = store.claim(DAY_START, TTL).await.unwrap().unwrap();
        let finished = Job {
            state,
            finished_at: Some(DAY_START + 9),
            error: Some("why".to_owned()),
            report: Some(json!(null)),
            ..claimed.clone()
        };
        assert_eq!(store.update(&finished).await.unwrap(), Flip::Done);
        let stored = get(&*store, &id).await;
        assert_eq!((stored.state, stored.leased_until), (state, None));
        assert_eq!(
            (stored.finished_at, stored.error.as_deref()),
            (Some(DAY_START + 9), Some("why"))
        );
        assert_eq!(
            store.claim(DAY_START + 100 * TTL, TTL).await.unwrap(),
            None,
            "{state:?} is final"
        );
        assert_eq!(
            store.update(&claimed).await.unwrap(),
            Flip::Lost,
            "a late word of progress"
        );
        let asked = store
            .request_cancel(&tenant("acme"), &id, DAY_START + 10)
            .await
            .unwrap();
        assert_eq!(
            (asked.state, asked.cancel_requested),
            (state, false),
            "too late to cancel"
        );
    }
}

async fn a_queued_job_is_cancelled_at_once_and_a_running_one_is_asked_to_stop(store: Arc<dyn Jobs>) {
    store.create(&job("01", "acme")).await.unwrap();
    let running = store.claim(DAY_START, TTL).await.unwrap().unwrap();
    store.create(&job("02", "acme")).await.unwrap();

    let queued = store
        .request_cancel(&tenant("acme"), "02", DAY_START + 5)
        .await
        .unwrap();
    assert_eq!(
        (queued.state, queued.finished_at),
        (JobState::Cancelled, Some(DAY_START + 5))
    );
    assert_eq!(get(&*store, "02").await, queued);
    assert_eq!(store.claim(DAY_START, TTL).await.unwrap(), None);

    let asked = store
        .request_cancel(&tenant("acme"), "01", DAY_START + 5)
        .await
        .unwrap();
    assert_eq!(
        asked,
        Job {
            cancel_requested: true,
            ..running
        }
    );
    assert_eq!(get(&*store, "01").await, asked);
    assert_kind(
        store.request_cancel(&tenant("acme"), "03", DAY_START).await,
        ErrorKind::NotFound,
    );
}

async fn a_job_that_forgets_somebody_does_not_name_them_once_it_has_ended(store: Arc<dyn Jobs>) {
    let named = json!({ "venues": ["shop"], "track": "t9", "device": "aa:bb", "sensor": "s1", "sealed": "00", "to_time": "x" });
    let left = json!({ "venues": ["shop"], "to_time": "x" });
    let of_kind = |id: &str, kind: &str| Job {
        kind: kind.to_owned(),
        spec: named.clone(),
        ..job(id, "acme")
    };
    let spec_of = async |id: &str| store.get(&tenant("acme"), id).await.unwrap().unwrap().spec;
    // Taken back before anybody began.
    store.create(&of_kind("01", "erase")).await.unwrap();
    assert_eq!(spec_of("01").await, named, "it is to know whom");
    let cancelled = store
        .request_cancel(&tenant("acme"), "01", DAY_START)
        .await
        .unwrap();
    assert_eq!(
        (cancelled.state, cancelled.spec),
        (JobState::Cancelled, left.clone())
    );
    assert_eq!(spec_of("01").await, left);
    // Ended by a worker that could not even seal them. Another kind keeps its parameters.
    for (id, kind, stays) in [("02", "erase", &left), ("03", "revert", &named)] {
        store.create(&of_kind(id, kind)).await.unwrap();
        let claimed = store.claim_one(&tenant("acme"), id, DAY_START, TTL).await;
        let running = claimed.unwrap().unwrap();
        assert_eq!(store.update(&running).await.unwrap(), Flip::Done);
        assert_eq!(spec_of(id).await, named, "{kind} goes on");
        let failed = Job {
            state: JobState::Failed,
            ..running
        };
        assert_eq!(store.update(&failed).await.unwrap(), Flip::Done);
        assert_eq!(spec_of(id).await, *stays, "{kind}");
    }
}

async fn no_tenant_sees_or_stops_anothers_jobs(store: Arc<dyn Jobs>) {
    store.create(&job("01", "acme")).await.unwrap();
    assert_eq!(store.get(&tenant("other"), "01").await.unwrap(), None);
    assert_eq!(store.list(Some(&tenant("other")), None, 10).await.unwrap(), []);
    assert_kind(
        store.request_cancel(&tenant("other"), "01", DAY_START).await,
        ErrorKind::NotFound,
    );
    let claimed = store.claim(DAY_START, TTL).await.unwrap().unwrap();
    let stolen = Job {
        tenant: tenant("other"),
        state: JobState::Failed,
        ..claimed.clone()
    };
    assert_kind(store.update(&stolen).await, ErrorKind::NotFound);
    assert_eq!(get(&*store, "01").await, claimed);
}

async fn unfinished_jobs_are_listed_oldest_first_whosever_they_are(store: Arc<dyn Jobs>) {
    for n in [3, 1, 5, 2, 4] {
        let owner = if n == 4 { "other" } else { "acme" };
        store.create(&job(&format!("0{n}"), owner)).await.unwrap();
    }
    let ids = async |limit| -> Vec<String> {
        let jobs = store.unfinished(DAY_START, limit).await.unwrap();
        jobs.into_iter().map(|job| job.id).collect()
    };
    assert_eq!(ids(100).await, ["01", "02", "03", "04", "05"]);
    assert_eq!(ids(2).await, ["01", "02"]);
    // A running one has not ended, whatever its lease; a cancelled one and a done one have.
    let running = store
        .claim_one(&tenant("acme"), "02", DAY_START, TTL)
        .await
        .unwrap();
    assert!(running.is_some());
    store
        .request_cancel(&tenant("acme"), "03", DAY_START)
        .await
        .unwrap();
    let done = store
        .claim_one(&tenant("other"), "04", DAY_START, TTL)
        .await
        .unwrap();
    let done = Job {
        state: JobState::Succeeded,
        ..done.unwrap()
    };
    assert_eq!(store.update(&done).await.unwrap(), Flip::Done);
    assert_eq!(ids(100).await, ["01", "02", "05"]);
}

async fn one_job_is_claimed_once_by_its_tenant_and_id(store: Arc<dyn Jobs>) {
    for id in ["01", "02"] {
        store.create(&job(id, "acme")).await.unwrap();
    }
    let claim =
        async |owner: &str, id: &str, now| store.claim_one(&tenant(owner), id, now, TTL).await.unwrap();
    assert_eq!(claim("other", "02", DAY_START).await, None, "another tenant's");
    assert_eq!(claim("acme", "03", DAY_START).await, None, "there is none");
    let claimed = claim("acme", "02", DAY_START)
        .await
        .expect("not the oldest, but asked for");
    let expected = Job {
        state: JobState::Running,
        started_at: Some(DAY_START),
        attempts: 1,
        fence: claimed.fence,
        leased_until: Some(DAY_START + TTL),
        ..job("02", "acme")
    };
    assert_eq!(claimed, expected);
    assert_eq!(claim("acme", "02", DAY_START + TTL - 1).await, None, "it runs");
    let again = claim("acme", "02", DAY_START + TTL)
        .await
        .expect("its lease has run out");
    assert!(again.fence > claimed.fence);
    let ended = Job {
        state: JobState::Failed,
        ..again
    };
    assert_eq!(store.update(&ended).await.unwrap(), Flip::Done);
    assert_eq!(
        claim("acme", "02", DAY_START + 9 * TTL).await,
        None,
        "it has ended"
    );
}
