//! What a publication restated: the rows of its generation beside those of the one before.
//!
//! Generations never change, so the same two give the same buckets whenever they are compared. Where retention has taken
//! the rows of the one before, the whole day stands in for the difference; where it has taken the generation's own,
//! there is nothing to tell, and a later publication of the day tells it.

use dwell_model::ids::VenueKey;
use dwell_model::metrics::{AggregateRow, Family, Slice, walk_rows};
use dwell_model::time::VenueCalendar;
use dwell_storage::api::publications::Publication;
use dwell_storage::api::{Generation, RowFilter};

use crate::dto::RestatedDto;
use crate::problem::Problem;
use crate::state::AppState;

/// What the feed tells of: whatever metrics are made of, and transitions. Heat maps and sensors' health are left out:
/// they are long, and asked for where they are looked at.
const FAMILIES: [Family; 8] = [
    Family::Zone,
    Family::Line,
    Family::Transition,
    Family::Counter,
    Family::Reading,
    Family::Transaction,
    Family::Presence,
    Family::Traffic,
];

/// What a publication comes to.
#[derive(Debug)]
pub(crate) enum Restated {
    /// These buckets differ from the generation before.
    Buckets(Vec<RestatedDto>),
    /// These are all buckets of the day.
    Day(Vec<RestatedDto>),
    /// Its rows are no longer kept.
    Nothing,
}

impl Restated {
    /// What a copy is to replace, as a word.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Restated::Buckets(_) => "buckets",
            Restated::Day(_) => "day",
            Restated::Nothing => "nothing",
        }
    }

    /// The buckets.
    pub(crate) fn into_buckets(self) -> Vec<RestatedDto> {
        match self {
            Restated::Buckets(buckets) | Restated::Day(buckets) => buckets,
            Restated::Nothing => Vec::new(),
        }
    }
}

/// Compares a publication with what it replaced, in one slice.
pub(crate) async fn restated(
    state: &AppState,
    venue: &VenueKey,
    calendar: &VenueCalendar,
    entry: &Publication,
    slice: Slice,
) -> Result<Restated, Problem> {
    let whole = |generation, rows| whole(state, venue, entry, generation, rows, slice);
    let Some(after) = whole(entry.generation, entry.rows).await? else {
        return Ok(Restated::Nothing);
    };
    let before = match (entry.before, entry.before_rows) {
        (Some(generation), Some(rows)) => whole(generation, rows).await?,
        _ => None,
    };
    let is_whole_day = before.is_none();
    let mut buckets = Vec::new();
    walk_rows(before.as_deref().unwrap_or_default(), &after, |before, after| {
        let is_changed = match (before, after) {
            (Some(before), Some(after)) => before != after,
            _ => true,
        };
        if is_changed
            && let Some(row) = after.or(before)
            && let Some(bucket) = RestatedDto::new(before, after, calendar.offset_ms(row.start))
        {
            buckets.push(bucket);
        }
    });
    Ok(match is_whole_day {
        true => Restated::Day(buckets),
        false => Restated::Buckets(buckets),
    })
}

/// The rows of a generation; `None` where they are not all kept.
async fn whole(
    state: &AppState,
    venue: &VenueKey,
    entry: &Publication,
    generation: Generation,
    rows: u64,
    slice: Slice,
) -> Result<Option<Vec<AggregateRow>>, Problem> {
    let aggregates = &state.stores().aggregates;
    let filter = RowFilter {
        families: Some(FAMILIES.to_vec()),
        slice: Some(slice),
        ..RowFilter::default()
    };
    let read = aggregates.read(venue, entry.day, generation, &filter).await?;
    // What is whole after the reading was whole while it was read.
    let kept = aggregates.count(venue, entry.day, generation).await?;
    Ok((kept >= rows).then_some(read))
}
