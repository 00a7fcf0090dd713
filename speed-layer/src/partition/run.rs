//! The loop around a partition's steps.

use std::sync::Arc;
use std::time::Duration;

use dwell_runtime::admin::CheckHandle;
use dwell_runtime::shutdown::ShutdownToken;
use dwell_storage::api::{LogLag, Partition as PartitionNumber};
use futures::future::{BoxFuture, FutureExt, OptionFuture};

use super::{Partition, RebuildOutcome};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::handle::{PartitionStatus, Shared, Stage};
use crate::service::Deps;

/// Delays between attempts after a failure of a store.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Follows a partition until the shutdown asks for its checkpoint. A failure that only a person can mend (a gap in the
/// log, somebody else's ownership) stops the partition, and its readiness check names it until the shutdown.
pub(crate) async fn run(
    number: PartitionNumber,
    deps: Deps,
    config: Arc<Config>,
    shared: Arc<Shared>,
    shutdown: ShutdownToken,
) -> Result<()> {
    let check = deps
        .readiness
        .register(format!("speed layer, partition {number}"));
    shared.set_status(PartitionStatus {
        partition: number,
        fence: 0,
        position: 0,
        lag: LogLag::default(),
        stage: Stage::Starting,
    });
    let result = follow_until_shutdown(number, &deps, config, &shared, &shutdown, &check).await;
    if let Err(error) = &result {
        let reason = chain(error);
        tracing::error!(partition = number, error = %reason, "the speed layer stops following a partition");
        check.set_not_ok(reason.clone());
        shared.set_stage(number, Stage::Stopped(reason));
        shutdown.requested().await;
    }
    result
}

async fn follow_until_shutdown(
    number: PartitionNumber,
    deps: &Deps,
    config: Arc<Config>,
    shared: &Arc<Shared>,
    shutdown: &ShutdownToken,
    check: &CheckHandle,
) -> Result<()> {
    let mut patience = Patience::new(deps, check);
    let mut partition = loop {
        let opening = Partition::open(number, deps.clone(), Arc::clone(&config), Arc::clone(shared));
        let opened = tokio::select! {
            biased;
            () = shutdown.requested() => return Ok(()),
            opened = opening => opened,
        };
        match patience.judge(opened)? {
            Some(partition) => break partition,
            None => patience.pause(shutdown).await,
        }
    };
    partition.report(LogLag::default());
    let mut rebuild: Option<BoxFuture<'static, RebuildOutcome>> = None;
    let mut tick_at = deps.clock.monotonic();
    while !shutdown.is_requested() {
        let now = deps.clock.monotonic();
        if now >= tick_at {
            partition.tick()?;
            tick_at = now + config.tick.as_duration();
        }
        let mut is_well = patience.judge(partition.upkeep().await)?.is_some();
        if rebuild.is_none() {
            let job = patience.judge(partition.next_rebuild().await)?;
            is_well &= job.is_some();
            rebuild = job.flatten().map(|job| job.run().boxed());
        }
        let until_tick = tick_at.saturating_sub(now);
        let running = OptionFuture::from(rebuild.as_mut());
        let has_more = !partition.is_caught_up();
        let log = Arc::clone(&deps.log);
        tokio::select! {
            biased;
            () = shutdown.requested() => break,
            Some(outcome) = running => {
                rebuild = None;
                is_well &= patience.judge(partition.adopt(outcome).await)?.is_some();
            }
            () = std::future::ready(()), if has_more => {
                is_well &= patience.judge(partition.follow().await)?.is_some();
                // Reading an embedded log may never wait: others get their turn.
                tokio::task::yield_now().await;
            }
            () = deps.clock.sleep(until_tick) => {}
            waited = log.wait(number, partition.position, until_tick) => {
                match patience.judge(waited.map_err(Error::from))? {
                    Some(true) => is_well &= patience.judge(partition.follow().await)?.is_some(),
                    Some(false) => {}
                    None => is_well = false,
                }
            }
        }
        match is_well {
            true => patience.all_is_well(),
            false => patience.pause(shutdown).await,
        }
    }
    // What is in the log beyond is read after the restart.
    partition.tick()?;
    partition.checkpoint().await
}

/// Bears with failures that pass, at growing distances, and says so in the readiness check.
struct Patience<'a> {
    deps: &'a Deps,
    check: &'a CheckHandle,
    delay: Duration,
}

impl<'a> Patience<'a> {
    fn new(deps: &'a Deps, check: &'a CheckHandle) -> Self {
        Self {
            deps,
            check,
            delay: RETRY_MIN,
        }
    }

    /// A result's value; `None` after a failure that may pass. Others are returned.
    fn judge<T>(&mut self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_retryable() => {
                tracing::warn!(error = %chain(&error), "the speed layer tries again");
                self.check.set_not_ok(chain(&error));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn pause(&mut self, shutdown: &ShutdownToken) {
        tokio::select! {
            biased;
            () = shutdown.requested() => {}
            () = self.deps.clock.sleep(self.delay) => {}
        }
        self.delay = (self.delay * 2).min(RETRY_MAX);
    }

    fn all_is_well(&mut self) {
        self.delay = RETRY_MIN;
        self.check.set_ok();
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
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
