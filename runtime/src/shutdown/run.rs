//! The walk through the phases.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use super::{LateParty, Phase, ShutdownCause, ShutdownController, ShutdownReport};
use crate::clock::Clock;

/// How often those who are waited for are named in the log.
const PENDING_LOG_INTERVAL: Duration = Duration::from_secs(5);

impl ShutdownController {
    /// Takes the process through all phases, in at most `total`; triggers the shutdown if nobody has.
    ///
    /// Returns when every party is done or late. To be called once, by `main`; a second call finds the phases begun
    /// and waits with the first.
    pub async fn run_to_completion(&self, total: Duration, clock: &dyn Clock) -> ShutdownReport {
        self.trigger();
        let started = clock.monotonic();
        let mut late = Vec::new();
        for phase in Phase::ALL {
            let left = total.saturating_sub(clock.monotonic().saturating_sub(started));
            self.inner.begun[phase.index()].cancel();
            let bound = left.min(self.inner.bounds.bound(phase));
            for (id, name) in self.wait_for_phase(phase, bound, clock).await {
                tracing::warn!(%phase, name = &*name, ?bound, "late in shutdown, going on without it");
                late.push((
                    id,
                    LateParty {
                        phase,
                        name,
                        finished_later: false,
                    },
                ));
            }
        }
        self.report(late, clock.monotonic().saturating_sub(started))
    }

    /// Waits until nobody is pending in `phase`; after `bound`, returns who still is.
    async fn wait_for_phase(&self, phase: Phase, bound: Duration, clock: &dyn Clock) -> Vec<(u64, Arc<str>)> {
        let started = clock.monotonic();
        let mut bound_reached = clock.sleep(bound);
        let mut log_due = clock.sleep(PENDING_LOG_INTERVAL);
        loop {
            // Made before the look at who is pending, so that a party that leaves in between is not missed.
            let party_left = pin!(self.inner.party_left.notified());
            let pending = self.pending(phase);
            if pending.is_empty() {
                return pending;
            }
            tokio::select! {
                biased;
                () = party_left => {}
                () = &mut bound_reached => return self.pending(phase),
                () = &mut log_due => {
                    let names: Vec<&str> = pending.iter().map(|(_, name)| &**name).collect();
                    let waited = clock.monotonic().saturating_sub(started);
                    tracing::info!(%phase, waited_s = waited.as_secs(), pending = ?names, "shutdown is waiting");
                    log_due = clock.sleep(PENDING_LOG_INTERVAL);
                }
            }
        }
    }

    fn pending(&self, phase: Phase) -> Vec<(u64, Arc<str>)> {
        let parties = self.inner.lock();
        let of_phase = parties.pending.range((phase, 0)..=(phase, u64::MAX));
        of_phase.map(|((_, id), name)| (*id, Arc::clone(name))).collect()
    }

    fn report(&self, late: Vec<(u64, LateParty)>, elapsed: Duration) -> ShutdownReport {
        let parties = self.inner.lock();
        let finished_later = |id: u64, phase: Phase| !parties.pending.contains_key(&(phase, id));
        let late = late.into_iter().map(|(id, party)| LateParty {
            finished_later: finished_later(id, party.phase),
            ..party
        });
        ShutdownReport {
            late: late.collect(),
            elapsed,
            cause: parties.cause.clone().unwrap_or(ShutdownCause::Requested),
        }
    }
}
