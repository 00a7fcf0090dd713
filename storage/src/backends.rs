//! The engines behind the traits.

pub mod cassandra;
pub mod sqlite;
