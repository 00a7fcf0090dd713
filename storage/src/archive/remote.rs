//! Archives in the object stores of clouds, and in those that speak S3.
//!
//! A commit is a conditional put of the next log entry, so the store must honour `If-None-Match`; S3 itself, GCS, Azure
//! and current S3-compatible servers do ([`DeltaArchive::inspect`] finds out). The client repeats a request that failed
//! on its way, but not a conditional put whose answer was lost: what became of that one the log tells.
//!
//! Retries are bounded: a role has to say that its archive is away, not hang. With the defaults a store that refuses
//! connections is given up after about 15 s, one that swallows them after 30 s.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dwell_runtime::clock::SharedClock;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use serde::{Deserialize, Serialize, Serializer};
use url::Url;

use super::DeltaArchive;
use crate::error::{ErrorKind, Result, StorageError};

/// How an object store is reached. What is not set comes from the environment (`AWS_…`, `GOOGLE_…`, `AZURE_…`), or from
/// the machine's own role.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RemoteArchiveConfig {
    /// Address of an S3-compatible server, for example `http://127.0.0.1:8333`; none for S3 itself.
    pub endpoint: Option<String>,
    /// Region of the bucket. Default `us-east-1`.
    pub region: Option<String>,
    /// Id of the key.
    pub access_key_id: Option<String>,
    /// The key's secret; not shown.
    #[serde(serialize_with = "without_secret")]
    pub secret_access_key: Option<String>,
    /// Longest wait for one answer, in milliseconds. Default 30,000.
    pub request_timeout_ms: u64,
    /// How long a request is tried again before it fails, in milliseconds. Default 15,000.
    pub retry_ms: u64,
}

impl Default for RemoteArchiveConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: None,
            access_key_id: None,
            secret_access_key: None,
            request_timeout_ms: 30_000,
            retry_ms: 15_000,
        }
    }
}

/// The secret does not show.
impl fmt::Debug for RemoteArchiveConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteArchiveConfig")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

fn without_secret<S: Serializer>(secret: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(|_| "…").serialize(serializer)
}

/// The archive at `s3://bucket/folder`, `gs://bucket/folder` or `az://container/folder`. Reaches nobody yet.
pub fn open_remote_archive(
    location: &Url,
    config: &RemoteArchiveConfig,
    clock: SharedClock,
) -> Result<DeltaArchive> {
    let (store, folder) = open_remote_store(location, config)?;
    Ok(DeltaArchive::new(store, folder, clock))
}

/// The object store that a URI names, and the folder in it. Reaches nobody yet.
pub(crate) fn open_remote_store(
    location: &Url,
    config: &RemoteArchiveConfig,
) -> Result<(Arc<dyn ObjectStore>, Path)> {
    let refuse = |why: String| StorageError::new(ErrorKind::Invalid, format!("{location}: {why}"));
    let bucket = location
        .host_str()
        .filter(|bucket| !bucket.is_empty())
        .ok_or_else(|| refuse("a bucket is expected, as in s3://bucket/folder".to_owned()))?;
    let folder =
        Path::from_url_path(location.path()).map_err(|error| refuse(format!("its folder: {error}")))?;
    let store = match location.scheme() {
        "s3" => s3(bucket, config),
        "gs" => google(bucket, config),
        "az" => azure(bucket, config),
        other => return Err(refuse(format!("there is no object store {other:?}"))),
    };
    let store = store.map_err(|error| {
        StorageError::with_source(ErrorKind::Invalid, format!("configuration of {location}"), error)
    })?;
    Ok((store, folder))
}

