//! `/v1/periods`: periods whose published numbers change only when somebody approves it.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use dwell_model::ids::{TenantId, VenueKey};
use dwell_storage::access::Principal;
use dwell_storage::api::documents::{self, Stored};
use dwell_storage::api::periods::{self, ClosedPeriod, Opened};
use dwell_storage::api::recuts::Recut;
use dwell_storage::api::{AuditEntry, StoredVenue, audit};
use serde_json::json;

use crate::dto::{NewPeriod, OpenPeriod, PeriodDto, PeriodsDto, ProposalDto};
use crate::extract::{ApiJson, ApiPath, Caller};
use crate::problem::{self, Problem};
use crate::respond::{self, Caching};
use crate::state::AppState;

/// Longest `reason`, in bytes.
const REASON_BYTES_MAX: usize = 1_000;

/// Closed periods, and the proposals that wait.
#[utoipa::path(
    get, path = "/v1/periods", tag = "periods",
    responses((status = 200, description = "Periods by first day, and open proposals", body = PeriodsDto)),
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    Caller(caller): Caller,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let documents = state.stores().documents.as_ref();
    let periods = documents::all::<ClosedPeriod>(documents, &caller.tenant).await?;
    let mut proposals = Vec::new();
    for stored in venues(&state, &caller.tenant).await? {
        let key = VenueKey::new(caller.tenant.clone(), stored.venue.id.clone());
        let open = periods::proposals(documents, &key).await?;
        let open = open.iter().filter(|proposal| proposal.is_open());
        proposals.extend(open.map(|proposal| ProposalDto::new(stored.venue.id.as_str(), proposal)));
    }
    let answer = PeriodsDto {
        periods: periods.into_iter().map(Into::into).collect(),
        proposals,
    };
    respond::json(&headers, &answer, Caching::No)
}

/// Closes a period: what runs compute for its days from now on is proposed, and published only when it is approved
/// (a job `approve`). Days of which nothing final is published are not held back. 409 while a venue's days are being
/// published in another cut.
#[utoipa::path(
    post, path = "/v1/periods", tag = "periods", request_body = NewPeriod,
    responses((status = 201, description = "Closed", body = PeriodDto)),
)]
pub(crate) async fn close(
    State(state): State<AppState>,
    Caller(caller): Caller,
    ApiJson(new): ApiJson<NewPeriod>,
) -> Result<Response, Problem> {
    let reason = reason(new.reason)?;
    if new.from > new.to {
        let detail = format!("from {} lies after to {}", new.from, new.to);
        return Err(Problem::new(problem::BAD_RANGE, detail).about("from"));
    }
    let known = venues(&state, &caller.tenant).await?;
    let named = |stored: &&StoredVenue| {
        let ids = new.venues.as_ref();
        ids.is_none_or(|ids| ids.iter().any(|id| id == stored.venue.id.as_str()))
    };
    let closed: Vec<&StoredVenue> = known.iter().filter(named).collect();
    if let Some(unknown) = new
        .venues
        .iter()
        .flatten()
        .find(|id| !closed.iter().any(|stored| stored.venue.id.as_str() == *id))
    {
        return Err(Problem::not_found("venue", unknown).about("venues"));
    }
    if new.venues.as_ref().is_some_and(Vec::is_empty) {
        return Err(Problem::parameter(
            "venues",
            "name a venue, or leave out venues for all",
        ));
    }
    let now = state.now_ms();
    if let Some(open) = closed
        .iter()
        .find(|stored| stored.venue.calendar.day_of(now) <= new.to)
    {
        let detail = format!(
            "{} is not over in {}; only days that are over can be closed",
            new.to, open.venue.id
        );
        return Err(Problem::new(problem::BAD_RANGE, detail).about("to"));
    }
    let recuts = documents::all::<Recut>(state.stores().documents.as_ref(), &caller.tenant).await?;
    let is_of = |recut: &Stored<Recut>| closed.iter().any(|venue| venue.venue.id.as_str() == recut.id);
    if let Some(recut) = recuts
        .iter()
        .find(|recut| recut.value.is_decided() && is_of(recut))
    {
        let detail = format!(
            "the days of {} are being cut anew, and all their numbers change: close the period when that is done",
            recut.id
        );
        return Err(Problem::new(problem::CONFLICT, detail));
    }
    let period = ClosedPeriod {
        venues: new
            .venues
            .is_some()
            .then(|| closed.iter().map(|stored| stored.venue.id.clone()).collect()),
        from: new.from,
        to: new.to,
        reason,
        closed_by: caller.key_id.clone(),
        closed_at: now,
        opened: None,
    };
    let documents = state.stores().documents.as_ref();
    let id = periods::close(documents, &caller.tenant, &period).await?;
    record(&state, &caller, "period.close", &id, &period).await?;
    let stored = Stored {
        id,
        version: 1,
        value: period,
    };
    respond::done(StatusCode::CREATED, &PeriodDto::from(stored))
}

/// Opens a period again: its days are computed and published as any others from now on. Doing it twice changes nothing.
#[utoipa::path(
    post, path = "/v1/periods/{period}/open", tag = "periods", request_body = OpenPeriod,
    params(("period" = String, Path, description = "Id of the period")),
    responses((status = 200, description = "Open", body = PeriodDto)),
)]
pub(crate) async fn open(
    State(state): State<AppState>,
    Caller(caller): Caller,
    ApiPath(id): ApiPath<String>,
    ApiJson(body): ApiJson<OpenPeriod>,
) -> Result<Response, Problem> {
    let opened = Opened {
        at: state.now_ms(),
        by: caller.key_id.clone(),
        reason: reason(body.reason)?,
    };
    let documents = state.stores().documents.as_ref();
    let stored = periods::open(documents, &caller.tenant, &id, &opened).await?;
    let stored = stored.ok_or_else(|| Problem::not_found("period", &id))?;
    if stored.value.opened.as_ref() == Some(&opened) {
        record(&state, &caller, "period.open", &id, &stored.value).await?;
    }
    respond::done(StatusCode::OK, &PeriodDto::from(stored))
}

async fn venues(state: &AppState, tenant: &TenantId) -> Result<Vec<StoredVenue>, Problem> {
    Ok(state.stores().registry.venues(tenant).await?)
}

fn reason(text: String) -> Result<String, Problem> {
    let length = text.trim().len();
    if (1..=REASON_BYTES_MAX).contains(&length) {
        return Ok(text.trim().to_owned());
    }
    let detail = format!("say why, in 1 to {REASON_BYTES_MAX} bytes");
    Err(Problem::parameter("reason", detail))
}

async fn record(
    state: &AppState,
    caller: &Principal,
    action: &str,
    id: &str,
    period: &ClosedPeriod,
) -> Result<(), Problem> {
    let why = period
        .opened
        .as_ref()
        .map_or(&period.reason, |opened| &opened.reason);
    let entry = AuditEntry {
        at: state.now_ms(),
        who: caller.key_id.clone(),
        action: action.to_owned(),
        about: id.to_owned(),
        reason: Some(why.clone()),
        details: json!({ "venues": period.venues, "from": period.from, "to": period.to }),
    };
    Ok(audit::record(state.stores().documents.as_ref(), &caller.tenant, &entry).await?)
}
