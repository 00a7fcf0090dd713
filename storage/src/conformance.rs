//! The suite that every backend passes: a module per seam, a case per sentence of its contract.
//!
//! A suite takes a function that makes a fresh, empty store and calls it once per case. Expected values are worked out
//! in the suite itself, naively, never with the store's own code. A failing case does not stop the others; their names
//! stand together in the final panic.
//!
//! ```ignore
//! conformance::raw_events::suite(|| async { fresh_store().await }).await;
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "this is test code, in the library for other crates"
)]

pub mod aggregates;
pub mod archive;
pub mod backup_place;
pub mod checkpoints;
pub mod documents;
pub mod erasures;
pub mod event_log;
pub mod imports;
pub mod jobs;
pub mod live_view;
pub mod pseudonym_keys;
mod publications;
pub mod quarantine;
pub mod raw_events;
mod recuts;
pub mod registry;
pub mod samples;
pub mod sessions;
pub mod venue_days;

use std::any::Any;

/// Runs cases one after the other, each on a store of its own.
macro_rules! run_cases {
    ($seam:literal, $make:expr, [$($case:path),+ $(,)?]) => {{
        let mut outcomes = $crate::conformance::Outcomes::new($seam);
        $(
            let store = $make().await;
            let run = futures::FutureExt::catch_unwind(std::panic::AssertUnwindSafe($case(store)));
            outcomes.record(stringify!($case), run.await);
        )+
        outcomes.finish();
    }};
}
pub(crate) use run_cases;

/// What became of the cases of a suite.
#[derive(Debug)]
pub(crate) struct Outcomes {
    seam: &'static str,
    passed: usize,
    failed: Vec<&'static str>,
}

impl Outcomes {
    pub(crate) fn new(seam: &'static str) -> Self {
        Self {
            seam,
            passed: 0,
            failed: Vec::new(),
        }
    }

    pub(crate) fn record(&mut self, case: &'static str, outcome: Result<(), Box<dyn Any + Send>>) {
        match outcome {
            Ok(()) => self.passed += 1,
            // Its message has been printed by the panic hook.
            Err(_) => self.failed.push(case),
        }
    }

    pub(crate) fn finish(self) {
        let Self { seam, passed, failed } = self;
        assert!(
            failed.is_empty(),
            "{seam}: {passed} cases passed, these failed: {}",
            failed.join(", ")
        );
    }
}

/// Asserts that a call failed, and how.
#[track_caller]
pub(crate) fn assert_kind<T: std::fmt::Debug>(
    outcome: crate::error::Result<T>,
    kind: crate::error::ErrorKind,
) {
    match outcome {
        Ok(value) => panic!("expected the failure {}, got {value:?}", kind.word()),
        Err(error) => assert_eq!(error.kind(), kind, "{error}"),
    }
}
