//! `/v1/query`: numbers over many venues.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use dwell_model::definitions::MetricDefinition;
use dwell_model::ids::VenueKey;
use dwell_model::layout::{LineRole, VENUE_ZONE, Venue};
use dwell_model::metrics::{Family, Slice};
use dwell_model::time::LocalDay;
use dwell_storage::api::StoredVenue;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::metrics::{METRICS_MAX, respond_in};
use crate::dto::{BucketDto, DefinitionDto, MetricsDto, Scope};
use crate::extract::{ApiJson, Caller};
use crate::problem::{self, Problem, clip};
use crate::query::as_of::AsOf;
use crate::query::cursor::{self, QueryId};
use crate::query::hours_of_day::HoursOfDay;
use crate::query::range::{By, Range};
use crate::query::slice;
use crate::query::text;
use crate::respond::{Caching, Format};
use crate::state::AppState;
use crate::views::answer::{self, Asked, Plan};
use crate::views::groups::{GroupBy, Groups, Order};
use crate::views::series::{self, Selection};
use crate::views::sources::Pins;

/// A question about many venues.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Query)]
pub(crate) struct QueryBody {
    /// Ids of metrics (see /v1/definitions).
    #[schema(example = json!(["visits"]))]
    metrics: Vec<String>,
    /// Ids of venues, or `"all"` (also when left out).
    #[serde(default)]
    #[schema(value_type = Option<Value>, example = "all")]
    venues: Option<Value>,
    /// Of these only venues with any of these tags.
    #[serde(default)]
    venue_tags: Option<Vec<String>>,
    /// Zones, `_venue` for the whole venue, which is also meant when zones and zone_tags are left out (with group_by
    /// zone: all zones).
    #[serde(default)]
    zones: Option<Vec<String>>,
    /// Of these only zones with any of these tags.
    #[serde(default)]
    zone_tags: Option<Vec<String>>,
    /// Lines; when left out, the entrances, or all lines where the layout has no entrance.
    #[serde(default)]
    lines: Option<Vec<String>>,
    #[serde(default)]
    sensors: Option<Vec<String>>,
    #[serde(default)]
    counters: Option<Vec<String>>,
    /// Measured quantities.
    #[serde(default)]
    readings: Option<Vec<String>>,
    #[serde(default)]
    currencies: Option<Vec<String>>,
    /// First local day of each venue, or an instant; today when left out.
    #[serde(default)]
    #[schema(example = "2026-03-01")]
    from: Option<String>,
    /// Last local day, included, or an instant, not included.
    #[serde(default)]
    #[schema(example = "2026-03-08")]
    to: Option<String>,
    /// hour, day, week, month or total (default).
    #[serde(default)]
    by: Option<String>,
    /// Hours of the day: 10-14 for 10:00 until 14:00.
    #[serde(default)]
    hours: Option<String>,
    /// venue (default), tag, zone or none.
    #[serde(default)]
    group_by: Option<String>,
    /// Ranks the groups by one of the metrics; with by total only.
    #[serde(default)]
    order_by: Option<String>,
    /// Largest first (default) or smallest first.
    #[serde(default)]
    descending: Option<bool>,
    /// Only so many groups of the ranking.
    #[serde(default)]
    top: Option<usize>,
    /// Numbers as they were published at this instant; or a generation's number, for one day of one venue.
    #[serde(default)]
    as_of: Option<String>,
    /// Which events count: all (default), open (within opening hours) or staff.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    slice: Option<String>,
    /// Rows per page.
    #[serde(default)]
    limit: Option<usize>,
    /// `next_cursor` of the page before.
    #[serde(default)]
    cursor: Option<String>,
}

/// Where the next page begins: the generations of every venue, and how many rows were given.
#[derive(Debug, Serialize, Deserialize)]
struct Position {
    venues: Vec<(String, u64, Pins)>,
    given: u64,
}

