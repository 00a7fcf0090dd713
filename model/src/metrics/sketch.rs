//! Sketches of who was there, for uniting hours of one venue-day.

use datasketches::hll::{HllSketch, HllType, HllUnion};
use serde::{Deserialize, Serialize};

use crate::time::LocalDay;

/// 2^12 registers: a standard error of 1.3 %.
const LG_K: u8 = 12;

/// An HLL_8 sketch (Apache DataSketches, `lgK` = 12) of the subjects of a venue-day's bucket, serialised. Empty bytes are
/// the empty sketch. The same subjects give the same bytes.
///
/// Sketches are united within one venue-day only: track ids and pseudonyms do not outlive the day.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SubjectSketch(Vec<u8>);

/// Bytes that are no sketch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("damaged sketch: {0}")]
pub struct SketchError(String);

impl SubjectSketch {
    /// The sketch of a day's subjects, by their hashes; `sorted` must be sorted, so that equal sets give equal bytes.
    pub fn of_sorted(day: LocalDay, sorted: &[u64]) -> Self {
        debug_assert!(sorted.is_sorted());
        if sorted.is_empty() {
            return Self::default();
        }
        // The size is a constant within the library's bounds.
        let Ok(mut sketch) = HllSketch::new(LG_K, HllType::Hll8) else {
            return Self::default();
        };
        for &subject in sorted {
            sketch.update((day.to_epoch_days(), subject));
        }
        Self(sketch.serialize())
    }

    /// Whether nobody was there.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many different subjects, about.
    pub fn estimate(&self) -> Result<u64, SketchError> {
        if self.0.is_empty() {
            return Ok(0);
        }
        // The composite estimate depends on the registers alone, not on the order in which they were filled.
        Ok(self.read()?.composite_estimate().round() as u64)
    }

    /// The sketch of everybody who is in any of the sketches.
    pub fn union<'a>(sketches: impl IntoIterator<Item = &'a SubjectSketch>) -> Result<Self, SketchError> {
        let mut union = HllUnion::new(LG_K).map_err(|error| SketchError(error.to_string()))?;
        for sketch in sketches.into_iter().filter(|sketch| !sketch.is_empty()) {
            union.update(&sketch.read()?);
        }
        Ok(if union.is_empty() {
            Self::default()
        } else {
            Self(union.to_sketch(HllType::Hll8).serialize())
        })
    }

    fn read(&self) -> Result<HllSketch, SketchError> {
        HllSketch::deserialize(&self.0).map_err(|error| SketchError(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sketch(range: std::ops::Range<u64>) -> SubjectSketch {
        let mut hashes: Vec<u64> = range
            .map(|n| xxhash_rust::xxh3::xxh3_64(&n.to_be_bytes()))
            .collect();
        hashes.sort_unstable();
        SubjectSketch::of_sorted("2026-10-24".parse().unwrap(), &hashes)
    }

    #[test]
    fn a_union_counts_everybody_once() {
        for (n, tolerance) in [(1, 0.0), (20, 0.0), (400, 0.03), (20_000, 0.05)] {
            let (a, b) = (sketch(0..n), sketch(n / 2..n + n / 2));
            let united = SubjectSketch::union([&a, &b]).unwrap();
            let expected = (n + n / 2) as f64;
            let error = (united.estimate().unwrap() as f64 - expected).abs() / expected;
            assert!(error <= tolerance, "{n}: {error}");
        }
    }

    #[test]
    fn nobody_is_empty_and_damage_is_refused() {
        assert_eq!(sketch(0..0).estimate(), Ok(0));
        assert!(SubjectSketch::union([&sketch(0..0)]).unwrap().is_empty());
        assert!(SubjectSketch(vec![1, 2, 3]).estimate().is_err());
    }
}
