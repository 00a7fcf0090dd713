//! Settings of the serving API: its bounds.

use dwell_runtime::limits::{ByteSize, HumanDuration};
use dwell_storage::api::permits::RECENT_DAYS_DEFAULT;
use serde::{Deserialize, Serialize};

/// Bounds of the serving API. Every one of them pushes back with a problem that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Largest body of a request (default 8 MiB; a file of venues is the largest that is meant).
    pub body_max: ByteSize,
    /// How long an answer may take before it is given up with 504 (default 30 s). Live streams are not bound by it.
    pub request_timeout: HumanDuration,
    /// Requests worked on at a time; more are refused with 503 (default 256). Each may hold the rows of a page.
    pub requests_at_once_max: u32,
    /// Requests that a key may send per second over a longer time (default 100).
    pub rate_per_second: u32,
    /// Requests that a key may send at once after a pause (default 400).
    pub rate_burst: u32,
    /// Live streams open at a time (default 1,000).
    pub streams_max: u32,
    /// How often a live stream without news says that it is alive (default 15 s).
    pub stream_keep_alive: HumanDuration,
    /// Most buckets of time of one range (default 10,000: hours of a year and a bit).
    pub buckets_max: usize,
    /// Most days of one range (default 4,000: ten years and a bit).
    pub range_days_max: usize,
    /// Most venue-days that one request may touch, all venues together (default 20,000).
    pub days_max: usize,
    /// Rows of a page when the request does not say (default 10,000).
    pub page_rows_default: usize,
    /// Most rows of a page (default 50,000).
    pub page_rows_max: usize,
    /// Entries of a page of lists (sessions, jobs, quarantine) at most (default 1,000; a tenth of it when not said).
    pub page_entries_max: usize,
    /// Most positions of a session's trajectory; longer ones are thinned evenly (default 5,000).
    pub trajectory_points_max: usize,
    /// How many days before today a tenant may have recomputed or restored that is denied the past, unless its permit
    /// says otherwise (default 31).
    pub recent_days: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            body_max: ByteSize::mib(8),
            request_timeout: HumanDuration::seconds(30),
            requests_at_once_max: 256,
            rate_per_second: 100,
            rate_burst: 400,
            streams_max: 1_000,
            stream_keep_alive: HumanDuration::seconds(15),
            buckets_max: 10_000,
            range_days_max: 4_000,
            days_max: 20_000,
            page_rows_default: 10_000,
            page_rows_max: 50_000,
            page_entries_max: 1_000,
            trajectory_points_max: 5_000,
            recent_days: RECENT_DAYS_DEFAULT,
        }
    }
}

impl Config {
    /// Entries of a page of a list when the request does not say.
    pub fn page_entries_default(&self) -> usize {
        (self.page_entries_max / 10).max(1)
    }
}
