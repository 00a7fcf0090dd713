//! Writing sorted rows, venue-day by venue-day.

use dwell_model::event::Kind;
use dwell_model::ids::VenueKey;
use dwell_model::time::{LocalDay, TsMs, slot_of};
use dwell_runtime::failpoint;
use dwell_storage::api::{Committed, IncomingDay, Lease, Mark, MarkSource, RawWrite, Rewrite, StagedDay};
use dwell_storage::archive::{BulkSorter, SortedDay};
use dwell_storage::error::{ErrorKind, StorageError};
use futures::StreamExt;
use futures::future::{BoxFuture, Either, select};
use futures::stream::FuturesUnordered;
use hashbrown::HashSet;

use super::Touched;
use super::leases::Leases;
use crate::sources::files::error::ImportError;
use crate::sources::files::progress::ImportPhase;
use crate::sources::files::reading::Import;
use crate::sources::files::report::ImportReport;

/// Venue-days committed at once: enough that the commits do not weigh, few enough that leases are not held for long.
const COMMIT_DAYS: usize = 128;
/// Days of a kind written at once. Each takes memory by its size, so they are few.
const REWRITES_AT_ONCE: usize = 2;

/// Writes all days; returns those that others changed meanwhile, which need another pass.
pub(super) async fn write(
    import: &Import<'_>,
    import_id: &str,
    sorter: BulkSorter,
    touched: &Touched,
    report: &mut ImportReport,
) -> Result<HashSet<(u32, LocalDay)>, ImportError> {
    import
        .tracker
        .begin(ImportPhase::Writing, 0, touched.len() as u64);
    let leases = Leases::new(import, import_id);
    let source = MarkSource::job(import_id);
    let mut writing = Writing {
        import,
        leases: &leases,
        source,
        touched,
        rewriting: FuturesUnordered::new(),
        staged: Vec::new(),
        open: Vec::new(),
        stale: HashSet::new(),
        report,
    };
    let outcome = {
        let work = std::pin::pin!(writing.all(sorter));
        let keep = std::pin::pin!(leases.keep());
        match select(work, keep).await {
            Either::Left((outcome, _)) => outcome,
            // `keep` never ends.
            Either::Right(((), work)) => work.await,
        }
    };
    // After a failure the days that are still being written are waited for, so that their files can be removed.
    while !matches!(writing.rewritten().await, Ok(false)) {}
    let left: Vec<StagedDay> = std::mem::take(&mut writing.staged);
    let stale = std::mem::take(&mut writing.stale);
    if !left.is_empty()
        && let Err(error) = import.deps.stores.archive.discard(left).await
    {
        tracing::warn!(%error, "files of days that were not committed are left for the vacuum");
    }
    leases.release_all().await;
    outcome.map(|()| stale)
}

/// The state of a pass over the days.
struct Writing<'w> {
    import: &'w Import<'w>,
    leases: &'w Leases<'w>,
    source: MarkSource,
    touched: &'w Touched,
    /// Being written, on threads of their own.
    rewriting: FuturesUnordered<BoxFuture<'w, Result<Rewrite, StorageError>>>,
    /// Written beside the archive.
    staged: Vec<StagedDay>,
    /// Days under lease: marked, waiting for the commit.
    open: Vec<OpenDay>,
    stale: HashSet<(u32, LocalDay)>,
    report: &'w mut ImportReport,
}

/// A day that is being worked on.
#[derive(Debug)]
struct OpenDay {
    number: (u32, LocalDay),
    lease: Lease,
    /// The first and last instant of its rows.
    touched: (TsMs, TsMs),
    marked_at: i64,
    is_changed: bool,
}

impl<'w> Writing<'w> {
    async fn all(&mut self, sorter: BulkSorter) -> Result<(), ImportError> {
        for SortedDay {
            venue,
            day,
            kind,
            rows,
        } in sorter.finish()
        {
            while self.rewriting.len() >= REWRITES_AT_ONCE {
                self.rewritten().await?;
            }
            self.begin(&venue, day).await?;
            self.rewrite(venue, kind, rows);
        }
        self.commit().await
    }

