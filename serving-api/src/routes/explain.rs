//! `/v1/venues/{venue}/explain`: from a bucket to what it was made of.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use dwell_model::definitions::MetricDefinition;
use dwell_model::exclusion::{DayExclusions, Exclusion};
use dwell_model::ids::VenueKey;
use dwell_model::layout::{Layout, VENUE_ZONE, Venue};
use dwell_model::metrics::{AggregateRow, Family, Grain, Number, Slice, Value, conversion, evaluate};
use dwell_model::time::{DayCut, LocalDay, TsMs, parse_ts};
use dwell_storage::api::{GenerationInfo, RowFilter, SessionCursor, documents};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use crate::dto::{
    ContributionDto, DefinitionDto, EventBehindDto, ExplainDto, ExplainedBucketDto, ExplainedGenerationDto,
    InputsDto, RecomputedDto, SessionDto, SourcesDto, instant, local,
};
use crate::extract::{ApiPath, ApiQuery, Caller};
use crate::problem::{self, Problem, clip};
use crate::query::as_of::AsOf;
use crate::query::cursor::{self, QueryId};
use crate::query::{paging, text};
use crate::respond::{self, Caching};
use crate::state::AppState;
use crate::views::refold::{EventBehind, Refolded, Wanted, footfall_source, refold};
use crate::views::series::{self, CONVERSION, Subject};
use crate::views::sources::{self, DaySource, Sources};

/// Sessions looked at, and shown.
const SESSIONS_READ_MAX: usize = 20_000;
const SESSIONS_AT_ONCE: usize = 1_000;
const SESSIONS_SHOWN_MAX: usize = 50;
/// Sensors and receipts shown.
const CONTRIBUTIONS_MAX: usize = 100;

/// Which bucket.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// A metric (see /v1/definitions).
    #[param(example = "visits", required = true)]
    metric: Option<String>,
    /// What it is about, as in /metrics: a zone, a line, a currency, `sensor counter`, `sensor quantity`; the whole venue
    /// when left out.
    subject: Option<String>,
    /// An instant within the bucket, or a local day.
    #[param(example = "2026-03-01T10:00:00+01:00", required = true)]
    start: Option<String>,
    /// hour, or day (default for a local day).
    grain: Option<String>,
    /// As it was published at this instant; or a generation's number.
    as_of: Option<String>,
    /// Events per page.
    limit: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Where the next page of events begins.
#[derive(Debug, Serialize, Deserialize)]
struct Position {
    generation: u64,
    given: u64,
}

