//! Buckets made of their pieces: the ingredients of every series united, the state, the origin. Pure.
//!
//! Pieces are added in the order of time, chunk by chunk, so that a bucket of years needs the rows of a few weeks at a
//! time. Within a venue-day hours unite so that subjects can be told apart; days then unite with what was there before.

use std::collections::BTreeSet;

use dwell_model::completeness::BucketState;
use dwell_model::definitions::{Merge, MetricDefinition};
use dwell_model::layout::Venue;
use dwell_model::metrics::{
    Family, FootfallSource, MergeError, Number, Slice, Span, TrafficValue, TransactionValue, Value,
    conversion, evaluate, merge,
};
use dwell_storage::api::Generation;

use super::judge::{Health, Judge, combined};
use super::rows::Rows;
use super::series::{CONVERSION, Series, Subject};
use super::sources::{Layer, Sources};
use crate::problem::{self, Problem};
use crate::query::range::{Bucket, Piece};

/// The ingredients of one series in a bucket.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Ingredients {
    /// Of the metric's own family; `None` when nothing is known.
    pub(crate) main: Option<Value>,
    /// Receipts of all currencies, where the metric is made of them too.
    pub(crate) sales: Option<TransactionValue>,
}

/// What is said of a bucket, whatever the series.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BucketInfo {
    /// What is known of it as a whole.
    pub(crate) state: BucketState,
    /// From 0 to 1; `None` is unknown.
    pub(crate) completeness: Option<f64>,
    /// Which layers computed its parts.
    pub(crate) layers: BTreeSet<Layer>,
    /// The generation, where it lies in one venue-day that a generation answers for.
    pub(crate) generation: Option<Generation>,
    /// Whether a better number is bound to come.
    pub(crate) provisional: bool,
    /// Time that the slice covers, in milliseconds.
    pub(crate) length_ms: i64,
}

/// A bucket that is being made.
pub(crate) struct BucketFold<'a> {
    venue: &'a Venue,
    sources: &'a Sources,
    series: &'a [Series],
    ingredients: Vec<Ingredients>,
    /// For each series the zero of a piece in which sensors were heard and that has no row of it.
    zeros: Vec<Option<Value>>,
    states: Vec<BucketState>,
    health: Health,
    info: BucketInfo,
    days: BTreeSet<dwell_model::time::LocalDay>,
}

impl<'a> BucketFold<'a> {
    /// An empty bucket.
    pub(crate) fn new(venue: &'a Venue, sources: &'a Sources, series: &'a [Series]) -> Self {
        Self {
            venue,
            sources,
            series,
            ingredients: vec![Ingredients::default(); series.len()],
            zeros: vec![None; series.len()],
            states: Vec::new(),
            health: Health::default(),
            info: BucketInfo {
                state: BucketState::Pending,
                completeness: None,
                layers: BTreeSet::new(),
                generation: None,
                provisional: false,
                length_ms: 0,
            },
            days: BTreeSet::new(),
        }
    }

    /// Adds pieces that follow those added before; the pieces of a venue-day come together.
    pub(crate) fn add(
        &mut self,
        pieces: &[Piece],
        rows: &Rows,
        health: &Rows,
        judge: &mut Judge<'_>,
    ) -> Result<(), Problem> {
        let mut alive = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let judgement = judge.piece(piece, health);
            self.states.push(judgement.state);
            alive.push(judgement.has_zeros);
            self.info.length_ms += judgement.length_ms;
            self.health.add(health, piece);
            let source = self.sources.day(piece.day);
            self.info.layers.extend(source.layer());
            self.info.provisional |= source.is_provisional();
            self.days.insert(piece.day);
        }
        for index in 0..self.series.len() {
            self.add_to_series(index, pieces, &alive, rows, judge.slice())?;
        }
        Ok(())
    }

    fn add_to_series(
        &mut self,
        index: usize,
        pieces: &[Piece],
        alive: &[bool],
        rows: &Rows,
        slice: Slice,
    ) -> Result<(), Problem> {
        let series = &self.series[index];
        let Some(subject) = series.subject.in_rows() else {
            return Ok(());
        };
        let family = series.definition.family;
        let is_conversion = series.definition.id == CONVERSION;
        let mut whole: Vec<Value> = self.ingredients[index].main.take().into_iter().collect();
        for day in pieces.chunk_by(|a, b| a.day == b.day) {
            let found: Vec<&Value> = day
                .iter()
                .filter_map(|piece| rows.value(piece, family, &subject))
                .collect();
            if !found.is_empty() {
                whole.push(merge(found, Span::VenueDay).map_err(|error| refused(series.definition, error))?);
            }
        }
        if !whole.is_empty() {
            let united = merge(&whole, Span::VenueDays).map_err(|error| refused(series.definition, error))?;
            self.ingredients[index].main = Some(united);
        }
        for (piece, _) in pieces.iter().zip(alive).filter(|(_, is_alive)| **is_alive) {
            if self.zeros[index].is_none() {
                self.zeros[index] = series.zero(self.venue.layout_on(piece.day), piece.grain, slice);
            }
            if is_conversion {
                self.ingredients[index].sales.get_or_insert_default();
            }
        }
        if is_conversion {
            for row in pieces
                .iter()
                .flat_map(|piece| rows.of_piece(piece, Family::Transaction))
            {
                if let Value::Transaction(receipts) = &row.value {
                    // Of several currencies only the number of receipts is used.
                    self.ingredients[index].sales.get_or_insert_default().sales += receipts.sales;
                }
            }
        }
        Ok(())
    }

    /// The bucket's info and each series' ingredients.
    pub(crate) fn finish(mut self) -> (BucketInfo, Vec<Ingredients>) {
        for (ingredients, zero) in self.ingredients.iter_mut().zip(&mut self.zeros) {
            if ingredients.main.is_none() {
                ingredients.main = zero.take();
            }
        }
        self.info.state = combined(self.states);
        self.info.completeness = self.health.completeness();
        let mut days = self.days.iter();
        if let (Some(day), None) = (days.next(), days.next()) {
            self.info.generation = self.sources.day(*day).generation();
        }
        (self.info, self.ingredients)
    }
}

