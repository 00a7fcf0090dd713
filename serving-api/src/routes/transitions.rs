//! `/v1/venues/{venue}/transitions`: how often visitors went from one zone to the next.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use dwell_model::ids::VenueKey;
use dwell_model::metrics::{Family, Transition, Value};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::dto::{LayerTransitionsDto, TransitionDto, TransitionsDto, instant};
use crate::extract::{ApiPath, ApiQuery, Caller};
use crate::problem::{Problem, clip};
use crate::query::as_of::AsOf;
use crate::query::range::Range;
use crate::query::slice;
use crate::respond;
use crate::state::AppState;
use crate::views::spatial::{self, SpatialAsked};

/// Which transitions.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// First local day, or an instant; today when left out.
    from: Option<String>,
    /// Last local day (included), or an instant (not included).
    to: Option<String>,
    /// Only this layer of zones.
    layer: Option<String>,
    /// As it was published at this instant; or a generation's number, for one day.
    as_of: Option<String>,
    /// Which events count: all (default), open (within opening hours) or staff.
    slice: Option<String>,
}

/// Transitions between zones over a range, layer by layer. Instants are widened to whole hours.
#[utoipa::path(
    get, path = "/v1/venues/{venue}/transitions", tag = "metrics",
    params(("venue" = String, Path, description = "Id of the venue"), Params),
    responses((status = 200, description = "The transitions", body = TransitionsDto)),
)]
pub(crate) async fn get(
    State(state): State<AppState>,
    Caller(caller): Caller,
    headers: HeaderMap,
    ApiPath(venue_id): ApiPath<String>,
    ApiQuery(params): ApiQuery<Params>,
) -> Result<Response, Problem> {
    let as_of = AsOf::parse_option(params.as_of.as_deref(), state.now_ms())?;
    let stored = state.venue_as_of(&caller.tenant, &venue_id, as_of).await?;
    let venue = &stored.venue;
    if let Some(layer) = &params.layer
        && !venue
            .layouts
            .iter()
            .any(|layout| layout.zones.iter().any(|zone| zone.layer == *layer))
    {
        let detail = format!("no zone of the venue is of the layer {:?}", clip(layer));
        return Err(Problem::parameter("layer", detail));
    }
    let key = VenueKey::new(caller.tenant.clone(), venue.id.clone());
    let range = Range::parse(
        params.from.as_deref(),
        params.to.as_deref(),
        &venue.calendar,
        state.now_ms(),
    )?;
    let slice = slice::parse(params.slice.as_deref())?;
    let united = spatial::united(
        &state,
        &key,
        venue,
        SpatialAsked {
            range,
            family: Family::Transition,
            subject: params.layer.as_deref(),
            as_of,
            slice: params.slice.as_ref().map(|_| slice),
        },
    )
    .await?;
    let layers = united
        .values
        .into_iter()
        .map(|(layer, value)| LayerTransitionsDto {
            layer,
            transitions: match value {
                Value::Transition(transitions) => transitions.into_iter().map(dto).collect(),
                _ => Vec::new(),
            },
        });
    let answer = TransitionsDto {
        venue: venue_id,
        from: instant(range.start),
        to: instant(range.end),
        slice: slice::named(params.slice.as_deref(), slice),
        layers: layers.collect(),
        days: united.origins,
    };
    let rows = answer.layers.iter().map(|layer| layer.transitions.len()).sum();
    let response = respond::json(&headers, &answer, united.caching)?;
    Ok(respond::with_rows(response, rows))
}

fn dto(transition: Transition) -> TransitionDto {
    TransitionDto {
        from: transition.from,
        to: transition.to,
        count: transition.count,
    }
}
