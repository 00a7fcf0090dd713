//! Exclusions on the wire.

use dwell_model::exclusion::Exclusion;
use serde::Serialize;
use utoipa::ToSchema;

use super::instant;

/// Deliveries that do not count, until they are brought back.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExclusionDto {
    /// The job `revert` that made it.
    id: String,
    venue: String,
    /// in_force or ended.
    state: &'static str,
    /// What it covers: events of this sensor; null for any.
    sensor: Option<String>,
    /// What came with this receipt; null for any. A receipt is covered whole, whenever it is delivered.
    receipt: Option<String>,
    /// Events from this instant on; null for all.
    from_time: Option<String>,
    /// Events before this instant; null for all.
    to_time: Option<String>,
    /// What was received before this instant; null where a receipt is named.
    received_before: Option<String>,
    reason: String,
    /// Public id of the key that asked for it.
    made_by: String,
    made_at: String,
    /// When it was undone.
    ended_at: Option<String>,
    /// The job `undo` that ended it.
    ended_job: Option<String>,
    ended_by: Option<String>,
    ended_reason: Option<String>,
    /// The local days that it has a part in, as stretches with both ends.
    days: Vec<DayStretchDto>,
    /// Number of these days.
    day_count: usize,
    /// Whether everything received before it was made has been looked through for such days.
    searched: bool,
}

/// A stretch of days.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DayStretchDto {
    first: String,
    /// Included.
    last: String,
}

/// A page of exclusions, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExclusionsDto {
    pub(crate) exclusions: Vec<ExclusionDto>,
    /// Cursor of the next page; null on the last.
    pub(crate) next_cursor: Option<String>,
}

impl From<Exclusion> for ExclusionDto {
    fn from(exclusion: Exclusion) -> Self {
        let stretch = |(first, last): (_, _)| DayStretchDto {
            first: format!("{first}"),
            last: format!("{last}"),
        };
        let state = if exclusion.is_in_force() {
            "in_force"
        } else {
            "ended"
        };
        let received_before = exclusion
            .scope
            .receipt
            .is_none()
            .then(|| instant(exclusion.made_at));
        let (mut ended_at, mut ended_job, mut ended_by, mut ended_reason) = (None, None, None, None);
        if let Some(ended) = exclusion.ended {
            ended_at = Some(instant(ended.at));
            ended_job = Some(ended.job);
            ended_by = Some(ended.by);
            ended_reason = ended.reason;
        }
        Self {
            venue: exclusion.venue.to_string(),
            state,
            receipt: exclusion.scope.receipt.map(|receipt| receipt.to_string()),
            from_time: exclusion.scope.from.map(instant),
            to_time: exclusion.scope.to.map(instant),
            sensor: exclusion.scope.sensor,
            received_before,
            reason: exclusion.reason,
            made_by: exclusion.made_by,
            made_at: instant(exclusion.made_at),
            ended_at,
            ended_job,
            ended_by,
            ended_reason,
            day_count: exclusion.days.len(),
            days: exclusion.days.stretches().into_iter().map(stretch).collect(),
            searched: exclusion.is_searched,
            id: exclusion.id,
        }
    }
}
