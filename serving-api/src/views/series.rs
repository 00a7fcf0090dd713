//! What an answer is about: metrics of subjects. A *series* is one metric of one subject over all buckets.

use dwell_model::definitions::{self, Merge, MetricDefinition};
use dwell_model::event::CountMode;
use dwell_model::layout::{Layout, VENUE_ZONE, Venue};
use dwell_model::metrics::{
    CounterValue, Family, FootfallSource, Grain, LineValue, PresenceValue, ReadingValue, Slice, TrafficValue,
    TransactionValue, Value, ZoneValue,
};
use dwell_model::time::LocalDay;

use crate::problem::{self, Problem};
use crate::query::range::Bucket;

/// Separates the parts of a composite subject in rows.
const PART_SEPARATOR: char = '\u{1f}';

/// What a series is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Subject {
    /// The venue as a whole (traffic, presence).
    Venue,
    /// A zone.
    Zone(String),
    /// A counting line.
    Line(String),
    /// A sensor's counter.
    Counter {
        /// The sensor.
        sensor: String,
        /// Its counter.
        counter: String,
        /// What its values mean.
        mode: CountMode,
    },
    /// A sensor's measured quantity.
    Reading {
        /// The sensor.
        sensor: String,
        /// The quantity.
        reading: String,
    },
    /// Receipts in a currency.
    Currency(String),
    /// Several subjects, united.
    Several,
    /// Nothing of the kind is known of the venue in the range: there is a series all the same, of unknown numbers.
    Unknown,
}

impl Subject {
    /// The subject of a row; `None` for a family that is no series.
    pub(crate) fn of_row(family: Family, subject: &str) -> Option<Self> {
        let mut parts = subject.split(PART_SEPARATOR);
        let mut part = || parts.next().map(str::to_owned);
        match family {
            Family::Zone => Some(Subject::Zone(part()?)),
            Family::Line => Some(Subject::Line(part()?)),
            Family::Transaction => Some(Subject::Currency(part()?)),
            Family::Counter => Some(Subject::Counter {
                sensor: part()?,
                counter: part()?,
                mode: CountMode::from_word(&part()?)?,
            }),
            Family::Reading => Some(Subject::Reading {
                sensor: part()?,
                reading: part()?,
            }),
            Family::Presence | Family::Traffic => Some(Subject::Venue),
            Family::Transition | Family::Cell | Family::Source => None,
        }
    }

    /// The subject as rows have it; `None` where no row can be meant.
    pub(crate) fn in_rows(&self) -> Option<String> {
        let separated = |parts: &[&str]| Some(parts.join(&PART_SEPARATOR.to_string()));
        match self {
            Subject::Venue => Some(String::new()),
            Subject::Zone(name) | Subject::Line(name) | Subject::Currency(name) => Some(name.clone()),
            Subject::Counter {
                sensor,
                counter,
                mode,
            } => separated(&[sensor, counter, mode.word()]),
            Subject::Reading { sensor, reading } => separated(&[sensor, reading]),
            Subject::Several | Subject::Unknown => None,
        }
    }

    /// The subject for people.
    pub(crate) fn label(&self) -> String {
        match self {
            Subject::Venue => VENUE_ZONE.to_owned(),
            Subject::Zone(name) | Subject::Line(name) | Subject::Currency(name) => name.clone(),
            Subject::Counter { sensor, counter, .. } => format!("{sensor} {counter}"),
            Subject::Reading { sensor, reading } => format!("{sensor} {reading}"),
            Subject::Several => "several".to_owned(),
            Subject::Unknown => "–".to_owned(),
        }
    }
}

/// One metric of one subject.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Series {
    /// The metric.
    pub(crate) definition: &'static MetricDefinition,
    /// What it is about.
    pub(crate) subject: Subject,
}

