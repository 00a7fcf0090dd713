//! Looks at the schedules again and again and asks for the jobs that are due.
//!
//! Nothing is remembered beyond the process but the [`ScheduleRun`] documents. A look asks for as many jobs as there is
//! room ([`UNFINISHED_MAX`] that have not ended), tenants in turn, so that after a downtime what was missed does not all
//! begin at once. A look also finds decided recuts whose job has ended or is lost, and has them gone on with.
//!
//! Between looks a scheduler remembers what no other can have changed ([`Remembered`]): how jobs have ended, the venues as
//! of the registry's version, and of nights that are waited for one day that is still to be computed, with its row: while
//! the row stays as it was nothing is planned anew, for a minute at most.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use dwell_batch_layer::BatchLayer;
use dwell_batch_layer::spec::{RunSpec, Venues, What};
use dwell_model::ids::{TenantId, VenueId, VenueKey};
use dwell_model::time::{LocalDay, TsMs};
use dwell_runtime::clock::SharedClock;
use dwell_runtime::shutdown::ShutdownToken;
use dwell_serving_api::{JobCatalogue, go_on_with_recut};
use dwell_storage::api::permits::{self, HistoricalPermit};
use dwell_storage::api::recuts::Recut;
use dwell_storage::api::{Flip, Job, JobState, StoredVenue, Stores, VenueDay, VenueDaysReader, documents};
use dwell_storage::error::ErrorKind;
use serde::Serialize;

use super::{BuiltIn, Due, NIGHTS, Schedule, ScheduleRun, Timetable, builtin};
use crate::backup::INSTALLATION_TENANT;
use crate::metrics;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Most jobs of schedules that have not ended, over all tenants.
const UNFINISHED_MAX: usize = 16;

/// How long nights are known to be undone without being planned anew.
const UNDONE_MS_MAX: i64 = 60_000;
/// Most ends of jobs that are remembered.
const ENDS_MAX: usize = 10_000;

/// Asks for jobs when they are due.
pub(crate) struct Scheduler {
    pub(crate) stores: Stores,
    pub(crate) batch: BatchLayer,
    pub(crate) kinds: Arc<dyn JobCatalogue>,
    pub(crate) clock: SharedClock,
    pub(crate) built_in: BuiltIn,
    pub(crate) remembered: Remembered,
}

/// What a scheduler remembers between its looks.
#[derive(Debug, Default)]
pub(crate) struct Remembered(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    /// How jobs have ended: that never changes.
    ends: BTreeMap<(TenantId, String), JobState>,
    /// The venues, as of a version of the registry.
    venues: BTreeMap<TenantId, (u64, Arc<Vec<StoredVenue>>)>,
    /// Per tenant and venues that nights are waited for.
    undone: BTreeMap<(TenantId, String), Undone>,
    /// The schedules whose gauges are shown.
    shown: BTreeSet<(String, String)>,
}

/// A night that is not done.
#[derive(Debug, Clone)]
struct Undone {
    planned_at: TsMs,
    registry: u64,
    /// How many days of the venue.
    days: usize,
    /// One of them, as its row was. A day becomes clean by a publication, which changes the row.
    witness: (VenueKey, LocalDay, Option<VenueDay>),
}

impl Remembered {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end_of(&self, tenant: &TenantId, job: &str) -> Option<JobState> {
        self.memory().ends.get(&(tenant.clone(), job.to_owned())).copied()
    }

    fn ended(&self, tenant: &TenantId, job: &str, state: JobState) {
        let mut memory = self.memory();
        if memory.ends.len() >= ENDS_MAX {
            memory.ends.pop_first();
        }
        memory.ends.insert((tenant.clone(), job.to_owned()), state);
    }

