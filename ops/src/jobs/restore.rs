//! `restore`: what the archive holds of days becomes raw events again, row by row.

use anyhow::{Context, Result};
use async_trait::async_trait;
use dwell_batch_layer::spec::Venues;
use dwell_model::ids::VenueKey;
use dwell_model::time::{LocalDay, VenueCalendar};
use dwell_retention::{Error, RestoreReport};
use dwell_serving_api::DeclaredJob;
use dwell_storage::api::{Job, JobState, MarkSource};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::days::venues_of;
use super::kinds::{JobKind, Outcome};
use super::{JobWorker, Progress};

/// Days that a report tells one by one.
const DAYS_TOLD: usize = 1_000;
/// Marks that one attempt makes of a day: before and after.
const MARKS_PER_ATTEMPT: i64 = 2;

/// The job's spec, as the catalogue stores it.
#[derive(Debug, Deserialize)]
struct Spec {
    venues: Value,
    from: Option<LocalDay>,
    to: Option<LocalDay>,
    #[serde(default)]
    dry_run: bool,
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

    async fn run(
        &self,
        worker: &JobWorker,
        job: &Job,
        progress: Progress,
        cancel: CancellationToken,
    ) -> Result<Outcome> {
        let spec: Spec =
            serde_json::from_value(job.spec.clone()).context("the job's parameters cannot be read")?;
        let days = days_of(worker, job, &spec).await?;
        let mut done = Done::new(spec.dry_run);
        for (number, (venue, calendar, day)) in days.iter().enumerate() {
            if cancel.is_cancelled() {
                return Ok(Outcome::cancelled(done.report()));
            }
            progress.set(
                number as u64,
                days.len() as u64,
                &format!("{} {day}", venue.venue),
            );
            let retention = &worker.retention;
            let restored = match spec.dry_run {
                true => retention
                    .look_at_restore(venue, calendar, *day, &cancel)
                    .await
                    .map(Some),
                false => {
                    let source = MarkSource::job(&job.id);
                    let position = i64::from(job.attempts) * MARKS_PER_ATTEMPT;
                    retention
                        .restore_day(venue, calendar, *day, &source, position, &cancel)
                        .await
                }
            };
            match restored {
                Ok(restored) => done.day(venue, *day, restored),
                Err(Error::Cancelled) => return Ok(Outcome::cancelled(done.report())),
                Err(Error::LeaseLost { .. }) => done.day(venue, *day, None),
                Err(error) if error.is_retryable() => return Err(error.into()),
                Err(error) => done.failed(venue, *day, &error.to_string()),
            }
        }
        progress.set(days.len() as u64, days.len() as u64, "done");
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
        days.extend(of_venue.into_iter().map(|day| (key.clone(), venue.calendar, day)));
    }
    Ok(days)
}

/// What was done so far.
struct Done {
    dry_run: bool,
    days: Vec<Value>,
    restored: u64,
    rows_archived: u64,
    rows_added: u64,
    troubles: u64,
    first_trouble: Option<String>,
}

impl Done {
    fn new(dry_run: bool) -> Self {
        Self {
            dry_run,
            days: Vec::new(),
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
