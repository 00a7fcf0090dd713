//! The API as clients meet it: requests through the whole router, on the embedded stores.

mod access;
mod as_of;
mod audit;
mod changes;
mod exclusions;
mod explain;
mod harness;
mod jobs;
mod live;
mod metrics;
mod nonsense;
mod paging;
mod periods;
mod queries;
mod resources;
mod slices;
mod stale;