    /// Takes a day's lease and marks it, unless it is the day that was begun last.
    async fn begin(&mut self, venue: &VenueKey, day: LocalDay) -> Result<(), ImportError> {
        if self
            .open
            .last()
            .is_some_and(|open| open.lease.venue == *venue && open.lease.day == day)
        {
            return Ok(());
        }
        if self.open.len() >= COMMIT_DAYS {
            self.commit().await?;
        }
        let lease = match self.leases.try_take(venue, day).await? {
            Some(lease) => lease,
            None => {
                // Nobody is kept waiting for days that are done while this one is waited for.
                self.commit().await?;
                self.leases.take(venue, day).await?
            }
        };
        let venues = &self.import.venues;
        let number = venues.number(venue.venue.as_str()).map(|number| (number, day));
        let touched = number.and_then(|number| Some((number, *self.touched.get(&number)?)));
        let Some((number, touched)) = touched else {
            return Err(StorageError::new(
                ErrorKind::Bug,
                format!("{venue} {day} came out of sorting but not in"),
            )
            .into());
        };
        let mut open = OpenDay {
            number,
            lease,
            touched,
            marked_at: 0,
            is_changed: false,
        };
        let known = self
            .import
            .deps
            .stores
            .raw
            .marks(venue, touched.0..touched.1 + 1)
            .await?;
        open.marked_at = known.0.get(&self.source).copied().unwrap_or(0);
        mark(self.import, &self.source, &mut open).await?;
        self.open.push(open);
        Ok(())
    }

    /// Starts to unite rows with what the archive holds of the day that was begun last.
    fn rewrite(&mut self, venue: VenueKey, kind: Kind, rows: Box<dyn IncomingDay>) {
        let Some(open) = self.open.last() else { return };
        let (day, fence) = (open.lease.day, open.lease.fence);
        let archive = &self.import.deps.stores.archive;
        let rewrite = async move { archive.rewrite_day(&venue, kind, day, fence, rows).await };
        self.rewriting.push(Box::pin(rewrite));
    }

    /// Waits for a day that is being written; false when there is none.
    async fn rewritten(&mut self) -> Result<bool, ImportError> {
        match self.rewriting.next().await.transpose()? {
            None => Ok(false),
            Some(Rewrite::Unchanged(_)) => Ok(true),
            Some(Rewrite::Staged(staged)) => {
                let is_its =
                    |open: &&mut OpenDay| open.lease.venue == staged.venue && open.lease.day == staged.day;
                if let Some(open) = self.open.iter_mut().find(is_its) {
                    open.is_changed = true;
                }
                self.staged.push(staged);
                Ok(true)
            }
        }
    }

    /// Commits what is staged, marks the days again, gives their leases back.
    async fn commit(&mut self) -> Result<(), ImportError> {
        while self.rewritten().await? {}
        failpoint!("import.after_rewrite");
        let archive = &self.import.deps.stores.archive;
        let staged = std::mem::take(&mut self.staged);
        if !staged.is_empty() {
            // From here on the files may be part of the archive: on an error they are left to the vacuum.
            let outcomes = archive.commit(staged.clone(), self.leases).await?;
            let stale: Vec<StagedDay> = staged
                .into_iter()
                .zip(outcomes)
                .filter(|(_, outcome)| *outcome == Committed::Stale)
                .map(|(day, _)| day)
                .collect();
            for open in &mut self.open {
                let is_stale =
                    |staged: &StagedDay| staged.venue == open.lease.venue && staged.day == open.lease.day;
                if stale.iter().any(is_stale) {
                    self.stale.insert(open.number);
                    open.is_changed = false;
                }
            }
            archive.discard(stale).await?;
        }
        failpoint!("import.after_commit");
        for mut open in std::mem::take(&mut self.open) {
            mark(self.import, &self.source, &mut open).await?;
            if open.is_changed {
                self.report.days_changed += 1;
            } else if !self.stale.contains(&open.number) {
                self.report.days_unchanged += 1;
            }
            self.import.tracker.day();
        }
        self.leases.release_all().await;
        Ok(())
    }
}

/// Marks the slots of a day's rows, higher than ever before.
async fn mark(import: &Import<'_>, source: &MarkSource, open: &mut OpenDay) -> Result<(), ImportError> {
    let position = (open.marked_at + 1).max(import.deps.clock.now_ms());
    open.marked_at = position;
    let (first, last) = open.touched;
    let mark = |slot| Mark {
        venue: open.lease.venue.clone(),
        slot,
        source: source.clone(),
        position,
    };
    let marks = (slot_of(first)..=slot_of(last)).map(mark).collect();
    import
        .deps
        .stores
        .raw
        .apply(RawWrite {
            marks,
            ..RawWrite::default()
        })
        .await?;
    Ok(())
}
