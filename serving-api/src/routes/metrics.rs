//! `/v1/venues/{venue}/metrics`: numbers of one venue.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use dwell_model::definitions::MetricDefinition;
use dwell_model::ids::VenueKey;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::dto::{BucketDto, DefinitionDto, MetricsDto, instant};
use crate::extract::{ApiPath, ApiQuery, Caller};
use crate::formats::{to_arrow_stream, to_csv};
use crate::problem::Problem;
use crate::query::as_of::AsOf;
use crate::query::cursor::{self, QueryId};
use crate::query::hours_of_day::HoursOfDay;
use crate::query::range::{By, Range};
use crate::query::slice;
use crate::query::text;
use crate::respond::{self, Caching, Format};
use crate::state::AppState;
use crate::views::answer::{self, Asked, Position};
use crate::views::series::{self, Selection};
use crate::views::spatial;

/// Most metrics of one request.
pub(crate) const METRICS_MAX: usize = 50;

/// Which numbers.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// Ids of metrics, separated by commas (see /v1/definitions).
    #[param(example = "visits,dwell_p50", required = true)]
    metric: Option<String>,
    /// Zones, separated by commas, `_venue` for the whole venue; all of them when left out.
    zone: Option<String>,
    /// Lines; all when left out.
    line: Option<String>,
    /// Sensors, for counters and readings; all when left out.
    sensor: Option<String>,
    /// Counters; all when left out.
    counter: Option<String>,
    /// Measured quantities; all when left out.
    reading: Option<String>,
    /// Currencies; all when left out.
    currency: Option<String>,
    /// First local day (2026-03-01), or an instant (RFC 3339, or milliseconds); today when left out.
    from: Option<String>,
    /// Last local day, included, or an instant, not included. Ranges are widened to whole hours.
    to: Option<String>,
    /// hour, day (default), week, month or total.
    by: Option<String>,
    /// Hours of the day: 10-14 for 10:00 until 14:00, several separated by commas.
    hours: Option<String>,
    /// Numbers as they were published at this instant, days not published then being pending; or a generation's number,
    /// for one day.
    as_of: Option<String>,
    /// Which events count: all (default), open (within opening hours) or staff.
    slice: Option<String>,
    /// Rows per page.
    limit: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Metrics of a venue by hour, day, week, month or in total. Dense: every bucket asked for is there, with its state and
/// a value or null. Dates include both ends; instants are half-open.
#[utoipa::path(
    get, path = "/v1/venues/{venue}/metrics", tag = "metrics",
    params(("venue" = String, Path, description = "Id of the venue"), Params),
    responses((
        status = 200, description = "Buckets by start, metric and subject; CSV and Arrow have the same rows",
        content((MetricsDto = "application/json"), (String = "text/csv"), (String = "application/vnd.apache.arrow.stream")),
    )),
)]
pub(crate) async fn get(
    State(state): State<AppState>,
    Caller(caller): Caller,
    headers: HeaderMap,
    ApiPath(venue_id): ApiPath<String>,
    ApiQuery(params): ApiQuery<Params>,
) -> Result<Response, Problem> {
    let format = Format::negotiate(&headers)?;
    let config = state.config();
    let limit = text::limit(
        params.limit.as_deref(),
        config.page_rows_default,
        config.page_rows_max,
    )?;
    let now = state.now_ms();
    let as_of = AsOf::parse_option(params.as_of.as_deref(), now)?;
    let stored = state.venue_as_of(&caller.tenant, &venue_id, as_of).await?;
    let venue = &stored.venue;
    let asked = Asked {
        metrics: metrics(params.metric.as_deref())?,
        selection: selection(&params)?,
        range: Range::parse(params.from.as_deref(), params.to.as_deref(), &venue.calendar, now)?,
        by: params.by.as_deref().map_or(Ok(By::default()), By::parse)?,
        hours: params
            .hours
            .as_deref()
            .map_or(Ok(HoursOfDay::ALL), HoursOfDay::parse)?,
        as_of,
        slice: slice::parse(params.slice.as_deref())?,
    };
    let slice_named = slice::named(params.slice.as_deref(), asked.slice);
    let query = query_id(caller.tenant.as_str(), &venue_id, &asked);
    let position = params
        .cursor
        .map(|text| cursor::decode::<Position>(query, &text))
        .transpose()?;
    let key = VenueKey::new(caller.tenant.clone(), venue.id.clone());
    let mut page = answer::page(
        &state,
        key,
        (venue, stored.version),
        &asked,
        position.as_ref(),
        limit,
    )
    .await?;
    page.rows.iter_mut().for_each(|row| row.slice = slice_named);
    let next_cursor = page
        .next
        .as_ref()
        .map(|next| cursor::encode(query, next))
        .transpose()?;
    let answer = MetricsDto {
        venue: Some(venue_id),
        tz: Some(venue.calendar.tz().name().to_owned()),
        by: asked.by,
        slice: slice_named,
        from: Some(instant(asked.range.start)),
        to: Some(instant(asked.range.end)),
        definitions: asked
            .metrics
            .iter()
            .map(|definition| DefinitionDto::from(*definition))
            .collect(),
        buckets: page.rows,
        days: spatial::origins(venue, &page.sources, page.days, slice_named.map(|_| asked.slice)),
        next_cursor,
    };
    respond_in(&headers, format, &answer, page.caching)
}

