//! The files of embedded stores, as bytes: for those who have to show that something is nowhere in them.

use async_trait::async_trait;

use crate::error::Result;

/// The database files of a data directory.
#[async_trait]
pub trait StoreFiles: Send + Sync {
    /// Copies what write-ahead logs hold into their databases and empties them, so that no older state of a page is
    /// left. `Busy` while another process reads.
    async fn settle(&self) -> Result<()>;

    /// Counts how often some bytes stand in each file that has them: databases, and what lies beside them.
    async fn find(&self, bytes: Vec<u8>) -> Result<Vec<(String, u64)>>;

    /// Writes the database of a file that [`find`](Self::find) named anew, so that no free space of a page holds what
    /// stood there. Takes as long, and as much disk, as copying the file.
    async fn rewrite(&self, file: &str) -> Result<()>;
}
