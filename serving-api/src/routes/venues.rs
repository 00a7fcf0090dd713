//! `/v1/venues`: what there is, and how it is changed.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use dwell_model::ids::{TenantId, VenueKey};
use dwell_model::layout::{Venue, VenueSpec};
use dwell_model::time::{LocalDay, MAX_TS, MIN_TS, VenueCalendar};
use dwell_storage::api::recuts::{self, Asked, Recut, Wish};
use dwell_storage::api::{Flip, StoredVenue};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;

use crate::dto::{
    AffectedDaysDto, AppliedDto, AppliedVenueDto, RecutDto, VenueDetailDto, VenueDto, VenuesDto,
};
use crate::extract::{ApiPath, ApiQuery, Caller, JsonBytes};
use crate::problem::{self, Problem, clip};
use crate::query::text;
use crate::recutting;
use crate::respond::{self, Caching};
use crate::routes::audit;
use crate::state::AppState;

/// Most venues of one file.
const VENUES_MAX: usize = 10_000;
/// How often a venue that somebody else changes at the same time is tried again.
const TRIES: u32 = 3;

/// All venues of the tenant, by id.
#[utoipa::path(
    get, path = "/v1/venues", tag = "venues",
    responses((status = 200, description = "The venues", body = VenuesDto)),
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    Caller(caller): Caller,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let now = state.now_ms();
    let venues = state.stores().registry.venues(&caller.tenant).await?;
    let venues = venues
        .iter()
        .map(|stored| VenueDto::new(&stored.venue, stored.version, now))
        .collect();
    respond::json(&headers, &VenuesDto { venues }, Caching::SETTINGS)
}

/// A venue with the layout in force today.
#[utoipa::path(
    get, path = "/v1/venues/{venue}", tag = "venues",
    params(("venue" = String, Path, description = "Id of the venue")),
    responses((status = 200, description = "The venue", body = VenueDetailDto)),
)]
pub(crate) async fn get(
    State(state): State<AppState>,
    Caller(caller): Caller,
    headers: HeaderMap,
    ApiPath(id): ApiPath<String>,
) -> Result<Response, Problem> {
    let stored = state.venue(&caller.tenant, &id).await?;
    let key = VenueKey::new(caller.tenant, stored.venue.id.clone());
    let recut = recuts::load(state.stores().documents.as_ref(), &key).await?;
    let mut answer = VenueDetailDto::new(&stored.venue, stored.version, state.now_ms());
    answer.recut = recut
        .filter(|recut| recut.value.is_pending())
        .map(|recut| RecutDto::new(Some(recut.value.job), recut.value.to));
    respond::json(&headers, &answer, Caching::SETTINGS)
}

/// How to apply.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ApplyParams {
    /// `true`: only check, and report what would change.
    dry_run: Option<String>,
}

/// Makes or changes venues. A venue's layout replaces the one with the same `valid_from`; venues that the file does not
/// name stay as they are. All are checked before any is stored; each is stored atomically.
#[utoipa::path(
    put, path = "/v1/venues", tag = "venues", params(ApplyParams),
    request_body(
        content = Vec<Value>,
        description = "Array of venues `{id, tz, width, height, zones: [{id, polygon: [[x, y], …]}], …}`; unknown \
                       fields are refused by name",
        example = json!([{
            "id": "v001", "tz": "Europe/Madrid", "width": 20, "height": 12, "open": 9, "close": 21,
            "zones": [{ "id": "entrance", "polygon": [[0, 0], [5, 0], [5, 12], [0, 12]] }],
        }]),
    ),
    responses((status = 200, description = "What changed", body = AppliedDto)),
)]
pub(crate) async fn apply(
    State(state): State<AppState>,
    Caller(caller): Caller,
    ApiQuery(params): ApiQuery<ApplyParams>,
    JsonBytes(bytes): JsonBytes,
) -> Result<Response, Problem> {
    let dry_run = text::switch("dry_run", params.dry_run.as_deref())?;
    let specs = specs(&bytes)?;
    let known = state.stores().registry.venues(&caller.tenant).await?;
    let mut applied = Vec::with_capacity(specs.len());
    for spec in &specs {
        let existing = known.iter().find(|stored| stored.venue.id.as_str() == spec.id);
        let (before, after) = (existing.map(|stored| &stored.venue), to_venue(spec, existing)?);
        applied.push(plan_of(&state, &caller.tenant, before, &after).await?);
    }
    if !dry_run {
        for (spec, applied) in specs.iter().zip(&mut applied) {
            *applied = store(&state, &caller.tenant, spec, &caller.key_id).await?;
            if applied.change != "unchanged" {
                let action = format!("venue.{}", applied.change);
                let details = json!({
                    "valid_from": spec.valid_from,
                    "recomputes_from": applied.recomputes_from,
                    "recomputes_all": applied.recomputes_all,
                    "affected": applied.affected,
                    "recut": applied.recut,
                });
                audit::record(
                    &state,
                    &caller.tenant,
                    &caller.key_id,
                    &action,
                    &applied.id,
                    details,
                )
                .await?;
            }
            tracing::info!(venue = applied.id, change = applied.change, key = %caller.key_id, "venue applied");
        }
    }
    respond::done(
        StatusCode::OK,
        &AppliedDto {
            dry_run,
            venues: applied,
        },
    )
}

