//! Decorators keep the contracts of what they are put around; faults strike as planned.

use std::sync::Arc;

use dwell_model::time::VenueCalendar;
use dwell_storage::api::recuts::{self, Wish};
use dwell_storage::api::{
    Documents, EventLog, EventLogReader, EventLogWriter, RawEvents, RawEventsWriter, RawWrite, VenueDays,
    VenueDaysReader, VenueDaysWriter,
};
use dwell_storage::conformance::event_log::LogUnderTest;
use dwell_storage::conformance::samples::{DAY_START, position, record, shop};
use dwell_storage::conformance::{event_log, raw_events, venue_days};
use dwell_storage::decorators::failing::{Failing, Fault, Faults, Strike};
use dwell_storage::decorators::instrumented::{InstrumentedEventLog, InstrumentedRawEvents};
use dwell_storage::decorators::recutting::RecuttingVenueDays;
use dwell_storage::error::ErrorKind;

use super::Directories;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decorated_event_log_conforms() {
    let directories = Directories::new();
    event_log::suite(async || {
        let (stores, clock) = directories.fresh_stores().await;
        let failing: Arc<dyn EventLog> =
            Arc::new(Failing::new(stores.log as Arc<dyn EventLog>, &Faults::none()));
        LogUnderTest {
            log: Arc::new(InstrumentedEventLog::new(failing)),
            clock: Some(clock),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decorated_raw_table_conforms() {
    let directories = Directories::new();
    raw_events::suite(async || {
        let (stores, _) = directories.fresh_stores().await;
        let failing: Arc<dyn RawEvents> =
            Arc::new(Failing::new(stores.raw as Arc<dyn RawEvents>, &Faults::none()));
        let instrumented: Arc<dyn RawEvents> = Arc::new(InstrumentedRawEvents::new(failing));
        instrumented
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn days_that_nobody_cuts_anew_conform() {
    let directories = Directories::new();
    venue_days::suite(async || {
        let (stores, _) = directories.fresh_stores().await;
        let days: Arc<dyn VenueDays> = Arc::new(RecuttingVenueDays::new(stores.venue_days, stores.documents));
        days
    })
    .await;
}

#[tokio::test]
async fn whose_days_are_being_cut_anew_gives_no_lease_to_others() {
    let directories = Directories::new();
    let stores = directories.fresh_stores().await.0;
    let documents: Arc<dyn Documents> = stores.documents;
    let days = RecuttingVenueDays::new(stores.venue_days, Arc::clone(&documents));
    let documents = &*documents;
    let (of, other) = ("2026-03-29".parse().unwrap(), "2026-03-30".parse().unwrap());
    let cut = |tz: &str| VenueCalendar::from_names(tz, 0).unwrap();
    let wish = Wish {
        job: "1".to_owned(),
        from: cut("Europe/Madrid"),
        to: cut("Europe/Lisbon"),
        by: "operator".to_owned(),
        at: 0,
    };
    recuts::ask(documents, &shop(), &wish).await.unwrap();
    let before = days.acquire(&shop(), of, "night", 0, 100).await.unwrap().unwrap();
    recuts::begin_staging(documents, &shop(), 1, "cutter", 10, 110)
        .await
        .unwrap();
    assert_eq!(
        days.acquire(&shop(), other, "night", 50, 100).await.unwrap(),
        None
    );
    assert_eq!(
        days.get(&shop(), other).await.unwrap(),
        None,
        "no fence was given out"
    );
    let held = days.acquire(&shop(), of, "cutter/1", 50, 100).await.unwrap();
    assert_eq!(held, None, "who was there before is waited for");
    days.release(&before).await.unwrap();
    assert!(
        days.acquire(&shop(), of, "cutter/1", 50, 10)
            .await
            .unwrap()
            .is_some()
    );
    // Another venue's days go on, and so do these when nobody renews it.
    let neighbour = dwell_storage::conformance::samples::strangers().remove(0);
    assert!(
        days.acquire(&neighbour, of, "night", 50, 100)
            .await
            .unwrap()
            .is_some()
    );
    assert!(
        days.acquire(&shop(), of, "night", 110, 100)
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn faults_strike_the_planned_calls_before_or_after_the_deed() {
    let directories = Directories::new();
    let (stores, _) = directories.fresh_stores().await;
    let faults = Faults::none();
    let log = Failing::new(stores.log as Arc<dyn EventLog>, &faults);
    let append = async || {
        let one = record(&shop(), 1, position("s", "t", DAY_START, 1.0, 1.0));
        log.append(vec![one])
            .await
            .map(|answers| answers[0].position)
            .map_err(|error| error.kind())
    };
    faults.plan(Fault {
        method: "event_log.append",
        kind: ErrorKind::Full,
        strike: Strike::Before,
        skip: 1,
        times: 2,
    });
    assert_eq!(append().await, Ok(0));
    assert_eq!(append().await, Err(ErrorKind::Full));
    assert_eq!(append().await, Err(ErrorKind::Full));
    assert_eq!(
        append().await,
        Ok(1),
        "nothing was appended by the two calls that failed"
    );

    faults.lose_answers("event_log.append", 1);
    faults.fail("event_log.bounds", ErrorKind::Busy, 1);
    assert_eq!(append().await, Err(ErrorKind::Unavailable));
    assert_eq!(append().await, Ok(3), "the call whose answer was lost was done");
    assert_eq!(log.bounds(0).await.unwrap_err().kind(), ErrorKind::Busy);
    assert_eq!(log.bounds(0).await.unwrap().end, 4);

    faults.fail("event_log.append", ErrorKind::Busy, 100);
    faults.clear();
    assert_eq!(append().await, Ok(4));
}

#[tokio::test]
async fn calls_failures_and_commits_are_measured() {
    // The recorder is the process's: other tests are measured too, so what is there counts, not how often.
    let metrics = dwell_runtime::telemetry::install_metrics().unwrap();
    let directories = Directories::new();
    let (stores, _) = directories.fresh_stores().await;
    let faults = Faults::none();
    faults.fail("event_log.bounds", ErrorKind::Bug, 1);
    let failing: Arc<dyn EventLog> = Arc::new(Failing::new(stores.log as Arc<dyn EventLog>, &faults));
    let log = InstrumentedEventLog::new(failing);
    log.append(vec![record(&shop(), 1, position("s", "t", DAY_START, 1.0, 1.0))])
        .await
        .unwrap();
    log.bounds(0).await.unwrap_err();
    InstrumentedRawEvents::new(stores.raw)
        .apply(RawWrite::default())
        .await
        .unwrap();
    let text = metrics.render();
    for (name, labels) in [
        (
            "dwell_storage_call_seconds_count",
            vec![r#"store="event_log""#, r#"method="append""#],
        ),
        (
            "dwell_storage_call_seconds_count",
            vec![r#"store="event_log""#, r#"method="bounds""#],
        ),
        (
            "dwell_storage_call_seconds_count",
            vec![r#"store="raw_events""#, r#"method="apply""#],
        ),
        (
            "dwell_storage_call_failures_total",
            vec![r#"store="event_log""#, r#"method="bounds""#, r#"kind="bug""#],
        ),
        ("dwell_storage_log_commit_seconds_count", vec![]),
        ("dwell_storage_log_commit_calls_count", vec![]),
        ("dwell_storage_log_appended_bytes_total", vec![]),
    ] {
        let found = text
            .lines()
            .any(|line| line.starts_with(name) && labels.iter().all(|label| line.contains(label)));
        assert!(found, "{name} with {labels:?} is not among\n{text}");
    }
}
