//! The archive road: the same winners as through the log, whatever happens on the way.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dwell_model::event::{Delivery, Kind, RawRows, resolve};
use dwell_model::ids::{VenueId, VenueKey};
use dwell_model::time::{DAY_MS, HOUR_MS, MINUTE_MS, TsMs};
use dwell_runtime::clock::{Clock, SystemClock};
use dwell_runtime::failpoints::{self, FailpointGuard, Injected};
use dwell_storage::api::{Archive, LEASE_AHEAD_MS_MAX, MarkSource, Marks, Projection};
use dwell_storage::archive::DeltaArchive;

use super::harness::{NOW, Row, Shop, gzip, texts};
use crate::sources::files::FileState;

/// Noon of a day two weeks before now.
const NOON: TsMs = NOW - 14 * DAY_MS;
const VENUES: [&str; 2] = ["zurich", "kolkata"];

async fn shop() -> Shop {
    Shop::with_archive(|paths| Arc::new(DeltaArchive::local(&paths.archive, SystemClock::shared()).unwrap()))
        .await
}

/// Winners with their first deliveries, and superseded deliveries, of everything.
type Resolved = (Vec<(Row, Delivery)>, Vec<(Row, Delivery)>);

impl Shop {
    fn venue(&self, id: &str) -> VenueKey {
        VenueKey::new(self.options.tenant.clone(), VenueId::new(id).unwrap())
    }

    /// What counts of all that is in the log, by the model's own rule.
    async fn log_resolved(&self) -> Resolved {
        let mut rows: BTreeMap<(String, Kind), RawRows> = BTreeMap::new();
        let mut next = 0;
        loop {
            let chunk = self.deps.stores.log.read(0, next, 1 << 20).await.unwrap();
            if chunk.records.is_empty() {
                break;
            }
            next = chunk.next;
            for record in chunk.records {
                let delivery = Delivery {
                    received_at: record.received_at,
                    receipt: record.receipt,
                };
                let key = (record.venue.venue.as_str().to_owned(), record.events.kind);
                let delivered = RawRows::delivered_once(record.events, delivery);
                match rows.get_mut(&key) {
                    Some(rows) => rows.append(&delivered),
                    None => drop(rows.insert(key, delivered)),
                }
            }
        }
        let (mut winners, mut superseded) = Resolved::default();
        for ((venue, _), rows) in &rows {
            let resolution = resolve(rows, |_, _| false);
            let events: Vec<Row> = texts(venue, &rows.events).collect();
            winners.extend(
                resolution
                    .winners
                    .iter()
                    .zip(&resolution.first)
                    .map(|(&i, &d)| (events[i as usize].clone(), d)),
            );
            superseded.extend(
                resolution
                    .superseded
                    .iter()
                    .map(|&(i, d)| (events[i as usize].clone(), d)),
            );
        }
        winners.sort();
        superseded.sort();
        superseded.dedup();
        (winners, superseded)
    }

    /// What the archive holds.
    async fn archive_resolved(&self) -> Resolved {
        let archive: &dyn Archive = &*self.deps.stores.archive;
        let (mut winners, mut superseded) = Resolved::default();
        for id in VENUES {
            let venue = self.venue(id);
            for (day, kind) in archive.days(&venue).await.unwrap() {
                let held = archive.day(&venue, kind, day).await.unwrap();
                archive.verify(&venue, &held).await.unwrap();
                let mut reader = archive
                    .open(&venue, &held, Projection::EventsAndDeliveries)
                    .await
                    .unwrap();
                while let Some(chunk) = reader.next_chunk().unwrap() {
                    winners.extend(texts(id, chunk.events).zip(chunk.first.iter().copied()));
                }
                let rows = archive.superseded(&venue, kind, &held).await.unwrap();
                for (i, row) in texts(id, &rows.events).enumerate() {
                    superseded.extend(rows.deliveries(i).iter().map(|&delivery| (row.clone(), delivery)));
                }
            }
        }
        winners.sort();
        superseded.sort();
        superseded.dedup();
        (winners, superseded)
    }

    async fn marks(&self, venue: &str) -> Marks {
        self.deps
            .stores
            .raw
            .marks(&self.venue(venue), NOON - 2 * DAY_MS..NOON + 6 * DAY_MS)
            .await
            .unwrap()
    }

