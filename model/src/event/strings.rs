//! Interned names: each distinct text once, rows carry numbers.

use hashbrown::HashTable;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Number of a text within one [`Strings`].
pub type StringId = u32;

/// A dictionary of texts, numbered in the order of their first appearance.
#[derive(Clone, Default)]
pub struct Strings {
    bytes: String,
    /// `ends[i]` is where text `i` ends in `bytes`.
    ends: Vec<u32>,
    index: HashTable<StringId>,
    hasher: foldhash::fast::FixedState,
}

impl Strings {
    /// An empty dictionary.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of texts.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of memory held, roughly.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * 4 + self.index.capacity() * 5
    }

    /// The text of a number.
    ///
    /// # Panics
    /// If the number was not given out by this dictionary: a bug of the caller. Numbers that come from a store
    /// are checked by [`EventBatch::check`](super::EventBatch::check) first.
    pub fn get(&self, id: StringId) -> &str {
        let id = id as usize;
        let start = if id == 0 { 0 } else { self.ends[id - 1] as usize };
        &self.bytes[start..self.ends[id] as usize]
    }

    /// The number of a text, new if it was not there. One dictionary holds at most 4 GiB of text.
    pub fn intern(&mut self, text: &str) -> StringId {
        let hash = self.hash(text);
        if let Some(&id) = self.index.find(hash, |&id| self.get(id) == text) {
            return id;
        }
        let id = self.ends.len() as StringId;
        self.bytes.push_str(text);
        self.ends.push(self.bytes.len() as u32);
        let (bytes, ends, hasher) = (&self.bytes, &self.ends, &self.hasher);
        self.index
            .insert_unique(hash, id, |&other| hash_text(hasher, text_at(bytes, ends, other)));
        id
    }

    /// The number of a text, if it is there.
    pub fn find(&self, text: &str) -> Option<StringId> {
        self.index
            .find(self.hash(text), |&id| self.get(id) == text)
            .copied()
    }

    /// All texts in the order of their numbers.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> + '_ {
        (0..self.ends.len()).map(|id| self.get(id as StringId))
    }

    /// For each number its place when all texts are sorted by bytes.
    pub fn ranks(&self) -> Vec<u32> {
        let mut order: Vec<StringId> = (0..self.len() as StringId).collect();
        order.sort_unstable_by(|&a, &b| self.get(a).as_bytes().cmp(self.get(b).as_bytes()));
        let mut ranks = vec![0; order.len()];
        for (rank, id) in order.into_iter().enumerate() {
            ranks[id as usize] = rank as u32;
        }
        ranks
    }

    fn hash(&self, text: &str) -> u64 {
        hash_text(&self.hasher, text)
    }
}

fn hash_text(hasher: &foldhash::fast::FixedState, text: &str) -> u64 {
    use std::hash::BuildHasher;
    hasher.hash_one(text)
}

fn text_at<'a>(bytes: &'a str, ends: &[u32], id: StringId) -> &'a str {
    let id = id as usize;
    let start = if id == 0 { 0 } else { ends[id - 1] as usize };
    &bytes[start..ends[id] as usize]
}

impl std::fmt::Debug for Strings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for Strings {
    fn eq(&self, other: &Self) -> bool {
        self.ends == other.ends && self.bytes == other.bytes
    }
}

impl Eq for Strings {}

impl<'a> FromIterator<&'a str> for Strings {
    fn from_iter<I: IntoIterator<Item = &'a str>>(texts: I) -> Self {
        let mut strings = Strings::new();
        for text in texts {
            strings.intern(text);
        }
        strings
    }
}

/// Stored as the list of its texts.
impl Serialize for Strings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// A repeated text is refused, since the numbers behind it would move.
impl<'de> Deserialize<'de> for Strings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;

        impl<'de> serde::de::Visitor<'de> for Texts {
            type Value = Strings;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of distinct texts")
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut texts: A) -> Result<Strings, A::Error> {
                let mut strings = Strings::new();
                while let Some(text) = texts.next_element::<std::borrow::Cow<'de, str>>()? {
                    let before = strings.len();
                    if strings.intern(&text) as usize != before {
                        return Err(serde::de::Error::custom("a text stands twice in a dictionary"));
                    }
                }
                Ok(strings)
            }
        }

        deserializer.deserialize_seq(Texts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_first_appearance_and_ranks_follow_bytes() {
        let strings: Strings = ["b", "", "ab", "b", "a"].into_iter().collect();
        assert_eq!(strings.iter().collect::<Vec<_>>(), ["b", "", "ab", "a"]);
        assert_eq!(strings.ranks(), [3, 0, 2, 1]);
        assert_eq!(strings.find("ab"), Some(2));
        assert_eq!(strings.find("c"), None);
    }

    #[test]
    fn stays_right_while_it_grows() {
        let mut strings = Strings::new();
        for i in 0..10_000 {
            assert_eq!(strings.intern(&format!("track-{i}")), i);
        }
        for i in 0..10_000 {
            assert_eq!(strings.intern(&format!("track-{i}")), i);
        }
    }

    #[test]
    fn survives_storage_and_refuses_a_repeated_text() {
        let strings: Strings = ["x", "y"].into_iter().collect();
        let bytes = postcard::to_stdvec(&strings).unwrap();
        assert_eq!(postcard::from_bytes::<Strings>(&bytes).unwrap(), strings);
        let twice = postcard::to_stdvec(&["x", "x"][..]).unwrap();
        assert!(postcard::from_bytes::<Strings>(&twice).is_err());
    }
}
