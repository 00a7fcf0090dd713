//! `/v1/venues/{venue}/days`: how sure the numbers of each day are, and why.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use dwell_model::definitions;
use dwell_model::exclusion::Exclusion;
use dwell_model::ids::VenueKey;
use dwell_model::layout::Venue;
use dwell_model::time::{DAY_MS, LocalDay, MAX_TS, SLOT_MS};
use dwell_storage::api::periods::{self, ClosedPeriods, Proposal};
use dwell_storage::api::{Marks, VenueDay, exclusions, recuts};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::dto::{DayDto, DayHistoryDto, DaysDto, GenerationDto, ProposalDto, instant};
use crate::extract::{ApiPath, ApiQuery, Caller};
use crate::problem::{self, Problem};
use crate::query::cursor::{self, QueryId};
use crate::query::range::Range;
use crate::query::text;
use crate::respond::{self, Caching};
use crate::state::AppState;
use crate::views::day_status::{self, DayState};
use crate::views::judge;
use crate::views::sources::{self, DaySource, Sources, Wanted};

/// Days of a page when the request does not say.
const PAGE_DEFAULT: usize = 400;
/// Without `from`, events of days that were never computed are looked for so far back.
const LOOK_BACK_MS: i64 = 400 * DAY_MS;

/// Which days.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// First local day. Without `from` and `to`, all days that anything is known of.
    from: Option<String>,
    /// Last local day, included.
    to: Option<String>,
    /// Days per page.
    limit: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Days with state, generation, completeness, late events, drift and files.
#[utoipa::path(
    get, path = "/v1/venues/{venue}/days", tag = "days",
    params(("venue" = String, Path, description = "Id of the venue"), ListParams),
    responses((status = 200, description = "A page of days, ascending", body = DaysDto)),
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    Caller(caller): Caller,
    headers: HeaderMap,
    ApiPath(venue_id): ApiPath<String>,
    ApiQuery(params): ApiQuery<ListParams>,
) -> Result<Response, Problem> {
    let config = state.config();
    let limit = text::limit(params.limit.as_deref(), PAGE_DEFAULT, config.page_entries_max)?;
    let stored = state.venue(&caller.tenant, &venue_id).await?;
    let venue = &stored.venue;
    let key = VenueKey::new(caller.tenant.clone(), venue.id.clone());
    let bound = |end: &Option<String>| end.clone().unwrap_or_default();
    let query = QueryId::of(&[
        caller.tenant.as_str(),
        "days",
        &venue_id,
        &bound(&params.from),
        &bound(&params.to),
    ]);
    let after = params
        .cursor
        .as_ref()
        .map(|text| cursor::decode::<LocalDay>(query, text))
        .transpose()?;
    let mut days = days(&state, &key, venue, &params).await?;
    if let Some(after) = after {
        days.retain(|day| *day > after);
    }
    let more = days.len() > limit;
    days.truncate(limit);
    let next_cursor = match days.last().filter(|_| more) {
        Some(last) => Some(cursor::encode(query, last)?),
        None => None,
    };
    let days = describe(&state, &key, venue, &days).await?;
    let answer = DaysDto {
        venue: venue_id,
        tz: venue.calendar.tz().name().to_owned(),
        days,
        next_cursor,
    };
    let rows = answer.days.len();
    let response = respond::json(&headers, &answer, Caching::UNSETTLED)?;
    Ok(respond::with_rows(response, rows))
}

