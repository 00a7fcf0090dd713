//! The steps of an erasure. Each can be repeated: a worker may die between any two, and another does them again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use dwell_batch_layer::report::RunReport;
use dwell_batch_layer::spec::{RunSpec, Venues, What};
use dwell_model::time::{DAY_MS, LocalDay, slot_of};
use dwell_runtime::failpoint;
use dwell_storage::api::{Erasure, Mark, MarkSource, RawWrite, documents};
use dwell_storage::decorators::erasing::KINDS_OF_PERSONS;
use dwell_storage::erasure::ErasureFilter;
use dwell_storage::error::{ErrorKind, StorageError};
use tokio_util::sync::CancellationToken;

use super::Eraser;
use super::places::{Found, Search};
use super::receipt::ErasureReceipt;

/// How often readers are asked whether they have taken notice.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// How long a day's lease is waited for.
const LEASE_TRIES: u32 = 60;
const LEASE_AGAIN: Duration = Duration::from_secs(1);
const LEASE_MS: i64 = 60_000;
/// How long an encrypted entry of the quarantine can be opened: its key lives for seven days after its day.
const SEALED_MS: i64 = 8 * DAY_MS;

/// Tells how far a job is.
pub(crate) type Tell<'a> = &'a (dyn Fn(u64, &str) + Send + Sync);

/// One carrying out of an erasure.
pub(crate) struct Deletion<'a> {
    pub(crate) eraser: &'a Eraser,
    pub(crate) entry: &'a Erasure,
    pub(crate) search: Search<'a>,
    pub(crate) receipt: &'a mut ErasureReceipt,
    /// Texts that no database file may hold; empty when nobody knows them any more.
    pub(crate) texts: Vec<String>,
    pub(crate) tell: Tell<'a>,
    pub(crate) cancel: &'a CancellationToken,
}

/// Steps that [`Deletion::run`] tells of.
pub(crate) const STEPS: u64 = 9;

