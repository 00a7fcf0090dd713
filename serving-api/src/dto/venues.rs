//! Venues on the wire.

use dwell_model::layout::{Layout, Line, LineRole, Sensor, TrackScope, Venue, Zone};
use dwell_model::time::{LocalDay, TsMs, VenueCalendar};
use serde::Serialize;
use utoipa::ToSchema;

/// All venues of the tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VenuesDto {
    pub(crate) venues: Vec<VenueDto>,
}

/// A venue in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VenueDto {
    id: String,
    name: Option<String>,
    /// IANA time zone.
    tz: String,
    /// Local hour at which a venue-day starts.
    day_start_hour: u8,
    tags: Vec<String>,
    /// Ids of the zones of the layout in force today.
    zones: Vec<String>,
    /// The local day that it is there now.
    today: String,
    /// Raised by every change.
    version: u64,
}

/// A venue with the layout in force today.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VenueDetailDto {
    id: String,
    name: Option<String>,
    /// IANA time zone.
    tz: String,
    /// Local hour at which a venue-day starts.
    day_start_hour: u8,
    tags: Vec<String>,
    today: String,
    /// The layout in force today.
    layout: LayoutDto,
    /// First days of all layouts; null for the first, which is valid since ever.
    layouts_valid_from: Vec<Option<String>>,
    /// Raised by every change.
    version: u64,
    /// There while the venue's days are being cut anew: the time zone and day start that it is to have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) recut: Option<RecutDto>,
}

/// A venue's days cut anew under another time zone or day start. Until the job has ended all answers are by the former
/// ones.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct RecutDto {
    /// The job that does it; null in a dry run.
    pub(crate) job: Option<String>,
    /// IANA time zone.
    tz: String,
    /// Local hour at which a venue-day starts.
    day_start_hour: u8,
}

/// What is where.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LayoutDto {
    /// First day; null when it is valid since ever.
    valid_from: Option<String>,
    /// Metres along x, where known.
    width: Option<f64>,
    /// Metres along y, where known.
    height: Option<f64>,
    zones: Vec<ZoneDto>,
    lines: Vec<LineDto>,
    /// Sensors that are declared; others are taken with the defaults.
    sensors: Vec<SensorDto>,
    /// When the venue is open today, as UTC intervals [from, to); null when no opening hours are known.
    open_today: Option<Vec<[String; 2]>>,
    session_gap_ms: i64,
    zone_blink_ms: i64,
    heat_cell_cm: u32,
}

/// A polygon whose visits are measured.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ZoneDto {
    id: String,
    name: Option<String>,
    /// Corners `[x, y]` in metres, in order; the last joins the first.
    polygon: Vec<[f64; 2]>,
    /// Only events of this floor are inside; null: any.
    floor: Option<String>,
    layer: String,
    engaged_after_ms: i64,
    tags: Vec<String>,
}

/// A counting line.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LineDto {
    id: String,
    name: Option<String>,
    /// entrance, internal or passby.
    role: &'static str,
}

/// A declared sensor.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SensorDto {
    id: String,
    name: Option<String>,
    /// venue or sensor: where its track ids are unique.
    track_scope: &'static str,
    interval_ms: Option<i64>,
    counter_wrap: Option<i64>,
}

/// What became of the venues of a file.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AppliedDto {
    /// Whether nothing was stored, since only a dry run was asked for.
    pub(crate) dry_run: bool,
    pub(crate) venues: Vec<AppliedVenueDto>,
}

/// What became of one venue.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AppliedVenueDto {
    pub(crate) id: String,
    /// created, changed or unchanged.
    pub(crate) change: &'static str,
    /// First local day whose numbers depend on something that changed; null when none do. Its days are computed anew
    /// by the next run.
    pub(crate) recomputes_from: Option<String>,
    /// Whether all days depend on something that changed (time zone, day start, or the first layout).
    pub(crate) recomputes_all: bool,
    /// The computed days among them: each is dirty from now on and is computed anew by the next run.
    pub(crate) affected: AffectedDaysDto,
    /// Another time zone or day start is not stored at once, where there is anything of the venue: this job cuts its days
    /// anew and stores it with them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) recut: Option<RecutDto>,
}

