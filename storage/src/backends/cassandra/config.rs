//! Where the cluster is and how it is used.
//!
//! `cassandra://host:port,host2:port2/keyspace` names contact points and keyspace ([`CassandraConfig::from_uri`]); the
//! rest has defaults that suit three nodes in one datacenter, and is set in the configuration's own section.

use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

const SCHEME: &str = "cassandra://";
const DEFAULT_PORT: u16 = 9042;
/// Cassandra's own limit.
const KEYSPACE_BYTES_MAX: usize = 48;

/// How a cluster is reached and used. Every field has a default.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CassandraConfig {
    /// Nodes that are asked first, `host:port`; the others are learned from them.
    pub contact_points: Vec<String>,
    /// Keyspace that holds Dwell's tables: lower-case letters, digits and `_`.
    pub keyspace: String,
    /// Copies of each row in the local datacenter, given to the keyspace when `migrate` creates it.
    pub replication: u32,
    /// One node holds everything, on purpose (a laptop, a test): fewer than three copies are no finding then.
    pub single_node: bool,
    /// Datacenter whose nodes are asked; that of the contact points when they all lie in one.
    pub local_datacenter: Option<String>,
    /// User name, where the cluster asks for one.
    pub user: Option<String>,
    /// Password of the user; not shown.
    #[serde(serialize_with = "without_secret")]
    pub password: Option<String>,
    /// Frames on the wire, compressed or not.
    pub compression: WireCompression,
    /// Longest wait for the first connection, milliseconds.
    pub connect_timeout_ms: u64,
    /// Longest wait for an answer, milliseconds. Keep it above the server's own timeouts (`cas_contention_timeout`,
    /// `write_request_timeout`), or the outcome of a conditional write is unknown more often than need be.
    pub request_timeout_ms: u64,
    /// A read that has no answer after this many milliseconds is sent to another node too; 0 turns that off.
    pub speculative_read_after_ms: u64,
    /// Requests in flight at a time, per process. Who comes when they are all taken waits.
    pub concurrency: u32,
}

/// Whether frames are compressed on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WireCompression {
    /// Not at all: least CPU.
    None,
    /// LZ4: a batch of rows repeats its partition key, so it shrinks to a fraction.
    #[default]
    Lz4,
}

impl Default for CassandraConfig {
    fn default() -> Self {
        Self {
            contact_points: vec![format!("127.0.0.1:{DEFAULT_PORT}")],
            keyspace: "dwell".to_owned(),
            replication: 3,
            single_node: false,
            local_datacenter: None,
            user: None,
            password: None,
            compression: WireCompression::default(),
            connect_timeout_ms: 15_000,
            request_timeout_ms: 12_000,
            speculative_read_after_ms: 1_000,
            concurrency: 128,
        }
    }
}

/// What is printed of a configuration shows that there is a password, and not which.
fn without_secret<S: Serializer>(secret: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(|_| "…").serialize(serializer)
}

/// The password does not show.
impl std::fmt::Debug for CassandraConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CassandraConfig")
            .field("contact_points", &self.contact_points)
            .field("keyspace", &self.keyspace)
            .field("replication", &self.replication)
            .field("single_node", &self.single_node)
            .field("local_datacenter", &self.local_datacenter)
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "…"))
            .field("compression", &self.compression)
            .field("connect_timeout_ms", &self.connect_timeout_ms)
            .field("request_timeout_ms", &self.request_timeout_ms)
            .field("speculative_read_after_ms", &self.speculative_read_after_ms)
            .field("concurrency", &self.concurrency)
            .finish()
    }
}

/// A configuration that cannot be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CassandraConfigError {
    /// The URI is not of the expected shape.
    #[error("{0:?} names no cluster: cassandra://host:port,host2:port2/keyspace is expected")]
    Uri(String),
    /// A contact point is not of the form `host` or `host:port`.
    #[error("{0:?} is no contact point: host or host:port is expected")]
    ContactPoint(String),
    /// Cassandra does not take the keyspace's name.
    #[error(
        "{0:?} is no name for a keyspace: a lower-case letter, then up to 47 lower-case letters, digits or _ are expected"
    )]
    Keyspace(String),
    /// A number is zero that must not be.
    #[error("{0} must be greater than 0")]
    Zero(&'static str),
    /// Only one of user and password is given.
    #[error("user and password belong together: one of them is missing")]
    Credentials,
}

impl CassandraConfig {
    /// Contact points and keyspace of `cassandra://host:port,host2:port2/keyspace`, the rest by default. Without a
    /// port 9042 is meant. User and password have no place in it: an address is printed and logged.
    pub fn from_uri(uri: &str) -> Result<Self, CassandraConfigError> {
        Self::default().at_uri(uri)
    }

    /// This configuration with the contact points and the keyspace of a URI.
    pub fn at_uri(mut self, uri: &str) -> Result<Self, CassandraConfigError> {
        let refuse = || CassandraConfigError::Uri(uri.to_owned());
        let scheme = uri.get(..SCHEME.len()).ok_or_else(refuse)?;
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return Err(refuse());
        }
        let (hosts, keyspace) = uri[SCHEME.len()..].split_once('/').ok_or_else(refuse)?;
        self.contact_points = contact_points(hosts)?;
        self.keyspace = keyspace.to_owned();
        self.check()?;
        Ok(self)
    }

    /// Refuses what cannot be right.
    pub fn check(&self) -> Result<(), CassandraConfigError> {
        if self.contact_points.is_empty() {
            return Err(CassandraConfigError::ContactPoint(String::new()));
        }
        for point in &self.contact_points {
            contact_point(point)?;
        }
        check_keyspace(&self.keyspace)?;
        for (name, value) in [
            ("replication", u64::from(self.replication)),
            ("connect_timeout_ms", self.connect_timeout_ms),
            ("request_timeout_ms", self.request_timeout_ms),
            ("concurrency", u64::from(self.concurrency)),
        ] {
            if value == 0 {
                return Err(CassandraConfigError::Zero(name));
            }
        }
        if self.user.is_some() != self.password.is_some() {
            return Err(CassandraConfigError::Credentials);
        }
        Ok(())
    }

    /// The contact points and the keyspace as a URI.
    pub fn uri(&self) -> String {
        format!("{SCHEME}{}/{}", self.contact_points.join(","), self.keyspace)
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    pub(super) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }
}

