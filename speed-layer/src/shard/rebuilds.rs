//! Building days anew beside the following of the log.
//!
//! A job builds its day from raw and log up to the positions at which it began, while the old state goes on. When it is
//! done, the day catches up by reading the log from there once more, for its venue alone, and takes the old one's
//! place. One job runs at a time in a shard.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use dwell_model::event::Kind;
use dwell_model::ids::VenueKey;
use dwell_model::time::{LocalDay, TsMs};
use dwell_runtime::clock::Stopwatch;
use dwell_storage::api::{EventLog, Partition, Position};

use super::Shard;
use super::reader::ShardReader;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::live_sessions::{DayPlan, Moment, Reason};
use crate::log_chunk;
use crate::metrics;
use crate::rebuild::{Built, Sources};

/// A day to be built.
#[derive(Debug)]
pub(crate) struct RebuildJob {
    sources: Sources,
    config: Arc<Config>,
    key: VenueKey,
    reason: Reason,
    plan: DayPlan,
    begun: Moment,
    /// Time before which the order of positions is settled.
    settle_until: TsMs,
    /// Everything before these is to be in the state.
    until: Vec<(Partition, Position)>,
}

/// What became of a job.
#[derive(Debug)]
pub(crate) struct RebuildOutcome {
    key: VenueKey,
    day: LocalDay,
    reason: Reason,
    until: Vec<(Partition, Position)>,
    begun: Moment,
    took: Duration,
    result: Result<Built>,
}

impl RebuildJob {
    /// Builds the day.
    pub(crate) async fn run(self) -> RebuildOutcome {
        let stopwatch = Stopwatch::start();
        let (key, day, reason, until, begun) = (
            self.key.clone(),
            self.plan.day(),
            self.reason,
            self.until.clone(),
            self.begun,
        );
        let result = self.build().await;
        RebuildOutcome {
            key,
            day,
            reason,
            until,
            begun,
            took: stopwatch.elapsed(),
            result,
        }
    }

    async fn build(self) -> Result<Built> {
        let range: Range<TsMs> = self.plan.cut.start..self.plan.cut.end;
        let wanted = |venue: &VenueKey| (*venue == self.key).then(|| range.clone());
        let stretches = self.sources.stretches(&self.until).await?;
        let (bytes, events_max) = (self.config.read_bytes, self.config.tail_events_max);
        let tail = self.sources.tail(&stretches, bytes, events_max, wanted).await?;
        self.sources
            .build(self.plan, tail.of(&self.key), self.settle_until, &self.config)
            .await
    }
}

/// Time up to which a day that is built now may settle its positions: how far the log was read of their partition.
/// Other kinds need no order, so how far theirs have been read does not matter.
pub(super) fn settle_until(log: &dyn EventLog, reader: &ShardReader, venue: &VenueKey, at: Moment) -> TsMs {
    let positions = log.partition_of(venue, Kind::Position);
    reader.log_time_of(positions).min(at.now)
}

impl Shard {
    /// The job that is due, if none is running. Its outcome must come back through [`adopt`](Self::adopt).
    pub(crate) async fn next_rebuild(&mut self) -> Result<Option<RebuildJob>> {
        if self.is_rebuilding {
            return Ok(None);
        }
        let at = self.moment();
        let due = |(key, (day, reason))| (key, day, reason);
        let Some((key, day, reason)) = self
            .venues
            .values()
            .find_map(|venue| venue.due_rebuild(at).map(|wanted| (venue.key().clone(), wanted)))
            .map(due)
        else {
            return Ok(None);
        };
        let is_closed = self.venues.get(&key).is_some_and(|venue| day < venue.today());
        if is_closed && self.is_published(&key, day).await? {
            return Ok(None);
        }
        let Some(venue) = self.venues.get_mut(&key) else {
            return Ok(None);
        };
        self.is_rebuilding = true;
        let settle_until = settle_until(&*self.context.deps.log, &self.reader, &key, at);
        Ok(Some(RebuildJob {
            sources: self.sources.clone(),
            config: Arc::clone(&self.context.config),
            plan: venue.begin_rebuild(day),
            key,
            reason,
            begun: at,
            settle_until,
            until: self.reader.positions(),
        }))
    }

    /// Takes a built day in, with what came since the job began.
    pub(crate) async fn adopt(&mut self, outcome: RebuildOutcome) -> Result<()> {
        self.is_rebuilding = false;
        let at = self.moment();
        let RebuildOutcome {
            key,
            day,
            reason,
            until,
            begun,
            took,
            result,
        } = outcome;
        let Some(venue) = self.venues.get_mut(&key) else {
            return Ok(());
        };
        match result {
            Ok(built) => {
                tracing::info!(venue = %key, %day, reason = reason.word(), ?took, "a live day was built anew");
                metrics::rebuild_ended(reason.word(), "done", took);
                let lasted = at.monotonic.saturating_sub(begun.monotonic);
                if venue.adopt(built.state, built.latest_ts, lasted, at) {
                    self.catch_up(&key, day, &until).await?;
                }
            }
            Err(error) => {
                let outcome = if matches!(error, Error::RawWriterBehind { .. }) {
                    "postponed"
                } else {
                    "failed"
                };
                tracing::warn!(venue = %key, %day, reason = reason.word(), %error, "a live day could not be built anew");
                metrics::rebuild_ended(reason.word(), outcome, took);
                venue.give_back(day, reason, at);
            }
        }
        Ok(())
    }

    /// Gives a day what the log holds from these positions up to ours.
    async fn catch_up(
        &mut self,
        key: &VenueKey,
        day: LocalDay,
        from: &[(Partition, Position)],
    ) -> Result<()> {
        let log = Arc::clone(&self.context.deps.log);
        let ends = self.reader.positions();
        for (&(partition, from), (_, end)) in from.iter().zip(ends) {
            let mut position = from;
            while position < end {
                let read = log_chunk::read(&*log, partition, position, self.context.config.read_bytes).await;
                let at = self.moment();
                let Some(venue) = self.venues.get_mut(key) else {
                    return Ok(());
                };
                let chunk = match read {
                    Ok(chunk) => chunk,
                    Err(error) => {
                        // Without these events the day would be wrong: it is built once more.
                        venue.drop_day(day, at);
                        return Err(error);
                    }
                };
                if chunk.next <= position {
                    break;
                }
                let records = chunk.records.iter();
                for record in records.filter(|record| record.venue == *key && record.position < end) {
                    venue.take_again(&mut self.hasher, record, day, at);
                }
                position = chunk.next;
            }
        }
        Ok(())
    }
}
