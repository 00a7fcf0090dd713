//! An API on embedded stores in a temporary folder, with two tenants, a clock that stands still, and days published
//! from positions by the model's own fold.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use dwell_model::definitions;
use dwell_model::event::{Checksum, Delivery, EventBatch, Kind, RawRows, sort_by_key};
use dwell_model::ids::{Receipt, TenantId, VenueId, VenueKey};
use dwell_model::layout::Venue;
use dwell_model::metrics::{AggregateRow, Carry, DayAccumulator, DaySlices, Slice};
use dwell_model::session::{FoldContext, Session, SessionSink, fold_day, session_id};
use dwell_model::testing::position_batch;
use dwell_model::time::{LocalDay, TsMs, parse_ts, slot_of};
use dwell_runtime::clock::ManualClock;
use dwell_runtime::shutdown::{Phase, ShutdownController};
use dwell_storage::access::{self, KeyVerifier};
use dwell_storage::api::{
    AggregatesWriter, ArchiveWriter, Committed, DeliveredRows, Flip, Generation, GenerationInfo, Job,
    LateLedger, LiveDay, LiveVenue, LiveView, Mark, MarkSource, RawEventsReader, RawEventsWriter, RawWrite,
    Registry, Rewrite, Role, SessionsWriter, StagedDay, StillHeld, StoredSession, VenueDays, VenueDaysReader,
    VenueDaysWriter, publications,
};
use dwell_storage::archive::DeltaArchive;
use dwell_storage::backends::sqlite::SqliteStores;
use dwell_storage::decorators::failing::{Failing, Faults};
use dwell_storage::error::Result;
use dwell_storage::paths::DataPaths;
use dwell_storage::usage::UsageCounter;
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::ServiceExt;

use crate::{
    ApiStores, AppState, Config, DeclaredJob, DeclaredJobs, JobCatalogue, JobRefusal, JobRequest, Parts, app,
};

/// What the clock shows at first: noon in Madrid on 2026-10-27, two days after clocks were set back.
pub(super) const NOW: &str = "2026-10-27T12:00:00+01:00";
pub(super) const TENANT: &str = "acme";
pub(super) const OTHER_TENANT: &str = "rival";

/// An API with its stores.
pub(super) struct Api {
    pub(super) router: Router,
    pub(super) stores: SqliteStores,
    pub(super) live: Arc<FakeLive>,
    pub(super) archive: Arc<DeltaArchive>,
    pub(super) clock: ManualClock,
    pub(super) shutdown: ShutdownController,
    /// What venue-days answer with instead of an answer.
    pub(super) faults: Faults,
    /// Keys by (tenant, role).
    keys: BTreeMap<(&'static str, Role), String>,
    _folder: tempfile::TempDir,
}

/// An answer, read.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// A position: sensor, track, instant, x, y.
pub(super) type Point<'a> = (&'a str, &'a str, &'a str, f32, f32);

impl Api {
    /// An API of default bounds with the venue `v1`.
    pub(super) async fn start() -> Self {
        Self::start_with(Config::default()).await
    }

    pub(super) async fn start_with(config: Config) -> Self {
        let api = Self::without_venue(config).await;
        api.put_venue(venue_spec("v1")).await;
        api
    }

