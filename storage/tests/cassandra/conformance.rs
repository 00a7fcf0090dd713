//! The suite, in one keyspace that is emptied before each case.

use std::sync::Arc;

use dwell_runtime::shutdown::{PhaseBounds, ShutdownController};
use dwell_runtime::tasks::Tasks;
use dwell_storage::api::LiveViewTable;
use dwell_storage::conformance;

use super::in_fresh_keyspace;

macro_rules! conforms {
    ($($seam:ident => $field:ident: $trait:ident),+ $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $seam() {
            in_fresh_keyspace(async |keyspace| {
                conformance::$seam::suite(async || {
                    let store: Arc<dyn dwell_storage::api::$trait> = keyspace.emptied().await.$field;
                    store
                })
                .await;
            })
            .await;
        }
    )+};
}

conforms! {
    raw_events => raw: RawEvents,
    sessions => sessions: Sessions,
    aggregates => aggregates: Aggregates,
    venue_days => venue_days: VenueDays,
    checkpoints => checkpoints: Checkpoints,
    jobs => jobs: Jobs,
    quarantine => quarantine: Quarantine,
    registry => registry: Registry,
    pseudonym_keys => pseudonym_keys: PseudonymKeys,
    imports => imports: Imports,
    documents => documents: Documents,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_view() {
    in_fresh_keyspace(async |keyspace| {
        conformance::live_view::suite(async || {
            let tasks = Tasks::new(ShutdownController::new(PhaseBounds::default()));
            let table: Arc<dyn LiveViewTable> = keyspace.emptied().await.live_view(tasks);
            table
        })
        .await;
    })
    .await;
}
