//! Retention for operators: what would go and why the rest stays, the policy, legal holds, and the last marks.
//!
//! - `GET /v1/retention/plan?venue=&now=&after=`: quick, from what is known: days that nobody has compared with the archive
//!   wait for that. A dry run of the job `retention` compares.
//! - `GET`, `PUT /v1/retention/policy`: how long what is kept.
//! - `GET`, `POST /v1/retention/holds`, `POST /v1/retention/holds/{hold}/lift`.
//! - `GET /v1/retention/marks?venue=`: what the last job was going to remove, and how far it came.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use dwell_model::event::Kind;
use dwell_model::ids::{TenantId, VenueId, VenueKey};
use dwell_model::layout::Venue;
use dwell_model::time::{LocalDay, TsMs, format_rfc3339, parse_ts};
use dwell_retention::holds::{self, Hold, Lifted};
use dwell_retention::{Comparing, Policy, marks, policy};
use dwell_runtime::limits::HumanDuration;
use dwell_serving_api::problem::{self, Problem};
use dwell_storage::access::Principal;
use dwell_storage::api::documents::Stored;
use dwell_storage::api::{AuditEntry, audit};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{OpsState, authorise};

/// Longest reason.
const REASON_CHARS_MAX: usize = 1_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanParams {
    venue: Option<String>,
    now: Option<String>,
    after: Option<String>,
}

/// What would go now, of all venues or of one.
pub(super) async fn plan(
    State(state): State<OpsState>,
    headers: HeaderMap,
    params: Result<Query<PlanParams>, QueryRejection>,
) -> Result<Response, Problem> {
    let caller = authorise(&state, &headers, "operator", Principal::may_operate).await?;
    let Query(params) = params.map_err(bad_query)?;
    let now = match &params.now {
        None => state.clock.now_ms(),
        Some(text) => parse_ts(text).map_err(|error| Problem::parameter("now", error.to_string()))?,
    };
    let after = params
        .after
        .map(|text| text.parse::<LocalDay>())
        .transpose()
        .map_err(|error| Problem::parameter("after", error.to_string()))?;
    let policy = policy_of(&state, &caller.tenant).await?;
    let mut venues = Vec::new();
    for venue in venues_of(&state, &caller.tenant, params.venue.as_deref()).await? {
        let key = VenueKey::new(caller.tenant.clone(), venue.id.clone());
        let decided = state
            .retention
            .decide(
                &key,
                &venue.calendar,
                &policy,
                now,
                after,
                Comparing::No,
                &|_, _, _| {},
                &CancellationToken::new(),
            )
            .await
            .map_err(failed)?;
        venues.push(json!({
            "venue": venue.id,
            "days": decided.plan.days,
            "totals": decided.plan.totals,
            "more_after": decided.through,
            "young": decided.young,
            "next_due_at": decided.next_due_at.map(format_rfc3339),
        }));
    }
    Ok(
        Json(json!({ "now": format_rfc3339(now), "policy": told(&policy), "venues": venues }))
            .into_response(),
    )
}

/// The policy in force.
pub(super) async fn show_policy(
    State(state): State<OpsState>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let caller = authorise(&state, &headers, "operator", Principal::may_operate).await?;
    let stored = policy::stored(&*state.stores.documents, &caller.tenant).await?;
    let is_default = stored.is_none();
    let policy = stored.unwrap_or_else(|| state.retention_policy.clone());
    Ok(Json(json!({ "policy": told(&policy), "is_default": is_default })).into_response())
}

/// What of a policy is to be another. Fields that are left out stay as they are.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyChange {
    raw: Option<HumanDuration>,
    sessions: Option<HumanDuration>,
    generations: Option<HumanDuration>,
    /// Ages of kinds; null for that of all.
    #[serde(default)]
    kinds: BTreeMap<Kind, Option<HumanDuration>>,
    reason: Option<String>,
}