    /// The same without a venue: for bounds under which none could be put.
    pub(super) async fn without_venue(config: Config) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::at_ms(parse_ts(NOW).unwrap());
        let stores = SqliteStores::open_blocking(&DataPaths::new(folder.path()), clock.shared()).unwrap();
        let mut keys = BTreeMap::new();
        for tenant in [TENANT, OTHER_TENANT] {
            let id = TenantId::new(tenant).unwrap();
            stores.registry.create_tenant(&id).await.unwrap();
            for role in [Role::Gateway, Role::Viewer, Role::Operator, Role::Admin] {
                let (key, text) = access::issue(id.clone(), role, None, None, 0).unwrap();
                stores.registry.put_key(&key).await.unwrap();
                keys.insert((tenant, role), text.reveal().to_owned());
            }
        }
        let live = Arc::new(FakeLive::default());
        let archive =
            Arc::new(DeltaArchive::local(&DataPaths::new(folder.path()).archive, clock.shared()).unwrap());
        let (shutdown, faults) = (ShutdownController::default(), Faults::none());
        let api_stores = ApiStores {
            aggregates: stores.aggregates.clone(),
            venue_days: Arc::new(Failing::<dyn VenueDays>::new(stores.venue_days.clone(), &faults)),
            sessions: stores.sessions.clone(),
            raw: stores.raw.clone(),
            archive: archive.clone(),
            registry: stores.registry.clone(),
            jobs: stores.jobs.clone(),
            quarantine: stores.quarantine.clone(),
            documents: stores.documents.clone(),
        };
        let state = AppState::new(Parts {
            stores: api_stores,
            live: live.clone(),
            verifier: Arc::new(KeyVerifier::new(stores.registry.clone(), clock.shared(), 100)),
            jobs: Arc::new(job_catalogue()),
            usage: UsageCounter::default(),
            clock: clock.shared(),
            shutdown: shutdown.signal(Phase::FinishRequests),
            config,
            further_documents: Vec::new(),
        });
        Self {
            router: app(state),
            stores,
            live,
            archive,
            clock,
            shutdown,
            faults,
            keys,
            _folder: folder,
        }
    }

    pub(super) fn key(&self, role: Role) -> &str {
        &self.keys[&(TENANT, role)]
    }

    pub(super) fn key_of(&self, tenant: &'static str, role: Role) -> &str {
        &self.keys[&(tenant, role)]
    }

    /// Sends a request and reads the whole answer.
    pub(super) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 64 << 20).await.unwrap().to_vec();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    /// `GET` with a viewer's key.
    pub(super) async fn get(&self, path: &str) -> Answer {
        self.send(
            self.request(Method::GET, path, Role::Viewer)
                .body(Body::empty())
                .unwrap(),
        )
        .await
    }

    /// `GET` that must succeed, as JSON.
    pub(super) async fn get_json(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text());
        answer.json()
    }

    /// A request with a JSON body and the key of a role.
    pub(super) async fn send_json(&self, method: Method, path: &str, role: Role, body: &Value) -> Answer {
        let request = self
            .request(method, path, role)
            .header(header::CONTENT_TYPE, "application/json");
        self.send(request.body(Body::from(body.to_string())).unwrap())
            .await
    }

    pub(super) fn request(&self, method: Method, path: &str, role: Role) -> axum::http::request::Builder {
        let bearer = format!("Bearer {}", self.key(role));
        Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, bearer)
    }

    pub(super) async fn put_venue(&self, spec: Value) {
        let body = Value::Array(vec![spec]);
        let answer = self
            .send_json(Method::PUT, "/v1/venues", Role::Admin, &body)
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    }

    pub(super) async fn venue(&self, venue: &str) -> Venue {
        self.stores
            .registry
            .venue(&venue_key(venue))
            .await
            .unwrap()
            .unwrap()
            .venue
    }

    /// Stores positions as raw rows, with marks, as the raw writer does.
    pub(super) async fn write_raw(
        &self,
        venue: &str,
        points: &[Point<'_>],
        receipt: &str,
        received_at: TsMs,
    ) {
        let key = venue_key(venue);
        let batch = batch(points);
        let mark = |ts: &TsMs| Mark {
            venue: key.clone(),
            slot: slot_of(*ts),
            source: MarkSource::log(1, 0),
            position: received_at,
        };
        let marks = batch.ts.iter().map(mark).collect();
        let delivery = Delivery {
            received_at,
            receipt: Receipt::derive(b"test", receipt.as_bytes()),
        };
        let rows = vec![(key.clone(), RawRows::delivered_once(batch, delivery))];
        self.stores
            .raw
            .apply(RawWrite {
                rows,
                marks,
                position: None,
            })
            .await
            .unwrap();
    }

    /// Archives positions of a day, united with what is there.
    pub(super) async fn archive(
        &self,
        venue: &str,
        day: &str,
        points: &[Point<'_>],
        receipt: &str,
        received_at: TsMs,
    ) {
        let delivery = Delivery {
            received_at,
            receipt: Receipt::derive(b"test", receipt.as_bytes()),
        };
        let rows = Box::new(DeliveredRows::delivered_once(batch(points), delivery));
        let (key, day) = (venue_key(venue), day.parse().unwrap());
        let written = self
            .archive
            .rewrite_day(&key, Kind::Position, day, 1, rows)
            .await
            .unwrap();
        let Rewrite::Staged(staged) = written else {
            panic!("nothing new to archive")
        };
        assert_eq!(
            self.archive.commit(vec![staged], &Held).await.unwrap(),
            [Committed::Yes]
        );
    }

    /// Computes a day from positions with the model and publishes it as a new generation.
    pub(super) async fn publish(&self, venue: &str, day: &str, points: &[Point<'_>]) -> Generation {
        self.publish_with(venue, day, points, |_| {}).await
    }

    pub(super) async fn publish_with(
        &self,
        venue: &str,
        day: &str,
        points: &[Point<'_>],
        change: impl FnOnce(&mut GenerationInfo),
    ) -> Generation {
        let (key, day) = (venue_key(venue), day.parse::<LocalDay>().unwrap());
        let venue = self.venue(venue).await;
        let Computed { mut rows, sessions } = compute(&venue, day, points);
        let now = parse_ts(NOW).unwrap();
        let cut = venue.calendar.cut(day);
        let marks = self.stores.raw.marks(&key, cut.start..cut.end).await.unwrap();
        let days = &self.stores.venue_days;
        let lease = days
            .acquire(&key, day, "test", now, 60_000)
            .await
            .unwrap()
            .unwrap();
        let before = days
            .get(&key, day)
            .await
            .unwrap()
            .and_then(|row| row.published)
            .map(|info| info.generation);
        let mut info = GenerationInfo {
            generation: lease.fence,
            published_at: now,
            duration_ms: 5,
            provisional: false,
            lagging: false,
            reason: "first computation".to_owned(),
            calendar: venue.calendar,
            day_start: cut.start,
            day_end: cut.end,
            layout: venue.layout_on(day).fingerprint(),
            definitions: definitions::VERSION,
            marks,
            events: [(
                Kind::Position,
                Checksum {
                    rows: points.len() as u64,
                    sum: 7,
                },
            )]
            .into(),
            conflicts: 0,
            rows: rows.len() as u64,
            sessions: sessions.len() as u64,
            files: Vec::new(),
            late: LateLedger::default(),
            drift: None,
            changed: None,
            carry: Carry::default(),
            carry_in: Carry::default(),
            exclusions: Default::default(),
            slices: Some(DaySlices::of(&cut, venue.layout_on(day))),
        };
        change(&mut info);
        if info.slices.is_none() {
            // From before there were slices.
            rows.retain(|row| row.slice == Slice::All);
            info.rows = rows.len() as u64;
        }
        self.stores
            .sessions
            .write(&key, day, lease.fence, sessions)
            .await
            .unwrap();
        self.stores
            .aggregates
            .write(&key, day, lease.fence, rows)
            .await
            .unwrap();
        let (documents, published_at) = (self.stores.documents.as_ref(), info.published_at);
        publications::announce(documents, days.as_ref(), &key, day, lease.fence, before)
            .await
            .unwrap();
        assert_eq!(days.publish(&lease, before, info).await.unwrap(), Flip::Done);
        publications::settle(documents, days.as_ref(), &key, published_at)
            .await
            .unwrap();
        days.release(&lease).await.unwrap();
        lease.fence
    }

    /// Shows a day in the live view, computed from positions.
    pub(super) async fn show_live(&self, venue: &str, day: &str, points: &[Point<'_>]) {
        let (key, day) = (venue_key(venue), day.parse::<LocalDay>().unwrap());
        let venue = self.venue(venue).await;
        let rows = Arc::new(compute(&venue, day, points).rows);
        let now = parse_ts(NOW).unwrap();
        let live = LiveVenue {
            venue: key.clone(),
            fence: 1,
            as_of: now,
            watermark: now - 2_000,
            occupancy: vec![("_venue".into(), 2), ("left".into(), 1), ("right".into(), 0)],
            open_sessions: 2,
            late_events: 0,
            days: vec![LiveDay {
                day,
                layout: venue.layout_on(day).fingerprint(),
                rows,
            }],
        };
        self.live.publish(live);
    }
}

impl Answer {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The code of the problem that the answer is; panics when it is none.
    pub(super) fn problem(&self) -> String {
        assert_eq!(
            self.headers[header::CONTENT_TYPE],
            "application/problem+json",
            "{}",
            self.text()
        );
        let json = self.json();
        assert_eq!(json["status"], self.status.as_u16(), "{json}");
        assert!(
            json["detail"].as_str().is_some_and(|detail| detail.len() > 10),
            "{json}"
        );
        json["code"].as_str().unwrap().to_owned()
    }
}

/// A venue of two zones, 10 m each, in Madrid.
pub(super) fn venue_spec(id: &str) -> Value {
    json!({
        "id": id, "tz": "Europe/Madrid", "width": 20, "height": 10, "tags": ["city"],
        "zones": [
            { "id": "left", "polygon": [[0, 0], [10, 0], [10, 10], [0, 10]], "tags": ["food"] },
            { "id": "right", "polygon": [[10, 0], [20, 0], [20, 10], [10, 10]] },
        ],
    })
}

pub(super) fn venue_key(venue: &str) -> VenueKey {
    VenueKey::new(TenantId::new(TENANT).unwrap(), VenueId::new(venue).unwrap())
}

/// What the model makes of positions.
pub(super) struct Computed {
    pub(super) rows: Vec<AggregateRow>,
    pub(super) sessions: Vec<StoredSession>,
}

pub(super) fn compute(venue: &Venue, day: LocalDay, points: &[Point<'_>]) -> Computed {
    struct Both {
        day: DayAccumulator,
        sessions: Vec<Session>,
    }
    impl SessionSink for Both {
        fn session(&mut self, session: Session) {
            self.day.add_session(&session);
            self.sessions.push(session);
        }
        fn stay(&mut self, at: &dwell_model::session::PositionEvent<'_>, duration_ms: i64, is_staff: bool) {
            self.day.stay(at, duration_ms, is_staff);
        }
    }
    let (cut, layout) = (venue.calendar.cut(day), venue.layout_on(day));
    let batch = batch(points);
    let mut sink = Both {
        day: DayAccumulator::new(&cut, layout),
        sessions: Vec::new(),
    };
    fold_day(
        &FoldContext::new(&cut, layout),
        &batch,
        &sort_by_key(&batch),
        &mut sink,
    );
    sink.day.observe_positions(&batch, None);
    let mut sessions: Vec<StoredSession> = sink
        .sessions
        .into_iter()
        .map(|session| StoredSession {
            id: session_id(day, &session.subject, session.start),
            session,
        })
        .collect();
    sessions.sort_by(|a, b| (a.session.start, &a.id).cmp(&(b.session.start, &b.id)));
    Computed {
        rows: sink.day.rows(),
        sessions,
    }
}

pub(super) fn batch(points: &[Point<'_>]) -> EventBatch {
    let rows: Vec<_> = points
        .iter()
        .map(|&(sensor, track, ts, x, y)| (sensor, track, parse_ts(ts).unwrap(), x, y))
        .collect();
    position_batch(&rows)
}

/// The declared kinds, of which `seal` is an admin's, and of which `recompute` can be taken up again.
#[derive(Debug)]
struct Catalogue(DeclaredJobs);

impl JobCatalogue for Catalogue {
    fn kinds(&self) -> Vec<(String, String)> {
        self.0.kinds()
    }

    fn decide(&self, request: &JobRequest) -> Result<Value, JobRefusal> {
        self.0.decide(request)
    }

    fn needs(&self, kind: &str) -> Role {
        match kind {
            "seal" => Role::Admin,
            _ => Role::Operator,
        }
    }

    fn retry(&self, job: &Job) -> Result<Value, JobRefusal> {
        match job.kind.as_str() {
            "recompute" => Ok(json!({"only": job.report})),
            _ => Err(JobRefusal("not this one".to_owned())),
        }
    }
}

fn job_catalogue() -> Catalogue {
    Catalogue(declared_jobs())
}

fn declared_jobs() -> DeclaredJobs {
    let job = |kind, options, required| DeclaredJob {
        kind,
        summary: "For tests.",
        takes_days: true,
        takes_dry_run: true,
        options,
        required,
    };
    DeclaredJobs::new(vec![
        job("recompute", &["force"], &[]),
        job("replay", &["entries"], &["entries"]),
        job("seal", &[], &[]),
        job("recut", &["tz", "day_start_hour"], &["tz", "day_start_hour"]),
    ])
}

/// A live view that shows what a test puts there.
#[derive(Default)]
pub(super) struct FakeLive {
    venues: Mutex<BTreeMap<VenueKey, watch::Sender<Option<Arc<LiveVenue>>>>>,
}

impl FakeLive {
    pub(super) fn publish(&self, live: LiveVenue) {
        let mut venues = self.venues.lock().unwrap();
        let sender = venues
            .entry(live.venue.clone())
            .or_insert_with(|| watch::channel(None).0);
        sender.send_replace(Some(Arc::new(live)));
    }

    pub(super) fn subscribers(&self, venue: &VenueKey) -> usize {
        self.venues
            .lock()
            .unwrap()
            .get(venue)
            .map_or(0, watch::Sender::receiver_count)
    }
}

#[async_trait]
impl LiveView for FakeLive {
    async fn venue(&self, venue: &VenueKey) -> Result<Option<Arc<LiveVenue>>> {
        Ok(self
            .venues
            .lock()
            .unwrap()
            .get(venue)
            .and_then(|sender| sender.borrow().clone()))
    }

    async fn subscribe(&self, venue: &VenueKey) -> Result<watch::Receiver<Option<Arc<LiveVenue>>>> {
        let mut venues = self.venues.lock().unwrap();
        Ok(venues
            .entry(venue.clone())
            .or_insert_with(|| watch::channel(None).0)
            .subscribe())
    }
}

/// Says that staged days may be committed: nobody else works on them.
struct Held;

#[async_trait]
impl StillHeld for Held {
    async fn still_held(&self, _: &StagedDay) -> Result<bool> {
        Ok(true)
    }
}

/// Long enough for keys and rates to be looked at anew.
pub(super) const A_WHILE: Duration = Duration::from_secs(10);
