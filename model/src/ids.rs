//! Names of things: tenants and venues (safe in a path), and the free names that sensors send.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest tenant or venue id, in bytes.
pub const MAX_ID_BYTES: usize = 64;
/// Longest name that a sensor may send (sensor, track, zone, device, …), in bytes.
pub const MAX_NAME_BYTES: usize = 256;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name has no characters.
    #[error("must not be empty")]
    Empty,
    /// The name is longer than the limit.
    #[error("is {got} bytes long; at most {max} are allowed")]
    TooLong {
        /// Length found, in bytes.
        got: usize,
        /// Length allowed, in bytes.
        max: usize,
    },
    /// A character that the name may not hold.
    #[error("holds the character {0:?}, which is not allowed")]
    Character(char),
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and wraps an id: 1 to 64 of `A-Z a-z 0-9 . _ -`, not starting with a dot.
            pub fn new(id: &str) -> Result<Self, NameError> {
                check_id(id)?;
                Ok(Self(Arc::from(id)))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(id: &str) -> Result<Self, NameError> {
                Self::new(id)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(id: String) -> Result<Self, NameError> {
                Self::new(&id)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.as_ref().to_owned()
            }
        }
    };
}

id! {
    /// A customer. Everything stored is keyed by it first.
    TenantId
}
id! {
    /// A store of a tenant; unique within the tenant.
    VenueId
}

/// A venue with its tenant: the partition of everything that is stored.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VenueKey {
    /// Whose venue it is.
    pub tenant: TenantId,
    /// The venue.
    pub venue: VenueId,
}

impl VenueKey {
    /// Joins the two.
    pub fn new(tenant: TenantId, venue: VenueId) -> Self {
        Self { tenant, venue }
    }
}

impl fmt::Display for VenueKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.venue)
    }
}

impl fmt::Debug for VenueKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn check_id(id: &str) -> Result<(), NameError> {
    if id.is_empty() {
        return Err(NameError::Empty);
    }
    if id.len() > MAX_ID_BYTES {
        return Err(NameError::TooLong {
            got: id.len(),
            max: MAX_ID_BYTES,
        });
    }
    // Ids become folder names of the archive, hence the narrow alphabet and no leading dot.
    let bad = id
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')));
    match bad {
        Some(c) => Err(NameError::Character(c)),
        None if id.starts_with('.') => Err(NameError::Character('.')),
        None => Ok(()),
    }
}

/// Checks a name that a sensor sends: 1 to 256 bytes of UTF-8 without control characters.
///
/// The unit separator (U+001F) is a control character, so composite keys can use it safely.
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong {
            got: name.len(),
            max: MAX_NAME_BYTES,
        });
    }
    match name.chars().find(|c| c.is_control()) {
        Some(c) => Err(NameError::Character(c)),
        None => Ok(()),
    }
}

/// Names the accepted request, file or message that delivered an event (its lineage).
///
/// A hash of the sender's key and its `Idempotency-Key`, else of the body, so that a retry has the same one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Receipt(u128);

impl Receipt {
    /// Derives the receipt of what `sender` delivered; `content` is its idempotency key or its bytes' hash.
    pub fn derive(sender: &[u8], content: &[u8]) -> Self {
        use sha2::{Digest, Sha256};
        let mut hash = Sha256::new();
        hash.update((sender.len() as u64).to_be_bytes());
        hash.update(sender);
        hash.update(content);
        let digest = hash.finalize();
        let mut first = [0_u8; 16];
        first.copy_from_slice(&digest[..16]);
        Self(u128::from_be_bytes(first))
    }

    /// The receipt as a number, for stores.
    pub fn to_u128(self) -> u128 {
        self.0
    }

    /// A receipt read back from a store.
    pub fn from_u128(value: u128) -> Self {
        Self(value)
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a receipt (32 hexadecimal digits).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a receipt: 32 hexadecimal digits are expected")]
pub struct ReceiptError(String);

impl FromStr for Receipt {
    type Err = ReceiptError;

    fn from_str(text: &str) -> Result<Self, ReceiptError> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ReceiptError(text.chars().take(64).collect()));
        }
        u128::from_str_radix(text, 16)
            .map(Self)
            .map_err(|_| ReceiptError(text.to_owned()))
    }
}

impl TryFrom<String> for Receipt {
    type Error = ReceiptError;

    fn try_from(text: String) -> Result<Self, ReceiptError> {
        text.parse()
    }
}

impl From<Receipt> for String {
    fn from(receipt: Receipt) -> String {
        receipt.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn venue_ids_are_safe_as_folder_names() {
        for good in ["v001", "Store-7", "a.b_c"] {
            assert_eq!(VenueId::new(good).unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", ".x", "a/b", "a b", "ä", "a=b", &"x".repeat(65)] {
            assert!(VenueId::new(bad).is_err(), "{bad:?} must be refused");
        }
    }

    #[test]
    fn sensor_names_may_hold_any_text_but_control_characters() {
        assert!(check_name("80:1F:12:D5:30:DC").is_ok());
        assert!(check_name("Ost-Süd total").is_ok());
        assert_eq!(check_name("a\u{1f}b"), Err(NameError::Character('\u{1f}')));
        assert_eq!(
            check_name(&"x".repeat(257)),
            Err(NameError::TooLong { got: 257, max: 256 })
        );
    }

    #[test]
    fn receipts_survive_text_and_differ_by_sender_and_content() {
        let a = Receipt::derive(b"key-1", b"body");
        assert_eq!(a.to_string().parse::<Receipt>().unwrap(), a);
        assert_eq!(a, Receipt::derive(b"key-1", b"body"));
        assert_ne!(a, Receipt::derive(b"key-2", b"body"));
        // The length prefix keeps the boundary between sender and content.
        assert_ne!(Receipt::derive(b"ab", b"c"), Receipt::derive(b"a", b"bc"));
        assert!("xyz".parse::<Receipt>().is_err());
    }
}
