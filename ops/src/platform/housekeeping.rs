//! What has to be done from time to time: forget old log records and keys whose time is over, and see how far the log's
//! readers are behind what the log forgets.

use std::collections::BTreeMap;
use std::time::Duration;

use dwell_model::time::{DAY_MS, TsMs};
use dwell_runtime::clock::SharedClock;
use dwell_runtime::shutdown::ShutdownToken;
use dwell_storage::api::{Job, Lane, Partition, Position, RAW_WRITER, Stores, documents, raw_copied_to};
use dwell_storage::error::{ErrorKind, Result};
use serde_json::json;

use crate::erasing::receipt::ErasureReceipt;

use crate::metrics;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// A log reader, as metrics name it.
const SPEED_LAYER: &str = "speed-layer";

/// Looks until shutdown. `trims`: whether this process trims the log; Kafka forgets by itself.
pub(super) async fn run(
    stores: Stores,
    clock: SharedClock,
    log_retention_ms: i64,
    trims: bool,
    shutdown: ShutdownToken,
) {
    loop {
        if let Err(error) = repeat_erasures(&stores, clock.now_ms()).await {
            tracing::warn!(%error, "erasures were not looked at; they are looked at again");
        }
        if let Err(error) = run_once(&stores, clock.now_ms(), log_retention_ms, trims).await {
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
    let mut unproven = 0;
    for tenant in stores.registry.tenants().await? {
        for stored in documents::all::<ErasureReceipt>(&*stores.documents, &tenant).await? {
            let receipt = stored.value;
            unproven += u64::from(receipt.proven_at.is_none() || !receipt.is_clean());
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
            let job = Job::queued(
                format!("{night:012x}-erase-{}-{}", receipt.venue.venue, receipt.number),
                tenant.clone(),
                "erase",
                json!({ "venues": [receipt.venue.venue], "again": receipt.id }),
                "housekeeping".to_owned(),
                Some("an erasure is carried out again each night until the log forgets".to_owned()),
                now_ms,
            )
            .in_lane(Lane::Nightly);
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
    metrics::erasures_unproven(unproven);
    Ok(())
}

/// Destroys pseudonym keys whose time is over, and log records older than the retention that every reader has passed.
async fn run_once(stores: &Stores, now_ms: TsMs, log_retention_ms: i64, trims: bool) -> Result<()> {
    let keys = stores.pseudonym_keys.destroy_expired(now_ms).await?;
    if keys > 0 {
        tracing::info!(keys, "destroyed pseudonym keys whose time was over");
    }
    let slowest = look_at_readers(stores, now_ms, log_retention_ms).await?;
    for (partition, keep_from) in slowest.into_iter().filter(|_| trims) {
        let records = stores
            .log
            .trim(partition, now_ms - log_retention_ms, keep_from)
            .await?;
        if records > 0 {
            tracing::info!(records, partition, "trimmed the event log");
        }
    }
    Ok(())
}

/// Measures how far each reader of the log is behind; returns where the slowest one stands in each partition. The log is
/// never trimmed past it, and where the log forgets by itself the measure is what tells in time.
async fn look_at_readers(
    stores: &Stores,
    now_ms: TsMs,
    log_retention_ms: i64,
) -> Result<BTreeMap<Partition, Position>> {
    let speed = dwell_speed_layer::stored_positions(&*stores.checkpoints, &*stores.log).await?;
    let mut slowest = BTreeMap::new();
    let mut behind_ms = [(RAW_WRITER, 0), (SPEED_LAYER, 0)];
    for partition in 0..stores.log.partitions() {
        let copied = raw_copied_to(&*stores.log, &*stores.raw, partition).await?;
        // A speed layer without a checkpoint begins with raw.
        let followed = speed.get(&partition).copied().unwrap_or(copied);
        for ((_, behind_ms), position) in behind_ms.iter_mut().zip([copied, followed]) {
            let oldest = stores.log.lag(partition, position).await?.oldest_received_at;
            *behind_ms = (*behind_ms).max(oldest.map_or(0, |at| now_ms - at));
        }
        slowest.insert(partition, copied.min(followed));
    }
    for (reader, behind_ms) in behind_ms {
        let at_risk = behind_ms >= log_retention_ms / 2;
        metrics::log_reader(reader, behind_ms, at_risk);
        if at_risk {
            tracing::error!(
                reader,
                behind_ms,
                log_retention_ms,
                "a reader of the event log is behind half of what the log keeps: events may be lost to it"
            );
        }
    }
    Ok(slowest)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dwell_model::event::Kind;
    use dwell_model::ids::{Receipt, TenantId, VenueId, VenueKey};
    use dwell_model::testing::position_batch;
    use dwell_model::time::{DAY_MS, HOUR_MS};
    use dwell_runtime::clock::{Clock, ManualClock};
    use dwell_storage::api::{
        ConsumerPosition, ErasedSubject, Erasure, Flip, LogRecord, NewErasure, RawWrite, SubjectClass,
    };
    use dwell_storage::archive::DeltaArchive;
    use dwell_storage::backends::sqlite::SqliteStores;
    use dwell_storage::paths::DataPaths;

    use super::*;

    #[tokio::test]
    async fn an_erasure_is_asked_for_each_night_until_the_log_has_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let start = 1_800_000_000_000 - 1_800_000_000_000 % DAY_MS;
        let clock = ManualClock::at_ms(start);
        let paths = DataPaths::new(folder.path());
        let stores = SqliteStores::open(&paths, clock.shared()).await.unwrap();
        let archive = DeltaArchive::local(&paths.archive, clock.shared()).unwrap();
        let stores = stores.with_archive(Arc::new(archive));
        let tenant = TenantId::new("t").unwrap();
        stores.registry.create_tenant(&tenant).await.unwrap();
        let key = stores.erasures.key().await.unwrap();
        let venue = VenueKey::new(tenant.clone(), VenueId::new("v").unwrap());
        let name = key.hash(SubjectClass::Track, &venue, "somebody");
        let entry = Erasure {
            number: 1,
            erasure: NewErasure {
                id: "job".to_owned(),
                venue,
                requested_at: start,
                subjects: vec![ErasedSubject {
                    class: SubjectClass::Track,
                    name,
                    sensor: None,
                    from: TsMs::MIN,
                    until: start,
                }],
            },
        };
        let receipt = ErasureReceipt::of_ledger(&entry, start + 3 * DAY_MS).unwrap();
        let stored = documents::store(&*stores.documents, &tenant, "job", &receipt, None).await;
        assert_eq!(stored.unwrap(), Flip::Done);
        let mut asked = Vec::new();
        for hour in 0..6 * 24 {
            repeat_erasures(&stores, start + hour * HOUR_MS).await.unwrap();
            let jobs = stores.jobs.list(Some(&tenant), None, 100).await.unwrap();
            if jobs.len() > asked.len() {
                asked.push(hour);
            }
            assert!(jobs.iter().all(|job| job.spec["again"] == "job"));
        }
        // Once in each night, the last time in the one in which the log forgets.
        assert_eq!(asked, [24, 48, 72]);
    }

    #[tokio::test]
    async fn the_log_is_trimmed_after_its_time_and_never_past_the_raw_writer() {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::at_ms(1_800_000_000_000);
        let paths = DataPaths::new(folder.path());
        let stores = SqliteStores::open(&paths, clock.shared()).await.unwrap();
        let archive = DeltaArchive::local(&paths.archive, clock.shared()).unwrap();
        let stores = stores.with_archive(Arc::new(archive));
        let venue = VenueKey::new(TenantId::new("t").unwrap(), VenueId::new("v").unwrap());
        let mut positions = Vec::new();
        for n in 0..4 {
            let record = LogRecord {
                venue: venue.clone(),
                receipt: Receipt::from_u128(n),
                events: position_batch(&[("s", "t", clock.now_ms(), 0.0, 0.0)]),
                received_at: None,
            };
            positions.push(stores.log.append(vec![record]).await.unwrap()[0].position);
            clock.advance(Duration::from_secs(86_400));
        }
        let partition = stores.log.partition_of(&venue, Kind::Position);
        let copied = |position| RawWrite {
            position: Some(ConsumerPosition {
                consumer: RAW_WRITER,
                epoch: stores.log.epoch(),
                partition,
                position,
            }),
            ..RawWrite::default()
        };
        let start = async || stores.log.bounds(partition).await.unwrap().start;
        let retention = 2 * DAY_MS + HOUR_MS;
        // Two records are old enough; the raw writer has copied one.
        stores.raw.apply(copied(positions[1])).await.unwrap();
        run_once(&stores, clock.now_ms(), retention, true).await.unwrap();
        assert_eq!(start().await, positions[1]);
        stores.raw.apply(copied(positions[3])).await.unwrap();
        run_once(&stores, clock.now_ms(), retention, false).await.unwrap();
        assert_eq!(start().await, positions[1], "somebody else's business");
        run_once(&stores, clock.now_ms(), retention, true).await.unwrap();
        assert_eq!(start().await, positions[2], "the others are too young");
    }
}
