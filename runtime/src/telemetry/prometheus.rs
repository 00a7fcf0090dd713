//! The recorder behind the `metrics` facade.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::{TelemetryError, describe};
use crate::clock::Clock;
use crate::shutdown::ShutdownSignal;

/// Upper bounds, in seconds, of histograms named `…_seconds`: from a fast write to a long job.
pub const SECONDS_BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
    1_800.0,
];

/// Upper bounds, in bytes, of histograms named `…_bytes`: 256 B to 1 GiB in steps of four.
pub const SIZE_BUCKETS: &[f64] = &[
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
    268_435_456.0,
    1_073_741_824.0,
];

/// Upper bounds of all other histograms, which count things: rows of a batch, posts that shared an fsync.
pub const COUNT_BUCKETS: &[f64] = &[
    1.0,
    2.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    50_000.0,
    100_000.0,
    1_000_000.0,
];

/// What a gauge is set to when what it measured is no more: it is not shown until it is set to something else. (A series
/// cannot be taken from the recorder, and one that stays at its last value keeps an alarm up for ever.)
pub const GONE: f64 = f64::NAN;
/// How the recorder writes it.
const GONE_ENDING: &str = " NaN";

/// How often samples of histograms are folded into their buckets when nobody asks for them.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Reads the metrics of the process. Clones read the same.
#[derive(Clone)]
pub struct MetricsHandle {
    prometheus: PrometheusHandle,
}

impl MetricsHandle {
    /// The `Content-Type` of [`render`](Self::render).
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// All metrics as Prometheus text; gauges that were set to [`GONE`] left out.
    pub fn render(&self) -> String {
        let text = self.prometheus.render();
        if !text.contains(GONE_ENDING) {
            return text;
        }
        let shown = text.split_inclusive('\n');
        shown
            .filter(|line| !line.trim_end().ends_with(GONE_ENDING))
            .collect()
    }

    /// Folds samples into buckets every few seconds until the phase of `shutdown` begins. Without it the samples of
    /// a process that nobody scrapes would pile up in memory.
    pub async fn keep_up(self, clock: &dyn Clock, shutdown: ShutdownSignal) {
        loop {
            tokio::select! {
                biased;
                () = shutdown.requested() => return,
                () = clock.sleep(UPKEEP_INTERVAL) => self.prometheus.run_upkeep(),
            }
        }
    }
}

impl fmt::Debug for MetricsHandle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("MetricsHandle").finish_non_exhaustive()
    }
}

/// Installs the recorder of this process and describes this crate's metrics. A second call changes nothing and
/// returns the handle of the first.
///
/// [`MetricsHandle::keep_up`] should be spawned with it wherever the process lives for long.
pub fn install_metrics() -> Result<MetricsHandle, TelemetryError> {
    static INSTALLED: Mutex<Option<MetricsHandle>> = Mutex::new(None);
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*installed {
        return Ok(handle.clone());
    }
    let (recorder, handle) = recorder()?;
    metrics::set_global_recorder(recorder).map_err(|_| TelemetryError::Taken { what: "metrics" })?;
    describe(crate::metrics::DEFINITIONS);
    *installed = Some(handle.clone());
    Ok(handle)
}

/// A recorder that is not installed yet, or, in tests, never.
pub(crate) fn recorder() -> Result<(PrometheusRecorder, MetricsHandle), TelemetryError> {
    let recorder = PrometheusBuilder::new()
        .set_buckets(COUNT_BUCKETS)?
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS_BUCKETS)?
        .set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), SIZE_BUCKETS)?
        .build_recorder();
    let handle = MetricsHandle {
        prometheus: recorder.handle(),
    };
    Ok((recorder, handle))
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::poll;

    use super::super::{MetricDef, Unit};
    use super::*;
    use crate::clock::ManualClock;
    use crate::shutdown::{Phase, ShutdownController};

    fn rendered(write: impl FnOnce()) -> String {
        let (recorder, handle) = recorder().unwrap();
        metrics::with_local_recorder(&recorder, write);
        handle.render()
    }

    #[test]
    fn a_gauge_that_is_gone_is_not_shown_until_it_is_set_again() {
        let (recorder, handle) = recorder().unwrap();
        let set = |label: &'static str, value: f64| {
            metrics::with_local_recorder(&recorder, || metrics::gauge!("depth", "of" => label).set(value));
        };
        set("a", 1.5);
        set("b", 2.5);
        set("a", GONE);
        let text = handle.render();
        assert!(
            text.contains("depth{of=\"b\"} 2.5") && !text.contains("of=\"a\""),
            "{text}"
        );
        set("a", 0.0);
        assert!(handle.render().contains("depth{of=\"a\"} 0"));
    }

    #[test]
    fn described_metrics_are_rendered_with_help_type_labels_and_value() {
        let text = rendered(|| {
            describe(&[MetricDef::counter(
                "dwell_test_events_total",
                Unit::Count,
                "Events taken.",
            )]);
            metrics::counter!("dwell_test_events_total", "kind" => "position").increment(3);
        });
        for line in [
            "# HELP dwell_test_events_total Events taken.",
            "# TYPE dwell_test_events_total counter",
            "dwell_test_events_total{kind=\"position\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} not in\n{text}");
        }
    }

    #[test]
    fn histograms_get_buckets_by_their_unit() {
        let text = rendered(|| {
            metrics::histogram!("dwell_test_fsync_seconds").record(0.003);
            metrics::histogram!("dwell_test_body_bytes").record(5_000.0);
            metrics::histogram!("dwell_test_batch_rows").record(3.0);
        });
        for line in [
            "dwell_test_fsync_seconds_bucket{le=\"0.0025\"} 0",
            "dwell_test_fsync_seconds_bucket{le=\"0.005\"} 1",
            "dwell_test_body_bytes_bucket{le=\"4096\"} 0",
            "dwell_test_body_bytes_bucket{le=\"16384\"} 1",
            "dwell_test_batch_rows_bucket{le=\"2\"} 0",
            "dwell_test_batch_rows_bucket{le=\"5\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} not in\n{text}");
        }
    }

    #[test]
    fn buckets_grow_strictly() {
        for buckets in [SECONDS_BUCKETS, SIZE_BUCKETS, COUNT_BUCKETS] {
            assert!(buckets.windows(2).all(|pair| pair[0] < pair[1]), "{buckets:?}");
        }
    }

    #[test]
    fn metrics_installed_twice_are_one_recorder() {
        let first = install_metrics().unwrap();
        let second = install_metrics().unwrap();
        metrics::counter!("dwell_test_installed_twice_total").increment(1);
        for handle in [first, second] {
            assert!(handle.render().contains("dwell_test_installed_twice_total 1"));
        }
    }

    #[tokio::test]
    async fn keeping_up_ends_with_its_phase() {
        let (_recorder, handle) = recorder().unwrap();
        let clock = ManualClock::at_ms(0);
        let controller = ShutdownController::default();
        let mut upkeep = pin!(handle.keep_up(&clock, controller.signal(Phase::Admin)));
        for _ in 0..3 {
            assert!(poll!(&mut upkeep).is_pending());
            clock.advance(UPKEEP_INTERVAL);
        }
        controller.run_to_completion(Duration::from_secs(1), &clock).await;
        assert!(poll!(&mut upkeep).is_ready());
    }
}
