use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono_tz::Tz;
use dwell_batch_layer::{BatchLayer, Config};
use dwell_model::ids::{TenantId, VenueKey};
use dwell_model::layout::VenueSpec;
use dwell_model::time::{TsMs, VenueCalendar, parse_ts};
use dwell_runtime::clock::ManualClock;
use dwell_serving_api::{DeclaredJob, DeclaredJobs, JobCatalogue};
use dwell_storage::api::recuts::{self, Wish};
use dwell_storage::api::{Flip, Job, JobState, Stores, documents};
use dwell_storage::archive::DeltaArchive;
use dwell_storage::backends::sqlite::SqliteStores;
use dwell_storage::paths::DataPaths;
use serde_json::{Value, json};

use super::service::Next;
use super::*;

fn ts(text: &str) -> TsMs {
    parse_ts(text).unwrap()
}

fn due(cron: &str, zone: &str, answered: &str, now: &str) -> Due {
    let zone: Tz = zone.parse().unwrap();
    Timetable::parse(cron, zone).unwrap().due(ts(answered), ts(now))
}

#[test]
fn a_timetable_says_what_is_due_in_its_zone() {
    let madrid = "Europe/Madrid";
    for (cron, zone, answered, now, expected) in [
        // In winter 05:30 in Madrid is 04:30 in UTC.
        (
            "30 5 * * *",
            madrid,
            "2026-01-10T04:30:00Z",
            "2026-01-11T04:29:59Z",
            Err("2026-01-11T04:30:00Z"),
        ),
        (
            "30 5 * * *",
            madrid,
            "2026-01-10T04:30:00Z",
            "2026-01-11T04:30:00Z",
            Ok("2026-01-11T04:30:00Z"),
        ),
        // Of ten nights missed the last one counts.
        (
            "30 5 * * *",
            madrid,
            "2026-01-10T04:30:00Z",
            "2026-01-20T12:00:00Z",
            Ok("2026-01-20T04:30:00Z"),
        ),
        // 2026-03-29 02:30 does not exist in Madrid: it is due when the clocks have gone on, 03:00 there.
        (
            "30 2 * * *",
            madrid,
            "2026-03-28T01:30:00Z",
            "2026-03-29T12:00:00Z",
            Ok("2026-03-29T01:00:00Z"),
        ),
        // The clock has been ahead: by less than a day nothing is done twice, by more it is begun anew.
        (
            "0 5 * * *",
            "Etc/UTC",
            "2026-11-22T05:00:00Z",
            "2026-11-21T12:00:00Z",
            Err("2026-11-22T05:00:00Z"),
        ),
        (
            "0 5 * * *",
            "Etc/UTC",
            "2026-12-21T05:00:00Z",
            "2026-11-21T12:00:00Z",
            Ok("2026-11-21T05:00:00Z"),
        ),
        // 2026-10-25 02:30 comes twice: it is due once.
        (
            "30 2 * * *",
            madrid,
            "2026-10-24T00:30:00Z",
            "2026-10-25T00:30:00Z",
            Ok("2026-10-25T00:30:00Z"),
        ),
        (
            "30 2 * * *",
            madrid,
            "2026-10-25T00:30:00Z",
            "2026-10-25T12:00:00Z",
            Err("2026-10-26T01:30:00Z"),
        ),
        (
            "0 3 * * 1",
            "Asia/Kolkata",
            "2026-11-16T00:00:00Z",
            "2026-11-20T00:00:00Z",
            Err("2026-11-22T21:30:00Z"),
        ),
    ] {
        let expected = match expected {
            Ok(since) => Due::Since(ts(since)),
            Err(at) => Due::At(Some(ts(at))),
        };
        assert_eq!(
            due(cron, zone, answered, now),
            expected,
            "{cron} in {zone} at {now}"
        );
    }
}

fn schedule(body: Value) -> Schedule {
    serde_json::from_value(body).unwrap()
}

