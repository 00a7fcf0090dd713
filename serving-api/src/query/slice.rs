//! `slice`: which part of the events counts.

use dwell_model::definitions::MetricDefinition;
use dwell_model::metrics::Slice;

use crate::problem::{Problem, clip};

/// Reads `slice`; all events when it is left out.
pub(crate) fn parse(text: Option<&str>) -> Result<Slice, Problem> {
    let Some(text) = text else {
        return Ok(Slice::All);
    };
    Slice::from_word(text).ok_or_else(|| {
        let detail = format!(
            "{:?} is no slice; use all, open (within opening hours) or staff",
            clip(text)
        );
        Problem::parameter("slice", detail)
    })
}

/// The slice as an answer names it: only where it was asked for.
pub(crate) fn named(text: Option<&str>, slice: Slice) -> Option<&'static str> {
    text.map(|_| slice.word())
}

/// Refuses metrics that a slice can have no numbers of.
pub(crate) fn check(metrics: &[&'static MetricDefinition], slice: Slice) -> Result<(), Problem> {
    let is_without = |definition: &&&MetricDefinition| {
        // The one metric of two families has numbers where both have.
        !slice.has(definition.family)
            || (definition.id == crate::views::series::CONVERSION
                && !slice.has(dwell_model::metrics::Family::Transaction))
    };
    match metrics.iter().find(is_without) {
        None => Ok(()),
        Some(definition) => {
            let detail = format!(
                "{} has no slice {}: its events do not say whose they are; leave it out, or ask for slice all or open",
                definition.id,
                slice.word()
            );
            Err(Problem::parameter("slice", detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_read_and_others_refused_by_name() {
        assert_eq!(parse(None).unwrap(), Slice::All);
        assert_eq!(parse(Some("open")).unwrap(), Slice::Open);
        for text in ["", "Open", "customers", "0"] {
            assert!(parse(Some(text)).is_err(), "{text:?}");
        }
        assert_eq!(
            (named(None, Slice::All), named(Some("all"), Slice::All)),
            (None, Some("all"))
        );
    }

    #[test]
    fn staff_is_known_of_tracks_only() {
        let refused: Vec<&str> = dwell_model::definitions::ALL
            .iter()
            .filter(|definition| check(&[definition], Slice::Staff).is_err())
            .map(|definition| definition.id)
            .collect();
        assert_eq!(
            refused,
            [
                "sales",
                "returns",
                "transaction_amount",
                "conversion",
                "devices",
                "sightings",
                "counter_value",
                "reading_count",
                "reading_min",
                "reading_max",
                "reading_mean",
                "reading_last"
            ]
        );
        assert!(
            dwell_model::definitions::ALL
                .iter()
                .all(|definition| check(&[definition], Slice::Open).is_ok())
        );
    }
}
