//! `/v1/jobs`: ask for work, watch it, stop it.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use dwell_model::ids::VenueId;
use dwell_model::time::{LocalDay, TsMs};
use dwell_storage::access::Principal;
use dwell_storage::api::{Job, JobState, permits};
use dwell_storage::error::ErrorKind;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::auth;
use crate::dto::{JobDto, JobKindDto, JobVenues, JobsDto, LaneDto, NewJob};
use crate::extract::{ApiJson, ApiPath, ApiQuery, Caller};
use crate::ids;
use crate::job_catalogue::JobRequest;
use crate::problem::{self, Problem};
use crate::query::cursor::QueryId;
use crate::query::paging::Page;
use crate::respond::{self, Caching};
use crate::state::AppState;

/// Longest `reason`, in bytes.
const REASON_BYTES_MAX: usize = 1_000;
/// Most venues that a job names one by one.
const VENUES_MAX: usize = 10_000;
/// Most jobs of a tenant that have not ended.
const UNFINISHED_MAX: usize = 500;
/// Most jobs of all tenants that are looked at when they are counted.
const LOOKED_AT_MAX: usize = 10_000;

/// Asks for a job. It is stored, then worked on; watch it under the `Location` that comes back.
#[utoipa::path(
    post, path = "/v1/jobs", tag = "jobs", request_body = NewJob,
    responses(
        (status = 202, description = "Stored; a worker will take it", body = JobDto),
        (status = 403, description = "The key's role is too small, or the tenant is not permitted to reach back"),
    ),
)]
pub(crate) async fn create(
    State(state): State<AppState>,
    Caller(caller): Caller,
    ApiJson(new): ApiJson<NewJob>,
) -> Result<Response, Problem> {
    if new
        .reason
        .as_ref()
        .is_some_and(|reason| reason.len() > REASON_BYTES_MAX)
    {
        return Err(Problem::new(
            problem::BAD_BODY,
            format!("reason is longer than {REASON_BYTES_MAX} bytes"),
        ));
    }
    if let (Some(from), Some(to)) = (new.from, new.to)
        && from > to
    {
        return Err(
            Problem::new(problem::BAD_RANGE, format!("from {from} lies after to {to}")).about("from"),
        );
    }
    auth::authorize(&caller, state.jobs().needs(&new.kind))?;
    let venues = venues(&state, &caller.tenant, new.venues).await?;
    let request = JobRequest {
        tenant: caller.tenant.clone(),
        kind: new.kind,
        venues,
        from: new.from,
        to: new.to,
        dry_run: new.dry_run,
        reason: new.reason.clone(),
        lane: new.lane,
        options: new.options,
    };
    let refused = |refusal: crate::job_catalogue::JobRefusal| Problem::new(problem::BAD_BODY, refusal.0);
    let spec = state.jobs().decide(&request).map_err(refused)?;
    let now = state.now_ms();
    check_permit(&state, &caller, &request, now).await?;
    let job = Job::queued(
        ids::new_job_id(now)?,
        caller.tenant.clone(),
        &request.kind,
        spec,
        caller.key_id.clone(),
        new.reason,
        now,
    )
    .in_lane(state.jobs().lane(&request));
    store(&state, job).await
}

