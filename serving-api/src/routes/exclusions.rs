//! `/v1/exclusions`: what was taken out of the numbers, by whom and why. Made by the job `revert`, ended by `undo`.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use dwell_model::exclusion::Exclusion;
use dwell_model::ids::VenueId;
use dwell_storage::api::{DocumentKind, ListFrom};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::dto::{ExclusionDto, ExclusionsDto};
use crate::extract::{ApiQuery, Caller};
use crate::problem::{Problem, clip};
use crate::query::cursor::{self, QueryId};
use crate::query::text;
use crate::respond::{self, Caching};
use crate::state::AppState;

/// Documents looked through at a time.
const CHUNK: usize = 200;
/// Chunks of one page: with a filter that few pass, a page may be short and say where to go on.
const CHUNKS_MAX: usize = 20;

/// Which exclusions.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// Of this venue.
    venue: Option<String>,
    /// in_force, ended or all (the default).
    state: Option<String>,
    /// Exclusions per page.
    limit: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// What was taken out of the numbers, newest first, ended exclusions too.
#[utoipa::path(
    get, path = "/v1/exclusions", tag = "jobs", params(ListParams),
    responses((status = 200, description = "A page of exclusions", body = ExclusionsDto)),
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    Caller(caller): Caller,
    headers: HeaderMap,
    ApiQuery(params): ApiQuery<ListParams>,
) -> Result<Response, Problem> {
    let config = state.config();
    let limit = text::limit(
        params.limit.as_deref(),
        config.page_entries_default(),
        config.page_entries_max,
    )?;
    let venue = match &params.venue {
        Some(id) => Some(VenueId::new(id).map_err(|_| Problem::not_found("venue", id).about("venue"))?),
        None => None,
    };
    let word = params.state.as_deref().unwrap_or("all");
    let in_force = match word {
        "all" => None,
        "in_force" => Some(true),
        "ended" => Some(false),
        other => {
            let detail = format!("{:?} is no state; use in_force, ended or all", clip(other));
            return Err(Problem::parameter("state", detail));
        }
    };
    let wanted_venue = params
        .venue
        .as_ref()
        .map_or("-".to_owned(), |id| format!("={id}"));
    let query = QueryId::of(&[caller.tenant.as_str(), "exclusions", &wanted_venue, word]);
    let mut before = params
        .cursor
        .map(|text| cursor::decode::<String>(query, &text))
        .transpose()?;
    let mut exclusions = Vec::new();
    let mut more = true;
    for _ in 0..CHUNKS_MAX {
        let documents = &state.stores().documents;
        let from = ListFrom::Before(before.as_deref());
        let chunk = documents
            .list(&caller.tenant, Exclusion::COLLECTION, from, CHUNK)
            .await?;
        more = chunk.len() == CHUNK;
        for document in chunk {
            if exclusions.len() == limit {
                more = true;
                break;
            }
            let exclusion: Exclusion = serde_json::from_value(document.body)
                .map_err(|error| Problem::internal(format!("exclusion {}: {error}", document.id)))?;
            before = Some(document.id);
            let is_wanted = venue.as_ref().is_none_or(|venue| *venue == exclusion.venue)
                && in_force.is_none_or(|wanted| wanted == exclusion.is_in_force());
            if is_wanted {
                exclusions.push(ExclusionDto::from(exclusion));
            }
        }
        if !more || exclusions.len() == limit {
            break;
        }
    }
    let next_cursor = match before.filter(|_| more) {
        Some(before) => Some(cursor::encode(query, &before)?),
        None => None,
    };
    let page = ExclusionsDto {
        exclusions,
        next_cursor,
    };
    respond::json(&headers, &page, Caching::No)
}
