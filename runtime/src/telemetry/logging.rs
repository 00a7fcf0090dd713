//! Structured logs to stderr.

use std::io::{self, IsTerminal};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use super::TelemetryError;

/// How logs are written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// What is logged, as `tracing` filters: a level, then levels of single targets. Default: `info`, and only
    /// warnings of the libraries that are chatty.
    pub filter: String,
    /// Text for people or JSON for machines. Default: text.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            filter: "info,deltalake_core=warn,buoyant_kernel=warn,object_store=warn,hyper=warn".to_owned(),
            format: LogFormat::Text,
        }
    }
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Time, level, target, message, fields; coloured on a terminal unless `NO_COLOR` is set.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Changes what is logged while the process runs. Clones act on the same logs.
#[derive(Clone, Debug)]
pub struct LogHandle {
    filter: reload::Handle<EnvFilter, Registry>,
}

impl LogHandle {
    /// Replaces the filter; the old one stays when the new one cannot be read.
    pub fn set_filter(&self, filter: &str) -> Result<(), TelemetryError> {
        let parsed = parse_filter(filter)?;
        // Fails only when the subscriber is gone, and the global one never is.
        self.filter
            .reload(parsed)
            .map_err(|_| TelemetryError::Taken { what: "logs" })
    }

    /// The filter in force.
    pub fn filter(&self) -> String {
        self.filter.with_current(ToString::to_string).unwrap_or_default()
    }
}

/// Sets the logs of this process up. A second call changes nothing and returns the handle of the first.
pub fn init_logging(config: &LogConfig) -> Result<LogHandle, TelemetryError> {
    static INSTALLED: Mutex<Option<LogHandle>> = Mutex::new(None);
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*installed {
        return Ok(handle.clone());
    }
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let (subscriber, handle) = subscriber(config, io::stderr, io::stderr().is_terminal() && !no_color)?;
    subscriber
        .try_init()
        .map_err(|_| TelemetryError::Taken { what: "logs" })?;
    *installed = Some(handle.clone());
    Ok(handle)
}

/// The subscriber, over any writer so that tests can look at what it writes.
pub(super) fn subscriber<W>(
    config: &LogConfig,
    writer: W,
    ansi: bool,
) -> Result<(impl tracing::Subscriber + Send + Sync + use<W>, LogHandle), TelemetryError>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(parse_filter(&config.filter)?);
    let lines = fmt::layer().with_writer(writer).with_ansi(ansi);
    let lines = match config.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
    };
    Ok((
        tracing_subscriber::registry().with(filter).with(lines),
        LogHandle { filter: handle },
    ))
}

fn parse_filter(filter: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::builder()
        .parse(filter)
        .map_err(|source| TelemetryError::Filter {
            filter: filter.to_owned(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::super::testing::CapturedLog;
    use super::*;

    fn captured(config: &LogConfig, write: impl FnOnce(&LogHandle)) -> Vec<String> {
        let log = CapturedLog::default();
        let (subscriber, handle) = subscriber(config, log.clone(), false).unwrap();
        tracing::subscriber::with_default(subscriber, || write(&handle));
        log.lines()
    }

    #[test]
    fn json_lines_carry_fields_as_values_of_their_own() {
        let config = LogConfig {
            filter: "info".into(),
            format: LogFormat::Json,
        };
        let lines = captured(&config, |_| {
            tracing::info!(venue = "shop-7", rows = 12, "rows written")
        });
        let [line] = lines.as_slice() else {
            panic!("one line expected: {lines:?}")
        };
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (
                &object["level"],
                &object["message"],
                &object["venue"],
                &object["rows"]
            ),
            (
                &"INFO".into(),
                &"rows written".into(),
                &"shop-7".into(),
                &12.into()
            )
        );
    }

    #[test]
    fn text_lines_name_level_message_and_fields_without_escapes_off_a_terminal() {
        let config = LogConfig {
            filter: "info".into(),
            format: LogFormat::Text,
        };
        let lines = captured(&config, |_| tracing::warn!(lag_s = 3, "raw writer behind"));
        let [line] = lines.as_slice() else {
            panic!("one line expected: {lines:?}")
        };
        assert!(
            line.contains("WARN") && line.contains("raw writer behind") && line.contains("lag_s=3"),
            "{line}"
        );
        assert!(!line.contains('\u{1b}'), "{line}");
    }

    #[test]
    fn the_filter_can_be_changed_while_running_and_a_bad_one_changes_nothing() {
        let config = LogConfig {
            filter: "warn".into(),
            ..LogConfig::default()
        };
        let lines = captured(&config, |handle| {
            tracing::info!("one");
            handle.set_filter("info").unwrap();
            tracing::info!("two");
            let refused = handle.set_filter("info,dwell=loud").unwrap_err();
            assert!(
                matches!(refused, TelemetryError::Filter { ref filter, .. } if filter == "info,dwell=loud")
            );
            assert_eq!(handle.filter(), "info");
            tracing::info!("three");
        });
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(
            lines[0].contains("two") && lines[1].contains("three"),
            "{lines:?}"
        );
    }

    #[test]
    fn the_default_filter_can_be_read_and_unknown_settings_are_refused() {
        assert!(parse_filter(&LogConfig::default().filter).is_ok());
        let config: LogConfig = serde_json::from_str(r#"{"format": "json"}"#).unwrap();
        assert_eq!(
            config,
            LogConfig {
                format: LogFormat::Json,
                ..LogConfig::default()
            }
        );
        assert!(serde_json::from_str::<LogConfig>(r#"{"fromat": "json"}"#).is_err());
    }

    #[test]
    fn logging_set_up_twice_is_one_logging() {
        let first = init_logging(&LogConfig {
            filter: "error".into(),
            ..LogConfig::default()
        })
        .unwrap();
        let second = init_logging(&LogConfig {
            filter: "trace".into(),
            ..LogConfig::default()
        })
        .unwrap();
        assert_eq!(second.filter(), "error");
        first.set_filter("off").unwrap();
        assert_eq!(second.filter(), "off");
    }
}
