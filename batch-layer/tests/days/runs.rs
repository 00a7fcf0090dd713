//! Whole runs: what they cover, wait for, refuse and report.

use dwell_batch_layer::spec::{RunSpec, Venues, What};
use dwell_batch_layer::{Config, Error};
use dwell_model::event::Kind;
use dwell_model::ids::{TenantId, VenueId, VenueKey};
use dwell_model::layout::Venue;
use dwell_runtime::limits::HumanDuration;
use dwell_storage::api::Flip;
use tokio_util::sync::CancellationToken;

use crate::common::events::visit;
use crate::common::{Shop, day};

#[tokio::test(flavor = "multi_thread")]
async fn archiving_alone_publishes_nothing() {
    let shop = Shop::open().await;
    shop.post(visit("a", shop.local("2026-03-09", 10.0), 60), 1).await;
    shop.post(visit("a", shop.local("2026-03-10", 10.0), 60), 2).await;
    let report = shop.run(&RunSpec::all_dirty(What::Archive)).await;
    assert_eq!(
        (report.archived, report.skipped, report.failed),
        (1, 1, 0),
        "{report:?}"
    );
    assert_eq!(shop.generation("2026-03-09").await, None);
    let held = shop
        .stores
        .archive
        .day(&shop.venue, Kind::Position, day("2026-03-09"))
        .await
        .unwrap();
    assert_eq!(held.events_checksum().rows, 61);
    assert!(shop.is_dirty("2026-03-09").await);
    // The archive has it all, so computing writes no new file.
    shop.recompute().await;
    assert_eq!(shop.published("2026-03-09").await.files, held.events);
}