/// The venues of a body; what is wrong is named by its place.
fn specs(bytes: &[u8]) -> Result<Vec<VenueSpec>, Problem> {
    let refuse = |detail: String| Problem::new(problem::BAD_BODY, detail);
    let values: Vec<Value> = serde_json::from_slice(bytes)
        .map_err(|error| refuse(format!("the body must be a JSON array of venues: {error}")))?;
    if values.is_empty() || values.len() > VENUES_MAX {
        return Err(refuse(format!(
            "the array has {} venues; give 1 to {VENUES_MAX}",
            values.len()
        )));
    }
    let mut specs: Vec<VenueSpec> = Vec::with_capacity(values.len());
    for (i, value) in values.into_iter().enumerate() {
        let name = value["id"]
            .as_str()
            .map_or_else(String::new, |id| format!(" ({:?})", clip(id)));
        let spec: VenueSpec =
            serde_json::from_value(value).map_err(|error| refuse(format!("venue {i}{name}: {error}")))?;
        if specs
            .iter()
            .any(|other| other.id == spec.id && other.valid_from == spec.valid_from)
        {
            return Err(refuse(format!(
                "venue {i}{name}: stands twice in the file with the same valid_from"
            )));
        }
        specs.push(spec);
    }
    Ok(specs)
}

fn to_venue(spec: &VenueSpec, existing: Option<&StoredVenue>) -> Result<Venue, Problem> {
    let venue = spec.to_venue(existing.map(|stored| &stored.venue));
    venue.map_err(|error| Problem::new(problem::BAD_BODY, error.to_string()))
}

/// Stores a venue on top of what is there, which may be more than was there when the file was checked: an earlier layout
/// of the same file, or what somebody else has stored meanwhile.
///
/// Another time zone or day start of a venue of which there is anything is not stored: its days are cut anew by a job,
/// whose end stores it.
async fn store(
    state: &AppState,
    tenant: &TenantId,
    spec: &VenueSpec,
    by: &str,
) -> Result<AppliedVenueDto, Problem> {
    let registry = &state.stores().registry;
    for _ in 0..TRIES {
        // Checked before: this finds the id that the check has found good.
        let id = to_venue(spec, None)?.id;
        let existing = registry.venue(&VenueKey::new(tenant.clone(), id)).await?;
        let mut venue = to_venue(spec, existing.as_ref())?;
        let before = existing.as_ref().map(|stored| &stored.venue);
        let mut applied = plan_of(state, tenant, before, &venue).await?;
        if let (Some(planned), Some(before)) = (&mut applied.recut, before) {
            let key = VenueKey::new(tenant.clone(), venue.id.clone());
            let job = ask_for_recut(state, &key, before.calendar, venue.calendar, by).await?;
            planned.job = Some(job);
            venue.calendar = before.calendar;
        }
        let is_stored = before == Some(&venue);
        let version = existing.as_ref().map(|stored| stored.version);
        if is_stored || registry.put_venue(tenant, &venue, version).await? == Flip::Done {
            return Ok(applied);
        }
    }
    let detail = format!(
        "venue {:?} is being changed by somebody else; apply the file again",
        clip(&spec.id)
    );
    Err(Problem::new(problem::CONFLICT, detail))
}

