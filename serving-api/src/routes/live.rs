//! `/v1/venues/{venue}/live`: what happens now, once or as a stream.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use dwell_model::ids::VenueKey;
use dwell_model::layout::{VENUE_ZONE, Venue};
use dwell_model::metrics::Slice;
use dwell_runtime::limits::GatePermit;
use dwell_storage::api::LiveVenue;
use futures::stream::{self, Stream};
use serde::Deserialize;
use tokio::sync::watch;
use utoipa::IntoParams;

use crate::dto::LiveDto;
use crate::extract::{ApiPath, ApiQuery, Caller};
use crate::metrics;
use crate::problem::{self, Problem};
use crate::query::slice;
use crate::respond::{self, Caching};
use crate::state::AppState;
use crate::views::live_day::{self, LiveRows};
use crate::views::sources::DaySource;

/// How to look at the open day.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// Which events count in today's hours: all (default), open (within opening hours) or staff. Who is where now is told
    /// of everybody.
    slice: Option<String>,
}

impl Params {
    /// The slice that is named.
    fn slice(&self) -> Result<Option<Slice>, Problem> {
        let slice = slice::parse(self.slice.as_deref())?;
        Ok(self.slice.as_ref().map(|_| slice))
    }
}

/// Who is where now, and today's hours so far. `zones` lists every zone and `_venue` with its `occupancy`.
#[utoipa::path(
    get, path = "/v1/venues/{venue}/live", tag = "live",
    params(("venue" = String, Path, description = "Id of the venue"), Params),
    responses((status = 200, description = "The venue now", body = LiveDto)),
)]
pub(crate) async fn get(
    State(state): State<AppState>,
    Caller(caller): Caller,
    headers: HeaderMap,
    ApiPath(venue_id): ApiPath<String>,
    ApiQuery(params): ApiQuery<Params>,
) -> Result<Response, Problem> {
    let slice = params.slice()?;
    let stored = state.venue(&caller.tenant, &venue_id).await?;
    let key = VenueKey::new(caller.tenant.clone(), stored.venue.id.clone());
    let live = state.live().venue(&key).await?;
    respond::json(
        &headers,
        &dto(&stored.venue, live.as_deref(), state.now_ms(), slice),
        Caching::No,
    )
}

/// The same as server-sent events: an `event: live` with the whole view at once and whenever a new one is published,
/// and comments in between to keep the connection. A slow client gets the newest, not every one.
#[utoipa::path(
    get, path = "/v1/venues/{venue}/live/stream", tag = "live",
    params(("venue" = String, Path, description = "Id of the venue"), Params),
    responses((
        status = 200, description = "Events named `live`, each with a LiveDto as data",
        content_type = "text/event-stream", body = String,
    )),
)]
pub(crate) async fn stream(
    State(state): State<AppState>,
    Caller(caller): Caller,
    ApiPath(venue_id): ApiPath<String>,
    ApiQuery(params): ApiQuery<Params>,
) -> Result<Response, Problem> {
    let slice = params.slice()?;
    let stored = state.venue(&caller.tenant, &venue_id).await?;
    let key = VenueKey::new(caller.tenant.clone(), stored.venue.id.clone());
    let Ok(permit) = state.streams().try_acquire() else {
        metrics::refused("streams");
        let detail = format!(
            "{} live streams are open, which is the limit; read /live instead",
            state.streams().units_max()
        );
        return Err(Problem::new(problem::BUSY, detail).retry_after(10));
    };
    let updates = state.live().subscribe(&key).await?;
    let keep_alive = Duration::from(state.config().stream_keep_alive);
    let subscriber = Subscriber {
        state,
        venue: Arc::new(stored.venue),
        updates,
        slice,
        first: true,
        _place: Place::take(permit),
    };
    let mut response = Sse::new(events(subscriber))
        .keep_alive(KeepAlive::new().interval(keep_alive).text("alive"))
        .into_response();
    let headers = response.headers_mut();
    headers.insert(
        axum::http::header::CACHE_CONTROL,
        axum::http::HeaderValue::from_static("no-store"),
    );
    Ok(response)
}

/// One open stream.
struct Subscriber {
    state: AppState,
    venue: Arc<Venue>,
    updates: watch::Receiver<Option<Arc<LiveVenue>>>,
    slice: Option<Slice>,
    first: bool,
    _place: Place,
}

/// A place among the streams that may be open, and in their count.
struct Place {
    _permit: GatePermit,
}

impl Place {
    fn take(permit: GatePermit) -> Self {
        metrics::streams_changed(1.0);
        Self { _permit: permit }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        metrics::streams_changed(-1.0);
    }
}

/// The events of a stream: the view as it is, then each change, until the view's end or the shutdown.
fn events(subscriber: Subscriber) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(subscriber, |mut subscriber| async move {
        let shutdown = subscriber.state.shutdown().clone();
        if !std::mem::take(&mut subscriber.first) {
            tokio::select! {
                biased;
                () = shutdown.requested() => return None,
                changed = subscriber.updates.changed() => changed.ok()?,
            }
        }
        let live = subscriber.updates.borrow_and_update().clone();
        let now = subscriber.state.now_ms();
        let view = dto(&subscriber.venue, live.as_deref(), now, subscriber.slice);
        match Event::default().event("live").json_data(&view) {
            Ok(event) => Some((Ok(event), subscriber)),
            Err(error) => {
                tracing::error!(%error, "a live view cannot be written");
                None
            }
        }
    })
}

fn dto(venue: &Venue, live: Option<&LiveVenue>, now: i64, slice: Option<Slice>) -> LiveDto {
    let day = venue.calendar.day_of(now);
    let zones = venue.layout_on(day).zones.iter().map(|zone| zone.id.clone());
    let of_day = live.and_then(|live| live.days.iter().find(|live_day| live_day.day == day));
    let rows = LiveRows {
        day,
        rows: of_day.map_or(&[][..], |live_day| live_day.rows.as_slice()),
        // Of a day of which nothing has come there is nothing to wait for.
        source: of_day.map_or(DaySource::Silent, |live_day| DaySource::Live(live_day.clone())),
    };
    let today = live_day::today(venue, rows, now, slice);
    match live {
        Some(live) => LiveDto::published(live, today),
        None => LiveDto::unseen(venue.id.as_str(), zones.chain([VENUE_ZONE.to_owned()]), today),
    }
}
