//! `replay`: try to take refused events again.

use anyhow::{Context, Result};
use dwell_ingest::decode::DecodeRules;
use dwell_ingest::quarantine::Replayed;
use dwell_storage::api::{Job, JobState};
use serde::Deserialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{JobWorker, Outcome, Progress};

/// The job's spec, as the catalogue stores it.
#[derive(Debug, Deserialize)]
struct Spec {
    entries: Vec<String>,
}

pub(super) async fn run(
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
            return Ok(Outcome {
                state: JobState::Cancelled,
                report: serde_json::Value::Null,
                error: None,
            });
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
    let state = match (refused.is_empty(), accepted) {
        (true, _) => JobState::Succeeded,
        (false, 0) => JobState::Failed,
        (false, _) => JobState::Partial,
    };
    let error =
        (!refused.is_empty()).then(|| format!("{} of {total} entries were refused again", refused.len()));
    let report = json!({ "accepted": accepted, "refused": refused });
    Ok(Outcome { state, report, error })
}
