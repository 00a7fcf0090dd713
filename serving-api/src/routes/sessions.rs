//! `/v1/venues/{venue}/sessions`: stays of single visitors, as the published generations have them.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use dwell_model::ids::VenueKey;
use dwell_model::layout::{Layout, Venue};
use dwell_model::time::LocalDay;
use dwell_storage::api::{GenerationInfo, SessionCursor, StoredSession};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use crate::dto::{SessionDayDto, SessionDetailDto, SessionDto, SessionsDto};
use crate::extract::{ApiPath, ApiQuery, Caller};
use crate::problem::{self, Problem};
use crate::query::as_of::AsOf;
use crate::query::cursor::{self, QueryId};
use crate::query::paging;
use crate::query::range::Range;
use crate::respond::{self, Caching};
use crate::state::AppState;
use crate::views::sources::{self, DaySource, Pins, Sources, Wanted};
use crate::views::trajectory::trajectory;

/// Sessions read from the store at a time.
const CHUNK: usize = 1_000;
/// Chunks read for one page at most: a filter that hardly anything passes ends in a short page, not in a long wait.
const CHUNKS_MAX: usize = 50;
/// Most days of one listing.
const DAYS_MAX: usize = 400;

/// Which sessions.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// One local day (instead of from and to).
    day: Option<String>,
    /// First local day, or an instant; today when left out.
    from: Option<String>,
    /// Last local day (included), or an instant (not included).
    to: Option<String>,
    /// Only sessions with a visit in this zone.
    zone: Option<String>,
    /// As they were published at this instant; or a generation's number, for one day.
    as_of: Option<String>,
    /// Sessions per page.
    limit: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Which computation of a session.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct GetParams {
    /// As it was published at this instant; or the number of a generation of its day.
    as_of: Option<String>,
}

/// Where the next page begins.
#[derive(Debug, Serialize, Deserialize)]
struct Position {
    pins: Pins,
    day: LocalDay,
    after: Option<SessionCursor>,
}

/// Sessions that touch a range, by day, start and id. Days without a published generation have none yet.
#[utoipa::path(
    get, path = "/v1/venues/{venue}/sessions", tag = "sessions",
    params(("venue" = String, Path, description = "Id of the venue"), ListParams),
    responses((status = 200, description = "A page of sessions", body = SessionsDto)),
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    Caller(caller): Caller,
    headers: HeaderMap,
    ApiPath(venue_id): ApiPath<String>,
    ApiQuery(params): ApiQuery<ListParams>,
) -> Result<Response, Problem> {
    let limit = paging::limit(state.config(), params.limit.as_deref())?;
    let as_of = AsOf::parse_option(params.as_of.as_deref(), state.now_ms())?;
    let stored = state.venue_as_of(&caller.tenant, &venue_id, as_of).await?;
    let venue = &stored.venue;
    let key = VenueKey::new(caller.tenant.clone(), venue.id.clone());
    let range = range(&params, venue, state.now_ms())?;
    let days = range.days(&venue.calendar);
    if range.days_len(&venue.calendar) > DAYS_MAX {
        let detail =
            format!("sessions are listed for at most {DAYS_MAX} days at once; ask for a shorter range");
        return Err(Problem::new(problem::BAD_RANGE, detail).about("to"));
    }
    if let Some(zone) = &params.zone
        && !venue
            .layouts
            .iter()
            .any(|layout| layout.zones.iter().any(|known| known.id == *zone))
    {
        let detail = format!("no layout of the venue has a zone {:?}", problem::clip(zone));
        return Err(Problem::parameter("zone", detail));
    }
    let (start, end) = (range.start.to_string(), range.end.to_string());
    let zone = params
        .zone
        .as_ref()
        .map_or_else(String::new, |zone| format!("={zone}"));
    let pinned_by = format!("{as_of:?}");
    let query = QueryId::of(&[
        caller.tenant.as_str(),
        "sessions",
        &venue_id,
        &start,
        &end,
        &zone,
        &pinned_by,
    ]);
    let position = params
        .cursor
        .map(|text| cursor::decode::<Position>(query, &text))
        .transpose()?;
    let wanted = match (&position, as_of) {
        (Some(position), None) => Wanted::Pinned(&position.pins),
        (Some(position), Some(_)) => Wanted::OnlyPinned(&position.pins),
        (None, Some(as_of)) => Wanted::AsOf(as_of),
        (None, None) => Wanted::Published,
    };
    let sources = sources::choose(&state, &key, &venue.calendar, days, wanted).await?;
    let pins = sources.pins(days.0, days.1);
    let from = position.map_or((days.0, None), |position| (position.day, position.after));
    let page = Page {
        state: &state,
        key: &key,
        venue,
        range,
        zone: params.zone.as_deref(),
        limit,
    };
    let (sessions, next) = page.read(&sources, from, days.1).await?;
    let next_cursor = match next {
        Some((day, after)) => Some(cursor::encode(query, &Position { pins, day, after })?),
        None => None,
    };
    let settled = days.0.through(days.1).all(|day| sources.day(day).is_final());
    let answer = SessionsDto {
        venue: venue_id,
        days: day_list(&sources, days),
        sessions,
        next_cursor,
    };
    let rows = answer.sessions.len();
    let caching = match settled {
        true => Caching::SETTLED,
        false => Caching::UNSETTLED,
    };
    Ok(respond::with_rows(
        respond::json(&headers, &answer, caching)?,
        rows,
    ))
}

