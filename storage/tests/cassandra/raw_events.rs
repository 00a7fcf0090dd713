//! The raw table, beyond its contract.