impl Deletion<'_> {
    /// Carries the erasure out, after the ledger has it. `false` when it was cancelled on the way.
    pub(crate) async fn run(&mut self) -> Result<bool> {
        (self.tell)(0, "waiting until every writer has taken notice");
        self.await_writers().await?;
        failpoint!("erase.after_notice");
        (self.tell)(1, "looking for the visitor");
        let found = self.search.days().await?;
        let days = self.remember_days(&found).await?;
        failpoint!("erase.after_days");
        (self.tell)(2, "erasing from the event log");
        self.log().await?;
        failpoint!("erase.after_log");
        (self.tell)(3, "erasing raw events");
        self.mark(&days).await?;
        self.raw().await?;
        self.mark(&days).await?;
        keep(self.eraser, self.receipt).await?;
        failpoint!("erase.after_raw");
        for (day, places) in &found {
            for place in ["archive", "archive_superseded"] {
                let count = places.get(place).copied().unwrap_or(0);
                self.receipt.removed(place, Some(*day), count);
            }
        }
        for day in &days {
            if self.cancel.is_cancelled() {
                return Ok(false);
            }
            (self.tell)(4, "archiving and computing the days anew");
            let days = &self.eraser.bare.venue_days;
            let row = days.get(self.search.venue, *day).await?;
            self.recompute(*day).await?;
            // Whatever began later knows the ledger.
            let before = row.map_or(0, |row| row.fence);
            self.search.computed_without.insert(*day, before);
            failpoint!("erase.after_recompute");
            for near in self.days_with_their_files(*day).await? {
                self.purge(near).await?;
            }
            failpoint!("erase.after_purge");
            self.sessions(*day).await?;
            keep(self.eraser, self.receipt).await?;
        }
        failpoint!("erase.after_sessions");
        (self.tell)(5, "erasing from the quarantine");
        self.quarantine().await?;
        (self.tell)(6, "erasing names and free pages");
        let (filter, venue) = (Arc::clone(&self.search.filter), self.search.venue.clone());
        let is_forgotten = Arc::new(move |name: &str| filter.names_text(&venue, name));
        let names = self
            .eraser
            .bare
            .raw
            .forget_names(self.search.venue, is_forgotten)
            .await?;
        self.receipt.removed("names", None, names);
        failpoint!("erase.after_names");
        (self.tell)(7, "scanning every place");
        self.scan().await?;
        self.files().await?;
        failpoint!("erase.after_scan");
        Ok(true)
    }

    /// Waits until no process can write what passed an older filter.
    async fn await_writers(&mut self) -> Result<()> {
        let clock = &self.eraser.clock;
        let begun = clock.now_ms();
        loop {
            if self.cancel.is_cancelled() {
                return Ok(());
            }
            self.eraser.watch.renew().await?;
            let awaited = self.eraser.watch.awaited(self.entry.number).await?;
            let Some(first) = awaited.first() else {
                self.receipt.waited_ms = self.receipt.waited_ms.max(clock.now_ms() - begun);
                return Ok(());
            };
            tracing::debug!(
                reader = first.name,
                known = first.known,
                "erasure not yet acknowledged"
            );
            clock.sleep(ASK_EVERY).await;
        }
    }

    /// Keeps the days found before anything is deleted: a worker that goes on would not find them again.
    async fn remember_days(&mut self, found: &Found) -> Result<BTreeSet<LocalDay>> {
        let mut days: BTreeSet<LocalDay> = found.keys().copied().collect();
        // What an earlier attempt found and did not finish.
        if self.receipt.proven_at.is_none() {
            days.extend(&self.receipt.days);
        }
        let known: BTreeSet<LocalDay> = self.receipt.days.iter().copied().chain(days.clone()).collect();
        self.receipt.days = known.into_iter().collect();
        keep(self.eraser, self.receipt).await?;
        Ok(days)
    }

    async fn log(&mut self) -> Result<()> {
        let log = &self.eraser.bare.log;
        for partition in self.search.partitions() {
            let mut from = log.bounds(partition).await?.start;
            loop {
                let filter = Arc::clone(&self.search.filter);
                let step = log.erase(partition, from, filter).await?;
                if step.is_gone {
                    self.receipt.removed("log", None, step.events);
                } else if step.events > 0 {
                    let until = self.eraser.clock.now_ms() + self.eraser.log_retention_ms;
                    self.receipt.holds(
                        "log",
                        Some(until),
                        "a record of this log cannot be changed; every reader leaves the visitor out until the log \
                         forgets the record",
                    );
                }
                match step.next {
                    Some(next) => from = next,
                    None => break,
                }
            }
        }
        Ok(())
    }

    /// Marks the days as touched, so that they are computed anew whoever comes first.
    async fn mark(&self, days: &BTreeSet<LocalDay>) -> Result<()> {
        let source = MarkSource::job(&self.entry.erasure.id);
        // It must grow, whichever process does it again.
        let position = self.eraser.bare.raw.now_ms().await?;
        let marks = days
            .iter()
            .map(|day| Mark {
                venue: self.search.venue.clone(),
                slot: slot_of(self.search.calendar.bounds(*day).0),
                source: source.clone(),
                position,
            })
            .collect();
        let write = RawWrite {
            marks,
            ..RawWrite::default()
        };
        self.eraser.bare.raw.apply(write).await?;
        Ok(())
    }

    async fn raw(&mut self) -> Result<()> {
        for range in self.search.raw_ranges().await? {
            for rows in self.search.raw(range).await? {
                self.eraser.bare.raw.erase(self.search.venue, &rows).await?;
                for &ts in &rows.events.ts {
                    let day = self.search.calendar.day_of(ts);
                    self.receipt.removed("raw", Some(day), 1);
                }
            }
        }
        Ok(())
    }

    /// Archives and computes a day without them. Where sessions do not tell whether they are theirs, there is to be a
    /// generation that has none of theirs for sure, whatever an earlier attempt did; as long as there are events to make
    /// it of.
    async fn recompute(&self, day: LocalDay) -> Result<()> {
        let venue = self.search.venue;
        let force = self.search.filter.is_narrow(venue) && self.search.has_positions(day).await?;
        let spec = RunSpec {
            venues: Venues::These(vec![venue.venue.clone()]),
            from: Some(day),
            to: Some(day),
            reason: Some("a visitor was erased".to_owned()),
            force,
            ..RunSpec::all_dirty(What::Recompute)
        };
        let report: RunReport = self
            .eraser
            .batch
            .run_spec(&venue.tenant, &spec, &|_| {}, self.cancel)
            .await?;
        if report.failed + report.dirty_left == 0 || report.cancelled {
            return Ok(());
        }
        let why = report
            .days
            .iter()
            .map(|day| day.reason.as_str())
            .next_back()
            .unwrap_or("held");
        // Tried again by the worker: another may hold the day, or have changed it meanwhile.
        Err(StorageError::new(
            ErrorKind::Busy,
            format!("compute {venue} {day} without an erased visitor: {why}"),
        )
        .into())
    }

    /// The day, and those near it whose replaced files may hold its events: of a venue that was cut anew the files of
    /// the former cut lie under the former days.
    async fn days_with_their_files(&self, day: LocalDay) -> Result<BTreeSet<LocalDay>> {
        let (days, venue) = (&self.eraser.bare.venue_days, self.search.venue);
        let (first, last) = (day.prev().prev(), day.next().next());
        let mut near = BTreeSet::from([day]);
        for row in days.list(venue, first, last).await? {
            let kept = days.history(venue, row.day).await?;
            if kept.iter().any(|info| info.calendar != self.search.calendar) {
                near.insert(row.day);
            }
        }
        Ok(near)
    }

    /// Removes the archive's replaced files of a day at once, over pins and ages, under the day's lease.
    async fn purge(&mut self, day: LocalDay) -> Result<()> {
        let (bare, venue) = (&self.eraser.bare, self.search.venue);
        let holder = format!("erase {}", self.entry.erasure.id);
        let mut tries = 0;
        let lease = loop {
            let now = self.eraser.clock.now_ms();
            match bare
                .venue_days
                .acquire(venue, day, &holder, now, LEASE_MS)
                .await?
            {
                Some(lease) => break lease,
                None if tries < LEASE_TRIES => tries += 1,
                None => {
                    let what = format!("erase from the archive of {venue} {day}: the day is held");
                    return Err(StorageError::new(ErrorKind::Busy, what).into());
                }
            }
            self.eraser.clock.sleep(LEASE_AGAIN).await;
        };
        let mut files = 0;
        for kind in KINDS_OF_PERSONS {
            files += bare.archive.purge_day(venue, kind, day).await?.files;
        }
        bare.venue_days.release(&lease).await?;
        self.receipt.removed("archive_files", Some(day), files);
        Ok(())
    }

    async fn sessions(&mut self, day: LocalDay) -> Result<()> {
        let before = self.search.computed_without.get(&day).copied();
        for (generation, sessions) in self.search.sessions(day, before.unwrap_or(0)).await? {
            let count = sessions.len() as u64;
            self.eraser
                .bare
                .sessions
                .erase(self.search.venue, day, generation, sessions)
                .await?;
            self.receipt.removed("sessions", Some(day), count);
        }
        Ok(())
    }

    async fn quarantine(&mut self) -> Result<()> {
        let (ids, encrypted) = self.search.quarantine().await?;
        self.receipt.removed("quarantine", None, ids.len() as u64);
        if !ids.is_empty() {
            let tenant = &self.search.venue.tenant;
            self.eraser.bare.quarantine.erase(tenant, ids).await?;
        }
        if let Some(last) = encrypted {
            self.receipt.holds(
                "quarantine",
                Some(last + SEALED_MS),
                "encrypted entries cannot be searched; their key is destroyed by then",
            );
        }
        Ok(())
    }

    /// Looks everywhere again.
    async fn scan(&mut self) -> Result<()> {
        let mut scan = std::collections::BTreeMap::new();
        for place in ["raw", "archive", "archive_superseded", "sessions", "quarantine"] {
            scan.insert(place.to_owned(), 0);
        }
        for places in self.search.days().await?.values() {
            for (place, count) in places {
                *scan.entry((*place).to_owned()).or_default() += count;
            }
        }
        let (named, _) = self.search.quarantine().await?;
        scan.insert("quarantine".to_owned(), named.len() as u64);
        if !self.receipt.held.iter().any(|held| held.place == "log") {
            scan.insert("log".to_owned(), self.search.log().await?);
        }
        if self.eraser.bare.files.is_none() {
            self.receipt.holds(
                "table files",
                None,
                "deletions stand over the rows at once; the bytes leave the disks when the tables are compacted, after \
                 gc_grace_seconds, and snapshots when they are cleared",
            );
        }
        self.receipt.holds(
            "backups",
            None,
            "made before the erasure: restoring them applies the ledger",
        );
        self.receipt.scan = scan;
        Ok(())
    }

    /// Looks for the bytes of the name in the database files; where free space of pages still has them, the file is
    /// written anew.
    async fn files(&mut self) -> Result<()> {
        let Some(files) = self.eraser.bare.files.clone() else {
            return Ok(());
        };
        settle(self.eraser).await?;
        if self.texts.is_empty() {
            return Ok(());
        }
        let mut counted = self.count_bytes().await?;
        let written_anew: Vec<String> = counted
            .keys()
            .filter(|file| file.starts_with("data.db") || file.starts_with("log.db"))
            .cloned()
            .collect();
        for file in written_anew {
            files.rewrite(&file).await?;
        }
        if !counted.is_empty() {
            counted = self.count_bytes().await?;
        }
        self.receipt.bytes_in_files = Some(counted);
        Ok(())
    }

    async fn count_bytes(&self) -> Result<std::collections::BTreeMap<String, u64>> {
        let mut counted = std::collections::BTreeMap::new();
        if let Some(files) = &self.eraser.bare.files {
            for text in &self.texts {
                for (file, count) in files.find(text.as_bytes().to_vec()).await? {
                    *counted.entry(file).or_default() += count;
                }
            }
        }
        Ok(counted)
    }
}

/// Empties the write-ahead logs; readers that come between are waited for.
pub(crate) async fn settle(eraser: &Eraser) -> Result<()> {
    let Some(files) = &eraser.bare.files else {
        return Ok(());
    };
    for _ in 0..LEASE_TRIES {
        match files.settle().await {
            Err(error) if error.kind() == ErrorKind::Busy => eraser.clock.sleep(ASK_EVERY).await,
            settled => return Ok(settled?),
        }
    }
    bail!("the database files are being read all the time: their write-ahead logs were not emptied")
}

/// Stores a receipt.
pub(crate) async fn keep(eraser: &Eraser, receipt: &ErasureReceipt) -> Result<()> {
    let tenant = &receipt.venue.tenant;
    documents::update(&*eraser.bare.documents, tenant, &receipt.id, |_| {
        Some(receipt.clone())
    })
    .await
    .context("keep the receipt")?;
    Ok(())
}

/// A filter of one entry alone.
pub(crate) async fn filter_of(eraser: &Eraser, entry: &Erasure) -> Result<Arc<ErasureFilter>> {
    let key = eraser.bare.erasures.key().await?;
    Ok(Arc::new(ErasureFilter::new(key, std::slice::from_ref(entry))))
}