/// Kinds that take anything, as tests name them; counts what was created.
#[derive(Debug)]
struct Kinds {
    declared: DeclaredJobs,
    created: Mutex<Vec<String>>,
}

impl Kinds {
    fn new() -> Arc<Self> {
        let kind = |kind| DeclaredJob {
            kind,
            summary: "Does something",
            takes_days: true,
            takes_dry_run: true,
            options: &["to", "from", "sample", "tz", "day_start_hour"],
            required: &[],
        };
        Arc::new(Self {
            declared: DeclaredJobs::new(
                ["verify", "backup", "retention", "vacuum", "drill", "recut"]
                    .map(kind)
                    .to_vec(),
            ),
            created: Mutex::default(),
        })
    }
}

impl JobCatalogue for Kinds {
    fn kinds(&self) -> Vec<(String, String)> {
        self.declared.kinds()
    }

    fn decide(&self, request: &JobRequest) -> Result<Value, JobRefusal> {
        self.declared.decide(request)
    }

    fn created(&self, job: &Job) {
        self.created.lock().unwrap().push(job.id.clone());
    }
}

#[test]
fn a_schedule_that_cannot_be_is_refused_with_the_reason() {
    let tenant = TenantId::new("acme").unwrap();
    let kinds = Kinds::new();
    let good = schedule(json!({"kind": "verify", "cron": "0 3 * * *"}));
    let after = |name: &str| schedule(json!({"kind": "backup", "cron": "0 4 * * *", "after": [name]}));
    let others = [
        ("first".to_owned(), after("second")),
        ("second".to_owned(), after("third")),
    ];
    let check = |name: &str, schedule: &Schedule| schedule.check(&tenant, name, &others, kinds.as_ref());
    check("third", &good).unwrap();
    check(
        "third",
        &schedule(json!({"kind": "verify", "cron": "0 3 * * *", "after": ["nights"]})),
    )
    .unwrap();
    check("x", &after("first")).unwrap();
    let refused = |name: &str, body: Value| check(name, &schedule(body)).unwrap_err().0;
    for (name, body, says) in [
        (
            "Upper",
            json!({"kind": "verify", "cron": "0 3 * * *"}),
            "small letters",
        ),
        (
            "nights",
            json!({"kind": "verify", "cron": "0 3 * * *"}),
            "not \"nights\"",
        ),
        ("x", json!({"kind": "fly", "cron": "0 3 * * *"}), "no such kind"),
        ("x", json!({"kind": "verify", "cron": "0 3 * *"}), "five fields"),
        (
            "x",
            json!({"kind": "verify", "cron": "0 0 3 * * *"}),
            "five fields",
        ),
        (
            "x",
            json!({"kind": "verify", "cron": "61 3 * * *"}),
            "five fields",
        ),
        (
            "x",
            json!({"kind": "verify", "cron": "0 3 * * *", "time_zone": "Mars/Base"}),
            "IANA",
        ),
        (
            "x",
            json!({"kind": "verify", "cron": "0 3 * * *", "options": {"speed": 1}}),
            "\"speed\"",
        ),
        (
            "x",
            json!({"kind": "verify", "cron": "0 3 * * *", "after": ["none"]}),
            "no such schedule",
        ),
        (
            "third",
            json!({"kind": "verify", "cron": "0 3 * * *", "after": ["first"]}),
            "neither would ever run",
        ),
        (
            "x",
            json!({"kind": "verify", "cron": "0 3 * * *", "after": ["x"]}),
            "no such schedule",
        ),
    ] {
        let why = refused(name, body);
        assert!(why.contains(says), "{name}: {why}");
    }
    assert!(
        serde_json::from_value::<Schedule>(json!({"kind": "verify", "cron": "0 3 * * *", "colour": 1}))
            .is_err()
    );
}

/// An installation with two venues in different zones and a scheduler.
struct World {
    tenant: TenantId,
    stores: Stores,
    clock: ManualClock,
    kinds: Arc<Kinds>,
    _folder: tempfile::TempDir,
}