#[tokio::test(flavor = "multi_thread")]
async fn verifying_reads_the_files_back() {
    let shop = Shop::open().await;
    shop.post(visit("a", shop.local("2026-03-09", 10.0), 60), 1).await;
    shop.recompute().await;
    let report = shop.run(&RunSpec::all_dirty(What::Verify)).await;
    assert_eq!(
        (report.verified, report.failed, report.events),
        (1, 0, 61),
        "{report:?}"
    );
    shop.stores
        .aggregates
        .delete(
            &shop.venue,
            day("2026-03-09"),
            shop.published("2026-03-09").await.generation,
        )
        .await
        .unwrap();
    let report = shop.run(&RunSpec::all_dirty(What::Verify)).await;
    assert_eq!(report.failed, 1);
    assert!(report.days[0].reason.contains("aggregate rows"), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_on_demand_waits_for_the_raw_writer_and_gives_up_with_a_reason() {
    let config = Config {
        raw_writer_wait: HumanDuration::millis(0),
        ..Config::default()
    };
    let shop = Shop::open_with("Europe/Madrid", config).await;
    shop.append(visit("a", shop.local("2026-03-09", 10.0), 60), 1)
        .await;
    let spec = RunSpec::all_dirty(What::Recompute);
    let run = || async {
        let cancel = CancellationToken::new();
        shop.layer
            .run_spec(&shop.venue.tenant, &spec, &|_| {}, &cancel)
            .await
    };
    let error = run().await.unwrap_err();
    assert!(matches!(error, Error::RawWriterBehind { behind: 1 }), "{error}");
    shop.write_raw().await;
    assert_eq!(run().await.unwrap().computed, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_venues_and_turned_ranges_are_refused() {
    let shop = Shop::open().await;
    let cancel = CancellationToken::new();
    let mut spec = RunSpec::all_dirty(What::Recompute);
    spec.venues = Venues::These(vec![VenueId::new("nowhere").unwrap()]);
    let error = shop
        .layer
        .run_spec(&shop.venue.tenant, &spec, &|_| {}, &cancel)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::UnknownVenue(_)), "{error}");
    let mut spec = RunSpec::all_dirty(What::Recompute);
    (spec.from, spec.to) = (Some(day("2026-03-02")), Some(day("2026-03-01")));
    let error = shop
        .layer
        .run_spec(&shop.venue.tenant, &spec, &|_| {}, &cancel)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Spec(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_ends_with_everything_done_and_a_cancelled_run_says_so() {
    let shop = Shop::open().await;
    for (receipt, of) in (1..).zip(["2026-03-07", "2026-03-08", "2026-03-09"]) {
        shop.post(visit("a", shop.local(of, 10.0), 5), receipt).await;
    }
    let seen = std::sync::Mutex::new(Vec::new());
    let spec = RunSpec::all_dirty(What::Recompute);
    let cancel = CancellationToken::new();
    cancel.cancel();
    let report = shop
        .layer
        .run_spec(&shop.venue.tenant, &spec, &|_| {}, &cancel)
        .await
        .unwrap();
    assert!(report.cancelled && report.computed == 0, "{report:?}");
    let note = |progress: dwell_storage::api::JobProgress| seen.lock().unwrap().push(progress);
    let cancel = CancellationToken::new();
    shop.layer
        .run_spec(&shop.venue.tenant, &spec, &note, &cancel)
        .await
        .unwrap();
    let last = seen.lock().unwrap().last().cloned().unwrap();
    assert_eq!((last.done, last.total), (3, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn venues_are_worked_on_side_by_side_and_other_tenants_are_left_alone() {
    let shop = Shop::open_with(
        "Europe/Madrid",
        Config {
            workers: 2,
            ..Config::default()
        },
    )
    .await;
    let other = TenantId::new("other").unwrap();
    shop.stores.registry.create_tenant(&other).await.unwrap();
    let venue = shop
        .stores
        .registry
        .venue(&shop.venue)
        .await
        .unwrap()
        .unwrap()
        .venue;
    let mut keys = Vec::new();
    for (tenant, id) in [
        (&shop.venue.tenant, "b"),
        (&shop.venue.tenant, "c"),
        (&other, "shop"),
    ] {
        let venue = Venue {
            id: VenueId::new(id).unwrap(),
            ..venue.clone()
        };
        assert_eq!(
            shop.stores
                .registry
                .put_venue(tenant, &venue, None)
                .await
                .unwrap(),
            Flip::Done
        );
        keys.push(VenueKey::new(tenant.clone(), venue.id));
    }
    shop.append(visit("a", shop.local("2026-03-09", 10.0), 60), 1)
        .await;
    for (receipt, key) in (2..).zip(&keys) {
        shop.append_to(key, visit("a", shop.local("2026-03-08", 10.0), 60), receipt)
            .await;
    }
    shop.write_raw().await;
    let report = shop.recompute().await;
    let done: Vec<String> = report
        .days
        .iter()
        .map(|of| format!("{} {}", of.venue, of.day))
        .collect();
    assert_eq!(
        done,
        ["acme/b 2026-03-08", "acme/c 2026-03-08", "acme/shop 2026-03-09"]
    );
    assert_eq!(
        shop.stores
            .venue_days
            .get(&keys[2], day("2026-03-08"))
            .await
            .unwrap(),
        None
    );
}

/// The archive's data files of a shop.
fn data_files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.join("archive")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "parquet") {
                files.push(path);
            }
        }
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_or_missing_file_is_found_and_named() {
    let shop = Shop::open().await;
    shop.post(visit("a", shop.local("2026-03-09", 10.0), 60), 1).await;
    shop.recompute().await;
    let files = data_files(shop.folder());
    assert_eq!(files.len(), 1, "one kind, nothing superseded: {files:?}");
    let whole = std::fs::read(&files[0]).unwrap();
    let mut damaged = whole.clone();
    // Within the first page, past the magic number.
    damaged[40] ^= 0xff;
    std::fs::write(&files[0], &damaged).unwrap();
    let name = files[0].file_name().unwrap().to_str().unwrap().to_owned();
    let verify = async || {
        let report = shop.run(&RunSpec::all_dirty(What::Verify)).await;
        (report.failed, report.days[0].reason.clone())
    };
    let (failed, reason) = verify().await;
    assert!(failed == 1 && reason.contains(&name), "{reason}");
    // A recompute that reads it fails as well, and leaves what is published.
    let before = shop.published("2026-03-09").await;
    let force = RunSpec {
        force: true,
        ..RunSpec::all_dirty(What::Recompute)
    };
    let report = shop.run(&force).await;
    assert_eq!((report.failed, report.computed), (1, 0), "{report:?}");
    assert_eq!(shop.published("2026-03-09").await, before);
    std::fs::remove_file(&files[0]).unwrap();
    let (failed, reason) = verify().await;
    assert!(failed == 1 && reason.contains(&name), "{reason}");
    std::fs::write(&files[0], &whole).unwrap();
    assert_eq!(verify().await.0, 0);
}
