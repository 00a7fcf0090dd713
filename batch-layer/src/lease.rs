//! Leases kept alive while their days are worked on.
//!
//! Renewing gives liveness only: a worker that was paused past its lease finds out here, or at the latest when it
//! publishes, which is conditional on the fence.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dwell_storage::api::{Flip, Lease};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::layer::BatchLayer;
use crate::metrics;

/// A reason to stop working on a day: its lease is lost, or somebody asked for it. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Stop {
    token: CancellationToken,
    lost: Arc<AtomicBool>,
}

impl Stop {
    /// Stops with `cancel`, or alone when its lease is lost.
    pub(crate) fn under(cancel: &CancellationToken) -> Self {
        Self {
            token: cancel.child_token(),
            lost: Arc::default(),
        }
    }

    /// An error when the work should stop. Cheap: called between chunks.
    pub(crate) fn check(&self) -> Result<()> {
        if self.lost.load(Ordering::Relaxed) {
            Err(Error::LeaseLost)
        } else if self.token.is_cancelled() {
            Err(Error::Cancelled)
        } else {
            Ok(())
        }
    }

    /// Returns when the work should stop.
    pub(crate) async fn stopped(&self) {
        self.token.cancelled().await;
    }

    /// The lease has another holder now.
    pub(crate) fn lose(&self) {
        self.lost.store(true, Ordering::Relaxed);
        self.token.cancel();
    }
}

/// Does `work` while renewing the leases; a lease that is lost stops its own day only.
pub(crate) async fn while_renewing<T>(
    layer: &BatchLayer,
    leases: Vec<(Lease, Stop)>,
    work: impl Future<Output = T>,
) -> T {
    tokio::select! {
        biased;
        output = work => output,
        never = renew_for_ever(layer, leases) => match never {},
    }
}

async fn renew_for_ever(layer: &BatchLayer, mut leases: Vec<(Lease, Stop)>) -> std::convert::Infallible {
    let ttl = layer.config().lease_ttl;
    loop {
        layer.clock().sleep(ttl.as_duration() / 3).await;
        let mut kept = Vec::with_capacity(leases.len());
        for (lease, stop) in leases {
            match layer
                .stores()
                .venue_days
                .renew(&lease, layer.now_ms(), ttl.as_ms())
                .await
            {
                Ok(Flip::Done) => kept.push((lease, stop)),
                Ok(Flip::Lost) => {
                    metrics::lease_lost();
                    tracing::warn!(venue = %lease.venue, day = %lease.day, fence = lease.fence, "lease lost");
                    stop.lose();
                }
                Err(error) => {
                    tracing::warn!(venue = %lease.venue, day = %lease.day, %error, "lease not renewed");
                    kept.push((lease, stop));
                }
            }
        }
        leases = kept;
    }
}
