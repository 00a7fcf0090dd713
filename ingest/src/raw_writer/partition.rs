//! The loop over one partition.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dwell_model::ids::{Receipt, TenantId};
use dwell_model::time::HOUR_MS;
use dwell_runtime::clock::{SharedClock, Stopwatch};
use dwell_runtime::failpoint;
use dwell_runtime::shutdown::ShutdownSignal;
use dwell_storage::api::{
    ConsumerPosition, GroupMember, LogChunk, LoggedRecord, MarkSource, Partition, Position,
    QuarantineEncoding, QuarantineEntry, QuarantineState, RawApplied, RawWrite,
};
use dwell_storage::error::ErrorKind;
use futures::future::{self, Either};

use super::batch::WriteBuilder;
use super::handle::Shared;
use super::{CONSUMER, Config, Error, Progress, RawWriterStores};
use crate::metrics;

/// Whose quarantine names records of which not even the tenant can be read.
const NOBODY: &str = "_dwell";
/// More damaged records in a row than this are no accident of single records: somebody has to look.
const DAMAGED_IN_A_ROW_MAX: u32 = 100;
/// Most bytes of a damaged record that are kept.
const DAMAGED_BYTES_MAX: usize = 64 * 1024;
/// Most entries of that kind that are kept.
const DAMAGED_ENTRIES_MAX: u64 = 10_000;
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// Copies one partition.
pub(super) struct PartitionWriter {
    partition: Partition,
    step_bytes: usize,
    stores: RawWriterStores,
    member: Arc<dyn GroupMember>,
    clock: SharedClock,
    shared: Arc<Shared>,
    /// The next record; `None` until it was looked up.
    position: Option<Position>,
    /// What was read while the step before was applied.
    ahead: Option<Step>,
    damaged_in_a_row: u32,
}

/// What is to be applied next.
struct Step {
    from: Position,
    next: Position,
    write: RawWrite,
}

