//! `restore`: what the archive holds of days becomes raw events again, row by row.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use dwell_batch_layer::spec::Venues;
use dwell_model::ids::{VenueId, VenueKey};
use dwell_model::time::{LocalDay, VenueCalendar};
use dwell_retention::{Error, RestoreReport};
use dwell_serving_api::{DeclaredJob, JobRefusal, JobRequest};
use dwell_storage::api::{Job, JobState, Lane, MarkSource};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::days::venues_of;
use super::kinds::{JobKind, Outcome, days_again};
use super::{JobWorker, Progress, spec_of};

/// Days that a report tells one by one.
const DAYS_TOLD: usize = 1_000;
/// Marks that one claim of the job makes of a day: before and after.
const MARKS_PER_CLAIM: i64 = 2;
/// Days that a report names as not restored, one by one: those that a retry takes up.
const FAILED_DAYS_TOLD: usize = 10_000;
/// How long it is waited before days that others hold are tried again.
const HELD_PAUSE: Duration = Duration::from_secs(1);

/// The job's spec, as the catalogue stores it.
#[derive(Debug, Deserialize)]
struct Spec {
    venues: Value,
    from: Option<LocalDay>,
    to: Option<LocalDay>,
    #[serde(default)]
    dry_run: bool,
    /// Of a job that does again what another could not do: the days that failed then.
    only: Option<Vec<(VenueId, LocalDay)>>,
    /// The job that it takes up again.
    retry_of: Option<String>,
}

pub(super) struct Restore;

#[async_trait]
impl JobKind for Restore {
    fn declared(&self) -> Option<DeclaredJob> {
        Some(DeclaredJob {
            kind: "restore",
            summary: "Bring raw events back from the archive, each with each of its deliveries",
            takes_days: true,
            takes_dry_run: true,
            options: &[],
            required: &[],
        })
    }

    fn lane(&self, _: &JobRequest) -> Lane {
        Lane::Backfill
    }

    fn retry(&self, job: &Job) -> Result<Value, JobRefusal> {
        let failed = job.report.as_ref().map(|report| report["failed"].clone());
        let failed = failed.and_then(|failed| serde_json::from_value(failed).ok());
        days_again(job, failed.unwrap_or_default())
    }

    async fn run(
        &self,
        worker: &JobWorker,
        job: &Job,
        progress: Progress,
        cancel: CancellationToken,
    ) -> Result<Outcome> {
        let spec: Spec = spec_of(job)?;
        let mut days: VecDeque<_> = days_of(worker, job, &spec).await?.into();
        let total = days.len() as u64;
        let mut done = Done::new(&spec);
        // Days that others hold go to the end, and are tried again until it has been waited for long enough since the
        // last one that could be done.
        let held_wait = worker.batch.config().held_wait.as_duration();
        let mut stuck_since = None;
        let mut held_in_a_row = 0;
        while let Some((venue, calendar, day)) = days.pop_front() {
            if cancel.is_cancelled() {
                return Ok(Outcome::cancelled(done.report()));
            }
            progress.set(
                total - days.len() as u64 - 1,
                total,
                &format!("{} {day}", venue.venue),
            );
            let retention = &worker.retention;
            let restored = match spec.dry_run {
                true => retention
                    .look_at_restore(&venue, &calendar, day, &cancel)
                    .await
                    .map(Some),
                false => {
                    let source = MarkSource::job(&job.id);
                    let position = i64::try_from(job.fence)? * MARKS_PER_CLAIM;
                    retention
                        .restore_day(&venue, &calendar, day, &source, position, &cancel)
                        .await
                }
            };
            let restored = match restored {
                Ok(restored) => restored,
                Err(Error::Cancelled) => return Ok(Outcome::cancelled(done.report())),
                Err(Error::LeaseLost { .. }) => None,
                Err(error) if error.is_retryable() => return Err(error.into()),
                Err(error) => {
                    done.failed(&venue, day, &error.to_string());
                    continue;
                }
            };
            let now = worker.clock.monotonic();
            let gives_up = now.saturating_sub(*stuck_since.get_or_insert(now)) >= held_wait;
            if restored.is_some() || gives_up {
                if restored.is_some() {
                    (stuck_since, held_in_a_row) = (None, 0);
                }
                done.day(&venue, day, restored);
                continue;
            }
            days.push_back((venue, calendar, day));
            held_in_a_row += 1;
            if held_in_a_row >= days.len() {
                held_in_a_row = 0;
                tokio::select! {
                    () = cancel.cancelled() => return Ok(Outcome::cancelled(done.report())),
                    () = worker.clock.sleep(HELD_PAUSE) => {}
                }
            }
        }
        progress.set(total, total, "done");
        Ok(done.outcome())
    }
}

/// The days of the range that the archive has something of.
async fn days_of(
    worker: &JobWorker,
    job: &Job,
    spec: &Spec,
) -> Result<Vec<(VenueKey, VenueCalendar, LocalDay)>> {
    let wanted = venues_of(&spec.venues)?;
    let mut days = Vec::new();
    for stored in worker.stores.registry.venues(&job.tenant).await? {
        let venue = stored.venue;
        if matches!(&wanted, Venues::These(ids) if !ids.contains(&venue.id)) {
            continue;
        }
        let key = VenueKey::new(job.tenant.clone(), venue.id);
        let archived = worker.stores.archive.days(&key).await?;
        let mut of_venue: Vec<LocalDay> = archived.into_iter().map(|(day, _)| day).collect();
        of_venue.dedup();
        of_venue
            .retain(|day| spec.from.is_none_or(|from| from <= *day) && spec.to.is_none_or(|to| *day <= to));
        if let Some(only) = &spec.only {
            of_venue.retain(|day| only.contains(&(key.venue.clone(), *day)));
        }
        days.extend(of_venue.into_iter().map(|day| (key.clone(), venue.calendar, day)));
    }
    Ok(days)
}

