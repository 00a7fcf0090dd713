//! Dwell's ingest layer: decode, validate, pseudonymise, log, raw rows.
