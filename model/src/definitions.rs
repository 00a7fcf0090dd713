//! What each number means: every metric with an id, a version, a unit, and how it merges.
//!
//! The field uses one word for different formulas, so every answer names the definition that it used. A changed formula is
//! a new version; [`VERSION`] changes with any of them, and days are computed anew.

use serde::Serialize;

use crate::metrics::Family;

/// Version of the whole list: days computed under another one are computed anew.
pub const VERSION: u32 = 1;

/// How a metric's numbers unite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Merge {
    /// They add up.
    Sum,
    /// The largest.
    Max,
    /// The smallest.
    Min,
    /// Numerators and denominators add up, then one is divided by the other.
    RatioOfSums,
    /// Sorted lists unite, then the rank is taken: exact.
    SortedLists,
    /// Sketches unite within one venue-day (about 1.5 % off); beyond it the merge is refused.
    Sketch,
    /// The latest.
    Last,
    /// Refused.
    Refused,
}

/// A metric.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MetricDefinition {
    /// Name in queries.
    pub id: &'static str,
    /// Raised when the formula changes.
    pub version: u32,
    /// Unit of the number.
    pub unit: &'static str,
    /// Ingredients that it is made of.
    pub family: Family,
    /// Short name for people.
    pub title: &'static str,
    /// The formula in words, and whose definition it is where the field has several.
    pub description: &'static str,
    /// How it unites over time.
    pub over_time: Merge,
    /// How it unites over zones, lines, sensors or currencies of one venue.
    pub over_subjects: Merge,
    /// How it unites over venues.
    pub over_venues: Merge,
}

/// A name that is no metric.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no metric {0:?}; see /v1/definitions")]
pub struct UnknownMetric(String);

/// The metric of an id.
pub fn find(id: &str) -> Result<&'static MetricDefinition, UnknownMetric> {
    let found = ALL.iter().find(|definition| definition.id == id);
    found.ok_or_else(|| UnknownMetric(id.chars().take(64).collect()))
}

const fn metric(
    family: Family,
    id: &'static str,
    unit: &'static str,
    [over_time, over_subjects, over_venues]: [Merge; 3],
    title: &'static str,
    description: &'static str,
) -> MetricDefinition {
    MetricDefinition {
        id,
        version: 1,
        unit,
        family,
        title,
        description,
        over_time,
        over_subjects,
        over_venues,
    }
}

use Merge::{Last, Max, Min, RatioOfSums, Refused, Sketch, SortedLists, Sum};

const SUMS: [Merge; 3] = [Sum, Sum, Sum];
const RATIOS: [Merge; 3] = [RatioOfSums, RatioOfSums, RatioOfSums];
const LISTS: [Merge; 3] = [SortedLists, SortedLists, SortedLists];

