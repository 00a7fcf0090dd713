//! Checkpoints: a reader's state, guarded by a fence.

use async_trait::async_trait;

use crate::error::Result;

/// A stored state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Fence of the owner that stored it.
    pub fence: u64,
    /// The state.
    pub bytes: Vec<u8>,
}

/// States by name (for example `speed/1/0`). A fence is a number that only grows; the owner with the highest one is
/// the only one whose writes count, so that a paused former owner can do no harm.
#[async_trait]
pub trait Checkpoints: Send + Sync {
    /// Takes ownership of a name: raises its fence and returns it. Conditional write.
    async fn take_ownership(&self, name: &str) -> Result<u64>;

    /// The state stored with the highest fence, if any.
    async fn load(&self, name: &str) -> Result<Option<Checkpoint>>;

    /// Replaces the state. `Conflict` when a higher fence has been given out.
    async fn store(&self, name: &str, checkpoint: Checkpoint) -> Result<()>;
}
