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
use dwell_runtime::tasks::Tasks;
use url::Url;

use crate::api::{Archive, Stores};
use crate::archive::{DeltaArchive, RemoteArchiveConfig, open_remote_archive};
use crate::backends::cassandra::{CassandraConfig, CassandraStores};
use crate::backends::kafka::{KafkaConfig, KafkaEventLog};
use crate::backends::sqlite::SqliteStores;
use crate::error::{ErrorKind, Result, StorageError};
use crate::paths::DataPaths;

/// Schemes of object stores.
const OBJECT_STORES: [&str; 3] = ["s3", "gs", "az"];

/// A backend, as configuration names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUri {
    /// `embedded:<dir>`: SQLite files in a data directory, archive included.
    Embedded(PathBuf),
    /// `file:///<dir>`: a folder, for the archive only.
    Folder(PathBuf),
    /// `kafka://<host:port,…>/<prefix>`: topics, for the log only.
    Kafka(String),
    /// `cassandra://<host:port,…>/<keyspace>`: for the tables only.
    Cassandra(String),
    /// `s3://<bucket>/<folder>`, `gs://…`, `az://…`: for the archive only.
    Objects(Url),
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
        "{0:?} is not a backend of Dwell, which has embedded:<dir>; for the log kafka://; for the tables cassandra://; \
         for the archive file:///<dir>, s3://, gs:// and az://"
    )]
    UnknownScheme(String),
    /// The scheme is followed by what names no place in the backend.
    #[error("{0:?} names no place: {1} is expected (or embedded:<dir>)")]
    NoPlace(String, &'static str),
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
                let folder = Url::parse(text).ok().and_then(|url| url.to_file_path().ok());
                let folder = folder.filter(|folder| folder != Path::new("/"));
                folder
                    .map(Self::Folder)
                    .ok_or_else(|| UriError::NoFolder(text.to_owned()))
            }
            "kafka" => match KafkaConfig::from_uri(text) {
                Ok(_) => Ok(Self::Kafka(text.to_owned())),
                Err(_) => Err(UriError::NoPlace(text.to_owned(), "kafka://host:port,…/prefix")),
            },
            "cassandra" => match CassandraConfig::from_uri(text) {
                Ok(_) => Ok(Self::Cassandra(text.to_owned())),
                Err(_) => Err(UriError::NoPlace(
                    text.to_owned(),
                    "cassandra://host:port,…/keyspace",
                )),
            },
            known if OBJECT_STORES.contains(&known) => match Url::parse(text) {
                Ok(url) if url.host_str().is_some_and(|bucket| !bucket.is_empty()) => Ok(Self::Objects(url)),
                _ => Err(UriError::NoPlace(text.to_owned(), "s3://bucket/folder")),
            },
            _ => Err(UriError::UnknownScheme(scheme)),
        }
    }
}

impl fmt::Display for StoreUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded(dir) => write!(f, "embedded:{}", dir.display()),
            Self::Folder(dir) => write!(f, "file://{}", dir.display()),
            Self::Kafka(uri) | Self::Cassandra(uri) => f.write_str(uri),
            Self::Objects(url) => write!(f, "{url}"),
        }
    }
}

/// Which engines keep what, and how they are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineSettings {
    /// The event log.
    pub log: StoreUri,
    /// The tables.
    pub tables: StoreUri,
    /// The archive.
    pub archive: StoreUri,
    /// How Kafka is used; brokers and prefix come from `log`.
    pub kafka: KafkaConfig,
    /// How Cassandra is used; contact points and keyspace come from `tables`.
    pub cassandra: CassandraConfig,
    /// How an object store is used; bucket and folder come from `archive`.
    pub objects: RemoteArchiveConfig,
}

impl EngineSettings {
    /// Whether log and tables lie in a folder that one process has for itself.
    pub fn is_embedded(&self) -> bool {
        matches!(self.tables, StoreUri::Embedded(_))
    }