/// Has a venue's days cut anew; the job that does it, which may be one that was asked for before.
async fn ask_for_recut(
    state: &AppState,
    venue: &VenueKey,
    from: VenueCalendar,
    to: VenueCalendar,
    by: &str,
) -> Result<String, Problem> {
    let (documents, jobs) = (state.stores().documents.as_ref(), &state.stores().jobs);
    let now = state.now_ms();
    let is_busy = || {
        let detail = format!(
            "the days of {:?} are being cut anew as another file has it; apply this one again when that is done",
            clip(venue.venue.as_str())
        );
        Problem::new(problem::CONFLICT, detail)
    };
    let known = recuts::load(documents, venue).await?.map(|stored| stored.value);
    if let Some(known) = known.filter(Recut::is_pending) {
        if known.is_decided() {
            let jobs = jobs.as_ref();
            let job = recutting::go_on(documents, jobs, state.jobs(), venue, &known, by, now).await?;
            return if known.to == to { Ok(job) } else { Err(is_busy()) };
        }
        if known.to == to && recutting::has_job(jobs.as_ref(), venue, &known).await? {
            return Ok(known.job);
        }
    }
    let job = recutting::queued(state.jobs(), venue, to, by, now)?;
    let wish = Wish {
        job: job.id.clone(),
        from,
        to,
        by: by.to_owned(),
        at: now,
    };
    match recuts::ask(documents, venue, &wish).await? {
        Asked::New(_) | Asked::Standing(_) => {}
        Asked::Superseded(_) | Asked::Flipping(_) => return Err(is_busy()),
    }
    jobs.create(&job).await?;
    state.jobs().created(&job);
    tracing::info!(job = job.id, %venue, "venue's days are to be cut anew");
    Ok(job.id)
}

/// The recut that a change of a venue asks for: of the first events on, a venue's time zone and day start change by a
/// recut only. A file with the published ones takes back one that waits.
async fn planned_recut(
    state: &AppState,
    venue: &VenueKey,
    before: &Venue,
    after: &Venue,
    has_days: bool,
) -> Result<Option<RecutDto>, Problem> {
    if before.calendar == after.calendar {
        let recut = recuts::load(state.stores().documents.as_ref(), venue).await?;
        // Of a decided one the registry may have the new cut already: it is pending until all of it is published.
        let is_pending = recut.is_some_and(|recut| {
            recut.value.is_decided() || (recut.value.is_pending() && recut.value.to != after.calendar)
        });
        return Ok(is_pending.then(|| RecutDto::new(None, after.calendar)));
    }
    let is_needed = has_days || !state.stores().archive.days(venue).await?.is_empty();
    Ok(is_needed.then(|| RecutDto::new(None, after.calendar)))
}

/// What a change comes to: which days' numbers depend on it, and which of those are computed already.
async fn plan_of(
    state: &AppState,
    tenant: &TenantId,
    before: Option<&Venue>,
    after: &Venue,
) -> Result<AppliedVenueDto, Problem> {
    let mut applied = applied_dto(before, after);
    let Some(before) = before else {
        return Ok(applied);
    };
    let venue = VenueKey::new(tenant.clone(), after.id.clone());
    let from = match (applied.recomputes_all, recomputes_from(Some(before), after)) {
        (true, _) => LocalDay::of_utc(MIN_TS).prev(),
        (false, Some(from)) => from,
        (false, None) => {
            applied.recut = planned_recut(state, &venue, before, after, false).await?;
            return Ok(applied);
        }
    };
    let rows = state
        .stores()
        .venue_days
        .list(&venue, from, LocalDay::of_utc(MAX_TS))
        .await?;
    let computed = rows
        .into_iter()
        .filter(|row| row.published.is_some())
        .map(|row| row.day);
    applied.affected = affected(before, after, computed);
    let has_days = applied.affected.count > 0;
    applied.recut = planned_recut(state, &venue, before, after, has_days).await?;
    Ok(applied)
}

/// Of days that were computed, those whose numbers depend on something that changed.
fn affected(before: &Venue, after: &Venue, computed: impl Iterator<Item = LocalDay>) -> AffectedDaysDto {
    let is_affected = |day: &LocalDay| {
        before.calendar != after.calendar
            || before.layout_on(*day).fingerprint() != after.layout_on(*day).fingerprint()
    };
    let mut found = AffectedDaysDto::default();
    for day in computed.filter(is_affected) {
        found.count += 1;
        found.first.get_or_insert_with(|| day.to_string());
        found.last = Some(day.to_string());
    }
    found
}

