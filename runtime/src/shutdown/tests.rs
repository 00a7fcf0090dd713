use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{FutureExt, poll};

use super::*;
use crate::clock::{Clock, ManualClock};

const MINUTE: Duration = Duration::from_secs(60);

/// Lets everything that can run on this thread's runtime run.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn phases_begin_in_order_and_each_waits_for_the_one_before() {
    let clock = ManualClock::at_ms(0);
    let controller = ShutdownController::default();
    let order = Arc::new(Mutex::new(Vec::new()));
    // Registered backwards, so that the order of registration cannot be what decides.
    let parties: Vec<_> = Phase::ALL
        .into_iter()
        .rev()
        .map(|phase| {
            let (token, order) = (controller.register(phase, phase.name()), Arc::clone(&order));
            async move {
                token.requested().await;
                tokio::task::yield_now().await;
                order.lock().unwrap().push(token.phase());
            }
        })
        .collect();

    let (report, _) = tokio::join!(
        controller.run_to_completion(MINUTE, &clock),
        futures::future::join_all(parties)
    );

    assert!(report.is_clean(), "{report}");
    assert_eq!(
        order
            .lock()
            .unwrap()
            .iter()
            .map(|phase| phase.name())
            .collect::<Vec<_>>(),
        [
            "not_ready",
            "stop_accepting",
            "drain_ingest",
            "checkpoint_sessions",
            "stop_jobs",
            "finish_requests",
            "close_stores",
            "admin",
        ]
    );
}

#[tokio::test]
async fn a_phase_does_not_begin_while_one_before_it_is_pending() {
    let clock = ManualClock::at_ms(0);
    let controller = ShutdownController::default();
    let draining = controller.register(Phase::DrainIngest, "raw writer");
    let stores = controller.register(Phase::CloseStores, "data.db");
    let mut run = std::pin::pin!(controller.run_to_completion(MINUTE, &clock));

    assert!(poll!(&mut run).is_pending());
    assert!(draining.is_requested());
    assert!(!stores.is_requested());
    drop(draining);
    assert!(poll!(&mut run).is_pending());
    assert!(stores.is_requested());
    drop(stores);
    assert!(run.now_or_never().expect("nobody is pending").is_clean());
}

#[tokio::test]
async fn who_outlives_the_phase_bound_is_named_and_the_walk_goes_on() {
    let clock = ManualClock::at_ms(0);
    let bounds = PhaseBounds::all(Duration::from_secs(30)).with(Phase::StopJobs, Duration::from_secs(3));
    let controller = ShutdownController::new(bounds);
    let stuck = controller.register(Phase::StopJobs, "recompute of shop-7");
    let slow = controller.register(Phase::StopJobs, "archive of shop-8");
    let punctual = controller.register(Phase::StopJobs, "scheduler");
    let stores = controller.register(Phase::CloseStores, "data.db");
    let mut run = std::pin::pin!(controller.run_to_completion(MINUTE, &clock));

    assert!(poll!(&mut run).is_pending());
    drop(punctual);
    clock.advance(Duration::from_millis(2_999));
    assert!(poll!(&mut run).is_pending());
    assert!(!stores.is_requested(), "the bound has not passed yet");
    clock.advance(Duration::from_millis(1));
    assert!(poll!(&mut run).is_pending());
    assert!(stores.is_requested(), "late parties do not hold up the rest");
    drop(slow);
    drop(stores);

    let report = run.now_or_never().expect("nobody is waited for any more");
    let late: Vec<_> = report
        .late
        .iter()
        .map(|party| (&*party.name, party.finished_later))
        .collect();
    assert_eq!(
        late,
        [("recompute of shop-7", false), ("archive of shop-8", true)]
    );
    assert_eq!(report.elapsed, Duration::from_secs(3));
    assert_eq!(
        report.to_string(),
        "shut down (requested) in 3.0 s, late: recompute of shop-7 in stop_jobs, archive of shop-8 in stop_jobs \
         (finished later)"
    );
    drop(stuck);
}

#[tokio::test]
async fn when_the_total_time_is_up_all_phases_begin_and_everyone_pending_is_named() {
    let clock = ManualClock::at_ms(0);
    let controller = ShutdownController::new(PhaseBounds::all(MINUTE));
    let tokens: Vec<_> = [
        (Phase::DrainIngest, "raw writer"),
        (Phase::CloseStores, "log.db"),
        (Phase::Admin, "admin port"),
    ]
    .into_iter()
    .map(|(phase, name)| controller.register(phase, name))
    .collect();
    let mut run = std::pin::pin!(controller.run_to_completion(Duration::from_secs(10), &clock));
    assert!(poll!(&mut run).is_pending());
    clock.advance(Duration::from_secs(10));
    let report = run.now_or_never().expect("the total time is up");

    assert!(tokens.iter().all(ShutdownToken::is_requested));
    let late: Vec<_> = report
        .late
        .iter()
        .map(|party| (party.phase, &*party.name))
        .collect();
    assert_eq!(
        late,
        [
            (Phase::DrainIngest, "raw writer"),
            (Phase::CloseStores, "log.db"),
            (Phase::Admin, "admin port")
        ]
    );
}