/// Metrics over many venues or tags, zones or tags of zones, hours of the day; united by venue, tag, zone or altogether,
/// as far as the metrics declare that; ranked, the first N. Local time is each venue's own.
#[utoipa::path(
    post, path = "/v1/query", tag = "metrics", request_body = QueryBody,
    responses((
        status = 200, description = "Buckets by start, group and metric, or by rank; CSV and Arrow have the same rows",
        content((MetricsDto = "application/json"), (String = "text/csv"), (String = "application/vnd.apache.arrow.stream")),
    )),
)]
pub(crate) async fn post(
    State(state): State<AppState>,
    Caller(caller): Caller,
    headers: HeaderMap,
    ApiJson(body): ApiJson<QueryBody>,
) -> Result<Response, Problem> {
    let format = Format::negotiate(&headers)?;
    let config = state.config();
    let limit = body.limit.map(|limit| limit.to_string());
    let limit = text::limit(limit.as_deref(), config.page_rows_default, config.page_rows_max)?;
    let question = Question::read(&body, state.now_ms())?;
    let query = query_id(caller.tenant.as_str(), &body)?;
    let position = body
        .cursor
        .as_ref()
        .map(|text| cursor::decode::<Position>(query, text))
        .transpose()?;
    let mut known = state.stores().registry.venues(&caller.tenant).await?;
    state
        .cuts_as_of(&caller.tenant, &mut known, question.as_of)
        .await?;
    let venues = question.venues(&known)?;
    if let Some(position) = &position {
        let unchanged = position.venues.len() == venues.len()
            && position
                .venues
                .iter()
                .zip(&venues)
                .all(|((id, version, _), stored)| {
                    id == stored.venue.id.as_str() && *version == stored.version
                });
        if !unchanged {
            let detail = "venues have been changed meanwhile; start again without a cursor";
            return Err(Problem::new(problem::STALE_CURSOR, detail).about("cursor"));
        }
    }
    let cells_max = config.page_rows_max.saturating_mul(4);
    let mut groups = Groups::new(question.group_by, question.by, &question.metrics, cells_max);
    let (mut pins, mut caching, mut days_left) = (
        Vec::with_capacity(venues.len()),
        Caching::SETTLED,
        config.days_max,
    );
    for (index, stored) in venues.iter().enumerate() {
        let venue = &stored.venue;
        let asked = question.asked(venue, state.now_ms())?;
        let touched = asked.range.days_len(&venue.calendar);
        days_left = days_left.checked_sub(touched).ok_or_else(|| {
            let detail = format!(
                "at most {} venue-days are answered at once, all venues together",
                config.days_max
            );
            Problem::new(problem::BAD_RANGE, detail).about("to")
        })?;
        let key = VenueKey::new(caller.tenant.clone(), venue.id.clone());
        let pinned = position
            .as_ref()
            .and_then(|position| position.venues.get(index))
            .map(|(_, _, pins)| pins);
        let plan = Plan::new(&state, key, venue, &asked, pinned).await?;
        let evaluated = plan.evaluate(0..plan.buckets.len()).await?;
        groups.add(&question.scopes(venue), &plan, &evaluated)?;
        let days = asked.range.days(&venue.calendar);
        caching = caching.shorter(answer::caching(&plan.sources, days));
        pins.push((
            venue.id.to_string(),
            stored.version,
            plan.sources.pins(days.0, days.1),
        ));
    }
    let rows = groups.rows(question.order.as_ref(), question.top);
    let given = position
        .map_or(0, |position| {
            usize::try_from(position.given).unwrap_or(usize::MAX)
        })
        .min(rows.len());
    let end = given.saturating_add(limit).min(rows.len());
    let next_cursor = match end < rows.len() {
        true => Some(cursor::encode(
            query,
            &Position {
                venues: pins,
                given: end as u64,
            },
        )?),
        false => None,
    };
    let answer = answer_dto(&question, rows[given..end].to_vec(), next_cursor);
    respond_in(&headers, format, &answer, caching)
}

fn answer_dto(
    question: &Question<'_>,
    mut buckets: Vec<BucketDto>,
    next_cursor: Option<String>,
) -> MetricsDto {
    let slice = slice::named(question.body.slice.as_deref(), question.slice);
    buckets.iter_mut().for_each(|row| row.slice = slice);
    MetricsDto {
        venue: None,
        tz: None,
        by: question.by,
        slice,
        from: None,
        to: None,
        definitions: question
            .metrics
            .iter()
            .map(|definition| DefinitionDto::from(*definition))
            .collect(),
        buckets,
        days: Vec::new(),
        next_cursor,
    }
}

/// A body, read.
struct Question<'a> {
    body: &'a QueryBody,
    metrics: Vec<&'static MetricDefinition>,
    /// Ids asked for; `None` for all.
    venues: Option<Vec<String>>,
    by: By,
    hours: HoursOfDay,
    group_by: GroupBy,
    order: Option<Order>,
    top: Option<usize>,
    as_of: Option<AsOf>,
    slice: Slice,
}

