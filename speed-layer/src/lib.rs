//! Dwell's speed layer: live sessions, live occupancy, today's metrics.