/// Writes an answer in a format.
pub(crate) fn respond_in(
    headers: &HeaderMap,
    format: Format,
    answer: &MetricsDto,
    caching: Caching,
) -> Result<Response, Problem> {
    let mut response = match format {
        Format::Json => respond::json(headers, answer, caching)?,
        Format::Csv => {
            let csv = to_csv(&BucketDto::table(&answer.buckets));
            respond::bytes(headers, format.media_type(), csv.into_bytes(), caching)
        }
        Format::Arrow => {
            let stream = to_arrow_stream(BucketDto::table(&answer.buckets));
            let stream = stream.map_err(|error| Problem::internal(format!("arrow: {error}")))?;
            respond::bytes(headers, format.media_type(), stream, caching)
        }
    };
    response = respond::with_rows(response, answer.buckets.len());
    if let Some(cursor) = answer
        .next_cursor
        .as_deref()
        .and_then(|cursor| HeaderValue::from_str(cursor).ok())
    {
        response
            .headers_mut()
            .insert(HeaderName::from_static("x-next-cursor"), cursor);
    }
    Ok(response)
}

/// The definitions of the metrics that a comma list names.
fn metrics(text: Option<&str>) -> Result<Vec<&'static MetricDefinition>, Problem> {
    let Some(text) = text else {
        return Err(Problem::parameter(
            "metric",
            "say which metrics, for example metric=visits; see /v1/definitions",
        ));
    };
    let names = text::list("metric", text)?;
    if names.len() > METRICS_MAX {
        return Err(Problem::parameter(
            "metric",
            format!("at most {METRICS_MAX} metrics are given at once"),
        ));
    }
    series::metrics(&names)
}

fn selection(params: &Params) -> Result<Selection, Problem> {
    let list =
        |name: &str, text: &Option<String>| text.as_ref().map(|text| text::list(name, text)).transpose();
    Ok(Selection {
        zones: list("zone", &params.zone)?,
        lines: list("line", &params.line)?,
        sensors: list("sensor", &params.sensor)?,
        counters: list("counter", &params.counter)?,
        readings: list("reading", &params.reading)?,
        currencies: list("currency", &params.currency)?,
    })
}

/// What a cursor of these metrics belongs to.
fn query_id(tenant: &str, venue: &str, asked: &Asked) -> QueryId {
    let metrics: Vec<_> = asked.metrics.iter().map(|definition| definition.id).collect();
    let rest = format!(
        "{:?}",
        (
            &asked.selection,
            asked.range,
            asked.by,
            asked.hours,
            asked.as_of,
            asked.slice
        )
    );
    QueryId::of(&[tenant, "metrics", venue, &metrics.join(","), &rest])
}
