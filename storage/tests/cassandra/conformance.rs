//! The suite, in one keyspace that is emptied before each case.

use std::sync::Arc;

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
}