/// All metrics.
pub const ALL: &[MetricDefinition] = &[
    metric(
        Family::Zone,
        "visits",
        "visits",
        SUMS,
        "Visits",
        "Stays in the zone that began in the bucket. Two runs inside are one visit when no more than zone_blink apart; every entry counts, as Aura Vision does, not once per store visit, as Palexy does.",
    ),
    metric(
        Family::Zone,
        "visitors",
        "people",
        [Sketch, Refused, Refused],
        "Visitors",
        "Distinct subjects present in the bucket, exact; hours of one venue-day unite by sketch. Beyond a venue-day identities do not last: ask for visitor_days.",
    ),
    metric(
        Family::Zone,
        "visitor_days",
        "people·days",
        [Sum, Refused, Sum],
        "Visitor-days",
        "Sum over venue-days of the distinct subjects of each day, exact. Only for whole days.",
    ),
    metric(
        Family::Zone,
        "dwell_ms",
        "ms",
        SUMS,
        "Time spent",
        "Time of visits that overlaps the bucket, all visitors together.",
    ),
    metric(
        Family::Zone,
        "dwell_avg",
        "ms",
        RATIOS,
        "Mean dwell time",
        "Mean length of the visits that began in the bucket, each counted whole. Sessions that are still open count as they stand in live numbers.",
    ),
    metric(
        Family::Zone,
        "dwell_p50",
        "ms",
        LISTS,
        "Median dwell time",
        "Nearest-rank median of the whole lengths of the visits that began in the bucket.",
    ),
    metric(
        Family::Zone,
        "dwell_p90",
        "ms",
        LISTS,
        "Dwell time, 90th percentile",
        "Nearest-rank 90th percentile of the whole lengths of the visits that began in the bucket.",
    ),
    metric(
        Family::Zone,
        "dwell_p95",
        "ms",
        LISTS,
        "Dwell time, 95th percentile",
        "Nearest-rank 95th percentile of the whole lengths of the visits that began in the bucket.",
    ),
    metric(
        Family::Zone,
        "occupancy_avg",
        "people",
        [RatioOfSums, Refused, Refused],
        "Mean occupancy",
        "Time spent divided by the bucket's length.",
    ),
    metric(
        Family::Zone,
        "occupancy_max",
        "people",
        [Max, Refused, Refused],
        "Peak occupancy",
        "Most distinct subjects present at one instant, intervals closed.",
    ),
    metric(
        Family::Zone,
        "engaged",
        "visits",
        SUMS,
        "Engaged visits",
        "Visits that began in the bucket and lasted at least the zone's engaged_after (default 10 s).",
    ),
    metric(
        Family::Zone,
        "engagement_rate",
        "1",
        RATIOS,
        "Engagement rate",
        "Engaged visits divided by visits.",
    ),
    metric(
        Family::Line,
        "in",
        "people",
        SUMS,
        "In",
        "People who crossed the line inwards.",
    ),
    metric(
        Family::Line,
        "out",
        "people",
        SUMS,
        "Out",
        "People who crossed the line outwards.",
    ),
    metric(
        Family::Traffic,
        "footfall",
        "people",
        SUMS,
        "Footfall",
        "Inward crossings of entrance lines; where the layout has none, visits of the venue. The answer names the source.",
    ),
    metric(
        Family::Traffic,
        "occupancy_est",
        "people",
        [Last, Refused, Sum],
        "Estimated occupancy",
        "In minus out over entrances since the day's start, at the bucket's end. Negative values are shown: they tell of missed crossings; the day's last one is its drift.",
    ),
    metric(
        Family::Transaction,
        "sales",
        "receipts",
        [Sum, Refused, Sum],
        "Sales",
        "Receipts that are neither returns nor voided.",
    ),
    metric(
        Family::Transaction,
        "returns",
        "receipts",
        [Sum, Refused, Sum],
        "Returns",
        "Receipts with a negative amount.",
    ),
    metric(
        Family::Transaction,
        "transaction_amount",
        "minor units",
        [Sum, Refused, Sum],
        "Amount",
        "Sum of the amounts of sales and returns, per currency, in minor units.",
    ),
    metric(
        Family::Traffic,
        "conversion",
        "1",
        [RatioOfSums, Refused, RatioOfSums],
        "Conversion",
        "Sales (all currencies, without returns and voids) divided by footfall; none at zero.",
    ),
    metric(
        Family::Presence,
        "devices",
        "devices",
        [Sketch, Refused, Refused],
        "Devices",
        "Distinct devices heard in the bucket, exact; hours of one venue-day unite by sketch.",
    ),
    metric(
        Family::Presence,
        "sightings",
        "events",
        SUMS,
        "Sightings",
        "Times that any device was heard.",
    ),
    metric(
        Family::Counter,
        "counter_value",
        "count",
        [Sum, Refused, Refused],
        "Counter",
        "By mode: delta, the sum; cumulative, the increases, booked at the later sample, a drop being a reset unless a wrap is declared; state, the last.",
    ),
    metric(
        Family::Reading,
        "reading_count",
        "samples",
        [Sum, Sum, Sum],
        "Readings",
        "Number of readings.",
    ),
    metric(
        Family::Reading,
        "reading_min",
        "as sent",
        [Min, Refused, Refused],
        "Smallest reading",
        "Smallest value.",
    ),
    metric(
        Family::Reading,
        "reading_max",
        "as sent",
        [Max, Refused, Refused],
        "Largest reading",
        "Largest value.",
    ),
    metric(
        Family::Reading,
        "reading_mean",
        "as sent",
        [RatioOfSums, Refused, Refused],
        "Mean reading",
        "Mean of the values, summed in billionths and rounded once.",
    ),
    metric(
        Family::Reading,
        "reading_last",
        "as sent",
        [Last, Refused, Refused],
        "Last reading",
        "The latest value.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_found() {
        for definition in ALL {
            assert_eq!(find(definition.id), Ok(definition));
            assert!(!definition.description.is_empty() && definition.version > 0);
        }
        let mut ids: Vec<_> = ALL.iter().map(|definition| definition.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), ALL.len());
        assert!(find("vists").unwrap_err().to_string().contains("vists"));
    }
}