/// Asks for a job that does what another, which has ended, could not do: of kinds that work on days, the days that
/// failed, and no others.
#[utoipa::path(
    post, path = "/v1/jobs/{job}/retry", tag = "jobs",
    params(("job" = String, Path, description = "Id of the job that has ended")),
    responses((status = 202, description = "Stored; a worker will take it", body = JobDto)),
)]
pub(crate) async fn retry(
    State(state): State<AppState>,
    Caller(caller): Caller,
    ApiPath(id): ApiPath<String>,
) -> Result<Response, Problem> {
    let found = state.stores().jobs.get(&caller.tenant, &id).await?;
    let former = found.ok_or_else(|| Problem::not_found("job", &id))?;
    auth::authorize(&caller, state.jobs().needs(&former.kind))?;
    let conflict = |detail: String| Problem::new(problem::CONFLICT, detail);
    match former.state {
        JobState::Partial | JobState::Failed | JobState::Cancelled => {}
        JobState::Succeeded => {
            return Err(conflict(
                "the job has succeeded: nothing is left to do".to_owned(),
            ));
        }
        state => return Err(conflict(format!("the job has not ended: it is {}", state.word()))),
    }
    let spec = state
        .jobs()
        .retry(&former)
        .map_err(|refusal| conflict(refusal.0))?;
    let now = state.now_ms();
    let job = Job::queued(
        ids::new_job_id(now)?,
        caller.tenant.clone(),
        &former.kind,
        spec,
        caller.key_id.clone(),
        former.reason,
        now,
    )
    .in_lane(former.lane);
    store(&state, job).await
}

/// Stores a new job, unless too many have not ended.
async fn store(state: &AppState, job: Job) -> Result<Response, Problem> {
    let unfinished = unfinished(state, &job.tenant).await?.len();
    if unfinished >= UNFINISHED_MAX {
        let detail =
            format!("{unfinished} jobs have not ended, which is the limit; wait for some, or cancel them");
        return Err(Problem::new(problem::TOO_MANY_REQUESTS, detail).retry_after(60));
    }
    state.stores().jobs.create(&job).await?;
    state.jobs().created(&job);
    tracing::info!(
        job = job.id,
        kind = job.kind,
        requested_by = job.requested_by,
        "job created"
    );
    let location = HeaderValue::from_str(&format!("/v1/jobs/{}", job.id));
    let now = job.created_at;
    let mut response = respond::done(StatusCode::ACCEPTED, &JobDto::of(job, now))?;
    if let Ok(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Which page of jobs.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// Jobs per page.
    limit: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Jobs of the tenant, newest first, and the kinds that can be asked for.
#[utoipa::path(
    get, path = "/v1/jobs", tag = "jobs", params(ListParams),
    responses((status = 200, description = "A page of jobs", body = JobsDto)),
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    Caller(caller): Caller,
    headers: HeaderMap,
    ApiQuery(params): ApiQuery<ListParams>,
) -> Result<Response, Problem> {
    let query = QueryId::of(&[caller.tenant.as_str(), "jobs"]);
    let asked = Page::read(
        state.config(),
        params.limit.as_deref(),
        params.cursor.as_deref(),
        query,
    )?;
    let jobs = &state.stores().jobs;
    let mut jobs = jobs
        .list(Some(&caller.tenant), asked.before(), asked.to_read())
        .await?;
    let next_cursor = asked.cut(&mut jobs, |job| &job.id)?;
    let kinds = state
        .jobs()
        .kinds()
        .into_iter()
        .map(|(kind, summary)| JobKindDto { kind, summary })
        .collect();
    let page = JobsDto {
        lanes: LaneDto::all(&unfinished(&state, &caller.tenant).await?),
        jobs: jobs
            .into_iter()
            .map(|job| JobDto::of(job, state.now_ms()))
            .collect(),
        kinds,
        next_cursor,
    };
    respond::json(&headers, &page, Caching::No)
}

/// A job and how far it is.
#[utoipa::path(
    get, path = "/v1/jobs/{job}", tag = "jobs", params(("job" = String, Path, description = "Id of the job")),
    responses((status = 200, description = "The job", body = JobDto)),
)]
pub(crate) async fn get(
    State(state): State<AppState>,
    Caller(caller): Caller,
    headers: HeaderMap,
    ApiPath(id): ApiPath<String>,
) -> Result<Response, Problem> {
    let found = state.stores().jobs.get(&caller.tenant, &id).await?;
    let job = found.ok_or_else(|| Problem::not_found("job", &id))?;
    respond::json(&headers, &JobDto::of(job, state.now_ms()), Caching::No)
}