#[tokio::test]
async fn a_party_is_done_when_its_last_token_is_dropped_even_by_a_panic() {
    let clock = ManualClock::at_ms(0);
    let controller = ShutdownController::default();
    let token = controller.register(Phase::DrainIngest, "http source");
    let clone = token.clone();
    let mut run = std::pin::pin!(controller.run_to_completion(MINUTE, &clock));

    drop(token);
    assert!(poll!(&mut run).is_pending(), "a clone is left");
    let panicking = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _held = clone;
        panic!("on purpose");
    }));
    assert!(panicking.is_err());
    assert!(
        run.now_or_never()
            .expect("the last token went with the panic")
            .is_clean()
    );
}

#[tokio::test]
async fn a_signal_tells_of_the_phase_without_holding_it_up() {
    let clock = ManualClock::at_ms(0);
    let controller = ShutdownController::default();
    let signal = controller.signal(Phase::FinishRequests);
    assert!(!signal.is_requested());
    let report = controller
        .run_to_completion(MINUTE, &clock)
        .now_or_never()
        .expect("no party");
    assert!(report.is_clean());
    assert!(signal.is_requested());
    assert!(signal.requested_owned().now_or_never().is_some());
}

#[tokio::test]
async fn who_registers_during_the_shutdown_is_asked_at_once_and_waited_for() {
    let clock = ManualClock::at_ms(0);
    let controller = ShutdownController::default();
    let first = controller.register(Phase::FinishRequests, "request 1");
    let mut run = std::pin::pin!(controller.run_to_completion(MINUTE, &clock));
    assert!(poll!(&mut run).is_pending());
    let second = controller.register(Phase::FinishRequests, "request 2");
    assert!(second.is_requested());
    drop(first);
    assert!(poll!(&mut run).is_pending());
    drop(second);
    assert!(run.now_or_never().is_some());
}

#[tokio::test]
async fn the_first_cause_is_kept_and_everyone_waiting_is_told() {
    let controller = ShutdownController::default();
    let mut waiting = std::pin::pin!(controller.triggered());
    assert!(poll!(&mut waiting).is_pending());
    let failed = ShutdownCause::TaskFailed {
        task: "raw writer".into(),
        error: "disk full".into(),
    };
    assert!(controller.trigger_because(failed.clone()));
    controller.trigger();
    assert!(poll!(&mut waiting).is_ready());
    assert_eq!(controller.cause(), Some(failed));
}

#[tokio::test]
async fn who_is_pending_is_logged_every_five_seconds() {
    let clock = ManualClock::at_ms(0);
    let controller = ShutdownController::new(PhaseBounds::all(MINUTE));
    let slow = controller.register(Phase::DrainIngest, "raw writer");
    let log = crate::telemetry::testing::CapturedLog::default();
    let _capturing = log.start();
    let mut run = std::pin::pin!(controller.run_to_completion(MINUTE, &clock));
    let waiting_lines = || {
        log.lines()
            .into_iter()
            .filter(|line| line.contains("shutdown is waiting"))
            .count()
    };

    assert!(poll!(&mut run).is_pending());
    clock.advance(Duration::from_millis(4_999));
    assert!(poll!(&mut run).is_pending());
    assert_eq!(waiting_lines(), 0);
    clock.advance(Duration::from_millis(1));
    assert!(poll!(&mut run).is_pending());
    assert_eq!(waiting_lines(), 1);
    clock.advance(Duration::from_secs(5));
    assert!(poll!(&mut run).is_pending());
    assert_eq!(waiting_lines(), 2);
    let line = log
        .lines()
        .into_iter()
        .find(|line| line.contains("shutdown is waiting"))
        .unwrap();
    assert!(
        line.contains("raw writer") && line.contains("drain_ingest"),
        "{line}"
    );
    drop(slow);
    assert!(run.now_or_never().is_some());
}

#[tokio::test]
async fn a_token_that_is_waited_for_in_a_select_can_be_waited_for_again() {
    let controller = ShutdownController::default();
    let token = controller.register(Phase::NotReady, "readiness");
    for _ in 0..3 {
        assert!(token.requested().now_or_never().is_none());
    }
    let clock: Arc<dyn Clock> = ManualClock::at_ms(0).shared();
    let running = controller.clone();
    let run = async move { running.run_to_completion(MINUTE, &*clock).await };
    let waits = async {
        token.requested().await;
        settle().await;
        drop(token);
    };
    let (report, ()) = tokio::join!(run, waits);
    assert!(report.is_clean());
}