impl<'a> Question<'a> {
    fn read(body: &'a QueryBody, now: i64) -> Result<Self, Problem> {
        let names = text::checked_list("metrics", body.metrics.clone())?;
        if names.is_empty() || names.len() > METRICS_MAX {
            return Err(Problem::parameter(
                "metrics",
                format!("give 1 to {METRICS_MAX} metrics"),
            ));
        }
        let metrics = series::metrics(&names)?;
        let group_by = match body.group_by.as_deref() {
            None | Some("venue") => GroupBy::Venue,
            Some("tag") => GroupBy::Tag,
            Some("zone") => GroupBy::Zone,
            Some("none") => GroupBy::None,
            Some(other) => {
                let detail = format!("{:?} is no group; use venue, tag, zone or none", clip(other));
                return Err(Problem::parameter("group_by", detail));
            }
        };
        if group_by == GroupBy::Zone && metrics.iter().any(|definition| definition.family != Family::Zone) {
            let detail =
                "group_by zone takes metrics of zones only; ask for the others in a query of their own";
            return Err(Problem::parameter("group_by", detail));
        }
        let by = body.by.as_deref().map_or(Ok(By::Total), By::parse)?;
        let order = match &body.order_by {
            Some(name) => {
                let found = metrics.iter().find(|definition| definition.id == name);
                let metric = found.ok_or_else(|| {
                    Problem::parameter(
                        "order_by",
                        format!("{:?} is none of the metrics asked for", clip(name)),
                    )
                })?;
                Some(Order {
                    metric: metric.id,
                    descending: body.descending.unwrap_or(true),
                })
            }
            None if body.top.is_some() || body.descending.is_some() => {
                return Err(Problem::parameter(
                    "order_by",
                    "say by which metric to rank: order_by",
                ));
            }
            None => None,
        };
        if order.is_some() && by != By::Total {
            return Err(Problem::parameter(
                "order_by",
                "groups are ranked over the whole range: use by total",
            ));
        }
        if body.top == Some(0) {
            return Err(Problem::parameter(
                "top",
                "give 1 or more, or leave out top for all",
            ));
        }
        Ok(Self {
            body,
            metrics,
            venues: venues_named(body.venues.as_ref())?,
            by,
            hours: body
                .hours
                .as_deref()
                .map_or(Ok(HoursOfDay::ALL), HoursOfDay::parse)?,
            group_by,
            order,
            top: body.top,
            as_of: AsOf::parse_option(body.as_of.as_deref(), now)?,
            slice: slice::parse(body.slice.as_deref())?,
        })
    }

