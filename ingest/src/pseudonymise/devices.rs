//! From a device's identifier to its pseudonym.

use dwell_storage::api::SecretKey;
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// What every pseudonym begins with.
const PREFIX: &str = "p:";
const PSEUDONYM_BYTES: usize = 16;

/// One spelling of an identifier: without white space around it, in lower case, a MAC address (12 hexadecimal digits)
/// without the separators that vendors disagree on.
pub fn normalise(device: &str) -> String {
    let lower = device.trim().to_lowercase();
    let is_separator = |c: char| matches!(c, ':' | '-' | '.');
    let digits = lower.chars().filter(|&c| !is_separator(c));
    if digits.clone().count() == 12 && digits.clone().all(|c| c.is_ascii_hexdigit()) {
        return digits.collect();
    }
    lower
}

/// Whether a text has the form of a pseudonym.
pub fn is_pseudonym(text: &str) -> bool {
    text.strip_prefix(PREFIX).is_some_and(|digits| {
        digits.len() == 2 * PSEUDONYM_BYTES && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// Makes the pseudonyms of one venue-day.
#[derive(Clone)]
pub(super) struct DayPseudonyms {
    /// Keyed once; cloned for each device.
    mac: Hmac<Sha256>,
}

impl DayPseudonyms {
    pub(super) fn new(key: &SecretKey) -> Self {
        Self { mac: keyed(&key.0) }
    }

    pub(super) fn of(&self, device: &str) -> String {
        let mut mac = self.mac.clone();
        mac.update(normalise(device).as_bytes());
        let digest = mac.finalize().into_bytes();
        format!("{PREFIX}{}", hex::encode(&digest[..PSEUDONYM_BYTES]))
    }
}

/// HMAC-SHA-256 under a key of 32 bytes.
pub(crate) fn keyed(key: &[u8; 32]) -> Hmac<Sha256> {
    // HMAC fills a key shorter than the hash's block of 64 bytes with zeros; a whole block cannot be refused.
    let mut block = [0_u8; 64];
    block[..32].copy_from_slice(key);
    <Hmac<Sha256> as Mac>::new(&block.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_device_are_one() {
        for spelling in [
            "AA:BB:CC:00:11:22",
            "aa-bb-cc-00-11-22",
            " aabb.cc00.1122\t",
            "AABBCC001122",
        ] {
            assert_eq!(normalise(spelling), "aabbcc001122");
        }
        // What is no MAC address keeps its separators: they tell devices apart.
        assert_ne!(normalise("tag-1.2"), normalise("tag-12"));
        assert_eq!(normalise("Tag-12"), "tag-12");
        assert_eq!(normalise("aa:bb:cc:dd:ee:ff:00:11"), "aa:bb:cc:dd:ee:ff:00:11");
    }

    #[test]
    fn a_pseudonym_is_the_truncated_hmac_of_the_normalised_identifier() {
        // Computed with Python's hmac module: key of 32 bytes 01, text aabbcc001122.
        let pseudonyms = DayPseudonyms::new(&SecretKey([1; 32]));
        let pseudonym = pseudonyms.of("AA:BB:CC:00:11:22");
        assert_eq!(pseudonym, "p:f5e2b6b4805a578307fd1b57ab05dee0");
        assert!(is_pseudonym(&pseudonym));
        for other in [
            "p:",
            "p:00",
            "aabbcc001122",
            &pseudonym.to_uppercase(),
            &format!("{pseudonym}0"),
        ] {
            assert!(!is_pseudonym(other), "{other}");
        }
    }
}