/// Asks a job to stop: a queued one is cancelled at once, a running one at the next point from which it can be
/// repeated. What it did stays done.
#[utoipa::path(
    post, path = "/v1/jobs/{job}/cancel", tag = "jobs",
    params(("job" = String, Path, description = "Id of the job")),
    responses((status = 202, description = "Asked; watch its state", body = JobDto)),
)]
pub(crate) async fn cancel(
    State(state): State<AppState>,
    Caller(caller): Caller,
    ApiPath(id): ApiPath<String>,
) -> Result<Response, Problem> {
    let jobs = &state.stores().jobs;
    let found = jobs
        .get(&caller.tenant, &id)
        .await?
        .ok_or_else(|| Problem::not_found("job", &id))?;
    if found.state.is_final() {
        let detail = format!("the job has ended already: it is {}", found.state.word());
        return Err(Problem::new(problem::CONFLICT, detail));
    }
    let job = jobs
        .request_cancel(&caller.tenant, &id, state.now_ms())
        .await
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound => Problem::not_found("job", &id),
            _ => Problem::from(error),
        })?;
    tracing::info!(job = job.id, key = %caller.key_id, "job asked to stop");
    respond::done(StatusCode::ACCEPTED, &JobDto::of(job, state.now_ms()))
}

/// Refuses what reaches back further than the tenant is permitted to.
async fn check_permit(
    state: &AppState,
    caller: &Principal,
    request: &JobRequest,
    now: TsMs,
) -> Result<(), Problem> {
    if !permits::is_historical(&request.kind) || caller.runs_installation() {
        return Ok(());
    }
    let documents = state.stores().documents.as_ref();
    let Some(permit) = permits::historical(documents, &request.tenant).await? else {
        return Ok(());
    };
    let known = state.stores().registry.venues(&request.tenant).await?;
    let days = known
        .iter()
        .map(|stored| &stored.venue)
        .filter(|venue| {
            request
                .venues
                .as_ref()
                .is_none_or(|asked| asked.contains(&venue.id))
        })
        .map(|venue| venue.calendar.day_of(now));
    let today = days.max().unwrap_or_else(|| LocalDay::of_utc(now));
    let recent_from = permit.recent_from(today, state.config().recent_days);
    match permit.refusal(&request.kind, request.from, recent_from) {
        None => Ok(()),
        Some(why) => Err(Problem::new(problem::NOT_PERMITTED, why).about("from")),
    }
}

/// The tenant's jobs that have not ended.
async fn unfinished(state: &AppState, tenant: &dwell_model::ids::TenantId) -> Result<Vec<Job>, Problem> {
    let jobs = &state.stores().jobs;
    let mut unfinished = jobs.unfinished(state.now_ms(), LOOKED_AT_MAX).await?;
    unfinished.retain(|job| job.tenant == *tenant);
    Ok(unfinished)
}

/// The venues named, all of which must exist; `None` for all.
async fn venues(
    state: &AppState,
    tenant: &dwell_model::ids::TenantId,
    asked: Option<JobVenues>,
) -> Result<Option<Vec<VenueId>>, Problem> {
    let names = match asked {
        None => return Ok(None),
        Some(JobVenues::Word(word)) if word == "all" => return Ok(None),
        Some(JobVenues::Word(word)) => vec![word],
        Some(JobVenues::Ids(ids)) => ids,
    };
    if names.is_empty() || names.len() > VENUES_MAX {
        let detail = format!("venues must be \"all\" or 1 to {VENUES_MAX} ids");
        return Err(Problem::new(problem::BAD_BODY, detail).about("venues"));
    }
    let known = state.stores().registry.venues(tenant).await?;
    let mut venues: Vec<VenueId> = Vec::with_capacity(names.len());
    for name in names {
        // The registry's list is sorted by id, but that is not promised for ever: look it up plainly.
        let found = known.iter().find(|stored| stored.venue.id.as_str() == name);
        match found {
            Some(stored) if venues.contains(&stored.venue.id) => {}
            Some(stored) => venues.push(stored.venue.id.clone()),
            None => return Err(Problem::not_found("venue", &name).about("venues")),
        }
    }
    Ok(Some(venues))
}