    /// Nothing is left where rows are spilled, no lease is held.
    async fn is_tidy(&self) -> bool {
        let spilled = std::fs::read_dir(&self.options.spill_dir).unwrap().count();
        let (from, to) = ("2026-02-01".parse().unwrap(), "2026-03-31".parse().unwrap());
        let mut leases = 0;
        for id in VENUES {
            let days = self
                .deps
                .stores
                .venue_days
                .list(&self.venue(id), from, to)
                .await
                .unwrap();
            leases += days
                .iter()
                .filter(|day| day.lease.as_ref().is_some_and(|(_, until)| *until > NOW))
                .count();
        }
        spilled == 0 && leases == 0
    }
}

/// Six files of two venues over four days: redeliveries, corrections, stale retries, revisions, other kinds.
fn files(shop: &Shop) -> Vec<PathBuf> {
    let position = |n: i64, x: f64, revision: &str| {
        let (venue, ts) = (VENUES[(n % 2) as usize], NOON + n * 3 * MINUTE_MS + n % 7);
        format!(
            r#"{{"venue":"{venue}","sensor":"s{}","track":"t{}","ts":{ts},"x":{x},"y":{n}{revision}}}"#,
            n % 3,
            n % 11
        ) + "\n"
    };
    let lines = |range: std::ops::Range<i64>, x: f64, revision: &str| -> String {
        range.map(|n| position(n, x, revision)).collect()
    };
    let others: String = (0..600)
        .map(|n| {
            let (venue, ts) = (VENUES[(n % 2) as usize], NOON + n * 8 * MINUTE_MS);
            match n % 3 {
                0 => format!(
                    r#"{{"venue":"{venue}","kind":"crossing","sensor":"d","ts":{ts},"line":"door","direction":"in","count":{}}}"#,
                    n + 1
                ),
                1 => format!(
                    r#"{{"venue":"{venue}","kind":"reading","sensor":"r","ts":{ts},"metric":"co2","value":{n}.5,"unit":"ppm"}}"#
                ),
                _ => format!(
                    r#"{{"venue":"{venue}","kind":"presence","sensor":"w","ts":{ts},"device":"d-{}","rssi":-60}}"#,
                    n % 5
                ),
            }
        })
        .map(|line| line + "\n")
        .collect();
    vec![
        shop.file(
            "1-base.ndjson",
            lines(0..1_900, 1.0, "") + &lines(100..200, 1.0, ""),
        ),
        shop.file("2-again.ndjson.gz", gzip(lines(500..1_000, 1.0, "").as_bytes())),
        shop.file("3-corrected.ndjson", lines(700..1_200, 2.0, "")),
        shop.file("4-corrected-too.ndjson", lines(900..1_300, 3.0, "")),
        shop.file("5-revised.ndjson", lines(1_000..1_050, 0.5, r#","revision":1"#)),
        shop.file("6-others.ndjson", others.repeat(2)),
    ]
}

fn refs<'p>(paths: &'p [PathBuf], order: &[usize]) -> Vec<&'p Path> {
    order.iter().map(|&i| paths[i].as_path()).collect()
}

const ALL: [usize; 6] = [0, 1, 2, 3, 4, 5];

/// Pseudonyms differ between two installations: each has its own keys.
fn without_presence((winners, superseded): Resolved) -> Resolved {
    let keep = |rows: Vec<(Row, Delivery)>| {
        rows.into_iter()
            .filter(|(row, _)| !row.contains(" presence "))
            .collect()
    };
    (keep(winners), keep(superseded))
}

