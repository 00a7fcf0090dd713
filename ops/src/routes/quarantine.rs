//! `GET /v1/quarantine/{entry}/look?open=true`: an entry's bytes with the place of the reason, and what would become of it
//! now. Sealed bytes may hold what nobody should read: they are opened only when asked for, and the audit says by whom.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use dwell_ingest::quarantine::{Mark, Replayed};
use dwell_model::time::format_rfc3339;
use dwell_serving_api::problem::{self, Problem};
use dwell_storage::access::Principal;
use dwell_storage::api::{AuditEntry, QuarantineEncoding, QuarantineState, audit};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{OpsState, authorise};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LookParams {
    #[serde(default)]
    open: bool,
}

/// Shows an entry.
pub(super) async fn look(
    State(state): State<OpsState>,
    Path(id): Path<String>,
    headers: HeaderMap,
    params: Result<Query<LookParams>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let caller = authorise(&state, &headers, "operator", Principal::may_operate).await?;
    let Query(params) =
        params.map_err(|rejection| Problem::new(problem::BAD_PARAMETER, rejection.body_text()))?;
    let found = state.stores.quarantine.get(&caller.tenant, &id).await?;
    let entry = found.ok_or_else(|| Problem::not_found("quarantine entry", &id))?;
    let sealed = entry.encoding == QuarantineEncoding::Encrypted;
    if sealed && params.open {
        // Before they are shown: nobody reads what the audit does not know of.
        let record = AuditEntry {
            at: state.clock.now_ms(),
            who: caller.key_id.clone(),
            action: "quarantine.opened".to_owned(),
            about: id.clone(),
            reason: None,
            details: json!({ "code": entry.code, "source": entry.source }),
        };
        audit::record(&*state.stores.documents, &caller.tenant, &record).await?;
    }
    let look = state.replayer.look(&entry, params.open).await?;
    let (text, hex) = match look.bytes.map(String::from_utf8) {
        None => (None, None),
        Some(Ok(text)) => (Some(text), None),
        Some(Err(error)) => (None, Some(hex::encode(error.into_bytes()))),
    };
    let state_word = match entry.state {
        QuarantineState::Open => "open",
        QuarantineState::Replayed => "replayed",
        QuarantineState::Dropped => "dropped",
    };
    Ok(Json(json!({
        "id": entry.id,
        "venue": entry.venue,
        "source": entry.source,
        "sensor": entry.sensor,
        "received_at": format_rfc3339(entry.received_at),
        "receipt": entry.receipt.to_string(),
        "index": entry.index,
        "code": entry.code,
        "message": entry.message,
        "format": entry.format,
        "state": state_word,
        "sealed": sealed,
        "readable": text.is_some() || hex.is_some(),
        "mark": look.mark.as_ref().map(|mark| told(mark, text.as_deref())),
        "text": text,
        "hex": hex,
        "now": verdict(look.now),
    })))
}

/// OpenAPI of this route.
pub(super) fn document() -> serde_json::Map<String, Value> {
    let parameter = |name: &str, place: &str, required: bool, about: &str| {
        json!({
            "name": name, "in": place, "required": required, "description": about, "schema": { "type": "string" }
        })
    };
    let paths = json!({
        "/v1/quarantine/{entry}/look": { "get": {
            "tags": ["quarantine"],
            "summary": "An entry's bytes with the place of the reason, and what would become of it now (operator)",
            "parameters": [
                parameter("entry", "path", true, "Id of the entry"),
                parameter("open", "query", false, "true: open sealed bytes, while their key exists; the audit records it"),
            ],
            "security": [{ "bearer": [] }],
            "responses": {
                "200": { "description": "`{id, …, sealed, readable, text, hex, mark: {start, len, line, column, field, text}, now: {outcome, code, message}}`" },
                "default": { "description": "Problem details" },
            },
        } },
    });
    match paths {
        Value::Object(paths) => paths,
        _ => serde_json::Map::new(),
    }
}

fn told(mark: &Mark, text: Option<&str>) -> Value {
    json!({
        "start": mark.start,
        "len": mark.len,
        "line": mark.line,
        "column": mark.column,
        "field": mark.field,
        "text": text.and_then(|text| text.get(mark.start..mark.start + mark.len)),
    })
}

fn verdict(now: Replayed) -> Value {
    let (outcome, code, message) = match now {
        Replayed::Taken => ("taken", None, None),
        Replayed::Refused { code, message } => ("refused", Some(code), Some(message)),
        Replayed::Unreadable => ("unreadable", None, None),
        Replayed::NotOpen => ("not_open", None, None),
        Replayed::Erased => ("erased", None, None),
    };
    json!({ "outcome": outcome, "code": code, "message": message })
}