    /// The venues asked for, by id.
    fn venues<'v>(&self, known: &'v [StoredVenue]) -> Result<Vec<&'v StoredVenue>, Problem> {
        if let Some(unknown) = self
            .venues
            .iter()
            .flatten()
            .find(|id| !known.iter().any(|stored| stored.venue.id.as_str() == *id))
        {
            return Err(Problem::not_found("venue", unknown).about("venues"));
        }
        let tags = self.body.venue_tags.as_deref();
        if let Some(unknown) = tags
            .unwrap_or_default()
            .iter()
            .find(|tag| !known.iter().any(|stored| stored.venue.tags.contains(tag)))
        {
            return Err(Problem::parameter(
                "venue_tags",
                format!("no venue has the tag {:?}", clip(unknown)),
            ));
        }
        let named = |venue: &Venue| {
            self.venues
                .as_ref()
                .is_none_or(|ids| ids.iter().any(|id| id == venue.id.as_str()))
        };
        let tagged = |venue: &Venue| tags.is_none_or(|tags| tags.iter().any(|tag| venue.tags.contains(tag)));
        let venues: Vec<&StoredVenue> = known
            .iter()
            .filter(|stored| named(&stored.venue) && tagged(&stored.venue))
            .collect();
        if venues.is_empty() {
            return Err(Problem::parameter(
                "venues",
                "no venue is left by `venues` and `venue_tags`",
            ));
        }
        if matches!(self.as_of, Some(AsOf::Generation(_))) && venues.len() > 1 {
            let detail = "a generation is one venue's; name the venue, or give as_of an instant";
            return Err(Problem::parameter("as_of", detail));
        }
        if let Some(zone) = self.body.zones.iter().flatten().find(|zone| {
            *zone != VENUE_ZONE
                && !venues
                    .iter()
                    .any(|stored| all_zones(&stored.venue).any(|(id, _)| id == zone.as_str()))
        }) {
            let detail = format!("none of the venues has a zone {:?}", clip(zone));
            return Err(Problem::parameter("zones", detail));
        }
        Ok(venues)
    }

    /// The groups that a venue belongs to.
    fn scopes(&self, venue: &Venue) -> Vec<Scope> {
        match self.group_by {
            GroupBy::Venue => vec![Scope {
                venue: Some(venue.id.to_string()),
                tag: None,
            }],
            GroupBy::Zone | GroupBy::None => vec![Scope::default()],
            GroupBy::Tag => {
                let wanted = self.body.venue_tags.as_ref();
                let mut tags: Vec<&String> = venue
                    .tags
                    .iter()
                    .filter(|tag| wanted.is_none_or(|wanted| wanted.contains(tag)))
                    .collect();
                tags.sort_unstable();
                tags.dedup();
                tags.into_iter()
                    .map(|tag| Scope {
                        venue: None,
                        tag: Some(tag.clone()),
                    })
                    .collect()
            }
        }
    }

    /// What is asked of one venue.
    fn asked(&self, venue: &Venue, now: i64) -> Result<Asked, Problem> {
        let body = self.body;
        let range = Range::parse(body.from.as_deref(), body.to.as_deref(), &venue.calendar, now)?;
        let days = range.days(&venue.calendar);
        let has = |family: Family| self.metrics.iter().any(|definition| definition.family == family);
        let chosen_zones = body.zones.is_some() || body.zone_tags.is_some();
        if chosen_zones && !has(Family::Zone) {
            let detail = "none of the metrics is about zones; leave out `zones` and `zone_tags`";
            return Err(Problem::parameter("zones", detail));
        }
        Ok(Asked {
            metrics: self.metrics.clone(),
            selection: Selection {
                zones: has(Family::Zone).then(|| self.zones(venue, days)),
                lines: if has(Family::Line) && body.lines.is_none() {
                    entrances(venue, days)
                } else {
                    body.lines.clone()
                },
                sensors: body.sensors.clone(),
                counters: body.counters.clone(),
                readings: body.readings.clone(),
                currencies: body.currencies.clone(),
            },
            range,
            by: self.by,
            hours: self.hours,
            as_of: self.as_of,
            slice: self.slice,
        })
    }

    /// The zones of a venue that are meant, of those in force on the days.
    fn zones(&self, venue: &Venue, days: (LocalDay, LocalDay)) -> Vec<String> {
        let (ids, tags) = (self.body.zones.as_ref(), self.body.zone_tags.as_ref());
        if ids.is_none() && tags.is_none() && self.group_by != GroupBy::Zone {
            return vec![VENUE_ZONE.to_owned()];
        }
        let in_force = series::layouts(venue, days).flat_map(|layout| &layout.zones);
        let mut zones: Vec<String> = in_force
            .filter(|zone| ids.is_none_or(|ids| ids.contains(&zone.id)))
            .filter(|zone| tags.is_none_or(|tags| tags.iter().any(|tag| zone.tags.contains(tag))))
            .map(|zone| zone.id.clone())
            .collect();
        zones.sort_unstable();
        zones.dedup();
        if tags.is_none() && ids.is_some_and(|ids| ids.iter().any(|id| id == VENUE_ZONE)) {
            zones.push(VENUE_ZONE.to_owned());
        }
        zones
    }
}

fn venues_named(venues: Option<&Value>) -> Result<Option<Vec<String>>, Problem> {
    let refuse = || Problem::parameter("venues", "venues must be \"all\", one id, or a list of ids");
    match venues {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(word)) if word == "all" => Ok(None),
        Some(Value::String(id)) => Ok(Some(vec![id.clone()])),
        Some(Value::Array(ids)) => {
            let ids: Option<Vec<String>> = ids.iter().map(|id| id.as_str().map(str::to_owned)).collect();
            ids.filter(|ids| !ids.is_empty()).map(Some).ok_or_else(refuse)
        }
        Some(_) => Err(refuse()),
    }
}

/// Ids and tags of all zones of all layouts.
fn all_zones(venue: &Venue) -> impl Iterator<Item = (&str, &[String])> {
    venue
        .layouts
        .iter()
        .flat_map(|layout| &layout.zones)
        .map(|zone| (zone.id.as_str(), zone.tags.as_slice()))
}

/// The entrances of the layouts in force; `None` where there are none.
fn entrances(venue: &Venue, days: (LocalDay, LocalDay)) -> Option<Vec<String>> {
    let lines = series::layouts(venue, days).flat_map(|layout| &layout.lines);
    let entrances: Vec<String> = lines
        .filter(|line| line.role == LineRole::Entrance)
        .map(|line| line.id.clone())
        .collect();
    (!entrances.is_empty()).then_some(entrances)
}

/// What a cursor of this body belongs to.
fn query_id(tenant: &str, body: &QueryBody) -> Result<QueryId, Problem> {
    let asked = QueryBody {
        cursor: None,
        limit: None,
        ..body.clone()
    };
    let text = serde_json::to_string(&asked).map_err(|error| Problem::internal(error.to_string()))?;
    Ok(QueryId::of(&[tenant, "query", &text]))
}
