//! `/v1/quarantine`: what was refused, until somebody has looked at it. Taking entries again is a job (`replay`).

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use dwell_model::ids::VenueId;
use dwell_storage::api::{QuarantineEntry, QuarantineFilter, QuarantineState};
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;

use crate::dto::{QUARANTINE_STATES, QuarantineDto, QuarantineEntryDto, QuarantinePageDto};
use crate::extract::{ApiPath, ApiQuery, Caller};
use crate::problem::{self, Problem, clip};
use crate::query::cursor::QueryId;
use crate::query::paging::Page;
use crate::respond::{self, Caching};
use crate::routes::audit;
use crate::state::AppState;

/// Which entries.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// Of this venue.
    venue: Option<String>,
    /// Refused with this code.
    code: Option<String>,
    /// From this source: `http`, or a file's name.
    source: Option<String>,
    /// open (the default), replayed, dropped or all.
    state: Option<String>,
    /// Entries per page.
    limit: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// What was refused and why, newest first, without the bytes.
#[utoipa::path(
    get, path = "/v1/quarantine", tag = "quarantine", params(ListParams),
    responses((status = 200, description = "A page of entries", body = QuarantinePageDto)),
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    Caller(caller): Caller,
    headers: HeaderMap,
    ApiQuery(params): ApiQuery<ListParams>,
) -> Result<Response, Problem> {
    let venue = match &params.venue {
        Some(id) => Some(VenueId::new(id).map_err(|_| Problem::not_found("venue", id).about("venue"))?),
        None => None,
    };
    let word = params.state.as_deref().unwrap_or("open");
    let filter = QuarantineFilter {
        venue,
        code: params.code.clone(),
        source: params.source.clone(),
        state: state_of(word)?,
    };
    let parts = [
        params.venue.as_deref(),
        params.code.as_deref(),
        params.source.as_deref(),
        Some(word),
    ];
    let parts = parts.map(|part| part.map_or_else(|| "-".to_owned(), |part| format!("={part}")));
    let query = QueryId::of(&[
        caller.tenant.as_str(),
        "quarantine",
        &parts[0],
        &parts[1],
        &parts[2],
        &parts[3],
    ]);
    let asked = Page::read(
        state.config(),
        params.limit.as_deref(),
        params.cursor.as_deref(),
        query,
    )?;
    let quarantine = &state.stores().quarantine;
    let mut entries = quarantine
        .list(&caller.tenant, &filter, asked.before(), asked.to_read())
        .await?;
    let next_cursor = asked.cut(&mut entries, |entry| &entry.id)?;
    let page = QuarantinePageDto {
        entries: entries.iter().map(QuarantineDto::from).collect(),
        next_cursor,
    };
    respond::json(&headers, &page, Caching::No)
}

/// An entry with its bytes, identifiers of devices pseudonymised.
#[utoipa::path(
    get, path = "/v1/quarantine/{entry}", tag = "quarantine",
    params(("entry" = String, Path, description = "Id of the entry")),
    responses((status = 200, description = "The entry", body = QuarantineEntryDto)),
)]
pub(crate) async fn get(
    State(state): State<AppState>,
    Caller(caller): Caller,
    headers: HeaderMap,
    ApiPath(id): ApiPath<String>,
) -> Result<Response, Problem> {
    let entry = entry(&state, &caller.tenant, &id).await?;
    respond::json(&headers, &QuarantineEntryDto::from(entry), Caching::No)
}

/// Decides that an open entry is rubbish. Dropping it again changes nothing.
#[utoipa::path(
    post, path = "/v1/quarantine/{entry}/drop", tag = "quarantine",
    params(("entry" = String, Path, description = "Id of the entry")),
    responses((status = 200, description = "The entry, dropped", body = QuarantineEntryDto)),
)]
pub(crate) async fn discard(
    State(state): State<AppState>,
    Caller(caller): Caller,
    ApiPath(id): ApiPath<String>,
) -> Result<Response, Problem> {
    let mut found = entry(&state, &caller.tenant, &id).await?;
    match found.state {
        QuarantineState::Dropped => {}
        QuarantineState::Replayed => {
            let detail = "the entry's events were taken after all; there is nothing left to drop";
            return Err(Problem::new(problem::CONFLICT, detail));
        }
        QuarantineState::Open => {
            state
                .stores()
                .quarantine
                .set_state(&caller.tenant, &id, QuarantineState::Dropped)
                .await?;
            let details = json!({ "code": found.code, "source": found.source });
            audit::record(
                &state,
                &caller.tenant,
                &caller.key_id,
                "quarantine.dropped",
                &id,
                details,
            )
            .await?;
            tracing::info!(entry = id, key = %caller.key_id, "quarantine entry dropped");
            found.state = QuarantineState::Dropped;
        }
    }
    respond::done(StatusCode::OK, &QuarantineEntryDto::from(found))
}

async fn entry(
    state: &AppState,
    tenant: &dwell_model::ids::TenantId,
    id: &str,
) -> Result<QuarantineEntry, Problem> {
    let found = state.stores().quarantine.get(tenant, id).await?;
    found.ok_or_else(|| Problem::not_found("quarantine entry", id))
}

fn state_of(word: &str) -> Result<Option<QuarantineState>, Problem> {
    if word == "all" {
        return Ok(None);
    }
    let known = QUARANTINE_STATES.iter().find(|(name, _)| *name == word);
    known.map(|(_, state)| Some(*state)).ok_or_else(|| {
        Problem::parameter(
            "state",
            format!("{:?} is no state; use open, replayed, dropped or all", clip(word)),
        )
    })
}
