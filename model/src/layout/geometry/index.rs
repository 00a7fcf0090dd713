//! A grid that answers for all zones at once.
//!
//! Exactness. A cell is the half-open square of the points that floor to it; multiplying by the cells' power of two is
//! exact, so no point is put into a wrong one. A zone's answer is constant in a cell unless one of its edges *touches*
//! the cell:
//! - a vertical edge, if it runs strictly between the cell's sides (left of or on the lower side it never counts,
//!   on or right of the upper side it always does, and its crossing is computed without rounding);
//! - a horizontal edge, if it runs strictly between the cell's bottom and top (it is never crossed itself, but the edges
//!   before and after it end at it) and reaches the cell, give or take the margin;
//! - any other, if the part of it within the cell's band of y reaches the cell, give or take the margin, which is far
//!   above the rounding error of a crossing.
//!
//! Between the levels of corners the number of edges to the right is constant; at the level of a corner (or of a run of
//! horizontal edges) strictly inside the band, the two edges that meet there lie on the same side of an untouched cell,
//! so the parity stays. Only the touched zones of a cell are tested, with [`Polygon::contains`] itself. The grid
//! reaches a cell beyond the zones on each side; past that nothing is inside.

use std::collections::HashMap;

use super::{Polygon, ZoneSet};
use crate::layout::Layout;

/// Side of a cell, in metres, unless the zones reach so far that the grid would grow too large.
const CELL_M: f64 = 0.5;
/// Most cells of a grid: 1 MiB of memory. Twelve thousand square metres have 50,000.
const MAX_CELLS: i64 = 1 << 18;
/// Distance from an edge within which a cell counts as touched; rounding errs by less than a thousandth of it.
const MARGIN_M: f64 = 1e-6;
/// An edge rising less than this is taken with its whole extent in each band, since cutting it would round badly.
const FLAT_M: f64 = 1e-3;

/// Gives each point of a floor plan its zones.
#[derive(Debug, Clone)]
pub struct ZoneIndex {
    polygons: Vec<Polygon>,
    words: usize,
    /// Zones that take events of any floor.
    any_floor: ZoneSet,
    /// For each floor that a zone names: the zones that take its events.
    floors: Vec<(String, ZoneSet)>,
    grid: Grid,
    /// Number of an entry of `answers` for each cell, row by row.
    cells: Vec<u32>,
    answers: Answers,
}

/// Where the cells lie.
#[derive(Debug, Clone, Copy)]
struct Grid {
    /// Cells per metre, a power of two.
    per_m: f64,
    /// Number of the first column and row, counted from the plan's origin.
    first: [f64; 2],
    columns: i64,
    rows: i64,
}

/// What cells answer; cells with the same answer share one. `covering` has `words` words for each.
#[derive(Debug, Clone, Default)]
struct Answers {
    covering: Vec<u64>,
    /// `touched[ends[i - 1]..ends[i]]` are the zones that answer `i` has to test.
    touched: Vec<u16>,
    ends: Vec<u32>,
}

impl ZoneIndex {
    /// Prepares the zones of a layout.
    pub fn build(layout: &Layout) -> Self {
        let n = layout.zones.len();
        let mut any_floor = ZoneSet::empty(n);
        let mut floors: Vec<(String, ZoneSet)> = Vec::new();
        for (i, zone) in layout.zones.iter().enumerate() {
            match &zone.floor {
                None => any_floor.insert(i),
                Some(floor) if floors.iter().all(|(name, _)| name != floor) => {
                    floors.push((floor.clone(), ZoneSet::empty(n)));
                }
                Some(_) => {}
            }
        }
        for (floor, zones) in &mut floors {
            for (i, zone) in layout.zones.iter().enumerate() {
                if zone.floor.as_ref().is_none_or(|name| name == floor) {
                    zones.insert(i);
                }
            }
        }
        let polygons: Vec<Polygon> = layout.zones.iter().map(|zone| zone.polygon.clone()).collect();
        let words = n.div_ceil(64).max(1);
        let grid = Grid::around(&polygons);
        let (cells, answers) = fill(&polygons, grid, words);
        Self {
            polygons,
            words,
            any_floor,
            floors,
            grid,
            cells,
            answers,
        }
    }

    /// Number of zones.
    pub fn zones(&self) -> usize {
        self.polygons.len()
    }

    /// Whether [`word_at`](Self::word_at) tells everything: up to 64 zones.
    pub fn is_one_word(&self) -> bool {
        self.words == 1
    }

