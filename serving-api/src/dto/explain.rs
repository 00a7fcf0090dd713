//! Explanations on the wire: from a bucket to what it was made of.

use dwell_model::metrics::Number;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{ChangeDto, DefinitionDto, FileDto, SessionDto};

/// A bucket and everything that it was made of.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExplainDto {
    pub(crate) venue: String,
    pub(crate) tz: String,
    pub(crate) bucket: ExplainedBucketDto,
    /// The formula.
    pub(crate) definition: DefinitionDto,
    /// The computation that answers.
    pub(crate) generation: ExplainedGenerationDto,
    /// What it was computed with.
    pub(crate) inputs: InputsDto,
    /// Who sent the events behind the bucket.
    pub(crate) sources: SourcesDto,
    /// Whether the events, folded once more, give what is published.
    pub(crate) recomputed: RecomputedDto,
    /// Stays that touch the bucket, by start; for zones and footfall by sessions, the first few.
    pub(crate) sessions: Vec<SessionDto>,
    /// The events behind the bucket, by key, then time.
    pub(crate) events: Vec<EventBehindDto>,
    /// Cursor of the next page of events; null on the last.
    pub(crate) next_cursor: Option<String>,
}

/// The bucket.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExplainedBucketDto {
    pub(crate) metric: &'static str,
    pub(crate) subject: String,
    /// hour or day.
    pub(crate) grain: &'static str,
    pub(crate) start: String,
    pub(crate) start_local: String,
    pub(crate) end: String,
    pub(crate) length_ms: i64,
    /// The published number; null where there is none.
    #[schema(value_type = Option<f64>)]
    pub(crate) value: Number,
    pub(crate) unit: &'static str,
    /// What the number was made of, as it is stored; null where nobody was seen.
    #[schema(value_type = Option<Object>)]
    pub(crate) ingredients: Option<Value>,
}

/// The generation that answers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExplainedGenerationDto {
    pub(crate) day: String,
    pub(crate) generation: u64,
    /// The one that it replaced.
    pub(crate) before: Option<u64>,
    pub(crate) published_at: String,
    pub(crate) reason: String,
    pub(crate) provisional: bool,
    pub(crate) changed: Option<ChangeDto>,
}

/// What a generation was computed with.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InputsDto {
    /// Since when the layout is valid; null for the first one.
    pub(crate) layout_valid_from: Option<String>,
    /// Fingerprint of the layout.
    pub(crate) layout: String,
    /// Whether the venue still has that layout.
    pub(crate) layout_known: bool,
    /// The zone or line as it was in force.
    #[schema(value_type = Option<Object>)]
    pub(crate) subject: Option<Value>,
    /// Version of the metric definitions.
    pub(crate) definitions: u32,
    /// The jobs whose exclusions were applied.
    pub(crate) exclusions: Vec<String>,
    /// Events of the whole day that they left out.
    pub(crate) excluded_events: u64,
    /// Events of the whole day that counted.
    pub(crate) events_of_day: u64,
    /// Archive files read.
    pub(crate) files: Vec<FileDto>,
}

/// Who sent the events behind a bucket.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct SourcesDto {
    /// Events behind the bucket.
    pub(crate) events: u64,
    /// By sensor, most first; at most a hundred.
    pub(crate) sensors: Vec<ContributionDto>,
    /// By receipt, most first; at most a hundred.
    pub(crate) receipts: Vec<ContributionDto>,
}

/// A share of the events.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ContributionDto {
    /// A sensor, or a receipt.
    pub(crate) name: String,
    pub(crate) events: u64,
}

/// What the events give when they are folded once more.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RecomputedDto {
    /// Whether it is what is published, ingredient by ingredient; null when it could not be computed.
    pub(crate) equal: Option<bool>,
    #[schema(value_type = Option<f64>)]
    pub(crate) value: Number,
    /// Why it could not be computed.
    pub(crate) why_not: Option<String>,
}

/// An event behind a bucket.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventBehindDto {
    pub(crate) kind: &'static str,
    pub(crate) ts: String,
    pub(crate) sensor: String,
    /// Track, line, counter, number or quantity; null for devices.
    pub(crate) key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) x: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) y: Option<f32>,
    /// When it was first received, and by which request or file.
    pub(crate) received_at: String,
    pub(crate) receipt: String,
}
