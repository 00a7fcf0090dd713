//! The suite, on topics of its own for each case.

use std::sync::Arc;

use dwell_storage::conformance::event_log::{self, LogUnderTest};

use super::kafka;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn event_log() {
    let Some(kafka) = kafka() else { return };
    event_log::suite(async || {
        let (log, _) = kafka.fresh_log(2).await;
        LogUnderTest {
            log: Arc::clone(&log) as _,
            // The broker's clock cannot be set.
            clock: None,
        }
    })
    .await;
}
