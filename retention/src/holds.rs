//! Legal holds: what people forbid to delete, by venue and range of days.

use dwell_model::ids::{TenantId, VenueId};
use dwell_model::time::{LocalDay, TsMs};
use dwell_storage::api::documents::{self, DocumentKind, Stored};
use dwell_storage::api::{Documents, Flip};
use dwell_storage::error::{ErrorKind, Result, StorageError};
use serde::{Deserialize, Serialize};

use crate::facts::LegalHold;

/// A legal hold, as it is stored. One that was lifted stays on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The venue that it covers; `None`: all of the tenant.
    pub venue: Option<VenueId>,
    /// First local day that it covers; `None`: since ever.
    pub from: Option<LocalDay>,
    /// Last local day that it covers; `None`: for ever.
    pub to: Option<LocalDay>,
    /// Why, for people.
    pub reason: String,
    /// First instant at which it no longer holds; `None`: until it is lifted.
    pub until: Option<TsMs>,
    /// When it was added.
    pub added_at: TsMs,
    /// By whom: the public id of their key.
    pub added_by: String,
    /// How it ended, if somebody lifted it.
    pub lifted: Option<Lifted>,
}

/// The end of a hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifted {
    /// When.
    pub at: TsMs,
    /// By whom.
    pub by: String,
    /// Why.
    pub reason: String,
}

impl DocumentKind for Hold {
    const COLLECTION: &'static str = "retention-holds";
}

impl Hold {
    /// Whether it covers a day of a venue, while it is in force.
    pub fn covers(&self, venue: &VenueId, day: LocalDay) -> bool {
        self.venue.as_ref().is_none_or(|held| held == venue)
            && self.from.is_none_or(|from| from <= day)
            && self.to.is_none_or(|to| day <= to)
    }

    /// Whether it forbids anything at an instant.
    pub fn is_in_force(&self, now: TsMs) -> bool {
        self.lifted.is_none() && self.until.is_none_or(|until| now < until)
    }
}

/// Adds a hold; returns its id.
pub async fn add(documents: &dyn Documents, tenant: &TenantId, hold: &Hold) -> Result<String> {
    const SAME_INSTANT_MAX: u32 = 1_000;
    for n in 0..SAME_INSTANT_MAX {
        let id = format!("hold-{:013}-{n}", hold.added_at);
        if documents::store(documents, tenant, &id, hold, None).await? == Flip::Done {
            return Ok(id);
        }
    }
    Err(StorageError::new(
        ErrorKind::Busy,
        "add a hold: too many of one instant",
    ))
}

/// Lifts a hold. One that is lifted already stays as it is; `NotFound` when there is none.
pub async fn lift(
    documents: &dyn Documents,
    tenant: &TenantId,
    id: &str,
    lifted: &Lifted,
) -> Result<Stored<Hold>> {
    let stands = documents::update::<Hold>(documents, tenant, id, |hold| {
        let hold = hold.filter(|hold| hold.lifted.is_none())?;
        Some(Hold {
            lifted: Some(lifted.clone()),
            ..hold.clone()
        })
    })
    .await?;
    stands.ok_or_else(|| StorageError::new(ErrorKind::NotFound, format!("there is no hold {id:?}")))
}

/// All holds, lifted ones too, oldest first.
pub async fn list(documents: &dyn Documents, tenant: &TenantId) -> Result<Vec<Stored<Hold>>> {
    documents::all(documents, tenant).await
}

/// The holds that nobody has lifted.
pub(crate) async fn standing(documents: &dyn Documents, tenant: &TenantId) -> Result<Vec<Hold>> {
    let all = list(documents, tenant).await?;
    let holds = all.into_iter().map(|stored| stored.value);
    Ok(holds.filter(|hold| hold.lifted.is_none()).collect())
}

/// Those of them that cover a day, as a plan for `acting` takes them, which is `now` but for trying. One that is in force
/// now forbids whatever time a plan acts as if it were: nobody tries on what the law holds.
pub(crate) fn of_day(
    holds: &[Hold],
    venue: &VenueId,
    day: LocalDay,
    acting: TsMs,
    now: TsMs,
) -> Vec<LegalHold> {
    let covering = holds.iter().filter(|hold| hold.covers(venue, day));
    covering
        .map(|hold| LegalHold {
            reason: hold.reason.clone(),
            until: match hold.is_in_force(now) {
                true => hold.until.filter(|until| acting < *until),
                false => hold.until,
            },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_that_is_in_force_forbids_whatever_time_a_plan_acts_as_if_it_were() {
        let venue = VenueId::new("shop").unwrap();
        let day = |text: &str| text.parse::<LocalDay>().unwrap();
        let hold = Hold {
            venue: Some(venue.clone()),
            from: Some(day("2026-03-01")),
            to: Some(day("2026-03-31")),
            reason: "case 12".into(),
            until: Some(1_000),
            added_at: 0,
            added_by: "k".into(),
            lifted: None,
        };
        let forbids = |of: &str, acting, now| {
            let holds = of_day(std::slice::from_ref(&hold), &venue, day(of), acting, now);
            holds.iter().any(|hold| hold.holds_at(acting))
        };
        assert!(forbids("2026-03-01", 500, 500) && forbids("2026-03-31", 999, 999));
        assert!(!forbids("2026-03-31", 1_000, 1_000), "over");
        assert!(forbids("2026-03-31", 5_000, 999), "in force now");
        assert!(!forbids("2026-02-28", 500, 500) && !forbids("2026-04-01", 500, 500));
        assert!(!hold.covers(&VenueId::new("other").unwrap(), day("2026-03-05")));
    }
}
