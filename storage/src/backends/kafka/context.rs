//! What librdkafka tells of itself, as log lines of ours.

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Hands the lines of a client to `tracing`, under the client's role.
#[derive(Debug, Clone)]
pub(super) struct Logging {
    pub(super) role: &'static str,
}

impl ClientContext for Logging {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log(self.role, level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(self.role, &error, reason);
    }
}

impl ConsumerContext for Logging {}

pub(super) fn log(role: &'static str, level: RDKafkaLogLevel, facility: &str, line: &str) {
    use RDKafkaLogLevel::{Alert, Critical, Debug, Emerg, Error, Info, Notice, Warning};
    match level {
        Emerg | Alert | Critical | Error => {
            tracing::error!(target: "librdkafka", role, facility, "{line}");
        }
        Warning => tracing::warn!(target: "librdkafka", role, facility, "{line}"),
        Notice | Info => tracing::info!(target: "librdkafka", role, facility, "{line}"),
        Debug => tracing::debug!(target: "librdkafka", role, facility, "{line}"),
    }
}

/// Errors of a whole client (a broker is away, a name cannot be resolved): it goes on trying.
pub(super) fn log_error(role: &'static str, error: &KafkaError, reason: &str) {
    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF) {
        // News for those who asked to be told of it, and for nobody else.
        return;
    }
    tracing::warn!(target: "librdkafka", role, %error, "{reason}");
}
