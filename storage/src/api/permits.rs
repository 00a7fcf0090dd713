//! Permits: what the operators of the installation let a tenant ask for.
//!
//! There is one so far: whether its own operators may have days of the past computed or restored again, which costs as
//! much as a night and is a service of its own. It is a document of the tenant, so it counts from the moment it is
//! stored; without one the tenant may. What the platform does by itself (nights, corrections by late data, exclusions,
//! erasures, layouts) asks for no permit.

use dwell_model::ids::TenantId;
use dwell_model::time::{LocalDay, TsMs};
use serde::{Deserialize, Serialize};

use super::documents::{self, DocumentKind, Documents, Stored};
use crate::error::Result;

/// Id of the one permit that there is.
const HISTORICAL: &str = "historical";
/// Kinds of jobs that need the permit when they reach back.
pub const HISTORICAL_JOBS: [&str; 2] = ["recompute", "restore"];
/// Days that count as recent where nobody has said otherwise.
pub const RECENT_DAYS_DEFAULT: u32 = 31;
/// Whom to ask where nobody is named.
const DEFAULT_CONTACT: &str = "the operators of this installation";

/// Whether a tenant may have days of the past worked on again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoricalPermit {
    /// Whether it may.
    pub allowed: bool,
    /// Why it was set so.
    pub reason: String,
    /// Whom to ask for another decision.
    #[serde(default)]
    pub contact: Option<String>,
    /// How many days before today count as recent: a job on these needs no permit. `None`: as configured.
    #[serde(default)]
    pub recent_days: Option<u32>,
    /// Public id of the key that set it.
    pub set_by: String,
    /// When.
    pub set_at: TsMs,
}

impl DocumentKind for HistoricalPermit {
    const COLLECTION: &'static str = "permits";
}

/// The permit of a tenant; `None` where none was ever set, which allows.
pub async fn historical(documents: &dyn Documents, tenant: &TenantId) -> Result<Option<HistoricalPermit>> {
    let stored = documents::load::<HistoricalPermit>(documents, tenant, HISTORICAL).await?;
    Ok(stored.map(|stored| stored.value))
}

/// Sets the permit of a tenant, whatever it was.
pub async fn set_historical(
    documents: &dyn Documents,
    tenant: &TenantId,
    permit: &HistoricalPermit,
) -> Result<Option<Stored<HistoricalPermit>>> {
    documents::update(documents, tenant, HISTORICAL, |_| Some(permit.clone())).await
}

/// Whether jobs of a kind need the permit when they reach back.
pub fn is_historical(kind: &str) -> bool {
    HISTORICAL_JOBS.contains(&kind)
}

impl HistoricalPermit {
    /// The first day that counts as recent, seen from a venue's today.
    pub fn recent_from(&self, today: LocalDay, recent_days_default: u32) -> LocalDay {
        let days = i64::from(self.recent_days.unwrap_or(recent_days_default));
        let first = i64::from(today.to_epoch_days()) - days;
        i32::try_from(first)
            .ok()
            .and_then(LocalDay::from_epoch_days)
            .unwrap_or(today)
    }

    /// Why a job of a kind is refused whose first day is `from` (`None`: since ever); `None` when it is not. `recent_from`
    /// is the first recent day of the venue where it is latest.
    pub fn refusal(&self, kind: &str, from: Option<LocalDay>, recent_from: LocalDay) -> Option<String> {
        let reaches_back = from.is_none_or(|from| from < recent_from);
        if self.allowed || !is_historical(kind) || !reaches_back {
            return None;
        }
        Some(format!(
            "a {kind} of days before {recent_from} is not part of what this tenant may have done: {}; ask {} for it, or give \
             a first day (from) of {recent_from} or later",
            self.reason,
            self.contact()
        ))
    }

    /// Why a schedule of a kind, which has no first day, asks for nothing; `None` when it may.
    pub fn schedule_refusal(&self, kind: &str) -> Option<String> {
        (!self.allowed && is_historical(kind)).then(|| {
            format!(
                "a scheduled {kind} reaches back as far as there are days, which is not part of what this tenant may have \
                 done: {}; ask {} for it",
                self.reason,
                self.contact()
            )
        })
    }

    fn contact(&self) -> &str {
        self.contact.as_deref().unwrap_or(DEFAULT_CONTACT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> LocalDay {
        text.parse().unwrap()
    }

    #[test]
    fn only_a_denied_job_that_reaches_back_is_refused() {
        let denied = HistoricalPermit {
            allowed: false,
            reason: "no premium contract".to_owned(),
            contact: Some("sales@example.test".to_owned()),
            recent_days: Some(7),
            set_by: "k".to_owned(),
            set_at: 0,
        };
        let recent = denied.recent_from(day("2026-03-10"), 31);
        assert_eq!(recent, day("2026-03-03"));
        for (kind, from, refused) in [
            ("recompute", Some("2026-03-03"), false),
            ("recompute", Some("2026-03-02"), true),
            ("restore", None, true),
            ("verify", None, false),
            ("revert", Some("2020-01-01"), false),
        ] {
            let why = denied.refusal(kind, from.map(day), recent);
            assert_eq!(why.is_some(), refused, "{kind} {from:?}: {why:?}");
        }
        let why = denied.refusal("restore", None, recent).unwrap();
        for said in ["no premium contract", "sales@example.test", "2026-03-03"] {
            assert!(why.contains(said), "{why}");
        }
        assert!(denied.schedule_refusal("recompute").is_some());
        assert_eq!(denied.schedule_refusal("backup"), None);
        let allowed = HistoricalPermit {
            allowed: true,
            recent_days: None,
            ..denied
        };
        assert_eq!(allowed.recent_from(day("2026-03-10"), 31), day("2026-02-07"));
        assert_eq!(allowed.refusal("restore", None, recent), None);
        assert_eq!(allowed.schedule_refusal("restore"), None);
    }
}
