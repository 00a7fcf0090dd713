//! Bounds, and the words for them.
//!
//! * [`RateLimiter`]: so many per second for each key, with what a client needs to know to slow down.
//! * [`Gate`]: so many at once; who comes when it is full is told so at once instead of waiting in a queue.
//! * [`ByteSize`] and [`HumanDuration`]: how configuration writes sizes and times (`"64MiB"`, `"15m"`).

mod byte_size;
mod gate;
mod human_duration;
mod quantity;
mod rate;

pub use byte_size::ByteSize;
pub use gate::{Busy, Gate, GatePermit};
pub use human_duration::HumanDuration;
pub use quantity::QuantityError;
pub use rate::{RateDecision, RateLimit, RateLimiter};
