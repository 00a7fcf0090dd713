//! `/v1/schedules`: the jobs that are asked for by themselves.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use dwell_model::ids::TenantId;
use dwell_serving_api::problem::{self, Problem};
use dwell_storage::access::Principal;
use dwell_storage::api::{AuditEntry, audit, documents, permits};
use serde_json::{Value, json};

use super::{OpsState, authorise};
use crate::schedule::{Schedule, standings};

/// Most schedules of a tenant.
const SCHEDULES_MAX: usize = 200;

/// All schedules: how each stands, of each venue where it has a job per venue.
pub(super) async fn list(State(state): State<OpsState>, headers: HeaderMap) -> Result<Response, Problem> {
    let caller = authorise(&state, &headers, "operator", Principal::may_operate).await?;
    let standings = standings(&state.stores, &caller.tenant, state.clock.now_ms())
        .await
        .map_err(|error| Problem::new(problem::UNAVAILABLE, format!("{error:#}")))?;
    let schedules: Vec<Value> = standings
        .into_iter()
        .map(|(schedule, standing)| {
            json!({
                "name": standing.name,
                "venue": standing.venue,
                "schedule": schedule,
                "last": standing.last,
                "last_state": standing.last_state,
                "next": standing.next,
            })
        })
        .collect();
    Ok(Json(json!({ "schedules": schedules })).into_response())
}

/// Makes or changes a schedule. What was due before counts as answered.
pub(super) async fn put(
    State(state): State<OpsState>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Result<Json<Value>, JsonRejection>,
) -> Result<Response, Problem> {
    let caller = authorise(&state, &headers, "operator", Principal::may_operate).await?;
    let refuse = |detail: String| Problem::new(problem::BAD_BODY, detail);
    let Json(body) = body.map_err(|rejection| refuse(rejection.body_text()))?;
    let mut schedule: Schedule = serde_json::from_value(body).map_err(|error| refuse(error.to_string()))?;
    let others = all(&state, &caller.tenant).await?;
    if others.len() >= SCHEDULES_MAX && !others.iter().any(|(other, _)| *other == name) {
        let detail = format!("the tenant has {SCHEDULES_MAX} schedules, which is the limit");
        return Err(Problem::new(problem::CONFLICT, detail));
    }
    may_ask_for(&state, &caller, &schedule.kind)?;
    schedule
        .check(&caller.tenant, &name, &others, state.kinds.as_ref())
        .map_err(|refusal| refuse(refusal.0))?;
    let known = state.stores.registry.venues(&caller.tenant).await?;
    for venue in schedule.venues.iter().flatten() {
        if !known.iter().any(|stored| stored.venue.id == *venue) {
            return Err(Problem::not_found("venue", venue.as_str()).about("venues"));
        }
    }
    let permit = permits::historical(state.stores.documents.as_ref(), &caller.tenant).await?;
    if let Some(why) = permit.and_then(|permit| permit.schedule_refusal(&schedule.kind)) {
        return Err(Problem::new(problem::NOT_PERMITTED, why).about("kind"));
    }
    schedule.since = state.clock.now_ms();
    schedule.removed = false;
    schedule.built_in = false;
    change(&state, &caller, &name, "schedule.put", |_| Some(schedule.clone())).await
}

/// Lets a schedule do nothing until it is resumed.
pub(super) async fn pause(
    State(state): State<OpsState>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let caller = authorise(&state, &headers, "operator", Principal::may_operate).await?;
    change(&state, &caller, &name, "schedule.paused", |known| {
        known.filter(|known| !known.removed).map(|known| Schedule {
            paused: true,
            ..known.clone()
        })
    })
    .await
}

/// Lets a schedule go on. What was due meanwhile is left out.
pub(super) async fn resume(
    State(state): State<OpsState>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let caller = authorise(&state, &headers, "operator", Principal::may_operate).await?;
    let now = state.clock.now_ms();
    change(&state, &caller, &name, "schedule.resumed", |known| {
        known
            .filter(|known| !known.removed)
            .map(|known| match known.paused {
                true => Schedule {
                    paused: false,
                    since: now,
                    ..known.clone()
                },
                false => known.clone(),
            })
    })
    .await
}

/// Takes a schedule back.
pub(super) async fn remove(
    State(state): State<OpsState>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let caller = authorise(&state, &headers, "operator", Principal::may_operate).await?;
    let others = all(&state, &caller.tenant).await?;
    // Built-in ones find something else to come after.
    let waits = |other: &Schedule| !other.built_in && other.after.contains(&name);
    if let Some((waiting, _)) = others.iter().find(|(_, other)| waits(other)) {
        let detail = format!("{waiting:?} waits for it; change that schedule first");
        return Err(Problem::new(problem::CONFLICT, detail));
    }
    change(&state, &caller, &name, "schedule.removed", |known| {
        known.filter(|known| !known.removed).map(|known| Schedule {
            removed: true,
            // A built-in one that an operator has removed does not come back.
            built_in: false,
            ..known.clone()
        })
    })
    .await
}

/// Whether the caller's key may ask for jobs of a kind.
fn may_ask_for(state: &OpsState, caller: &Principal, kind: &str) -> Result<(), Problem> {
    match state.kinds.needs(kind) <= caller.role {
        true => Ok(()),
        false => Err(Problem::new(
            problem::FORBIDDEN,
            format!("a schedule of the kind {kind} needs a key with the role admin"),
        )),
    }
}

/// The schedules that there are.
async fn all(state: &OpsState, tenant: &TenantId) -> Result<Vec<(String, Schedule)>, Problem> {
    let all = documents::all::<Schedule>(state.stores.documents.as_ref(), tenant).await?;
    let standing = all.into_iter().filter(|stored| !stored.value.removed);
    Ok(standing.map(|stored| (stored.id, stored.value)).collect())
}

/// Changes a schedule and writes down who did; `NotFound` when there is none to change.
async fn change(
    state: &OpsState,
    caller: &Principal,
    name: &str,
    action: &str,
    mut change: impl FnMut(Option<&Schedule>) -> Option<Schedule>,
) -> Result<Response, Problem> {
    let table = state.stores.documents.as_ref();
    let mut changed = false;
    let stands = documents::update::<Schedule>(table, &caller.tenant, name, |known| {
        let next = change(known);
        changed = next.is_some();
        next
    })
    .await?;
    let Some(stands) = stands.filter(|_| changed) else {
        return Err(Problem::not_found("schedule", name));
    };
    let entry = AuditEntry {
        at: state.clock.now_ms(),
        who: caller.key_id.clone(),
        action: action.to_owned(),
        about: name.to_owned(),
        reason: None,
        details: json!(stands.value),
    };
    audit::record(table, &caller.tenant, &entry).await?;
    Ok((
        StatusCode::OK,
        Json(json!({ "name": name, "schedule": stands.value })),
    )
        .into_response())
}
