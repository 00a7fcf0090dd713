//! From memory into the documents.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dwell_model::ids::{TenantId, VenueId};
use dwell_model::time::{LocalDay, TsMs};
use dwell_runtime::clock::SharedClock;
use dwell_runtime::shutdown::ShutdownToken;

use super::month::{self, Life, Name, month_of, name_of};
use super::{Amounts, UsageCounter};
use crate::api::Documents;
use crate::error::Result;

/// How often it writes: what a process that is killed may lose.
const WRITE_EVERY: Duration = Duration::from_secs(60);

/// Writes what a counter counts. One per process.
pub struct UsageWriter {
    counter: UsageCounter,
    documents: Arc<dyn Documents>,
    clock: SharedClock,
    /// Names this process in the documents, unlike any other.
    life: String,
    /// What the counter said when it was last looked at.
    seen: BTreeMap<(TenantId, Option<VenueId>, Name), Amounts>,
    /// Running totals by document and day, those of which something is not written, and today's.
    days: BTreeMap<(TenantId, Option<VenueId>, LocalDay), Running>,
}

/// A day's running totals of one tenant and venue.
#[derive(Debug, Default)]
struct Running {
    totals: BTreeMap<Name, Amounts>,
    /// What was last written; `None` before the first time.
    written: Option<BTreeMap<Name, Amounts>>,
    /// What was folded into the sum of others since, so that it is not in this process's entry any more.
    folded: BTreeMap<Name, Amounts>,
}

impl std::fmt::Debug for UsageWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UsageWriter")
            .field("life", &self.life)
            .finish_non_exhaustive()
    }
}

impl UsageWriter {
    /// A writer that has written nothing; `life` names the process, unlike any other at whatever time.
    pub fn new(counter: UsageCounter, documents: Arc<dyn Documents>, clock: SharedClock, life: &str) -> Self {
        Self {
            counter,
            documents,
            clock,
            life: life.to_owned(),
            seen: BTreeMap::new(),
            days: BTreeMap::new(),
        }
    }

    /// Writes each minute until shutdown, and once more then.
    pub async fn run(mut self, shutdown: ShutdownToken) {
        loop {
            let ends = tokio::select! {
                biased;
                () = shutdown.requested() => true,
                () = self.clock.sleep(WRITE_EVERY) => false,
            };
            if let Err(error) = self.write().await {
                tracing::warn!(%error, "usage was not written; it is written with the next");
            }
            if ends {
                return;
            }
        }
    }

    /// Writes what was counted since the last time. What fails is written with the next.
    pub async fn write(&mut self) -> Result<()> {
        let now = self.clock.now_ms();
        let today = LocalDay::of_utc(now);
        self.gather(today);
        let mut failed = None;
        for ((tenant, venue, day), running) in &mut self.days {
            if running.written.as_ref() == Some(&running.totals) {
                continue;
            }
            let place = (tenant, venue.as_ref(), *day);
            let written = running.write(&*self.documents, &self.life, place, today, now);
            if let Err(error) = written.await {
                failed = Some(error);
            }
        }
        self.days.retain(|(_, _, day), running| {
            *day == today || running.written.as_ref() != Some(&running.totals)
        });
        failed.map_or(Ok(()), Err)
    }

    /// Adds what the counter has counted since to today's totals.
    fn gather(&mut self, today: LocalDay) {
        for counted in self.counter.counted() {
            let name = name_of(counted.module, counted.source);
            let key = (counted.tenant, counted.venue, name);
            let seen = self.seen.entry(key.clone()).or_default();
            let more = counted.amounts.since(*seen);
            *seen = counted.amounts;
            if more.is_zero() {
                continue;
            }
            let (tenant, venue, name) = key;
            let running = self.days.entry((tenant, venue, today)).or_default();
            running.totals.entry(name).or_default().add(more);
        }
    }
}

impl Running {
    async fn write(
        &mut self,
        documents: &dyn Documents,
        life: &str,
        (tenant, venue, day): (&TenantId, Option<&VenueId>, LocalDay),
        today: LocalDay,
        now: TsMs,
    ) -> Result<()> {
        let mut folded = self.folded.clone();
        month::change(documents, tenant, &month_of(day), venue, |stands| {
            let of_day = stands.days.entry(day).or_default();
            // An entry that was written and is gone stands in the sum of others.
            folded.clone_from(&self.folded);
            if !of_day.lives.contains_key(life)
                && let Some(written) = &self.written
            {
                folded.clone_from(written);
            }
            let rest = self.totals.iter().map(|(name, amounts)| {
                let before = folded.get(name).copied().unwrap_or_default();
                (name.clone(), amounts.since(before))
            });
            let entry = Life {
                at: now,
                amounts: rest.filter(|(_, amounts)| !amounts.is_zero()).collect(),
            };
            of_day.lives.insert(life.to_owned(), entry);
            stands.fold(today, now);
        })
        .await?;
        self.folded = folded;
        self.written = Some(self.totals.clone());
        Ok(())
    }
}
