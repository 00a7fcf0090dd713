//! So many at once, and no queue.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Lets a bounded number of units through at a time: requests, jobs, or bytes in flight. Clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate {
    name: &'static str,
    units_max: u32,
    semaphore: Arc<Semaphore>,
}

/// A place within a [`Gate`]; given back on drop.
#[derive(Debug)]
#[must_use = "a permit that is dropped at once bounds nothing"]
pub struct GatePermit {
    permit: OwnedSemaphorePermit,
}

/// The gate is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{gate} is at its limit of {units_max}")]
pub struct Busy {
    /// The gate's name.
    pub gate: &'static str,
    /// How many units it lets through at a time.
    pub units_max: u32,
}

impl Gate {
    /// A gate for `units_max` units at a time.
    pub fn new(name: &'static str, units_max: u32) -> Self {
        // On a machine whose usize is small the bound is smaller, never wrong.
        let permits =
            usize::try_from(units_max).map_or(Semaphore::MAX_PERMITS, |max| max.min(Semaphore::MAX_PERMITS));
        Self {
            name,
            units_max,
            semaphore: Arc::new(Semaphore::new(permits)),
        }
    }

    /// One unit, if there is room now.
    pub fn try_acquire(&self) -> Result<GatePermit, Busy> {
        self.try_acquire_many(1)
    }

    /// Several units together, if there is room for all of them now. More than the gate's whole is never let through:
    /// whoever measures bytes should clamp to [`units_max`](Self::units_max).
    pub fn try_acquire_many(&self, units: u32) -> Result<GatePermit, Busy> {
        match Arc::clone(&self.semaphore).try_acquire_many_owned(units) {
            Ok(permit) => Ok(GatePermit { permit }),
            Err(_) => Err(self.busy()),
        }
    }

    /// Waits for one unit, first come first served. For work that is bounded elsewhere (a fixed number of workers),
    /// not for what strangers can send.
    pub async fn acquire(&self) -> GatePermit {
        loop {
            // Never closed, so this never fails.
            if let Ok(permit) = Arc::clone(&self.semaphore).acquire_owned().await {
                return GatePermit { permit };
            }
        }
    }

    /// How many units are let through at a time.
    pub fn units_max(&self) -> u32 {
        self.units_max
    }

    /// How many more would be let through now.
    pub fn units_free(&self) -> u32 {
        u32::try_from(self.semaphore.available_permits()).unwrap_or(u32::MAX)
    }

    fn busy(&self) -> Busy {
        Busy {
            gate: self.name,
            units_max: self.units_max,
        }
    }
}

impl GatePermit {
    /// How many units it holds.
    pub fn units(&self) -> usize {
        self.permit.num_permits()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::poll;

    use super::*;

    #[test]
    fn who_comes_when_it_is_full_is_told_so_until_a_place_is_given_back() {
        let gate = Gate::new("uploads", 2);
        let first = gate.try_acquire().unwrap();
        let _second = gate.clone().try_acquire().unwrap();
        let busy = gate.try_acquire().unwrap_err();
        assert_eq!(busy.to_string(), "uploads is at its limit of 2");
        drop(first);
        assert!(gate.try_acquire().is_ok());
    }

    #[test]
    fn several_units_are_taken_together_or_not_at_all() {
        let gate = Gate::new("bytes in flight", 100);
        let held = gate.try_acquire_many(60).unwrap();
        assert!(gate.try_acquire_many(41).is_err());
        assert_eq!((gate.units_free(), held.units()), (40, 60));
        assert!(gate.try_acquire_many(40).is_ok());
        drop(held);
        assert!(gate.try_acquire_many(101).is_err());
        assert!(gate.try_acquire_many(gate.units_max()).is_ok());
    }

    #[tokio::test]
    async fn a_gate_for_workers_lets_the_next_one_in_when_one_leaves() {
        let gate = Gate::new("days", 1);
        let held = gate.acquire().await;
        let mut waiting = pin!(gate.acquire());
        assert!(poll!(&mut waiting).is_pending());
        drop(held);
        assert!(poll!(&mut waiting).is_ready());
    }
}
