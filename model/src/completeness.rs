//! How sure a bucket is: its state, and what part of what should have come did come.
//!
//! Completeness is only claimed from evidence. Per sensor, the worst of what is known counts:
//! - **state**: time not offline, of the time about which its status events speak;
//! - **loss**: events sent, of those sent and dropped, as its status events report;
//! - **sequence**: status messages received, of those that their sequence numbers count;
//! - **interval**: declared intervals with an event, of all in the bucket; only for sensors with a declared interval.
//!
//! A sensor without any of these says nothing. The bucket's completeness is the mean over the sensors that say something;
//! unknown if none does, never 1 by default.
//!
//! The state of a bucket, in this order: `future`, if it has not begun; `pending`, if nothing has been computed for it;
//! `closed`, if the venue was closed all through it and nothing was heard; `missing`, if nothing was heard; `partial`, if it is
//! still open, or its completeness is below 1; else `ok`. Of the slice `open` a bucket without a moment of opening is
//! `closed` whatever was heard, and a day without declared opening hours `no-opening-hours`; of the slice `staff` one
//! without staff tags `no-staff-tags`. Only a bucket in which some sensor was heard has zeros; in any
//! other an absent number is unknown.

use serde::{Deserialize, Serialize};

use crate::event::SensorState;
use crate::metrics::SourceValue;
use crate::time::TsMs;

/// What is known of a bucket as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BucketState {
    /// Sensors were heard, and nothing is known to be missing.
    Ok,
    /// The venue was closed, and nothing was heard.
    Closed,
    /// Sensors were heard, but something is missing or still to come.
    Partial,
    /// Nothing was heard though the venue was open, as far as that is known.
    Missing,
    /// Not computed yet.
    Pending,
    /// Has not begun.
    Future,
    /// Of the slice `open`: no opening hours are declared.
    NoOpeningHours,
    /// Of the slice `staff`: no staff tags are declared.
    NoStaffTags,
}

impl BucketState {
    /// The state as a word.
    pub fn word(self) -> &'static str {
        match self {
            BucketState::Ok => "ok",
            BucketState::Closed => "closed",
            BucketState::Partial => "partial",
            BucketState::Missing => "missing",
            BucketState::Pending => "pending",
            BucketState::Future => "future",
            BucketState::NoOpeningHours => "no-opening-hours",
            BucketState::NoStaffTags => "no-staff-tags",
        }
    }
}

/// What decides a bucket's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketFacts {
    /// First instant.
    pub start: TsMs,
    /// First instant after it.
    pub end: TsMs,
    /// Whether a generation or the live view covers it.
    pub is_computed: bool,
    /// Whether the venue was closed all through it; `None` when its hours are not known.
    pub is_closed: Option<bool>,
}

/// A bucket's state and completeness.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Assessment {
    /// What is known of the bucket as a whole.
    pub state: BucketState,
    /// From 0 to 1; `None` is unknown.
    pub completeness: Option<f64>,
    /// Whether some sensor was heard: then an absent number is 0.
    pub is_alive: bool,
}

/// Assesses a bucket from its sensors' health at a moment.
pub fn assess<'a>(
    facts: &BucketFacts,
    sources: impl IntoIterator<Item = &'a SourceValue>,
    now: TsMs,
) -> Assessment {
    let (mut is_alive, mut sum, mut said) = (false, 0.0, 0_u32);
    for source in sources {
        is_alive |= source.events > 0 || is_heard_working(source);
        if let Some(part) = completeness_of(source) {
            sum += part;
            said += 1;
        }
    }
    let completeness = (said > 0).then(|| sum / f64::from(said));
    let state = if facts.start > now {
        BucketState::Future
    } else if !facts.is_computed {
        BucketState::Pending
    } else if !is_alive {
        if facts.is_closed == Some(true) {
            BucketState::Closed
        } else {
            BucketState::Missing
        }
    } else if facts.end > now || completeness.is_some_and(|part| part < 1.0) {
        BucketState::Partial
    } else {
        BucketState::Ok
    };
    Assessment {
        state,
        completeness,
        is_alive,
    }
}