/// One bucket: its formula, generation, layout, sensors, receipts, files, stays and events. The day is folded once more
/// from its archived events, and the answer says whether that gives what is published.
#[utoipa::path(
    get, path = "/v1/venues/{venue}/explain", tag = "metrics",
    params(("venue" = String, Path, description = "Id of the venue"), Params),
    responses((status = 200, description = "What the bucket was made of", body = ExplainDto)),
)]
pub(crate) async fn get(
    State(state): State<AppState>,
    Caller(caller): Caller,
    headers: HeaderMap,
    ApiPath(venue_id): ApiPath<String>,
    ApiQuery(params): ApiQuery<Params>,
) -> Result<Response, Problem> {
    let limit = paging::limit(state.config(), params.limit.as_deref())?;
    let as_of = AsOf::parse_option(params.as_of.as_deref(), state.now_ms())?;
    let stored = state.venue_as_of(&caller.tenant, &venue_id, as_of).await?;
    let venue = &stored.venue;
    let key = VenueKey::new(caller.tenant.clone(), venue.id.clone());
    let definition = metric(params.metric.as_deref())?;
    let bucket = Bucket::read(&params, venue)?;
    let query = QueryId::of(&[
        caller.tenant.as_str(),
        "explain",
        &venue_id,
        definition.id,
        params.subject.as_deref().unwrap_or_default(),
        &format!("{bucket:?} {as_of:?}"),
    ]);
    let position = params
        .cursor
        .as_ref()
        .map(|text| cursor::decode::<Position>(query, text))
        .transpose()?;
    let as_of = match &position {
        Some(position) => AsOf::Generation(position.generation),
        None => as_of.unwrap_or(AsOf::Moment(state.now_ms())),
    };
    let day = (bucket.day, bucket.day);
    let sources = sources::choose(&state, &key, &venue.calendar, day, sources::Wanted::AsOf(as_of)).await?;
    let DaySource::Batch(info) = sources.day(bucket.day) else {
        let detail = format!(
            "nothing had been published of {} in {venue_id}: only published numbers can be explained",
            bucket.day
        );
        return Err(Problem::new(problem::NOT_FOUND, detail).about("start"));
    };
    let rows = rows(&state, &key, &sources, &bucket, definition).await?;
    let (subject, row) = bucket.find(definition, params.subject.as_deref(), &rows)?;
    let layout = layout_of(venue, bucket.day, info);
    let skip = position.map_or(0, |position| position.given);
    let wanted = Wanted {
        family: definition.family,
        subject: subject.clone(),
        start: bucket.start,
        end: bucket.end,
        footfall: row.and_then(|row| footfall_source(&row.value)),
        skip,
        limit,
    };
    let folded = folded(&state, &key, venue, info, &bucket, layout, wanted).await?;
    let sessions = sessions(&state, &key, info, &bucket, definition, &subject, layout).await?;
    let given = skip + folded.as_ref().map_or(0, |found| found.page.len() as u64);
    let next_cursor = match &folded {
        Ok(found) if given < found.events => {
            let generation = info.generation;
            Some(cursor::encode(query, &Position { generation, given })?)
        }
        _ => None,
    };
    let history = state.stores().venue_days.history(&key, bucket.day).await?;
    let before = history.iter().find(|other| other.generation < info.generation);
    let answer = ExplainDto {
        venue: venue_id,
        tz: venue.calendar.tz().name().to_owned(),
        bucket: bucket.dto(definition, &subject, row, &rows, venue),
        definition: DefinitionDto::from(definition),
        generation: ExplainedGenerationDto {
            day: bucket.day.to_string(),
            generation: info.generation,
            before: before.map(|before| before.generation),
            published_at: instant(info.published_at),
            reason: info.reason.clone(),
            provisional: info.provisional,
            changed: info.changed.as_ref().map(Into::into),
        },
        inputs: inputs(info, layout, &subject),
        recomputed: recomputed(definition, &folded, &bucket, &subject, row, &rows),
        sources: folded.as_ref().map(contributions).unwrap_or_default(),
        sessions,
        events: folded
            .map(|found| found.page.into_iter().map(event).collect())
            .unwrap_or_default(),
        next_cursor,
    };
    respond::json(&headers, &answer, Caching::UNSETTLED)
}

/// The bucket that is asked about.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    day: LocalDay,
    grain: Grain,
    start: TsMs,
    end: TsMs,
}

impl Bucket {
    fn read(params: &Params, venue: &Venue) -> Result<Self, Problem> {
        let Some(start) = params.start.as_deref() else {
            let detail = "say which bucket: an instant within it (2026-03-01T10:00:00+01:00), or a local day";
            return Err(Problem::parameter("start", detail));
        };
        let day: Option<LocalDay> = start.parse().ok();
        let ts = match day {
            Some(day) => venue.calendar.bounds(day).0,
            None => parse_ts(start)
                .or_else(|error| parse_ts(&start.replace(' ', "+")).map_err(|_| error))
                .map_err(|_| {
                    let detail = format!("{:?} is neither an instant nor a local day", clip(start));
                    Problem::parameter("start", detail)
                })?,
        };
        let grain = match params.grain.as_deref() {
            None if day.is_some() => Grain::Day,
            None | Some("hour") => Grain::Hour,
            Some("day") => Grain::Day,
            Some(other) => {
                let detail = format!("{:?} is no grain; use hour or day", clip(other));
                return Err(Problem::parameter("grain", detail));
            }
        };
        let day = day.unwrap_or_else(|| venue.calendar.day_of(ts));
        let cut: DayCut = venue.calendar.cut(day);
        let hour = cut.hours.iter().find(|hour| (hour.start..hour.end).contains(&ts));
        let (start, end) = match (grain, hour) {
            (Grain::Hour, Some(hour)) => (hour.start, hour.end),
            _ => (cut.start, cut.end),
        };
        Ok(Self {
            day,
            grain,
            start,
            end,
        })
    }

