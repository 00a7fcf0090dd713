//! The nights: every venue's closed days computed by themselves, each in its own local time.
//!
//! [`Nightly::run_once`] is one look at all venues: whose last day has closed, has been waited for, and is not done
//! yet. What is done for such a venue is everything dirty that has closed, so days missed while nothing ran are caught
//! up with, and late events of earlier days are included once a night. [`Service`] looks again and again. Nothing is
//! remembered beyond the process: what is dirty says what is to be done, and a venue whose night is done has nothing
//! dirty. Several services, in one process or many, share the work by the days' leases.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dwell_model::ids::VenueKey;
use dwell_model::layout::Venue;
use dwell_model::time::{LocalDay, TsMs};
use dwell_runtime::shutdown::ShutdownToken;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::error::{Doing, Error, Result};
use crate::layer::BatchLayer;
use crate::metrics;
use crate::ready::{NightTimes, NightWatch, Readiness};
use crate::report::{Outcome, RunReport};
use crate::run::DayRequest;
use crate::spec::{RunSpec, What};

/// Runs the nights until it is told to stop.
#[derive(Debug)]
pub struct Service {
    nightly: Nightly,
    status: watch::Sender<NightlyStatus>,
    look_now: Arc<Notify>,
}

/// Shows what the service does, and wakes it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    status: watch::Receiver<NightlyStatus>,
    look_now: Arc<Notify>,
}

/// How far the nights are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NightlyStatus {
    /// When all venues were last looked at; `None` before the first time.
    pub looked_at: Option<TsMs>,
    /// Venues known.
    pub venues: u64,
    /// Venues whose last closed day is not done yet: waiting for the raw writer, held elsewhere, or failed.
    pub waiting: u64,
    /// Those of them that should be done by now: the time at which their numbers must be there has passed.
    pub late: u64,
    /// Days of which a generation was published since the start.
    pub computed: u64,
    /// Days that failed since the start; a day that fails again counts again.
    pub failed: u64,
    /// The last failure, for people.
    pub last_error: Option<String>,
}

impl Service {
    /// A service over a layer, and the handle to it.
    pub fn new(layer: BatchLayer) -> (Self, Handle) {
        let (status, watched) = watch::channel(NightlyStatus::default());
        let look_now = Arc::new(Notify::new());
        let handle = Handle {
            status: watched,
            look_now: Arc::clone(&look_now),
        };
        (
            Self {
                nightly: Nightly::new(layer),
                status,
                look_now,
            },
            handle,
        )
    }

    /// Runs until the shutdown asks for its end. A day in work then is given up at its next chunk; the next start
    /// does it again.
    pub async fn run(self, shutdown: ShutdownToken) -> Result<()> {
        let layer = self.nightly.layer.clone();
        if !layer.config().nightly {
            shutdown.requested().await;
            return Ok(());
        }
        while !shutdown.is_requested() {
            let cancel = CancellationToken::new();
            let look = self.nightly.run_once(layer.now_ms(), &cancel);
            tokio::pin!(look);
            let looked = tokio::select! {
                looked = &mut look => looked,
                () = shutdown.requested() => {
                    cancel.cancel();
                    look.await
                }
            };
            match looked {
                Ok(_) | Err(Error::Cancelled) => {}
                Err(error) => tracing::error!(%error, "the venues' nights could not be looked at"),
            }
            self.status.send_replace(self.nightly.status());
            tokio::select! {
                () = shutdown.requested() => {}
                () = self.look_now.notified() => {}
                () = layer.clock().sleep(layer.config().look_every.as_duration()) => {}
            }
        }
        Ok(())
    }
}

impl Handle {
    /// How far the nights are.
    pub fn status(&self) -> NightlyStatus {
        self.status.borrow().clone()
    }

    /// Lets the service look at all venues without waiting for its time.
    pub fn look_now(&self) {
        self.look_now.notify_one();
    }

