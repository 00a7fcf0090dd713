//! The loop around a shard's steps.

use std::sync::Arc;
use std::time::Duration;

use dwell_runtime::clock::SharedClock;
use dwell_runtime::shutdown::ShutdownToken;
use dwell_storage::api::{LogLag, Shard as ShardNumber};
use futures::future::{BoxFuture, FutureExt, OptionFuture};
use tokio::sync::watch;

use super::{Context, RebuildOutcome, Shard};
use crate::error::{Error, Result};
use crate::handle::{ShardStatus, Stage};
use crate::health::{Health, Part};

/// Delays between attempts after a failure of a store.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How often the log is read although nothing new was heard of: who waits for a log that is away hears nothing.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How the following of a shard ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// As asked, with a last checkpoint.
    Left,
    /// Another process has taken the shard over.
    TakenOver,
    /// By a failure that does not pass.
    Failed(Error),
}

/// Says when the following has to end.
#[derive(Debug)]
pub(crate) struct Stop {
    pub(crate) shutdown: ShutdownToken,
    /// Whether the group has given the shard to another process.
    pub(crate) lost: watch::Receiver<bool>,
}

impl Stop {
    async fn requested(&self) {
        let mut lost = self.lost.clone();
        tokio::select! {
            () = self.shutdown.requested() => {}
            // The sender is gone only with the service, which is then being dropped.
            _ = lost.wait_for(|lost| *lost) => {}
        }
    }

    fn is_requested(&self) -> bool {
        self.shutdown.is_requested() || self.is_lost()
    }

    fn is_lost(&self) -> bool {
        *self.lost.borrow()
    }
}

/// Follows a shard until it is lost or the shutdown asks for its checkpoint. Failures that may pass are waited out and
/// said to the readiness check; after a gap in the log the shard starts anew from raw.
pub(crate) async fn follow_until_left(
    number: ShardNumber,
    context: Context,
    health: &Health,
    stop: Stop,
) -> Ended {
    context.shared.set_status(ShardStatus {
        shard: number,
        fence: 0,
        positions: Vec::new(),
        lag: LogLag::default(),
        stage: Stage::Starting,
        gaps: Vec::new(),
    });
    match follow(number, &context, health, &stop).await {
        Ok(()) => Ended::Left,
        Err(Error::TakenOver { fence, .. }) => {
            tracing::warn!(shard = number, fence, "another process has taken a shard over");
            Ended::TakenOver
        }
        Err(error) => {
            tracing::error!(shard = number, error = %chain(&error), "the speed layer stops following a shard");
            Ended::Failed(error)
        }
    }
}

async fn follow(number: ShardNumber, context: &Context, health: &Health, stop: &Stop) -> Result<()> {
    let mut patience = Patience::new(context, health, Part::Following(number));
    loop {
        let opened = tokio::select! {
            biased;
            () = stop.requested() => return Ok(()),
            opened = Shard::open(number, context.clone()) => opened,
        };
        let Some(mut shard) = patience.judge(opened)? else {
            patience.pause(stop).await;
            continue;
        };
        shard.report(LogLag::default());
        let result = follow_opened(&mut shard, context, health, stop).await;
        if stop.is_lost() {
            // Another process has it or will have it: what it shows from now on is not ours.
            let left = shard.checkpoint().await;
            shard.withdraw();
            return match left {
                Err(error) if !error.is_retryable() && !matches!(error, Error::TakenOver { .. }) => {
                    Err(error)
                }
                _ => Ok(()),
            };
        }
        match result {
            Ok(()) => {
                // What is in the log beyond is read after the restart.
                shard.tick()?;
                return shard.checkpoint().await;
            }
            Err(error @ Error::Gap { .. }) => {
                context.shared.set_stage(number, Stage::Starting);
                patience.judge::<()>(Err(error))?;
                patience.pause(stop).await;
            }
            Err(error @ Error::TakenOver { .. }) => {
                shard.withdraw();
                return Err(error);
            }
            Err(error) => return Err(error),
        }
    }
}

