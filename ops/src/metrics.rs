//! What the binary itself measures: jobs by state and age, and what the embedded files take.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use dwell_model::time::TsMs;
use dwell_runtime::clock::SharedClock;
use dwell_runtime::shutdown::ShutdownToken;
use dwell_runtime::tasks::blocking;
use dwell_runtime::telemetry::{GONE, MetricDef, Unit};
use dwell_storage::api::{JobState, Lane, Stores};
use dwell_storage::paths::DataPaths;

/// Jobs by state, of the latest [`JOBS_LOOKED_AT`].
const JOBS: MetricDef = MetricDef::gauge(
    "dwell_jobs",
    Unit::Count,
    "Jobs by state, of the latest thousand.",
);
/// Age of the oldest job that has not ended.
const OLDEST_JOB: MetricDef = MetricDef::gauge(
    "dwell_jobs_oldest_unfinished_seconds",
    Unit::Seconds,
    "Age of the oldest job that has not ended.",
);
/// Jobs that wait, by lane.
const JOBS_QUEUED: MetricDef = MetricDef::gauge(
    "dwell_jobs_queued",
    Unit::Count,
    "Jobs that wait for a worker, by lane (nightly, demand, backfill).",
);
/// Jobs that run, by lane.
const JOBS_RUNNING: MetricDef = MetricDef::gauge(
    "dwell_jobs_running",
    Unit::Count,
    "Jobs that a worker has, or that are tried again after a while, by lane.",
);
/// Age of the oldest job that waits, by lane.
const JOBS_OLDEST_QUEUED: MetricDef = MetricDef::gauge(
    "dwell_jobs_oldest_queued_seconds",
    Unit::Seconds,
    "Age of the oldest job that waits for a worker, by lane; 0 when none waits.",
);
/// Bytes that each part of the data folder takes.
const STORED: MetricDef = MetricDef::gauge(
    "dwell_stored_bytes",
    Unit::Bytes,
    "Bytes on disk by part of the data folder.",
);

/// Whether an engine answers.
const ENGINE_UP: MetricDef = MetricDef::gauge(
    "dwell_engine_up",
    Unit::Count,
    "1 while the engine (event log, tables, archive) answers this process, else 0.",
);

/// Whether a folder of an embedded installation is in trouble.
const FOLDER_TROUBLE: MetricDef = MetricDef::gauge(
    "dwell_folder_trouble",
    Unit::Count,
    "1 while a folder of an embedded installation (data, archive) is full or unwritable, or a database file in it is damaged or \
     not_flushed, else 0.",
);

/// How late a schedule is.
const SCHEDULE_OVERDUE: MetricDef = MetricDef::gauge(
    "dwell_schedule_overdue_seconds",
    Unit::Seconds,
    "Time since a schedule was due whose job has not ended; 0 when nothing is due.",
);
/// Whether a schedule waits for others.
const SCHEDULE_HELD: MetricDef = MetricDef::gauge(
    "dwell_schedule_held",
    Unit::Count,
    "Jobs of a schedule that are due and wait for another schedule or for the nights.",
);
/// Whether a schedule's last job went wrong.
const SCHEDULE_FAILED: MetricDef = MetricDef::gauge(
    "dwell_schedule_failed",
    Unit::Count,
    "Jobs of a schedule of which the last one failed, was partial, or was cancelled; 0 again after a good one.",
);
/// How far a reader of the event log is behind.
const LOG_READER_BEHIND: MetricDef = MetricDef::gauge(
    "dwell_log_reader_behind_seconds",
    Unit::Seconds,
    "Age of the oldest record that a reader of the event log (raw-writer, speed-layer) has not passed.",
);
/// Whether the log may forget what a reader has not read.
const LOG_AT_RISK: MetricDef = MetricDef::gauge(
    "dwell_log_retention_at_risk",
    Unit::Count,
    "1 while a reader of the event log is behind half of what the log keeps, else 0.",
);

/// Erasures of which it is not proven that nothing is left.
const ERASURES_UNPROVEN: MetricDef = MetricDef::gauge(
    "dwell_erasures_unproven",
    Unit::Count,
    "Erasures that have begun and whose last scan found the visitor, or was not made yet.",
);

/// Definitions of this crate's metrics.
pub(crate) const DEFINITIONS: &[MetricDef] = &[
    JOBS,
    OLDEST_JOB,
    JOBS_QUEUED,
    JOBS_RUNNING,
    JOBS_OLDEST_QUEUED,
    STORED,
    ENGINE_UP,
    FOLDER_TROUBLE,
    SCHEDULE_OVERDUE,
    SCHEDULE_HELD,
    SCHEDULE_FAILED,
    LOG_READER_BEHIND,
    LOG_AT_RISK,
    ERASURES_UNPROVEN,
];

/// How a schedule stands.
pub(crate) fn schedule(tenant: &str, name: &str, overdue_ms: i64, held: usize, failed: usize) {
    let labels = [("tenant", tenant.to_owned()), ("schedule", name.to_owned())];
    metrics::gauge!(SCHEDULE_OVERDUE.name, &labels).set(overdue_ms.max(0) as f64 / 1_000.0);
    metrics::gauge!(SCHEDULE_HELD.name, &labels).set(held as f64);
    metrics::gauge!(SCHEDULE_FAILED.name, &labels).set(failed as f64);
}

