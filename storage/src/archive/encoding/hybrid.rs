//! The RLE and bit-packing hybrid: numbers of a dictionary, and whether optional values are there.

use super::{Malformed, read_varint, take, write_varint};

/// Equal values in a row from which a run is shorter than packing them.
const RUN_MIN: usize = 8;

/// Bits that hold every number below `count`, at least one.
pub(in crate::archive) fn width_for(count: usize) -> usize {
    let highest = count.saturating_sub(1) as u64;
    (64 - highest.leading_zeros() as usize).max(1)
}

/// Appends `values`, each below 2^`width`.
pub(in crate::archive) fn encode(values: &[u32], width: usize, out: &mut Vec<u8>) {
    let (mut at, mut packed_from) = (0, 0);
    while at < values.len() {
        let value = values[at];
        let run = values[at..].iter().take_while(|&&other| other == value).count();
        if run >= RUN_MIN {
            write_packed(&values[packed_from..at], width, out);
            write_run(value, run, width, out);
            at += run;
            packed_from = at;
        } else {
            at = (at + 8).min(values.len());
        }
    }
    write_packed(&values[packed_from..], width, out);
}

/// Appends one value repeated.
pub(in crate::archive) fn encode_run(value: u32, count: usize, width: usize, out: &mut Vec<u8>) {
    if count > 0 {
        write_run(value, count, width, out);
    }
}

fn write_run(value: u32, count: usize, width: usize, out: &mut Vec<u8>) {
    write_varint(out, (count as u64) << 1);
    out.extend_from_slice(&value.to_le_bytes()[..width.div_ceil(8)]);
}

/// Groups of eight; the last is filled up with zeros, which readers drop by the page's number of values.
fn write_packed(values: &[u32], width: usize, out: &mut Vec<u8>) {
    if values.is_empty() {
        return;
    }
    write_varint(out, (values.len().div_ceil(8) as u64) << 1 | 1);
    for group in values.chunks(8) {
        let (mut held, mut held_bits) = (0_u64, 0);
        for &value in group {
            held |= u64::from(value) << held_bits;
            held_bits += width;
            if held_bits >= 32 {
                out.extend_from_slice(&(held as u32).to_le_bytes());
                held >>= 32;
                held_bits -= 32;
            }
        }
        // Eight values of any width end on a byte; a short last group is padded to that.
        let missing = width - (group.len() * width - held_bits) / 8;
        let mut tail = [0_u8; 32];
        tail[..8].copy_from_slice(&held.to_le_bytes());
        out.extend_from_slice(&tail[..missing]);
    }
}

/// Appends the next `count` values of the encoded bytes to `out`.
pub(in crate::archive) fn decode(
    mut bytes: &[u8],
    width: usize,
    count: usize,
    out: &mut Vec<u32>,
) -> Result<(), Malformed> {
    if width > 32 {
        return Err(Malformed("dictionary page: a width above 32"));
    }
    let bytes = &mut bytes;
    let mut left = count;
    out.reserve(count);
    while left > 0 {
        let header = read_varint(bytes)?;
        let length = usize::try_from(header >> 1).map_err(|_| Malformed("run length"))?;
        if length == 0 {
            return Err(Malformed("run of no values"));
        }
        if header & 1 == 0 {
            let mut value = [0_u8; 4];
            let stored = width.div_ceil(8);
            value[..stored].copy_from_slice(take(bytes, stored)?);
            let here = length.min(left);
            out.resize(out.len() + here, u32::from_le_bytes(value));
            left -= here;
        } else {
            let here = length.saturating_mul(8).min(left);
            let packed = take(bytes, length.checked_mul(width).ok_or(Malformed("run length"))?)?;
            unpack(packed, width, here, out);
            left -= here;
        }
    }
    Ok(())
}

fn unpack(packed: &[u8], width: usize, count: usize, out: &mut Vec<u32>) {
    if width == 0 {
        out.resize(out.len() + count, 0);
        return;
    }
    let mask = (1_u64 << width) - 1;
    let end = out.len() + count;
    for group in packed.chunks(width) {
        let (mut held, mut held_bits) = (0_u64, 0);
        let mut bytes = group.iter();
        let here = (end - out.len()).min(8);
        out.extend((0..here).map(|_| {
            while held_bits < width {
                held |= u64::from(bytes.next().copied().unwrap_or(0)) << held_bits;
                held_bits += 8;
            }
            let value = (held & mask) as u32;
            held >>= width;
            held_bits -= width;
            value
        }));
        if out.len() == end {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn runs_and_groups_look_as_the_format_describes_them() {
        let mut out = Vec::new();
        encode(&[7; 100], 10, &mut out);
        assert_eq!(out, [200, 1, 7, 0]); // 100 << 1, then 7 in two bytes
        out.clear();
        encode(&[0, 1, 2, 3, 4, 5, 6, 7], 3, &mut out);
        assert_eq!(out, [0b11, 0b1000_1000, 0b1100_0110, 0b1111_1010]); // the format's own example
    }

    #[test]
    fn widths_hold_the_highest_number() {
        assert_eq!(
            [0, 1, 2, 3, 4, 5, 256, 257].map(width_for),
            [1, 1, 1, 2, 2, 3, 8, 9]
        );
    }

    proptest! {
        #[test]
        fn any_values_survive(
            runs in prop::collection::vec((any::<u32>(), 1_usize..30), 0..60),
            width in 1_usize..=32,
        ) {
            let mask = u32::MAX >> (32 - width);
            let values: Vec<u32> =
                runs.iter().flat_map(|&(value, n)| std::iter::repeat_n(value & mask, n)).collect();
            let mut out = Vec::new();
            encode(&values, width, &mut out);
            let mut back = Vec::new();
            decode(&out, width, values.len(), &mut back).unwrap();
            prop_assert_eq!(back, values);
        }

        #[test]
        fn damaged_bytes_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..100),
            width in 0_usize..40,
            count in 0_usize..500,
        ) {
            let mut out = Vec::new();
            if decode(&bytes, width, count, &mut out).is_ok() {
                prop_assert_eq!(out.len(), count);
            }
        }
    }
}
