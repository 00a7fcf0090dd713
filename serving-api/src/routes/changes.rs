//! `/v1/venues/{venue}/changes`: what was published, in the order of its numbers, so that a copy can follow.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use dwell_model::ids::VenueKey;
use dwell_storage::api::publications::{self, FeedHead};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use crate::dto::{ChangesDto, PublicationDto};
use crate::extract::{ApiPath, ApiQuery, Caller};
use crate::problem::{self, Problem};
use crate::query::as_of::AsOf;
use crate::query::cursor::{self, QueryId};
use crate::query::{paging, slice, text};
use crate::respond::{self, Caching};
use crate::state::AppState;
use crate::views::restated::restated;

/// Which publications.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// The last number that has been read, 0 (default) for all; or an instant, for what was listed at or after it.
    #[param(example = "0")]
    since: Option<String>,
    /// Entries per page; long entries make a page end earlier.
    limit: Option<String>,
    /// Leave the buckets out: numbers, days, generations and reasons only.
    without_buckets: Option<String>,
    /// Buckets of this slice: all (default), open (within opening hours) or staff.
    slice: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Where the next page begins.
#[derive(Debug, Serialize, Deserialize)]
struct Position {
    /// The last number of which everything has been given.
    after: u64,
    /// Buckets of the following entry that have been given, and what it was to replace.
    given: Option<(u64, String)>,
}

/// Published generations by number, with the buckets that each restated, before and after. A copy that applies every
/// entry in this order has the published numbers.
#[utoipa::path(
    get, path = "/v1/venues/{venue}/changes", tag = "days",
    params(("venue" = String, Path, description = "Id of the venue"), Params),
    responses((status = 200, description = "A page of publications by number", body = ChangesDto)),
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    Caller(caller): Caller,
    headers: HeaderMap,
    ApiPath(venue_id): ApiPath<String>,
    ApiQuery(params): ApiQuery<Params>,
) -> Result<Response, Problem> {
    let config = state.config();
    let limit = paging::limit(config, params.limit.as_deref())?;
    let without_buckets = text::switch("without_buckets", params.without_buckets.as_deref())?;
    let slice = slice::parse(params.slice.as_deref())?;
    let stored = state.venue(&caller.tenant, &venue_id).await?;
    let calendar = stored.venue.calendar;
    let key = VenueKey::new(caller.tenant.clone(), stored.venue.id.clone());
    let documents = state.stores().documents.as_ref();
    let head = publications::head(documents, &key).await?;
    let since = params.since.as_deref().unwrap_or("0");
    let query = QueryId::of(&[
        caller.tenant.as_str(),
        "changes",
        &venue_id,
        since,
        &without_buckets.to_string(),
        slice.word(),
    ]);
    let position = match &params.cursor {
        Some(text) => cursor::decode::<Position>(query, text)?,
        None => Position {
            after: number(&state, &key, &head, since).await?,
            given: None,
        },
    };
    let (mut after, mut given) = (position.after, position.given);
    let entries = publications::list(documents, &key, &head, after, limit).await?;
    let is_last_page = entries.len() < limit;
    let (mut changes, mut room, mut is_cut) = (Vec::new(), config.page_rows_default, false);
    for entry in entries {
        if without_buckets {
            changes.push(PublicationDto::new(&entry, "nothing"));
            after = entry.number;
            continue;
        }
        let restated = restated(&state, &key, &calendar, &entry, slice).await?;
        let mut change = PublicationDto::new(&entry, restated.word());
        let skipped = match given.take() {
            Some((_, replaced)) if replaced != change.replaces => {
                let detail = "the numbers before this publication were deleted meanwhile; start again without a cursor";
                return Err(Problem::new(problem::STALE_CURSOR, detail).about("cursor"));
            }
            Some((given, _)) => given,
            None => 0,
        };
        let buckets = restated.into_buckets();
        let from = usize::try_from(skipped).unwrap_or(usize::MAX).min(buckets.len());
        let to = from.saturating_add(room).min(buckets.len());
        change.continued = from > 0;
        change.continues = to < buckets.len();
        change.buckets = buckets[from..to].to_vec();
        room -= change.buckets.len();
        if change.continues {
            is_cut = true;
            given = Some((to as u64, change.replaces.to_owned()));
            changes.push(change);
            break;
        }
        after = entry.number;
        changes.push(change);
    }
    let next_cursor = match is_cut || !is_last_page {
        true => Some(cursor::encode(query, &Position { after, given })?),
        false => None,
    };
    let answer = ChangesDto {
        venue: venue_id,
        tz: calendar.tz().name().to_owned(),
        slice: slice::named(params.slice.as_deref(), slice),
        changes,
        next: after,
        last: head.readable(),
        next_cursor,
    };
    let rows = answer.changes.len();
    let response = respond::json(&headers, &answer, Caching::UNSETTLED)?;
    Ok(respond::with_rows(response, rows))
}

/// The number after which to read.
async fn number(state: &AppState, key: &VenueKey, head: &FeedHead, since: &str) -> Result<u64, Problem> {
    if since == "0" {
        return Ok(0);
    }
    let as_of = AsOf::parse(since, state.now_ms()).map_err(|_| {
        let detail = format!(
            "{:?} is neither the number of a publication nor an instant that has come (2026-03-01T09:00:00Z)",
            problem::clip(since)
        );
        Problem::parameter("since", detail)
    })?;
    match as_of {
        AsOf::Generation(number) => Ok(number),
        AsOf::Moment(ts) => {
            let documents = state.stores().documents.as_ref();
            Ok(publications::number_before(documents, key, head, ts).await?)
        }
    }
}
