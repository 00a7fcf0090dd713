//! Logs and metrics of the process.
//!
//! * [`init_logging`]: structured logs through `tracing`, to stderr, as text or JSON, with a filter that can be changed
//!   while the process runs. Stdout is never written to: it belongs to the answers of `--json`.
//! * [`install_metrics`]: a Prometheus recorder behind the `metrics` facade. Parts write through the facade's macros,
//!   the admin port renders the handle's text.
//! * [`MetricDef`]: what every crate says about each of its metrics, in one `metrics.rs`.
//!
//! Both are global in a process. Called again, they return what the first call made.

mod logging;
mod metric_def;
mod prometheus;
#[cfg(test)]
pub(crate) mod testing;

pub use logging::{LogConfig, LogFormat, LogHandle, init_logging};
pub use metric_def::{MetricDef, MetricKind, Unit, describe};
pub use prometheus::{COUNT_BUCKETS, GONE, MetricsHandle, SECONDS_BUCKETS, SIZE_BUCKETS, install_metrics};

/// Why logs or metrics could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The log filter cannot be read.
    #[error("log filter {filter:?} cannot be read (an example: \"info,dwell_ingest=debug\")")]
    Filter {
        /// The filter as given.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Something else in this process has taken the global place.
    #[error("{what} of this process are already set up by something else")]
    Taken {
        /// "logs" or "metrics".
        what: &'static str,
    },
    /// The recorder refuses its buckets.
    #[error("metrics cannot be set up")]
    Recorder(#[from] metrics_exporter_prometheus::BuildError),
}
