//! The real binary, end to end, as its users meet it: started, posted to, killed, asked.

mod crash;
mod harness;
mod nonsense;
mod oracle;
mod roads;
mod walkers;
