//! The files of a data directory, named in one place.

use std::fs::DirBuilder;
use std::path::{Path, PathBuf};

use crate::error::{ErrorKind, Result, StorageError};

/// Where everything of one embedded installation lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataPaths {
    /// The data directory itself.
    pub root: PathBuf,
    /// The event log.
    pub log_db: PathBuf,
    /// All tables but those of the log and the keys.
    pub data_db: PathBuf,
    /// Keys of pseudonyms, apart from the data that they would open.
    pub keys_db: PathBuf,
    /// The archive: a Delta table per tenant and kind.
    pub archive: PathBuf,
    /// Sorted runs that did not fit in memory. Safe to empty while nothing runs.
    pub spill: PathBuf,
    /// Files that are being uploaded for an import. Safe to empty while nothing runs.
    pub uploads: PathBuf,
    /// The first administrator's key, readable by its owner only.
    pub admin_key: PathBuf,
    /// Address and process of the running instance.
    pub instance: PathBuf,
    /// Written now and then to see whether there is room, and removed at once.
    pub room: PathBuf,
    /// Locked by the process that has the directory open (see [`DataDirLock`](crate::lock::DataDirLock)).
    pub lock: PathBuf,
}

impl DataPaths {
    /// The files of the data directory `root`. Touches nothing.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        let inside = |name: &str| root.join(name);
        Self {
            log_db: inside("log.db"),
            data_db: inside("data.db"),
            keys_db: inside("keys.db"),
            archive: inside("archive"),
            spill: inside("spill"),
            uploads: inside("uploads"),
            admin_key: inside("admin.key"),
            instance: inside("instance.json"),
            room: inside("room"),
            lock: inside("lock"),
            root,
        }
    }

    /// Makes the directory and its folders where they are missing; a directory made here is closed to other users.
    pub fn create(&self) -> Result<()> {
        [&self.root, &self.archive, &self.spill, &self.uploads]
            .into_iter()
            .try_for_each(|dir| create_dir(dir))
    }

    /// Whether the directory holds an installation.
    pub fn is_initialised(&self) -> bool {
        self.data_db.exists()
    }
}

pub(crate) fn create_dir(dir: &Path) -> Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(|error| {
        let doing = format!(
            "make the folder {}: check the path and its permissions",
            dir.display()
        );
        StorageError::with_source(ErrorKind::Unavailable, doing, error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn creating_twice_is_fine_and_what_is_made_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let paths = DataPaths::new(dir.path().join("a/b"));
        assert!(!paths.is_initialised());
        paths.create().unwrap();
        paths.create().unwrap();
        assert!(paths.archive.is_dir() && paths.spill.is_dir() && paths.uploads.is_dir());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(paths.root.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        }
    }

    #[test]
    fn a_path_that_is_a_file_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let error = DataPaths::new(&file).create().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("file"), "{error}");
    }
}
