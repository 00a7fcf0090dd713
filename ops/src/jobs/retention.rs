//! `retention`: compares old days with the archive, marks what goes, and sweeps it.
//!
//! Venue after venue: a mark is made and then swept day by day. A job that is done again, after a crash or a failure that
//! passed, goes on with the mark that it has made, and with the sums that stand in it.

use std::collections::BTreeMap;

use anyhow::Result;
use async_trait::async_trait;
use dwell_batch_layer::spec::Venues;
use dwell_model::ids::{VenueId, VenueKey};
use dwell_model::layout::Venue;
use dwell_model::time::{LocalDay, TsMs, parse_ts};
use dwell_retention::marks::{self, Mark};
use dwell_retention::{Comparing, DayPlan, Error, KeepReason, Policy, Tally, policy};
use dwell_serving_api::{DeclaredJob, JobRefusal, JobRequest};
use dwell_storage::api::{Job, JobState, Lane};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::days::venues_of;
use super::kinds::{JobKind, Outcome};
use super::{JobWorker, Progress, spec_of};

/// Days that a report tells one by one.
const DAYS_TOLD: usize = 500;

/// The job's spec, as the catalogue stores it.
#[derive(Debug, Deserialize)]
struct Spec {
    venues: Value,
    #[serde(default)]
    dry_run: bool,
    now: Option<String>,
}

pub(super) struct Retention;

#[async_trait]
impl JobKind for Retention {
    fn declared(&self) -> Option<DeclaredJob> {
        Some(DeclaredJob {
            kind: "retention",
            summary: "Delete raw events and sessions that are old and proven archived, and old generations",
            takes_days: false,
            takes_dry_run: true,
            options: &["now"],
            required: &[],
        })
    }

    fn check(&self, request: &JobRequest) -> Result<(), JobRefusal> {
        match request.options.get("now") {
            None => Ok(()),
            Some(Value::String(text)) if parse_ts(text).is_ok() => Ok(()),
            Some(_) => Err(JobRefusal(
                "now must be a time like 2026-11-21T03:00:00Z".to_owned(),
            )),
        }
    }

    fn lane(&self, _: &JobRequest) -> Lane {
        Lane::Backfill
    }

    fn runs_alone(&self) -> bool {
        true
    }

    fn retry(&self, job: &Job) -> Result<Value, JobRefusal> {
        Ok(job.spec.clone())
    }

    async fn run(
        &self,
        worker: &JobWorker,
        job: &Job,
        progress: Progress,
        cancel: CancellationToken,
    ) -> Result<Outcome> {
        let spec: Spec = spec_of(job)?;
        let acting = spec.now.as_deref().map(parse_ts).transpose()?;
        let mut run = Run {
            worker,
            job,
            progress,
            cancel,
            now: acting.unwrap_or_else(|| worker.clock.now_ms()),
            done: Done::default(),
        };
        let wanted = venues_of(&spec.venues)?;
        for stored in worker.stores.registry.venues(&job.tenant).await? {
            let venue = stored.venue;
            if matches!(&wanted, Venues::These(ids) if !ids.contains(&venue.id)) {
                continue;
            }
            let outcome = match spec.dry_run {
                true => run.look(&venue).await,
                false => run.venue(&venue).await,
            };
            match outcome {
                Ok(()) => {}
                Err(Error::Cancelled) => return Ok(Outcome::cancelled(run.done.report(&spec, run.now))),
                Err(error) => return Err(error.into()),
            }
        }
        if matches!(wanted, Venues::All) && !spec.dry_run {
            dwell_retention::metrics::days_in_doubt(job.tenant.as_str(), run.done.total().in_doubt);
        }
        let report = run.done.report(&spec, run.now);
        Ok(run.done.outcome(report))
    }
}

struct Run<'a> {
    worker: &'a JobWorker,
    job: &'a Job,
    progress: Progress,
    cancel: CancellationToken,
    now: TsMs,
    done: Done,
}

