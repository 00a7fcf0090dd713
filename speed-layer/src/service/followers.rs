//! The tasks of a process: one for each shard that the group gives it.
//!
//! ```text
//! group ─▶ given ─▶ start ─▶ following ─┬─ lost ─▶ last checkpoint, forgotten
//!            ▲                          ├─ taken over ─▶ rests, longer each time ─▶ start, if still given
//!            │                          └─ failed ─▶ stopped until the group takes it away
//! ```
//!
//! While a group rearranges itself two processes may believe that a shard is theirs. The fence decides who is heard;
//! who finds out that it is the other rests before it tries again, so that the two do not take it from each other for
//! ever.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dwell_runtime::shutdown::ShutdownToken;
use dwell_runtime::tasks::TaskPolicy;
use dwell_storage::api::Shard as ShardNumber;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{oneshot, watch};

use crate::error::{Error, Result};
use crate::handle::Stage;
use crate::health::{Health, Part};
use crate::metrics;
use crate::shard::{Context, Ended, Stop, chain, follow_until_left};

/// How long a shard rests that another process took over although the group gives it to us.
const REST_MIN: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(30);
/// How long a process without shards waits for the group before it says that it is ready without any.
const ANSWER_AWAITED: Duration = Duration::from_secs(10);
/// A shard that was followed for so long was not being fought over.
const SETTLED_AFTER: Duration = Duration::from_secs(60);

/// The shards of a process.
pub(super) struct Followers {
    context: Context,
    health: Arc<Health>,
    shutdown: ShutdownToken,
    following: BTreeMap<ShardNumber, Following>,
    ends: FuturesUnordered<BoxFuture<'static, (ShardNumber, Option<Ended>)>>,
    resting: BTreeMap<ShardNumber, Rest>,
    /// Stopped by failures that do not pass.
    stopped: BTreeSet<ShardNumber>,
    first_error: Option<Error>,
}

struct Following {
    lost: watch::Sender<bool>,
    since: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Rest {
    until: Duration,
    lasts: Duration,
}

impl Followers {
    pub(super) fn new(context: Context, health: Arc<Health>, shutdown: ShutdownToken) -> Self {
        Self {
            context,
            health,
            shutdown,
            following: BTreeMap::new(),
            ends: FuturesUnordered::new(),
            resting: BTreeMap::new(),
            stopped: BTreeSet::new(),
            first_error: None,
        }
    }

    /// Follows what the group gives until the shutdown; returns the first error that stopped a shard.
    pub(super) async fn run(mut self) -> Result<()> {
        let mut given = self.context.member.shards();
        let clock = Arc::clone(&self.context.deps.clock);
        let mut awaited_until = Some(clock.monotonic() + ANSWER_AWAITED);
        while !self.shutdown.is_requested() {
            let shards = given.borrow_and_update().clone();
            self.adjust(&shards);
            awaited_until = awaited_until.filter(|until| shards.is_empty() && clock.monotonic() < *until);
            let awaits = awaited_until.map(|_| "waiting for the group's answer".to_owned());
            self.health.report(Part::Group, awaits);
            let rest = self.rest().or(awaited_until.map(|_| ANSWER_AWAITED));
            tokio::select! {
                biased;
                () = self.shutdown.requested() => {}
                Some((shard, ended)) = self.ends.next() => self.end(shard, ended),
                Ok(()) = given.changed() => {}
                () = clock.sleep(rest.unwrap_or_default()), if rest.is_some() => {}
            }
        }
        while let Some((shard, ended)) = self.ends.next().await {
            self.end(shard, ended);
        }
        self.first_error.map_or(Ok(()), Err)
    }

    /// Starts what is given, and lets go what is not.
    fn adjust(&mut self, given: &BTreeSet<ShardNumber>) {
        for (shard, following) in &self.following {
            if !given.contains(shard) && !*following.lost.borrow() {
                tracing::info!(shard, "the group gives a shard to another process");
                following.lost.send_replace(true);
            }
        }
        self.resting.retain(|shard, _| given.contains(shard));
        let taken_away: Vec<ShardNumber> = self.stopped.difference(given).copied().collect();
        for shard in taken_away {
            self.stopped.remove(&shard);
            self.forget(shard);
        }
        let now = self.context.deps.clock.monotonic();
        for &shard in given {
            let rests = self.resting.get(&shard).is_some_and(|rest| now < rest.until);
            if !self.following.contains_key(&shard) && !self.stopped.contains(&shard) && !rests {
                self.start(shard, now);
            }
        }
        metrics::shards_followed(self.following.len());
    }

    fn start(&mut self, shard: ShardNumber, now: Duration) {
        tracing::info!(shard, "following a shard");
        let starting = "starting".to_owned();
        self.health.report(Part::Following(shard), Some(starting));
        let (lost, stop_lost) = watch::channel(false);
        let stop = Stop {
            shutdown: self.shutdown.clone(),
            lost: stop_lost,
        };
        let (context, health) = (self.context.clone(), Arc::clone(&self.health));
        let (sender, ended) = oneshot::channel();
        // Errors come back through the channel: only a panic ends the process, which then starts from raw.
        let task = self
            .context
            .deps
            .tasks
            .spawn("speed layer", TaskPolicy::Shutdown, async move {
                let ended = follow_until_left(shard, context, &health, stop).await;
                // The receiver is gone only when the service itself was dropped.
                let _ = sender.send(ended);
            });
        let end = async move {
            let _ = task.join().await;
            (shard, ended.await.ok())
        };
        self.ends.push(end.boxed());
        self.following.insert(shard, Following { lost, since: now });
    }

    fn end(&mut self, shard: ShardNumber, ended: Option<Ended>) {
        let Some(following) = self.following.remove(&shard) else {
            return;
        };
        match ended {
            Some(Ended::Left) | None => {
                self.resting.remove(&shard);
                self.forget(shard);
            }
            Some(Ended::TakenOver) => {
                let now = self.context.deps.clock.monotonic();
                let before = self.resting.remove(&shard);
                let is_new = now.saturating_sub(following.since) >= SETTLED_AFTER;
                let lasts = match before {
                    Some(rest) if !is_new => (rest.lasts * 2).min(REST_MAX),
                    _ => REST_MIN,
                };
                let until = now + lasts;
                self.resting.insert(shard, Rest { until, lasts });
                self.context.shared.set_stage(shard, Stage::TakenOver);
                let problem = "another process has taken it over".to_owned();
                self.health.forget(shard);
                self.health.report(Part::Following(shard), Some(problem));
            }
            Some(Ended::Failed(error)) => {
                let reason = chain(&error);
                self.health.forget(shard);
                self.health.report(Part::Following(shard), Some(reason.clone()));
                self.context.shared.set_stage(shard, Stage::Stopped(reason));
                self.stopped.insert(shard);
                self.first_error.get_or_insert(error);
            }
        }
        metrics::shards_followed(self.following.len());
    }

    fn forget(&self, shard: ShardNumber) {
        self.context.shared.forget_shard(shard);
        self.health.forget(shard);
    }

    /// Time until the first resting shard is started again.
    fn rest(&self) -> Option<Duration> {
        let now = self.context.deps.clock.monotonic();
        let resting = self
            .resting
            .iter()
            .filter(|(shard, _)| !self.following.contains_key(shard));
        resting.map(|(_, rest)| rest.until.saturating_sub(now)).min()
    }
}