/// Computed days that a change of a venue makes dirty.
#[derive(Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct AffectedDaysDto {
    /// How many.
    pub(crate) count: u64,
    /// The first and the last of them.
    pub(crate) first: Option<String>,
    /// See `first`.
    pub(crate) last: Option<String>,
}

impl RecutDto {
    /// A wanted cut, and the job that makes it.
    pub(crate) fn new(job: Option<String>, to: VenueCalendar) -> Self {
        Self {
            job,
            tz: to.tz().name().to_owned(),
            day_start_hour: to.day_start_hour(),
        }
    }
}

impl VenueDto {
    /// A venue as it stands at `now`.
    pub(crate) fn new(venue: &Venue, version: u64, now: TsMs) -> Self {
        let today = venue.calendar.day_of(now);
        Self {
            id: venue.id.to_string(),
            name: venue.name.clone(),
            tz: venue.calendar.tz().name().to_owned(),
            day_start_hour: venue.calendar.day_start_hour(),
            tags: venue.tags.clone(),
            zones: venue
                .layout_on(today)
                .zones
                .iter()
                .map(|zone| zone.id.clone())
                .collect(),
            today: today.to_string(),
            version,
        }
    }
}

impl VenueDetailDto {
    /// A venue as it stands at `now`.
    pub(crate) fn new(venue: &Venue, version: u64, now: TsMs) -> Self {
        let today = venue.calendar.day_of(now);
        Self {
            id: venue.id.to_string(),
            name: venue.name.clone(),
            tz: venue.calendar.tz().name().to_owned(),
            day_start_hour: venue.calendar.day_start_hour(),
            tags: venue.tags.clone(),
            today: today.to_string(),
            layout: LayoutDto::new(venue.layout_on(today), venue, today),
            layouts_valid_from: venue
                .layouts
                .iter()
                .map(|layout| layout.valid_from.map(|day| day.to_string()))
                .collect(),
            version,
            recut: None,
        }
    }
}

impl LayoutDto {
    fn new(layout: &Layout, venue: &Venue, today: LocalDay) -> Self {
        let open = layout.opening_hours.as_ref().map(|hours| {
            let intervals = hours.open_intervals(&venue.calendar.cut(today));
            intervals
                .into_iter()
                .map(|(from, to)| [super::instant(from), super::instant(to)])
                .collect()
        });
        Self {
            valid_from: layout.valid_from.map(|day| day.to_string()),
            width: layout.width_m,
            height: layout.height_m,
            zones: layout.zones.iter().map(ZoneDto::from).collect(),
            lines: layout.lines.iter().map(LineDto::from).collect(),
            sensors: layout.sensors.iter().map(SensorDto::from).collect(),
            open_today: open,
            session_gap_ms: layout.rules.session_gap_ms,
            zone_blink_ms: layout.rules.zone_blink_ms,
            heat_cell_cm: layout.rules.heat_cell_cm,
        }
    }
}

impl From<&Zone> for ZoneDto {
    fn from(zone: &Zone) -> Self {
        Self {
            id: zone.id.clone(),
            name: zone.name.clone(),
            polygon: zone.polygon.corners().to_vec(),
            floor: zone.floor.clone(),
            layer: zone.layer.clone(),
            engaged_after_ms: zone.engaged_after_ms,
            tags: zone.tags.clone(),
        }
    }
}

impl From<&Line> for LineDto {
    fn from(line: &Line) -> Self {
        Self {
            id: line.id.clone(),
            name: line.name.clone(),
            role: match line.role {
                LineRole::Entrance => "entrance",
                LineRole::Internal => "internal",
                LineRole::Passby => "passby",
            },
        }
    }
}

impl From<&Sensor> for SensorDto {
    fn from(sensor: &Sensor) -> Self {
        Self {
            id: sensor.id.clone(),
            name: sensor.name.clone(),
            track_scope: match sensor.track_scope {
                TrackScope::Venue => "venue",
                TrackScope::Sensor => "sensor",
            },
            interval_ms: sensor.interval_ms,
            counter_wrap: sensor.counter_wrap,
        }
    }
}
