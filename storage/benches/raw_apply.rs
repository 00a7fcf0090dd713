//! What the raw table costs.
fn main() {}
