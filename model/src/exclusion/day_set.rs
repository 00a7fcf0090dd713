//! A set of days, stored as stretches: a sensor's history of years is one pair.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::time::LocalDay;

/// Days. In JSON a list of `[first, last]`, both included.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Vec<(LocalDay, LocalDay)>", into = "Vec<(LocalDay, LocalDay)>")]
pub struct DaySet(BTreeSet<LocalDay>);

impl DaySet {
    /// Whether a day is among them.
    pub fn contains(&self, day: LocalDay) -> bool {
        self.0.contains(&day)
    }

    /// Adds a day; false when it was there.
    pub fn insert(&mut self, day: LocalDay) -> bool {
        self.0.insert(day)
    }

    /// The days, ascending.
    pub fn iter(&self) -> impl Iterator<Item = LocalDay> + '_ {
        self.0.iter().copied()
    }

    /// Number of days.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The days as stretches, first and last included, ascending.
    pub fn stretches(&self) -> Vec<(LocalDay, LocalDay)> {
        let mut stretches: Vec<(LocalDay, LocalDay)> = Vec::new();
        for day in self.iter() {
            match stretches.last_mut() {
                Some((_, last)) if last.next() == day => *last = day,
                _ => stretches.push((day, day)),
            }
        }
        stretches
    }
}

impl FromIterator<LocalDay> for DaySet {
    fn from_iter<T: IntoIterator<Item = LocalDay>>(days: T) -> Self {
        Self(days.into_iter().collect())
    }
}

impl Extend<LocalDay> for DaySet {
    fn extend<T: IntoIterator<Item = LocalDay>>(&mut self, days: T) {
        self.0.extend(days);
    }
}

impl From<Vec<(LocalDay, LocalDay)>> for DaySet {
    fn from(stretches: Vec<(LocalDay, LocalDay)>) -> Self {
        stretches
            .into_iter()
            .flat_map(|(first, last)| first.through(last))
            .collect()
    }
}

impl From<DaySet> for Vec<(LocalDay, LocalDay)> {
    fn from(days: DaySet) -> Self {
        days.stretches()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_stored_as_stretches_and_read_back() {
        let day = |text: &str| text.parse::<LocalDay>().unwrap();
        let days: DaySet = ["2026-02-28", "2026-03-01", "2026-03-03", "2025-12-31"]
            .into_iter()
            .map(day)
            .collect();
        let text = serde_json::to_string(&days).unwrap();
        assert_eq!(
            text,
            r#"[["2025-12-31","2025-12-31"],["2026-02-28","2026-03-01"],["2026-03-03","2026-03-03"]]"#
        );
        let read: DaySet = serde_json::from_str(&text).unwrap();
        assert_eq!((&read, read.len()), (&days, 4));
        assert!(read.contains(day("2026-03-01")) && !read.contains(day("2026-03-02")));
    }
}