    /// The zones that take events of a floor (`None`: events that name no floor).
    #[inline]
    pub fn zones_of_floor(&self, floor: Option<&str>) -> &ZoneSet {
        match floor {
            Some(name) if !self.floors.is_empty() => self
                .floors
                .iter()
                .find(|(floor, _)| floor == name)
                .map_or(&self.any_floor, |(_, zones)| zones),
            _ => &self.any_floor,
        }
    }

    /// The zones that hold a point of a floor, into `zones`.
    pub fn zones_at(&self, x: f32, y: f32, floor: Option<&str>, zones: &mut ZoneSet) {
        let of_floor = self.zones_of_floor(floor);
        zones.first = self.word(x, y, 0) & of_floor.first;
        zones.rest.resize(self.words - 1, 0);
        for (i, (word, allowed)) in zones.rest.iter_mut().zip(&of_floor.rest).enumerate() {
            *word = self.word(x, y, i + 1) & allowed;
        }
    }

    /// The first 64 zones that hold a point of a floor, a bit each.
    #[inline]
    pub fn word_at(&self, x: f32, y: f32, floor: Option<&str>) -> u64 {
        self.word(x, y, 0) & self.zones_of_floor(floor).first
    }

    #[inline]
    fn word(&self, x: f32, y: f32, word: usize) -> u64 {
        let Some(cell) = self.grid.cell_of(f64::from(x), f64::from(y)) else {
            return 0;
        };
        let answer = self.cells[cell] as usize;
        let mut zones = self.answers.covering[answer * self.words + word];
        for &zone in self.answers.touched(answer) {
            if usize::from(zone) / 64 == word && self.polygons[usize::from(zone)].contains(x, y) {
                zones |= 1 << (zone % 64);
            }
        }
        zones
    }
}

impl Answers {
    #[inline]
    fn touched(&self, answer: usize) -> &[u16] {
        let start = if answer == 0 {
            0
        } else {
            self.ends[answer - 1] as usize
        };
        &self.touched[start..self.ends[answer] as usize]
    }
}

impl Grid {
    /// A grid over all corners and a cell more on each side, with cells as small as the limit allows.
    fn around(polygons: &[Polygon]) -> Self {
        let corners = || polygons.iter().flat_map(|polygon| polygon.corners());
        if corners().next().is_none() {
            return Self {
                per_m: 1.0 / CELL_M,
                first: [0.0; 2],
                columns: 0,
                rows: 0,
            };
        }
        let (mut low, mut high) = ([f64::INFINITY; 2], [f64::NEG_INFINITY; 2]);
        for corner in corners() {
            for axis in 0..2 {
                low[axis] = low[axis].min(corner[axis]);
                high[axis] = high[axis].max(corner[axis]);
            }
        }
        let mut per_m = 1.0 / CELL_M;
        loop {
            let first = low.map(|v| (v * per_m).floor() - 1.0);
            let count = |axis: usize| ((high[axis] * per_m).floor() + 2.0 - first[axis]) as i64;
            let (columns, rows) = (count(0), count(1));
            if columns.saturating_mul(rows) <= MAX_CELLS {
                return Self {
                    per_m,
                    first,
                    columns,
                    rows,
                };
            }
            per_m /= 2.0;
        }
    }

    #[inline]
    fn cell_of(&self, x: f64, y: f64) -> Option<usize> {
        // Multiplying is exact; the floor has to be taken before anything is subtracted, which could round.
        let column = floor(x * self.per_m) - self.first[0];
        let row = floor(y * self.per_m) - self.first[1];
        // Written so that NaN is outside.
        let inside = column >= 0.0 && row >= 0.0 && column < self.columns as f64 && row < self.rows as f64;
        inside.then_some((row as i64 * self.columns + column as i64) as usize)
    }

    /// Lower bound of a column (axis 0) or row (axis 1), in metres.
    fn low(&self, axis: usize, number: i64) -> f64 {
        (self.first[axis] + number as f64) / self.per_m
    }

    /// Columns or rows that the stretch [low, high] may reach, clipped to the grid.
    fn span(&self, axis: usize, low: f64, high: f64) -> std::ops::RangeInclusive<i64> {
        let count = if axis == 0 { self.columns } else { self.rows };
        let number = |v: f64| (v * self.per_m - self.first[axis]).floor() as i64;
        number(low).max(0)..=number(high).min(count - 1)
    }
}

