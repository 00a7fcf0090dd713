//! The signals that ask a process to stop.

use std::io;

/// Waits for the next signal that asks the process to stop, and returns its name: SIGINT (Ctrl-C) or SIGTERM on Unix,
/// Ctrl-C elsewhere. Fails only where no handler can be installed.
///
/// Called again it waits for the next one: `main` ends the process at once on the second.
pub async fn stop_signal() -> io::Result<&'static str> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            _ = interrupt.recv() => Ok("SIGINT"),
            _ = terminate.recv() => Ok("SIGTERM"),
        }
    }
    #[cfg(not(unix))]
    {
        tokio::signal::ctrl_c().await?;
        Ok("Ctrl-C")
    }
}
