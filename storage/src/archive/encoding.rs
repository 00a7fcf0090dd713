//! Parquet's value encodings, written and read over whole columns.
//!
//! The `parquet` crate encodes value by value behind its column writers, and hashes each text again to build a
//! dictionary that our batches already have. Dwell's rows carry numbers instead of texts, so it encodes pages itself
//! ([`integers`]: DELTA_BINARY_PACKED, [`hybrid`]: RLE and bit-packing for dictionary numbers and levels) and leaves
//! page headers, chunk metadata and the footer to the crate.
//!
//! Decoding trusts nothing: damaged bytes give a [`Malformed`], never a panic or an endless loop.

mod bits;
pub(super) mod hybrid;
pub(super) mod integers;

/// Bytes that do not follow the encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed {0}")]
pub(super) struct Malformed(pub(super) &'static str);

/// Appends a variable-length integer: seven bits a byte, least significant first.
fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a variable-length integer off the front.
fn read_varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(Malformed("varint"))?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Malformed("varint"))
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Takes `count` bytes off the front.
fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8], Malformed> {
    let (front, rest) = bytes
        .split_at_checked(count)
        .ok_or(Malformed("page: it ends early"))?;
    *bytes = rest;
    Ok(front)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_and_zigzag_survive_the_extremes() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            write_varint(&mut out, value);
            let mut rest = out.as_slice();
            assert_eq!(read_varint(&mut rest), Ok(value));
            assert!(rest.is_empty());
        }
        assert_eq!([0, -1, 1, -2].map(zigzag), [0, 1, 2, 3]);
        for value in [0, -1, i64::MIN, i64::MAX] {
            assert_eq!(unzigzag(zigzag(value)), value);
        }
        assert!(read_varint(&mut [0xff; 11].as_slice()).is_err());
        assert!(read_varint(&mut [0x80].as_slice()).is_err());
    }
}