fn recomputes_from(before: Option<&Venue>, after: &Venue) -> Option<LocalDay> {
    before.and_then(|before| recomputes(before, after).1)
}

fn applied_dto(before: Option<&Venue>, after: &Venue) -> AppliedVenueDto {
    let change = match before {
        None => "created",
        Some(before) if before == after => "unchanged",
        Some(_) => "changed",
    };
    let (all, from) = before.map_or((false, None), |before| recomputes(before, after));
    AppliedVenueDto {
        id: after.id.to_string(),
        change,
        recomputes_from: from.map(|day| day.to_string()),
        recomputes_all: all,
        affected: AffectedDaysDto::default(),
        recut: None,
    }
}

/// From which day on numbers depend on something that changed: (all of them, or the first such day).
fn recomputes(before: &Venue, after: &Venue) -> (bool, Option<LocalDay>) {
    let first = |venue: &Venue| {
        venue
            .layouts
            .first()
            .map(dwell_model::layout::Layout::fingerprint)
    };
    if before.calendar != after.calendar || first(before) != first(after) {
        return (true, None);
    }
    let mut days: Vec<LocalDay> = before
        .layouts
        .iter()
        .chain(&after.layouts)
        .filter_map(|layout| layout.valid_from)
        .collect();
    days.sort_unstable();
    let changed =
        |day: &&LocalDay| before.layout_on(**day).fingerprint() != after.layout_on(**day).fingerprint();
    (false, days.iter().find(changed).copied())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn venue(spec: Value, existing: Option<&Venue>) -> Venue {
        let spec: VenueSpec = serde_json::from_value(spec).unwrap();
        spec.to_venue(existing).unwrap()
    }

    #[test]
    fn a_change_names_the_days_that_it_restates() {
        let square = |side: f64| json!([[0, 0], [side, 0], [side, side], [0, side]]);
        let spec = |side: f64, from: Option<&str>| json!({"id": "v", "tz": "Europe/Madrid", "valid_from": from, "zones": [{"id": "a", "polygon": square(side)}]});
        let first = venue(spec(1.0, None), None);
        assert_eq!(applied_dto(None, &first).change, "created");
        assert_eq!(
            applied_dto(Some(&first), &venue(spec(1.0, None), Some(&first))).change,
            "unchanged"
        );
        let later = venue(spec(2.0, Some("2026-05-01")), Some(&first));
        let applied = applied_dto(Some(&first), &later);
        assert_eq!(
            (
                applied.change,
                applied.recomputes_from.as_deref(),
                applied.recomputes_all
            ),
            ("changed", Some("2026-05-01"), false)
        );
        let moved = venue(json!({"id": "v", "tz": "Asia/Tokyo"}), Some(&first));
        assert!(applied_dto(Some(&first), &moved).recomputes_all);

        let day = |text: &str| text.parse::<LocalDay>().unwrap();
        let computed = || {
            ["2026-04-29", "2026-04-30", "2026-05-01", "2026-05-03"]
                .map(day)
                .into_iter()
        };
        let days = |count, first: &str, last: &str| AffectedDaysDto {
            count,
            first: Some(first.to_owned()),
            last: Some(last.to_owned()),
        };
        assert_eq!(
            affected(&first, &later, computed()),
            days(2, "2026-05-01", "2026-05-03")
        );
        assert_eq!(
            affected(&first, &moved, computed()),
            days(4, "2026-04-29", "2026-05-03")
        );
        assert_eq!(affected(&first, &first, computed()), AffectedDaysDto::default());
    }

    #[test]
    fn a_wrong_file_is_refused_by_place_and_name() {
        let detail = |body: &str| specs(body.as_bytes()).unwrap_err().detail().to_owned();
        assert!(detail("{}").contains("JSON array"));
        assert!(detail("[]").contains("0 venues"));
        let unknown = detail(r#"[{"id": "v", "tz": "UTC", "colour": "red"}]"#);
        assert!(
            unknown.contains("venue 0 (\"v\")") && unknown.contains("colour"),
            "{unknown}"
        );
        assert!(detail(r#"[{"id": "v", "tz": "UTC"}, {"id": "v", "tz": "UTC"}]"#).contains("twice"));
    }
}
