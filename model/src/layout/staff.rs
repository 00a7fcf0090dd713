//! Who is staff: the tracks that a layout's staff tags name.

use super::Layout;

/// The staff tags of a layout, for being asked about many tracks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StaffTags {
    /// Sorted, each once.
    tracks: Vec<String>,
}

impl StaffTags {
    /// The tags of the layout in force.
    pub fn of(layout: &Layout) -> Self {
        let mut tracks = layout.staff_tags.clone();
        tracks.sort_unstable();
        tracks.dedup();
        Self { tracks }
    }

    /// Whether there are none: then nobody can be told to be staff.
    pub fn is_empty(&self) -> bool {
        self.tracks.is_empty()
    }

    /// Whether a track is staff's. A tag names the track whichever sensor saw it, one whose track ids are its own
    /// included: tags are worn, and keep their ids.
    pub fn contains(&self, track: &str) -> bool {
        self.tracks
            .binary_search_by(|known| known.as_str().cmp(track))
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_found_whatever_their_order_and_repetition() {
        let mut layout = Layout::empty();
        assert!(StaffTags::of(&layout).is_empty());
        layout.staff_tags = ["t9", "t1", "t9", "t10"].map(str::to_owned).to_vec();
        let tags = StaffTags::of(&layout);
        let found: Vec<bool> = ["t1", "t9", "t10", "t", "t2", ""]
            .map(|track| tags.contains(track))
            .to_vec();
        assert_eq!(found, [true, true, true, false, false, false]);
        assert!(!tags.is_empty());
    }
}
