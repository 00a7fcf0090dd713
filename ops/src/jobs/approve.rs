//! `approve`: publishes what was proposed for a closed day.

use anyhow::{Context, Result};
use async_trait::async_trait;
use dwell_batch_layer::report::Outcome as DayOutcome;
use dwell_model::ids::{VenueId, VenueKey};
use dwell_model::time::LocalDay;
use dwell_serving_api::{DeclaredJob, JobRefusal, JobRequest};
use dwell_storage::api::periods;
use dwell_storage::api::{Job, JobState};
use serde::Deserialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::kinds::{JobKind, Outcome};
use super::{Held, JobWorker, Progress, has_attempts_left, spec_of};

/// The job's spec, as the catalogue stores it.
#[derive(Debug, Deserialize)]
struct Spec {
    venues: Vec<VenueId>,
    from: LocalDay,
    /// The proposed generation that was looked at.
    #[serde(default)]
    generation: Option<u64>,
    #[serde(default)]
    dry_run: bool,
}

/// The kind.
pub(super) struct Approve;

#[async_trait]
impl JobKind for Approve {
    fn declared(&self) -> Option<DeclaredJob> {
        Some(DeclaredJob {
            kind: "approve",
            summary: "Publish the generation that was proposed for a closed day",
            takes_days: true,
            takes_dry_run: true,
            options: &["generation"],
            required: &[],
        })
    }

    fn check(&self, request: &JobRequest) -> Result<(), JobRefusal> {
        let refuse = |why: &str| Err(JobRefusal(why.to_owned()));
        if request.venues.as_ref().is_none_or(|venues| venues.len() != 1) {
            return refuse("a proposal is approved for one venue at a time: name it");
        }
        if request.from.is_none() || request.from != request.to {
            return refuse("a proposal is approved day by day: give the day as from and to");
        }
        let generation = request.options.get("generation");
        if generation.is_some_and(|generation| generation.as_u64().is_none()) {
            return refuse("generation is the number of the proposed generation");
        }
        Ok(())
    }

    async fn run(
        &self,
        worker: &JobWorker,
        job: &Job,
        progress: Progress,
        cancel: CancellationToken,
    ) -> Result<Outcome> {
        let spec: Spec = spec_of(job)?;
        let venue = spec.venues.first().context("no venue is named")?;
        let key = VenueKey::new(job.tenant.clone(), venue.clone());
        progress.set(0, 1, &format!("{venue} {}", spec.from));
        if spec.dry_run {
            let documents = worker.stores.documents.as_ref();
            let proposal = periods::proposal(documents, &key, spec.from).await?;
            let report = json!({ "dry_run": true, "proposed": proposal.map(|stored| json!({
                "generation": stored.value.info.generation,
                "replaces": stored.value.base,
                "state": stored.value.state,
                "reason": stored.value.info.reason,
                "changed": stored.value.info.changed,
            })) });
            return Ok(Outcome::succeeded(report));
        }
        let day = worker
            .batch
            .approve_day(&key, spec.from, spec.generation, &job.requested_by, &cancel)
            .await;
        if day.retryable && has_attempts_left(job) {
            return Err(Held { days: 1 }.into());
        }
        progress.set(1, 1, &day.reason);
        let (outcome, reason) = (day.outcome, day.reason.clone());
        let report = json!({ "day": day });
        Ok(match outcome {
            DayOutcome::Computed => Outcome::succeeded(report),
            _ => Outcome::troubled(JobState::Failed, report, reason),
        })
    }
}
