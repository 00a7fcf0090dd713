//! The mark: what a retention job is going to remove of a venue, and what stays although it is old enough, with the
//! reasons. Stored before anything is removed, and kept until the next job marks the venue anew.

use dwell_model::ids::{TenantId, VenueId};
use dwell_model::time::{LocalDay, TsMs};
use dwell_storage::api::Documents;
use dwell_storage::api::documents::{self, DocumentKind, Stored};
use dwell_storage::error::Result;
use serde::{Deserialize, Serialize};

use crate::facts::Policy;
use crate::plan::{DayPlan, Totals};
use crate::tally::Tally;

/// Most days that one mark looks at: its document stays small, and a venue with more is marked again.
pub const MARKED_DAYS_MAX: usize = 200;

/// A venue's mark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// The job that made it.
    pub job: String,
    /// When it was made.
    pub made_at: TsMs,
    /// The time that the plan was made for: another than `made_at` where a job acted as if it were that time.
    pub now: TsMs,
    /// The rules that it follows.
    pub policy: Policy,
    /// Days of which something is removed, ascending.
    pub days: Vec<DayPlan>,
    /// Days that are old enough and stay, or part of them, with the reasons.
    pub kept: Vec<DayPlan>,
    /// Sums over all days of the plan.
    pub totals: Totals,
    /// The last day that it looked at, where there are more: the next mark goes on after it.
    #[serde(default)]
    pub through: Option<LocalDay>,
    /// How many of `days` are done, from the first.
    pub done: usize,
    /// When all of them were.
    pub finished_at: Option<TsMs>,
    /// What the job has found out and done about the venue, with its marks before this one. None in marks of a Dwell that
    /// did not store it.
    #[serde(default)]
    pub tally: Option<Tally>,
}

impl Mark {
    /// What the job has found out and done about the venue so far.
    pub fn so_far(&self) -> Tally {
        self.tally.clone().unwrap_or_else(|| {
            let mut tally = Tally::default();
            tally.plan(&self.totals, &self.kept);
            tally
        })
    }
}

impl DocumentKind for Mark {
    const COLLECTION: &'static str = "retention-marks";
}

/// The last mark of a venue.
pub async fn load(documents: &dyn Documents, tenant: &TenantId, venue: &VenueId) -> Result<Option<Mark>> {
    let found = documents::load::<Mark>(documents, tenant, venue.as_str()).await?;
    Ok(found.map(|stored| stored.value))
}

/// The last marks of all venues of a tenant; the id is the venue's.
pub async fn all(documents: &dyn Documents, tenant: &TenantId) -> Result<Vec<Stored<Mark>>> {
    documents::all(documents, tenant).await
}

/// Stores a venue's mark in place of the one before.
pub async fn put(documents: &dyn Documents, tenant: &TenantId, venue: &VenueId, mark: &Mark) -> Result<()> {
    documents::update::<Mark>(documents, tenant, venue.as_str(), |_| Some(mark.clone())).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_of_a_dwell_that_stored_no_sums_has_those_of_its_plan() {
        let stored = serde_json::json!({
            "job": "j", "made_at": 1, "now": 1, "policy": {}, "days": [], "done": 0, "finished_at": null,
            "kept": [{
                "venue": { "tenant": "acme", "venue": "shop" }, "day": "2026-03-08", "raw": {}, "generations": [],
                "sessions": { "verdict": "keep", "rows": 3, "reasons": [{ "reason": "not_archived" }] },
            }],
            "totals": {
                "days_to_delete": 0, "days_to_compare": 0, "days_to_keep": 1, "raw_rows": 0, "sessions": 0, "generations": 0,
            },
        });
        let mark: Mark = serde_json::from_value(stored).unwrap();
        let sums = mark.so_far();
        assert_eq!(
            (sums.planned.days_to_keep, sums.in_doubt, sums.troubles),
            (1, 1, 0)
        );
        let first = "shop 2026-03-08 stays: the archive lacks events of the day";
        assert_eq!(sums.first_trouble.as_deref(), Some(first));
    }
}
