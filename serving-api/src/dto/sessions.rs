//! Sessions on the wire.

use dwell_model::layout::Layout;
use dwell_model::session::ZoneVisit;
use dwell_storage::api::StoredSession;
use serde::Serialize;
use utoipa::ToSchema;

use super::instant;

/// Micrometres in a metre.
const METRE_UM: f64 = 1e6;

/// One person's stay within a venue-day.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionDto {
    id: String,
    /// Local day.
    day: String,
    /// The person, as the sensors know them.
    track: String,
    /// The sensor, where its track ids are its own; else null.
    sensor: Option<String>,
    /// First event.
    start: String,
    /// Last event.
    end: String,
    dwell_ms: i64,
    /// Number of events.
    points: u64,
    /// Length of the path, metres.
    path_m: f64,
    /// Whether it begins within the session gap of the day's start.
    continued_in: bool,
    /// Whether it ends within the session gap of the day's end.
    continued_out: bool,
    /// Stays in zones, by enter, exit, zone.
    visits: Vec<VisitDto>,
}

/// One stay in a zone.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VisitDto {
    /// The zone; null when the layout that it was computed with is no longer known.
    zone: Option<String>,
    enter: String,
    exit: String,
    dwell_ms: i64,
}

/// A page of sessions, by day, start and id.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionsDto {
    pub(crate) venue: String,
    /// The generations that the sessions come from, a day each.
    pub(crate) days: Vec<SessionDayDto>,
    pub(crate) sessions: Vec<SessionDto>,
    /// Cursor of the next page; null on the last. A page may be short, even empty, before the last.
    pub(crate) next_cursor: Option<String>,
}

/// Where a day's sessions come from.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionDayDto {
    pub(crate) day: String,
    /// published, or pending: sessions of days that no generation has been published for are not listed yet.
    pub(crate) state: &'static str,
    pub(crate) generation: Option<u64>,
    /// Computed while the day was open.
    pub(crate) provisional: bool,
}

/// A session with the way that it took.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionDetailDto {
    #[serde(flatten)]
    pub(crate) session: SessionDto,
    pub(crate) generation: u64,
    /// Positions by time, thinned evenly where there are more than the limit.
    pub(crate) trajectory: Vec<PointDto>,
    /// Whether positions were left out.
    pub(crate) trajectory_thinned: bool,
}

/// A position.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct PointDto {
    /// Milliseconds since 1970 (UTC).
    pub(crate) ts: i64,
    /// Metres.
    pub(crate) x: f32,
    /// Metres.
    pub(crate) y: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) floor: Option<String>,
    pub(crate) sensor: String,
}

impl SessionDto {
    /// A session as it is sent. `layout` is the one that it was computed with, where that is still known.
    pub(crate) fn new(day: &str, stored: StoredSession, layout: Option<&Layout>) -> Self {
        let StoredSession { id, session } = stored;
        let zone_of = |visit: &ZoneVisit| {
            let zone = layout.and_then(|layout| layout.zones.get(usize::from(visit.zone)));
            zone.map(|zone| zone.id.clone())
        };
        let visits = session.visits.iter().map(|visit| VisitDto {
            zone: zone_of(visit),
            enter: instant(visit.enter),
            exit: instant(visit.exit),
            dwell_ms: visit.dwell_ms(),
        });
        Self {
            id,
            day: day.to_owned(),
            start: instant(session.start),
            end: instant(session.end),
            dwell_ms: session.dwell_ms(),
            points: session.points,
            path_m: session.path_um as f64 / METRE_UM,
            continued_in: session.continued_in,
            continued_out: session.continued_out,
            visits: visits.collect(),
            track: session.subject.track,
            sensor: session.subject.sensor,
        }
    }
}
