//! Restoring a day: what the archive holds of it becomes raw rows again, each payload with each of its deliveries.
//!
//! Raw unites what it is given with what it has, so a restore can be repeated, and adds nothing where nothing was
//! removed. The day is marked before and after: what is computed from then on looks at raw again, and the retention
//! clock starts anew. Afterwards raw is read back and compared with what was written.

use std::collections::BTreeMap;

use dwell_model::event::{Checksum, Delivery, EventBatch, Fingerprinter, Kind, RawRows, delivery_hash};
use dwell_model::ids::VenueKey;
use dwell_model::time::{LocalDay, VenueCalendar, slot_of};
use dwell_runtime::failpoint;
use dwell_runtime::tasks::blocking;
use dwell_storage::api::{ArchivedDay, Mark, MarkSource, Projection, RawWrite};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::compare::Comparison;
use crate::engine::Retention;
use crate::error::{Doing, Error, Result};
use crate::lease::{Held, under_leases};
use crate::metrics;

/// Rows written to raw at a time.
const WRITE_ROWS: usize = 20_000;

/// What a restore of a day did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreReport {
    /// By kind; kinds that the archive has nothing of are left out.
    pub kinds: BTreeMap<Kind, RestoredKind>,
    /// Files of the archive that could not be read back; nothing was restored then.
    pub unreadable: Vec<String>,
}

/// What a restore did with one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredKind {
    /// Rows in the archive: winners, further deliveries and covered payloads.
    pub archived: u64,
    /// Raw rows (payloads) before.
    pub raw_before: u64,
    /// Raw rows now; of a dry run as before.
    pub raw_now: u64,
    /// Over identities, payloads and deliveries of raw as it was read back; of a dry run empty.
    pub deliveries: Checksum,
}

impl Retention {
    /// Brings a day's raw rows back from the archive, marked by `source` with `position`, which must grow over attempts,
    /// and the number after it. `None` when somebody else holds the day.
    pub async fn restore_day(
        &self,
        venue: &VenueKey,
        calendar: &VenueCalendar,
        day: LocalDay,
        source: &MarkSource,
        position: i64,
        cancel: &CancellationToken,
    ) -> Result<Option<RestoreReport>> {
        under_leases(self, venue, &[day], cancel, async |held| {
            let restorer = Restorer {
                retention: self,
                venue,
                calendar,
                day,
                cancel,
            };
            let archived = restorer.archived().await?;
            let mut report = restorer.look(&archived).await?;
            if !report.unreadable.is_empty() || report.kinds.is_empty() {
                return Ok(report);
            }
            restorer.mark(source, position).await?;
            failpoint!("restore.after_mark");
            for day in archived.values() {
                restorer.write(held, day).await?;
            }
            failpoint!("restore.after_rows");
            held.check()?;
            restorer.mark(source, position + 1).await?;
            restorer.read_back(&archived, &mut report).await?;
            Ok(report)
        })
        .await
    }

    /// What a restore of a day would find: rows by kind, in the archive and in raw. Reads the files back.
    pub async fn look_at_restore(
        &self,
        venue: &VenueKey,
        calendar: &VenueCalendar,
        day: LocalDay,
        cancel: &CancellationToken,
    ) -> Result<RestoreReport> {
        let restorer = Restorer {
            retention: self,
            venue,
            calendar,
            day,
            cancel,
        };
        let archived = restorer.archived().await?;
        restorer.look(&archived).await
    }
}

struct Restorer<'a> {
    retention: &'a Retention,
    venue: &'a VenueKey,
    calendar: &'a VenueCalendar,
    day: LocalDay,
    cancel: &'a CancellationToken,
}