fn s3(bucket: &str, config: &RemoteArchiveConfig) -> object_store::Result<Arc<dyn ObjectStore>> {
    let environment = AmazonS3Builder::from_env();
    let from_environment = |key| environment.get_config_value(&key);
    let endpoint = config
        .endpoint
        .clone()
        .or_else(|| from_environment(AmazonS3ConfigKey::Endpoint));
    let region = config
        .region
        .clone()
        .or_else(|| from_environment(AmazonS3ConfigKey::Region));
    let is_plain = endpoint
        .as_ref()
        .is_some_and(|endpoint| endpoint.starts_with("http://"));
    // A session token of the environment does not belong to a configured key.
    let mut builder = match (&config.access_key_id, &config.secret_access_key) {
        (Some(id), Some(secret)) => AmazonS3Builder::new()
            .with_access_key_id(id)
            .with_secret_access_key(secret),
        (None, None) => environment,
        _ => {
            return Err(object_store::Error::Generic {
                store: "S3",
                source: "access_key_id and secret_access_key are set together, or neither".into(),
            });
        }
    };
    if let Some(endpoint) = endpoint {
        // Servers other than S3 seldom have a host name per bucket.
        builder = builder
            .with_endpoint(endpoint)
            .with_virtual_hosted_style_request(false);
    }
    if let Some(region) = region {
        builder = builder.with_region(region);
    }
    let store = builder
        .with_bucket_name(bucket)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_retry(retries(config))
        .with_client_options(client(config).with_allow_http(is_plain))
        .build()?;
    Ok(Arc::new(store))
}

fn google(bucket: &str, config: &RemoteArchiveConfig) -> object_store::Result<Arc<dyn ObjectStore>> {
    let builder = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(bucket)
        .with_retry(retries(config))
        .with_client_options(client(config));
    Ok(Arc::new(builder.build()?))
}

fn azure(container: &str, config: &RemoteArchiveConfig) -> object_store::Result<Arc<dyn ObjectStore>> {
    let builder = MicrosoftAzureBuilder::from_env()
        .with_container_name(container)
        .with_retry(retries(config))
        .with_client_options(client(config));
    Ok(Arc::new(builder.build()?))
}

fn retries(config: &RemoteArchiveConfig) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(3),
            base: 2.0,
        },
        max_retries: 10,
        retry_timeout: Duration::from_millis(config.retry_ms),
    }
}

fn client(config: &RemoteArchiveConfig) -> ClientOptions {
    ClientOptions::new()
        .with_connect_timeout(Duration::from_secs(3))
        .with_timeout(Duration::from_millis(config.request_timeout_ms))
}

#[cfg(test)]
mod tests {
    use dwell_runtime::clock::SystemClock;

    use super::*;

    fn open(location: &str, config: &RemoteArchiveConfig) -> Result<DeltaArchive> {
        open_remote_archive(&location.parse().unwrap(), config, SystemClock::shared())
    }

    fn with_keys() -> RemoteArchiveConfig {
        RemoteArchiveConfig {
            endpoint: Some("http://127.0.0.1:1".into()),
            region: Some("us-east-1".into()),
            access_key_id: Some("dwell".into()),
            secret_access_key: Some("quite-secret".into()),
            ..RemoteArchiveConfig::default()
        }
    }

    #[test]
    fn a_bucket_and_a_folder_below_it_make_an_archive() {
        let archive = open("s3://dwell/some/folder", &with_keys()).unwrap();
        let (store, folder) = archive.location();
        assert_eq!(folder.as_ref(), "some/folder");
        assert_eq!(store.to_string(), "AmazonS3(dwell)");
        open("s3://dwell", &with_keys()).unwrap();
        for (location, why) in [
            ("s3:///folder", "a bucket is expected"),
            ("ftp://bucket/folder", "there is no object store \"ftp\""),
        ] {
            let error = open(location, &with_keys()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains(why), "{error}");
        }
    }

    #[test]
    fn half_a_key_is_refused() {
        let config = RemoteArchiveConfig {
            secret_access_key: None,
            ..with_keys()
        };
        let error = open("s3://dwell", &config).unwrap_err();
        assert!(
            error.to_string().contains("access_key_id and secret_access_key"),
            "{error}"
        );
    }

    #[test]
    fn the_secret_is_neither_printed_nor_written() {
        let config = with_keys();
        assert!(!format!("{config:?}").contains("quite-secret"));
        let written = serde_json::to_string(&config).unwrap();
        assert!(
            !written.contains("quite-secret") && written.contains("dwell"),
            "{written}"
        );
    }

    #[test]
    fn unknown_settings_are_refused() {
        let error = serde_json::from_str::<RemoteArchiveConfig>(r#"{"acces_key_id":"x"}"#).unwrap_err();
        assert!(error.to_string().contains("acces_key_id"), "{error}");
    }
}
