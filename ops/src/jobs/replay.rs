//! `replay`: try to take refused events again.

use anyhow::{Context, Result};
use async_trait::async_trait;
use dwell_ingest::decode::DecodeRules;
use dwell_ingest::quarantine::Replayed;
use dwell_serving_api::{DeclaredJob, JobRefusal, JobRequest};
use dwell_storage::api::{Job, JobState};
use serde::Deserialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::kinds::{JobKind, Outcome};
use super::{JobWorker, Progress};

/// The job's spec, as the catalogue stores it.
#[derive(Debug, Deserialize)]
struct Spec {
    entries: Vec<String>,
}

pub(super) struct Replay;

#[async_trait]
impl JobKind for Replay {
    fn declared(&self) -> Option<DeclaredJob> {
        Some(DeclaredJob {
            kind: "replay",
            summary: "Try to take refused events again",
            takes_days: false,
            takes_dry_run: false,
            options: &["entries"],
            required: &["entries"],
        })
    }

    fn check(&self, request: &JobRequest) -> Result<(), JobRefusal> {
        let entries = request.options.get("entries").cloned().unwrap_or_default();
        match serde_json::from_value::<Vec<String>>(entries) {
            Ok(entries) if !entries.is_empty() => Ok(()),
            _ => Err(JobRefusal(
                "entries must be a list of ids of refused events".to_owned(),
            )),
        }
    }

    async fn run(
        &self,
        worker: &JobWorker,
        job: &Job,
        progress: Progress,
        cancel: CancellationToken,
    ) -> Result<Outcome> {
        run(worker, job, progress, cancel).await
    }
}

async fn run(
    worker: &JobWorker,
    job: &Job,
    progress: Progress,
    cancel: CancellationToken,
) -> Result<Outcome> {
    let spec: Spec = serde_json::from_value(job.spec.clone()).context("entries must be a list of ids")?;
    let total = spec.entries.len() as u64;
    let mut entries = Vec::with_capacity(spec.entries.len());
    let mut refused = Vec::new();
    for (done, id) in spec.entries.iter().enumerate() {
        if cancel.is_cancelled() {
            return Ok(Outcome::cancelled(serde_json::Value::Null));
        }
        progress.set(done as u64, total, id);
        match worker.stores.quarantine.get(&job.tenant, id).await? {
            Some(entry) => entries.push(entry),
            None => {
                refused.push(json!({ "id": id, "code": "not_found", "message": "there is no such entry" }))
            }
        }
    }
    let outcomes = worker
        .replayer
        .replay(&job.tenant, &entries, &DecodeRules::default())
        .await?;
    let mut accepted = 0_u64;
    for (entry, outcome) in entries.iter().zip(outcomes) {
        let (code, message) = match outcome {
            Replayed::Taken => {
                accepted += 1;
                continue;
            }
            Replayed::Refused { code, message } => (code, message),
            Replayed::Unreadable => ("unreadable", "its bytes can no longer be read".to_owned()),
            Replayed::NotOpen => ("not_open", "it was replayed or dropped before".to_owned()),
        };
        refused.push(json!({ "id": entry.id, "code": code, "message": message }));
    }
    let report = json!({ "accepted": accepted, "refused": refused });
    if refused.is_empty() {
        return Ok(Outcome::succeeded(report));
    }
    let state = match accepted {
        0 => JobState::Failed,
        _ => JobState::Partial,
    };
    let error = format!("{} of {total} entries were refused again", refused.len());
    Ok(Outcome::troubled(state, report, error))
}