    async fn venues(&self, stores: &Stores, tenant: &TenantId) -> Result<Arc<Vec<StoredVenue>>> {
        let version = stores.registry.version().await?;
        if let Some((known, venues)) = self.memory().venues.get(tenant)
            && *known == version
        {
            return Ok(Arc::clone(venues));
        }
        let venues = Arc::new(stores.registry.venues(tenant).await?);
        let known = (version, Arc::clone(&venues));
        self.memory().venues.insert(tenant.clone(), known);
        Ok(venues)
    }

    /// Takes the gauges of schedules away that are no more.
    fn showing(&self, shown: BTreeSet<(String, String)>) {
        let before = std::mem::replace(&mut self.memory().shown, shown.clone());
        for (tenant, name) in before.difference(&shown) {
            metrics::schedule_gone(tenant, name);
        }
    }
}

/// How a schedule, of one venue where it has a job per venue, stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Standing {
    pub(crate) name: String,
    pub(crate) venue: Option<VenueId>,
    /// The time that was last answered, and by which job.
    pub(crate) last: Option<ScheduleRun>,
    /// How that job ended, or is doing; `None` before the first.
    pub(crate) last_state: Option<JobState>,
    pub(crate) next: Next,
}

/// What comes next for a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum Next {
    /// It does nothing until it is resumed.
    Paused,
    /// Nothing before this time.
    At { at: Option<TsMs> },
    /// It was due at this time; its job has not been asked for yet.
    Due { since: TsMs },
    /// It was due at this time and waits for others.
    Held { since: TsMs, because: String },
    /// Its job has not ended.
    Running { since: TsMs },
    /// The tenant is no longer permitted to have such jobs done: none is asked for until it is again.
    Denied { because: String },
}

/// A job that is due.
struct Wanted {
    tenant: TenantId,
    standing: Standing,
    schedule: Schedule,
    /// Version of the schedule's run, which the next one replaces.
    version: Option<u64>,
}

/// A tenant's schedules, as of one look.
struct Seen {
    venues: Arc<Vec<StoredVenue>>,
    schedules: Vec<(String, Schedule)>,
    runs: BTreeMap<String, documents::Stored<ScheduleRun>>,
    jobs: BTreeMap<String, JobState>,
    permit: Option<HistoricalPermit>,
}

