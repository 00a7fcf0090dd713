//! The archive road: history straight into the archive, venue-day by venue-day.
//!
//! 1. Rows are sorted by venue-day in bounded memory, spilled where they do not fit ([`BulkSorter`]).
//! 2. For each venue-day: take its lease, mark it, unite its rows with what the archive holds, as staged files.
//! 3. Many staged days are committed at once, marked again with a higher position, and their leases given back.
//! 4. The claims are finished.
//!
//! Marks before and after the commit bracket it: a run that read its marks before the commit finds the day dirty
//! afterwards, and an import that dies in between leaves it dirty as well. Dying at any point leaves the claims
//! unfinished; the same import then stages and commits what is missing, finds the rest unchanged, and marks again.
//!
//! A day whose lease was lost, or whose files were replaced meanwhile, is left out of the commit; another pass over the
//! files brings it.
//!
//! [`BulkSorter`]: dwell_storage::archive::BulkSorter

mod days;
mod leases;

use std::collections::BTreeMap;
use std::sync::Arc;

use dwell_model::time::{LocalDay, TsMs};
use dwell_runtime::failpoint;
use dwell_runtime::tasks::blocking;
use dwell_storage::archive::BulkSorter;
use futures::future::try_join;
use hashbrown::HashSet;
use tokio::sync::mpsc;

use super::claims::Claimed;
use super::error::ImportError;
use super::groups::{Destination, Group, Routing};
use super::intake::Work;
use super::log_road;
use super::quarantining::Quarantining;
use super::reading::{self, FileOutcome, Import};
use super::report::ImportReport;

/// Passes over the files before giving up on days that others change all the time.
const PASSES_MAX: usize = 4;

/// The venue-days that rows were sorted into, with the first and last instant in each.
pub(super) type Touched = BTreeMap<(u32, LocalDay), (TsMs, TsMs)>;

/// Imports the files into the archive.
pub(super) async fn run(
    import: &Import<'_>,
    mut files: Vec<Claimed>,
    report: &mut ImportReport,
) -> Result<(), ImportError> {
    let places: Vec<_> = files
        .iter()
        .map(|file| (file.report, file.delivery.receipt))
        .collect();
    let now = import.deps.clock.now_ms();
    // The same files make the same source of marks, so that repeating an import adds none.
    let import_id = format!("import-{}", files[0].delivery.receipt);
    let mut outcomes = Vec::new();
    let mut only: Option<Arc<HashSet<(u32, LocalDay)>>> = None;
    for _ in 0..PASSES_MAX {
        let (inbox, reading) = reading::read(
            import,
            files,
            Routing::Archive {
                now,
                only: only.clone(),
            },
        );
        let (files_back, sorted) = try_join(reading, sort(import, inbox)).await?;
        files = files_back;
        if only.is_none() {
            report.logged += sorted.logged;
            outcomes = sorted.outcomes;
        }
        let stale = days::write(import, &import_id, sorted.sorter, &sorted.touched, report).await?;
        if stale.is_empty() {
            failpoint!("import.before_finish");
            for (place, outcome) in places.into_iter().zip(outcomes) {
                reading::settle(import, place, outcome, report).await?;
            }
            return Ok(());
        }
        only = Some(Arc::new(stale));
    }
    Err(ImportError::Contended(only.map_or(0, |days| days.len())))
}

/// What the reading thread found, sorted.
struct Sorted {
    sorter: BulkSorter,
    touched: Touched,
    logged: u64,
    outcomes: Vec<FileOutcome>,
}

async fn sort(import: &Import<'_>, mut inbox: mpsc::Receiver<Work>) -> Result<Sorted, ImportError> {
    let options = import.options;
    let sorter = BulkSorter::new(&options.spill_dir, options.sort_memory_bytes)?;
    let mut sorted = Sorted {
        sorter,
        touched: Touched::new(),
        logged: 0,
        outcomes: Vec::new(),
    };
    let mut quarantine = Quarantining::new(import);
    while let Some(work) = inbox.recv().await {
        match work {
            Work::Groups(groups) => {
                let (to_log, to_archive): (Vec<Group>, Vec<Group>) = groups
                    .into_iter()
                    .filter(|group| group.to != Destination::Skip)
                    .partition(|group| group.to == Destination::Log);
                sorted.logged += log_road::append(import, to_log).await?;
                sorted = take(import, sorted, to_archive).await?;
            }
            Work::Refused(rows) => quarantine.keep(rows).await?,
            Work::FileDone { counts, error, .. } => sorted.outcomes.push(FileOutcome { counts, error }),
        }
    }
    Ok(sorted)
}

/// Gives groups to the sorter, on a thread that may block.
async fn take(import: &Import<'_>, mut sorted: Sorted, groups: Vec<Group>) -> Result<Sorted, ImportError> {
    let venues = Arc::clone(&import.venues);
    let sorting = blocking("import sorting", move || {
        for group in groups {
            let Destination::Archive(day) = group.to else {
                continue;
            };
            let Some((first, last)) = bounds(&group.rows.events.ts) else {
                continue;
            };
            let touched = sorted.touched.entry((group.venue, day)).or_insert((first, last));
            *touched = (touched.0.min(first), touched.1.max(last));
            sorted.sorter.push(venues.key(group.venue), day, group.rows)?;
        }
        Ok::<_, ImportError>(sorted)
    });
    sorting.await?
}

fn bounds(ts: &[TsMs]) -> Option<(TsMs, TsMs)> {
    Some((ts.iter().copied().min()?, ts.iter().copied().max()?))
}