async fn follow_opened(shard: &mut Shard, context: &Context, health: &Health, stop: &Stop) -> Result<()> {
    let (clock, config) = (
        SharedClock::clone(&context.deps.clock),
        Arc::clone(&context.config),
    );
    let mut reading = Patience::new(context, health, Part::Following(shard.number()));
    let mut caring = Patience::new(context, health, Part::Upkeep(shard.number()));
    let mut rebuild: Option<BoxFuture<'static, RebuildOutcome>> = None;
    let mut tick_at = clock.monotonic();
    let mut look_at = tick_at + LOOK_EVERY;
    while !stop.is_requested() {
        if clock.monotonic() >= tick_at {
            shard.tick()?;
            tick_at = clock.monotonic() + config.tick.as_duration();
        }
        if caring.is_due() {
            let done = caring.judge(shard.upkeep().await)?;
            if done.is_some() && rebuild.is_none() {
                let job = caring.judge(shard.next_rebuild().await)?;
                rebuild = job.flatten().map(|job| job.run().boxed());
            }
            health.remark(Part::Following(shard.number()), shard.remark());
        }
        let until_tick = tick_at.saturating_sub(clock.monotonic());
        let running = OptionFuture::from(rebuild.as_mut());
        let has_more = !shard.is_caught_up() || clock.monotonic() >= look_at;
        let may_read = reading.is_due();
        tokio::select! {
            biased;
            () = stop.requested() => break,
            Some(outcome) = running => {
                rebuild = None;
                caring.judge(gap_passes(shard.adopt(outcome).await)?)?;
            }
            () = std::future::ready(()), if has_more && may_read => {
                reading.judge(gap_passes(shard.follow().await)?)?;
                look_at = clock.monotonic() + LOOK_EVERY;
                // Reading an embedded log may never wait: others get their turn.
                tokio::task::yield_now().await;
            }
            () = clock.sleep(until_tick) => {
                if !has_more {
                    shard.heard(&[]);
                }
            }
            found = shard.wait(until_tick), if !has_more && may_read => {
                if let Some(found) = reading.judge(gap_passes(found)?)? {
                    shard.heard(&found);
                    if !found.is_empty() {
                        reading.judge(gap_passes(shard.follow().await)?)?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Lets a gap end the loop, and leaves other failures to the patience.
fn gap_passes<T>(result: Result<T>) -> Result<Result<T>> {
    match result {
        Err(error @ Error::Gap { .. }) => Err(error),
        result => Ok(result),
    }
}

/// Bears with failures that pass, at growing distances, and says so in the readiness check.
struct Patience<'a> {
    clock: SharedClock,
    health: &'a Health,
    part: Part,
    delay: Duration,
    rests_until: Duration,
}

impl<'a> Patience<'a> {
    fn new(context: &Context, health: &'a Health, part: Part) -> Self {
        Self {
            clock: SharedClock::clone(&context.deps.clock),
            health,
            part,
            delay: RETRY_MIN,
            rests_until: Duration::ZERO,
        }
    }

    /// A result's value; `None` after a failure that may pass, which is then left alone for a while. Others are
    /// returned.
    fn judge<T>(&mut self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => {
                self.delay = RETRY_MIN;
                self.health.report(self.part, None);
                Ok(Some(value))
            }
            Err(error) if error.is_retryable() => {
                tracing::warn!(part = ?self.part, error = %chain(&error), "the speed layer tries again");
                self.health.report(self.part, Some(chain(&error)));
                self.rests_until = self.clock.monotonic() + self.delay;
                self.delay = (self.delay * 2).min(RETRY_MAX);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether it is time to try again.
    fn is_due(&self) -> bool {
        self.clock.monotonic() >= self.rests_until
    }

    async fn pause(&self, stop: &Stop) {
        let rest = self.rests_until.saturating_sub(self.clock.monotonic());
        tokio::select! {
            biased;
            () = stop.requested() => {}
            () = self.clock.sleep(rest) => {}
        }
    }
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
