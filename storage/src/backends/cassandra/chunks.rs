//! Large values in rows of a bounded size.
//!
//! A value is cut into chunks, and a row that is written after them tells how many there are and what they amount to
//! ([`Outline`]). A reader who finds other chunks than that (some are gone, or not there yet) reads again.

use xxhash_rust::xxh3::xxh3_64;

use crate::error::{ErrorKind, Result, StorageError};

/// Bytes of a chunk. Well below what a server takes in one write (16 MiB), and small enough that a page of answers is
/// no burden.
pub(super) const CHUNK_BYTES: usize = 256 * 1024;

/// What the chunks of a value amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outline {
    pub(super) chunks: i32,
    pub(super) bytes: i32,
    pub(super) digest: i64,
}

impl Outline {
    /// The outline of a value; `Invalid` beyond 2 GiB.
    pub(super) fn of(value: &[u8]) -> Result<Self> {
        let too_large = |_| {
            let why = format!("a state of {} bytes is too large to be stored", value.len());
            StorageError::new(ErrorKind::Invalid, why)
        };
        Ok(Self {
            chunks: i32::try_from(value.len().div_ceil(CHUNK_BYTES)).map_err(too_large)?,
            bytes: i32::try_from(value.len()).map_err(too_large)?,
            digest: xxh3_64(value).cast_signed(),
        })
    }

    /// The value of these chunks, in their order; `None` when they are not those of this outline.
    pub(super) fn join(&self, chunks: &[(i32, Vec<u8>)]) -> Option<Vec<u8>> {
        let complete = chunks.len() == usize::try_from(self.chunks).ok()?
            && chunks
                .iter()
                .zip(0..)
                .all(|((number, _), expected)| *number == expected);
        if !complete {
            return None;
        }
        let value = chunks.iter().fold(Vec::new(), |mut value, (_, chunk)| {
            value.extend_from_slice(chunk);
            value
        });
        (Self::of(&value).ok()? == *self).then_some(value)
    }
}

/// The chunks of a value, numbered from 0.
pub(super) fn cut(value: &[u8]) -> impl Iterator<Item = (i32, &[u8])> {
    (0..).zip(value.chunks(CHUNK_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(value: &[u8]) -> Vec<(i32, Vec<u8>)> {
        cut(value)
            .map(|(number, chunk)| (number, chunk.to_vec()))
            .collect()
    }

    #[test]
    fn a_value_comes_back_from_its_chunks() {
        for (bytes, chunks) in [
            (0, 0),
            (1, 1),
            (CHUNK_BYTES, 1),
            (CHUNK_BYTES + 1, 2),
            (3 * CHUNK_BYTES, 3),
        ] {
            let value: Vec<u8> = (0..bytes).map(|n| (n % 251) as u8).collect();
            let outline = Outline::of(&value).unwrap();
            assert_eq!((outline.chunks, outline.bytes), (chunks, bytes as i32));
            assert_eq!(outline.join(&stored(&value)), Some(value));
        }
    }

    #[test]
    fn chunks_that_are_missing_strange_or_of_another_value_are_refused() {
        let value = vec![1_u8; CHUNK_BYTES + 5];
        let outline = Outline::of(&value).unwrap();
        let good = stored(&value);
        assert_eq!(outline.join(&good[..1]), None);
        assert_eq!(outline.join(&[good[1].clone(), good[0].clone()]), None);
        let mut other = good.clone();
        other[1].1[0] = 2;
        assert_eq!(outline.join(&other), None);
        assert_eq!(outline.join(&[good.clone(), vec![(2, vec![])]].concat()), None);
    }
}
