//! Aggregates: the rows of each generation of a venue-day.

use async_trait::async_trait;
use dwell_model::ids::VenueKey;
use dwell_model::metrics::{AggregateRow, Family, Grain, Slice};
use dwell_model::time::LocalDay;

use crate::error::Result;

/// Number of a generation: the fence of the lease under which it was computed. Never reused.
pub type Generation = u64;

/// Which rows of a generation to read; `None` means all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowFilter {
    /// Only this grain.
    pub grain: Option<Grain>,
    /// Only these families.
    pub families: Option<Vec<Family>>,
    /// Only these subjects.
    pub subjects: Option<Vec<String>>,
    /// Only this slice.
    pub slice: Option<Slice>,
}

impl RowFilter {
    /// Whether a row passes.
    pub fn accepts(&self, row: &AggregateRow) -> bool {
        self.grain.is_none_or(|grain| grain == row.grain)
            && self
                .families
                .as_ref()
                .is_none_or(|families| families.contains(&row.family))
            && self
                .subjects
                .as_ref()
                .is_none_or(|subjects| subjects.contains(&row.subject))
            && self.slice.is_none_or(|slice| slice == row.slice)
    }
}

/// Writing aggregates.
#[async_trait]
pub trait AggregatesWriter: Send + Sync {
    /// Stores all rows of a generation; repeating it replaces them. Nobody reads them before they are published.
    async fn write(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        generation: Generation,
        rows: Vec<AggregateRow>,
    ) -> Result<()>;

    /// Removes the rows of a generation; removing nothing is fine.
    async fn delete(&self, venue: &VenueKey, day: LocalDay, generation: Generation) -> Result<()>;
}

/// Reading aggregates.
#[async_trait]
pub trait AggregatesReader: Send + Sync {
    /// Rows of a generation, sorted by (grain, start, family, subject, slice).
    async fn read(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        generation: Generation,
        filter: &RowFilter,
    ) -> Result<Vec<AggregateRow>>;

    /// The same for several days of a venue in one call, answers in the order asked for.
    async fn read_many(
        &self,
        venue: &VenueKey,
        days: &[(LocalDay, Generation)],
        filter: &RowFilter,
    ) -> Result<Vec<Vec<AggregateRow>>>;

    /// Number of rows of a generation, for comparing with its pointer. Backends that can count without reading do.
    async fn count(&self, venue: &VenueKey, day: LocalDay, generation: Generation) -> Result<u64> {
        Ok(self
            .read(venue, day, generation, &RowFilter::default())
            .await?
            .len() as u64)
    }
}

/// The aggregates table.
pub trait Aggregates: AggregatesWriter + AggregatesReader {}

impl<T: AggregatesWriter + AggregatesReader> Aggregates for T {}
