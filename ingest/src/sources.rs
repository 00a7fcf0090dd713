//! What brings messages: HTTP, and files.

pub mod files;
pub mod http;