/// Changes the policy.
pub(super) async fn set_policy(
    State(state): State<OpsState>,
    headers: HeaderMap,
    body: Result<Json<PolicyChange>, JsonRejection>,
) -> Result<Response, Problem> {
    let caller = authorise(&state, &headers, "admin", Principal::may_administer).await?;
    let Json(change) = body.map_err(bad_body)?;
    let reason = change.reason.clone().map(checked_reason).transpose()?;
    let apply = |policy: &mut Policy| {
        for (age, set) in [
            (&mut policy.raw_ms, change.raw),
            (&mut policy.sessions_ms, change.sessions),
            (&mut policy.generations_ms, change.generations),
        ] {
            *age = set.map_or(*age, HumanDuration::as_ms);
        }
        for (&kind, age) in &change.kinds {
            match age {
                Some(age) => policy.raw_of_kind_ms.insert(kind, age.as_ms()),
                None => policy.raw_of_kind_ms.remove(&kind),
            };
        }
    };
    let documents = &*state.stores.documents;
    let mut tried = policy_of(&state, &caller.tenant).await?;
    apply(&mut tried);
    tried
        .check()
        .map_err(|error| Problem::new(problem::BAD_BODY, error.to_string()))?;
    let (before, after) = policy::change(documents, &caller.tenant, &state.retention_policy, apply).await?;
    let details = json!({ "before": told(&before), "after": told(&after) });
    record(&state, &caller, "retention.policy", "policy", reason, details).await?;
    Ok(Json(json!({ "policy": told(&after), "before": told(&before) })).into_response())
}

/// All holds, lifted ones too.
pub(super) async fn list_holds(
    State(state): State<OpsState>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let caller = authorise(&state, &headers, "operator", Principal::may_operate).await?;
    let now = state.clock.now_ms();
    let found = holds::list(&*state.stores.documents, &caller.tenant).await?;
    let found: Vec<Value> = found.iter().map(|hold| told_hold(hold, now)).collect();
    Ok(Json(json!({ "holds": found })).into_response())
}

/// A hold to be added.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewHold {
    /// A venue; all of the tenant when left out.
    venue: Option<String>,
    from: Option<LocalDay>,
    to: Option<LocalDay>,
    /// First instant at which it no longer holds.
    until: Option<String>,
    reason: String,
}

/// Adds a hold.
pub(super) async fn add_hold(
    State(state): State<OpsState>,
    headers: HeaderMap,
    body: Result<Json<NewHold>, JsonRejection>,
) -> Result<Response, Problem> {
    let caller = authorise(&state, &headers, "operator", Principal::may_operate).await?;
    let Json(new) = body.map_err(bad_body)?;
    let refuse = |detail: String| Problem::new(problem::BAD_BODY, detail);
    if let (Some(from), Some(to)) = (new.from, new.to)
        && to < from
    {
        return Err(refuse(format!(
            "the last day, {to}, lies before the first, {from}"
        )));
    }
    let venue = match &new.venue {
        None => None,
        Some(id) => venues_of(&state, &caller.tenant, Some(id))
            .await?
            .pop()
            .map(|venue| venue.id),
    };
    let until = new.until.as_deref().map(parse_ts).transpose();
    let hold = Hold {
        venue,
        from: new.from,
        to: new.to,
        reason: checked_reason(new.reason)?,
        until: until.map_err(|error| refuse(format!("until: {error}")))?,
        added_at: state.clock.now_ms(),
        added_by: caller.key_id.clone(),
        lifted: None,
    };
    let id = holds::add(&*state.stores.documents, &caller.tenant, &hold).await?;
    let stored = Stored {
        id: id.clone(),
        version: 1,
        value: hold,
    };
    let answer = told_hold(&stored, state.clock.now_ms());
    let reason = Some(stored.value.reason.clone());
    record(&state, &caller, "hold.add", &id, reason, answer.clone()).await?;
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// Why a hold is lifted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lift {
    reason: String,
}

