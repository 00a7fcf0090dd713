//! `GET /v1/usage?from=&to=[&venue=][&tenant=]`: what was asked for and taken in per day, and what lies where by age.
//!
//! A tenant's key sees its tenant; those who run the installation see all, or the one that they name.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;
use dwell_model::ids::{TenantId, VenueId, VenueKey};
use dwell_model::time::{DAY_MS, LocalDay};
use dwell_retention::records;
use dwell_serving_api::problem::{self, Problem};
use dwell_storage::access::Principal;
use dwell_storage::usage::{self, Amounts, UsageOfDay};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{OpsState, authorise};

/// Most days of one answer.
const DAYS_MAX: i64 = 400;
/// Days told where nothing else is asked for.
const DAYS_DEFAULT: i64 = 31;
/// Ages by which stored bytes are told, in days: up to these, and older.
const AGES: [i64; 4] = [7, 31, 90, 365];
/// What a raw row takes, measured in the embedded tables (docs/capacity.md).
const RAW_ROW_BYTES: u64 = 54;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UsageParams {
    from: Option<LocalDay>,
    to: Option<LocalDay>,
    venue: Option<String>,
    tenant: Option<String>,
}

/// Usage of days, and what is stored now.
pub(super) async fn show(
    State(state): State<OpsState>,
    headers: HeaderMap,
    params: Result<Query<UsageParams>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let caller = authorise(&state, &headers, "operator", Principal::may_operate).await?;
    let Query(params) =
        params.map_err(|rejection| Problem::new(problem::BAD_PARAMETER, rejection.body_text()))?;
    let today = LocalDay::of_utc(state.clock.now_ms());
    let to = params.to.unwrap_or(today);
    let from = params.from.unwrap_or_else(|| back(to, DAYS_DEFAULT - 1));
    let days = i64::from(to.to_epoch_days()) - i64::from(from.to_epoch_days()) + 1;
    if !(1..=DAYS_MAX).contains(&days) {
        let detail = format!("from {from} to {to} are {days} days; ask for 1 to {DAYS_MAX}");
        return Err(Problem::new(problem::BAD_RANGE, detail).about("from"));
    }
    let mut tenants = Vec::new();
    for tenant in tenants_of(&state, &caller, params.tenant.as_deref()).await? {
        let known: Vec<VenueId> = state
            .stores
            .registry
            .venues(&tenant)
            .await?
            .into_iter()
            .map(|stored| stored.venue.id)
            .collect();
        let venue = match &params.venue {
            None => None,
            Some(id) => match known.iter().find(|venue| venue.as_str() == id) {
                Some(venue) => Some(venue.clone()),
                // Another tenant may have it.
                None if caller.runs_installation() && params.tenant.is_none() => continue,
                None => return Err(Problem::not_found("venue", id).about("venue")),
            },
        };
        let documents = state.stores.documents.as_ref();
        let days = usage::read(documents, &tenant, from, to, venue.as_ref()).await?;
        let mut stored = Vec::new();
        for id in known
            .into_iter()
            .filter(|id| venue.is_none() || venue.as_ref() == Some(id))
        {
            let key = VenueKey::new(tenant.clone(), id);
            stored.push(stored_of(&state, &key, today).await?);
        }
        tenants.push(json!({
            "tenant": tenant,
            "days": days.iter().map(told).collect::<Vec<_>>(),
            "total": total(&days),
            "stored": stored,
        }));
    }
    if tenants.is_empty() {
        let id = params.venue.as_deref().unwrap_or_default();
        return Err(Problem::not_found("venue", id).about("venue"));
    }
    Ok(Json(json!({ "from": from, "to": to, "tenants": tenants })))
}

/// Counts the requests of these routes, for the tenant whose key they carry.
pub(super) async fn count(State(state): State<OpsState>, request: Request, next: Next) -> Response {
    let module = usage::module_of(request.uri().path());
    let key = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.split_once(' '))
        .map(|(_, key)| key.trim().to_owned());
    let response = next.run(request).await;
    // Verified a moment ago by the route itself: from the cache.
    if let Some(key) = key
        && let Ok(Some(principal)) = state.verifier.verify(&key).await
    {
        let amounts = Amounts::request(0);
        state.usage.count(&principal.tenant, None, module, "", amounts);
    }
    response
}

/// OpenAPI of this route.
pub(super) fn document() -> serde_json::Map<String, Value> {
    let parameter = |name: &str, about: &str| {
        json!({
            "name": name, "in": "query", "required": false, "description": about, "schema": { "type": "string" }
        })
    };
    let paths = json!({
        "/v1/usage": { "get": {
            "tags": ["jobs"],
            "summary": "Requests, rows and events per day, venue and module, and bytes stored by age (operator)",
            "parameters": [
                parameter("from", "First day, of UTC; 31 days up to the last when left out"),
                parameter("to", "Last day, included; today when left out"),
                parameter("venue", "Only this venue"),
                parameter("tenant", "Only this tenant; for who runs the installation"),
            ],
            "security": [{ "bearer": [] }],
            "responses": {
                "200": { "description": "`{from, to, tenants: [{tenant, days: [{day, venue, modules, events}], total, stored}]}`" },
                "default": { "description": "Problem details" },
            },
        } },
    });
    match paths {
        Value::Object(paths) => paths,
        _ => serde_json::Map::new(),
    }
}

