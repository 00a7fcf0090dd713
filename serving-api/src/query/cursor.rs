//! Cursors: where the next page begins, as an opaque text.
//!
//! A cursor carries its format's version, what it continues, and a checksum over both and over the query that it
//! belongs to. The checksum finds broken and mixed-up cursors; it is no permission: whatever a cursor says is read with
//! the rights and within the tenant of the key that presents it.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::problem::{self, Problem};

const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 8;
/// Longer texts are not even decoded.
const TEXT_BYTES_MAX: usize = 2_000_000;

/// Identity of a query: cursors of other queries are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueryId([u8; 32]);

impl QueryId {
    /// Identity of what is asked, by its parts (tenant, route, parameters), cursor and page size left out.
    pub(crate) fn of(parts: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        Self(hash.finalize().into())
    }
}

/// Writes a cursor of a query.
pub(crate) fn encode<T: Serialize>(query: QueryId, position: &T) -> Result<String, Problem> {
    let mut bytes = vec![VERSION];
    bytes.extend(
        postcard::to_stdvec(position).map_err(|error| Problem::internal(format!("cursor: {error}")))?,
    );
    bytes.extend(checksum(query, &bytes));
    Ok(hex::encode(bytes))
}

/// Reads a cursor of the same query back.
pub(crate) fn decode<T: DeserializeOwned>(query: QueryId, text: &str) -> Result<T, Problem> {
    let refuse = || {
        let detail = "the cursor is damaged or belongs to another query; take `next_cursor` of the page before as it is \
                      and repeat the other parameters, or start again without a cursor";
        Problem::new(problem::BAD_CURSOR, detail).about("cursor")
    };
    if text.len() > TEXT_BYTES_MAX {
        return Err(refuse());
    }
    let bytes = hex::decode(text).map_err(|_| refuse())?;
    let Some(split) = bytes.len().checked_sub(CHECKSUM_BYTES) else {
        return Err(refuse());
    };
    let (content, sum) = bytes.split_at(split);
    if checksum(query, content) != sum || content.first() != Some(&VERSION) {
        return Err(refuse());
    }
    postcard::from_bytes(&content[1..]).map_err(|_| refuse())
}

fn checksum(query: QueryId, content: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest = Sha256::new()
        .chain_update(query.0)
        .chain_update(content)
        .finalize();
    let mut first = [0; CHECKSUM_BYTES];
    first.copy_from_slice(&digest[..CHECKSUM_BYTES]);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_for_its_own_query_only() {
        let query = QueryId::of(&["tenant", "/v1/x", "metric=visits"]);
        let text = encode(query, &(7_u64, "aisle-01")).unwrap();
        assert_eq!(
            decode::<(u64, String)>(query, &text).unwrap(),
            (7, "aisle-01".to_owned())
        );
        for other in [
            ["tenant", "/v1/x", "metric=dwell"],
            ["other", "/v1/x", "metric=visits"],
        ] {
            assert!(decode::<(u64, String)>(QueryId::of(&other), &text).is_err());
        }
        // The parts' lengths count, not only their text in a row.
        assert_ne!(QueryId::of(&["ab", "c"]), QueryId::of(&["a", "bc"]));
    }

    #[test]
    fn any_flipped_bit_is_found() {
        let query = QueryId::of(&["q"]);
        let text = encode(query, &42_u64).unwrap();
        let bytes = hex::decode(&text).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut broken = bytes.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(decode::<u64>(query, &hex::encode(broken)).is_err(), "bit {bit}");
        }
        for text in ["", "zz", "00", &text[..text.len() - 2], &format!("{text}00")] {
            assert!(decode::<u64>(query, text).is_err(), "{text:?}");
        }
    }
}
