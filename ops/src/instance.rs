//! Files by which commands find the instance that runs on a data folder.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use dwell_storage::paths::DataPaths;
use serde::{Deserialize, Serialize};

/// What a running instance tells about itself, in `instance.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct InstanceFile {
    pub(crate) pid: u32,
    pub(crate) url: String,
    pub(crate) admin_url: String,
}

impl InstanceFile {
    /// Writes the file; a reader sees the old one or the new one, never half.
    pub(crate) fn write(&self, paths: &DataPaths) -> Result<()> {
        let unfinished = paths.instance.with_extension("unfinished");
        std::fs::write(&unfinished, serde_json::to_vec_pretty(self)?)?;
        std::fs::rename(&unfinished, &paths.instance)?;
        Ok(())
    }

    /// Removes the file at an orderly end; one that stays behind is harmless, since the lock tells.
    pub(crate) fn remove(paths: &DataPaths) {
        if let Err(error) = std::fs::remove_file(&paths.instance) {
            tracing::debug!(%error, "cannot remove the instance file");
        }
    }

    /// The instance that runs on a folder now: its file is there and it holds the folder's lock. A file that an instance
    /// left which died says nothing of who has the folder since: a command, say. An instance names itself in the lock
    /// before it writes its file, so a lock that names nobody is held by one that begins or ends.
    pub(crate) fn of_running(data_dir: &Path) -> Result<Option<Self>> {
        let paths = DataPaths::new(data_dir);
        let bytes = match std::fs::read(&paths.instance) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", paths.instance.display()));
            }
        };
        if !is_locked(&paths) {
            return Ok(None);
        }
        let file: Self = serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is damaged", paths.instance.display()))?;
        let holder = std::fs::read_to_string(&paths.lock).ok();
        let holder = holder.and_then(|text| text.trim().parse::<u32>().ok());
        Ok((holder == Some(file.pid)).then_some(file))
    }
}

/// Whether a process holds the folder's lock. A shared lock, given back at once, gets in nobody's way but that of a process
/// that starts in this very moment.
fn is_locked(paths: &DataPaths) -> bool {
    match std::fs::File::open(&paths.lock) {
        Ok(file) => matches!(file.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock)),
        Err(_) => false,
    }
}

/// Writes the admin key so that only the owner can read it.
pub(crate) fn write_admin_key(paths: &DataPaths, key: &str) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = paths.admin_key.clone();
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(key.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    Ok(())
}

/// The admin key of a folder.
pub(crate) fn read_admin_key(data_dir: &Path) -> Result<String> {
    let path = DataPaths::new(data_dir).admin_key;
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!(
            "cannot read the admin key {}; give one with --key",
            path.display()
        )
    })?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use dwell_storage::lock::DataDirLock;

    use super::*;

    #[test]
    fn an_instance_is_running_while_it_holds_the_lock_itself() {
        let dir = tempfile::tempdir().unwrap();
        let paths = DataPaths::new(dir.path());
        paths.create().unwrap();
        let instance = |pid| InstanceFile {
            pid,
            url: "http://127.0.0.1:1".to_owned(),
            admin_url: "http://127.0.0.1:2".to_owned(),
        };
        let found = || {
            InstanceFile::of_running(dir.path())
                .unwrap()
                .map(|found| found.pid)
        };
        assert_eq!(found(), None);
        instance(std::process::id()).write(&paths).unwrap();
        assert_eq!(found(), None, "nobody holds the lock");
        let lock = DataDirLock::acquire(&paths).unwrap();
        assert_eq!(found(), Some(std::process::id()));
        // One that died left its file, and another process has the folder.
        instance(std::process::id() + 1).write(&paths).unwrap();
        assert_eq!(found(), None);
        // A process that begins on the folder has the lock before its id is in it.
        std::fs::write(&paths.lock, "").unwrap();
        assert_eq!(found(), None);
        drop(lock);
    }
}
