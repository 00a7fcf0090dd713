//! Venues and their layouts: floor plan, zones, lines, sensors, opening hours, effective-dated.
//!
//! A [`Venue`] has one or more [`Layout`]s, each valid from a local day until the next one's; the first is valid since
//! ever. A venue-day is computed with the layout that was valid on it. [`VenueSpec`] is the form in which people write
//! a venue (`dwell venues apply`).

mod geometry;
mod hours;
mod spec;
mod staff;

pub use geometry::{MAX_COORDINATE_M, Polygon, PolygonError, ZoneIndex, ZoneSet};
pub use hours::{OpenSpan, OpenSpanError, OpeningHours, Weekday, is_open_at, open_ms};
pub use spec::{DayStart, HoursSpec, LineSpec, SensorSpec, SpecError, VenueSpec, ZoneSpec};
pub use staff::StaffTags;

use serde::{Deserialize, Serialize};

use crate::ids::VenueId;
use crate::time::{LocalDay, VenueCalendar};

/// Name of the pseudo-zone that has one visit per session.
pub const VENUE_ZONE: &str = "_venue";
/// Most zones of one layout.
pub const MAX_ZONES: usize = 1_024;
/// Most corners of one zone.
pub const MAX_CORNERS: usize = 512;

/// A venue with all its layouts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Venue {
    /// Unique within the tenant.
    pub id: VenueId,
    /// For people.
    pub name: Option<String>,
    /// How its time is cut into days. One value for the whole history: a corrected zone re-cuts everything.
    pub calendar: VenueCalendar,
    /// Groups that queries may ask for.
    pub tags: Vec<String>,
    /// At least one, by rising `valid_from`; the first has none.
    pub layouts: Vec<Layout>,
}

/// What was where, from a day on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Layout {
    /// First day; `None` for the first layout, which is valid since ever.
    pub valid_from: Option<LocalDay>,
    /// Extent of the floor plan along x, metres, if it is known.
    pub width_m: Option<f64>,
    /// Extent of the floor plan along y, metres, if it is known.
    pub height_m: Option<f64>,
    /// Sorted by id (as bytes).
    pub zones: Vec<Zone>,
    /// Sorted by id (as bytes).
    pub lines: Vec<Line>,
    /// Sorted by id (as bytes). Sensors that are not listed are taken with the defaults.
    pub sensors: Vec<Sensor>,
    /// `None` when unknown: then no hour is `closed`, and there is no slice `open`.
    pub opening_hours: Option<OpeningHours>,
    /// Tracks of staff; without any there is no slice `staff`.
    pub staff_tags: Vec<String>,
    /// How events are folded.
    pub rules: FoldRules,
}

/// Numbers that the folds use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoldRules {
    /// A new session starts when the gap to the subject's previous event is more than this.
    pub session_gap_ms: i64,
    /// Two runs in one zone are one visit when they are no further apart than this.
    pub zone_blink_ms: i64,
    /// Side of a heat map cell, in centimetres.
    pub heat_cell_cm: u32,
}

impl Default for FoldRules {
    fn default() -> Self {
        Self {
            session_gap_ms: 30_000,
            zone_blink_ms: 5_000,
            heat_cell_cm: 50,
        }
    }
}

/// A polygon on the floor plan whose visits are measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Zone {
    /// Unique within the layout; `_venue` is taken.
    pub id: String,
    /// For people.
    pub name: Option<String>,
    /// Corners in metres, in order; the last joins the first.
    pub polygon: Polygon,
    /// Only events of this floor are inside; `None`: any.
    pub floor: Option<String>,
    /// Transitions are counted between zones of one layer.
    pub layer: String,
    /// A visit of at least this length is engaged, in milliseconds.
    pub engaged_after_ms: i64,
    /// Groups that queries may ask for.
    pub tags: Vec<String>,
}

/// A counting line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Unique within the layout.
    pub id: String,
    /// For people.
    pub name: Option<String>,
    /// What crossing it means.
    pub role: LineRole,
}

/// What crossing a line means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LineRole {
    /// Between the street and the venue: counts for footfall and occupancy.
    Entrance,
    /// Inside the venue.
    Internal,
    /// Past the venue.
    Passby,
}

/// What is known of a sensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sensor {
    /// Unique within the layout.
    pub id: String,
    /// For people.
    pub name: Option<String>,
    /// Whether its track ids are the venue's or its own.
    pub track_scope: TrackScope,
    /// The interval at which it is declared to send, in milliseconds; completeness uses it.
    pub interval_ms: Option<i64>,
    /// Value at which its cumulative counters wrap to 0; without it a drop is a reset.
    pub counter_wrap: Option<i64>,
}

/// Where a track id is unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrackScope {
    /// In the venue: two sensors with one track id saw the same person.
    #[default]
    Venue,
    /// In the sensor: the same id at another sensor is another person.
    Sensor,
}

impl Venue {
    /// The layout in force on a day.
    pub fn layout_on(&self, day: LocalDay) -> &Layout {
        let later = self
            .layouts
            .partition_point(|layout| layout.valid_from.is_none_or(|from| from <= day));
        &self.layouts[later.saturating_sub(1)]
    }
}

impl Layout {
    /// A layout without anything in it.
    pub fn empty() -> Self {
        Self {
            valid_from: None,
            width_m: None,
            height_m: None,
            zones: Vec::new(),
            lines: Vec::new(),
            sensors: Vec::new(),
            opening_hours: None,
            staff_tags: Vec::new(),
            rules: FoldRules::default(),
        }
    }

    /// Hash of everything that a day's numbers depend on, `valid_from` and names for people left out: days are
    /// computed anew when it changes.
    pub fn fingerprint(&self) -> u64 {
        let mut plain = self.clone();
        plain.valid_from = None;
        plain.zones.iter_mut().for_each(|zone| {
            zone.name = None;
            zone.tags.clear();
        });
        plain.lines.iter_mut().for_each(|line| line.name = None);
        plain.sensors.iter_mut().for_each(|sensor| sensor.name = None);
        // Plain data without maps: serialising it cannot fail, and an empty text would only cost a recompute.
        let bytes = postcard::to_stdvec(&plain).unwrap_or_default();
        xxhash_rust::xxh3::xxh3_64(&bytes)
    }

    /// A sensor's entry.
    pub fn sensor(&self, id: &str) -> Option<&Sensor> {
        self.sensors
            .binary_search_by(|sensor| sensor.id.as_str().cmp(id))
            .ok()
            .map(|i| &self.sensors[i])
    }

    /// A line's role; lines that are not listed are internal.
    pub fn line_role(&self, id: &str) -> LineRole {
        match self.lines.binary_search_by(|line| line.id.as_str().cmp(id)) {
            Ok(i) => self.lines[i].role,
            Err(_) => LineRole::Internal,
        }
    }

    /// Whether any line is an entrance: then footfall comes from lines.
    pub fn has_entrance(&self) -> bool {
        self.lines.iter().any(|line| line.role == LineRole::Entrance)
    }
}
