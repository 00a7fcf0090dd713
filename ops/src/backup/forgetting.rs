//! Whom a backup must not hold, and a restored one not bring back: those whom the ledger of erasures names.
//!
//! A backup taken before an erasure holds the visitor: in sessions, in refused lines. They are left out as the backup
//! is read, and of later ones as they are taken. What the restored tables do not know to be proven is carried out once
//! more, by jobs that follow the restore.

use std::sync::Arc;

use anyhow::Result;
use dwell_model::ids::{TenantId, VenueKey};
use dwell_model::time::{DAY_MS, LocalDay};
use dwell_storage::api::{
    Erasure, Erasures, Job, QuarantineEncoding, QuarantineEntry, StoredSession, documents,
};
use dwell_storage::erasure::ErasureFilter;
use dwell_storage::erasure::filter::Whose;
use dwell_storage::error::ErrorKind;
use serde_json::json;

use super::Side;
use crate::erasing::places::names_entry;
use crate::erasing::receipt::ErasureReceipt;

/// The ledger as it stands while a backup is taken or restored.
pub(super) struct Forgotten {
    entries: Vec<Erasure>,
    filter: Arc<ErasureFilter>,
}

impl Forgotten {
    /// Reads the whole ledger.
    pub(super) async fn read(ledger: &dyn Erasures) -> Result<Self> {
        let entries = ledger.read(1).await?;
        let filter = match entries.is_empty() {
            true => ErasureFilter::default(),
            false => ErasureFilter::new(ledger.key().await?, &entries),
        };
        Ok(Self {
            entries,
            filter: Arc::new(filter),
        })
    }

    /// Whether somebody was erased of a venue's day, whatever the zone that it was cut in.
    pub(super) fn touches(&self, venue: &VenueKey, day: LocalDay) -> bool {
        let midnight = i64::from(day.to_epoch_days()) * DAY_MS;
        // Zones lie up to 14 hours off, days begin up to 23 hours after midnight, and a day has up to 25.
        self.filter
            .touches(venue, &(midnight - DAY_MS..midnight + 3 * DAY_MS))
    }

    /// Whether sessions of a venue may not tell by themselves whose they are.
    pub(super) fn is_narrow(&self, venue: &VenueKey) -> bool {
        self.filter.is_narrow(venue)
    }

    /// The sessions of a venue that are kept, or brought back: those that are `left_out`, or more surely of somebody
    /// erased, are not.
    pub(super) fn sessions(
        &self,
        venue: &VenueKey,
        mut sessions: Vec<StoredSession>,
        left_out: Whose,
    ) -> Vec<StoredSession> {
        if self.filter.names_anybody(venue) {
            sessions.retain(|stored| self.filter.whose(venue, &stored.session) < left_out);
        }
        sessions
    }

    /// The refused lines of a tenant that are brought back.
    pub(super) fn quarantine(
        &self,
        tenant: &TenantId,
        mut entries: Vec<QuarantineEntry>,
    ) -> Vec<QuarantineEntry> {
        entries.retain(|entry| !self.names(tenant, entry));
        entries
    }

    /// What cannot be searched stays: its key is gone, or destroyed in its time.
    fn names(&self, tenant: &TenantId, entry: &QuarantineEntry) -> bool {
        if entry.encoding == QuarantineEncoding::Encrypted {
            return false;
        }
        // A line that was refused before its venue was known may be of any.
        self.entries
            .iter()
            .map(|erasure| &erasure.erasure.venue)
            .filter(|venue| venue.tenant == *tenant)
            .filter(|venue| entry.venue.as_ref().is_none_or(|of| *of == venue.venue))
            .any(|venue| names_entry(&self.filter, venue, entry))
    }

    /// Asks for every erasure that the restored tables do not know to be proven; how many.
    pub(super) async fn ask_again(&self, side: &Side<'_>) -> Result<u64> {
        let (documents, now) = (side.stores.documents.as_ref(), side.clock.now_ms());
        let mut asked = 0;
        for entry in &self.entries {
            let (tenant, id) = (&entry.erasure.venue.tenant, &entry.erasure.id);
            if !side.stores.registry.tenants().await?.contains(tenant) {
                continue;
            }
            let kept = documents::update::<ErasureReceipt>(documents, tenant, id, |receipt| match receipt {
                Some(receipt) if receipt.proven_at.is_some() => None,
                Some(receipt) => Some(ErasureReceipt {
                    repeat_until: receipt.repeat_until.max(now + side.repeat_erasures_ms),
                    ..receipt.clone()
                }),
                None => ErasureReceipt::of_ledger(entry, now + side.repeat_erasures_ms),
            });
            if kept
                .await?
                .is_none_or(|receipt| receipt.value.proven_at.is_some())
            {
                continue;
            }
            let job = Job::queued(
                format!("{now:012x}-erase-{}-{}", entry.erasure.venue.venue, entry.number),
                tenant.clone(),
                "erase",
                json!({ "venues": [entry.erasure.venue.venue], "again": id }),
                "restore-backup".to_owned(),
                Some("a backup from before the erasure was brought back".to_owned()),
                now,
            );
            match side.stores.jobs.create(&job).await {
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                created => created?,
            }
            asked += 1;
        }
        Ok(asked)
    }
}
