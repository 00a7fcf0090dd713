//! What every long-running part of Dwell shares: clock, shutdown, tasks, telemetry, admin port, retry, limits.