    /// Waits for the next look to end; `None` when the service is gone.
    pub async fn next_look(&mut self) -> Option<NightlyStatus> {
        self.status.changed().await.ok()?;
        Some(self.status.borrow_and_update().clone())
    }
}

/// The nights of all venues, one look at a time.
#[derive(Debug)]
pub struct Nightly {
    layer: BatchLayer,
    watch: NightWatch,
    state: Mutex<State>,
}

/// All venues of all tenants.
type Venues = Arc<Vec<(VenueKey, Venue)>>;

#[derive(Debug, Default)]
struct State {
    /// The venues, as of a version of the registry.
    venues: Option<(u64, Venues)>,
    nights: BTreeMap<VenueKey, Night>,
    status: NightlyStatus,
}

/// A venue's last closed day.
#[derive(Debug, Clone, Copy)]
struct Night {
    day: LocalDay,
    done: bool,
    /// When to try again what failed or was held.
    retry_at: TsMs,
}

/// A venue whose night has come.
#[derive(Debug)]
struct Due<'a> {
    venue: &'a VenueKey,
    day: LocalDay,
    lagging: bool,
}

impl Nightly {
    /// The nights of a layer's venues.
    pub fn new(layer: BatchLayer) -> Self {
        Self {
            layer,
            watch: NightWatch::default(),
            state: Mutex::default(),
        }
    }

    /// How far the nights are.
    pub fn status(&self) -> NightlyStatus {
        self.lock().status.clone()
    }

    /// Looks at all venues at `now` and does the nights that have come. An error means that the registry could not be
    /// read; venues that fail are counted, and tried again by a later look.
    pub async fn run_once(&self, now: TsMs, cancel: &CancellationToken) -> Result<RunReport> {
        let venues = self.venues().await?;
        let mut due = Vec::new();
        let ready_by_ms = self.layer.config().ready_by.as_ms();
        for (venue, plan) in venues.iter() {
            if cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let day = plan.calendar.day_of(now).prev();
            if !self.is_wanted(venue, day, now) {
                continue;
            }
            // What a worker that died had published, or this process before it was started again.
            self.layer.settle_feed(venue).await;
            let night = NightTimes::of(plan, day, ready_by_ms);
            match self.watch.readiness(&self.layer, venue, night, now).await {
                Ok(Readiness::NotYet) => {}
                Ok(readiness) => due.push(Due {
                    venue,
                    day,
                    lagging: readiness == Readiness::Lagging,
                }),
                Err(error) => self.failed(venue, &error),
            }
        }
        let report = Mutex::new(RunReport::default());
        let workers = self.layer.config().workers;
        futures::stream::iter(due)
            .for_each_concurrent(workers, |due| self.night(due, now, &report, cancel))
            .await;
        let report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.looked(now, &venues);
        Ok(report.finish(0, cancel.is_cancelled()))
    }

    /// One venue's night: everything dirty that has closed, in order.
    async fn night(&self, due: Due<'_>, now: TsMs, report: &Mutex<RunReport>, cancel: &CancellationToken) {
        let Due { venue, day, lagging } = due;
        let done = match self
            .dirty_days(venue, lagging.then_some(day), report, cancel)
            .await
        {
            // What the raw writer brings after all is to be computed as soon as it is there, not a night later.
            Ok(done) => done && !lagging,
            Err(error) => {
                self.failed(venue, &error);
                false
            }
        };
        let retry_at = now.saturating_add(self.layer.config().retry_after.as_ms());
        self.lock()
            .nights
            .insert(venue.clone(), Night { day, done, retry_at });
    }

