//! Which zones a point lies in.
//!
//! [`Polygon::contains`] is the rule. [`ZoneIndex`] gives the same answer for all zones of a layout at once: a grid over
//! the zones whose cells know the zones that cover them whole, and which zones an edge cuts there, so that only those
//! are tested.

mod index;
mod zone_set;

pub use index::ZoneIndex;
pub use zone_set::ZoneSet;

use serde::{Deserialize, Serialize};

use super::MAX_CORNERS;

/// Largest coordinate of a corner, in metres.
pub const MAX_COORDINATE_M: f64 = 1_000_000.0;

/// Corners of a zone in metres, in order; the last joins the first. At least three of them are distinct.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<[f64; 2]>", into = "Vec<[f64; 2]>")]
pub struct Polygon {
    corners: Vec<[f64; 2]>,
}

/// Why a list of corners is no polygon.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PolygonError {
    /// Fewer than three distinct corners.
    #[error("has {0} distinct corners; give at least 3")]
    TooFew(usize),
    /// More corners than allowed.
    #[error("has {0} corners; give at most {MAX_CORNERS}")]
    TooMany(usize),
    /// A coordinate that is no number, or too far away.
    #[error("corner {index} lies at ({x}, {y}); give metres within ±{MAX_COORDINATE_M}")]
    Coordinate {
        /// Number of the corner, from 0.
        index: usize,
        /// Its x.
        x: f64,
        /// Its y.
        y: f64,
    },
}

impl Polygon {
    /// Checks a list of corners.
    pub fn new(corners: Vec<[f64; 2]>) -> Result<Self, PolygonError> {
        if corners.len() > MAX_CORNERS {
            return Err(PolygonError::TooMany(corners.len()));
        }
        let near = |v: &f64| v.abs() <= MAX_COORDINATE_M;
        if let Some(index) = corners.iter().position(|corner| !corner.iter().all(near)) {
            let [x, y] = corners[index];
            return Err(PolygonError::Coordinate { index, x, y });
        }
        let mut distinct: Vec<[u64; 2]> = corners.iter().map(|c| c.map(|v| (v + 0.0).to_bits())).collect();
        distinct.sort_unstable();
        distinct.dedup();
        if distinct.len() < 3 {
            return Err(PolygonError::TooFew(distinct.len()));
        }
        Ok(Self { corners })
    }

    /// The corners, in order.
    pub fn corners(&self) -> &[[f64; 2]] {
        &self.corners
    }

    /// Whether a point lies inside: the even-odd rule in f64, each operation rounded by itself. An axis-aligned
    /// rectangle is half-open: its lower edges are inside, its upper ones outside.
    pub fn contains(&self, x: f32, y: f32) -> bool {
        let (x, y) = (f64::from(x), f64::from(y));
        self.edges().filter(|&(a, b)| crosses(a, b, x, y)).count() % 2 == 1
    }

    /// The edges in listed order, the closing one last.
    fn edges(&self) -> impl Iterator<Item = ([f64; 2], [f64; 2])> + '_ {
        let nexts = self.corners[1..].iter().chain(&self.corners[..1]);
        self.corners.iter().copied().zip(nexts.copied())
    }
}

/// Whether the ray from a point towards +x crosses an edge. Rust never fuses the multiplication and the addition.
#[inline(always)]
fn crosses([ax, ay]: [f64; 2], [bx, by]: [f64; 2], x: f64, y: f64) -> bool {
    (ay > y) != (by > y) && x < (bx - ax) * (y - ay) / (by - ay) + ax
}

impl TryFrom<Vec<[f64; 2]>> for Polygon {
    type Error = PolygonError;

    fn try_from(corners: Vec<[f64; 2]>) -> Result<Self, PolygonError> {
        Self::new(corners)
    }
}

impl From<Polygon> for Vec<[f64; 2]> {
    fn from(polygon: Polygon) -> Self {
        polygon.corners
    }
}

#[cfg(test)]
mod tests;
