//! The feed of publications on the wire.

use std::collections::BTreeMap;

use dwell_model::metrics::{AggregateRow, Number, Transition, Value, numbers};
use dwell_storage::api::publications::Publication;
use serde::Serialize;
use utoipa::ToSchema;

use super::{ChangeDto, instant, local};
use crate::views::series::Subject;

/// Publications of a venue, by number.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChangesDto {
    pub(crate) venue: String,
    pub(crate) tz: String,
    /// The slice of the buckets: all, open or staff; left out where the request names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) slice: Option<&'static str>,
    pub(crate) changes: Vec<PublicationDto>,
    /// `since` of the next request, once all pages have been read.
    pub(crate) next: u64,
    /// The highest number of the feed now.
    pub(crate) last: u64,
    /// Cursor of the next page; null when the feed has been read to its end.
    pub(crate) next_cursor: Option<String>,
}

/// A published generation and what it restated.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PublicationDto {
    /// Its number in the venue's feed: only grows.
    pub(crate) number: u64,
    pub(crate) day: String,
    pub(crate) generation: u64,
    /// The generation that it replaced; null for a day's first.
    pub(crate) before: Option<u64>,
    pub(crate) published_at: String,
    /// When it got its number.
    pub(crate) listed_at: String,
    /// Computed while the day was open.
    pub(crate) provisional: bool,
    /// Why it was computed.
    pub(crate) reason: String,
    /// How many buckets of all slices it changed, heat maps and sensors' health included; null for a day's first.
    pub(crate) changed: Option<ChangeDto>,
    /// What to do with a copy: `buckets` (set those listed, drop those without `after`), `day` (drop everything of the
    /// day, then set those listed), `nothing` (its numbers are no longer kept: a later entry of the day has them).
    pub(crate) replaces: &'static str,
    /// The first buckets of this entry were on the page before.
    pub(crate) continued: bool,
    /// Further buckets of this entry are on the next page.
    pub(crate) continues: bool,
    pub(crate) buckets: Vec<RestatedDto>,
}

/// A bucket that a generation restated.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct RestatedDto {
    /// hour or day.
    pub(crate) grain: &'static str,
    pub(crate) start: String,
    pub(crate) start_local: String,
    pub(crate) length_ms: i64,
    /// zone, line, transition, counter, reading, transaction, presence or traffic.
    pub(crate) family: &'static str,
    /// As in /metrics; a layer for transitions.
    pub(crate) subject: String,
    /// A counter's mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mode: Option<&'static str>,
    /// The numbers by metric; null where the bucket is new, or what was there is no longer kept.
    #[schema(value_type = Option<Object>)]
    pub(crate) before: Option<NumbersDto>,
    /// The numbers by metric; null where the bucket is gone.
    #[schema(value_type = Option<Object>)]
    pub(crate) after: Option<NumbersDto>,
}

/// A bucket's numbers: by metric, or a layer's transitions.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum NumbersDto {
    /// By metric; null where there is no such number (the median of no visits).
    Metrics(BTreeMap<&'static str, Number>),
    /// How often visitors went from a zone to the next.
    Transitions {
        /// By zone left, then zone entered.
        transitions: Vec<Transition>,
    },
}

impl PublicationDto {
    /// An entry without its buckets.
    pub(crate) fn new(entry: &Publication, replaces: &'static str) -> Self {
        Self {
            number: entry.number,
            day: entry.day.to_string(),
            generation: entry.generation,
            before: entry.before,
            published_at: instant(entry.published_at),
            listed_at: instant(entry.listed_at),
            provisional: entry.provisional,
            reason: entry.reason.clone(),
            changed: entry.changed.as_ref().map(Into::into),
            replaces,
            continued: false,
            continues: false,
            buckets: Vec::new(),
        }
    }
}

impl RestatedDto {
    /// A bucket by its rows; `None` without either.
    pub(crate) fn new(
        before: Option<&AggregateRow>,
        after: Option<&AggregateRow>,
        offset_ms: i64,
    ) -> Option<Self> {
        let row = after.or(before)?;
        let subject = Subject::of_row(row.family, &row.subject);
        let mode = match &subject {
            Some(Subject::Counter { mode, .. }) => Some(mode.word()),
            _ => None,
        };
        Some(Self {
            grain: row.grain.word(),
            start: instant(row.start),
            start_local: local(row.start, offset_ms),
            length_ms: row.length_ms,
            family: row.family.word(),
            subject: subject.map_or_else(|| row.subject.clone(), |subject| subject.label()),
            mode,
            before: before.map(NumbersDto::of),
            after: after.map(NumbersDto::of),
        })
    }
}

impl NumbersDto {
    /// The numbers of a row.
    pub(crate) fn of(row: &AggregateRow) -> Self {
        match &row.value {
            Value::Transition(transitions) => Self::Transitions {
                transitions: transitions.clone(),
            },
            _ => Self::Metrics(numbers(row)),
        }
    }
}
