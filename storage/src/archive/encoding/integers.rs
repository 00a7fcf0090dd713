//! DELTA_BINARY_PACKED: differences in blocks of 128, each of four miniblocks with a bit width of its own.

use super::{Malformed, bits, read_varint, take, unzigzag, write_varint, zigzag};

const BLOCK: usize = 128;
const MINIBLOCKS: usize = BLOCK / bits::GROUP;

/// An integer type that Parquet stores: differences wrap in its own width.
pub(in crate::archive) trait Integer: Copy + Into<i64> {
    /// The bits of the type.
    const MASK: u64;
    /// Bits a value that a miniblock costs, after zstd, in which some offset wraps around.
    const WRAPPED_COST: u32;
    /// `self − before`, wrapping, widened.
    fn difference(self, before: Self) -> i64;
    /// `self + difference`, wrapping.
    fn plus(self, difference: i64) -> Self;
    /// The value that the widened one stands for.
    fn narrow(value: i64) -> Self;
}

impl Integer for i32 {
    const MASK: u64 = u32::MAX as u64;
    const WRAPPED_COST: u32 = 20;

    fn difference(self, before: Self) -> i64 {
        i64::from(self.wrapping_sub(before))
    }

    fn plus(self, difference: i64) -> Self {
        self.wrapping_add(difference as i32)
    }

    fn narrow(value: i64) -> Self {
        value as i32
    }
}

impl Integer for i64 {
    const MASK: u64 = u64::MAX;
    const WRAPPED_COST: u32 = 20;

    fn difference(self, before: Self) -> i64 {
        self.wrapping_sub(before)
    }

    fn plus(self, difference: i64) -> Self {
        self.wrapping_add(difference)
    }

    fn narrow(value: i64) -> Self {
        value
    }
}

/// Appends the encoded values.
pub(in crate::archive) fn encode<T: Integer>(values: &[T], out: &mut Vec<u8>) {
    write_varint(out, BLOCK as u64);
    write_varint(out, MINIBLOCKS as u64);
    write_varint(out, values.len() as u64);
    let Some((&first, rest)) = values.split_first() else {
        return write_varint(out, 0);
    };
    write_varint(out, zigzag(first.into()));
    let mut before = first;
    let mut differences = [0_i64; BLOCK];
    for block in rest.chunks(BLOCK) {
        for (difference, &value) in differences.iter_mut().zip(block) {
            *difference = value.difference(before);
            before = value;
        }
        encode_block::<T>(&differences[..block.len()], out);
    }
}

/// Writes a block relative to the frame that makes it smallest.
///
/// Usually that is the least difference. Where one track follows another, though, time jumps back by hours, and with
/// that as the frame all 128 offsets need 26 bits. A frame above it makes the one miniblock with the jump wrap around
/// (additions wrap, as in any reader) and as wide as the type, mostly zeros that zstd takes away, and the other three
/// stay small.
fn encode_block<T: Integer>(differences: &[i64], out: &mut Vec<u8>) {
    let mut ranges = [(i64::MAX, i64::MIN); MINIBLOCKS];
    for (range, miniblock) in ranges.iter_mut().zip(differences.chunks(bits::GROUP)) {
        *range = miniblock
            .iter()
            .fold(*range, |(least, most), &d| (least.min(d), most.max(d)));
    }
    let ranges = &ranges[..differences.len().div_ceil(bits::GROUP)];
    let bits_from = |frame: i64| -> u32 {
        let width = |&(least, most): &(i64, i64)| match least >= frame {
            true => 64 - (most.wrapping_sub(frame) as u64).leading_zeros(),
            false => T::WRAPPED_COST,
        };
        ranges.iter().map(width).sum()
    };
    let frames = ranges.iter().map(|&(least, _)| least);
    let frame = frames.min_by_key(|&frame| (bits_from(frame), frame)).unwrap_or(0);
    write_varint(out, zigzag(frame));
    let widths_at = out.len();
    out.extend_from_slice(&[0; MINIBLOCKS]);
    for (i, miniblock) in differences.chunks(bits::GROUP).enumerate() {
        let mut offsets = [0_u64; bits::GROUP];
        let mut union = 0;
        for (offset, difference) in offsets.iter_mut().zip(miniblock) {
            *offset = difference.wrapping_sub(frame) as u64 & T::MASK;
            union |= *offset;
        }
        let width = 64 - union.leading_zeros() as usize;
        out[widths_at + i] = width as u8;
        bits::pack(&offsets, width, out);
    }
}

