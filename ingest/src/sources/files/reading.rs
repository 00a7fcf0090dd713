//! The reading thread: every claimed file, one after the other, into the channel.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use dwell_runtime::tasks::blocking;
use dwell_storage::error::StorageError;
use tokio::sync::mpsc;

use super::claims::Claimed;
use super::error::{FileError, ImportError};
use super::expansion::BytesRead;
use super::groups::{Groups, Routing};
use super::intake::{FileCounts, Intake, IntakeContext, Work, send};
use super::mapping::Mapping;
use super::open::{self, OpenContext};
use super::presence::Presence;
use super::progress::{FileProgress, ImportPhase, Tracker};
use super::report::{FileState, ImportReport};
use super::venues::VenueTable;
use super::{ImportDeps, ImportOptions, Road};
use crate::decode::{DecodeRules, TimeRules};

/// Pieces of work that may wait for the road.
const CHANNEL: usize = 2;

/// What the roads know of an import.
#[derive(Debug)]
pub(super) struct Import<'a> {
    /// What to do.
    pub(super) options: &'a ImportOptions,
    /// What with.
    pub(super) deps: &'a ImportDeps,
    /// The venues.
    pub(super) venues: Arc<VenueTable>,
    /// The mapping.
    pub(super) mapping: Arc<Mapping>,
    /// Makes pseudonyms.
    pub(super) presence: Arc<Presence>,
    /// Tells the progress.
    pub(super) tracker: Arc<Tracker>,
}

/// Reads the files on a thread of its own. The work arrives at the receiver while the future is polled; the future gives the
/// files back.
pub(super) fn read<'i>(
    import: &'i Import<'_>,
    files: Vec<Claimed>,
    routing: Routing,
) -> (
    mpsc::Receiver<Work>,
    impl Future<Output = Result<Vec<Claimed>, ImportError>> + use<'i>,
) {
    let (outbox, inbox) = mpsc::channel(CHANNEL);
    let options = import.options;
    let now = import.deps.clock.now_ms();
    let times = TimeRules {
        now,
        max_future_ms: options.future_ms_max,
        max_age_ms: i64::MAX,
    };
    let rules = DecodeRules {
        times: Some(times),
        max_event_bytes: options.row_bytes_max,
        ..DecodeRules::default()
    };
    let context = IntakeContext {
        mapping: Arc::clone(&import.mapping),
        venues: Arc::clone(&import.venues),
        presence: Arc::clone(&import.presence),
        rules: Arc::new(rules),
        expansion: options.expansion,
        to_log: options.road == Road::Log,
        outbox,
    };
    // An instant at the limit is taken, the one after it is not.
    let future = now.saturating_add(options.future_ms_max).saturating_add(1);
    let (spill_dir, tracker) = (options.spill_dir.clone(), Arc::clone(&import.tracker));
    let reading = async move {
        let thread = blocking("import reading", move || {
            read_all(&files, &context, routing, future, &spill_dir, &tracker)?;
            Ok::<_, StorageError>(files)
        });
        Ok(thread.await??)
    };
    (inbox, reading)
}

/// Ends early, without an error of its own, when the road has gone: that one's error tells why.
fn read_all(
    files: &[Claimed],
    context: &IntakeContext,
    routing: Routing,
    future: dwell_model::time::TsMs,
    spill_dir: &Path,
    tracker: &Tracker,
) -> Result<(), StorageError> {
    let Some(first) = files.first() else { return Ok(()) };
    tracker.begin(ImportPhase::Reading, files.iter().map(|file| file.bytes).sum(), 0);
    let mut groups = Groups::new(Arc::clone(&context.venues), routing, future, first.delivery);
    for (number, file) in files.iter().enumerate() {
        let (counts, error) = read_file(file, context, &mut groups, spill_dir, tracker);
        let error = match error {
            Some(FileError::Stopped) => return Ok(()),
            Some(FileError::Storage(error)) => return Err(error),
            error => error.map(|error| error.to_string()),
        };
        if send(
            context,
            Work::FileDone {
                number,
                counts,
                error,
            },
        )
        .is_err()
        {
            return Ok(());
        }
    }
    // The archive's groups go on from file to file; nobody is there to take them only when the road has failed.
    let _ = send(context, Work::Groups(groups.take(0)));
    Ok(())
}

fn read_file(
    file: &Claimed,
    context: &IntakeContext,
    groups: &mut Groups,
    spill_dir: &Path,
    tracker: &Tracker,
) -> (FileCounts, Option<FileError>) {
    let read = BytesRead::default();
    let open = OpenContext {
        expansion: context.expansion,
        spill_dir,
        read: &read,
    };
    let progress = FileProgress::new(tracker, read.clone(), file.bytes);
    let mut intake = Intake::new(context, groups, progress, file.delivery);
    // Libraries that read foreign formats may panic on damage; then this file has failed, and the others have not.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        open::visit_parts(&file.input, &open, &mut |part| intake.part(part))
    }));
    let outcome = outcome.unwrap_or_else(|_| {
        Err(FileError::content(
            &*file.input.name,
            "damaged: its reader gave up",
        ))
    });
    let (counts, sent) = intake.finish();
    (counts, outcome.and(sent).err())
}

/// Enters what became of a file, and finishes its claim when all of it was taken.
pub(super) async fn settle(
    import: &Import<'_>,
    claimed: (usize, dwell_model::ids::Receipt),
    outcome: FileOutcome,
    report: &mut ImportReport,
) -> Result<(), ImportError> {
    let (place, receipt) = claimed;
    let file = &mut report.files[place];
    let FileOutcome { counts, error } = outcome;
    (file.accepted, file.refused) = (counts.accepted, counts.refused);
    file.errors = counts.first_errors;
    match error {
        Some(error) => {
            file.state = FileState::Failed;
            file.errors.insert(0, error);
        }
        None => {
            let now = import.deps.clock.now_ms();
            let imports = &import.deps.stores.imports;
            imports
                .finish(
                    &import.options.tenant,
                    receipt,
                    now,
                    counts.accepted,
                    counts.refused,
                )
                .await?;
        }
    }
    Ok(())
}

/// What became of a file.
#[derive(Debug, Default)]
pub(super) struct FileOutcome {
    /// Its rows.
    pub(super) counts: FileCounts,
    /// Why it failed.
    pub(super) error: Option<String>,
}