impl World {
    async fn at(now: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::at_ms(ts(now));
        let paths = DataPaths::new(folder.path());
        let tables = SqliteStores::open(&paths, clock.shared()).await.unwrap();
        let archive = DeltaArchive::local(&paths.archive, clock.shared()).unwrap();
        let stores = tables.with_archive(Arc::new(archive));
        let tenant = TenantId::new("acme").unwrap();
        stores.registry.create_tenant(&tenant).await.unwrap();
        for (id, zone) in [("madrid", "Europe/Madrid"), ("tokyo", "Asia/Tokyo")] {
            let spec: VenueSpec = serde_json::from_value(json!({"id": id, "tz": zone})).unwrap();
            let venue = spec.to_venue(None).unwrap();
            assert_eq!(
                stores.registry.put_venue(&tenant, &venue, None).await.unwrap(),
                Flip::Done
            );
        }
        Self {
            tenant,
            stores,
            clock,
            kinds: Kinds::new(),
            _folder: folder,
        }
    }

    fn scheduler(&self) -> Scheduler {
        let batch = BatchLayer::new(
            self.stores.clone(),
            self.clock.shared(),
            Config::default(),
            "test",
        )
        .unwrap();
        Scheduler {
            stores: self.stores.clone(),
            batch,
            kinds: Arc::<Kinds>::clone(&self.kinds),
            clock: self.clock.shared(),
            built_in: BuiltIn {
                enabled: false,
                backup_to: None,
            },
            remembered: Remembered::default(),
        }
    }

    async fn put(&self, name: &str, body: Value) {
        let mut schedule = schedule(body);
        schedule.since = self.clock.shared().now_ms();
        let stored = documents::store(
            self.stores.documents.as_ref(),
            &self.tenant,
            name,
            &schedule,
            None,
        )
        .await;
        assert_eq!(stored.unwrap(), Flip::Done);
    }

    /// Lets time pass and looks; how many jobs were asked for.
    async fn after(&self, time: Duration) -> usize {
        self.clock.advance(time);
        self.scheduler()
            .run_once(self.clock.shared().now_ms())
            .await
            .unwrap()
    }

    /// All jobs: kind, who asked, reason, venues.
    async fn jobs(&self) -> Vec<(String, String, String, Value)> {
        let mut jobs = self
            .stores
            .jobs
            .list(Some(&self.tenant), None, 1_000)
            .await
            .unwrap();
        jobs.sort_by(|a, b| {
            (&a.reason, &a.spec["venues"].to_string()).cmp(&(&b.reason, &b.spec["venues"].to_string()))
        });
        let row = |job: Job| {
            let venues = job.spec["venues"].clone();
            (job.kind, job.requested_by, job.reason.unwrap_or_default(), venues)
        };
        jobs.into_iter().map(row).collect()
    }

    /// Ends all jobs that have not ended.
    async fn end_jobs(&self, state: JobState) {
        while let Some(mut job) = self
            .stores
            .jobs
            .claim(self.clock.shared().now_ms(), 1_000)
            .await
            .unwrap()
        {
            job.state = state;
            job.finished_at = Some(self.clock.shared().now_ms());
            assert_eq!(self.stores.jobs.update(&job).await.unwrap(), Flip::Done);
        }
    }
}

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn a_job_is_asked_for_once_when_it_is_due_whoever_looks() {
    let world = World::at("2026-11-20T00:00:00Z").await;
    world
        .put("weekly", json!({"kind": "verify", "cron": "0 5 * * *"}))
        .await;
    assert_eq!(world.after(HOUR * 4).await, 0);
    world.clock.advance(HOUR);
    let now = world.clock.shared().now_ms();
    let (one, two) = (world.scheduler(), world.scheduler());
    let (one, two) = tokio::join!(one.run_once(now), two.run_once(now));
    assert_eq!(one.unwrap() + two.unwrap(), 1, "of two schedulers one asks");
    let expected = vec![(
        "verify".to_owned(),
        "schedule:weekly".to_owned(),
        "due at 2026-11-20T05:00:00.000Z".to_owned(),
        json!("all"),
    )];
    assert_eq!(world.jobs().await, expected);
    assert_eq!(
        world.after(HOUR * 24).await,
        0,
        "not while the last one has not ended"
    );
    world.end_jobs(JobState::Succeeded).await;
    assert_eq!(world.after(Duration::ZERO).await, 1);
    assert_eq!(world.jobs().await.len(), 2);
}