    /// Computes a venue's dirty days; whether nothing is left.
    async fn dirty_days(
        &self,
        venue: &VenueKey,
        lagging: Option<LocalDay>,
        report: &Mutex<RunReport>,
        cancel: &CancellationToken,
    ) -> Result<bool> {
        let spec = RunSpec {
            include_open: false,
            ..RunSpec::all_dirty(What::Recompute)
        };
        let planned = self.layer.plan_venue(venue, &spec).await?;
        let mut queue: std::collections::BTreeSet<LocalDay> = planned.iter().map(|day| day.day).collect();
        let mut clean = true;
        while !queue.is_empty() {
            if cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let mut requests = Vec::new();
            while requests.len() < self.layer.config().group_days
                && let Some(day) = queue.pop_first()
            {
                requests.push(DayRequest {
                    lagging: lagging == Some(day),
                    ..DayRequest::recompute(day)
                });
            }
            let group: Vec<LocalDay> = requests.iter().map(|request| request.day).collect();
            for of_day in self.layer.run_group(venue, requests, cancel).await {
                clean &= !matches!(of_day.outcome, Outcome::Failed | Outcome::Skipped);
                if of_day.outcome == Outcome::Computed
                    && let Some(next) = self.layer.day_that_starts_from(venue, of_day.day).await?
                    && !group.contains(&next)
                {
                    queue.insert(next);
                }
                self.count(&of_day);
                report.lock().unwrap_or_else(PoisonError::into_inner).add(of_day);
            }
        }
        Ok(clean)
    }

    /// Whether a venue's night is to be done: not done yet, and not tried a moment ago (a clock that was set back since
    /// makes that moment lie ahead).
    fn is_wanted(&self, venue: &VenueKey, day: LocalDay, now: TsMs) -> bool {
        let latest = now.saturating_add(self.layer.config().retry_after.as_ms());
        match self.lock().nights.get(venue) {
            Some(night) if night.day == day => {
                !night.done && (night.retry_at <= now || night.retry_at > latest)
            }
            _ => true,
        }
    }

    /// All venues of all tenants. Read again only when the registry has changed.
    async fn venues(&self) -> Result<Venues> {
        let registry = &self.layer.stores().registry;
        let version = registry.version().await.doing("read the registry's version")?;
        if let Some((known, venues)) = &self.lock().venues
            && *known == version
        {
            return Ok(Arc::clone(venues));
        }
        let mut venues = Vec::new();
        for tenant in registry.tenants().await.doing("list the tenants")? {
            for stored in registry.venues(&tenant).await.doing("list the venues")? {
                let key = VenueKey::new(tenant.clone(), stored.venue.id.clone());
                venues.push((key, stored.venue));
            }
        }
        let venues = Arc::new(venues);
        self.lock().venues = Some((version, Arc::clone(&venues)));
        Ok(venues)
    }

    fn looked(&self, now: TsMs, venues: &[(VenueKey, Venue)]) {
        let mut state = self.lock();
        let ready_by_ms = self.layer.config().ready_by.as_ms();
        let (mut waiting, mut late) = (0, 0);
        for (venue, plan) in venues {
            let last = plan.calendar.day_of(now).prev();
            let night = state.nights.get(venue);
            if night.is_some_and(|night| night.day == last && night.done) {
                continue;
            }
            waiting += 1;
            late += usize::from(now >= NightTimes::of(plan, last, ready_by_ms).ready_by);
        }
        state.status.looked_at = Some(now);
        state.status.venues = venues.len() as u64;
        state.status.waiting = waiting as u64;
        state.status.late = late as u64;
        metrics::nights_waiting(waiting);
        metrics::nights_late(late);
    }

    fn count(&self, report: &crate::report::DayReport) {
        let status = &mut self.lock().status;
        match report.outcome {
            Outcome::Computed => status.computed += 1,
            Outcome::Failed => {
                status.failed += 1;
                status.last_error = Some(format!("{} {}: {}", report.venue, report.day, report.reason));
                metrics::night_failed();
            }
            _ => {}
        }
    }

    fn failed(&self, venue: &VenueKey, error: &Error) {
        if matches!(error, Error::Cancelled) {
            return;
        }
        tracing::error!(%venue, %error, "a venue's night failed");
        metrics::night_failed();
        self.lock().status.last_error = Some(format!("{venue}: {error}"));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
