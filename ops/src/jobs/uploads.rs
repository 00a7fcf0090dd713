//! `import`: files that were uploaded to a running instance.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;
use dwell_ingest::sources::files::{ImportProgress, ImportState};
use dwell_serving_api::{DeclaredJob, JobRequest};
use dwell_storage::api::{Job, JobState, Lane};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::kinds::{JobKind, Outcome};
use super::{JobWorker, Progress, spec_of};
use crate::importing::ImportRequest;

/// The job's spec.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ImportJob {
    /// Folder of the uploaded files, below the uploads of the data folder.
    pub(crate) folder: PathBuf,
    /// The files in the order of the command line.
    pub(crate) files: Vec<String>,
    pub(crate) request: ImportRequest,
}

/// Asked for by uploading (`POST /v1/imports`).
pub(super) struct Import;

#[async_trait]
impl JobKind for Import {
    fn declared(&self) -> Option<DeclaredJob> {
        None
    }

    fn is_named(&self, name: &str) -> bool {
        name == "import"
    }

    fn lane(&self, _: &JobRequest) -> Lane {
        Lane::Backfill
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
    let spec: ImportJob = spec_of(job)?;
    let paths = spec.files.iter().map(|name| spec.folder.join(name)).collect();
    let tell = Arc::new(Tell(progress));
    let imported = tokio::select! {
        biased;
        () = cancel.cancelled() => {
            // What was taken stays taken, and its claims stay unfinished: the import can be asked for again.
            return Ok(Outcome::cancelled(serde_json::Value::Null));
        }
        imported = worker.importer.run(&job.tenant, paths, &spec.request, tell) => imported,
    };
    let mut report = imported?;
    for file in &mut report.files {
        // Where the server kept the file means nothing to the one who sent it.
        if let Some(name) = file.path.rsplit('/').next().map(str::to_owned) {
            file.path = name;
        }
    }
    if let Err(error) = std::fs::remove_dir_all(&spec.folder) {
        tracing::warn!(%error, folder = %spec.folder.display(), "cannot remove uploaded files");
    }
    let (state, error) = match report.is_complete() {
        true => (JobState::Succeeded, None),
        false => (
            JobState::Partial,
            Some("some files could not be read to their end".to_owned()),
        ),
    };
    Ok(Outcome {
        state,
        report: serde_json::to_value(&report)?,
        error,
    })
}

/// Passes an import's progress on to its job.
struct Tell(Progress);

impl ImportProgress for Tell {
    fn update(&self, state: &ImportState) {
        match state.days_total {
            0 => self.0.set(
                state.bytes_done,
                state.bytes_total,
                &format!("{} events read", state.rows),
            ),
            total => self.0.set(state.days_done, total, "writing venue-days"),
        }
    }
}