#[tokio::test]
async fn in_venue_time_every_venue_has_a_job_in_its_own_morning() {
    let world = World::at("2026-11-20T12:00:00Z").await;
    world
        .put(
            "mornings",
            json!({"kind": "verify", "cron": "0 5 * * *", "time_zone": "venue"}),
        )
        .await;
    // 05:00 in Tokyo is 20:00 in UTC, in Madrid it is 04:00.
    assert_eq!(world.after(HOUR * 8).await, 1);
    assert_eq!(world.after(HOUR * 7).await, 0);
    assert_eq!(world.after(HOUR).await, 1);
    let venues: Vec<Value> = world
        .jobs()
        .await
        .into_iter()
        .map(|(.., venues)| venues)
        .collect();
    assert_eq!(venues, [json!(["tokyo"]), json!(["madrid"])]);
}

#[tokio::test]
async fn what_waits_for_another_begins_when_that_has_succeeded() {
    let world = World::at("2026-11-20T00:00:00Z").await;
    world
        .put("first", json!({"kind": "backup", "cron": "0 3 * * *"}))
        .await;
    world
        .put(
            "then",
            json!({"kind": "retention", "cron": "0 2 * * *", "after": ["first", "nights"]}),
        )
        .await;
    assert_eq!(world.after(HOUR * 3).await, 1, "first is due at once with it");
    assert_eq!(world.after(HOUR).await, 0, "first has not ended");
    world.end_jobs(JobState::Failed).await;
    assert_eq!(world.after(Duration::ZERO).await, 0, "first has failed");
    let standings = standings(&world.stores, &world.tenant, world.clock.shared().now_ms())
        .await
        .unwrap();
    assert_eq!(standings.len(), 2);
    // The next night first succeeds, and what was held since is done once.
    assert_eq!(world.after(HOUR * 24).await, 1);
    world.end_jobs(JobState::Succeeded).await;
    assert_eq!(world.after(Duration::ZERO).await, 1);
    let kinds: Vec<String> = world.jobs().await.into_iter().map(|(kind, ..)| kind).collect();
    assert_eq!(kinds.iter().filter(|kind| *kind == "retention").count(), 1);
}

#[tokio::test]
async fn after_a_downtime_everything_is_done_once_and_not_all_at_a_time() {
    let world = World::at("2026-11-01T00:00:00Z").await;
    for n in 0..40 {
        world
            .put(
                &format!("s{n:02}"),
                json!({"kind": "verify", "cron": "0 * * * *"}),
            )
            .await;
    }
    // Ten days of forty hourly schedules are missed.
    let mut asked = vec![world.after(HOUR * 240).await];
    while asked.last() != Some(&0) {
        world.end_jobs(JobState::Succeeded).await;
        asked.push(world.after(Duration::ZERO).await);
    }
    assert_eq!(asked, [16, 16, 8, 0]);
}

#[tokio::test]
async fn a_scheduler_that_dies_before_it_stores_the_job_is_made_good() {
    let world = World::at("2026-11-20T00:00:00Z").await;
    world
        .put(
            "nightly",
            json!({"kind": "backup", "cron": "0 5 * * *", "options": {"to": "file:///b"}}),
        )
        .await;
    world.clock.advance(HOUR * 6);
    let run = ScheduleRun {
        planned_at: ts("2026-11-20T05:00:00Z"),
        job: "0123-lost".to_owned(),
    };
    let table = world.stores.documents.as_ref();
    assert_eq!(
        documents::store(table, &world.tenant, "nightly", &run, None)
            .await
            .unwrap(),
        Flip::Done
    );
    assert_eq!(world.after(Duration::ZERO).await, 0, "it was answered");
    let job = world
        .stores
        .jobs
        .get(&world.tenant, "0123-lost")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (job.kind.as_str(), &job.spec["to"]),
        ("backup", &json!("file:///b"))
    );
    assert_eq!(world.kinds.created.lock().unwrap().as_slice(), ["0123-lost"]);
}

