//! Dwell's serving API: metrics, live view, sessions, days and jobs over HTTP.
//!
//! [`app()`] makes a router of an [`AppState`]; every route stands in [`ROUTES`] with the role that it needs. A request
//! passes the guard (key, role, rate, bounds), is read into typed values (`query`), answered from stored rows (`views`),
//! and leaves as a wire type (`dto`) through `respond`, or as problem details ([`problem`]).
//!
//! Invariants:
//! - The tenant of the key scopes everything; no path and no parameter holds a tenant.
//! - Nothing measured is ever written here: of measured data the state holds readers only.
//! - No formula stands here: ingredients are merged, evaluated and judged by `dwell_model`.

mod app;
mod auth;
mod config;
mod dto;
mod extract;
mod formats;
mod guard;
mod ids;
mod job_catalogue;
pub mod metrics;
mod openapi;
pub mod problem;
mod query;
mod recutting;
mod respond;
mod route_table;
mod routes;
mod stale;
mod state;
mod views;

pub use app::app;
pub use auth::Access;
pub use config::Config;
pub use ids::new_job_id;
pub use job_catalogue::{DeclaredJob, DeclaredJobs, JobCatalogue, JobRefusal, JobRequest};
pub use openapi::document;
pub use query::range::By;
pub use recutting::go_on as go_on_with_recut;
pub use route_table::{ROUTES, Route};
pub use state::{ApiStores, AppState, Parts};

#[cfg(test)]
#[allow(
    clippy::clone_on_ref_ptr,
    clippy::disallowed_methods,
    reason = "tests hand typed stores on as traits, and bound real waits"
)]
mod tests;
