//! Whether a store can hold an archive: reached, written, and conditional puts honoured.

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};

use super::delta::DeltaArchive;

/// What was looked at, and how it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveFinding {
    /// What was looked at, for example `conditional put`.
    pub about: &'static str,
    /// What was found.
    pub found: String,
    /// What to do about it; `None` when all is well.
    pub remedy: Option<String>,
}

impl ArchiveFinding {
    fn good(about: &'static str, found: impl Into<String>) -> Self {
        Self {
            about,
            found: found.into(),
            remedy: None,
        }
    }

    fn wrong(about: &'static str, found: impl Into<String>, remedy: &str) -> Self {
        Self {
            about,
            found: found.into(),
            remedy: Some(remedy.to_owned()),
        }
    }

    /// Whether all is well.
    pub fn is_ok(&self) -> bool {
        self.remedy.is_none()
    }
}

const REACHED: &str = "reading the archive's folder";
const WRITTEN: &str = "writing to it";
const CONDITIONAL: &str = "conditional put";

impl DeltaArchive {
    /// Looks whether the store can hold the archive. Writes a file of a few bytes beside the tables and removes it again.
    /// Stops at the first thing that is wrong.
    pub async fn inspect(&self) -> Vec<ArchiveFinding> {
        let (store, folder) = self.location();
        let mut findings = vec![look(store, folder).await];
        if findings[0].is_ok() {
            let file = folder.clone().join(format!("_dwell-check-{:016x}", random()));
            findings.push(write(store, &file).await);
            if findings[1].is_ok() {
                findings.push(write_again(store, &file).await);
                if let Err(error) = store.delete(&file).await {
                    tracing::warn!(%file, %error, "the file of a check was not removed");
                }
            }
        }
        findings
    }
}

/// Nothing depends on its being random; two checks at once only must not meet.
fn random() -> u64 {
    getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()))
}

async fn look(store: &dyn ObjectStore, folder: &Path) -> ArchiveFinding {
    match store.list_with_delimiter(Some(folder)).await {
        Ok(listed) => ArchiveFinding::good(
            REACHED,
            format!("{store}: {} tenants", listed.common_prefixes.len()),
        ),
        Err(error) => ArchiveFinding::wrong(REACHED, error.to_string(), remedy(&error)),
    }
}

async fn write(store: &dyn ObjectStore, file: &Path) -> ArchiveFinding {
    let write_and_read = async {
        store.put_opts(file, "one".into(), PutMode::Create.into()).await?;
        store.get(file).await?.bytes().await
    };
    match write_and_read.await {
        Ok(read) if read == "one" => ArchiveFinding::good(WRITTEN, "what is written reads back"),
        Ok(read) => ArchiveFinding::wrong(
            WRITTEN,
            format!("a file of 3 bytes reads back as one of {}", read.len()),
            "the store does not give back what was written: use another one",
        ),
        Err(error) => ArchiveFinding::wrong(WRITTEN, error.to_string(), remedy(&error)),
    }
}

async fn write_again(store: &dyn ObjectStore, file: &Path) -> ArchiveFinding {
    let again = store.put_opts(file, "two".into(), PutMode::Create.into()).await;
    match again {
        Err(object_store::Error::AlreadyExists { .. }) => {
            ArchiveFinding::good(CONDITIONAL, "a file that is there is not overwritten")
        }
        Ok(_) => ArchiveFinding::wrong(
            CONDITIONAL,
            "a file that is there was overwritten although it was not to be",
            "the store ignores If-None-Match, so that two writers would lose each other's commits: use a newer version \
             of it, or another store",
        ),
        Err(error) => ArchiveFinding::wrong(CONDITIONAL, error.to_string(), remedy(&error)),
    }
}

const MAKE_IT: &str = "make the bucket or folder";
const CORRECT_KEY: &str = "correct the key, or allow it to list, read, write and delete there";

fn remedy(error: &object_store::Error) -> &'static str {
    match error {
        object_store::Error::NotFound { .. } => MAKE_IT,
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            CORRECT_KEY
        }
        object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. } => {
            "the store lacks what an archive needs: use another one"
        }
        // Of a listing the client tells the status in words only.
        other => match other.to_string() {
            text if text.contains("404 Not Found") => MAKE_IT,
            text if text.contains("401 Unauthorized") || text.contains("403 Forbidden") => CORRECT_KEY,
            _ => "look whether the store is up, and correct its address or region",
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dwell_runtime::clock::SystemClock;
    use futures::TryStreamExt;
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn a_store_with_conditional_puts_is_well_and_keeps_nothing_of_the_check() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let archive = DeltaArchive::new(Arc::clone(&store), Path::from("a"), SystemClock::shared());
        let findings = archive.inspect().await;
        assert_eq!(findings.len(), 3);
        assert!(findings.iter().all(ArchiveFinding::is_ok), "{findings:?}");
        let left: Vec<_> = store.list(None).try_collect().await.unwrap();
        assert!(left.is_empty(), "{left:?}");

        let dir = tempfile::tempdir().unwrap();
        let local = DeltaArchive::local(dir.path(), SystemClock::shared()).unwrap();
        assert!(local.inspect().await.iter().all(ArchiveFinding::is_ok));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