#[tokio::test]
async fn paused_and_removed_schedules_ask_for_nothing() {
    let world = World::at("2026-11-20T00:00:00Z").await;
    world
        .put(
            "paused",
            json!({"kind": "verify", "cron": "0 5 * * *", "paused": true}),
        )
        .await;
    world
        .put(
            "removed",
            json!({"kind": "verify", "cron": "0 5 * * *", "removed": true}),
        )
        .await;
    world
        .put(
            "other-venue",
            json!({"kind": "verify", "cron": "0 5 * * *", "time_zone": "venue", "venues": ["gone"]}),
        )
        .await;
    assert_eq!(world.after(HOUR * 30).await, 0);
    let of: Vec<(String, Next)> = standings(&world.stores, &world.tenant, world.clock.shared().now_ms())
        .await
        .unwrap()
        .into_iter()
        .map(|(_, standing)| (standing.name, standing.next))
        .collect();
    assert_eq!(of, [("paused".to_owned(), Next::Paused)]);
}

#[tokio::test]
async fn built_in_schedules_are_made_when_a_tenant_is_first_seen_and_nothing_is_due_at_once() {
    let world = World::at("2026-11-20T12:00:00Z").await;
    let with_built_in = || Scheduler {
        built_in: BuiltIn::default(),
        ..world.scheduler()
    };
    let names = async || -> Vec<String> {
        let now = world.clock.shared().now_ms();
        let standings = standings(&world.stores, &world.tenant, now).await.unwrap();
        standings.into_iter().map(|(_, standing)| standing.name).collect()
    };
    let now = world.clock.shared().now_ms();
    let (one, two) = (with_built_in(), with_built_in());
    let (one, two) = tokio::join!(one.run_once(now), two.run_once(now));
    assert_eq!((one.unwrap(), two.unwrap()), (0, 0));
    assert_eq!(names().await, ["retention", "vacuum", "verify-sample"]);
    // By the next noon, a Saturday, the night's retention and the week's verification were due once each.
    world.clock.advance(HOUR * 24);
    let now = world.clock.shared().now_ms();
    assert_eq!(with_built_in().run_once(now).await.unwrap(), 2);
    let kinds: Vec<String> = world.jobs().await.into_iter().map(|(kind, ..)| kind).collect();
    assert_eq!(kinds, ["retention", "verify"]);
    // An operator's own takes the place of that of its kind.
    world
        .put("mine", json!({"kind": "verify", "cron": "0 5 * * *"}))
        .await;
    with_built_in().run_once(now).await.unwrap();
    assert_eq!(names().await, ["mine", "retention", "vacuum"]);
}

#[tokio::test]
async fn a_schedule_gives_its_jobs_its_reason_and_lane() {
    let world = World::at("2026-11-20T00:00:00Z").await;
    world
        .put("plain", json!({"kind": "verify", "cron": "0 5 * * *"}))
        .await;
    let told = json!({"kind": "backup", "cron": "0 5 * * *", "reason": "as agreed", "lane": "backfill"});
    world.put("told", told).await;
    assert_eq!(world.after(HOUR * 5).await, 2);
    let jobs = world
        .stores
        .jobs
        .list(Some(&world.tenant), None, 9)
        .await
        .unwrap();
    let mut jobs: Vec<_> = jobs
        .into_iter()
        .map(|job| (job.kind, job.lane.word(), job.reason.unwrap_or_default()))
        .collect();
    jobs.sort();
    let due = "due at 2026-11-20T05:00:00.000Z";
    assert_eq!(
        jobs,
        [
            ("backup".to_owned(), "backfill", format!("as agreed ({due})")),
            ("verify".to_owned(), "nightly", due.to_owned()),
        ]
    );
}