/// Appends the values of a page to `out`; they must be `count`.
pub(in crate::archive) fn decode<T: Integer>(
    mut bytes: &[u8],
    count: usize,
    out: &mut Vec<T>,
) -> Result<(), Malformed> {
    let bytes = &mut bytes;
    let shape = (read_varint(bytes)?, read_varint(bytes)?);
    if shape != (BLOCK as u64, MINIBLOCKS as u64) {
        return Err(Malformed("integer page: another block size"));
    }
    if read_varint(bytes)? != count as u64 {
        return Err(Malformed("integer page: another number of values"));
    }
    let first = unzigzag(read_varint(bytes)?);
    if count == 0 {
        return Ok(());
    }
    let mut before = T::narrow(first);
    out.reserve(count);
    out.push(before);
    let mut left = count - 1;
    while left > 0 {
        let least = unzigzag(read_varint(bytes)?);
        let widths = take(bytes, MINIBLOCKS)?;
        for &width in widths {
            let width = usize::from(width);
            let here = left.min(bits::GROUP);
            if here == 0 {
                break;
            }
            if width > 64 {
                return Err(Malformed("integer page: a width above 64"));
            }
            let packed = take(bytes, 4 * width)?;
            if width <= 32 {
                let offsets = bits::unpack(packed, width);
                out.extend(offsets[..here].iter().map(|&offset| {
                    before = before.plus(least.wrapping_add(i64::from(offset)));
                    before
                }));
            } else {
                let offsets = bits::unpack_wide(packed, width);
                out.extend(offsets[..here].iter().map(|&offset| {
                    before = before.plus(least.wrapping_add(offset as i64));
                    before
                }));
            }
            left -= here;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_page_looks_as_the_format_describes_it() {
        // From the format's text: 7, 5, 3, 1, 2, 3, 4, 5 has the differences −2 −2 −2 1 1 1 1, the least of which
        // is −2; the offsets 0 0 0 3 3 3 3 take 2 bits each.
        let mut out = Vec::new();
        encode(&[7_i64, 5, 3, 1, 2, 3, 4, 5], &mut out);
        let mut expected = vec![0x80, 0x01, 4, 8, 14, 3, 2, 0, 0, 0];
        expected.extend([0b1100_0000, 0b0011_1111, 0, 0, 0, 0, 0, 0]);
        assert_eq!(out, expected);
    }

    fn survives<T: Integer + PartialEq + std::fmt::Debug>(values: &[T]) {
        let mut out = Vec::new();
        encode(values, &mut out);
        let mut back: Vec<T> = Vec::new();
        decode(&out, values.len(), &mut back).unwrap();
        assert_eq!(back, values);
        assert!(decode(&out, values.len() + 1, &mut back).is_err());
    }

    #[test]
    fn extremes_and_block_borders_survive() {
        survives::<i64>(&[]);
        survives(&[i64::MIN, i64::MAX, 0, i64::MIN, -1, i64::MAX]);
        survives(&[i32::MIN, i32::MAX, 0, i32::MIN, -1, i32::MAX]);
        for n in [1_i64, 2, 32, 33, 34, 128, 129, 130, 257, 1000] {
            survives(&(0..n).map(|i| i * i * 37 - 5000).collect::<Vec<_>>());
            survives(&(0..n).map(|i| (i * i * 37 - 5000) as i32).collect::<Vec<_>>());
        }
    }

    proptest! {
        #[test]
        fn any_values_survive(wide in prop::collection::vec(any::<i64>(), 0..300), shift in 0_u32..63) {
            survives(&wide.iter().map(|v| v >> shift).collect::<Vec<_>>());
            survives(&wide.iter().map(|v| (v >> shift) as i32).collect::<Vec<_>>());
        }

        #[test]
        fn damaged_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), count in 0_usize..300) {
            let mut framed = vec![0x80, 0x01, 4];
            write_varint(&mut framed, count as u64);
            framed.extend(bytes);
            let mut out = Vec::<i64>::new();
            if decode(&framed, count, &mut out).is_ok() {
                prop_assert_eq!(out.len(), count);
            }
        }
    }
}