/// What was done so far.
struct Done {
    dry_run: bool,
    retry_of: Option<String>,
    days: Vec<Value>,
    failed: Vec<(VenueId, LocalDay)>,
    restored: u64,
    rows_archived: u64,
    rows_added: u64,
    troubles: u64,
    first_trouble: Option<String>,
}

impl Done {
    fn new(spec: &Spec) -> Self {
        Self {
            dry_run: spec.dry_run,
            retry_of: spec.retry_of.clone(),
            days: Vec::new(),
            failed: Vec::new(),
            restored: 0,
            rows_archived: 0,
            rows_added: 0,
            troubles: 0,
            first_trouble: None,
        }
    }

    fn day(&mut self, venue: &VenueKey, day: LocalDay, restored: Option<RestoreReport>) {
        let Some(restored) = restored else {
            return self.failed(venue, day, "another worker holds the day");
        };
        if !restored.unreadable.is_empty() {
            return self.failed(venue, day, &restored.unreadable.join("; "));
        }
        self.restored += 1;
        for kind in restored.kinds.values() {
            self.rows_archived += kind.archived;
            self.rows_added += kind.raw_now.saturating_sub(kind.raw_before);
        }
        let kinds: serde_json::Map<String, Value> = restored
            .kinds
            .iter()
            .map(|(kind, of_kind)| {
                let told = json!({
                    "archived": of_kind.archived,
                    "raw_before": of_kind.raw_before,
                    "raw_now": of_kind.raw_now,
                    "deliveries": of_kind.deliveries.rows,
                    "checksum": format!("{:032x}", of_kind.deliveries.sum),
                });
                (kind.name().to_owned(), told)
            })
            .collect();
        self.tell(json!({ "venue": venue.venue, "day": day, "kinds": kinds }));
    }

    fn failed(&mut self, venue: &VenueKey, day: LocalDay, why: &str) {
        self.troubles += 1;
        if self.failed.len() < FAILED_DAYS_TOLD {
            self.failed.push((venue.venue.clone(), day));
        }
        self.first_trouble
            .get_or_insert_with(|| format!("{} {day}: {why}", venue.venue));
        self.tell(json!({ "venue": venue.venue, "day": day, "error": why }));
    }

    fn tell(&mut self, day: Value) {
        if self.days.len() < DAYS_TOLD {
            self.days.push(day);
        }
    }

    fn report(&self) -> Value {
        json!({
            "dry_run": self.dry_run,
            "days_restored": if self.dry_run { 0 } else { self.restored },
            "days_failed": self.troubles,
            "rows_archived": self.rows_archived,
            "rows_added": self.rows_added,
            "days": self.days,
            "failed": self.failed,
            "retry_of": self.retry_of,
        })
    }

    fn outcome(self) -> Outcome {
        let report = self.report();
        let Some(first) = self.first_trouble else {
            return Outcome::succeeded(report);
        };
        let state = match self.restored {
            0 => JobState::Failed,
            _ => JobState::Partial,
        };
        let of = self.troubles + self.restored;
        let error = format!(
            "{} of {of} days were not restored; the first: {first}",
            self.troubles
        );
        Outcome::troubled(state, report, error)
    }
}

#[cfg(test)]
mod tests {
    use dwell_model::ids::TenantId;

    use super::*;

    #[test]
    fn a_retry_asks_for_the_days_that_were_not_restored_or_for_all_when_it_is_not_known_which() {
        let tenant = TenantId::new("acme").unwrap();
        let spec = json!({"venues": ["shop"], "from": "2026-03-01", "to": "2026-03-05", "dry_run": false});
        let mut job = Job::queued("j1".into(), tenant, "restore", spec, "me".into(), None, 0);
        let mut done = Done::new(&spec_of(&job).unwrap());
        let venue = VenueKey::new(job.tenant.clone(), VenueId::new("shop").unwrap());
        done.day(
            &venue,
            "2026-03-01".parse().unwrap(),
            Some(RestoreReport::default()),
        );
        done.failed(&venue, "2026-03-02".parse().unwrap(), "a file is damaged");
        done.day(&venue, "2026-03-03".parse().unwrap(), None);
        let outcome = done.outcome();
        (job.state, job.report) = (outcome.state, Some(outcome.report));
        assert_eq!(job.state, JobState::Partial);
        let whole = json!({
            "venues": ["shop"], "from": "2026-03-01", "to": "2026-03-05", "dry_run": false, "retry_of": "j1",
        });
        let mut two = whole.clone();
        two["only"] = json!([["shop", "2026-03-02"], ["shop", "2026-03-03"]]);
        assert_eq!(Restore.retry(&job).unwrap(), two);
        job.state = JobState::Cancelled;
        assert_eq!(Restore.retry(&job).unwrap(), whole, "days were not begun");
        (job.state, job.report) = (JobState::Failed, None);
        assert_eq!(
            Restore.retry(&job).unwrap(),
            whole,
            "the store was away all the time"
        );
    }
}