async fn tenants_of(
    state: &OpsState,
    caller: &Principal,
    asked: Option<&str>,
) -> Result<Vec<TenantId>, Problem> {
    if !caller.runs_installation() {
        return match asked {
            Some(other) if other != caller.tenant.as_str() => {
                Err(Problem::not_found("tenant", other).about("tenant"))
            }
            _ => Ok(vec![caller.tenant.clone()]),
        };
    }
    let mut all = state.stores.registry.tenants().await?;
    if let Some(asked) = asked {
        all.retain(|tenant| tenant.as_str() == asked);
        if all.is_empty() {
            return Err(Problem::not_found("tenant", asked).about("tenant"));
        }
    }
    Ok(all)
}

/// Bytes of a venue by age, from what is recorded of its days: nothing is read but those records.
async fn stored_of(state: &OpsState, venue: &VenueKey, today: LocalDay) -> Result<Value, Problem> {
    let (first, last) = LocalDay::first_and_last();
    let days = state.stores.venue_days.list(venue, first, last).await?;
    let swept = records::all(state.stores.documents.as_ref(), venue).await?;
    let mut ages = vec![Stored::default(); AGES.len() + 1];
    for day in days {
        let Some(info) = day.published else { continue };
        let age = i64::from(today.to_epoch_days()) - i64::from(day.day.to_epoch_days());
        let place = AGES.iter().position(|most| age <= *most).unwrap_or(AGES.len());
        let of_age = &mut ages[place];
        of_age.days += 1;
        of_age.archive_files += info.files.len() as u64;
        of_age.archive_bytes += info.files.iter().map(|file| file.bytes).sum::<u64>();
        let is_swept = swept.get(&day.day).and_then(|record| record.swept.as_ref());
        of_age.raw_events += match is_swept {
            Some(swept) => swept.left.values().sum(),
            None => info.events.values().map(|sum| sum.rows).sum::<u64>(),
        };
    }
    let mut from_days = 0;
    let ages: Vec<Value> = ages
        .iter()
        .enumerate()
        .map(|(number, stored)| {
            let told = json!({
                "from_days": from_days,
                "to_days": AGES.get(number),
                "days": stored.days,
                "archive_files": stored.archive_files,
                "archive_bytes": stored.archive_bytes,
                "raw_events": stored.raw_events,
                "raw_bytes_estimated": stored.raw_events * RAW_ROW_BYTES,
            });
            from_days = AGES.get(number).map_or(from_days, |most| most + 1);
            told
        })
        .collect();
    Ok(json!({ "venue": venue.venue, "by_age": ages }))
}

/// What is stored of days of one age.
#[derive(Debug, Clone, Default)]
struct Stored {
    days: u64,
    archive_files: u64,
    archive_bytes: u64,
    raw_events: u64,
}

fn told(usage: &UsageOfDay) -> Value {
    let mut told = amounts_told(
        usage
            .by
            .iter()
            .map(|((module, source), amounts)| (module, source, amounts)),
    );
    told["day"] = json!(usage.day);
    told["venue"] = json!(usage.venue);
    told
}

fn total(days: &[UsageOfDay]) -> Value {
    let mut sums = usage::DayUsage::new();
    for (name, amounts) in days.iter().flat_map(|day| &day.by) {
        sums.entry(name.clone()).or_default().add(*amounts);
    }
    amounts_told(
        sums.iter()
            .map(|((module, source), amounts)| (module, source, amounts)),
    )
}

/// Requests and rows by module; events by source.
fn amounts_told<'a>(all: impl Iterator<Item = (&'a String, &'a String, &'a Amounts)>) -> Value {
    let (mut modules, mut events) = (serde_json::Map::new(), serde_json::Map::new());
    for (module, source, amounts) in all {
        match source.is_empty() {
            true => modules.insert(
                module.clone(),
                json!({ "requests": amounts.requests, "rows": amounts.rows }),
            ),
            false => events.insert(
                source.clone(),
                json!({ "taken": amounts.taken, "refused": amounts.refused }),
            ),
        };
    }
    json!({ "modules": modules, "events": events })
}

/// A day so many days before.
fn back(day: LocalDay, days: i64) -> LocalDay {
    let ms = (i64::from(day.to_epoch_days()) - days) * DAY_MS;
    LocalDay::of_utc(ms)
}