/// Everything that was ever published of a day: when, why, what it changed, who was late.
#[utoipa::path(
    get, path = "/v1/venues/{venue}/days/{day}", tag = "days",
    params(
        ("venue" = String, Path, description = "Id of the venue"),
        ("day" = String, Path, description = "Local day (2026-03-01)"),
    ),
    responses((status = 200, description = "The generations of the day, newest first", body = DayHistoryDto)),
)]
pub(crate) async fn get(
    State(state): State<AppState>,
    Caller(caller): Caller,
    headers: HeaderMap,
    ApiPath((venue_id, day)): ApiPath<(String, String)>,
) -> Result<Response, Problem> {
    let stored = state.venue(&caller.tenant, &venue_id).await?;
    let day: LocalDay = day.parse().map_err(|_| {
        let detail = format!("{:?} is not a day; YYYY-MM-DD is expected", problem::clip(&day));
        Problem::parameter("day", detail)
    })?;
    let key = VenueKey::new(caller.tenant.clone(), stored.venue.id.clone());
    let days = state.stores().venue_days.as_ref();
    let rows = recuts::list_under(days, &key, &stored.venue.calendar, day, day).await?;
    let row = rows.into_iter().next();
    let mut history = state.stores().venue_days.history(&key, day).await?;
    if let Some(current) = row.as_ref().and_then(|row| row.published.as_ref()) {
        // What is staged for a recut was never published.
        history.retain(|info| info.generation <= current.generation);
    }
    let before = history.iter().skip(1).map(|info| Some(info.generation));
    let generations = history.iter().zip(before.chain([None]));
    let proposal = periods::proposal(state.stores().documents.as_ref(), &key, day).await?;
    let answer = DayHistoryDto {
        proposed: proposal.map(|stored| ProposalDto::new(&venue_id, &stored.value)),
        venue: venue_id,
        tz: stored.venue.calendar.tz().name().to_owned(),
        day: day.to_string(),
        generation: row.and_then(|row| row.published).map(|info| info.generation),
        generations: generations
            .map(|(info, before)| GenerationDto::new(info, before))
            .collect(),
    };
    respond::json(&headers, &answer, Caching::UNSETTLED)
}

/// The days to be listed: those of the range, or all of which anything is known.
async fn days(
    state: &AppState,
    key: &VenueKey,
    venue: &Venue,
    params: &ListParams,
) -> Result<Vec<LocalDay>, Problem> {
    let now = state.now_ms();
    if params.from.is_some() || params.to.is_some() {
        let range = Range::parse(params.from.as_deref(), params.to.as_deref(), &venue.calendar, now)?;
        if range.days_len(&venue.calendar) > state.config().range_days_max {
            let detail = format!(
                "at most {} days are listed; ask for a shorter range",
                state.config().range_days_max
            );
            return Err(Problem::new(problem::BAD_RANGE, detail).about("to"));
        }
        let (first, last) = range.days(&venue.calendar);
        return Ok(first.through(last).collect());
    }
    let ever = (venue.calendar.day_of(0), venue.calendar.day_of(MAX_TS - 1));
    let leased = state.stores().venue_days.list(key, ever.0, ever.1).await?;
    let marked = state
        .stores()
        .raw
        .marked_slots(key, (now - LOOK_BACK_MS).max(0)..now + DAY_MS)
        .await?;
    let live = state.live().venue(key).await?;
    let mut days: Vec<LocalDay> = leased.iter().map(|row| row.day).collect();
    // A slot may lie in two days, where days do not begin on a full ten minutes.
    let instants = |slot: i64| [slot * SLOT_MS, (slot + 1) * SLOT_MS - 1];
    days.extend(
        marked
            .iter()
            .flat_map(|(slot, _)| instants(*slot))
            .map(|ts| venue.calendar.day_of(ts)),
    );
    days.extend(live.iter().flat_map(|live| &live.days).map(|day| day.day));
    days.sort_unstable();
    days.dedup();
    Ok(days)
}

