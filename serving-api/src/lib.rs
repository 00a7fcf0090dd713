//! Dwell's serving API: metrics, live view, sessions, days, jobs over HTTP.
