//! The log road: events go to the event log as if they had been posted, with the start of the import as their time of
//! receipt. The raw writer and the speed layer take them from there.
//!
//! A file's claim is finished when its last record is durable. Records are appended again when an import is repeated;
//! they carry the same delivery, so that nothing changes.

use dwell_runtime::failpoint;
use dwell_runtime::retry::{Jitter, RetryPolicy, retry};
use dwell_storage::api::{DeliveredRows, LogRecord};
use dwell_storage::error::StorageError;
use futures::future::try_join;

use super::claims::Claimed;
use super::error::ImportError;
use super::groups::{Group, Routing};
use super::intake::Work;
use super::quarantining::Quarantining;
use super::reading::{self, FileOutcome, Import};
use super::report::ImportReport;

/// Most events of a record.
const RECORD_EVENTS_MAX: usize = 8 << 10;
/// Bytes of memory at which a record is cut: brokers take messages of a megabyte.
const RECORD_BYTES_MAX: usize = 512 << 10;

/// Imports the files through the log.
pub(super) async fn run(
    import: &Import<'_>,
    files: Vec<Claimed>,
    report: &mut ImportReport,
) -> Result<(), ImportError> {
    let places: Vec<_> = files
        .iter()
        .map(|file| (file.report, file.delivery.receipt))
        .collect();
    let (mut inbox, reading) = reading::read(import, files, Routing::Log);
    let mut quarantine = Quarantining::new(import);
    let taking = async {
        while let Some(work) = inbox.recv().await {
            match work {
                Work::Groups(groups) => report.logged += append(import, groups).await?,
                Work::Refused(rows) => quarantine.keep(rows).await?,
                Work::FileDone {
                    number,
                    counts,
                    error,
                } => {
                    reading::settle(import, places[number], FileOutcome { counts, error }, report).await?;
                }
            }
        }
        Ok::<_, ImportError>(())
    };
    try_join(reading, taking).await?;
    Ok(())
}

/// Appends groups to the log and returns how many events that were.
pub(super) async fn append(import: &Import<'_>, groups: Vec<Group>) -> Result<u64, ImportError> {
    let mut appended = 0;
    for group in groups {
        let venue = import.venues.key(group.venue);
        for rows in cut(group.rows) {
            let delivery = rows.deliveries[0];
            failpoint!("import.append");
            appended += rows.len() as u64;
            let record = LogRecord {
                venue: venue.clone(),
                receipt: delivery.receipt,
                events: rows.events,
                received_at: Some(delivery.received_at),
            };
            append_record(import, record).await?;
        }
    }
    Ok(appended)
}

/// Waits for a log that is busy, for minutes rather than seconds: an import has time.
async fn append_record(import: &Import<'_>, record: LogRecord) -> Result<(), ImportError> {
    let policy = RetryPolicy {
        attempts_max: 60,
        total_max: std::time::Duration::from_secs(300),
        jitter: Jitter::Random,
        ..RetryPolicy::default()
    };
    let clock = &import.deps.clock;
    let attempt = |_| import.deps.stores.log.append(vec![record.clone()]);
    retry(&policy, &**clock, attempt, |error: &StorageError| {
        error.kind().is_retryable()
    })
    .await?;
    Ok(())
}

/// Cuts rows into pieces of one delivery each that fit a record.
fn cut(rows: DeliveredRows) -> Vec<DeliveredRows> {
    let events_max = match rows.events.memory_bytes() {
        0..=RECORD_BYTES_MAX => RECORD_EVENTS_MAX,
        bytes => (rows.len() * RECORD_BYTES_MAX / bytes).clamp(1, RECORD_EVENTS_MAX),
    };
    let is_one = rows.deliveries.len() == 1;
    if rows.is_empty() || (is_one && rows.len() <= events_max) {
        return if rows.is_empty() { Vec::new() } else { vec![rows] };
    }
    let mut by_delivery: Vec<Vec<u32>> = vec![Vec::new(); rows.deliveries.len()];
    for (row, &number) in rows.delivery.iter().enumerate() {
        by_delivery[number as usize].push(row as u32);
    }
    let mut pieces = Vec::new();
    for (&delivery, numbers) in rows.deliveries.iter().zip(&by_delivery) {
        for numbers in numbers.chunks(events_max) {
            let mut events = dwell_model::event::EventBatch::new(rows.events.kind);
            // Row by row, so that a piece carries its own names only.
            numbers
                .iter()
                .for_each(|&row| events.push_from(&rows.events, row as usize));
            pieces.push(DeliveredRows::delivered_once(events, delivery));
        }
    }
    pieces
}