async fn describe(
    state: &AppState,
    key: &VenueKey,
    venue: &Venue,
    days: &[LocalDay],
) -> Result<Vec<DayDto>, Problem> {
    let (Some(&first), Some(&last)) = (days.first(), days.last()) else {
        return Ok(Vec::new());
    };
    let stores = state.stores();
    let rows = recuts::list_under(stores.venue_days.as_ref(), key, &venue.calendar, first, last).await?;
    let rows: BTreeMap<LocalDay, VenueDay> = rows.into_iter().map(|row| (row.day, row)).collect();
    let sources = sources::choose(state, key, &venue.calendar, (first, last), Wanted::Current).await?;
    let span = venue.calendar.bounds(first).0..venue.calendar.bounds(last).1;
    let slots = stores.raw.marked_slots(key, span).await?;
    let exclusions = exclusions::in_force(&*stores.documents, key).await?;
    let shares = judge::completeness_of_days(state, key, venue, &sources, days).await?;
    let closed = ClosedPeriods::read(stores.documents.as_ref(), &key.tenant).await?;
    let proposals: BTreeMap<LocalDay, Proposal> = match closed.is_empty() {
        true => BTreeMap::new(),
        false => periods::proposals(stores.documents.as_ref(), key)
            .await?
            .into_iter()
            .map(|proposal| (proposal.day, proposal))
            .collect(),
    };
    let now = state.now_ms();
    let described = days.iter().zip(shares).map(|(&day, completeness)| {
        let cut = venue.calendar.cut(day);
        let row = rows.get(&day);
        let marks = day_status::marks_of_day(&slots, &cut);
        describe_day(Described {
            venue,
            cut,
            row,
            sources: &sources,
            marks,
            exclusions: &exclusions,
            completeness,
            closed: closed.close(key, day),
            proposal: proposals.get(&day),
            now,
        })
    });
    Ok(described.collect())
}

struct Described<'a> {
    venue: &'a Venue,
    cut: dwell_model::time::DayCut,
    row: Option<&'a VenueDay>,
    sources: &'a Sources,
    marks: Marks,
    exclusions: &'a [Exclusion],
    completeness: Option<f64>,
    closed: bool,
    proposal: Option<&'a Proposal>,
    now: i64,
}

fn describe_day(given: Described<'_>) -> DayDto {
    let Described {
        venue,
        cut,
        row,
        sources,
        marks,
        exclusions,
        completeness,
        closed,
        proposal,
        now,
    } = given;
    let proposal = proposal
        .filter(|proposal| closed && proposal.stands_beside(row.and_then(|row| row.published.as_ref())));
    let source: &DaySource = sources.day(cut.day);
    let info = row.and_then(|row| row.published.as_ref());
    // What has been proposed is not computed again for the same input.
    let computed = proposal.map(|proposal| &proposal.info).or(info);
    let dirty_because = day_status::dirty_because(
        computed,
        &marks,
        venue,
        &cut,
        definitions::VERSION,
        exclusions,
        now,
    );
    let by_kind = info
        .iter()
        .flat_map(|info| &info.events)
        .map(|(kind, sum)| (kind.name(), sum.rows));
    DayDto {
        day: cut.day.to_string(),
        state: DayState::of(source, &marks, &cut, now).word(),
        start: instant(cut.start),
        end: instant(cut.end),
        length_ms: cut.end - cut.start,
        generation: info.map(|info| info.generation),
        published_at: info.map(|info| instant(info.published_at)),
        dirty: !dirty_because.is_empty(),
        dirty_because,
        closed,
        proposed: proposal.map(|proposal| ProposalDto::new(venue.id.as_str(), proposal)),
        running: row
            .and_then(|row| row.lease.as_ref())
            .is_some_and(|(_, expires_at)| *expires_at > now),
        lagging: info.is_some_and(|info| info.lagging),
        reason: info.map(|info| info.reason.clone()),
        completeness,
        events: info.map(|info| info.events.values().map(|sum| sum.rows).sum()),
        events_by_kind: by_kind.collect(),
        conflicts: info.map(|info| info.conflicts),
        sessions: info.map(|info| info.sessions),
        rows: info.map(|info| info.rows),
        duration_ms: info.map(|info| info.duration_ms),
        definitions: info.map(|info| info.definitions),
        late: info.map(|info| (&info.late).into()),
        drift: info.and_then(|info| info.drift.as_ref()).map(Into::into),
        changed: info.and_then(|info| info.changed.as_ref()).map(Into::into),
        exclusions: info.map(|info| info.exclusions.jobs.clone()).unwrap_or_default(),
        excluded_events: info.map(|info| info.exclusions.excluded.values().sum()),
        files: info.iter().flat_map(|info| &info.files).map(Into::into).collect(),
    }
}