/// A status event alone shows life, unless all it says is that the sensor is offline.
fn is_heard_working(source: &SourceValue) -> bool {
    source.statuses > 0 && source.state_ms.keys().any(|state| *state != SensorState::Offline)
}

/// What part of a sensor's data came; `None` when nothing is known.
pub fn completeness_of(source: &SourceValue) -> Option<f64> {
    let ratio = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
    let spoken_ms: i64 = source.state_ms.values().sum();
    let offline_ms = source.state_ms.get(&SensorState::Offline).copied().unwrap_or(0);
    let state = ratio((spoken_ms - offline_ms).max(0) as u64, spoken_ms.max(0) as u64);
    let loss = match (source.sent, source.dropped) {
        (sent, Some(dropped)) => ratio(sent.unwrap_or(0), sent.unwrap_or(0) + dropped),
        (_, None) => None,
    };
    let sequence = ratio(source.statuses, source.statuses + source.sequence_gaps);
    let interval = source
        .intervals
        .and_then(|(expected, seen)| ratio(seen, expected));
    [state, loss, sequence, interval]
        .into_iter()
        .flatten()
        .reduce(f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: TsMs = 3_600_000;

    fn facts(is_computed: bool, is_closed: Option<bool>) -> BucketFacts {
        BucketFacts {
            start: HOUR,
            end: 2 * HOUR,
            is_computed,
            is_closed,
        }
    }

    fn heard() -> SourceValue {
        SourceValue {
            events: 5,
            ..SourceValue::default()
        }
    }

    #[test]
    fn states_are_decided_in_order() {
        let later = 10 * HOUR;
        for (facts, sources, now, state) in [
            (facts(true, None), vec![heard()], 0, BucketState::Future),
            (facts(false, None), vec![], later, BucketState::Pending),
            (facts(true, Some(true)), vec![], later, BucketState::Closed),
            (facts(true, Some(true)), vec![heard()], later, BucketState::Ok),
            (facts(true, Some(false)), vec![], later, BucketState::Missing),
            (facts(true, None), vec![], later, BucketState::Missing),
            (facts(true, None), vec![heard()], HOUR + 1, BucketState::Partial),
            (facts(true, None), vec![heard()], later, BucketState::Ok),
        ] {
            assert_eq!(assess(&facts, &sources, now).state, state);
        }
    }

    #[test]
    fn completeness_is_the_worst_of_what_is_known_and_unknown_without_evidence() {
        assert_eq!(completeness_of(&heard()), None);
        assert_eq!(
            assess(&facts(true, None), [&heard()], 10 * HOUR).completeness,
            None
        );
        let half_offline = SourceValue {
            statuses: 2,
            state_ms: [(SensorState::Ok, 900_000), (SensorState::Offline, 2_700_000)].into(),
            sent: Some(90),
            dropped: Some(10),
            ..heard()
        };
        assert_eq!(completeness_of(&half_offline), Some(0.25));
        let lossy = SourceValue {
            sent: Some(11_049),
            dropped: Some(176_984),
            ..heard()
        };
        assert_eq!(completeness_of(&lossy), Some(11_049.0 / 188_033.0));
        let gaps = SourceValue {
            statuses: 9,
            sequence_gaps: 1,
            ..heard()
        };
        assert_eq!(completeness_of(&gaps), Some(0.9));
        let declared = SourceValue {
            intervals: Some((60, 45)),
            ..heard()
        };
        let assessment = assess(&facts(true, None), [&declared, &heard()], 10 * HOUR);
        assert_eq!(
            (assessment.state, assessment.completeness),
            (BucketState::Partial, Some(0.75))
        );
    }

    #[test]
    fn a_sensor_that_only_says_it_is_offline_is_not_alive() {
        let offline = SourceValue {
            statuses: 1,
            state_ms: [(SensorState::Offline, HOUR)].into(),
            ..SourceValue::default()
        };
        let assessment = assess(&facts(true, None), [&offline], 10 * HOUR);
        assert!(!assessment.is_alive);
        assert_eq!(
            (assessment.state, assessment.completeness),
            (BucketState::Missing, Some(0.0))
        );
    }
}
