//! The engines behind the traits.

pub mod sqlite;
