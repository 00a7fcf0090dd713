//! The engines behind the traits.

pub mod cassandra;
pub mod kafka;
pub mod sqlite;
