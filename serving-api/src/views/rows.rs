//! The rows of some venue-days, found by bucket.

use std::collections::BTreeMap;

use dwell_model::definitions::{Merge, MetricDefinition};
use dwell_model::ids::VenueKey;
use dwell_model::metrics::{AggregateRow, Family, Grain, Slice, SubjectSketch, Value};
use dwell_model::time::LocalDay;
use dwell_storage::api::RowFilter;

use super::sources::{self, Sources};
use crate::problem::Problem;
use crate::query::range::{Bucket, Piece};
use crate::state::AppState;

/// Rows of venue-days, each day's sorted by (grain, start, family, subject, slice) as stores give them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rows {
    days: BTreeMap<LocalDay, Vec<AggregateRow>>,
    /// The one slice that the rows are of.
    slice: Slice,
}

impl Rows {
    /// Rows that are at hand; sorted here.
    #[cfg(test)]
    pub(crate) fn of(days: impl IntoIterator<Item = (LocalDay, Vec<AggregateRow>)>) -> Self {
        let sorted = days.into_iter().map(|(day, mut rows)| {
            rows.sort_by(|a, b| place(a).cmp(&place(b)));
            (day, rows)
        });
        Self {
            days: sorted.collect(),
            slice: Slice::All,
        }
    }

    /// Drops the ingredients that nobody will ask for: sketches and lists of dwell times are most of a row's bytes.
    pub(crate) fn slim(&mut self, needs: Needs) {
        for row in self.days.values_mut().flatten() {
            match &mut row.value {
                Value::Zone(zone) => {
                    if !needs.sketches {
                        zone.sketch = SubjectSketch::default();
                    }
                    if !needs.lists {
                        zone.dwells_ms = Vec::new();
                    }
                }
                Value::Presence(presence) if !needs.sketches => presence.sketch = SubjectSketch::default(),
                _ => {}
            }
        }
    }

    /// The rows of a family in a piece of a bucket, by subject.
    pub(crate) fn of_piece(&self, piece: &Piece, family: Family) -> &[AggregateRow] {
        let rows = self.days.get(&piece.day).map_or(&[][..], Vec::as_slice);
        let key = (piece.grain, piece.start, family);
        let from = rows.partition_point(|row| (row.grain, row.start, row.family) < key);
        let len = rows[from..].partition_point(|row| (row.grain, row.start, row.family) == key);
        &rows[from..from + len]
    }

    /// The ingredients of a subject in a piece of a bucket.
    pub(crate) fn value(&self, piece: &Piece, family: Family, subject: &str) -> Option<&Value> {
        let rows = self.of_piece(piece, family);
        let key = (subject, self.slice);
        let found = rows.binary_search_by(|row| (row.subject.as_str(), row.slice).cmp(&key));
        found.ok().map(|i| &rows[i].value)
    }
}

#[cfg(test)]
fn place(row: &AggregateRow) -> (Grain, i64, Family, &str, Slice) {
    (row.grain, row.start, row.family, row.subject.as_str(), row.slice)
}

/// Which of the larger ingredients an answer needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Sketches: to tell subjects apart over several hours.
    pub(crate) sketches: bool,
    /// Sorted lists of dwell times.
    pub(crate) lists: bool,
}

impl Needs {
    /// What metrics need over these buckets.
    pub(crate) fn of(metrics: &[&'static MetricDefinition], buckets: &[Bucket]) -> Self {
        let unites = buckets.iter().any(|bucket| bucket.pieces.len() > 1);
        let merges = |merge: Merge| metrics.iter().any(|definition| definition.over_time == merge);
        Self {
            sketches: unites && merges(Merge::Sketch),
            lists: merges(Merge::SortedLists) || merges(Merge::RatioOfSums),
        }
    }
}

/// Reads the rows of some pieces in one slice.
pub(crate) async fn load(
    state: &AppState,
    venue: &VenueKey,
    sources: &Sources,
    pieces: &[Piece],
    families: &[Family],
    subjects: Option<&[String]>,
    slice: Slice,
) -> Result<Rows, Problem> {
    let mut days: Vec<LocalDay> = pieces.iter().map(|piece| piece.day).collect();
    days.sort_unstable();
    days.dedup();
    let has = |grain: Grain| pieces.iter().any(|piece| piece.grain == grain);
    let grain = match (has(Grain::Hour), has(Grain::Day)) {
        (true, false) => Some(Grain::Hour),
        (false, true) => Some(Grain::Day),
        _ => None,
    };
    let filter = RowFilter {
        grain,
        families: Some(families.to_vec()),
        subjects: subjects.map(<[String]>::to_vec),
        slice: Some(slice),
    };
    let rows = sources::rows(state, venue, sources, &days, &filter).await?;
    Ok(Rows {
        days: days.into_iter().zip(rows).collect(),
        slice,
    })
}
