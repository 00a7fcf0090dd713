//! Closed periods and proposals on the wire.

use dwell_model::time::LocalDay;
use dwell_storage::api::documents::Stored;
use dwell_storage::api::periods::{ClosedPeriod, Proposal, ProposalState};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ChangeDto, instant};

/// A request to close a period.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPeriod {
    /// Ids of venues; all of the tenant when left out, also those to come.
    #[serde(default)]
    pub(crate) venues: Option<Vec<String>>,
    /// First local day.
    #[schema(value_type = String, example = "2026-03-01")]
    pub(crate) from: LocalDay,
    /// Last local day, included; over in every venue.
    #[schema(value_type = String, example = "2026-03-31")]
    pub(crate) to: LocalDay,
    /// Why, for the record.
    pub(crate) reason: String,
}

/// A request to open a period again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OpenPeriod {
    /// Why, for the record.
    pub(crate) reason: String,
}

/// The closed periods and what is proposed for their days.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PeriodsDto {
    /// Also those that were opened again.
    pub(crate) periods: Vec<PeriodDto>,
    /// Proposals that wait for approval, by venue and day.
    pub(crate) proposals: Vec<ProposalDto>,
}

/// A closed period.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PeriodDto {
    pub(crate) id: String,
    /// Null for all of the tenant.
    venues: Option<Vec<String>>,
    from: String,
    to: String,
    reason: String,
    closed_by: String,
    closed_at: String,
    /// closed, or open again.
    state: &'static str,
    opened_by: Option<String>,
    opened_at: Option<String>,
    opened_reason: Option<String>,
}

/// A generation proposed for a closed day.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProposalDto {
    pub(crate) venue: String,
    pub(crate) day: String,
    /// The proposed generation.
    pub(crate) generation: u64,
    /// The published one that it would replace.
    pub(crate) replaces: u64,
    /// pending, approving, approved or withdrawn.
    pub(crate) state: &'static str,
    /// The number under which it was published.
    pub(crate) approved_as: Option<u64>,
    pub(crate) proposed_at: String,
    /// Why it was computed.
    pub(crate) reason: String,
    pub(crate) events: u64,
    /// Difference to the published one, in buckets.
    pub(crate) changed: Option<ChangeDto>,
}

impl From<Stored<ClosedPeriod>> for PeriodDto {
    fn from(stored: Stored<ClosedPeriod>) -> Self {
        let period = stored.value;
        let opened = period.opened;
        Self {
            id: stored.id,
            venues: period
                .venues
                .map(|venues| venues.iter().map(ToString::to_string).collect()),
            from: period.from.to_string(),
            to: period.to.to_string(),
            reason: period.reason,
            closed_by: period.closed_by,
            closed_at: instant(period.closed_at),
            state: if opened.is_none() { "closed" } else { "open" },
            opened_at: opened.as_ref().map(|opened| instant(opened.at)),
            opened_by: opened.as_ref().map(|opened| opened.by.clone()),
            opened_reason: opened.map(|opened| opened.reason),
        }
    }
}

impl ProposalDto {
    /// A venue's proposal.
    pub(crate) fn new(venue: &str, proposal: &Proposal) -> Self {
        let info = &proposal.info;
        let (state, approved_as) = match &proposal.state {
            ProposalState::Pending => ("pending", None),
            ProposalState::Approving { .. } => ("approving", None),
            ProposalState::Approved { generation, .. } => ("approved", Some(*generation)),
            ProposalState::Withdrawn => ("withdrawn", None),
        };
        Self {
            venue: venue.to_owned(),
            day: proposal.day.to_string(),
            generation: info.generation,
            replaces: proposal.base,
            state,
            approved_as,
            proposed_at: instant(info.published_at),
            reason: info.reason.clone(),
            events: info.events.values().map(|sum| sum.rows).sum(),
            changed: info.changed.as_ref().map(Into::into),
        }
    }
}