/// A session with its visits and the way that it took.
#[utoipa::path(
    get, path = "/v1/venues/{venue}/sessions/{session}", tag = "sessions",
    params(
        ("venue" = String, Path, description = "Id of the venue"),
        ("session" = String, Path, description = "Id of the session"),
        GetParams,
    ),
    responses((status = 200, description = "The session", body = SessionDetailDto)),
)]
pub(crate) async fn get(
    State(state): State<AppState>,
    Caller(caller): Caller,
    headers: HeaderMap,
    ApiPath((venue_id, session_id)): ApiPath<(String, String)>,
    ApiQuery(params): ApiQuery<GetParams>,
) -> Result<Response, Problem> {
    let as_of = AsOf::parse_option(params.as_of.as_deref(), state.now_ms())?;
    let stored = state.venue_as_of(&caller.tenant, &venue_id, as_of).await?;
    let key = VenueKey::new(caller.tenant.clone(), stored.venue.id.clone());
    let unknown = || Problem::not_found("session", &session_id);
    // An id begins with its day.
    let day: LocalDay = session_id
        .get(..10)
        .and_then(|day| day.parse().ok())
        .ok_or_else(unknown)?;
    let sources = sources::choose(
        &state,
        &key,
        &stored.venue.calendar,
        (day, day),
        as_of.map_or(Wanted::Published, Wanted::AsOf),
    )
    .await?;
    let DaySource::Batch(info) = sources.day(day) else {
        return Err(unknown());
    };
    let found = state
        .stores()
        .sessions
        .get(&key, day, info.generation, &session_id)
        .await?;
    let found = found.ok_or_else(unknown)?;
    let (trajectory, trajectory_thinned) =
        trajectory(&state, &key, &stored.venue, day, &found.session, info).await?;
    let session = SessionDto::new(&day.to_string(), found, layout_of(&stored.venue, day, info));
    let answer = SessionDetailDto {
        session,
        generation: info.generation,
        trajectory,
        trajectory_thinned,
    };
    respond::json(
        &headers,
        &answer,
        if info.provisional {
            Caching::UNSETTLED
        } else {
            Caching::SETTLED
        },
    )
}

struct Page<'a> {
    state: &'a AppState,
    key: &'a VenueKey,
    venue: &'a Venue,
    range: Range,
    zone: Option<&'a str>,
    limit: usize,
}

