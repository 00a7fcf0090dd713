//! A failpoint at which a worker stands still while others go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dwell_runtime::failpoints;

/// Lets the first worker to pass a failpoint stand still there until it is let go.
pub(crate) struct Gate {
    reached: Arc<AtomicBool>,
    open: Arc<AtomicBool>,
    _guard: failpoints::FailpointGuard,
}

impl Gate {
    /// Stands at a failpoint until the gate is dropped.
    pub(crate) fn at(point: &str) -> Self {
        let (reached, open) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (seen, may_pass) = (Arc::clone(&reached), Arc::clone(&open));
        let guard = failpoints::set_fn(point, move || {
            if !seen.swap(true, Ordering::SeqCst) {
                while !may_pass.load(Ordering::SeqCst) {
                    dwell_runtime::clock::sleep_blocking(Duration::from_millis(1));
                }
            }
            Ok(())
        });
        Self {
            reached,
            open,
            _guard: guard,
        }
    }

    /// Returns once a worker stands there.
    pub(crate) async fn reached(&self) {
        while !self.reached.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) fn let_go(&self) {
        self.open.store(true, Ordering::SeqCst);
    }
}
