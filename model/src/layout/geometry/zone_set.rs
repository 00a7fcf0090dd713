//! Sets of zones as bits.

use serde::{Deserialize, Serialize};

/// A set of zones of one layout, by their indexes: one word for the first 64 zones, which most layouts get along with,
/// and more where there are more.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ZoneSet {
    /// Zones 0 to 63, a bit each.
    pub(super) first: u64,
    /// Zones from 64 on; empty in layouts of up to 64 zones.
    pub(super) rest: Vec<u64>,
}

impl ZoneSet {
    /// An empty set for layouts of `zones` zones.
    pub fn empty(zones: usize) -> Self {
        Self {
            first: 0,
            rest: vec![0; zones.div_ceil(64).saturating_sub(1)],
        }
    }

    /// Adds a zone. A zone beyond the size that the set was made for is left out.
    pub fn insert(&mut self, zone: usize) {
        if let Some(word) = self.word_mut(zone / 64) {
            *word |= 1 << (zone % 64);
        }
    }

    /// Whether a zone is in the set.
    pub fn contains(&self, zone: usize) -> bool {
        self.words()
            .nth(zone / 64)
            .is_some_and(|word| word >> (zone % 64) & 1 == 1)
    }

    /// Whether there is no zone.
    pub fn is_empty(&self) -> bool {
        self.words().all(|word| word == 0)
    }

    /// Zones 0 to 63, a bit each.
    #[inline]
    pub(crate) fn first_word(&self) -> u64 {
        self.first
    }

    /// Sets zones 0 to 63.
    #[inline]
    pub(crate) fn set_first_word(&mut self, word: u64) {
        self.first = word;
    }

    /// Drops all zones and keeps the size.
    pub fn clear(&mut self) {
        self.first = 0;
        self.rest.fill(0);
    }

    /// The zones' indexes, rising.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words()
            .enumerate()
            .flat_map(|(i, word)| bits(word).map(move |bit| i * 64 + bit))
    }

    /// The words, zones 0 to 63 first.
    pub fn words(&self) -> impl Iterator<Item = u64> + '_ {
        std::iter::once(self.first).chain(self.rest.iter().copied())
    }

    fn word_mut(&mut self, word: usize) -> Option<&mut u64> {
        match word {
            0 => Some(&mut self.first),
            _ => self.rest.get_mut(word - 1),
        }
    }
}

/// Numbers of the bits that are set, rising.
pub(crate) fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (word != 0).then(|| word.trailing_zeros() as usize);
        word &= word.wrapping_sub(1);
        bit
    })
}
