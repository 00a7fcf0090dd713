//! Transitions and heat maps on the wire.

use serde::Serialize;
use utoipa::ToSchema;

/// How often sessions went from one zone to the next.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TransitionsDto {
    pub(crate) venue: String,
    /// First instant covered.
    pub(crate) from: String,
    /// First instant no longer covered.
    pub(crate) to: String,
    /// Which events count: all, open or staff; left out where the request names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) slice: Option<&'static str>,
    pub(crate) layers: Vec<LayerTransitionsDto>,
    /// The days covered and where their numbers come from.
    pub(crate) days: Vec<OriginDto>,
}

/// Transitions within one layer of zones.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LayerTransitionsDto {
    pub(crate) layer: String,
    /// By from, to.
    pub(crate) transitions: Vec<TransitionDto>,
}

/// A pair of zones.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TransitionDto {
    /// Zone left.
    pub(crate) from: String,
    /// Zone entered.
    pub(crate) to: String,
    pub(crate) count: u64,
}

/// Time spent per cell of the floor.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HeatmapDto {
    pub(crate) venue: String,
    /// First instant covered.
    pub(crate) from: String,
    /// First instant no longer covered.
    pub(crate) to: String,
    /// Which events count: all, open or staff; left out where the request names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) slice: Option<&'static str>,
    pub(crate) floors: Vec<FloorDto>,
    /// The days covered and where their numbers come from.
    pub(crate) days: Vec<OriginDto>,
}

/// A floor's cells.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FloorDto {
    /// The floor; empty where events name none.
    pub(crate) floor: String,
    /// Side of a cell, metres. Cell (column, row) covers x from column × side and y from row × side.
    pub(crate) cell_m: f64,
    pub(crate) cells: Vec<CellDto>,
}

/// A cell in which somebody was.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CellDto {
    pub(crate) column: i32,
    pub(crate) row: i32,
    /// Person-time spent in it.
    pub(crate) dwell_ms: u64,
}

/// Where a day's numbers come from.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OriginDto {
    pub(crate) day: String,
    /// batch, live, or null when nothing was computed yet.
    pub(crate) layer: Option<&'static str>,
    /// The generation, where the layer is batch.
    pub(crate) generation: Option<u64>,
    /// Whether a better number is bound to come.
    pub(crate) provisional: bool,
    /// Where the request names a slice, what the day has of it: computed; pending: not computed yet, or before there were
    /// slices; no-opening-hours, no-staff-tags: the layout declares none, so there is no such slice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) slice: Option<&'static str>,
}
