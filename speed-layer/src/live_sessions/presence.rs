//! Who is here now: people per zone, by each person's last event and the clock.

use std::collections::{BTreeMap, HashSet};

use dwell_model::layout::{Layout, VENUE_ZONE};
use dwell_model::time::{LocalDay, TsMs};

use super::day::DayState;

/// The people present at the last look.
#[derive(Debug, Default)]
pub(super) struct Presence {
    /// By zone id, `_venue` included; zones without anybody with 0.
    by_zone: Vec<(String, u64)>,
    people: u64,
}

impl Presence {
    pub(super) fn by_zone(&self) -> &[(String, u64)] {
        &self.by_zone
    }

    pub(super) fn people(&self) -> u64 {
        self.people
    }

    /// Counts anew, in the zones of a layout; returns whether anything changed. Somebody who stayed past a day's end
    /// has sessions in two days, and counts once, where the later day saw them last.
    pub(super) fn count(&mut self, layout: &Layout, days: &BTreeMap<LocalDay, DayState>, now: TsMs) -> bool {
        let mut by_zone: BTreeMap<&str, u64> =
            layout.zones.iter().map(|zone| (zone.id.as_str(), 0)).collect();
        let mut counted: HashSet<u64, foldhash::fast::FixedState> = HashSet::default();
        for state in days.values().rev() {
            let plan = state.plan();
            for (subject, zones) in state.subjects().present(&plan.context, now) {
                if !counted.insert(subject) {
                    continue;
                }
                for zone in zones.iter() {
                    let id = plan.layout.zones.get(zone).map(|zone| zone.id.as_str());
                    if let Some(count) = id.and_then(|id| by_zone.get_mut(id)) {
                        *count += 1;
                    }
                }
            }
        }
        self.people = counted.len() as u64;
        by_zone.insert(VENUE_ZONE, self.people);
        let is_same = by_zone.len() == self.by_zone.len()
            && by_zone
                .iter()
                .zip(&self.by_zone)
                .all(|((id, count), known)| *id == known.0 && *count == known.1);
        if !is_same {
            self.by_zone = by_zone
                .into_iter()
                .map(|(id, count)| (id.to_owned(), count))
                .collect();
        }
        !is_same
    }
}
