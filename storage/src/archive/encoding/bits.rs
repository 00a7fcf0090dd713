//! Bit-packing: 32 values at a time, least significant bit first.

/// Values packed together; every width fills whole 32-bit words then.
pub(super) const GROUP: usize = 32;

/// Appends 32 values of `width` bits (at most 64): `4 × width` bytes. Bits above the width must be zero.
pub(super) fn pack(values: &[u64; GROUP], width: usize, out: &mut Vec<u8>) {
    if width > 32 {
        return pack_wide(values, width, out);
    }
    let mut narrow = [0_u32; GROUP];
    for (narrow, &value) in narrow.iter_mut().zip(values) {
        *narrow = value as u32;
    }
    let mut words = [0_u32; GROUP];
    by_width!(width, pack_words(&narrow, &mut words));
    let mut bytes = [0_u8; 4 * GROUP];
    for (bytes, word) in bytes.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(&bytes[..4 * width]);
}

/// Unpacks 32 values of `width` bits (at most 32) from `4 × width` bytes.
pub(super) fn unpack(bytes: &[u8], width: usize) -> [u32; GROUP] {
    let mut words = [0_u32; GROUP];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    let mut values = [0_u32; GROUP];
    by_width!(width, unpack_words(&words, &mut values));
    values
}

/// Unpacks 32 values of `width` bits (at most 64) from `4 × width` bytes.
pub(super) fn unpack_wide(bytes: &[u8], width: usize) -> [u64; GROUP] {
    let mut values = [0_u64; GROUP];
    let (mut held, mut held_bits) = (0_u128, 0);
    let mut bytes = bytes.iter();
    for value in &mut values {
        while held_bits < width {
            held |= u128::from(bytes.next().copied().unwrap_or(0)) << held_bits;
            held_bits += 8;
        }
        *value = (held & ((1_u128 << width) - 1)) as u64;
        held >>= width;
        held_bits -= width;
    }
    values
}

fn pack_wide(values: &[u64; GROUP], width: usize, out: &mut Vec<u8>) {
    let (mut held, mut held_bits) = (0_u128, 0);
    for &value in values {
        held |= u128::from(value) << held_bits;
        held_bits += width;
        while held_bits >= 8 {
            out.push(held as u8);
            held >>= 8;
            held_bits -= 8;
        }
    }
}

/// Unrolled over the 32 values, so that for each width all shifts are constants.
macro_rules! for_each_of_group {
    ($step:ident) => {
        $step!(0);
        $step!(1);
        $step!(2);
        $step!(3);
        $step!(4);
        $step!(5);
        $step!(6);
        $step!(7);
        $step!(8);
        $step!(9);
        $step!(10);
        $step!(11);
        $step!(12);
        $step!(13);
        $step!(14);
        $step!(15);
        $step!(16);
        $step!(17);
        $step!(18);
        $step!(19);
        $step!(20);
        $step!(21);
        $step!(22);
        $step!(23);
        $step!(24);
        $step!(25);
        $step!(26);
        $step!(27);
        $step!(28);
        $step!(29);
        $step!(30);
        $step!(31);
    };
}

fn pack_words<const WIDTH: usize>(values: &[u32; GROUP], words: &mut [u32; GROUP]) {
    if WIDTH == 0 {
        return;
    }
    macro_rules! step {
        ($i:literal) => {{
            let (word, shift) = ($i * WIDTH / 32, $i * WIDTH % 32);
            words[word] |= values[$i] << shift;
            if shift + WIDTH > 32 {
                words[word + 1] |= values[$i] >> (32 - shift);
            }
        }};
    }
    for_each_of_group!(step);
}

fn unpack_words<const WIDTH: usize>(words: &[u32; GROUP], values: &mut [u32; GROUP]) {
    if WIDTH == 0 {
        return;
    }
    let mask = u32::MAX >> ((32 - WIDTH) % 32);
    macro_rules! step {
        ($i:literal) => {{
            let (word, shift) = ($i * WIDTH / 32, $i * WIDTH % 32);
            let mut value = words[word] >> shift;
            if shift + WIDTH > 32 {
                value |= words[word + 1] << (32 - shift);
            }
            values[$i] = value & mask;
        }};
    }
    for_each_of_group!(step);
}

/// Calls a function that is generic over the width (0 to 32) with the width at hand.
macro_rules! by_width {
    ($width:expr, $function:ident($($argument:expr),*)) => {
        by_width!(@ $width, $function, ($($argument),*),
            0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31)
    };
    (@ $width:expr, $function:ident, $arguments:tt, $($constant:literal)*) => {
        match $width {
            $($constant => by_width!(! $function, $constant, $arguments),)*
            _ => by_width!(! $function, 32, $arguments),
        }
    };
    (! $function:ident, $constant:literal, ($($argument:expr),*)) => { $function::<$constant>($($argument),*) };
}
use by_width;

#[cfg(test)]
mod tests {
    use super::*;

    /// Bit `i` of the value at place `k` stands at bit `k × width + i` of the bytes.
    #[test]
    fn every_width_puts_every_bit_where_the_format_wants_it() {
        for width in 0..=64_usize {
            let mask = if width == 0 { 0 } else { u64::MAX >> (64 - width) };
            let values: [u64; GROUP] =
                std::array::from_fn(|i| (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) & mask);
            let mut out = Vec::new();
            pack(&values, width, &mut out);
            assert_eq!(out.len(), 4 * width);
            for (place, value) in values.iter().enumerate() {
                for bit in 0..width {
                    let at = place * width + bit;
                    assert_eq!(
                        u64::from(out[at / 8] >> (at % 8) & 1),
                        value >> bit & 1,
                        "width {width}"
                    );
                }
            }
            assert_eq!(unpack_wide(&out, width), values);
            if width <= 32 {
                assert_eq!(unpack(&out, width).map(u64::from), values);
            }
        }
    }
}
