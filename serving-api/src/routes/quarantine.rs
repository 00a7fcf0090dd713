//! `/v1/quarantine`: what was refused, until somebody has looked at it. Taking entries again is a job (`replay`).

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use dwell_model::ids::{Receipt, VenueId};
use dwell_model::time::{TsMs, parse_ts};
use dwell_storage::api::{
    AuditEntry, QuarantineEntry, QuarantineFilter, QuarantineLeftOut, QuarantineState, audit,
};
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;

use crate::dto::{QUARANTINE_STATES, QuarantineDto, QuarantineEntryDto, QuarantinePageDto};
use crate::extract::{ApiPath, ApiQuery, Caller};
use crate::problem::{self, Problem, clip};
use crate::query::cursor::QueryId;
use crate::query::paging::Page;
use crate::respond::{self, Caching};
use crate::state::AppState;

/// Rows of what was not kept that a list tells.
const LEFT_OUT_MAX: usize = 1_000;
/// Longest `reason`, in bytes.
const REASON_BYTES_MAX: usize = 1_000;

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
    /// Of this sensor, where it is known.
    sensor: Option<String>,
    /// Brought by this request or file: its receipt.
    receipt: Option<String>,
    /// Refused at this time or later: RFC 3339, or milliseconds since 1970.
    from: Option<String>,
    /// Refused before this time.
    to: Option<String>,
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
        sensor: params.sensor.clone(),
        receipt: params.receipt.as_deref().map(receipt_of).transpose()?,
        from: params
            .from
            .as_deref()
            .map(|text| time_of("from", text))
            .transpose()?,
        until: params.to.as_deref().map(|text| time_of("to", text)).transpose()?,
    };
    let named = serde_json::to_string(&filter).map_err(|error| Problem::internal(error.to_string()))?;
    let query = QueryId::of(&[caller.tenant.as_str(), "quarantine", &named]);
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
    // What was not kept is told once, with the first page.
    let left_out = match asked.before() {
        Some(_) => Vec::new(),
        None => quarantine.left_out(&caller.tenant, LEFT_OUT_MAX).await?,
    };
    let fits = |left_out: &QuarantineLeftOut| {
        (filter.venue.is_none() || filter.venue == left_out.venue)
            && filter.code.as_ref().is_none_or(|code| left_out.code == *code)
            && filter
                .source
                .as_ref()
                .is_none_or(|source| left_out.source == *source)
            && (filter.sensor.is_none() || filter.sensor == left_out.sensor)
    };
    let page = QuarantinePageDto {
        entries: entries.iter().map(QuarantineDto::from).collect(),
        next_cursor,
        left_out: left_out.into_iter().filter(fits).map(Into::into).collect(),
    };
    let rows = page.entries.len();
    Ok(respond::with_rows(
        respond::json(&headers, &page, Caching::No)?,
        rows,
    ))
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

/// Why an entry is dropped.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DropParams {
    /// For the record.
    reason: Option<String>,
}

/// Decides that an open entry is rubbish: its bytes are removed for good. Dropping it again changes nothing.
#[utoipa::path(
    post, path = "/v1/quarantine/{entry}/drop", tag = "quarantine",
    params(("entry" = String, Path, description = "Id of the entry"), DropParams),
    responses((status = 200, description = "The entry, dropped", body = QuarantineEntryDto)),
)]
pub(crate) async fn discard(
    State(state): State<AppState>,
    Caller(caller): Caller,
    ApiPath(id): ApiPath<String>,
    ApiQuery(params): ApiQuery<DropParams>,
) -> Result<Response, Problem> {
    if params
        .reason
        .as_ref()
        .is_some_and(|reason| reason.len() > REASON_BYTES_MAX)
    {
        let detail = format!("give at most {REASON_BYTES_MAX} bytes");
        return Err(Problem::parameter("reason", detail));
    }
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
            let entry = AuditEntry {
                at: state.now_ms(),
                who: caller.key_id.clone(),
                action: "quarantine.dropped".to_owned(),
                about: id.clone(),
                reason: params.reason,
                details: json!({ "code": found.code, "source": found.source }),
            };
            audit::record(state.stores().documents.as_ref(), &caller.tenant, &entry).await?;
            found.bytes.clear();
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

fn receipt_of(text: &str) -> Result<Receipt, Problem> {
    text.parse()
        .map_err(|_| Problem::parameter("receipt", format!("{:?} is no receipt", clip(text))))
}

fn time_of(name: &str, text: &str) -> Result<TsMs, Problem> {
    parse_ts(text).map_err(|error| Problem::parameter(name, error.to_string()))
}