impl fmt::Debug for PartitionWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartitionWriter")
            .field("partition", &self.partition)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl PartitionWriter {
    pub(super) fn new(
        partition: Partition,
        step_bytes: usize,
        stores: RawWriterStores,
        member: Arc<dyn GroupMember>,
        clock: SharedClock,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            partition,
            step_bytes,
            stores,
            member,
            clock,
            shared,
            position: None,
            ahead: None,
            damaged_in_a_row: 0,
        }
    }

    /// Copies until asked to stop. An error is one that only people can mend.
    pub(super) async fn run(mut self, config: &Config, shutdown: &ShutdownSignal) -> Result<(), Error> {
        let mut failures = 0_u32;
        let mut drain_until = None;
        loop {
            if shutdown.is_requested() {
                let now = self.clock.monotonic();
                if now >= *drain_until.get_or_insert(now + config.drain) {
                    return Ok(());
                }
            }
            match self.step().await {
                Ok(Some(_)) => failures = 0,
                Ok(None) if shutdown.is_requested() => return Ok(()),
                Ok(None) => match self.wait(config.idle_wait, shutdown).await {
                    Ok(()) => failures = 0,
                    Err(error) => self.wait_out(&error, &mut failures, shutdown).await,
                },
                Err(error) if error.is_passing() && shutdown.is_requested() => return Ok(()),
                Err(error) if error.is_passing() => self.wait_out(&error, &mut failures, shutdown).await,
                Err(error) => {
                    tracing::error!(partition = self.partition, %error, "the raw writer has stopped at a partition");
                    self.shared
                        .update(self.partition, |status| status.stopped = Some(error.to_string()));
                    return Err(error);
                }
            }
        }
    }

    /// Copies everything that is there now.
    pub(super) async fn copy_all(&mut self, progress: &mut Progress) -> Result<(), Error> {
        let end = self.stores.log.bounds(self.partition).await?.end;
        while self.position().await? < end {
            let Some(applied) = self.step().await? else {
                return Ok(());
            };
            progress.steps += 1;
            progress.new_rows += applied.new_rows;
            progress.repeated_rows += applied.repeated_rows;
        }
        Ok(())
    }

    /// Applies one step while the next one is being read; `None` when there is nothing to copy.
    async fn step(&mut self) -> Result<Option<RawApplied>, Error> {
        let position = self.position().await?;
        let step = match self.ahead.take() {
            Some(step) if step.from == position => step,
            _ => self.read(position).await?,
        };
        if step.next == position {
            self.shared.update(self.partition, |status| status.waiting = None);
            return Ok(None);
        }
        failpoint!("raw_writer.before_apply");
        let stopwatch = Stopwatch::start();
        let (from, next) = (step.from, step.next);
        let raw = Arc::clone(&self.stores.raw);
        let (applied, ahead) = future::join(raw.apply(step.write), self.read(next)).await;
        let applied =
            applied.map_err(|error| error.while_doing(&format!("write records {from} to {next}")))?;
        failpoint!("raw_writer.after_apply");
        metrics::raw_applied(stopwatch.elapsed(), applied.new_rows, applied.repeated_rows);
        self.position = Some(next);
        self.member.mirror(self.partition, next);
        // A failure to read ahead comes again when that step's turn has come.
        self.ahead = ahead.ok();
        self.shared.update(self.partition, |status| {
            status.position = Some(next);
            status.waiting = None;
        });
        Ok(Some(applied))
    }

    /// Where the partition stands, looked up the first time. Without a stored position of this log's life, the
    /// beginning of the log.
    async fn position(&mut self) -> Result<Position, Error> {
        if let Some(position) = self.position {
            return Ok(position);
        }
        let epoch = self.stores.log.epoch();
        let stored = self.stores.raw.position(CONSUMER, epoch, self.partition).await?;
        let position = match stored {
            Some(position) => position,
            None => self.stores.log.bounds(self.partition).await?.start,
        };
        tracing::info!(
            partition = self.partition,
            epoch,
            position,
            known = stored.is_some(),
            "raw writer begins"
        );
        self.position = Some(position);
        self.shared
            .update(self.partition, |status| status.position = Some(position));
        Ok(position)
    }

    async fn read(&mut self, from: Position) -> Result<Step, Error> {
        let chunk = match self.stores.log.read(self.partition, from, self.step_bytes).await {
            Err(error) if error.kind() == ErrorKind::Damaged => self.read_around_damage(from).await?,
            Err(error) if error.kind() == ErrorKind::Gap => {
                return Err(Error::Stuck(format!("events may be missing: {error}")));
            }
            read => read?,
        };
        let LogChunk { records, next } = chunk;
        let mut builder = WriteBuilder::default();
        for record in records {
            match record.events.check() {
                Ok(()) => {
                    self.damaged_in_a_row = 0;
                    builder.add(record);
                }
                Err(error) => {
                    self.keep_damaged(record.position, &error.to_string(), Some(&record))
                        .await?
                }
            }
        }
        let (partition, epoch) = (self.partition, self.stores.log.epoch());
        let position = ConsumerPosition {
            consumer: CONSUMER,
            epoch,
            partition,
            position: next,
        };
        Ok(Step {
            from,
            next,
            write: builder.build(&MarkSource::log(epoch, partition), position),
        })
    }

    /// Reads records one by one, so that one that cannot be read does not hide the others, and steps over it.
    async fn read_around_damage(&mut self, from: Position) -> Result<LogChunk, Error> {
        match self.stores.log.read(self.partition, from, 1).await {
            Err(error) if error.kind() == ErrorKind::Damaged => {
                if from >= self.stores.log.bounds(self.partition).await?.end {
                    return Err(error.into());
                }
                self.keep_damaged(from, &error.to_string(), None).await?;
                Ok(LogChunk {
                    records: Vec::new(),
                    next: from + 1,
                })
            }
            read => Ok(read?),
        }
    }

    /// Names a damaged record in the quarantine. Its identifiers are pseudonyms already, so it is kept as it is.
    async fn keep_damaged(
        &mut self,
        position: Position,
        what: &str,
        record: Option<&LoggedRecord>,
    ) -> Result<(), Error> {
        self.damaged_in_a_row += 1;
        if self.damaged_in_a_row > DAMAGED_IN_A_ROW_MAX {
            return Err(Error::Stuck(format!(
                "{DAMAGED_IN_A_ROW_MAX} records in a row cannot be read, the last one at {position}: {what}"
            )));
        }
        let (partition, epoch, now) = (self.partition, self.stores.log.epoch(), self.clock.now_ms());
        tracing::error!(
            partition,
            position,
            what,
            "a record of the event log cannot be read and is stepped over"
        );
        let place = format!("{epoch}/{partition}/{position}");
        let nobody = TenantId::new(NOBODY).map_err(|error| Error::Stuck(error.to_string()))?;
        let mut bytes = record
            .and_then(|record| postcard::to_stdvec(&record.events).ok())
            .unwrap_or_default();
        bytes.truncate(DAMAGED_BYTES_MAX);
        let receipt = record.map_or_else(
            || Receipt::derive(b"event log", place.as_bytes()),
            |record| record.receipt,
        );
        let entry = QuarantineEntry {
            id: format!("{:08x}-{receipt}-{position:012x}", now.div_euclid(HOUR_MS).max(0)),
            tenant: record.map_or(nobody, |record| record.venue.tenant.clone()),
            venue: record.map(|record| record.venue.venue.clone()),
            received_at: record.map_or(now, |record| record.received_at),
            receipt,
            source: "event log".to_owned(),
            sensor: None,
            index: position.unsigned_abs(),
            code: "damaged_record".to_owned(),
            message: format!("record {place} of the event log: {what}"),
            format: "postcard".to_owned(),
            encoding: QuarantineEncoding::Plain,
            bytes,
            state: QuarantineState::Open,
        };
        self.stores
            .quarantine
            .add(vec![entry], DAMAGED_ENTRIES_MAX)
            .await?;
        metrics::raw_damaged();
        Ok(())
    }

    /// Waits for a record, or for the end.
    async fn wait(&self, idle_wait: Duration, shutdown: &ShutdownSignal) -> Result<(), Error> {
        let Some(position) = self.position else {
            return Ok(());
        };
        let record = self.stores.log.wait(self.partition, position, idle_wait);
        match future::select(record, std::pin::pin!(shutdown.requested())).await {
            Either::Left((found, _)) => Ok(found.map(|_| ())?),
            Either::Right(_) => Ok(()),
        }
    }

    /// Waits after a failure that may pass: longer each time.
    async fn wait_out(&mut self, error: &Error, failures: &mut u32, shutdown: &ShutdownSignal) {
        tracing::warn!(partition = self.partition, %error, failures = *failures, "the raw writer tries again");
        self.shared
            .update(self.partition, |status| status.waiting = Some(error.to_string()));
        // What was read ahead may stand behind what failed.
        self.ahead = None;
        let delay = RETRY_FIRST
            .saturating_mul(1 << (*failures).min(10))
            .min(RETRY_LONGEST);
        *failures += 1;
        let sleep = self.clock.sleep(delay);
        future::select(sleep, std::pin::pin!(shutdown.requested())).await;
    }
}
