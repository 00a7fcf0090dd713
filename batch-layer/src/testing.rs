//! Values that unit tests start from.

use std::collections::BTreeMap;

use dwell_model::metrics::Carry;
use dwell_model::time::VenueCalendar;
use dwell_storage::api::{GenerationInfo, LateLedger, Marks};

/// A final generation without anything in it, of a venue in UTC.
pub(crate) fn generation() -> GenerationInfo {
    GenerationInfo {
        generation: 1,
        published_at: 0,
        duration_ms: 0,
        provisional: false,
        lagging: false,
        reason: String::new(),
        calendar: VenueCalendar::from_names("UTC", 0).unwrap(),
        day_start: 0,
        day_end: 0,
        layout: 0,
        definitions: 1,
        marks: Marks::default(),
        events: BTreeMap::new(),
        conflicts: 0,
        rows: 0,
        sessions: 0,
        files: Vec::new(),
        late: LateLedger::default(),
        drift: None,
        changed: None,
        carry: Carry::default(),
        carry_in: Carry::default(),
        exclusions: Default::default(),
        slices: None,
    }
}
