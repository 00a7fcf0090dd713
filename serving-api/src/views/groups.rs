//! Buckets of many venues, united by venue, tag, zone or altogether.
//!
//! Venues are evaluated one after the other, each in its own local time; their ingredients are then united, as far as the
//! metrics declare that. Buckets of several venues belong together when their local time is the same: ten o'clock
//! is ten o'clock everywhere.

use std::collections::{BTreeMap, BTreeSet};

use dwell_model::completeness::BucketState;
use dwell_model::definitions::{Merge, MetricDefinition};

use super::answer::Plan;
use super::fold::{BucketInfo, Ingredients};
use super::judge::combined;
use super::series::{Series, Subject};
use super::sources::Layer;
use crate::dto::{BucketDto, Scope, as_float};
use crate::problem::{self, Problem};
use crate::query::range::{Bucket, By, local_keys};

/// What is united into one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupBy {
    /// Each venue for itself.
    Venue,
    /// The venues of each tag; a venue with several tags counts in each.
    Tag,
    /// Zones of the same id, over all venues.
    Zone,
    /// Everything.
    None,
}

/// A row's place: whom it is about, and when. Rows are ordered so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    bucket: (i64, i64),
    group: Group,
    metric: usize,
}

/// Whom a row is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    scope: Scope,
    zone: Option<String>,
}

/// A row that is being united.
#[derive(Debug, Clone)]
struct Cell {
    bucket: Bucket,
    states: Vec<BucketState>,
    /// Sum and number of the known ones.
    completeness: (f64, u32),
    layers: BTreeSet<Layer>,
    generation: Option<u64>,
    provisional: bool,
    ingredients: Ingredients,
    subjects: BTreeSet<Subject>,
    venues: usize,
}

/// The rows of many venues, united.
#[derive(Debug)]
pub(crate) struct Groups<'a> {
    group_by: GroupBy,
    by: By,
    metrics: &'a [&'static MetricDefinition],
    cells: BTreeMap<Place, Cell>,
    cells_max: usize,
}

/// How rows are ranked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    /// By this metric's number, over the whole range.
    pub(crate) metric: &'static str,
    /// Largest first.
    pub(crate) descending: bool,
}

impl<'a> Groups<'a> {
    /// No rows yet; more than `cells_max` are refused.
    pub(crate) fn new(
        group_by: GroupBy,
        by: By,
        metrics: &'a [&'static MetricDefinition],
        cells_max: usize,
    ) -> Self {
        Self {
            group_by,
            by,
            metrics,
            cells: BTreeMap::new(),
            cells_max,
        }
    }

    /// Adds a venue with what was evaluated for all its buckets. `scopes` are the groups that it belongs to.
    pub(crate) fn add(
        &mut self,
        scopes: &[Scope],
        plan: &Plan<'_>,
        evaluated: &[(BucketInfo, Vec<Ingredients>)],
    ) -> Result<(), Problem> {
        let keys = local_keys(&plan.buckets, self.by);
        for scope in scopes {
            for ((bucket, key), (info, ingredients)) in plan.buckets.iter().zip(&keys).zip(evaluated) {
                self.add_bucket(scope, *key, bucket, info, &plan.series, ingredients)?;
            }
        }
        Ok(())
    }

    fn add_bucket(
        &mut self,
        scope: &Scope,
        key: (i64, i64),
        bucket: &Bucket,
        info: &BucketInfo,
        series: &[Series],
        ingredients: &[Ingredients],
    ) -> Result<(), Problem> {
        // The subjects of one venue that fall into one row unite first: what is refused over zones need not be
        // refused over venues.
        let mut places: Vec<Place> = Vec::new();
        for (series, ingredients) in series.iter().zip(ingredients) {
            let metric = self
                .metrics
                .iter()
                .position(|metric| metric.id == series.definition.id)
                .unwrap_or(0);
            let zone = match (&series.subject, self.group_by) {
                (Subject::Zone(zone), GroupBy::Zone) => Some(zone.clone()),
                (_, GroupBy::Zone) => continue,
                _ => None,
            };
            let place = Place {
                bucket: key,
                group: Group {
                    scope: scope.clone(),
                    zone,
                },
                metric,
            };
            let again = places.contains(&place);
            let known = self.cells.len();
            let cell = self
                .cells
                .entry(place.clone())
                .or_insert_with(|| Cell::new(bucket));
            cell.take(series, ingredients, again)?;
            if !again {
                cell.take_info(bucket, info);
                places.push(place);
            }
            if self.cells.len() > known.max(self.cells_max) {
                let detail = format!(
                    "the answer has more than {} rows, which is the limit; ask for longer buckets, fewer venues or \
                     metrics, or larger groups",
                    self.cells_max
                );
                return Err(Problem::new(problem::BAD_RANGE, detail));
            }
        }
        Ok(())
    }

    /// The rows by time, group and metric; ranked and cut to the first groups where that is asked for.
    pub(crate) fn rows(self, order: Option<&Order>, top: Option<usize>) -> Vec<BucketDto> {
        let metrics = self.metrics;
        let finished: Vec<(Group, BucketDto)> = self
            .cells
            .into_iter()
            .map(|(place, cell)| cell.finish(place, metrics))
            .collect();
        let Some(order) = order else {
            return finished.into_iter().map(|(_, row)| row).collect();
        };
        let mut ranked: Vec<(Option<f64>, &Group)> = finished
            .iter()
            .filter(|(_, row)| row.metric == order.metric)
            .map(|(group, row)| (as_float(row.value), group))
            .collect();
        ranked.sort_by(|(a, group_a), (b, group_b)| {
            let by_value = match (a, b) {
                (Some(a), Some(b)) if order.descending => b.total_cmp(a),
                (Some(a), Some(b)) => a.total_cmp(b),
                // Unknown numbers come last, whichever way.
                (a, b) => b.is_some().cmp(&a.is_some()),
            };
            by_value.then_with(|| group_a.cmp(group_b))
        });
        let kept = ranked.len().min(top.unwrap_or(usize::MAX));
        let mut rows = Vec::with_capacity(kept * metrics.len());
        for (_, group) in &ranked[..kept] {
            rows.extend(
                finished
                    .iter()
                    .filter(|(of, _)| of == *group)
                    .map(|(_, row)| row.clone()),
            );
        }
        rows
    }
}

