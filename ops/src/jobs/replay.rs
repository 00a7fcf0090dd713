//! `replay`: try to take refused events again.

use anyhow::{Context, Result};
use dwell_storage::api::{Job, JobState, QuarantineEntry, QuarantineState};
use serde::Deserialize;
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
    let (mut accepted, mut refused) = (0_u64, Vec::new());
    for (done, id) in spec.entries.iter().enumerate() {
        if cancel.is_cancelled() {
            break;
        }
        progress.set(done as u64, total, id);
        let entry = worker.stores.quarantine.get(&job.tenant, id).await?;
        let outcome = match entry {
            None => Err("there is no such entry".to_owned()),
            Some(entry) if entry.state != QuarantineState::Open => Err("it is not open any more".to_owned()),
            Some(entry) => replay(worker, entry).await?,
        };
        match outcome {
            Ok(events) => accepted += events,
            Err(reason) => refused.push(serde_json::json!({ "id": id, "reason": reason })),
        }
    }
    let report = serde_json::json!({ "accepted": accepted, "refused": refused });
    let state = match (cancel.is_cancelled(), refused.is_empty()) {
        (true, _) => JobState::Cancelled,
        (false, true) => JobState::Succeeded,
        (false, false) if accepted > 0 => JobState::Partial,
        (false, false) => JobState::Failed,
    };
    let error = (!refused.is_empty()).then(|| format!("{} of {total} entries were refused again", refused.len()));
    Ok(Outcome { state, report, error })
}

/// Takes an entry again; the inner error is why not.
async fn replay(worker: &JobWorker, entry: QuarantineEntry) -> Result<Result<u64, String>> {
    Ok(worker.replayer.replay(entry).await?.map_err(|refusal| refusal.to_string()))
}
