//! What has to be done from time to time: forget old log records and keys whose time is over.

use std::time::Duration;

use dwell_ingest::raw_writer;
use dwell_model::time::DAY_MS;
use dwell_runtime::clock::SharedClock;
use dwell_runtime::shutdown::ShutdownToken;
use dwell_storage::api::{Job, JobProgress, JobState, Stores, documents};
use dwell_storage::error::{ErrorKind, Result};
use serde_json::json;

use crate::erasing::receipt::ErasureReceipt;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(600);

/// Looks until shutdown. `raw_writer`: where this process trims the log, that which copies all of it.
pub(super) async fn run(
    stores: Stores,
    clock: SharedClock,
    log_retention_ms: i64,
    raw_writer: Option<raw_writer::Handle>,
    shutdown: ShutdownToken,
) {
    loop {
        if let Err(error) = repeat_erasures(&stores, clock.now_ms()).await {
            tracing::warn!(%error, "erasures were not looked at; they are looked at again");
        }
        if let Err(error) = run_once(&stores, clock.now_ms(), log_retention_ms, raw_writer.as_ref()).await {
            tracing::warn!(%error, "housekeeping failed; it is tried again");
        }
        tokio::select! {
            () = shutdown.requested() => return,
            () = clock.sleep(LOOK_EVERY) => {}
        }
    }
}

/// Asks for erasures to be carried out once more: each night until the log has forgotten, since what is late, restored or
/// imported may bring somebody back.
async fn repeat_erasures(stores: &Stores, now_ms: i64) -> Result<()> {
    for tenant in stores.registry.tenants().await? {
        for stored in documents::all::<ErasureReceipt>(&*stores.documents, &tenant).await? {
            let receipt = stored.value;
            let last = receipt
                .repeated_at
                .or(receipt.proven_at)
                .unwrap_or(receipt.requested_at);
            let is_due = now_ms - last >= DAY_MS && last < receipt.repeat_until;
            if !is_due {
                continue;
            }
            // One a day, whoever asks: the id is taken then.
            let night = now_ms - now_ms.rem_euclid(DAY_MS);
            let job = Job {
                id: format!("{night:012x}-erase-{}-{}", receipt.venue.venue, receipt.number),
                tenant: tenant.clone(),
                kind: "erase".to_owned(),
                spec: json!({ "venues": [receipt.venue.venue], "again": receipt.id }),
                state: JobState::Queued,
                progress: JobProgress::default(),
                requested_by: "housekeeping".to_owned(),
                reason: Some("an erasure is carried out again each night until the log forgets".to_owned()),
                created_at: now_ms,
                started_at: None,
                finished_at: None,
                attempts: 0,
                cancel_requested: false,
                report: None,
                error: None,
                fence: 0,
                leased_until: None,
            };
            match stores.jobs.create(&job).await {
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                created => created?,
            }
            // Marked at once, so that the next look does not ask again while the job waits.
            documents::update::<ErasureReceipt>(&*stores.documents, &tenant, &receipt.id, |receipt| {
                let mut receipt = receipt?.clone();
                receipt.repeated_at = Some(now_ms);
                Some(receipt)
            })
            .await?;
        }
    }
    Ok(())
}

/// Destroys pseudonym keys whose time is over, and log records older than the retention that the raw writer has copied.
async fn run_once(
    stores: &Stores,
    now_ms: i64,
    log_retention_ms: i64,
    raw_writer: Option<&raw_writer::Handle>,
) -> Result<()> {
    let keys = stores.pseudonym_keys.destroy_expired(now_ms).await?;
    if keys > 0 {
        tracing::info!(keys, "destroyed pseudonym keys whose time was over");
    }
    let Some(raw_writer) = raw_writer else {
        return Ok(());
    };
    for partition in 0..stores.log.partitions() {
        // Never past the slowest reader: the speed layer follows closely, and can start from raw.
        let Some(copied) = raw_writer.position(partition) else {
            continue;
        };
        let records = stores
            .log
            .trim(partition, now_ms - log_retention_ms, copied)
            .await?;
        if records > 0 {
            tracing::info!(records, partition, "trimmed the event log");
        }
    }
    Ok(())
}