#[tokio::test]
async fn both_roads_and_any_order_of_files_end_with_the_same_winners() {
    let by_log = shop().await;
    let paths = files(&by_log);
    by_log.import(&refs(&paths, &ALL)).await;
    let expected = by_log.log_resolved().await;
    // Hand-computed for one identity of each case: base, both corrections in one import (the larger bytes win, 3.0
    // over 2.0 over 1.0), and a revision.
    let x_of = |n: i64| {
        let ts = NOON + n * 3 * MINUTE_MS + n % 7;
        let row = expected
            .0
            .iter()
            .find(|(row, _)| row.contains(&format!(" position {ts} ")))
            .unwrap();
        row.0.rsplit(' ').nth(2).unwrap().to_owned()
    };
    assert_eq!([50, 600, 800, 950, 1_020].map(x_of), ["1", "1", "2", "3", "0.5"]);
    assert_eq!(
        expected.0.len(),
        1_900 + 600 + 200,
        "weak crossings of a repeated file part are events of their own"
    );

    for order in [ALL, [5, 4, 3, 2, 1, 0], [2, 0, 4, 1, 5, 3]] {
        let mut by_archive = shop().await;
        let paths = files(&by_archive);
        let report = by_archive.import_to_archive(&refs(&paths, &order)).await;
        assert_eq!((report.logged, report.refused), (0, 0), "{report:?}");
        assert!(
            report.days_changed >= 8 && report.days_unchanged == 0,
            "{report:?}"
        );
        let got = by_archive.archive_resolved().await;
        assert_eq!(got.0.len(), expected.0.len());
        assert!(
            without_presence(got) == without_presence(expected.clone()),
            "order {order:?}"
        );
        assert!(by_archive.is_tidy().await);
    }
}

