//! The files of embedded stores, as bytes: for those who have to show that something is nowhere in them.

use std::path::PathBuf;

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

    /// Reads every page of the databases and names what is damaged. Takes as long as reading the files.
    async fn inspect(&self) -> Result<Vec<FileTrouble>>;

    /// What has gone wrong with the files since they were opened, and does not mend itself: told again and again until
    /// they are opened anew. Cheap; touches no file.
    fn troubles(&self) -> Vec<FileTrouble>;
}

/// Something wrong with a database file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileTrouble {
    /// The file.
    pub file: PathBuf,
    /// What to do about it.
    pub kind: FileTroubleKind,
    /// What was being done, and the engine's own words.
    pub what: String,
}

/// What is wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileTroubleKind {
    /// A flush to the disk failed: nothing more is written to the file until it is opened anew.
    NotFlushed,
    /// Bytes in it are damaged: what can be read is read on; it has to be mended.
    Damaged,
}
