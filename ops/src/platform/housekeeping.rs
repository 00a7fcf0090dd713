//! What has to be done from time to time: forget old log records and keys whose time is over.

use std::time::Duration;

use dwell_ingest::raw_writer;
use dwell_runtime::clock::SharedClock;
use dwell_runtime::shutdown::ShutdownToken;
use dwell_storage::api::Stores;
use dwell_storage::error::Result;

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
        if let Err(error) = run_once(&stores, clock.now_ms(), log_retention_ms, raw_writer.as_ref()).await {
            tracing::warn!(%error, "housekeeping failed; it is tried again");
        }
        tokio::select! {
            () = shutdown.requested() => return,
            () = clock.sleep(LOOK_EVERY) => {}
        }
    }
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