impl Restorer<'_> {
    /// What the archive holds of the day; kinds that it has nothing of are left out.
    async fn archived(&self) -> Result<BTreeMap<Kind, ArchivedDay>> {
        let mut archived = BTreeMap::new();
        for kind in Kind::ALL {
            let held = self
                .retention
                .stores()
                .archive
                .day(self.venue, kind, self.day)
                .await;
            let held = held.doing("look a day up in the archive")?;
            if !held.is_empty() {
                archived.insert(kind, held);
            }
        }
        Ok(archived)
    }

    /// Reads all files back before anything is written, and counts.
    async fn look(&self, archived: &BTreeMap<Kind, ArchivedDay>) -> Result<RestoreReport> {
        let stores = self.retention.stores();
        let before = self.count().await?;
        let mut report = RestoreReport::default();
        for (&kind, held) in archived {
            if self.cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let verified = stores.archive.verify(self.venue, held).await;
            if let Err(error) = verified.doing("read archived files back") {
                report.unreadable.push(crate::prove::unreadable(error)?);
                continue;
            }
            let files = held.events.iter().chain(&held.superseded);
            let raw = before.get(&kind).copied().unwrap_or(0);
            let of_kind = RestoredKind {
                archived: files.map(|file| file.rows).sum(),
                raw_before: raw,
                raw_now: raw,
                deliveries: Checksum::default(),
            };
            report.kinds.insert(kind, of_kind);
        }
        Ok(report)
    }

    async fn mark(&self, source: &MarkSource, position: i64) -> Result<()> {
        let (start, end) = self.calendar.bounds(self.day);
        let marks = (slot_of(start)..=slot_of(end - 1)).map(|slot| Mark {
            venue: self.venue.clone(),
            slot,
            source: source.clone(),
            position,
        });
        let write = RawWrite {
            marks: marks.collect(),
            ..RawWrite::default()
        };
        let marked = self.retention.stores().raw.apply(write).await;
        marked.doing("mark the day")?;
        Ok(())
    }

    async fn write(&self, held: &Held, day: &ArchivedDay) -> Result<()> {
        let stores = self.retention.stores();
        let Some(kind) = day
            .events
            .iter()
            .chain(&day.superseded)
            .map(|file| file.kind)
            .next()
        else {
            return Ok(());
        };
        if !day.superseded.is_empty() {
            let rows = stores
                .archive
                .superseded(self.venue, kind, day)
                .await
                .doing("read superseded rows")?;
            let mut start = 0;
            while start < rows.len() {
                let end = (start + WRITE_ROWS).min(rows.len());
                let mut part = RawRows::new(EventBatch::new(kind));
                for row in start..end {
                    push(&mut part, &rows.events, row, rows.deliveries(row));
                }
                self.apply(held, part).await?;
                start = end;
            }
        }
        if day.events.is_empty() {
            return Ok(());
        }
        let opened = stores
            .archive
            .open(self.venue, day, Projection::EventsAndDeliveries)
            .await;
        let mut reader = opened.doing("open an archived day")?;
        // Read ahead by a part while the one before it is written.
        let (parts, mut incoming) = mpsc::channel::<RawRows>(1);
        let reading = blocking("restore.archived", move || -> Result<()> {
            let mut part = RawRows::new(EventBatch::new(kind));
            while let Some(chunk) = reader.next_chunk().doing("read an archived day")? {
                for row in 0..chunk.events.len() {
                    push(&mut part, chunk.events, row, &chunk.first[row..=row]);
                    if part.len() == WRITE_ROWS {
                        let full = std::mem::replace(&mut part, RawRows::new(EventBatch::new(kind)));
                        if parts.blocking_send(full).is_err() {
                            // The writer has failed and says why.
                            return Ok(());
                        }
                    }
                }
            }
            if !part.is_empty() {
                // As above.
                let _ = parts.blocking_send(part);
            }
            Ok(())
        });
        let writing = async {
            while let Some(part) = incoming.recv().await {
                if let Err(error) = self.apply(held, part).await {
                    incoming.close();
                    return Err(error);
                }
            }
            Ok(())
        };
        let (read, written) = tokio::join!(reading, writing);
        written?;
        read?
    }

    async fn apply(&self, held: &Held, rows: RawRows) -> Result<()> {
        held.check()?;
        let (kind, deliveries) = (rows.events.kind, rows.deliveries.len() as u64);
        let write = RawWrite {
            rows: vec![(self.venue.clone(), rows)],
            ..RawWrite::default()
        };
        let written = self.retention.stores().raw.apply(write).await;
        written.doing("write raw events")?;
        metrics::rows_restored(kind, deliveries);
        failpoint!("restore.after_write");
        Ok(())
    }

    /// Reads raw back: every archived delivery must be there. What raw has besides came since it was archived.
    async fn read_back(
        &self,
        archived: &BTreeMap<Kind, ArchivedDay>,
        report: &mut RestoreReport,
    ) -> Result<()> {
        let (start, end) = self.calendar.bounds(self.day);
        let now = self.count().await?;
        for (&kind, day) in archived {
            let comparison = Comparison {
                retention: self.retention,
                venue: self.venue,
                kind,
                archived: std::slice::from_ref(day),
                cancel: self.cancel,
            };
            let (mut raw, mut found) = (Checksum::default(), Checksum::default());
            for window in comparison.windows(start..end).await? {
                let compared = comparison.compare(window).await?;
                raw.merge(compared.raw);
                found.merge(compared.found);
            }
            let expected = self.deliveries_of(day).await?;
            if found != expected {
                return Err(Error::NotRestored(format!(
                    "raw was read back with {} {kind} deliveries of {} that the archive holds of {} {}",
                    found.rows, expected.rows, self.venue, self.day
                )));
            }
            let of_kind = report.kinds.entry(kind).or_default();
            of_kind.raw_now = now.get(&kind).copied().unwrap_or(0);
            of_kind.deliveries = raw;
        }
        Ok(())
    }

    /// Checksum over the deliveries that both datasets hold; one that stands in both counts once.
    async fn deliveries_of(&self, day: &ArchivedDay) -> Result<Checksum> {
        let stores = self.retention.stores();
        let mut sum = day.deliveries;
        let Some(kind) = day.superseded.first().map(|file| file.kind) else {
            return Ok(sum);
        };
        // What stands in both is looked for from the smaller side.
        let rows = stores.archive.superseded(self.venue, kind, day).await;
        let rows = rows.doing("read superseded rows")?;
        let mut fingerprinter = Fingerprinter::new();
        let mut superseded = hashbrown::HashSet::new();
        let mut twice = Checksum::default();
        fingerprinter.event_hashes(&rows.events, |row, event| {
            for delivery in rows.deliveries(row) {
                let hash = delivery_hash(event, delivery);
                if !superseded.insert(hash) {
                    twice.add(hash);
                }
            }
        });
        if day.events.is_empty() {
            return Ok(less(sum, twice));
        }
        let opened = stores
            .archive
            .open(self.venue, day, Projection::EventsAndDeliveries)
            .await;
        let mut reader = opened.doing("open an archived day")?;
        let twice = blocking("restore.twice", move || -> Result<Checksum> {
            let mut fingerprinter = Fingerprinter::new();
            while let Some(chunk) = reader.next_chunk().doing("read an archived day")? {
                fingerprinter.event_hashes(chunk.events, |row, event| {
                    let hash = delivery_hash(event, &chunk.first[row]);
                    if superseded.contains(&hash) {
                        twice.add(hash);
                    }
                });
            }
            Ok(twice)
        })
        .await??;
        sum = less(sum, twice);
        Ok(sum)
    }

    async fn count(&self) -> Result<BTreeMap<Kind, u64>> {
        let (start, end) = self.calendar.bounds(self.day);
        let counts = self.retention.stores().raw.count(self.venue, start..end).await;
        Ok(counts.doing("count raw events")?.into_iter().collect())
    }
}

fn less(from: Checksum, part: Checksum) -> Checksum {
    Checksum {
        rows: from.rows - part.rows,
        sum: from.sum.wrapping_sub(part.sum),
    }
}

fn push(rows: &mut RawRows, events: &EventBatch, row: usize, deliveries: &[Delivery]) {
    rows.events.push_from(events, row);
    rows.deliveries.extend_from_slice(deliveries);
    rows.ends.push(rows.deliveries.len() as u32);
}