/// The floor by truncation, which is one instruction where `f64::floor` may be a call. Beyond ±2⁶³, and for NaN, it gives
/// something far off any grid, or NaN.
#[inline(always)]
fn floor(v: f64) -> f64 {
    let cut = v as i64 as f64;
    // NaN is cut to 0; the product makes it NaN again.
    (cut - f64::from(u8::from(cut > v))) + v * 0.0
}

/// Decides every cell for every zone.
fn fill(polygons: &[Polygon], grid: Grid, words: usize) -> (Vec<u32>, Answers) {
    let n = (grid.columns * grid.rows) as usize;
    let mut covering = vec![0_u64; n * words];
    let mut touched: Vec<Vec<u16>> = vec![Vec::new(); n];
    for (zone, polygon) in polygons.iter().enumerate() {
        let mark = |cell: usize, touched: &mut Vec<Vec<u16>>| {
            if touched[cell].last() != Some(&(zone as u16)) {
                touched[cell].push(zone as u16);
            }
        };
        for (a, b) in polygon.edges() {
            touch(grid, a, b, |cell| mark(cell, &mut touched));
        }
        let (low, high) = bounds(polygon);
        for row in grid.span(1, low[1], high[1]) {
            for column in grid.span(0, low[0], high[0]) {
                let cell = (row * grid.columns + column) as usize;
                if touched[cell].last() == Some(&(zone as u16)) {
                    continue;
                }
                // The lower left corner of a cell belongs to it, and is exact in f32 unless the plan is huge; the
                // answer is that of any of its points.
                if contains_f64(polygon, grid.low(0, column), grid.low(1, row)) {
                    covering[cell * words + zone / 64] |= 1 << (zone % 64);
                }
            }
        }
    }
    share(&covering, &touched, words)
}

fn contains_f64(polygon: &Polygon, x: f64, y: f64) -> bool {
    polygon
        .edges()
        .filter(|&(a, b)| super::crosses(a, b, x, y))
        .count()
        % 2
        == 1
}

fn bounds(polygon: &Polygon) -> ([f64; 2], [f64; 2]) {
    let fold = |start: f64, pick: fn(f64, f64) -> f64| {
        polygon
            .corners()
            .iter()
            .fold([start; 2], |acc, c| [pick(acc[0], c[0]), pick(acc[1], c[1])])
    };
    (fold(f64::INFINITY, f64::min), fold(f64::NEG_INFINITY, f64::max))
}

/// Calls `mark` for every cell that an edge touches (see the module's text).
fn touch(grid: Grid, a: [f64; 2], b: [f64; 2], mut mark: impl FnMut(usize)) {
    let (low_x, high_x) = (a[0].min(b[0]), a[0].max(b[0]));
    let (low_y, high_y) = (a[1].min(b[1]), a[1].max(b[1]));
    let vertical = low_x == high_x;
    for row in grid.span(1, low_y, high_y) {
        let (bottom, top) = (grid.low(1, row), grid.low(1, row + 1));
        if high_y <= bottom || low_y >= top {
            continue;
        }
        let (from, to) = if vertical || high_y - low_y < FLAT_M {
            (low_x, high_x)
        } else {
            let at = |y: f64| a[0] + (b[0] - a[0]) * ((y.clamp(low_y, high_y) - a[1]) / (b[1] - a[1]));
            let (p, q) = (at(bottom), at(top));
            (p.min(q), p.max(q))
        };
        let margin = if vertical { 0.0 } else { MARGIN_M };
        for column in grid.span(0, from - margin, to + margin) {
            if vertical && (low_x <= grid.low(0, column) || low_x >= grid.low(0, column + 1)) {
                continue;
            }
            mark((row * grid.columns + column) as usize);
        }
    }
}

/// Gives cells of equal answer one number.
fn share(covering: &[u64], touched: &[Vec<u16>], words: usize) -> (Vec<u32>, Answers) {
    let mut answers = Answers::default();
    let mut numbers: HashMap<(&[u64], &[u16]), u32> = HashMap::new();
    let mut cells = Vec::with_capacity(touched.len());
    for (cell, touched) in touched.iter().enumerate() {
        let covering = &covering[cell * words..(cell + 1) * words];
        let number = *numbers.entry((covering, touched)).or_insert_with(|| {
            answers.covering.extend_from_slice(covering);
            answers.touched.extend_from_slice(touched);
            answers.ends.push(answers.touched.len() as u32);
            answers.ends.len() as u32 - 1
        });
        cells.push(number);
    }
    (cells, answers)
}
