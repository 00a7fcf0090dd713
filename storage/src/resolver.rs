//! Backends picked by URI.
//!
//! What a configuration names is parsed first ([`StoreUri`]), so that `dwell config check` can refuse it without
//! opening anything. A scheme of a backend that is not part of this build, or of none at all, is refused with the list
//! of those that are.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use dwell_runtime::clock::SharedClock;

use crate::api::{Archive, Stores};
use crate::archive::DeltaArchive;
use crate::backends::sqlite::SqliteStores;
use crate::error::{ErrorKind, Result, StorageError};
use crate::paths::DataPaths;

/// Schemes that Dwell is meant to have, but this build has not.
const NOT_IN_THIS_BUILD: [&str; 5] = ["kafka", "cassandra", "s3", "gs", "az"];

/// A backend, as configuration names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUri {
    /// `embedded:<dir>`: SQLite files in a data directory, archive included.
    Embedded(PathBuf),
    /// `file:///<dir>`: a folder, for the archive only.
    Folder(PathBuf),
}

/// A text that names no backend of this build.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// There is no scheme.
    #[error(
        "{0:?} names no backend: a scheme is expected, as in embedded:./dwell-data or file:///srv/archive"
    )]
    NoScheme(String),
    /// Nobody knows the scheme.
    #[error(
        "{0:?} is not a backend of Dwell; this build has embedded:<dir> and, for the archive, file:///<dir>"
    )]
    UnknownScheme(String),
    /// The scheme is known, its backend is not part of this build.
    #[error(
        "the backend {0:?} is not part of this build, which has embedded:<dir> and, for the archive, file:///<dir>"
    )]
    NotInThisBuild(String),
    /// The scheme is followed by nothing, or by what is no folder.
    #[error("{0:?} names no folder: embedded:<dir> or file:///<absolute dir> is expected")]
    NoFolder(String),
}

impl FromStr for StoreUri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        // A drive letter is no scheme.
        let (scheme, rest) = match text.split_once(':') {
            Some((scheme, rest)) if scheme.len() > 1 && is_scheme(scheme) => {
                (scheme.to_ascii_lowercase(), rest)
            }
            _ => return Err(UriError::NoScheme(text.to_owned())),
        };
        match scheme.as_str() {
            "embedded" => {
                let dir = rest.strip_prefix("//").unwrap_or(rest);
                if dir.is_empty() {
                    Err(UriError::NoFolder(text.to_owned()))
                } else {
                    Ok(Self::Embedded(dir.into()))
                }
            }
            "file" => {
                let folder = url::Url::parse(text).ok().and_then(|url| url.to_file_path().ok());
                let folder = folder.filter(|folder| folder != Path::new("/"));
                folder
                    .map(Self::Folder)
                    .ok_or_else(|| UriError::NoFolder(text.to_owned()))
            }
            known if NOT_IN_THIS_BUILD.contains(&known) => Err(UriError::NotInThisBuild(scheme)),
            _ => Err(UriError::UnknownScheme(scheme)),
        }
    }
}

impl fmt::Display for StoreUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded(dir) => write!(f, "embedded:{}", dir.display()),
            Self::Folder(dir) => write!(f, "file://{}", dir.display()),
        }
    }
}

/// Which engines keep what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineSettings {
    /// The event log.
    pub log: StoreUri,
    /// The tables.
    pub tables: StoreUri,
    /// The archive.
    pub archive: StoreUri,
}

impl EngineSettings {
    /// Whether log and tables lie in a folder that one process has for itself.
    pub fn is_embedded(&self) -> bool {
        matches!(self.tables, StoreUri::Embedded(_))
    }

    /// Refuses engines that cannot keep what they are named for, and mixtures that make no sense.
    pub fn check(&self) -> Result<()> {
        match (&self.log, &self.tables) {
            (StoreUri::Embedded(log), StoreUri::Embedded(tables)) if log == tables => Ok(()),
            (log, tables) => Err(StorageError::new(
                ErrorKind::Invalid,
                format!(
                    "{log} as event log and {tables} as tables do not go together: both must be embedded:<dir> with one folder"
                ),
            )),
        }
    }
}

/// Opens the stores. For `embedded:` the caller holds the directory's [`DataDirLock`](crate::lock::DataDirLock).
pub async fn open_stores(settings: &EngineSettings, clock: SharedClock) -> Result<Stores> {
    settings.check()?;
    let archive: Arc<dyn Archive> = Arc::new(open_archive(settings, &clock)?);
    match &settings.tables {
        StoreUri::Embedded(dir) => {
            let stores = SqliteStores::open(&DataPaths::new(dir), clock).await?;
            Ok(stores.with_archive(archive))
        }
        other => Err(StorageError::new(
            ErrorKind::Invalid,
            format!("{other} can hold no tables"),
        )),
    }
}

/// Opens the archive alone.
pub fn open_archive(settings: &EngineSettings, clock: &SharedClock) -> Result<DeltaArchive> {
    let folder = match &settings.archive {
        StoreUri::Embedded(dir) => DataPaths::new(dir).archive,
        StoreUri::Folder(dir) => dir.clone(),
    };
    DeltaArchive::local(&folder, Arc::clone(clock))
}

fn is_scheme(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_backends_are_parsed() {
        for (text, expected) in [
            ("embedded:./dwell-data", StoreUri::Embedded("./dwell-data".into())),
            ("embedded:/srv/dwell", StoreUri::Embedded("/srv/dwell".into())),
            ("embedded:///srv/dwell", StoreUri::Embedded("/srv/dwell".into())),
            ("EMBEDDED:data", StoreUri::Embedded("data".into())),
            (
                "file:///srv/my%20archive",
                StoreUri::Folder("/srv/my archive".into()),
            ),
        ] {
            assert_eq!(text.parse::<StoreUri>().unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_opened_is_refused_with_what_can() {
        for (text, expected) in [
            ("kafka://broker:9092", UriError::NotInThisBuild("kafka".into())),
            (
                "cassandra://a,b/dwell",
                UriError::NotInThisBuild("cassandra".into()),
            ),
            ("s3://bucket/prefix", UriError::NotInThisBuild("s3".into())),
            ("postgres://db", UriError::UnknownScheme("postgres".into())),
            ("./dwell-data", UriError::NoScheme("./dwell-data".into())),
            ("C:\\data", UriError::NoScheme("C:\\data".into())),
            ("", UriError::NoScheme(String::new())),
            ("embedded:", UriError::NoFolder("embedded:".into())),
            (
                "file://server/share",
                UriError::NoFolder("file://server/share".into()),
            ),
            ("file:///", UriError::NoFolder("file:///".into())),
        ] {
            let error = text.parse::<StoreUri>().unwrap_err();
            assert_eq!(error, expected, "{text}");
            assert!(
                error.to_string().contains("embedded:"),
                "{error} must say what is known"
            );
        }
    }
}
