//! Erasures: the ledger of whom the platform must forget. Append-only, beside the archive, outside backups.
//!
//! A backup, a restored day or a slow log can bring a forgotten person back, so what is to be forgotten must be
//! remembered, yet not as a name: an entry holds keyed hashes (HMAC-SHA-256 under the ledger's own random key), and a
//! reader hashes each name that it meets and compares. See docs/decisions/0010-erasure.md for what that hides from whom.

use std::fmt;

use async_trait::async_trait;
use dwell_model::ids::VenueKey;
use dwell_model::time::TsMs;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::error::Result;

/// Bytes of a keyed hash that are kept.
const HASH_BYTES: usize = 16;

/// What a name names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SubjectClass {
    /// A track: the key of positions, the `track` of crossings.
    Track,
    /// The pseudonym of a device: the key of presence.
    Device,
    /// A sensor, where it narrows a track down.
    Sensor,
}

/// A name's keyed hash: equal for equal names of a class and venue, and of no use without the key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SubjectHash([u8; HASH_BYTES]);

/// The ledger's key. Not printable, so that no log shows it.
#[derive(Clone)]
pub struct LedgerKey {
    mac: Hmac<Sha256>,
    bytes: [u8; 32],
}

/// Whom an entry covers: a name, in a range of event times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasedSubject {
    /// What is named: a track or a device.
    pub class: SubjectClass,
    /// Who.
    pub name: SubjectHash,
    /// Only where this sensor saw it; `None`: any.
    pub sensor: Option<SubjectHash>,
    /// First event time covered.
    pub from: TsMs,
    /// First event time no longer covered. Never after the request: who comes later under the same name is somebody
    /// else.
    pub until: TsMs,
}

/// An erasure that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewErasure {
    /// Id of its job.
    pub id: String,
    /// Whose visitor.
    pub venue: VenueKey,
    /// When it was asked for.
    pub requested_at: TsMs,
    /// Who.
    pub subjects: Vec<ErasedSubject>,
}

/// An entry of the ledger. Stored as JSON: fields may be added with a default, none changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erasure {
    /// Its place in the ledger, from 1 on without gaps.
    pub number: u64,
    /// The erasure.
    #[serde(flatten)]
    pub erasure: NewErasure,
}

/// The ledger of erasures.
#[async_trait]
pub trait Erasures: Send + Sync {
    /// The key under which names are hashed; made by whoever asks first. Conditional put.
    async fn key(&self) -> Result<LedgerKey>;

    /// Appends an erasure and gives it the next number. Conditional put. One whose id is there already is left as it
    /// is and given back. Durable, and seen by every later [`read`](Self::read) of any process, when it returns.
    async fn append(&self, erasure: NewErasure) -> Result<Erasure>;

    /// The entries with numbers from `from` on, ascending, none left out.
    async fn read(&self, from: u64) -> Result<Vec<Erasure>>;
}

impl LedgerKey {
    /// A key of these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        // HMAC fills a key shorter than the hash's block of 64 bytes with zeros; a whole block cannot be refused.
        let mut block = [0_u8; 64];
        block[..32].copy_from_slice(&bytes);
        let mac = <Hmac<Sha256> as Mac>::new(&block.into());
        Self { mac, bytes }
    }

    /// Its bytes, for the ledger's store.
    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// A name's hash. The parts are told apart by a byte that no name holds.
    pub fn hash(&self, class: SubjectClass, venue: &VenueKey, name: &str) -> SubjectHash {
        let class: &[u8] = match class {
            SubjectClass::Track => b"track",
            SubjectClass::Device => b"device",
            SubjectClass::Sensor => b"sensor",
        };
        let mut mac = self.mac.clone();
        let (tenant, venue) = (venue.tenant.as_str().as_bytes(), venue.venue.as_str().as_bytes());
        for part in [class, tenant, venue] {
            mac.update(part);
            mac.update(b"\x1f");
        }
        mac.update(name.as_bytes());
        let mut hash = [0_u8; HASH_BYTES];
        hash.copy_from_slice(&mac.finalize().into_bytes()[..HASH_BYTES]);
        SubjectHash(hash)
    }

    /// A key of 32 bytes of its own for another purpose.
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        let mut mac = self.mac.clone();
        mac.update(b"purpose\x1f");
        mac.update(purpose.as_bytes());
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for LedgerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LedgerKey(…)")
    }
}

impl fmt::Debug for SubjectHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SubjectHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl From<SubjectHash> for String {
    fn from(hash: SubjectHash) -> Self {
        hash.to_string()
    }
}

impl TryFrom<String> for SubjectHash {
    type Error = hex::FromHexError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut hash = [0_u8; HASH_BYTES];
        hex::decode_to_slice(text, &mut hash)?;
        Ok(Self(hash))
    }
}

#[cfg(test)]
mod tests {
    use dwell_model::ids::{TenantId, VenueId};

    use super::*;

    fn venue(id: &str) -> VenueKey {
        VenueKey::new(TenantId::new("acme").unwrap(), VenueId::new(id).unwrap())
    }

    #[test]
    fn a_hash_is_the_truncated_hmac_of_class_tenant_venue_and_name() {
        // Computed with Python's hmac module: key of 32 bytes 01, text track US acme US v1 US t9 (US: byte 0x1f).
        let key = LedgerKey::new([1; 32]);
        let hash = key.hash(SubjectClass::Track, &venue("v1"), "t9");
        assert_eq!(hash.to_string(), "f50a3a96845fcd00ea61d1fd43310bf6");
        let others = [
            key.hash(SubjectClass::Device, &venue("v1"), "t9"),
            key.hash(SubjectClass::Track, &venue("v2"), "t9"),
            key.hash(SubjectClass::Track, &venue("v1"), "t8"),
            LedgerKey::new([2; 32]).hash(SubjectClass::Track, &venue("v1"), "t9"),
        ];
        assert!(others.iter().all(|other| *other != hash));
        let text = serde_json::to_string(&hash).unwrap();
        assert_eq!(serde_json::from_str::<SubjectHash>(&text).unwrap(), hash);
        assert!(serde_json::from_str::<SubjectHash>("\"00\"").is_err());
    }

    #[test]
    fn an_entry_is_stored_as_it_was_when_the_form_was_made() {
        let key = LedgerKey::new([1; 32]);
        let entry = Erasure {
            number: 7,
            erasure: NewErasure {
                id: "job-1".to_owned(),
                venue: venue("v1"),
                requested_at: 1_000,
                subjects: vec![ErasedSubject {
                    class: SubjectClass::Track,
                    name: key.hash(SubjectClass::Track, &venue("v1"), "t9"),
                    sensor: None,
                    from: -5,
                    until: 1_001,
                }],
            },
        };
        let text = r#"{"number":7,"id":"job-1","venue":VENUE,"requested_at":1000,"subjects":[{"class":"track","name":"f50a3a96845fcd00ea61d1fd43310bf6","sensor":null,"from":-5,"until":1001}]}"#
            .replace("VENUE", &serde_json::to_string(&venue("v1")).unwrap());
        assert_eq!(serde_json::to_string(&entry).unwrap(), text);
        assert_eq!(serde_json::from_str::<Erasure>(&text).unwrap(), entry);
    }
}