/// Contact points from a list with commas, as in `DWELL_TEST_CASSANDRA`; a missing port is 9042.
pub fn contact_points(list: &str) -> Result<Vec<String>, CassandraConfigError> {
    list.split(',').map(|point| contact_point(point.trim())).collect()
}

fn contact_point(point: &str) -> Result<String, CassandraConfigError> {
    let refuse = || CassandraConfigError::ContactPoint(point.to_owned());
    // An IPv6 address stands in brackets.
    let (host, port) = match point.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or_else(refuse)?;
            (
                host,
                after
                    .strip_prefix(':')
                    .or(after.is_empty().then_some(""))
                    .ok_or_else(refuse)?,
            )
        }
        None => point.split_once(':').unwrap_or((point, "")),
    };
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || !host.chars().all(known) || (host.contains(':') && !point.starts_with('[')) {
        return Err(refuse());
    }
    let port: u16 = match port {
        "" if point.ends_with(':') => return Err(refuse()),
        "" => DEFAULT_PORT,
        port => port.parse().ok().filter(|&port| port > 0).ok_or_else(refuse)?,
    };
    match point.starts_with('[') {
        true => Ok(format!("[{host}]:{port}")),
        false => Ok(format!("{host}:{port}")),
    }
}

/// The name goes into CQL text as it is, so it is held to what needs no quotes.
fn check_keyspace(name: &str) -> Result<(), CassandraConfigError> {
    let good = name.len() <= KEYSPACE_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && !name.starts_with("system");
    if good {
        Ok(())
    } else {
        Err(CassandraConfigError::Keyspace(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_names_contact_points_and_keyspace() {
        for (uri, points, keyspace) in [
            ("cassandra://a:1,b:2/dwell", vec!["a:1", "b:2"], "dwell"),
            (
                "cassandra://db-1.example.com/shop_7",
                vec!["db-1.example.com:9042"],
                "shop_7",
            ),
            (
                "CASSANDRA://10.0.0.1,[::1]:9/d",
                vec!["10.0.0.1:9042", "[::1]:9"],
                "d",
            ),
            ("cassandra://[fe80::2]/d", vec!["[fe80::2]:9042"], "d"),
        ] {
            let config = CassandraConfig::from_uri(uri).unwrap();
            assert_eq!(
                (config.contact_points, config.keyspace.as_str()),
                (points.iter().map(|p| (*p).to_owned()).collect(), keyspace)
            );
            assert_eq!((config.replication, config.concurrency), (3, 128));
        }
        let round = CassandraConfig::from_uri("cassandra://a:1,b:2/dwell").unwrap();
        assert_eq!(round.uri(), "cassandra://a:1,b:2/dwell");
    }

    #[test]
    fn what_cannot_be_right_is_refused() {
        for uri in ["cassandra://a:1", "kafka://a/b", "cassandra:a/b", "", "ü"] {
            assert_eq!(
                CassandraConfig::from_uri(uri),
                Err(CassandraConfigError::Uri(uri.to_owned())),
                "{uri}"
            );
        }
        for (hosts, point) in [
            ("", ""),
            ("a,,b", ""),
            ("a:", "a:"),
            ("a:0", "a:0"),
            ("a:99999", "a:99999"),
            ("a b", "a b"),
            ("::1", "::1"),
            ("[::1", "[::1"),
        ] {
            let error = CassandraConfig::from_uri(&format!("cassandra://{hosts}/d")).unwrap_err();
            assert_eq!(
                error,
                CassandraConfigError::ContactPoint(point.to_owned()),
                "{hosts}"
            );
        }
        for keyspace in [
            "",
            "Dwell",
            "7up",
            "a-b",
            "a/b",
            "a\"; DROP KEYSPACE x",
            "system_auth",
            &"k".repeat(49),
        ] {
            let error = CassandraConfig::from_uri(&format!("cassandra://a/{keyspace}")).unwrap_err();
            assert_eq!(error, CassandraConfigError::Keyspace(keyspace.to_owned()));
        }
        let zero = CassandraConfig {
            concurrency: 0,
            ..CassandraConfig::default()
        };
        assert_eq!(zero.check(), Err(CassandraConfigError::Zero("concurrency")));
        let half = CassandraConfig {
            user: Some("u".to_owned()),
            ..CassandraConfig::default()
        };
        assert_eq!(half.check(), Err(CassandraConfigError::Credentials));
    }

    #[test]
    fn a_section_takes_defaults_and_refuses_unknown_keys() {
        let config: CassandraConfig =
            serde_json::from_str(r#"{"replication": 1, "compression": "none"}"#).unwrap();
        assert_eq!(
            (config.replication, config.compression, config.keyspace.as_str()),
            (1, WireCompression::None, "dwell")
        );
        assert!(serde_json::from_str::<CassandraConfig>(r#"{"replicas": 1}"#).is_err());
    }

    #[test]
    fn the_password_is_not_printed() {
        let config = CassandraConfig {
            user: Some("u".into()),
            password: Some("hush".into()),
            ..CassandraConfig::default()
        };
        assert!(!format!("{config:?}").contains("hush"));
        assert!(!serde_json::to_string(&config).unwrap().contains("hush"));
    }
}
