//! How sure a bucket is, from the sensors' health in its pieces. Pure: `dwell_model::completeness` judges each piece;
//! here the judgements of several pieces are put together.

use std::collections::BTreeMap;

use dwell_model::completeness::{Assessment, BucketFacts, BucketState, assess};
use dwell_model::ids::VenueKey;
use dwell_model::layout::{Venue, open_ms};
use dwell_model::metrics::{Family, Grain, Slice, SourceValue, Span, Value, merge};
use dwell_model::time::{LocalDay, TsMs};

use super::rows::{self, Rows};
use super::slices::SliceOfDay;
use super::sources::Sources;
use crate::problem::Problem;
use crate::query::range::Piece;
use crate::state::AppState;

/// Judges the pieces of a venue at a moment. Remembers each day's opening hours.
pub(crate) struct Judge<'a> {
    venue: &'a Venue,
    sources: &'a Sources,
    now: TsMs,
    open: BTreeMap<LocalDay, Option<Vec<(TsMs, TsMs)>>>,
    slice: Slice,
    slices: BTreeMap<LocalDay, SliceOfDay>,
}

/// The judgement of one piece in a slice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Judgement {
    /// What is known of it.
    pub(crate) state: BucketState,
    /// Whether an absent number is 0.
    pub(crate) has_zeros: bool,
    /// How much of it the slice covers, in milliseconds.
    pub(crate) length_ms: i64,
}

impl<'a> Judge<'a> {
    /// A judge of a venue, in one slice.
    pub(crate) fn new(venue: &'a Venue, sources: &'a Sources, now: TsMs, slice: Slice) -> Self {
        Self {
            venue,
            sources,
            now,
            open: BTreeMap::new(),
            slice,
            slices: BTreeMap::new(),
        }
    }

    /// The slice that is judged.
    pub(crate) fn slice(&self) -> Slice {
        self.slice
    }

    /// The judgement of one piece by its `Source` rows.
    pub(crate) fn piece(&mut self, piece: &Piece, health: &Rows) -> Judgement {
        let assessment = self.assess(piece, health);
        if self.slice == Slice::All {
            return Judgement {
                state: assessment.state,
                has_zeros: assessment.is_alive,
                length_ms: piece.length_ms(),
            };
        }
        let (venue, sources, slice) = (self.venue, self.sources, self.slice);
        let of_day = self
            .slices
            .entry(piece.day)
            .or_insert_with(|| SliceOfDay::of(venue, piece.day, sources.day(piece.day), slice));
        let length_ms = of_day.length_ms(slice, piece.start, piece.end);
        let (state, has_zeros) = match of_day {
            SliceOfDay::Undeclared(state) => (*state, false),
            _ if length_ms == 0 => (BucketState::Closed, false),
            SliceOfDay::Pending(_) if assessment.state != BucketState::Future => {
                (BucketState::Pending, false)
            }
            _ => (assessment.state, assessment.is_alive),
        };
        Judgement {
            state,
            has_zeros,
            length_ms,
        }
    }

    fn assess(&mut self, piece: &Piece, health: &Rows) -> Assessment {
        let facts = BucketFacts {
            start: piece.start,
            end: piece.end,
            is_computed: self.sources.day(piece.day).is_computed(),
            is_closed: self.is_closed(piece),
        };
        assess(&facts, source_values(health, piece), self.now)
    }

    fn is_closed(&mut self, piece: &Piece) -> Option<bool> {
        let venue = self.venue;
        let open = self.open.entry(piece.day).or_insert_with(|| {
            let hours = venue.layout_on(piece.day).opening_hours.as_ref()?;
            Some(hours.open_intervals(&venue.calendar.cut(piece.day)))
        });
        open.as_ref()
            .map(|open| open_ms(open, piece.start, piece.end) == 0)
    }
}

/// The health of each sensor in a piece.
fn source_values<'a>(health: &'a Rows, piece: &Piece) -> impl Iterator<Item = &'a SourceValue> {
    health
        .of_piece(piece, Family::Source)
        .iter()
        .filter_map(|row| match &row.value {
            Value::Source(value) => Some(value),
            _ => None,
        })
}

