//! Buckets on the wire: the same rows as JSON, CSV and Arrow.

use dwell_model::definitions::MetricDefinition;
use dwell_model::metrics::{FootfallSource, Number};
use dwell_model::time::TsMs;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{OriginDto, instant, local};
use crate::formats::{Table, TableColumn};
use crate::query::range::{Bucket, By};
use crate::views::fold::{BucketInfo, Ingredients};
use crate::views::series::{Series, Subject};
use crate::views::sources::Layer;

/// Metrics of a venue, or of groups of venues.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MetricsDto {
    /// The venue; null where many were asked.
    pub(crate) venue: Option<String>,
    /// IANA time zone of the venue.
    pub(crate) tz: Option<String>,
    pub(crate) by: By,
    /// Which events count: all, open or staff; left out where the request names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) slice: Option<&'static str>,
    /// First instant covered.
    pub(crate) from: Option<String>,
    /// First instant no longer covered.
    pub(crate) to: Option<String>,
    /// The definitions used.
    pub(crate) definitions: Vec<DefinitionDto>,
    /// Dense: every bucket asked for, by start, then metric, then subject.
    pub(crate) buckets: Vec<BucketDto>,
    /// The days of this page and where their numbers come from (one venue only).
    pub(crate) days: Vec<OriginDto>,
    /// Cursor of the next page; null on the last. Also in the header `x-next-cursor`.
    pub(crate) next_cursor: Option<String>,
}

/// One metric of one subject in one bucket.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct BucketDto {
    /// The venue; left out where several are united.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) venue: Option<String>,
    /// The tag whose venues are united; left out elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tag: Option<String>,
    pub(crate) metric: &'static str,
    /// Which events count; left out where the request names no slice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) slice: Option<&'static str>,
    /// What it is about, for people: the zone, the line, sensor and counter, … `_venue` is the whole venue.
    pub(crate) subject: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) zone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sensor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) counter: Option<String>,
    /// The counter's mode: delta, cumulative or state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mode: Option<&'static str>,
    /// The measured quantity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reading: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) currency: Option<String>,
    /// UTC start; identifies the bucket.
    #[serde(serialize_with = "as_instant")]
    #[schema(value_type = String)]
    pub(crate) start: TsMs,
    /// First instant after it.
    #[serde(serialize_with = "as_instant")]
    #[schema(value_type = String)]
    pub(crate) end: TsMs,
    /// Start in local time with its offset.
    pub(crate) start_local: String,
    /// Time covered; less than end − start where hours of the day were chosen, or the slice open.
    pub(crate) length_ms: i64,
    /// The number; null when it is not known, or when there is none (the median of no visits, a ratio to zero).
    #[schema(value_type = Option<f64>)]
    pub(crate) value: Number,
    pub(crate) unit: String,
    /// ok; closed: the venue was closed and nothing was heard; partial: still open, or something is missing; missing:
    /// nothing was heard; pending: not computed yet, or before there were slices; future; no-opening-hours,
    /// no-staff-tags: the layout declares none, so there is no such slice.
    pub(crate) state: &'static str,
    /// Share of what the sensors should have sent that came, 0 to 1; null when unknown.
    pub(crate) completeness: Option<f64>,
    /// batch, live, mixed, or null when nothing was computed yet.
    pub(crate) layer: Option<&'static str>,
    /// The generation, for buckets within one venue-day of the batch layer. Others: see `days`.
    pub(crate) generation: Option<u64>,
    /// Whether a better number is bound to come.
    pub(crate) provisional: bool,
    /// Where footfall comes from: lines (entrances) or sessions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) footfall_source: Option<&'static str>,
    pub(crate) definition: DefinitionRefDto,
}

/// Which definition a number was made by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct DefinitionRefDto {
    pub(crate) id: &'static str,
    pub(crate) version: u32,
}

/// A metric's definition.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DefinitionDto {
    id: &'static str,
    version: u32,
    unit: &'static str,
    /// What it is about: zone, line, traffic, transaction, presence, counter or reading.
    family: Value,
    title: &'static str,
    /// The formula in words.
    description: &'static str,
    /// How it unites over time: sum, max, min, ratio_of_sums, sorted_lists, sketch (within a venue-day), last, refused.
    over_time: Value,
    /// How it unites over zones, lines, sensors or currencies of one venue.
    over_subjects: Value,
    /// How it unites over venues.
    over_venues: Value,
}

/// All definitions.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DefinitionsDto {
    /// Version of the whole list: days computed under another one are computed anew.
    pub(crate) version: u32,
    pub(crate) definitions: Vec<DefinitionDto>,
}

/// The venues that a row is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Scope {
    /// One venue.
    pub(crate) venue: Option<String>,
    /// The venues of a tag.
    pub(crate) tag: Option<String>,
}

impl From<&MetricDefinition> for DefinitionDto {
    fn from(definition: &MetricDefinition) -> Self {
        // Words of enums: their serialisation cannot fail.
        let word = |value: serde_json::Result<Value>| value.unwrap_or_default();
        Self {
            id: definition.id,
            version: definition.version,
            unit: definition.unit,
            family: word(serde_json::to_value(definition.family)),
            title: definition.title,
            description: definition.description,
            over_time: word(serde_json::to_value(definition.over_time)),
            over_subjects: word(serde_json::to_value(definition.over_subjects)),
            over_venues: word(serde_json::to_value(definition.over_venues)),
        }
    }
}