/// Lifts a hold.
pub(super) async fn lift_hold(
    State(state): State<OpsState>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Result<Json<Lift>, JsonRejection>,
) -> Result<Response, Problem> {
    let caller = authorise(&state, &headers, "operator", Principal::may_operate).await?;
    let Json(lift) = body.map_err(bad_body)?;
    let lifted = Lifted {
        at: state.clock.now_ms(),
        by: caller.key_id.clone(),
        reason: checked_reason(lift.reason)?,
    };
    let documents = &*state.stores.documents;
    let known = holds::list(documents, &caller.tenant).await?;
    if known.iter().all(|hold| hold.id != id) {
        return Err(Problem::not_found("hold", &id));
    }
    let stands = holds::lift(documents, &caller.tenant, &id, &lifted).await?;
    let answer = told_hold(&stands, state.clock.now_ms());
    record(
        &state,
        &caller,
        "hold.lift",
        &id,
        Some(lifted.reason),
        answer.clone(),
    )
    .await?;
    Ok(Json(answer).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MarksParams {
    venue: Option<String>,
}

/// The last mark of each venue; day by day where one is asked for.
pub(super) async fn show_marks(
    State(state): State<OpsState>,
    headers: HeaderMap,
    params: Result<Query<MarksParams>, QueryRejection>,
) -> Result<Response, Problem> {
    let caller = authorise(&state, &headers, "operator", Principal::may_operate).await?;
    let Query(params) = params.map_err(bad_query)?;
    let documents = &*state.stores.documents;
    let found = match params.venue.as_deref() {
        None => marks::all(documents, &caller.tenant).await?,
        Some(id) => {
            let venues = venues_of(&state, &caller.tenant, Some(id)).await?;
            let mut found = Vec::new();
            for venue in venues {
                let mark = marks::load(documents, &caller.tenant, &venue.id).await?;
                found.extend(mark.map(|value| Stored {
                    id: venue.id.to_string(),
                    version: 0,
                    value,
                }));
            }
            found
        }
    };
    let told = found.into_iter().map(|Stored { id, value: mark, .. }| {
        let mut told = json!({
            "venue": id,
            "job": mark.job,
            "made_at": format_rfc3339(mark.made_at),
            "now": format_rfc3339(mark.now),
            "days_marked": mark.days.len(),
            "days_done": mark.done,
            "days_kept": mark.kept.len(),
            "totals": mark.totals,
            "finished_at": mark.finished_at.map(format_rfc3339),
        });
        if params.venue.is_some() {
            told["days"] = json!(mark.days);
            told["kept"] = json!(mark.kept);
            told["policy"] = self::told(&mark.policy);
        }
        told
    });
    Ok(Json(json!({ "marks": told.collect::<Vec<_>>() })).into_response())
}

/// The paths of these routes, for the OpenAPI document.
pub(super) fn document() -> serde_json::Map<String, Value> {
    let parameter = |name: &str, place: &str, about: &str| {
        json!({
            "name": name, "in": place, "required": place == "path", "description": about,
            "schema": { "type": "string" }
        })
    };
    let operation = |summary: &str, parameters: Vec<Value>, status: &str, about: &str| {
        json!({
            "tags": ["retention"], "summary": summary, "parameters": parameters, "security": [{ "bearer": [] }],
            "responses": { status: { "description": about }, "default": { "description": "Problem details" } }
        })
    };
    let venue = || parameter("venue", "query", "Only this venue");
    let paths = [
        (
            "/v1/retention/plan",
            json!({ "get": operation(
                "What would be deleted now, and what holds the rest back (operator)",
                vec![
                    venue(),
                    parameter("now", "query", "As if it were this time (RFC 3339)"),
                    parameter("after", "query", "Only days after this one: `more_after` of the answer before"),
                ],
                "200", "`{now, policy, venues: [{venue, days, totals, more_after, young, next_due_at}]}`") }),
        ),
        (
            "/v1/retention/policy",
            json!({
                "get": operation("How long what is kept (operator)", vec![], "200", "`{policy, is_default}`"),
                "put": operation(
                    "Change it: `{raw, sessions, generations, kinds: {KIND: \"30d\" or null}, reason}` (admin)",
                    vec![], "200", "`{policy, before}`"),
            }),
        ),
        (
            "/v1/retention/holds",
            json!({
                "get": operation("Legal holds, lifted ones too (operator)", vec![], "200", "`{holds}`"),
                "post": operation(
                    "Forbid to delete anything of a venue or range of days: `{venue, from, to, until, reason}` (operator)",
                    vec![], "201", "The hold"),
            }),
        ),
        (
            "/v1/retention/holds/{hold}/lift",
            json!({ "post": operation(
                "Lift a hold: `{reason}` (operator)",
                vec![parameter("hold", "path", "Id of the hold")], "200", "The hold") }),
        ),
        (
            "/v1/retention/marks",
            json!({ "get": operation(
                "What the last retention job marked, and how far it came; day by day of one venue (operator)",
                vec![venue()], "200", "`{marks}`") }),
        ),
    ];
    paths
        .into_iter()
        .map(|(path, item)| (path.to_owned(), item))
        .collect()
}

fn told(policy: &Policy) -> Value {
    let age = |ms: i64| HumanDuration::millis(u64::try_from(ms).unwrap_or(0));
    let kinds: BTreeMap<Kind, HumanDuration> = policy
        .raw_of_kind_ms
        .iter()
        .map(|(&kind, &ms)| (kind, age(ms)))
        .collect();
    json!({
        "raw": age(policy.raw_ms),
        "sessions": age(policy.sessions_ms),
        "generations": age(policy.generations_ms),
        "kinds": kinds,
    })
}

fn told_hold(stored: &Stored<Hold>, now: TsMs) -> Value {
    let hold = &stored.value;
    json!({
        "id": stored.id,
        "venue": hold.venue,
        "from": hold.from,
        "to": hold.to,
        "reason": hold.reason,
        "until": hold.until.map(format_rfc3339),
        "in_force": hold.is_in_force(now),
        "added_at": format_rfc3339(hold.added_at),
        "added_by": hold.added_by,
        "lifted": hold.lifted.as_ref().map(|lifted| json!({
            "at": format_rfc3339(lifted.at), "by": lifted.by, "reason": lifted.reason,
        })),
    })
}

fn checked_reason(reason: String) -> Result<String, Problem> {
    let trimmed = reason.trim();
    match trimmed.is_empty() || trimmed.chars().count() > REASON_CHARS_MAX {
        true => Err(Problem::new(
            problem::BAD_BODY,
            format!("reason: say why, in 1 to {REASON_CHARS_MAX} characters"),
        )),
        false => Ok(trimmed.to_owned()),
    }
}

async fn policy_of(state: &OpsState, tenant: &TenantId) -> Result<Policy, Problem> {
    let stored = policy::stored(&*state.stores.documents, tenant).await?;
    Ok(stored.unwrap_or_else(|| state.retention_policy.clone()))
}

/// The venue that is named, or all.
async fn venues_of(state: &OpsState, tenant: &TenantId, id: Option<&str>) -> Result<Vec<Venue>, Problem> {
    let known = state.stores.registry.venues(tenant).await?;
    let mut venues: Vec<Venue> = known.into_iter().map(|stored| stored.venue).collect();
    if let Some(id) = id {
        let wanted = VenueId::new(id).map_err(|_| Problem::not_found("venue", id))?;
        venues.retain(|venue| venue.id == wanted);
        if venues.is_empty() {
            return Err(Problem::not_found("venue", id));
        }
    }
    Ok(venues)
}

async fn record(
    state: &OpsState,
    caller: &Principal,
    action: &str,
    about: &str,
    reason: Option<String>,
    details: Value,
) -> Result<(), Problem> {
    let entry = AuditEntry {
        at: state.clock.now_ms(),
        who: caller.key_id.clone(),
        action: action.to_owned(),
        about: about.to_owned(),
        reason,
        details,
    };
    Ok(audit::record(&*state.stores.documents, &caller.tenant, &entry).await?)
}

fn bad_query(rejection: QueryRejection) -> Problem {
    Problem::new(problem::BAD_PARAMETER, rejection.body_text())
}

fn bad_body(rejection: JsonRejection) -> Problem {
    Problem::new(problem::BAD_BODY, rejection.body_text())
}

fn failed(error: dwell_retention::Error) -> Problem {
    match error {
        dwell_retention::Error::Storage { doing, source } => source.while_doing(doing).into(),
        other => {
            tracing::error!(error = %other, "the retention plan could not be made");
            Problem::new(
                problem::INTERNAL,
                "the plan could not be made; see the server's log",
            )
        }
    }
}
