use dwell_storage::api::{Pin, Pinned};

use super::*;
use crate::test_world::{World, day};

async fn run(world: &World, request: VacuumRequest) -> Vacuumed {
    let cancel = CancellationToken::new();
    vacuum(
        &world.stores,
        &world.clock(),
        world.tenant(),
        &request,
        &|_, _| {},
        &cancel,
    )
    .await
    .unwrap()
}

/// Everything that is old enough at any age.
fn any_age() -> VacuumRequest {
    VacuumRequest {
        // Before the clock's now lies after any file's date.
        older_than_ms: i64::MIN / 4,
        ..VacuumRequest::default()
    }
}

/// The archived file of a day.
async fn file(world: &World, of: &str) -> String {
    let kind = dwell_model::event::Kind::Position;
    let held = world
        .stores
        .archive
        .day(&world.venue, kind, day(of))
        .await
        .unwrap();
    held.events[0].path.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaced_files_go_when_neither_history_nor_a_pin_names_them() {
    let dir = tempfile::tempdir().unwrap();
    let (data, archive) = (dir.path().join("data"), dir.path().join("archive"));
    let days = ["2026-03-01", "2026-03-02"];
    let world = World::with_days(&data, &archive, &days).await;
    let first = file(&world, days[0]).await;
    world.events(days[0], 7).await;
    // Archived without being computed: nothing names the file in between.
    let spec = dwell_batch_layer::spec::RunSpec::all_dirty(dwell_batch_layer::spec::What::Archive);
    let cancel = CancellationToken::new();
    world
        .layer
        .run_spec(world.tenant(), &spec, &|_| {}, &cancel)
        .await
        .unwrap();
    let between = file(&world, days[0]).await;
    world.events(days[0], 8).await;
    world.recompute().await;
    let numbers = world.numbers().await;
    assert!(first != between && between != file(&world, days[0]).await);

    let young = run(
        &world,
        VacuumRequest {
            older_than_ms: i64::MAX / 4,
            ..VacuumRequest::default()
        },
    )
    .await;
    assert_eq!(
        (young.removed, young.kept_for_history),
        (0, 0),
        "nothing is as old as that"
    );
    let pin = Pin {
        holder: "export".into(),
        reason: "reads".into(),
        set_at: 0,
        expires_at: world.clock().now_ms() + 1_000,
        files: Pinned::These([between.clone()].into()),
        generations: Pinned::None,
    };
    pins::hold(world.stores.documents.as_ref(), world.tenant(), "export", &pin)
        .await
        .unwrap();
    let pinned = run(&world, any_age()).await;
    assert_eq!(
        (pinned.removed, pinned.kept_for_history, pinned.kept_for_pins),
        (0, 1, 1)
    );

    world.clock.advance(std::time::Duration::from_secs(2));
    let dry = run(
        &world,
        VacuumRequest {
            dry_run: true,
            ..any_age()
        },
    )
    .await;
    assert_eq!((dry.removed, dry.files.clone()), (1, vec![between.clone()]));
    let path = |file: &str| archive.join("default/position").join(file);
    assert!(path(&between).exists(), "a dry run removes nothing");
    let done = run(&world, any_age()).await;
    assert_eq!((done.removed, done.kept_for_history), (1, 1));
    assert!(!path(&between).exists() && path(&first).exists());
    assert_eq!(
        run(&world, any_age()).await.removed,
        0,
        "doing it again changes nothing"
    );
    assert_eq!(world.numbers().await, numbers);
    let report = world.layer.verify_day(&world.venue, day(days[0])).await;
    assert_eq!(
        report.outcome,
        dwell_batch_layer::report::Outcome::Verified,
        "{report:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_go_goes_over_age_history_and_pins_but_never_what_counts() {
    let dir = tempfile::tempdir().unwrap();
    let (data, archive) = (dir.path().join("data"), dir.path().join("archive"));
    let world = World::with_days(&data, &archive, &["2026-03-01"]).await;
    let replaced = file(&world, "2026-03-01").await;
    world.events("2026-03-01", 7).await;
    world.recompute().await;
    let counts = file(&world, "2026-03-01").await;
    let pin = Pin {
        holder: "backup".into(),
        reason: "runs".into(),
        set_at: 0,
        expires_at: i64::MAX,
        files: Pinned::All,
        generations: Pinned::All,
    };
    pins::hold(world.stores.documents.as_ref(), world.tenant(), "b", &pin)
        .await
        .unwrap();
    let request = VacuumRequest {
        older_than_ms: i64::MAX / 4,
        must_go: [replaced.clone(), counts.clone()].into(),
        dry_run: false,
    };
    let done = run(&world, request).await;
    assert_eq!(done.files, [replaced]);
    let report = world.layer.verify_day(&world.venue, day("2026-03-01")).await;
    assert_eq!(
        report.outcome,
        dwell_batch_layer::report::Outcome::Verified,
        "{report:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vacuum_that_is_stopped_removes_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let (data, archive) = (dir.path().join("data"), dir.path().join("archive"));
    let world = World::with_days(&data, &archive, &["2026-03-01"]).await;
    world.events("2026-03-01", 7).await;
    world.recompute().await;
    let cancel = CancellationToken::new();
    cancel.cancel();
    let request = VacuumRequest {
        must_go: BTreeSet::new(),
        ..any_age()
    };
    let stopped = vacuum(
        &world.stores,
        &world.clock(),
        world.tenant(),
        &request,
        &|_, _| {},
        &cancel,
    )
    .await
    .unwrap();
    assert!(stopped.cancelled && stopped.removed == 0);
}

/// A night may have staged files for hours before it commits them.
#[test]
fn an_age_of_less_than_a_day_or_more_than_the_log_tells_is_refused() {
    let check = |age: &str| {
        let request = JobRequest {
            tenant: TenantId::new("acme").unwrap(),
            kind: "vacuum".to_owned(),
            venues: None,
            from: None,
            to: None,
            dry_run: false,
            reason: None,
            lane: None,
            options: [(OLDER_THAN.to_owned(), age.into())].into_iter().collect(),
        };
        Vacuum.check(&request).map_err(|refusal| refusal.to_string())
    };
    for age in ["1d", "24h", "7d", "29d"] {
        check(age).unwrap();
    }
    for age in ["0s", "23h", "30d", "soon"] {
        assert!(check(age).unwrap_err().contains("1d to 29d"), "{age}");
    }
}

#[test]
fn a_files_day_is_read_from_its_path() {
    let (venue, of) = day_of("venue=shop.1/day=2026-03-01/part-1.parquet").unwrap();
    assert_eq!((venue.as_str(), of), ("shop.1", day("2026-03-01")));
    for other in [
        "day=2026-03-01/venue=x/a",
        "venue=/day=2026-03-01/a",
        "venue=x",
        "",
    ] {
        assert_eq!(day_of(other), None, "{other}");
    }
}