    /// Refuses engines that cannot keep what they are named for, and mixtures that make no sense.
    pub fn check(&self) -> Result<()> {
        match (&self.log, &self.tables) {
            (StoreUri::Embedded(log), StoreUri::Embedded(tables)) if log == tables => {}
            (StoreUri::Kafka(_), StoreUri::Cassandra(_)) => {
                self.kafka()?;
                self.cassandra()?;
            }
            (log, tables) => {
                return Err(StorageError::new(
                    ErrorKind::Invalid,
                    format!(
                        "{log} as event log and {tables} as tables do not go together: both embedded: in one folder, or \
                         kafka:// and cassandra://"
                    ),
                ));
            }
        }
        match &self.archive {
            StoreUri::Kafka(_) | StoreUri::Cassandra(_) => Err(StorageError::new(
                ErrorKind::Invalid,
                format!(
                    "{} can hold no archive: embedded:, file:///, s3://, gs:// and az:// can",
                    self.archive
                ),
            )),
            _ => Ok(()),
        }
    }

    /// The whole configuration of the Kafka log; `Invalid` when the log is no Kafka.
    pub fn kafka(&self) -> Result<KafkaConfig> {
        let StoreUri::Kafka(uri) = &self.log else {
            return Err(StorageError::new(
                ErrorKind::Invalid,
                format!("{} is no Kafka", self.log),
            ));
        };
        let at = KafkaConfig::from_uri(uri)?;
        let config = KafkaConfig {
            bootstrap: at.bootstrap,
            prefix: at.prefix,
            ..self.kafka.clone()
        };
        config.check()?;
        Ok(config)
    }

    /// The whole configuration of the Cassandra tables; `Invalid` when the tables are in no Cassandra.
    pub fn cassandra(&self) -> Result<CassandraConfig> {
        let StoreUri::Cassandra(uri) = &self.tables else {
            return Err(StorageError::new(
                ErrorKind::Invalid,
                format!("{} is no Cassandra", self.tables),
            ));
        };
        let config = self.cassandra.clone().at_uri(uri);
        config.map_err(|error| {
            StorageError::with_source(ErrorKind::Invalid, "configuration of the tables", error)
        })
    }
}

/// Opens the stores; what they have to do from time to time is done by tasks among `tasks`. For `embedded:` the caller holds the directory's [`DataDirLock`](crate::lock::DataDirLock).
pub async fn open_stores(settings: &EngineSettings, clock: SharedClock, tasks: &Tasks) -> Result<Stores> {
    settings.check()?;
    let archive: Arc<dyn Archive> = Arc::new(open_archive(settings, &clock)?);
    match &settings.tables {
        StoreUri::Embedded(dir) => {
            let stores = SqliteStores::open(&DataPaths::new(dir), clock).await?;
            Ok(stores.with_archive(archive))
        }
        _ => {
            let (kafka, cassandra) = (settings.kafka()?, settings.cassandra()?);
            let log = KafkaEventLog::open(&kafka, Arc::clone(&clock)).await?;
            let tables = CassandraStores::open(&cassandra, clock).await?;
            let live = tables.live_view(tasks.clone());
            Ok(tables.with(Arc::new(log), archive, live))
        }
    }
}

/// Opens the archive alone.
pub fn open_archive(settings: &EngineSettings, clock: &SharedClock) -> Result<DeltaArchive> {
    let folder = match &settings.archive {
        StoreUri::Embedded(dir) => DataPaths::new(dir).archive,
        StoreUri::Folder(dir) => dir.clone(),
        StoreUri::Objects(location) => {
            return open_remote_archive(location, &settings.objects, Arc::clone(clock));
        }
        other => {
            return Err(StorageError::new(
                ErrorKind::Invalid,
                format!("{other} can hold no archive"),
            ));
        }
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
                "kafka://a:9092,b:9092/dwell",
                StoreUri::Kafka("kafka://a:9092,b:9092/dwell".into()),
            ),
            (
                "cassandra://a:9042,b/dwell",
                StoreUri::Cassandra("cassandra://a:9042,b/dwell".into()),
            ),
            (
                "s3://bucket/archive",
                StoreUri::Objects("s3://bucket/archive".parse().unwrap()),
            ),
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
            (
                "kafka://broker/dwell",
                UriError::NoPlace("kafka://broker/dwell".into(), "kafka://host:port,…/prefix"),
            ),
            (
                "cassandra://a,b",
                UriError::NoPlace("cassandra://a,b".into(), "cassandra://host:port,…/keyspace"),
            ),
            (
                "s3:bucket",
                UriError::NoPlace("s3:bucket".into(), "s3://bucket/folder"),
            ),
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
