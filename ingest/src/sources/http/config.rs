//! Bounds of the HTTP source.

use std::time::Duration;

use dwell_model::time::DAY_MS;
use dwell_runtime::limits::RateLimit;

/// What a request may be, and how many there may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// Longest body as it comes over the wire. Default 16 MiB.
    pub body_bytes_max: usize,
    /// Longest body after decompression. Default 64 MiB.
    pub decompressed_bytes_max: usize,
    /// How many times its length a body may grow by decompression, from a mebibyte on. Default 200.
    pub compression_ratio_max: usize,
    /// How long a body may take to arrive. Default 30 s.
    pub body_timeout: Duration,
    /// Requests that are worked on at a time. Default 512.
    pub requests_in_flight_max: u32,
    /// Bytes of bodies that are held at a time, compressed and decompressed. Default 256 MiB.
    pub bytes_in_flight_max: usize,
    /// Requests per second of one key; `None`: as many as there are. Default none.
    pub rate: Option<RateLimit>,
    /// Keys whose rate is remembered. Default 10,000.
    pub rate_keys_max: usize,
    /// Refused events that an answer lists; the rest is counted. Default 1,000.
    pub refused_listed_max: usize,
    /// How old the oldest event may be that the raw writer has not copied, in milliseconds: half of what the log keeps.
    /// Default 15 days.
    pub raw_lag_ms_max: i64,
    /// How many events the raw writer may be behind: a guard of the disk. Default 200 million.
    pub raw_lag_events_max: u64,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            body_bytes_max: 16 << 20,
            decompressed_bytes_max: 64 << 20,
            compression_ratio_max: 200,
            body_timeout: Duration::from_secs(30),
            requests_in_flight_max: 512,
            bytes_in_flight_max: 256 << 20,
            rate: None,
            rate_keys_max: 10_000,
            refused_listed_max: 1_000,
            raw_lag_ms_max: 15 * DAY_MS,
            raw_lag_events_max: 200_000_000,
        }
    }
}

impl HttpConfig {
    /// The gate's units. One request must always fit, or it could never be taken.
    pub(super) fn memory_gate_kib(&self) -> u32 {
        let one = self.body_bytes_max.saturating_add(self.decompressed_bytes_max);
        u32::try_from(kib(self.bytes_in_flight_max.max(one))).unwrap_or(u32::MAX)
    }
}

/// Bytes in whole KiB, rounded up.
pub(super) fn kib(bytes: usize) -> usize {
    bytes.div_ceil(1_024)
}