    /// The subject that is meant, and its row, if the bucket has one.
    fn find<'r>(
        &self,
        definition: &MetricDefinition,
        asked: Option<&str>,
        rows: &'r [AggregateRow],
    ) -> Result<(Subject, Option<&'r AggregateRow>), Problem> {
        let of_family = |row: &&AggregateRow| row.family == definition.family;
        let label = |row: &AggregateRow| Subject::of_row(row.family, &row.subject);
        let known: Vec<(Subject, &AggregateRow)> = rows
            .iter()
            .filter(of_family)
            .filter_map(|row| Some((label(row)?, row)))
            .collect();
        let wanted = asked.unwrap_or(VENUE_ZONE);
        let found = known.iter().find(|(subject, _)| subject.label() == wanted);
        if let Some((subject, _)) = found {
            let is_it = |row: &&AggregateRow| {
                of_family(row)
                    && (row.grain, row.start) == (self.grain, self.start)
                    && label(row).as_ref() == Some(subject)
            };
            return Ok((subject.clone(), rows.iter().find(is_it)));
        }
        match definition.family {
            Family::Zone => Ok((Subject::Zone(wanted.to_owned()), None)),
            Family::Line => Ok((Subject::Line(wanted.to_owned()), None)),
            Family::Traffic | Family::Presence => Ok((Subject::Venue, None)),
            _ => {
                let mut labels: Vec<String> = known.iter().map(|(subject, _)| subject.label()).collect();
                labels.sort_unstable();
                labels.dedup();
                labels.truncate(30);
                let detail = format!(
                    "{} of {:?} is not known on that day; known are {}",
                    definition.id,
                    clip(wanted),
                    labels.join(", ")
                );
                Err(Problem::parameter("subject", detail))
            }
        }
    }

    fn dto(
        &self,
        definition: &'static MetricDefinition,
        subject: &Subject,
        row: Option<&AggregateRow>,
        rows: &[AggregateRow],
        venue: &Venue,
    ) -> ExplainedBucketDto {
        ExplainedBucketDto {
            metric: definition.id,
            subject: subject.label(),
            grain: self.grain.word(),
            start: instant(self.start),
            start_local: local(self.start, venue.calendar.offset_ms(self.start)),
            end: instant(self.end),
            length_ms: self.end - self.start,
            value: number(definition, self, row, rows),
            unit: definition.unit,
            ingredients: row.and_then(|row| serde_json::to_value(&row.value).ok()),
        }
    }
}

fn metric(text: Option<&str>) -> Result<&'static MetricDefinition, Problem> {
    let names = text::list("metric", text.unwrap_or_default())?;
    match series::metrics(&names)?.as_slice() {
        [one] => Ok(*one),
        _ => Err(Problem::parameter("metric", "one metric is explained at a time")),
    }
}

/// The published rows of the day's families, whole or not at all.
async fn rows(
    state: &AppState,
    key: &VenueKey,
    sources: &Sources,
    bucket: &Bucket,
    definition: &'static MetricDefinition,
) -> Result<Vec<AggregateRow>, Problem> {
    let filter = RowFilter {
        families: Some(series::families(&[definition])),
        slice: Some(Slice::All),
        ..RowFilter::default()
    };
    let read = sources::rows(state, key, sources, &[bucket.day], &filter).await?;
    Ok(read.into_iter().flatten().collect())
}