#[tokio::test]
async fn corrections_in_later_imports_win_and_stale_retries_do_not() {
    let (mut by_archive, by_log) = (shop().await, shop().await);
    let line = |x: f64, note: &str| {
        format!(r#"{{"venue":"zurich","sensor":"s","track":"t","ts":{NOON},"x":{x},"y":0}}"#) + note + "\n"
    };
    // The retry holds the first payload again, in a file of its own.
    for (n, (x, note)) in [(9.0, ""), (1.0, ""), (9.0, " ")].into_iter().enumerate() {
        by_archive.clock.set_ms(NOW + n as i64 * HOUR_MS);
        by_log.clock.set_ms(NOW + n as i64 * HOUR_MS);
        let name = format!("{n}.ndjson");
        let path = by_archive.file(&name, line(x, note));
        by_archive.import_to_archive(&[&path]).await;
        let path = by_log.file(&name, line(x, note));
        by_log.import(&[&path]).await;
    }
    let (winners, superseded) = by_archive.archive_resolved().await;
    assert_eq!(
        winners[0].0,
        format!("zurich position {NOON} s t 0 1 0 -"),
        "the correction covers what came before it"
    );
    assert_eq!(
        (winners.len(), winners[0].1.received_at, superseded.len()),
        (1, NOW + HOUR_MS, 2)
    );
    assert_eq!((winners, superseded), by_log.log_resolved().await);
}

#[tokio::test]
async fn the_same_files_again_change_nothing() {
    let mut shop = shop().await;
    let paths = files(&shop);
    shop.import_to_archive(&refs(&paths, &ALL)).await;
    let (before, marks) = (shop.archive_resolved().await, shop.marks("zurich").await);
    shop.clock.set_ms(NOW + HOUR_MS);
    let report = shop.import_to_archive(&refs(&paths, &[3, 0, 5])).await;
    assert!(
        report
            .files
            .iter()
            .all(|file| file.state == FileState::AlreadyImported),
        "{report:?}"
    );
    assert_eq!((report.days_changed, report.days_unchanged), (0, 0));
    assert!(shop.archive_resolved().await == before);
    assert_eq!(shop.marks("zurich").await, marks);
}

#[tokio::test]
async fn spilling_changes_nothing() {
    let mut in_memory = shop().await;
    let paths = files(&in_memory);
    in_memory.import_to_archive(&refs(&paths, &ALL)).await;
    let mut spilling = shop().await;
    spilling.options.sort_memory_bytes = 1_000;
    let paths = files(&spilling);
    spilling.import_to_archive(&refs(&paths, &ALL)).await;
    let (expected, got) = (
        in_memory.archive_resolved().await,
        spilling.archive_resolved().await,
    );
    assert!(without_presence(got) == without_presence(expected));
    assert!(spilling.is_tidy().await);
}

#[tokio::test]
async fn rows_of_days_that_have_not_ended_go_through_the_log() {
    let mut shop = shop().await;
    // 12:00Z is 13:00 in Zurich and 17:30 in Kolkata, whose day began at 18:30Z the evening before.
    let line = |venue: &str, ts: TsMs| {
        format!(r#"{{"venue":"{venue}","sensor":"s","track":"t","ts":{ts},"x":0,"y":0}}"#) + "\n"
    };
    let evening = NOW - 17 * HOUR_MS;
    let text = line("zurich", evening)
        + &line("kolkata", evening)
        + &line("zurich", NOW)
        + &line("zurich", NOW + 60_000)
        + &line("zurich", NOW + DAY_MS)
        + &line("kolkata", NOON);
    let report = shop.import_to_archive(&[&shop.file("a.ndjson", &text)]).await;
    assert_eq!(
        (report.accepted, report.refused, report.logged),
        (5, 1, 3),
        "{report:?}"
    );
    let row = |venue: &str, ts: TsMs| format!("{venue} position {ts} s t 0 0 0 -");
    assert_eq!(
        shop.logged_rows().await,
        [
            row("kolkata", evening),
            row("zurich", NOW),
            row("zurich", NOW + 60_000)
        ]
    );
    let archived: Vec<Row> = shop
        .archive_resolved()
        .await
        .0
        .into_iter()
        .map(|(row, _)| row)
        .collect();
    assert_eq!(archived, [row("kolkata", NOON), row("zurich", evening)]);
    assert_eq!(
        shop.quarantined().await,
        [("a.ndjson".to_owned(), 5, "ts_in_future".to_owned())]
    );
}

/// Makes an import that runs on this thread fail at a point, at its `n`th passing.
fn fail_here(point: &'static str, n: u32) -> FailpointGuard {
    let (passes, thread) = (AtomicU32::new(0), std::thread::current().id());
    failpoints::set_fn(point, move || {
        // Points are global: imports of other tests pass them on their own threads.
        if std::thread::current().id() == thread && passes.fetch_add(1, Ordering::Relaxed) + 1 == n {
            return Err(Injected::new(point, "died"));
        }
        Ok(())
    })
}

#[tokio::test]
async fn an_import_that_dies_at_any_point_is_repeated_to_the_same_end() {
    let mut undisturbed = shop().await;
    let paths = files(&undisturbed);
    undisturbed.import_to_archive(&refs(&paths, &ALL)).await;
    let expected = without_presence(undisturbed.archive_resolved().await);
    for point in [
        "import.after_rewrite",
        "import.after_commit",
        "import.before_finish",
    ] {
        let mut shop = shop().await;
        let paths = files(&shop);
        shop.options.road = crate::sources::files::Road::Archive;
        {
            let _guard = fail_here(point, 1);
            let error = shop.try_import(&refs(&paths, &ALL)).await.unwrap_err();
            assert!(error.to_string().contains("died"), "{error}");
        }
        assert!(shop.is_tidy().await, "{point}");
        let committed = point != "import.after_rewrite";
        assert_eq!(shop.archive_resolved().await.0.is_empty(), !committed, "{point}");
        let marks_before = shop.marks("zurich").await;
        assert_eq!(marks_before.0.len(), 1, "marked before the commit");

        shop.clock.set_ms(NOW + HOUR_MS);
        // Another order, and other company: the claims know the time of the first try.
        let report = shop.import(&refs(&paths, &[5, 3, 1, 0, 2, 4])).await;
        assert!(
            report.files.iter().all(|file| file.state == FileState::Imported),
            "{report:?}"
        );
        assert_eq!(
            (report.days_changed == 0, report.days_unchanged > 0),
            (committed, committed),
            "{point} {report:?}"
        );
        assert!(
            without_presence(shop.archive_resolved().await) == expected,
            "{point}"
        );
        assert!(
            shop.marks("zurich").await.exceed(&marks_before),
            "who read the day meanwhile finds it dirty"
        );
        assert!(shop.is_tidy().await);
    }
}

#[tokio::test]
async fn a_day_is_marked_before_and_after_its_commit() {
    let mut shop = shop().await;
    let paths = files(&shop);
    shop.options.road = crate::sources::files::Road::Archive;
    let (venue, raw) = (shop.venue("zurich"), Arc::clone(&shop.deps.stores.raw));
    // A run that reads the marks while the files are staged publishes them; afterwards the day must be dirty.
    let seen = Arc::new(std::sync::Mutex::new(None));
    let (sink, thread) = (Arc::clone(&seen), std::thread::current().id());
    let guard = failpoints::set_fn("import.after_rewrite", move || {
        if std::thread::current().id() == thread {
            let (venue, raw) = (venue.clone(), Arc::clone(&raw));
            *sink.lock().unwrap() = Some(elsewhere(async move {
                raw.marks(&venue, NOON..NOON + 1).await.unwrap()
            }));
        }
        Ok(())
    });
    shop.import(&refs(&paths, &ALL)).await;
    drop(guard);
    let between: Marks = seen.lock().unwrap().take().unwrap();
    assert_eq!(between.0.len(), 1);
    let (source, position) = between.0.first_key_value().unwrap();
    assert!(
        source.as_str().starts_with("job:import-") && *position >= NOW,
        "{source:?} {position}"
    );
    assert_ne!(*source, MarkSource::job(""));
    let after = shop
        .deps
        .stores
        .raw
        .marks(&shop.venue("zurich"), NOON..NOON + 1)
        .await
        .unwrap();
    assert!(after.exceed(&between));
}

/// Runs a future on a runtime and a thread of its own, and waits for it: a failpoint cannot wait on the test's.
fn elsewhere<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let run = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(work)
    };
    dwell_runtime::tasks::thread("elsewhere", run)
        .unwrap()
        .join()
        .unwrap()
}

