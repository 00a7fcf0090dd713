//! `/v1/audit`: who did what, when and why.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use dwell_model::ids::TenantId;
use dwell_storage::api::{AuditEntry, audit};
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;

use crate::dto::{AuditDto, AuditPageDto};
use crate::extract::{ApiQuery, Caller};
use crate::problem::Problem;
use crate::query::cursor::QueryId;
use crate::query::paging::Page;
use crate::respond::{self, Caching};
use crate::state::AppState;

/// Which page of the audit.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// Entries per page.
    limit: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// What was done by operators and for them, newest first. Entries are never changed.
#[utoipa::path(
    get, path = "/v1/audit", tag = "jobs", params(ListParams),
    responses((status = 200, description = "A page of the audit", body = AuditPageDto)),
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    Caller(caller): Caller,
    headers: HeaderMap,
    ApiQuery(params): ApiQuery<ListParams>,
) -> Result<Response, Problem> {
    let query = QueryId::of(&[caller.tenant.as_str(), "audit"]);
    let asked = Page::read(
        state.config(),
        params.limit.as_deref(),
        params.cursor.as_deref(),
        query,
    )?;
    let documents = state.stores().documents.as_ref();
    let mut found = audit::list(documents, &caller.tenant, asked.before(), asked.to_read()).await?;
    let next_cursor = asked.cut(&mut found, |(id, _)| id)?;
    let page = AuditPageDto {
        entries: found
            .into_iter()
            .map(|(_, entry)| AuditDto::from(entry))
            .collect(),
        next_cursor,
    };
    respond::json(&headers, &page, Caching::No)
}

/// Writes down what a caller has done.
pub(crate) async fn record(
    state: &AppState,
    tenant: &TenantId,
    who: &str,
    action: &str,
    about: &str,
    details: Value,
) -> Result<(), Problem> {
    let entry = AuditEntry {
        at: state.now_ms(),
        who: who.to_owned(),
        action: action.to_owned(),
        about: about.to_owned(),
        reason: None,
        details,
    };
    Ok(audit::record(state.stores().documents.as_ref(), tenant, &entry).await?)
}
