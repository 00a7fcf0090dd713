//! `/v1/venues/{venue}/heatmap`: where on the floor time was spent.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use dwell_model::ids::VenueKey;
use dwell_model::metrics::{CellValue, Family, Value};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::dto::{CellDto, FloorDto, HeatmapDto, instant};
use crate::extract::{ApiPath, ApiQuery, Caller};
use crate::problem::Problem;
use crate::query::as_of::AsOf;
use crate::query::range::Range;
use crate::query::slice;
use crate::respond;
use crate::state::AppState;
use crate::views::spatial::{self, SpatialAsked};

/// Which heat map.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// First local day, or an instant; today when left out.
    from: Option<String>,
    /// Last local day (included), or an instant (not included).
    to: Option<String>,
    /// Only this floor; empty for events that name none.
    floor: Option<String>,
    /// As it was published at this instant; or a generation's number, for one day.
    as_of: Option<String>,
    /// Which events count: all (default), open (within opening hours) or staff.
    slice: Option<String>,
}

/// Person-time per cell of the floor over a range, floor by floor. Instants are widened to whole hours.
#[utoipa::path(
    get, path = "/v1/venues/{venue}/heatmap", tag = "metrics",
    params(("venue" = String, Path, description = "Id of the venue"), Params),
    responses((status = 200, description = "The heat map", body = HeatmapDto)),
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
            family: Family::Cell,
            subject: params.floor.as_deref(),
            as_of,
            slice: params.slice.as_ref().map(|_| slice),
        },
    )
    .await?;
    let floors = united
        .values
        .into_iter()
        .filter_map(|(floor, value)| match value {
            Value::Cell(cells) => Some(dto(floor, cells)),
            _ => None,
        });
    let answer = HeatmapDto {
        venue: venue_id,
        from: instant(range.start),
        to: instant(range.end),
        slice: slice::named(params.slice.as_deref(), slice),
        floors: floors.collect(),
        days: united.origins,
    };
    let rows = answer.floors.iter().map(|floor| floor.cells.len()).sum();
    let response = respond::json(&headers, &answer, united.caching)?;
    Ok(respond::with_rows(response, rows))
}

fn dto(floor: String, value: CellValue) -> FloorDto {
    let cells = value.cells.into_iter().map(|(column, row, dwell_ms)| CellDto {
        column,
        row,
        dwell_ms,
    });
    FloorDto {
        floor,
        cell_m: f64::from(value.cell_cm) / 100.0,
        cells: cells.collect(),
    }
}
