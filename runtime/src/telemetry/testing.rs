//! Catches what a test logs.

use std::io;
use std::sync::{Arc, Mutex};

use tracing_subscriber::fmt::MakeWriter;

use super::logging::{LogConfig, LogHandle, subscriber};
pub(crate) use super::prometheus::recorder;

/// The lines that were written to it. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct CapturedLog {
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl CapturedLog {
    /// Takes this thread's log lines from now until the guard is dropped.
    pub(crate) fn start(&self) -> tracing::subscriber::DefaultGuard {
        let config = LogConfig {
            filter: "trace".to_owned(),
            ..LogConfig::default()
        };
        let (subscriber, _) = subscriber(&config, self.clone(), false).unwrap();
        tracing::subscriber::set_default(subscriber)
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let bytes = self.bytes.lock().unwrap();
        String::from_utf8_lossy(&bytes)
            .lines()
            .map(str::to_owned)
            .collect()
    }
}

impl io::Write for CapturedLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'writer> MakeWriter<'writer> for CapturedLog {
    type Writer = Self;

    fn make_writer(&'writer self) -> Self {
        self.clone()
    }
}

/// A subscriber that writes nowhere, with its handle. The handle works while the subscriber is kept.
pub(crate) fn subscriber_of(filter: &str) -> (impl tracing::Subscriber + use<>, LogHandle) {
    let config = LogConfig {
        filter: filter.to_owned(),
        ..LogConfig::default()
    };
    subscriber(&config, io::sink, false).unwrap()
}