/// Where to go on: the day, and the last session looked at.
type Next = Option<(LocalDay, Option<SessionCursor>)>;

impl Page<'_> {
    async fn read(
        &self,
        sources: &Sources,
        (first, mut after): (LocalDay, Option<SessionCursor>),
        last: LocalDay,
    ) -> Result<(Vec<SessionDto>, Next), Problem> {
        let mut page = Vec::new();
        let mut chunks = 0;
        for day in first.through(last) {
            let cursor = after.take();
            let DaySource::Batch(info) = sources.day(day) else {
                continue;
            };
            let mut cursor = cursor;
            loop {
                if chunks == CHUNKS_MAX {
                    return Ok((page, Some((day, cursor))));
                }
                chunks += 1;
                let sessions = &self.state.stores().sessions;
                let chunk = sessions
                    .list(self.key, day, info.generation, cursor.as_ref(), CHUNK)
                    .await?;
                if chunk.is_empty()
                    && cursor.is_none()
                    && info.sessions > 0
                    && sources::is_replaced(self.state, self.key, day, info.generation).await?
                {
                    return Err(sources::gone(day, info.generation));
                }
                let ended = chunk.len() < CHUNK;
                let layout = layout_of(self.venue, day, info);
                for stored in chunk {
                    if page.len() == self.limit {
                        return Ok((page, Some((day, cursor))));
                    }
                    cursor = Some(SessionCursor {
                        start: stored.session.start,
                        id: stored.id.clone(),
                    });
                    if self.accepts(&stored, layout) {
                        page.push(SessionDto::new(&day.to_string(), stored, layout));
                    }
                }
                if ended {
                    break;
                }
            }
        }
        Ok((page, None))
    }

    fn accepts(&self, stored: &StoredSession, layout: Option<&Layout>) -> bool {
        let session = &stored.session;
        let in_range = session.start < self.range.end && session.end >= self.range.start;
        in_range
            && self.zone.is_none_or(|wanted| {
                let zones = layout.map_or(&[][..], |layout| layout.zones.as_slice());
                let is_wanted =
                    |zone: u16| zones.get(usize::from(zone)).is_some_and(|zone| zone.id == wanted);
                session.visits.iter().any(|visit| is_wanted(visit.zone))
            })
    }
}

/// The layout that a generation was computed with, if the venue still has it.
fn layout_of<'a>(venue: &'a Venue, day: LocalDay, info: &GenerationInfo) -> Option<&'a Layout> {
    let in_force = std::iter::once(venue.layout_on(day));
    in_force
        .chain(&venue.layouts)
        .find(|layout| layout.fingerprint() == info.layout)
}

fn range(params: &ListParams, venue: &Venue, now: i64) -> Result<Range, Problem> {
    let ListParams { day, from, to, .. } = params;
    match day {
        Some(_) if from.is_some() || to.is_some() => {
            Err(Problem::parameter("day", "give either day, or from and to"))
        }
        Some(day) => {
            if day.parse::<LocalDay>().is_err() {
                let detail = format!("{:?} is not a day; YYYY-MM-DD is expected", problem::clip(day));
                return Err(Problem::parameter("day", detail));
            }
            Range::parse(Some(day), Some(day), &venue.calendar, now)
        }
        None => Range::parse(from.as_deref(), to.as_deref(), &venue.calendar, now),
    }
}

fn day_list(sources: &Sources, (first, last): (LocalDay, LocalDay)) -> Vec<SessionDayDto> {
    let dto = |day: LocalDay| {
        let source = sources.day(day);
        let published = source.generation().is_some();
        SessionDayDto {
            day: day.to_string(),
            state: if published { "published" } else { "pending" },
            generation: source.generation(),
            provisional: published && source.is_provisional(),
        }
    };
    first.through(last).map(dto).collect()
}