/// The number of a bucket.
fn number(
    definition: &MetricDefinition,
    bucket: &Bucket,
    row: Option<&AggregateRow>,
    rows: &[AggregateRow],
) -> Number {
    let Some(row) = row else { return Number::None };
    match &row.value {
        Value::Traffic(traffic) if definition.id == CONVERSION => {
            let sales = rows
                .iter()
                .filter(|row| (row.grain, row.start) == (bucket.grain, bucket.start))
                .filter_map(|row| match &row.value {
                    Value::Transaction(sum) => Some(sum),
                    _ => None,
                });
            conversion(sales, traffic)
        }
        value => evaluate(definition.id, value, row.length_ms).unwrap_or(Number::None),
    }
}

/// The layout that a generation was computed with, if the venue still has it.
fn layout_of<'a>(venue: &'a Venue, day: LocalDay, info: &GenerationInfo) -> Option<&'a Layout> {
    std::iter::once(venue.layout_on(day))
        .chain(&venue.layouts)
        .find(|layout| layout.fingerprint() == info.layout)
}

/// The day folded once more, or why it cannot be.
async fn folded(
    state: &AppState,
    key: &VenueKey,
    venue: &Venue,
    info: &Arc<GenerationInfo>,
    bucket: &Bucket,
    layout: Option<&Layout>,
    wanted: Wanted,
) -> Result<Result<Refolded, String>, Problem> {
    if info.provisional {
        let why = "it was computed while the day was open, from rows that are not archived";
        return Ok(Err(why.to_owned()));
    }
    let Some(exclusions) = exclusions_of(state, key, info).await? else {
        let why = "exclusions that it applied are no longer known as they were; see inputs.exclusions";
        return Ok(Err(why.to_owned()));
    };
    let Some(layout) = layout else {
        let why = "the venue no longer has the layout that it was computed with";
        return Ok(Err(why.to_owned()));
    };
    if info.definitions != dwell_model::definitions::VERSION {
        let why = format!(
            "it was computed with version {} of the metric definitions",
            info.definitions
        );
        return Ok(Err(why));
    }
    let _turn = state.trajectories().acquire().await;
    let cut = venue.calendar.cut(bucket.day);
    match refold(state, key, info, cut, layout.clone(), exclusions, wanted).await {
        Ok(found) => Ok(Ok(found)),
        Err(problem) if problem.kind() == problem::NOT_FOUND => {
            let why = "an archive file that it was computed from is no longer kept";
            Ok(Err(why.to_owned()))
        }
        Err(problem) => Err(problem),
    }
}

/// The exclusions that a generation applied, ended ones too; `None` when they are not what they were.
async fn exclusions_of(
    state: &AppState,
    key: &VenueKey,
    info: &GenerationInfo,
) -> Result<Option<DayExclusions>, Problem> {
    let applied = &info.exclusions;
    let mut rules = Vec::new();
    for id in &applied.jobs {
        let documents = state.stores().documents.as_ref();
        let stored = documents::load::<Exclusion>(documents, &key.tenant, id).await?;
        rules.extend(stored.map(|stored| stored.value));
    }
    let exclusions = DayExclusions::exactly(&rules);
    Ok((exclusions.fingerprint() == applied.fingerprint).then_some(exclusions))
}

fn recomputed(
    definition: &'static MetricDefinition,
    folded: &Result<Refolded, String>,
    bucket: &Bucket,
    subject: &Subject,
    published: Option<&AggregateRow>,
    rows: &[AggregateRow],
) -> RecomputedDto {
    let found = match folded {
        Ok(found) => found,
        Err(why) => {
            return RecomputedDto {
                equal: None,
                value: Number::None,
                why_not: Some(why.clone()),
            };
        }
    };
    let is_it = |row: &&AggregateRow| {
        row.family == definition.family
            && (row.grain, row.start) == (bucket.grain, bucket.start)
            && Subject::of_row(row.family, &row.subject).as_ref() == Some(subject)
    };
    let row = found.rows.iter().find(is_it);
    let value = number(definition, bucket, row, &found.rows);
    // The other family that a number is made of counts too.
    let is_equal = row == published && value == number(definition, bucket, published, rows);
    RecomputedDto {
        equal: Some(is_equal),
        value,
        why_not: None,
    }
}

