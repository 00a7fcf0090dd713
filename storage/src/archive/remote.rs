//! Archives in the object stores of clouds, and in those that speak S3.
//!
//! A commit is a conditional put of the next log entry, so the store must honour `If-None-Match`; S3 itself, GCS, Azure
//! and current S3-compatible servers do. Retries are bounded: a role has to say that its archive is away, not hang.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dwell_runtime::clock::SharedClock;
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
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
    Ok(DeltaArchive::new(store, folder, clock))
}

fn s3(bucket: &str, config: &RemoteArchiveConfig) -> object_store::Result<Arc<dyn ObjectStore>> {
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_retry(retries(config))
        .with_client_options(client(config));
    if let Some(endpoint) = &config.endpoint {
        // Servers other than S3 seldom have a host name per bucket.
        builder = builder
            .with_endpoint(endpoint)
            .with_virtual_hosted_style_request(false);
    }
    if let Some(region) = &config.region {
        builder = builder.with_region(region);
    }
    if let (Some(id), Some(secret)) = (&config.access_key_id, &config.secret_access_key) {
        builder = builder.with_access_key_id(id).with_secret_access_key(secret);
    }
    Ok(Arc::new(builder.build()?))
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
    let is_plain = config
        .endpoint
        .as_ref()
        .is_some_and(|endpoint| endpoint.starts_with("http://"));
    ClientOptions::new()
        .with_connect_timeout(Duration::from_secs(3))
        .with_timeout(Duration::from_millis(config.request_timeout_ms))
        .with_allow_http(is_plain)
}
