//! The suite, on fresh data directories.

use std::sync::Arc;

use dwell_storage::conformance::{self, event_log::LogUnderTest};

use super::Directories;

macro_rules! conforms {
    ($($seam:ident: $trait:ident),+ $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $seam() {
            let directories = Directories::new();
            conformance::$seam::suite(async || {
                let store: Arc<dyn dwell_storage::api::$trait> = directories.fresh_stores().await.0.$seam;
                store
            })
            .await;
        }
    )+};
}

conforms! {
    sessions: Sessions,
    aggregates: Aggregates,
    venue_days: VenueDays,
    checkpoints: Checkpoints,
    jobs: Jobs,
    quarantine: Quarantine,
    registry: Registry,
    imports: Imports,
    documents: Documents,
    pseudonym_keys: PseudonymKeys,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raw_events() {
    let directories = Directories::new();
    conformance::raw_events::suite(async || {
        let store: Arc<dyn dwell_storage::api::RawEvents> = directories.fresh_stores().await.0.raw;
        store
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn event_log() {
    let directories = Directories::new();
    conformance::event_log::suite(async || {
        let (stores, clock) = directories.fresh_stores().await;
        LogUnderTest {
            log: stores.log,
            clock: Some(clock),
        }
    })
    .await;
}
