//! A bounded map that remembers what was used last.

use std::borrow::Borrow;
use std::hash::Hash;

use hashbrown::HashMap;

/// Remembers at least half of `max` of the keys used last, and never more than `max`.
///
/// Two maps instead of a list by age: what is used moves to the young one; when that is full it becomes the old one,
/// and the old one is forgotten.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    generation_max: usize,
}

impl<K: Hash + Eq, V: Clone> Recent<K, V> {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            generation_max: (max / 2).max(1),
        }
    }

    pub(crate) fn get<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.insert(key, value.clone());
        Some(value)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.generation_max && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_is_bounded() {
        let mut recent = Recent::new(10);
        recent.insert(0, "kept");
        for key in 1..1_000 {
            recent.insert(key, "other");
            assert_eq!(recent.get(&0), Some("kept"));
            assert!(recent.young.len() + recent.old.len() <= 10);
        }
        assert_eq!(recent.get(&1), None);
        recent.insert(0, "new");
        assert_eq!(recent.get(&0), Some("new"));
    }
}