impl Series {
    /// The ingredients of a bucket in which sensors were heard and nothing of this subject happened; `None` where that
    /// is no zero (the last state of a counter, an estimated occupancy, a measured value; crossings of staff, of which
    /// nothing is known where crossings name no tracks).
    pub(crate) fn zero(&self, layout: &Layout, grain: Grain, slice: Slice) -> Option<Value> {
        let by_lines = || self.definition.family == Family::Line || layout.has_entrance();
        match (self.definition.family, &self.subject) {
            (_, Subject::Unknown | Subject::Several) => None,
            (Family::Line | Family::Traffic, _) if slice == Slice::Staff && by_lines() => None,
            (Family::Zone, _) => {
                let visitor_days = (grain == Grain::Day).then_some(0);
                Some(Value::Zone(ZoneValue {
                    visitors: Some(0),
                    visitor_days,
                    ..ZoneValue::default()
                }))
            }
            (Family::Line, _) => Some(Value::Line(LineValue::default())),
            (Family::Transaction, _) => Some(Value::Transaction(TransactionValue::default())),
            (Family::Presence, _) => Some(Value::Presence(PresenceValue {
                devices: Some(0),
                ..PresenceValue::default()
            })),
            (Family::Traffic, _) if self.definition.over_time == Merge::Last => None,
            (Family::Traffic, _) => {
                let source = if layout.has_entrance() {
                    FootfallSource::Lines
                } else {
                    FootfallSource::Sessions
                };
                let none = TrafficValue {
                    source,
                    footfall: 0,
                    inward: 0,
                    outward: 0,
                    occupancy_est: 0,
                };
                Some(Value::Traffic(none))
            }
            (
                Family::Counter,
                Subject::Counter {
                    mode: CountMode::State,
                    ..
                },
            ) => None,
            (Family::Counter, Subject::Counter { mode, .. }) => {
                let none = CounterValue {
                    mode: *mode,
                    value: 0,
                    samples: 0,
                    resets: 0,
                    last_ts: 0,
                };
                Some(Value::Counter(none))
            }
            (Family::Reading, _) if self.definition.over_time == Merge::Sum => {
                let (min, max, last, unit) = (0.0, 0.0, 0.0, String::new());
                Some(Value::Reading(ReadingValue {
                    count: 0,
                    min,
                    max,
                    sum_nano: 0,
                    last,
                    last_ts: 0,
                    unit,
                }))
            }
            _ => None,
        }
    }
}

/// The definitions of the metrics named.
pub(crate) fn metrics(names: &[String]) -> Result<Vec<&'static MetricDefinition>, Problem> {
    let find = |name: &String| {
        definitions::find(name).map_err(|_| {
            let known: Vec<_> = definitions::ALL.iter().map(|definition| definition.id).collect();
            let detail = format!(
                "there is no metric {:?}; known are {}",
                problem::clip(name),
                known.join(", ")
            );
            Problem::new(problem::UNKNOWN_METRIC, detail).about("metric")
        })
    };
    names.iter().map(find).collect()
}

/// Which subjects are wanted; `None` means all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    /// Zones.
    pub(crate) zones: Option<Vec<String>>,
    /// Lines.
    pub(crate) lines: Option<Vec<String>>,
    /// Sensors of counters and readings.
    pub(crate) sensors: Option<Vec<String>>,
    /// Counters.
    pub(crate) counters: Option<Vec<String>>,
    /// Measured quantities.
    pub(crate) readings: Option<Vec<String>>,
    /// Currencies.
    pub(crate) currencies: Option<Vec<String>>,
}