impl BucketDto {
    /// A row of a series.
    pub(crate) fn new(
        scope: &Scope,
        series: &Series,
        bucket: &Bucket,
        info: &BucketInfo,
        ingredients: &Ingredients,
    ) -> Self {
        let definition = series.definition;
        let layer = match (
            info.layers.contains(&Layer::Batch),
            info.layers.contains(&Layer::Live),
        ) {
            (true, true) => Some("mixed"),
            (true, false) => Some(Layer::Batch.word()),
            (false, true) => Some(Layer::Live.word()),
            (false, false) => None,
        };
        let mut row = Self {
            venue: scope.venue.clone(),
            tag: scope.tag.clone(),
            metric: definition.id,
            slice: None,
            subject: series.subject.label(),
            zone: None,
            line: None,
            sensor: None,
            counter: None,
            mode: None,
            reading: None,
            currency: None,
            start: bucket.start,
            end: bucket.end,
            start_local: local(bucket.start, bucket.offset_ms),
            length_ms: info.length_ms,
            value: ingredients.number(definition, info.length_ms),
            unit: ingredients.unit(definition, &series.subject).to_owned(),
            state: info.state.word(),
            completeness: info.completeness,
            layer,
            generation: info.generation,
            provisional: info.provisional,
            footfall_source: ingredients
                .footfall_source(definition)
                .map(|source| match source {
                    FootfallSource::Lines => "lines",
                    FootfallSource::Sessions => "sessions",
                }),
            definition: DefinitionRefDto {
                id: definition.id,
                version: definition.version,
            },
        };
        match &series.subject {
            Subject::Zone(zone) => row.zone = Some(zone.clone()),
            Subject::Line(line) => row.line = Some(line.clone()),
            Subject::Currency(currency) => row.currency = Some(currency.clone()),
            Subject::Counter {
                sensor,
                counter,
                mode,
            } => {
                (row.sensor, row.counter) = (Some(sensor.clone()), Some(counter.clone()));
                row.mode = Some(mode.word());
            }
            Subject::Reading { sensor, reading } => {
                (row.sensor, row.reading) = (Some(sensor.clone()), Some(reading.clone()));
            }
            Subject::Venue | Subject::Several | Subject::Unknown => {}
        }
        row
    }

    /// Rows as a table, with the columns of the JSON form; the definition's version stands beside the metric, and the
    /// slice last, where one was asked for.
    pub(crate) fn table(rows: &[Self]) -> Table {
        let text = |of: fn(&Self) -> Option<&str>| {
            TableColumn::Text(rows.iter().map(|row| of(row).map(str::to_owned)).collect())
        };
        let integer = |of: fn(&Self) -> Option<i64>| TableColumn::Integer(rows.iter().map(of).collect());
        let mut table = Table {
            columns: vec![
                ("venue", text(|row| row.venue.as_deref())),
                ("tag", text(|row| row.tag.as_deref())),
                ("metric", text(|row| Some(row.metric))),
                ("subject", text(|row| Some(&row.subject))),
                ("zone", text(|row| row.zone.as_deref())),
                ("line", text(|row| row.line.as_deref())),
                ("sensor", text(|row| row.sensor.as_deref())),
                ("counter", text(|row| row.counter.as_deref())),
                ("mode", text(|row| row.mode)),
                ("reading", text(|row| row.reading.as_deref())),
                ("currency", text(|row| row.currency.as_deref())),
                (
                    "start",
                    TableColumn::Instant(rows.iter().map(|row| Some(row.start)).collect()),
                ),
                (
                    "end",
                    TableColumn::Instant(rows.iter().map(|row| Some(row.end)).collect()),
                ),
                ("start_local", text(|row| Some(&row.start_local))),
                ("length_ms", integer(|row| Some(row.length_ms))),
                (
                    "value",
                    TableColumn::Number(rows.iter().map(|row| as_float(row.value)).collect()),
                ),
                ("unit", text(|row| Some(&row.unit))),
                ("state", text(|row| Some(row.state))),
                (
                    "completeness",
                    TableColumn::Number(rows.iter().map(|row| row.completeness).collect()),
                ),
                ("layer", text(|row| row.layer)),
                (
                    "generation",
                    integer(|row| row.generation.and_then(|number| i64::try_from(number).ok())),
                ),
                (
                    "provisional",
                    TableColumn::Flag(rows.iter().map(|row| Some(row.provisional)).collect()),
                ),
                ("footfall_source", text(|row| row.footfall_source)),
                (
                    "definition_version",
                    integer(|row| Some(i64::from(row.definition.version))),
                ),
            ],
        };
        if rows.iter().any(|row| row.slice.is_some()) {
            table.columns.push(("slice", text(|row| row.slice)));
        }
        table
    }
}

/// A number as tables and orders have it.
pub(crate) fn as_float(number: Number) -> Option<f64> {
    match number {
        Number::Integer(value) => Some(value as f64),
        Number::Float(value) => Some(value).filter(|value| value.is_finite()),
        Number::None => None,
    }
}

fn as_instant<S: serde::Serializer>(ts: &TsMs, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&instant(*ts))
}
