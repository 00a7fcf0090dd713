//! From ingredients to a metric's number.

use serde::{Deserialize, Serialize};

use super::{TrafficValue, TransactionValue, Value, exact_mean, nearest_rank};

/// A metric's number.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Number {
    /// A count, a sum, a length.
    Integer(i64),
    /// A ratio, a mean, a measured value.
    Float(f64),
    /// There is no such number: the median of no visits, a ratio to zero.
    None,
}

impl Number {
    fn integer<T: TryInto<i64>>(value: T) -> Self {
        value.try_into().map_or(Number::None, Number::Integer)
    }

    fn optional<T: TryInto<i64>>(value: Option<T>) -> Self {
        value.map_or(Number::None, Number::integer)
    }

    fn ratio(a: u64, b: u64) -> Self {
        if b == 0 {
            Number::None
        } else {
            Number::Float(a as f64 / b as f64)
        }
    }
}

/// A metric's number from the ingredients of its family over `length_ms`; `None` when the metric is not made of these
/// ingredients (see [`conversion`] for the one that needs two families).
pub fn evaluate(metric: &str, value: &Value, length_ms: i64) -> Option<Number> {
    Some(match (metric, value) {
        ("visits", Value::Zone(zone)) => Number::integer(zone.visits),
        ("visitors", Value::Zone(zone)) => match zone.visitors {
            Some(exact) => Number::integer(exact),
            None if zone.sketch.is_empty() => Number::None,
            None => zone.sketch.estimate().map_or(Number::None, Number::integer),
        },
        ("visitor_days", Value::Zone(zone)) => Number::optional(zone.visitor_days),
        ("dwell_ms", Value::Zone(zone)) => Number::integer(zone.dwell_ms),
        ("dwell_avg", Value::Zone(zone)) => {
            Number::ratio(zone.dwells_ms.iter().sum(), zone.dwells_ms.len() as u64)
        }
        ("dwell_p50", Value::Zone(zone)) => Number::optional(nearest_rank(&zone.dwells_ms, 50)),
        ("dwell_p90", Value::Zone(zone)) => Number::optional(nearest_rank(&zone.dwells_ms, 90)),
        ("dwell_p95", Value::Zone(zone)) => Number::optional(nearest_rank(&zone.dwells_ms, 95)),
        ("occupancy_avg", Value::Zone(zone)) => {
            u64::try_from(length_ms).map_or(Number::None, |length_ms| Number::ratio(zone.dwell_ms, length_ms))
        }
        ("occupancy_max", Value::Zone(zone)) => Number::integer(zone.occupancy_max),
        ("engaged", Value::Zone(zone)) => Number::integer(zone.engaged),
        ("engagement_rate", Value::Zone(zone)) => Number::ratio(zone.engaged, zone.visits),
        ("in", Value::Line(line)) => Number::Integer(line.inward),
        ("out", Value::Line(line)) => Number::Integer(line.outward),
        ("footfall", Value::Traffic(traffic)) => Number::integer(traffic.footfall),
        ("occupancy_est", Value::Traffic(traffic)) => Number::Integer(traffic.occupancy_est),
        ("sales", Value::Transaction(sum)) => Number::integer(sum.sales),
        ("returns", Value::Transaction(sum)) => Number::integer(sum.returns),
        ("transaction_amount", Value::Transaction(sum)) => Number::integer(sum.amount),
        ("devices", Value::Presence(presence)) => match presence.devices {
            Some(exact) => Number::integer(exact),
            None if presence.sketch.is_empty() => Number::None,
            None => presence.sketch.estimate().map_or(Number::None, Number::integer),
        },
        ("sightings", Value::Presence(presence)) => Number::integer(presence.sightings),
        ("counter_value", Value::Counter(counter)) => Number::Integer(counter.value),
        ("reading_count", Value::Reading(reading)) => Number::integer(reading.count),
        ("reading_min", Value::Reading(reading)) => Number::Float(reading.min),
        ("reading_max", Value::Reading(reading)) => Number::Float(reading.max),
        ("reading_mean", Value::Reading(reading)) => {
            Number::Float(exact_mean(reading.sum_nano, reading.count))
        }
        ("reading_last", Value::Reading(reading)) => Number::Float(reading.last),
        _ => return None,
    })
}

/// Sales without returns and voids per person who came in; none at zero footfall.
pub fn conversion<'a>(
    transactions: impl IntoIterator<Item = &'a TransactionValue>,
    traffic: &TrafficValue,
) -> Number {
    Number::ratio(
        transactions.into_iter().map(|sum| sum.sales).sum(),
        traffic.footfall,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definitions;
    use crate::metrics::{FootfallSource, LineValue, ZoneValue};

    #[test]
    fn numbers_of_a_zone_by_hand() {
        let zone = Value::Zone(ZoneValue {
            visits: 4,
            visitors: Some(3),
            dwell_ms: 90_000,
            engaged: 1,
            dwells_ms: vec![0, 1_000, 2_000, 30_000],
            ..ZoneValue::default()
        });
        for (metric, expected) in [
            ("visits", Number::Integer(4)),
            ("visitors", Number::Integer(3)),
            ("visitor_days", Number::None),
            ("dwell_avg", Number::Float(8_250.0)),
            ("dwell_p50", Number::Integer(1_000)),
            ("dwell_p90", Number::Integer(30_000)),
            ("occupancy_avg", Number::Float(0.025)),
            ("engagement_rate", Number::Float(0.25)),
        ] {
            assert_eq!(evaluate(metric, &zone, 3_600_000), Some(expected), "{metric}");
        }
        assert_eq!(evaluate("in", &zone, 1), None);
        assert_eq!(
            evaluate("dwell_p50", &Value::Zone(ZoneValue::default()), 1),
            Some(Number::None)
        );
    }

    #[test]
    fn conversion_leaves_out_returns_and_is_none_without_footfall() {
        let sums = [TransactionValue {
            sales: 3,
            returns: 9,
            voids: 9,
            amount: 0,
        }];
        let traffic = |footfall| TrafficValue {
            source: FootfallSource::Lines,
            footfall,
            inward: 0,
            outward: 0,
            occupancy_est: 0,
        };
        assert_eq!(conversion(&sums, &traffic(12)), Number::Float(0.25));
        assert_eq!(conversion(&sums, &traffic(0)), Number::None);
    }

    #[test]
    fn every_defined_metric_of_one_family_has_a_number() {
        let line = Value::Line(LineValue {
            inward: 1,
            outward: 2,
        });
        for definition in definitions::ALL
            .iter()
            .filter(|definition| definition.family == line.family())
        {
            assert!(evaluate(definition.id, &line, 1).is_some(), "{}", definition.id);
        }
    }
}