impl Run<'_> {
    fn tell(&self, venue: &VenueKey) -> impl Fn(u64, u64, LocalDay) + Send + Sync + use<> {
        let (progress, id) = (self.progress.clone(), venue.venue.clone());
        move |done, total, day| progress.set(done, total, &format!("comparing {id} {day}"))
    }

    /// The policy in force: read for each mark, since a job may go on for hours.
    async fn policy(&self) -> Result<Policy, Error> {
        let (documents, default) = (&*self.worker.stores.documents, &self.worker.retention_policy);
        let policy = policy::in_force(documents, &self.job.tenant, default).await;
        policy.map_err(|source| Error::Storage {
            doing: "read the retention policy",
            source,
        })
    }

    /// A dry run: what a job would do, files read back, nothing stored.
    async fn look(&mut self, venue: &Venue) -> Result<(), Error> {
        let key = VenueKey::new(self.job.tenant.clone(), venue.id.clone());
        let tell = self.tell(&key);
        let retention = &self.worker.retention;
        let mut after = None;
        loop {
            let policy = self.policy().await?;
            let decided = retention
                .decide(
                    &key,
                    &venue.calendar,
                    &policy,
                    self.now,
                    after,
                    Comparing::Look,
                    &tell,
                    &self.cancel,
                )
                .await?;
            let tally = self.done.venues.entry(venue.id.clone()).or_default();
            tally.plan(&decided.plan.totals, &decided.plan.days);
            for day in &decided.plan.days {
                if day.deletes() {
                    self.done
                        .tell(json!({ "venue": venue.id, "day": day.day, "goes": day }));
                }
                self.done.kept(day);
            }
            after = decided.through;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    async fn venue(&mut self, venue: &Venue) -> Result<(), Error> {
        let key = VenueKey::new(self.job.tenant.clone(), venue.id.clone());
        let mut mark = match self.known_mark(&key).await? {
            Some(mark) => mark,
            None => self.mark(&key, venue, None).await?,
        };
        loop {
            mark.kept.iter().for_each(|day| self.done.kept(day));
            self.sweep(&key, venue, &mut mark).await?;
            if mark.through.is_none() {
                return Ok(());
            }
            mark = self.mark(&key, venue, Some(&mark)).await?;
        }
    }

    /// The mark that an earlier attempt of this job has made.
    async fn known_mark(&self, key: &VenueKey) -> Result<Option<Mark>, Error> {
        let documents = &*self.worker.stores.documents;
        let known = marks::load(documents, &key.tenant, &key.venue).await;
        let known = known.map_err(|source| Error::Storage {
            doing: "read the mark",
            source,
        })?;
        Ok(known.filter(|mark| mark.job == self.job.id))
    }

    async fn mark(&self, key: &VenueKey, venue: &Venue, before: Option<&Mark>) -> Result<Mark, Error> {
        let tell = self.tell(key);
        let policy = self.policy().await?;
        let (mark, _) = self
            .worker
            .retention
            .mark(
                key,
                &venue.calendar,
                &policy,
                self.now,
                before,
                &self.job.id,
                &tell,
                &self.cancel,
            )
            .await?;
        Ok(mark)
    }

    async fn sweep(&mut self, key: &VenueKey, venue: &Venue, mark: &mut Mark) -> Result<(), Error> {
        let total = mark.days.len() as u64;
        let mut tally = mark.so_far();
        self.done.venues.insert(key.venue.clone(), tally.clone());
        while let Some(day) = mark.days.get(mark.done).cloned() {
            if self.cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            self.progress.set(
                mark.done as u64,
                total,
                &format!("sweeping {} {}", key.venue, day.day),
            );
            let retention = &self.worker.retention;
            let swept = retention
                .sweep(
                    key,
                    &venue.calendar,
                    &day,
                    mark,
                    &self.worker.retention_policy,
                    &self.cancel,
                )
                .await;
            match swept {
                Ok(Some(swept)) => {
                    tally.swept(key, day.day, &swept);
                    self.done
                        .tell(json!({ "venue": key.venue, "day": day.day, "removed": swept }));
                }
                Err(error) if !matches!(error, Error::LeaseLost { .. }) => return Err(error),
                Ok(None) | Err(_) => tally.trouble(key, day.day, "another worker holds the day"),
            }
            self.done.venues.insert(key.venue.clone(), tally.clone());
            mark.tally = Some(tally.clone());
            mark.done += 1;
            self.store(key, mark).await?;
        }
        mark.finished_at = Some(self.worker.clock.now_ms());
        self.store(key, mark).await
    }

    async fn store(&self, key: &VenueKey, mark: &Mark) -> Result<(), Error> {
        let documents = &*self.worker.stores.documents;
        marks::put(documents, &key.tenant, &key.venue, mark)
            .await
            .map_err(|source| Error::Storage {
                doing: "store the mark",
                source,
            })
    }
}

/// What was done so far.
#[derive(Debug, Default)]
struct Done {
    /// Sums by venue, those of earlier attempts with them.
    venues: BTreeMap<VenueId, Tally>,
    /// Days of this attempt one by one.
    days: Vec<Value>,
    kept: Vec<Value>,
}

impl Done {
    fn total(&self) -> Tally {
        let mut total = Tally::default();
        self.venues.values().for_each(|tally| total.merge(tally));
        total
    }

    /// A day that stays, or part of it, although it is old enough.
    fn kept(&mut self, day: &DayPlan) {
        let mut reasons: Vec<&KeepReason> = day
            .reasons()
            .filter(|reason| !matches!(reason, KeepReason::TooYoung { .. }))
            .collect();
        reasons.dedup();
        if reasons.is_empty() {
            return;
        }
        if self.kept.len() < DAYS_TOLD {
            self.kept
                .push(json!({ "venue": day.venue.venue, "day": day.day, "reasons": reasons }));
        }
    }

    fn tell(&mut self, day: Value) {
        if self.days.len() < DAYS_TOLD {
            self.days.push(day);
        }
    }

    fn report(&self, spec: &Spec, now: TsMs) -> Value {
        let total = self.total();
        json!({
            "dry_run": spec.dry_run,
            "now": dwell_model::time::format_rfc3339(now),
            "planned": total.planned,
            "removed": {
                "raw_rows": total.raw_rows,
                "sessions": total.sessions,
                "generations": total.generations,
            },
            "rows_left": total.rows_left,
            "days_in_doubt": total.in_doubt,
            "days": self.days,
            "kept": self.kept,
        })
    }

    fn outcome(self, report: Value) -> Outcome {
        let total = self.total();
        match total.first_trouble {
            None => Outcome::succeeded(report),
            Some(first) => {
                let days = total.in_doubt + total.troubles;
                Outcome::troubled(
                    JobState::Partial,
                    report,
                    format!("{days} days were not swept as a whole; the first: {first}"),
                )
            }
        }
    }
}
