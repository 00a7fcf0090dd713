//! The set of a row's deliveries as bytes: their numbers ascending, as LEB128 varints, the first one and then the
//! differences. A single delivery takes as many bytes as its number, one to five.

use super::super::failure::Failure;

/// Writes a set. `refs` must be sorted and without repetition.
pub(super) fn encode(refs: &[i64], out: &mut Vec<u8>) {
    out.clear();
    let mut previous = 0;
    for &reference in refs {
        let mut rest = (reference - previous) as u64;
        previous = reference;
        while rest >= 0x80 {
            out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
    }
}

/// Appends the numbers of a set to `refs`.
pub(super) fn decode(bytes: &[u8], refs: &mut Vec<i64>) -> Result<(), Failure> {
    let damaged = || Failure::damaged_row("its set of deliveries");
    if bytes.is_empty() {
        return Err(damaged());
    }
    let (mut previous, mut value, mut shift) = (0_i64, 0_u64, 0_u32);
    for &byte in bytes {
        if shift > 56 {
            return Err(damaged());
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 != 0 {
            shift += 7;
            continue;
        }
        // Numbers are given out from 1, so a difference of 0 cannot be.
        let next = i64::try_from(value)
            .ok()
            .filter(|&step| step > 0)
            .and_then(|step| previous.checked_add(step));
        previous = next.ok_or_else(damaged)?;
        refs.push(previous);
        (value, shift) = (0, 0);
    }
    if shift == 0 { Ok(()) } else { Err(damaged()) }
}

/// Unites the sorted set `into` with `more`; returns whether it grew.
pub(super) fn unite(into: &mut Vec<i64>, more: &[i64]) -> bool {
    let before = into.len();
    for &reference in more {
        if let Err(place) = into.binary_search(&reference) {
            into.insert(place, reference);
        }
    }
    into.len() > before
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_single_delivery_costs_few_bytes() {
        let mut bytes = Vec::new();
        for (reference, expected) in [
            (1, vec![1]),
            (127, vec![127]),
            (128, vec![0x80, 1]),
            (300, vec![0xac, 2]),
        ] {
            encode(&[reference], &mut bytes);
            assert_eq!(bytes, expected);
        }
        encode(&[300, 301], &mut bytes);
        assert_eq!(bytes, [0xac, 2, 1]);
    }

    #[test]
    fn damaged_sets_are_refused() {
        for bad in [&[][..], &[0x80], &[0], &[5, 0], &[0xff; 12]] {
            assert!(decode(bad, &mut Vec::new()).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn sets_come_back_and_unite_like_sets(
            a in prop::collection::btree_set(1_i64..i64::MAX / 2, 1..20),
            b in prop::collection::btree_set(1_i64..1_000, 1..20),
        ) {
            let mut bytes = Vec::new();
            encode(&a.iter().copied().collect::<Vec<_>>(), &mut bytes);
            let mut back = Vec::new();
            decode(&bytes, &mut back).unwrap();
            prop_assert_eq!(&back, &a.iter().copied().collect::<Vec<_>>());
            let union: Vec<i64> = a.union(&b).copied().collect();
            let grew = unite(&mut back, &b.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(&back, &union);
            prop_assert_eq!(grew, union.len() > a.len());
        }
    }
}
