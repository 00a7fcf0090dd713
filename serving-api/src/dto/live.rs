//! The live view on the wire.

use std::collections::BTreeMap;

use dwell_storage::api::LiveVenue;
use serde::Serialize;
use utoipa::ToSchema;

use super::instant;

/// A venue at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct LiveDto {
    venue: String,
    /// When it was published; null when nothing of the venue has been seen yet.
    as_of: Option<String>,
    /// Event time up to which the order of events is settled.
    watermark: Option<String>,
    /// People in the venue now; null when nothing of it has been seen yet.
    occupancy: Option<u64>,
    /// Each zone of the layout, and `_venue` for the whole venue, with the people present in it now.
    zones: Vec<LiveZoneDto>,
    /// Sessions that are open.
    open_sessions: u64,
    /// Events that came too late for the reorder window, since the day's start.
    late_events: u64,
    /// The open day so far.
    pub(crate) today: LiveDayDto,
}

/// A zone now.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct LiveZoneDto {
    id: String,
    /// People present now; null when nothing of the venue has been seen yet.
    occupancy: Option<u64>,
}

/// The open day so far.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct LiveDayDto {
    pub(crate) day: String,
    /// Where the request names a slice: which one, and what the day has of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) slice: Option<LiveSliceDto>,
    /// The hours that have begun, each zone with what was measured in it.
    pub(crate) hours: Vec<LiveHourDto>,
}

/// A slice of the open day.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct LiveSliceDto {
    /// all, open or staff.
    pub(crate) slice: &'static str,
    /// computed; pending: a changed layout is about to be followed; no-opening-hours, no-staff-tags: the layout declares
    /// none, so there is no such slice.
    pub(crate) state: &'static str,
}

/// An hour that has begun.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct LiveHourDto {
    /// UTC start.
    pub(crate) start: String,
    /// Start in local time with its offset.
    pub(crate) start_local: String,
    /// Time of the hour that the slice covers.
    pub(crate) length_ms: i64,
    /// Whether the hour goes on.
    pub(crate) running: bool,
    pub(crate) zones: Vec<LiveZoneHourDto>,
}

/// A zone's metrics in an hour, by their ids; zones without anybody so far are left out.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct LiveZoneHourDto {
    pub(crate) id: String,
    /// visits, visitors, dwell_ms and the other metrics of zones.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub(crate) metrics: BTreeMap<&'static str, serde_json::Value>,
}

impl LiveDto {
    /// A venue as the speed layer has published it.
    pub(crate) fn published(live: &LiveVenue, today: LiveDayDto) -> Self {
        let zones = live.occupancy.iter();
        let whole = live
            .occupancy
            .iter()
            .find(|(zone, _)| zone == dwell_model::layout::VENUE_ZONE);
        Self {
            venue: live.venue.venue.to_string(),
            as_of: Some(instant(live.as_of)),
            watermark: Some(instant(live.watermark)),
            occupancy: whole.map(|(_, people)| *people),
            zones: zones
                .map(|(id, people)| LiveZoneDto {
                    id: id.clone(),
                    occupancy: Some(*people),
                })
                .collect(),
            open_sessions: live.open_sessions,
            late_events: live.late_events,
            today,
        }
    }

    /// A venue of which the speed layer has seen nothing: its zones, and that nothing is known of them.
    pub(crate) fn unseen(venue: &str, zones: impl Iterator<Item = String>, today: LiveDayDto) -> Self {
        Self {
            venue: venue.to_owned(),
            as_of: None,
            watermark: None,
            occupancy: None,
            zones: zones.map(|id| LiveZoneDto { id, occupancy: None }).collect(),
            open_sessions: 0,
            late_events: 0,
            today,
        }
    }
}