#[tokio::test]
async fn a_day_that_is_worked_on_is_waited_for_and_then_given_up() {
    let mut shop = shop().await;
    let paths = files(&shop);
    shop.options.road = crate::sources::files::Road::Archive;
    let (venue, day) = (shop.venue("zurich"), "2026-02-25".parse().unwrap());
    let days = Arc::clone(&shop.deps.stores.venue_days);
    let lease = days
        .acquire(&venue, day, "nightly run", NOW, LEASE_AHEAD_MS_MAX)
        .await
        .unwrap()
        .unwrap();

    let clock = shop.clock.clone();
    let time_passes = async {
        loop {
            SystemClock::new().sleep(Duration::from_millis(1)).await;
            clock.advance(Duration::from_millis(500));
        }
    };
    let base = [paths[0].as_path()];
    let importing = std::pin::pin!(shop.try_import(&base));
    let outcome = match futures::future::select(importing, std::pin::pin!(time_passes)).await {
        futures::future::Either::Left((outcome, _)) => outcome,
        futures::future::Either::Right(_) => unreachable!("time never ends"),
    };
    let error = outcome.unwrap_err().to_string();
    assert!(
        error.contains("2026-02-25") && error.contains("nightly run"),
        "{error}"
    );

    days.release(&lease).await.unwrap();
    let report = shop.import(&[&paths[0]]).await;
    assert_eq!(
        (report.files[0].state, report.accepted),
        (FileState::Imported, 2_000)
    );
    assert_eq!(shop.archive_resolved().await.0.len(), 1_900);
}

#[tokio::test]
async fn a_day_whose_lease_was_lost_is_brought_by_another_pass() {
    let mut undisturbed = shop().await;
    let paths = files(&undisturbed);
    undisturbed.import_to_archive(&refs(&paths, &ALL)).await;
    let expected = without_presence(undisturbed.archive_resolved().await);

    let mut shop = shop().await;
    let paths = files(&shop);
    shop.options.road = crate::sources::files::Road::Archive;
    let (venue, days) = (shop.venue("kolkata"), Arc::clone(&shop.deps.stores.venue_days));
    let (passes, thread) = (AtomicU32::new(0), std::thread::current().id());
    let guard = failpoints::set_fn("import.after_rewrite", move || {
        if std::thread::current().id() == thread && passes.fetch_add(1, Ordering::Relaxed) == 0 {
            let (venue, days) = (venue.clone(), Arc::clone(&days));
            // As after a pause longer than the lease: somebody else has had the day since.
            elsewhere(async move {
                let day = "2026-02-26".parse().unwrap();
                let lease = days
                    .acquire(&venue, day, "other", NOW + DAY_MS, 1)
                    .await
                    .unwrap()
                    .unwrap();
                days.release(&lease).await.unwrap();
            });
        }
        Ok(())
    });
    let report = shop.import(&refs(&paths, &ALL)).await;
    drop(guard);
    assert!(report.is_complete() && report.days_changed >= 8, "{report:?}");
    assert_eq!(
        report.accepted,
        2_000 + 500 + 500 + 400 + 50 + 1_200,
        "counted once"
    );
    assert!(without_presence(shop.archive_resolved().await) == expected);
    assert!(shop.is_tidy().await);
}