impl Cell {
    fn new(bucket: &Bucket) -> Self {
        Self {
            bucket: Bucket {
                pieces: Vec::new(),
                ..bucket.clone()
            },
            states: Vec::new(),
            completeness: (0.0, 0),
            layers: BTreeSet::new(),
            generation: None,
            provisional: false,
            ingredients: Ingredients::default(),
            subjects: BTreeSet::new(),
            venues: 0,
        }
    }

    /// Unites a series' ingredients; `again` when the same venue has given some before.
    fn take(&mut self, series: &Series, ingredients: &Ingredients, again: bool) -> Result<(), Problem> {
        let definition = series.definition;
        let refuse = |over: &str, what_to_do: &str| {
            let detail = format!("{} does not unite over {over}; {what_to_do}", definition.id);
            Problem::new(problem::UNMERGEABLE, detail).about("group_by")
        };
        let over_venues = !again && self.venues > 0;
        if again && definition.over_subjects == Merge::Refused {
            return Err(refuse(
                "zones, lines, sensors or currencies",
                "name a single one, or ask each venue's /metrics, which gives them one by one",
            ));
        }
        if over_venues && definition.over_venues == Merge::Refused {
            return Err(refuse("venues", "use group_by: \"venue\""));
        }
        let is_currency = |subject: &Subject| matches!(subject, Subject::Currency(_));
        if is_currency(&series.subject)
            && self
                .subjects
                .iter()
                .any(|s| is_currency(s) && *s != series.subject)
        {
            return Err(refuse("currencies", "name one in `currencies`"));
        }
        if series.subject != Subject::Unknown {
            self.subjects.insert(series.subject.clone());
        }
        self.ingredients.unite(ingredients, definition)
    }

    /// Adds what is said of a venue's bucket.
    fn take_info(&mut self, bucket: &Bucket, info: &BucketInfo) {
        self.venues += 1;
        self.generation = info.generation.filter(|_| self.venues == 1);
        if self.venues == 1 {
            self.bucket.length_ms = info.length_ms;
        }
        self.states.push(info.state);
        if let Some(part) = info.completeness {
            self.completeness = (self.completeness.0 + part, self.completeness.1 + 1);
        }
        self.layers.extend(&info.layers);
        self.provisional |= info.provisional;
        if bucket.start < self.bucket.start {
            (self.bucket.start, self.bucket.offset_ms) = (bucket.start, bucket.offset_ms);
        }
        self.bucket.end = self.bucket.end.max(bucket.end);
    }

    fn finish(self, place: Place, metrics: &[&'static MetricDefinition]) -> (Group, BucketDto) {
        let (sum, known) = self.completeness;
        let info = BucketInfo {
            state: combined(self.states),
            completeness: (known > 0).then(|| sum / f64::from(known)),
            layers: self.layers,
            generation: self.generation,
            provisional: self.provisional,
            length_ms: self.bucket.length_ms,
        };
        let mut subjects = self.subjects.into_iter();
        let subject = match (subjects.next(), subjects.next()) {
            (Some(only), None) => only,
            (Some(_), Some(_)) => Subject::Several,
            (None, _) => Subject::Unknown,
        };
        let series = Series {
            definition: metrics[place.metric],
            subject,
        };
        let row = BucketDto::new(
            &place.group.scope,
            &series,
            &self.bucket,
            &info,
            &self.ingredients,
        );
        (place.group, row)
    }
}