/// A merge that the metric's ingredients do not allow.
pub(crate) fn refused(definition: &MetricDefinition, error: MergeError) -> Problem {
    match error {
        MergeError::Incompatible(_) => {
            let detail = format!(
                "{} cannot be given for these buckets: {error}; ask for shorter buckets",
                definition.id
            );
            Problem::new(problem::UNMERGEABLE, detail).about("metric")
        }
        error => Problem::new(
            problem::DAMAGED,
            "stored numbers cannot be read; quote x-request-id to Dwell's operators",
        )
        .logging(format!("{}: {error}", definition.id)),
    }
}

impl Ingredients {
    /// The metric's number over buckets of `length_ms`; `None` when there is none.
    pub(crate) fn number(&self, definition: &MetricDefinition, length_ms: i64) -> Number {
        match (&self.main, &self.sales) {
            (Some(Value::Traffic(traffic)), Some(sales)) if definition.id == CONVERSION => {
                conversion([sales], traffic)
            }
            (Some(value), _) => evaluate(definition.id, value, length_ms).unwrap_or(Number::None),
            (None, _) => Number::None,
        }
    }

    /// Where footfall comes from, for the metrics that rest on it.
    pub(crate) fn footfall_source(&self, definition: &MetricDefinition) -> Option<FootfallSource> {
        match &self.main {
            Some(Value::Traffic(TrafficValue { source, .. })) if definition.over_time != Merge::Last => {
                Some(*source)
            }
            _ => None,
        }
    }

    /// The unit of the number: readings have the one that they were sent with.
    pub(crate) fn unit<'u>(&'u self, definition: &'u MetricDefinition, subject: &Subject) -> &'u str {
        match (&self.main, subject) {
            (Some(Value::Reading(reading)), _)
                if definition.over_time != Merge::Sum && !reading.unit.is_empty() =>
            {
                &reading.unit
            }
            _ => definition.unit,
        }
    }

    /// Unites with ingredients of other subjects or venues.
    pub(crate) fn unite(
        &mut self,
        other: &Ingredients,
        definition: &MetricDefinition,
    ) -> Result<(), Problem> {
        self.main = match (self.main.take(), &other.main) {
            (Some(mine), Some(theirs)) => {
                Some(merge([&mine, theirs], Span::VenueDays).map_err(|error| refused(definition, error))?)
            }
            (mine, theirs) => mine.or_else(|| theirs.clone()),
        };
        if let Some(theirs) = &other.sales {
            self.sales.get_or_insert_default().sales += theirs.sales;
        }
        Ok(())
    }
}

/// Cuts buckets into chunks of pieces that touch at most `days_max` venue-days each, the pieces of a day together:
/// (index of the bucket, its pieces) in the order of time.
pub(crate) fn chunks(buckets: &[Bucket], days_max: usize) -> Vec<Vec<(usize, &[Piece])>> {
    let mut chunks: Vec<Vec<(usize, &[Piece])>> = Vec::new();
    let mut days: BTreeSet<dwell_model::time::LocalDay> = BTreeSet::new();
    for (index, bucket) in buckets.iter().enumerate() {
        let mut from = 0;
        for (i, piece) in bucket.pieces.iter().enumerate() {
            if !days.contains(&piece.day) && days.len() >= days_max {
                if from < i {
                    chunks
                        .last_mut()
                        .into_iter()
                        .for_each(|chunk| chunk.push((index, &bucket.pieces[from..i])));
                }
                (from, days) = (i, BTreeSet::new());
            }
            if days.is_empty() {
                chunks.push(Vec::new());
            }
            days.insert(piece.day);
        }
        chunks
            .last_mut()
            .into_iter()
            .for_each(|chunk| chunk.push((index, &bucket.pieces[from..])));
    }
    chunks
}

#[cfg(test)]
mod tests;
