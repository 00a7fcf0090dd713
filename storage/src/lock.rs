//! One process per data directory.
//!
//! The lock is the operating system's, on the file `lock`: it ends with the process, however that dies. The file holds
//! the process id of its holder, only so that the refusal can name it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};

use crate::error::{ErrorKind, Result, StorageError};
use crate::paths::DataPaths;

/// The right to open a data directory's databases; given back on drop.
#[derive(Debug)]
pub struct DataDirLock {
    file: File,
}

impl DataDirLock {
    /// Takes the lock of a data directory, making the directory where it is missing. `Conflict` when another process
    /// (or another part of this one) holds it; the message names its process id where that is known.
    pub fn acquire(paths: &DataPaths) -> Result<Self> {
        paths.create()?;
        let failed = |error: std::io::Error| {
            let doing = format!("lock {}", paths.lock.display());
            StorageError::with_source(ErrorKind::Unavailable, doing, error)
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&paths.lock).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(refusal(paths, &mut file)),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { file })
    }
}

impl Drop for DataDirLock {
    fn drop(&mut self) {
        // Emptied first, so that nobody reads the id of a process that is gone. Failing is harmless: closing the file
        // ends the lock.
        let _ = self.file.set_len(0);
        let _ = self.file.unlock();
    }
}

fn refusal(paths: &DataPaths, file: &mut File) -> StorageError {
    let mut text = String::new();
    let holder = match file
        .read_to_string(&mut text)
        .ok()
        .and_then(|_| text.trim().parse::<u32>().ok())
    {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    };
    let dir = paths.root.display();
    StorageError::new(
        ErrorKind::Conflict,
        format!("the data directory {dir} is in use by {holder}: stop it, or choose another directory"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_with_the_pid_of_the_first_until_that_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let paths = DataPaths::new(dir.path());
        let first = DataDirLock::acquire(&paths).unwrap();
        let error = DataDirLock::acquire(&paths).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(
            error
                .to_string()
                .contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        drop(first);
        DataDirLock::acquire(&paths).unwrap();
    }
}
