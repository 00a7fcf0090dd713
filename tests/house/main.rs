//! House rules that a machine can hold: who may depend on whom, and which papers must be there.

mod dependencies;
mod papers;
