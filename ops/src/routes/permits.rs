//! Permits: which tenants may have days of the past recomputed and restored by their own operators.
//!
//! - `GET /v1/permits` → `{permits}`: that of the caller's tenant; of all tenants for those who run the installation.
//! - `PUT /v1/permits/{tenant}` `{historical, reason, contact, recent_days}`: for those who run the installation alone. It
//!   counts at once, and stands in the audit of the tenant and of the installation.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use dwell_model::ids::TenantId;
use dwell_model::time::format_rfc3339;
use dwell_serving_api::problem::{self, Problem};
use dwell_storage::access::Principal;
use dwell_storage::api::permits::{self, HISTORICAL_JOBS, HistoricalPermit};
use dwell_storage::api::{AuditEntry, audit};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{OpsState, authorise};

/// Longest reason and contact.
const TEXT_CHARS_MAX: usize = 1_000;
/// Most recent days: ten years.
const RECENT_DAYS_MAX: u32 = 3_660;

/// What the past is to a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Historical {
    /// Its operators may have it worked on again.
    Allowed,
    /// They may not.
    Denied,
}

/// A permit as somebody sets it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewPermit {
    historical: Historical,
    reason: String,
    #[serde(default)]
    contact: Option<String>,
    #[serde(default)]
    recent_days: Option<u32>,
}

/// The permits that the caller may see.
pub(super) async fn list(State(state): State<OpsState>, headers: HeaderMap) -> Result<Json<Value>, Problem> {
    let caller = authorise(&state, &headers, "operator", Principal::may_operate).await?;
    let tenants = match caller.runs_installation() {
        true => state.stores.registry.tenants().await?,
        false => vec![caller.tenant.clone()],
    };
    let mut listed = Vec::with_capacity(tenants.len());
    for tenant in tenants {
        let permit = permits::historical(state.stores.documents.as_ref(), &tenant).await?;
        listed.push(told(&tenant, permit.as_ref(), state.recent_days));
    }
    Ok(Json(json!({ "permits": listed })))
}

/// Sets a tenant's permit.
pub(super) async fn set(
    State(state): State<OpsState>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
    body: Result<Json<NewPermit>, JsonRejection>,
) -> Result<Json<Value>, Problem> {
    let caller = authorise(
        &state,
        &headers,
        "admin of the installation's own tenant",
        Principal::runs_installation,
    )
    .await?;
    let Json(new) = body.map_err(|rejection| Problem::new(problem::BAD_BODY, rejection.body_text()))?;
    let unknown = || Problem::not_found("tenant", &tenant);
    let tenant = TenantId::new(&tenant).map_err(|_| unknown())?;
    if !state.stores.registry.tenants().await?.contains(&tenant) {
        return Err(Problem::not_found("tenant", tenant.as_str()));
    }
    if new.recent_days.is_some_and(|days| days > RECENT_DAYS_MAX) {
        let detail = format!("recent_days may be at most {RECENT_DAYS_MAX}");
        return Err(Problem::new(problem::BAD_BODY, detail));
    }
    let now = state.clock.now_ms();
    let permit = HistoricalPermit {
        allowed: new.historical == Historical::Allowed,
        reason: text("reason", new.reason)?,
        contact: new.contact.map(|contact| text("contact", contact)).transpose()?,
        recent_days: new.recent_days,
        set_by: caller.key_id.clone(),
        set_at: now,
    };
    let documents = state.stores.documents.as_ref();
    permits::set_historical(documents, &tenant, &permit).await?;
    let answer = told(&tenant, Some(&permit), state.recent_days);
    let entry = AuditEntry {
        at: now,
        who: caller.key_id.clone(),
        action: "permit.set".to_owned(),
        about: tenant.to_string(),
        reason: Some(permit.reason.clone()),
        details: answer.clone(),
    };
    audit::record(documents, &tenant, &entry).await?;
    if caller.tenant != tenant {
        audit::record(documents, &caller.tenant, &entry).await?;
    }
    Ok(Json(answer))
}

/// OpenAPI of these routes.
pub(super) fn document() -> serde_json::Map<String, Value> {
    let operation = |summary: &str, parameters: Value, about: &str| {
        json!({
            "tags": ["jobs"], "summary": summary, "parameters": parameters, "security": [{ "bearer": [] }],
            "responses": { "200": { "description": about }, "default": { "description": "Problem details" } }
        })
    };
    let tenant = json!([{
        "name": "tenant", "in": "path", "required": true, "description": "The tenant", "schema": { "type": "string" }
    }]);
    let permit = "`{tenant, historical, recent_days, jobs, reason, contact, set_by, set_at}`";
    let paths = json!({
        "/v1/permits": { "get": operation(
            "Which tenants may have days of the past worked on again: the caller's, or all for who runs the installation \
             (operator)",
            json!([]), &format!("`{{permits: [{permit}]}}`")) },
        "/v1/permits/{tenant}": { "put": operation(
            "Allow or deny a tenant the recompute and restore of days of the past: `{historical: allowed|denied, reason, \
             contact, recent_days}` (admin of the installation's own tenant)",
            tenant, permit) },
    });
    match paths {
        Value::Object(paths) => paths,
        _ => serde_json::Map::new(),
    }
}

fn told(tenant: &TenantId, permit: Option<&HistoricalPermit>, recent_days: u32) -> Value {
    let word = match permit.is_none_or(|permit| permit.allowed) {
        true => "allowed",
        false => "denied",
    };
    json!({
        "tenant": tenant,
        "historical": word,
        "recent_days": permit.and_then(|permit| permit.recent_days).unwrap_or(recent_days),
        "jobs": HISTORICAL_JOBS,
        "reason": permit.map(|permit| &permit.reason),
        "contact": permit.and_then(|permit| permit.contact.as_ref()),
        "set_by": permit.map(|permit| &permit.set_by),
        "set_at": permit.map(|permit| format_rfc3339(permit.set_at)),
    })
}

fn text(what: &str, text: String) -> Result<String, Problem> {
    let trimmed = text.trim();
    match (1..=TEXT_CHARS_MAX).contains(&trimmed.chars().count()) {
        true => Ok(trimmed.to_owned()),
        false => Err(Problem::new(
            problem::BAD_BODY,
            format!("{what}: give 1 to {TEXT_CHARS_MAX} characters"),
        )),
    }
}

#[cfg(test)]
mod tests;