impl Selection {
    /// Refuses a selection that says nothing about any of the metrics: it would silently do nothing.
    pub(crate) fn check(&self, metrics: &[&'static MetricDefinition]) -> Result<(), Problem> {
        use Family::{Counter, Line, Reading, Transaction, Zone};
        let choices = [
            ("zone", self.zones.is_some(), &[Zone][..]),
            ("line", self.lines.is_some(), &[Line]),
            ("sensor", self.sensors.is_some(), &[Counter, Reading]),
            ("counter", self.counters.is_some(), &[Counter]),
            ("reading", self.readings.is_some(), &[Reading]),
            ("currency", self.currencies.is_some(), &[Transaction]),
        ];
        for (name, _, families) in choices.iter().filter(|(_, is_given, _)| *is_given) {
            if !metrics
                .iter()
                .any(|definition| families.contains(&definition.family))
            {
                let detail = format!(
                    "none of the metrics is about a {name}; leave out `{name}` or ask for other metrics"
                );
                return Err(Problem::parameter(name, detail));
            }
        }
        Ok(())
    }

    fn accepts(&self, subject: &Subject) -> bool {
        let among = |wanted: &Option<Vec<String>>, name: &String| {
            wanted.as_ref().is_none_or(|all| all.contains(name))
        };
        match subject {
            Subject::Zone(zone) => among(&self.zones, zone),
            Subject::Line(line) => among(&self.lines, line),
            Subject::Currency(currency) => among(&self.currencies, currency),
            Subject::Counter { sensor, counter, .. } => {
                among(&self.sensors, sensor) && among(&self.counters, counter)
            }
            Subject::Reading { sensor, reading } => {
                among(&self.sensors, sensor) && among(&self.readings, reading)
            }
            Subject::Venue | Subject::Several | Subject::Unknown => true,
        }
    }
}

/// The series of some metrics: the selected subjects that the layouts of the days or the rows found know. `found` are
/// the day rows of the range for the families whose subjects no layout lists.
pub(crate) fn series(
    metrics: &[&'static MetricDefinition],
    selection: &Selection,
    venue: &Venue,
    days: (LocalDay, LocalDay),
    found: &[(Family, String)],
) -> Result<Vec<Series>, Problem> {
    let mut all = Vec::new();
    for &definition in metrics {
        let mut subjects = subjects(definition, selection, venue, days, found)?;
        if subjects.is_empty() {
            subjects.push(Subject::Unknown);
        }
        all.extend(subjects.into_iter().map(|subject| Series { definition, subject }));
    }
    Ok(all)
}

fn subjects(
    definition: &MetricDefinition,
    selection: &Selection,
    venue: &Venue,
    days: (LocalDay, LocalDay),
    found: &[(Family, String)],
) -> Result<Vec<Subject>, Problem> {
    let family = definition.family;
    let in_rows = || {
        found
            .iter()
            .filter(|(of, _)| *of == family)
            .filter_map(|(of, name)| Subject::of_row(*of, name))
    };
    let mut subjects: Vec<Subject> = match family {
        Family::Zone => return zones(selection, venue, days),
        // Sales are of the whole venue: what is known of it is whether it has any.
        Family::Traffic if definition.id == CONVERSION => {
            let sells = found.iter().any(|(of, _)| *of == Family::Transaction);
            return Ok(if sells { vec![Subject::Venue] } else { Vec::new() });
        }
        Family::Traffic | Family::Presence => return Ok(vec![Subject::Venue]),
        Family::Line => {
            let listed = layouts(venue, days).flat_map(|layout| &layout.lines);
            let named = selection.lines.iter().flatten().cloned();
            listed
                .map(|line| line.id.clone())
                .chain(named)
                .map(Subject::Line)
                .chain(in_rows())
                .collect()
        }
        Family::Transaction => {
            let named = selection.currencies.iter().flatten().cloned();
            named.map(Subject::Currency).chain(in_rows()).collect()
        }
        _ => in_rows().collect(),
    };
    subjects.retain(|subject| selection.accepts(subject));
    subjects.sort();
    subjects.dedup();
    Ok(subjects)
}

/// The one metric that is made of two families.
pub(crate) const CONVERSION: &str = "conversion";

fn zones(selection: &Selection, venue: &Venue, days: (LocalDay, LocalDay)) -> Result<Vec<Subject>, Problem> {
    let mut known: Vec<&str> = layouts(venue, days)
        .flat_map(|layout| &layout.zones)
        .map(|zone| zone.id.as_str())
        .collect();
    known.sort_unstable();
    known.dedup();
    known.push(VENUE_ZONE);
    let Some(wanted) = &selection.zones else {
        return Ok(known
            .into_iter()
            .map(|zone| Subject::Zone(zone.to_owned()))
            .collect());
    };
    if let Some(unknown) = wanted.iter().find(|zone| !known.contains(&zone.as_str())) {
        const SHOWN: usize = 30;
        let some = known.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
        let more = if known.len() > SHOWN { ", …" } else { "" };
        let detail = format!(
            "no layout in force in the range has a zone {:?}; known are {some}{more}",
            problem::clip(unknown)
        );
        return Err(Problem::parameter("zone", detail));
    }
    Ok(wanted.iter().map(|zone| Subject::Zone(zone.clone())).collect())
}

/// The layouts in force on some days.
pub(crate) fn layouts(venue: &Venue, (first, last): (LocalDay, LocalDay)) -> impl Iterator<Item = &Layout> {
    let start = venue
        .layouts
        .partition_point(|layout| layout.valid_from.is_none_or(|from| from <= first));
    let end = venue
        .layouts
        .partition_point(|layout| layout.valid_from.is_none_or(|from| from <= last));
    venue.layouts[start.saturating_sub(1)..end.max(1).min(venue.layouts.len())].iter()
}

/// Families whose subjects have to be looked for in rows.
pub(crate) fn families_to_look_for(metrics: &[&'static MetricDefinition]) -> Vec<Family> {
    let mut families: Vec<Family> = families(metrics);
    families.retain(|family| {
        matches!(
            family,
            Family::Line | Family::Transaction | Family::Counter | Family::Reading
        )
    });
    families
}

/// The families that metrics are made of, each once.
pub(crate) fn families(metrics: &[&'static MetricDefinition]) -> Vec<Family> {
    let mut families: Vec<Family> = metrics.iter().map(|definition| definition.family).collect();
    if metrics.iter().any(|definition| definition.id == CONVERSION) {
        families.push(Family::Transaction);
    }
    families.sort_unstable();
    families.dedup();
    families
}

/// Refuses what the metrics do not declare over the buckets' time.
pub(crate) fn check_time(metrics: &[&'static MetricDefinition], buckets: &[Bucket]) -> Result<(), Problem> {
    let over_days = buckets.iter().any(|bucket| {
        let day = bucket.pieces.first().map(|piece| piece.day);
        bucket.pieces.iter().any(|piece| Some(piece.day) != day)
    });
    let over_time = buckets.iter().any(|bucket| bucket.pieces.len() > 1);
    let in_hours = buckets
        .iter()
        .flat_map(|bucket| &bucket.pieces)
        .any(|piece| piece.grain == Grain::Hour);
    for definition in metrics {
        let refused = match definition.over_time {
            Merge::Sketch if over_days && definition.id == "visitors" => Some(
                "its visitors cannot be told apart beyond a venue-day, since identities do not outlive the day; ask for \
                 visitor_days (the exact sum of each day's visitors), or by=day",
            ),
            Merge::Sketch if over_days => {
                Some("identities do not outlive the venue-day; ask by=day or by=hour")
            }
            Merge::Refused if over_time => Some("it does not merge over time; ask by=day or by=hour"),
            _ if definition.id == "visitor_days" && in_hours => Some(
                "it is counted over whole venue-days only; ask by=day or longer without hours, or for visitors",
            ),
            _ => None,
        };
        if let Some(why) = refused {
            let detail = format!("{} cannot be given for these buckets: {why}", definition.id);
            return Err(Problem::new(problem::UNMERGEABLE, detail).about("metric"));
        }
    }
    Ok(())
}