#[tokio::test]
async fn nights_that_are_waited_for_are_planned_anew_only_when_the_day_has_changed_or_after_a_minute() {
    let (data, archive) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let shop = crate::test_world::World::with_days(data.path(), archive.path(), &["2026-03-01"]).await;
    shop.events("2026-03-02", 3).await;
    let scheduler = Scheduler {
        stores: shop.stores.clone(),
        batch: shop.layer.clone(),
        kinds: Kinds::new(),
        clock: shop.clock(),
        built_in: BuiltIn::default(),
        remembered: Remembered::default(),
    };
    let undone = async |now| {
        let venues = dwell_batch_layer::spec::Venues::All;
        scheduler.nights_undone(shop.tenant(), venues, now).await.unwrap()
    };
    let now = shop.clock().now_ms();
    let because = undone(now).await.unwrap();
    assert!(because.starts_with("1 closed days of shop"), "{because}");
    // Another day is dirty now, and the known one still is: what is remembered is said.
    shop.events("2026-03-03", 4).await;
    assert!(undone(now + 10_000).await.unwrap().starts_with("1 closed days"));
    assert!(undone(now + 60_000).await.unwrap().starts_with("2 closed days"));
    // Whoever computes them, the next look knows.
    shop.recompute().await;
    assert_eq!(undone(now + 61_000).await, None);
}

#[tokio::test]
async fn a_decided_recut_without_a_job_gets_one_and_others_do_not() {
    let world = World::at("2026-11-20T00:00:00Z").await;
    let documents = world.stores.documents.as_ref();
    let venue = VenueKey::new(world.tenant.clone(), VenueId::new("madrid").unwrap());
    let calendar = |zone| VenueCalendar::from_names(zone, 0).unwrap();
    let wish = Wish {
        job: "0".to_owned(),
        from: calendar("Europe/Madrid"),
        to: calendar("Europe/Lisbon"),
        by: "operator".to_owned(),
        at: 1,
    };
    let now = world.clock.shared().now_ms();
    recuts::ask(documents, &venue, &wish).await.unwrap();
    recuts::begin_staging(documents, &venue, 1, "a", now, now + 1_000)
        .await
        .unwrap();
    let look = async || world.after(Duration::ZERO).await;
    assert_eq!(
        (look().await, world.jobs().await.len()),
        (0, 0),
        "it is not decided"
    );
    recuts::decide(documents, &venue, 1, "a", now, &[]).await.unwrap();
    // As after a restore: a backup has the recut and no jobs. One asks, whoever looks how often.
    look().await;
    look().await;
    let asked = world.jobs().await;
    let job = |reason: &str| {
        let venues = json!(["madrid"]);
        (
            "recut".to_owned(),
            "scheduler".to_owned(),
            reason.to_owned(),
            venues,
        )
    };
    assert_eq!(asked, [job("")]);
    let stored = world.stores.jobs.list(None, None, 10).await.unwrap().remove(0);
    assert_eq!(
        (&stored.spec["tz"], &stored.spec["day_start_hour"]),
        (&json!("Europe/Lisbon"), &json!(0))
    );
    let stands = recuts::load(documents, &venue).await.unwrap().unwrap().value;
    assert_eq!(stands.job, stored.id);
    // That one ended without having published all of it.
    world.end_jobs(JobState::Failed).await;
    world.clock.advance(HOUR);
    look().await;
    assert_eq!(world.jobs().await, [job(""), job("")]);
    recuts::finish(documents, &venue, 1).await.unwrap();
    world.end_jobs(JobState::Succeeded).await;
    look().await;
    assert_eq!(world.jobs().await.len(), 2, "there is nothing left to do");
}