/// A schedule was removed: it has no gauges any more.
pub(crate) fn schedule_gone(tenant: &str, name: &str) {
    let labels = [("tenant", tenant.to_owned()), ("schedule", name.to_owned())];
    for gauge in [SCHEDULE_OVERDUE, SCHEDULE_HELD, SCHEDULE_FAILED] {
        metrics::gauge!(gauge.name, &labels).set(GONE);
    }
}

/// A reader of the log is so far behind.
pub(crate) fn log_reader(reader: &'static str, behind_ms: i64, at_risk: bool) {
    metrics::gauge!(LOG_READER_BEHIND.name, "reader" => reader).set(behind_ms as f64 / 1e3);
    metrics::gauge!(LOG_AT_RISK.name, "reader" => reader).set(f64::from(at_risk));
}

/// So many erasures are not proven.
pub(crate) fn erasures_unproven(count: u64) {
    metrics::gauge!(ERASURES_UNPROVEN.name).set(count as f64);
}

/// A folder is in trouble, or is not.
pub(crate) fn folder_trouble(folder: &'static str, trouble: &'static str, is_so: bool) {
    metrics::gauge!(FOLDER_TROUBLE.name, "folder" => folder, "trouble" => trouble).set(f64::from(is_so));
}

/// An engine answered, or did not.
pub(crate) fn engine_up(engine: &'static str, up: bool) {
    metrics::gauge!(ENGINE_UP.name, "engine" => engine).set(f64::from(up));
}

/// Latest jobs that are looked at.
const JOBS_LOOKED_AT: usize = 1_000;
/// Most unfinished jobs that are looked at.
const UNFINISHED_LOOKED_AT: usize = 10_000;
/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// Keeps the gauges up to date until shutdown. `paths`: the data folder, where everything is embedded.
pub(crate) async fn keep_up(
    stores: Stores,
    paths: Option<DataPaths>,
    clock: SharedClock,
    shutdown: ShutdownToken,
) {
    loop {
        if let Err(error) = look(&stores, paths.as_ref(), clock.now_ms()).await {
            tracing::debug!(error = format!("{error:#}"), "gauges could not be measured");
        }
        tokio::select! {
            () = shutdown.requested() => return,
            () = clock.sleep(LOOK_EVERY) => {}
        }
    }
}

async fn look(stores: &Stores, paths: Option<&DataPaths>, now: TsMs) -> anyhow::Result<()> {
    let jobs = stores.jobs.list(None, None, JOBS_LOOKED_AT).await?;
    let mut by_state: BTreeMap<&str, f64> = BTreeMap::new();
    for state in [
        JobState::Queued,
        JobState::Running,
        JobState::Succeeded,
        JobState::Partial,
        JobState::Failed,
    ] {
        by_state.insert(state.word(), 0.0);
    }
    jobs.iter()
        .for_each(|job| *by_state.entry(job.state.word()).or_default() += 1.0);
    for (state, count) in by_state {
        metrics::gauge!(JOBS.name, "state" => state).set(count);
    }
    let unfinished = stores.jobs.unfinished(now, UNFINISHED_LOOKED_AT).await?;
    let age = |created_at: Option<TsMs>| created_at.map_or(0.0, |at| (now - at).max(0) as f64 / 1e3);
    let oldest = unfinished.iter().map(|job| job.created_at).min();
    metrics::gauge!(OLDEST_JOB.name).set(age(oldest));
    for lane in Lane::ALL {
        let of = |state| {
            unfinished
                .iter()
                .filter(move |job| job.lane == lane && job.state == state)
        };
        let oldest = of(JobState::Queued).map(|job| job.created_at).min();
        metrics::gauge!(JOBS_QUEUED.name, "lane" => lane.word()).set(of(JobState::Queued).count() as f64);
        metrics::gauge!(JOBS_RUNNING.name, "lane" => lane.word()).set(of(JobState::Running).count() as f64);
        metrics::gauge!(JOBS_OLDEST_QUEUED.name, "lane" => lane.word()).set(age(oldest));
    }

    let backups = crate::backup::state::load(stores.documents.as_ref()).await?;
    crate::backup::metrics::show(&backups, now);

    let Some(paths) = paths else {
        return Ok(());
    };
    let parts = [
        ("log", paths.log_db.clone()),
        ("tables", paths.data_db.clone()),
        ("keys", paths.keys_db.clone()),
        ("archive", paths.archive.clone()),
    ];
    let sizes = blocking("measure files", move || {
        parts.map(|(part, path)| (part, size_of(&path)))
    })
    .await?;
    for (part, bytes) in sizes {
        metrics::gauge!(STORED.name, "part" => part).set(bytes as f64);
    }
    Ok(())
}

/// Bytes of a file, or of all files below a folder; what disappears meanwhile counts nothing.
fn size_of(path: &Path) -> u64 {
    let Ok(metadata) = path.symlink_metadata() else {
        return 0;
    };
    if !metadata.is_dir() {
        return metadata.len();
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| size_of(&entry.path())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_house() {
        let problems: Vec<String> = DEFINITIONS.iter().filter_map(MetricDef::problem).collect();
        assert!(problems.is_empty(), "{problems:?}");
    }
}
