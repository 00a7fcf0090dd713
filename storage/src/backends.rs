//! The engines behind the traits.

pub mod kafka;
pub mod sqlite;