/// The health of each sensor over several pieces.
#[derive(Debug, Default)]
pub(crate) struct Health {
    sensors: BTreeMap<String, Value>,
}

impl Health {
    /// Adds the sensors of a piece.
    pub(crate) fn add(&mut self, health: &Rows, piece: &Piece) {
        for row in health.of_piece(piece, Family::Source) {
            match self.sensors.get_mut(&row.subject) {
                // Health of one family always unites; a failure would be a bug that shows as a missing sensor.
                Some(sum) => {
                    if let Ok(united) = merge([&*sum, &row.value], Span::VenueDays) {
                        *sum = united;
                    }
                }
                None => {
                    self.sensors.insert(row.subject.clone(), row.value.clone());
                }
            }
        }
    }

    /// What part of what should have come did come; `None` is unknown.
    pub(crate) fn completeness(&self) -> Option<f64> {
        let facts = BucketFacts {
            start: 0,
            end: 0,
            is_computed: true,
            is_closed: None,
        };
        let values = self.sensors.values().filter_map(|value| match value {
            Value::Source(value) => Some(value),
            _ => None,
        });
        assess(&facts, values, 0).completeness
    }
}

/// The state of what is made of several parts: `partial` as soon as some of them are there and others are not, or not
/// wholly, or have no such slice; closed parts neither help nor harm.
pub(crate) fn combined(states: impl IntoIterator<Item = BucketState>) -> BucketState {
    use BucketState::{Closed, Future, Missing, NoOpeningHours, NoStaffTags, Ok, Partial, Pending};
    let mut seen = [false; 8];
    states.into_iter().for_each(|state| seen[state as usize] = true);
    let has = |state: BucketState| seen[state as usize];
    match () {
        () if has(Partial) => Partial,
        () if has(Ok)
            && [Missing, Pending, Future, NoOpeningHours, NoStaffTags]
                .into_iter()
                .any(has) =>
        {
            Partial
        }
        () if has(Ok) => Ok,
        () if has(Pending) => Pending,
        () if has(Missing) => Missing,
        () if has(NoOpeningHours) => NoOpeningHours,
        () if has(NoStaffTags) => NoStaffTags,
        () if has(Future) => Future,
        () => Closed,
    }
}

/// The completeness of whole days, one for each.
pub(crate) async fn completeness_of_days(
    state: &AppState,
    key: &VenueKey,
    venue: &Venue,
    sources: &Sources,
    days: &[LocalDay],
) -> Result<Vec<Option<f64>>, Problem> {
    let whole = |&day: &LocalDay| {
        let (start, end) = venue.calendar.bounds(day);
        Piece {
            day,
            grain: Grain::Day,
            start,
            end,
        }
    };
    let pieces: Vec<Piece> = days.iter().map(whole).collect();
    let health = rows::load(state, key, sources, &pieces, &[Family::Source], None, Slice::All).await?;
    let of_piece = |piece: &Piece| {
        let mut sensors = Health::default();
        sensors.add(&health, piece);
        sensors.completeness()
    };
    Ok(pieces.iter().map(of_piece).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_make_a_whole() {
        use BucketState::{Closed, Future, Missing, NoOpeningHours, NoStaffTags, Ok, Partial, Pending};
        for (parts, whole) in [
            (vec![Ok, NoOpeningHours], Partial),
            (vec![NoOpeningHours, Closed, Future], NoOpeningHours),
            (vec![NoStaffTags, NoStaffTags], NoStaffTags),
            (vec![NoStaffTags, Pending], Pending),
            (vec![Ok, Ok], Ok),
            (vec![Ok, Closed], Ok),
            (vec![Ok, Missing], Partial),
            (vec![Ok, Future], Partial),
            (vec![Ok, Pending], Partial),
            (vec![Partial], Partial),
            (vec![Closed, Closed], Closed),
            (vec![Closed, Missing], Missing),
            (vec![Missing, Pending], Pending),
            (vec![Pending, Future], Pending),
            (vec![Future, Closed], Future),
        ] {
            assert_eq!(combined(parts.clone()), whole, "{parts:?}");
        }
    }
}