fn inputs(info: &GenerationInfo, layout: Option<&Layout>, subject: &Subject) -> InputsDto {
    let json = |value: Option<serde_json::Result<serde_json::Value>>| value.and_then(Result::ok);
    let subject = layout.and_then(|layout| match subject {
        Subject::Zone(id) => {
            let zone = layout.zones.iter().find(|zone| zone.id == *id);
            json(zone.map(serde_json::to_value))
        }
        Subject::Line(id) => {
            let line = layout.lines.iter().find(|line| line.id == *id);
            json(line.map(serde_json::to_value))
        }
        _ => None,
    });
    InputsDto {
        layout_valid_from: layout
            .and_then(|layout| layout.valid_from)
            .map(|from| from.to_string()),
        layout: format!("{:016x}", info.layout),
        layout_known: layout.is_some(),
        subject,
        definitions: info.definitions,
        exclusions: info.exclusions.jobs.clone(),
        excluded_events: info.exclusions.excluded.values().sum(),
        events_of_day: info.events.values().map(|sum| sum.rows).sum(),
        files: info.files.iter().map(Into::into).collect(),
    }
}

fn contributions(found: &Refolded) -> SourcesDto {
    fn largest<N: ToString>(counts: &BTreeMap<N, u64>) -> Vec<ContributionDto> {
        let mut counts: Vec<(String, u64)> = counts
            .iter()
            .map(|(name, events)| (name.to_string(), *events))
            .collect();
        counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        counts.truncate(CONTRIBUTIONS_MAX);
        let dto = |(name, events)| ContributionDto { name, events };
        counts.into_iter().map(dto).collect()
    }
    SourcesDto {
        events: found.events,
        sensors: largest(&found.sensors),
        receipts: largest(&found.receipts),
    }
}

fn event(event: EventBehind) -> EventBehindDto {
    EventBehindDto {
        kind: event.kind.name(),
        ts: instant(event.ts),
        sensor: event.sensor,
        key: event.key,
        x: event.position.map(|(x, _)| x),
        y: event.position.map(|(_, y)| y),
        received_at: instant(event.delivery.received_at),
        receipt: event.delivery.receipt.to_string(),
    }
}

/// Stays that touch the bucket, with a visit of the zone that does.
async fn sessions(
    state: &AppState,
    key: &VenueKey,
    info: &GenerationInfo,
    bucket: &Bucket,
    definition: &MetricDefinition,
    subject: &Subject,
    layout: Option<&Layout>,
) -> Result<Vec<SessionDto>, Problem> {
    if !matches!(definition.family, Family::Zone | Family::Traffic) {
        return Ok(Vec::new());
    }
    let zone = match subject {
        Subject::Zone(id) if id != VENUE_ZONE => {
            let place = layout.and_then(|layout| layout.zones.iter().position(|zone| zone.id == *id));
            Some(place)
        }
        _ => None,
    };
    let touches = |start: TsMs, end: TsMs| start < bucket.end && end >= bucket.start;
    let (mut shown, mut read, mut after) = (Vec::new(), 0, None::<SessionCursor>);
    while shown.len() < SESSIONS_SHOWN_MAX && read < SESSIONS_READ_MAX {
        let sessions = &state.stores().sessions;
        let page = sessions
            .list(key, bucket.day, info.generation, after.as_ref(), SESSIONS_AT_ONCE)
            .await?;
        let is_last = page.len() < SESSIONS_AT_ONCE;
        read += page.len();
        for stored in page {
            let session = &stored.session;
            after = Some(SessionCursor {
                start: session.start,
                id: stored.id.clone(),
            });
            let is_behind = match zone {
                None => touches(session.start, session.end),
                Some(place) => session
                    .visits
                    .iter()
                    .any(|visit| Some(usize::from(visit.zone)) == place && touches(visit.enter, visit.exit)),
            };
            if is_behind && shown.len() < SESSIONS_SHOWN_MAX {
                shown.push(SessionDto::new(&bucket.day.to_string(), stored, layout));
            }
        }
        if is_last {
            break;
        }
    }
    Ok(shown)
}