impl Scheduler {
    /// Looks until shutdown.
    pub(crate) async fn run(self, shutdown: ShutdownToken) -> Result<()> {
        loop {
            let looked = tokio::select! {
                biased;
                () = shutdown.requested() => return Ok(()),
                looked = self.run_once(self.clock.now_ms()) => looked,
            };
            if let Err(error) = looked {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "the schedules could not be looked at; trying again"
                );
            }
            tokio::select! {
                biased;
                () = shutdown.requested() => return Ok(()),
                () = self.clock.sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// One look at all tenants' schedules: asks for what is due; returns how many jobs it asked for.
    pub(crate) async fn run_once(&self, now: TsMs) -> Result<usize> {
        let mut due: Vec<VecDeque<Wanted>> = Vec::new();
        let mut unfinished = 0;
        let mut shown = BTreeSet::new();
        for tenant in self.stores.registry.tenants().await? {
            let all = documents::all::<Schedule>(self.stores.documents.as_ref(), &tenant).await?;
            // Without a venue there is nothing to schedule for; an installation into which a backup is brought back is
            // left alone.
            let all = match self.remembered.venues(&self.stores, &tenant).await?.is_empty() {
                true => all,
                false => self.settle_built_in(&tenant, all, now).await?,
            };
            let seen = see(&self.stores, &tenant, all, &self.remembered).await?;
            let mut of_tenant = VecDeque::new();
            for (name, schedule) in &seen.schedules {
                let standings = self.standings_of(&tenant, &seen, name, schedule, now).await?;
                report(&tenant, name, &standings, now);
                shown.insert((tenant.as_str().to_owned(), name.clone()));
                for standing in standings {
                    self.heal(&tenant, schedule, &standing).await?;
                    match standing.next {
                        Next::Running { .. } => unfinished += 1,
                        Next::Due { .. } => {
                            let run = seen.runs.get(&run_id(name, standing.venue.as_ref()));
                            let version = run.map(|run| run.version);
                            of_tenant.push_back(Wanted {
                                tenant: tenant.clone(),
                                standing,
                                schedule: schedule.clone(),
                                version,
                            });
                        }
                        _ => {}
                    }
                }
            }
            due.push(of_tenant);
        }
        self.remembered.showing(shown);
        self.go_on_with_recuts(now).await?;
        let mut asked = 0;
        // Tenants in turn: one of many venues does not push the others out.
        while unfinished + asked < UNFINISHED_MAX && due.iter().any(|of_tenant| !of_tenant.is_empty()) {
            for of_tenant in &mut due {
                let Some(wanted) = of_tenant.pop_front() else {
                    continue;
                };
                if unfinished + asked < UNFINISHED_MAX {
                    asked += usize::from(self.ask(&wanted, now).await?);
                }
            }
        }
        Ok(asked)
    }

    /// Asks for the jobs of decided recuts that have none any more: all work on their venues' days waits for them.
    async fn go_on_with_recuts(&self, now: TsMs) -> Result<()> {
        let (documents, jobs) = (self.stores.documents.as_ref(), self.stores.jobs.as_ref());
        for tenant in self.stores.registry.tenants().await? {
            let decided = documents::all::<Recut>(documents, &tenant).await?;
            for recut in decided.into_iter().filter(|recut| recut.value.is_decided()) {
                let venue = VenueKey::new(tenant.clone(), VenueId::new(&recut.id)?);
                let by = "scheduler";
                let gone_on = go_on_with_recut(
                    documents,
                    jobs,
                    self.kinds.as_ref(),
                    &venue,
                    &recut.value,
                    by,
                    now,
                )
                .await;
                if let Err(problem) = gone_on {
                    tracing::error!(%venue, error = problem.detail(), "a decided recut has no job, and none could be asked for");
                }
            }
        }
        Ok(())
    }

    /// How a schedule stands, of each venue where it has a job per venue.
    async fn standings_of(
        &self,
        tenant: &TenantId,
        seen: &Seen,
        name: &str,
        schedule: &Schedule,
        now: TsMs,
    ) -> Result<Vec<Standing>> {
        let mut standings = plain_standings(seen, name, schedule, now);
        for standing in &mut standings {
            if let Next::Due { since } = standing.next
                && let Some(because) = self
                    .held(tenant, seen, schedule, standing.venue.as_ref(), now)
                    .await?
            {
                standing.next = Next::Held { since, because };
            }
        }
        Ok(standings)
    }

    /// What a due schedule has to wait for.
    async fn held(
        &self,
        tenant: &TenantId,
        seen: &Seen,
        schedule: &Schedule,
        venue: Option<&VenueId>,
        now: TsMs,
    ) -> Result<Option<String>> {
        for before in &schedule.after {
            if before == NIGHTS {
                let venues = match (venue, &schedule.venues) {
                    (Some(venue), _) => Venues::These(vec![venue.clone()]),
                    (None, Some(venues)) => Venues::These(venues.clone()),
                    (None, None) => Venues::All,
                };
                if let Some(because) = self.nights_undone(tenant, venues, now).await? {
                    return Ok(Some(because));
                }
                continue;
            }
            let Some((_, other)) = seen.schedules.iter().find(|(name, _)| name == before) else {
                return Ok(Some(format!("there is no schedule {before:?} any more")));
            };
            let same_venue = |standing: &Standing| {
                venue.is_none() || standing.venue.is_none() || standing.venue.as_ref() == venue
            };
            for standing in plain_standings(seen, before, other, now)
                .iter()
                .filter(|other| same_venue(other))
            {
                match (&standing.next, standing.last_state) {
                    (Next::Due { .. } | Next::Held { .. } | Next::Running { .. }, _) => {
                        return Ok(Some(format!("{before:?} is not done")));
                    }
                    (Next::Denied { .. }, _) => {
                        return Ok(Some(format!("{before:?} is not permitted any more")));
                    }
                    (Next::At { .. }, Some(state)) if state != JobState::Succeeded => {
                        return Ok(Some(format!("the last job of {before:?} is {}", state.word())));
                    }
                    _ => {}
                }
            }
        }
        Ok(None)
    }

    /// Whether closed days of some venues are still to be computed, and which.
    pub(super) async fn nights_undone(
        &self,
        tenant: &TenantId,
        venues: Venues,
        now: TsMs,
    ) -> Result<Option<String>> {
        let key = (tenant.clone(), serde_json::to_string(&venues)?);
        let registry = self.stores.registry.version().await?;
        let days = self.stores.venue_days.as_ref();
        let because = |undone: &Undone| {
            let (venue, ..) = &undone.witness;
            format!(
                "{} closed days of {} are to be computed",
                undone.days, venue.venue
            )
        };
        let known = self.remembered.memory().undone.get(&key).cloned();
        if let Some(known) = known.filter(|known| {
            known.registry == registry && (0..UNDONE_MS_MAX).contains(&(now - known.planned_at))
        }) {
            let (venue, day, row) = &known.witness;
            if VenueDaysReader::get(days, venue, *day).await? == *row {
                return Ok(Some(because(&known)));
            }
        }
        let nights = RunSpec {
            venues,
            include_open: false,
            ..RunSpec::all_dirty(What::Recompute)
        };
        let plan = self.batch.plan_spec(tenant, &nights).await?;
        let first = plan
            .first()
            .and_then(|(venue, days)| Some((venue.clone(), days.first()?.day, days.len())));
        let Some((venue, day, count)) = first else {
            self.remembered.memory().undone.remove(&key);
            return Ok(None);
        };
        let row = VenueDaysReader::get(days, &venue, day).await?;
        let undone = Undone {
            planned_at: now,
            registry,
            days: count,
            witness: (venue, day, row),
        };
        let because = because(&undone);
        self.remembered.memory().undone.insert(key, undone);
        Ok(Some(because))
    }

    /// Writes down the built-in schedules as they should be; returns all schedules as they stand then.
    async fn settle_built_in(
        &self,
        tenant: &TenantId,
        all: Vec<documents::Stored<Schedule>>,
        now: TsMs,
    ) -> Result<Vec<documents::Stored<Schedule>>> {
        let known = all
            .iter()
            .map(|stored| (stored.id.clone(), stored.value.clone()))
            .collect();
        let is_installation = tenant.as_str() == INSTALLATION_TENANT;
        let changes = builtin::settle(&self.built_in, is_installation, &known, now);
        if changes.is_empty() {
            return Ok(all);
        }
        let table = self.stores.documents.as_ref();
        for (name, schedule) in changes {
            let version = all
                .iter()
                .find(|stored| stored.id == name)
                .map(|stored| stored.version);
            // Lost to another scheduler that does the same, or to an operator: the next look sees to it.
            if documents::store(table, tenant, &name, &schedule, version).await? == Flip::Done {
                tracing::info!(
                    %tenant,
                    schedule = name,
                    kind = schedule.kind,
                    removed = schedule.removed,
                    "built-in schedule settled"
                );
            }
        }
        Ok(documents::all::<Schedule>(table, tenant).await?)
    }

    /// Asks for the job of a due time, unless another scheduler has; whether it did.
    async fn ask(&self, wanted: &Wanted, now: TsMs) -> Result<bool> {
        let Wanted {
            tenant,
            standing,
            schedule,
            version,
        } = wanted;
        let Next::Due { since } = standing.next else {
            return Ok(false);
        };
        let run = ScheduleRun {
            planned_at: since,
            job: dwell_serving_api::new_job_id(now)
                .map_err(|problem| anyhow::anyhow!("{}", problem.detail()))?,
        };
        let id = run_id(&standing.name, standing.venue.as_ref());
        let stored = documents::store(self.stores.documents.as_ref(), tenant, &id, &run, *version).await?;
        if stored == Flip::Lost {
            return Ok(false);
        }
        dwell_runtime::failpoint!("schedule.before_job");
        self.create(tenant, schedule, standing, &run, now).await?;
        Ok(true)
    }

    /// Stores the job of a run whose scheduler died before it could.
    async fn heal(&self, tenant: &TenantId, schedule: &Schedule, standing: &Standing) -> Result<()> {
        match (&standing.last, standing.last_state) {
            (Some(run), None) => {
                self.create(tenant, schedule, standing, run, self.clock.now_ms())
                    .await
            }
            _ => Ok(()),
        }
    }

    async fn create(
        &self,
        tenant: &TenantId,
        schedule: &Schedule,
        standing: &Standing,
        run: &ScheduleRun,
        now: TsMs,
    ) -> Result<()> {
        let venues = match &standing.venue {
            Some(venue) => Some(vec![venue.clone()]),
            None => schedule.venues.clone(),
        };
        let request = schedule.request(tenant, venues);
        let spec = match self.kinds.decide(&request) {
            Ok(spec) => spec,
            Err(refusal) => {
                // Checked when it was written; what a kind takes may have changed since.
                tracing::error!(schedule = standing.name, %refusal, "a schedule asks for what there is not any more");
                return Ok(());
            }
        };
        let due_at = format!("due at {}", dwell_model::time::format_rfc3339(run.planned_at));
        let job = Job::queued(
            run.job.clone(),
            tenant.clone(),
            &schedule.kind,
            spec,
            format!("schedule:{}", standing.name),
            Some(match &schedule.reason {
                Some(reason) => format!("{reason} ({due_at})"),
                None => due_at,
            }),
            now,
        )
        .in_lane(self.kinds.lane(&request));
        match self.stores.jobs.create(&job).await {
            Ok(()) => {}
            // Another scheduler has found the same run without its job.
            Err(error) if error.kind() == ErrorKind::Conflict => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        tracing::info!(
            schedule = standing.name,
            job = job.id,
            kind = job.kind,
            "scheduled job asked for"
        );
        self.kinds.created(&job);
        Ok(())
    }
}

/// How all schedules of a tenant stand, what they wait for apart.
pub(crate) async fn standings(
    stores: &Stores,
    tenant: &TenantId,
    now: TsMs,
) -> Result<Vec<(Schedule, Standing)>> {
    let documents = documents::all::<Schedule>(stores.documents.as_ref(), tenant).await?;
    let seen = see(stores, tenant, documents, &Remembered::default()).await?;
    let mut all = Vec::new();
    for (name, schedule) in &seen.schedules {
        let of_schedule = plain_standings(&seen, name, schedule, now);
        all.extend(
            of_schedule
                .into_iter()
                .map(|standing| (schedule.clone(), standing)),
        );
    }
    Ok(all)
}

async fn see(
    stores: &Stores,
    tenant: &TenantId,
    all: Vec<documents::Stored<Schedule>>,
    remembered: &Remembered,
) -> Result<Seen> {
    let schedules: Vec<(String, Schedule)> = all
        .into_iter()
        .filter(|stored| !stored.value.removed)
        .map(|stored| (stored.id, stored.value))
        .collect();
    let mut seen = Seen {
        venues: Arc::default(),
        schedules,
        runs: BTreeMap::new(),
        jobs: BTreeMap::new(),
        permit: None,
    };
    if seen.schedules.is_empty() {
        return Ok(seen);
    }
    seen.venues = remembered.venues(stores, tenant).await?;
    let table = stores.documents.as_ref();
    seen.permit = permits::historical(table, tenant).await?;
    for run in documents::all::<ScheduleRun>(table, tenant).await? {
        let job = &run.value.job;
        if let Some(state) = remembered.end_of(tenant, job) {
            seen.jobs.insert(job.clone(), state);
        } else if let Some(found) = stores.jobs.get(tenant, job).await? {
            if found.state.is_final() {
                remembered.ended(tenant, job, found.state);
            }
            seen.jobs.insert(found.id, found.state);
        }
        seen.runs.insert(run.id.clone(), run);
    }
    Ok(seen)
}

/// How a schedule stands by itself, whatever it waits for.
fn plain_standings(seen: &Seen, name: &str, schedule: &Schedule, now: TsMs) -> Vec<Standing> {
    let wanted: Option<BTreeSet<&VenueId>> = schedule.venues.as_ref().map(|venues| venues.iter().collect());
    let targets: Vec<(Option<VenueId>, chrono_tz::Tz)> = match schedule.is_per_venue() {
        false => vec![(None, chrono_tz::Tz::UTC)],
        true => seen
            .venues
            .iter()
            .map(|stored| &stored.venue)
            .filter(|venue| wanted.as_ref().is_none_or(|wanted| wanted.contains(&venue.id)))
            .map(|venue| (Some(venue.id.clone()), venue.calendar.tz()))
            .collect(),
    };
    let denied = seen
        .permit
        .as_ref()
        .and_then(|permit| permit.schedule_refusal(&schedule.kind));
    let standing = |(venue, zone): (Option<VenueId>, chrono_tz::Tz)| {
        let last = seen
            .runs
            .get(&run_id(name, venue.as_ref()))
            .map(|run| run.value.clone());
        let last_state = last.as_ref().and_then(|run| seen.jobs.get(&run.job).copied());
        // Both were checked when the schedule was written.
        let zone = schedule.zone(zone).ok()?;
        let timetable = Timetable::parse(&schedule.cron, zone).ok()?;
        let answered = last
            .as_ref()
            .map_or(schedule.since, |run| run.planned_at.max(schedule.since));
        let next = match (&last, last_state) {
            _ if schedule.paused => Next::Paused,
            (Some(run), None) => Next::Running {
                since: run.planned_at,
            },
            (Some(run), Some(state)) if !state.is_final() => Next::Running {
                since: run.planned_at,
            },
            _ if denied.is_some() => Next::Denied {
                because: denied.clone().unwrap_or_default(),
            },
            _ => match timetable.due(answered, now) {
                Due::Since(since) => Next::Due { since },
                Due::At(at) => Next::At { at },
            },
        };
        Some(Standing {
            name: name.to_owned(),
            venue,
            last,
            last_state,
            next,
        })
    };
    targets.into_iter().filter_map(standing).collect()
}

/// Tells the metrics how a schedule stands: each cause is a gauge of its own that falls back by itself.
fn report(tenant: &TenantId, name: &str, standings: &[Standing], now: TsMs) {
    let overdue = standings.iter().filter_map(|standing| match standing.next {
        Next::Due { since } | Next::Held { since, .. } | Next::Running { since } => Some(now - since),
        Next::Paused | Next::At { .. } | Next::Denied { .. } => None,
    });
    let held = standings
        .iter()
        .filter(|standing| matches!(standing.next, Next::Held { .. } | Next::Denied { .. }));
    let troubled = |standing: &&Standing| {
        matches!(
            standing.last_state,
            Some(JobState::Failed | JobState::Partial | JobState::Cancelled)
        )
    };
    metrics::schedule(
        tenant.as_str(),
        name,
        overdue.max().unwrap_or(0),
        held.count(),
        standings.iter().filter(troubled).count(),
    );
}

fn run_id(name: &str, venue: Option<&VenueId>) -> String {
    match venue {
        Some(venue) => format!("{name}@{venue}"),
        None => name.to_owned(),
    }
}
