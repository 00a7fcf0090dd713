//! Writes a day anew: its archived rows united with incoming ones, as files beside the archive.
//!
//! All rows of a usual day fit in memory: they are united at once, and a result that equals what the archive holds is not
//! written at all. Larger days go piece by piece ([`Stretches`]): each source of rows comes in the order (key, ts), and a
//! piece ends where every source is known up to. Either way every file is read back before it counts: compared value by
//! value with the rows in memory where they are there, else by its checksums.

use dwell_model::event::{Checksum, Kind};
use dwell_model::ids::VenueKey;
use dwell_model::time::LocalDay;
use object_store::path::Path;
use tokio::runtime::Handle;

use super::day_files::{FileOut, FileRows, WrittenFile, footer, verify_equal, verify_sums};
use super::files::DataFiles;
use super::layout::{TableName, new_file};
use super::stretches::{Stretch, Stretches};
use super::unite::{Sums, United, unite};
use crate::api::{
    ArchiveFile, ArchivedDay, Dataset, DeliveredRows, Generation, IncomingDay, Rewrite, StagedDay,
};
use crate::erasure::ErasureFilter;
use crate::error::{ErrorKind, Result, StorageError};

/// A day to be written anew.
pub(super) struct DayRewrite<'a> {
    pub(super) files: &'a DataFiles,
    /// The archive's folder.
    pub(super) archive: &'a Path,
    pub(super) runtime: &'a Handle,
    pub(super) venue: &'a VenueKey,
    pub(super) kind: Kind,
    pub(super) day: LocalDay,
    pub(super) fence: Generation,
    /// What the archive holds of the day.
    pub(super) archived: ArchivedDay,
    /// Rows of a source that are held at once.
    pub(super) stretch_rows: usize,
    /// Whom to leave out.
    pub(super) erasures: &'a ErasureFilter,
}

/// A file that is being filled piece by piece.
struct Filling {
    dataset: Dataset,
    path: String,
    out: FileOut,
}

/// A new file: path below the table's folder, and what is in it.
struct NewFile {
    dataset: Dataset,
    path: String,
    written: WrittenFile,
}

impl DayRewrite<'_> {
    /// Does it. Blocking.
    pub(super) fn run(self, incoming: Box<dyn IncomingDay>) -> Result<Rewrite> {
        let mut made = Vec::new();
        let rewritten = self.write(incoming, &mut made);
        let kept: Vec<String> = match &rewritten {
            Ok(Rewrite::Staged(day)) => day
                .holds
                .events
                .iter()
                .chain(&day.holds.superseded)
                .map(|file| file.path.clone())
                .collect(),
            _ => Vec::new(),
        };
        for (dataset, path) in made.into_iter().filter(|(_, path)| !kept.contains(path)) {
            // What cannot be removed now is an orphan, which vacuum takes.
            if let Err(error) = self
                .files
                .remove_blocking(&self.name(dataset, &path), self.runtime)
            {
                tracing::warn!(path, %error, "archive file that is not wanted was not removed");
            }
        }
        rewritten
    }

    fn write(&self, incoming: Box<dyn IncomingDay>, made: &mut Vec<(Dataset, String)>) -> Result<Rewrite> {
        let mut stretches = self.open(incoming)?;
        let Some(first) = stretches.next()? else {
            return Ok(Rewrite::Unchanged(self.archived.clone()));
        };
        if first.is_whole {
            let United { events, superseded } = self.unite(first);
            let (mut files, mut emptied) = (Vec::new(), Vec::new());
            for (dataset, rows) in [(Dataset::Superseded, superseded), (Dataset::Events, events)] {
                let sums = Sums::of(&rows);
                match self.is_held(dataset, sums) {
                    true => {}
                    false if rows.is_empty() => emptied.push(dataset),
                    false => files.push(self.write_whole(dataset, &rows, sums, made)?),
                }
            }
            return Ok(self.staged(files, &emptied));
        }
        let (mut events, mut superseded) = (None, None);
        let mut next = Some(first);
        while let Some(stretch) = next {
            let united = self.unite(stretch);
            self.write_piece(Dataset::Events, &mut events, &united.events, made)?;
            self.write_piece(Dataset::Superseded, &mut superseded, &united.superseded, made)?;
            next = stretches.next()?;
        }
        let (mut files, mut emptied) = (Vec::new(), Vec::new());
        for (dataset, filling) in [(Dataset::Superseded, &superseded), (Dataset::Events, &events)] {
            if filling.is_none() && !self.is_held(dataset, Sums::default()) {
                emptied.push(dataset);
            }
        }
        for Filling { dataset, path, out } in [superseded, events].into_iter().flatten() {
            let written = out.finish(&self.labels(dataset))?;
            if !self.is_held(dataset, written.sums) {
                verify_sums(
                    self.files,
                    &self.name(dataset, &path),
                    self.kind,
                    written.sums,
                    self.runtime,
                )?;
                files.push(NewFile {
                    dataset,
                    path,
                    written,
                });
            }
        }
        Ok(self.staged(files, &emptied))
    }

    /// Unites a stretch without those whom the ledger of erasures names. They go first: what they covered counts then.
    fn unite(&self, stretch: Stretch) -> United {
        let (rows, superseded_from) =
            self.erasures
                .apply_delivered(self.venue, stretch.rows, stretch.superseded_from);
        unite(rows, superseded_from)
    }

    fn open(&self, incoming: Box<dyn IncomingDay>) -> Result<Stretches> {
        let rows_of = |dataset: Dataset, files: &[ArchiveFile]| -> Result<Vec<FileRows>> {
            let open = |file: &ArchiveFile| {
                FileRows::open(
                    self.files,
                    &self.name(dataset, &file.path),
                    self.kind,
                    self.runtime,
                )
            };
            files.iter().map(open).collect()
        };
        let events = rows_of(Dataset::Events, &self.archived.events)?;
        let superseded = rows_of(Dataset::Superseded, &self.archived.superseded)?;
        let archived = self.archived.events.iter().chain(&self.archived.superseded);
        let rows = incoming.remaining() + archived.map(|file| file.rows).sum::<u64>();
        Ok(Stretches::new(
            self.kind,
            incoming,
            events,
            superseded,
            self.stretch_rows,
            rows,
        ))
    }

    /// Whether the archive holds just that in a dataset.
    fn is_held(&self, dataset: Dataset, sums: Sums) -> bool {
        let held_superseded = total(&self.archived.superseded);
        match dataset {
            Dataset::Superseded => sums.deliveries == held_superseded,
            Dataset::Events => {
                let held = without(self.archived.deliveries, held_superseded);
                sums.events == total(&self.archived.events) && sums.deliveries == held
            }
        }
    }

    fn write_whole(
        &self,
        dataset: Dataset,
        rows: &DeliveredRows,
        sums: Sums,
        made: &mut Vec<(Dataset, String)>,
    ) -> Result<NewFile> {
        let Filling { path, mut out, .. } = self.create(dataset, made)?;
        out.write(rows, sums)?;
        let written = out.finish(&self.labels(dataset))?;
        verify_equal(self.files, &self.name(dataset, &path), rows, self.runtime)?;
        Ok(NewFile {
            dataset,
            path,
            written,
        })
    }

    fn write_piece(
        &self,
        dataset: Dataset,
        filling: &mut Option<Filling>,
        rows: &DeliveredRows,
        made: &mut Vec<(Dataset, String)>,
    ) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let filling = match filling {
            Some(filling) => filling,
            None => filling.insert(self.create(dataset, made)?),
        };
        filling.out.write(rows, Sums::of(rows))
    }

    fn create(&self, dataset: Dataset, made: &mut Vec<(Dataset, String)>) -> Result<Filling> {
        let random = getrandom::u64().map_err(|error| {
            StorageError::with_source(ErrorKind::Unavailable, "name an archive file", error)
        })?;
        let path = new_file(self.venue, self.day, self.fence, random);
        made.push((dataset, path.clone()));
        let out = FileOut::create(self.files, &self.name(dataset, &path), self.kind, self.runtime)?;
        Ok(Filling { dataset, path, out })
    }

    /// `emptied`: datasets of which an erasure has left nothing.
    fn staged(&self, files: Vec<NewFile>, emptied: &[Dataset]) -> Rewrite {
        if files.is_empty() && emptied.is_empty() {
            return Rewrite::Unchanged(self.archived.clone());
        }
        let mut holds = self.archived.clone();
        let superseded_before = total(&self.archived.superseded);
        for dataset in emptied {
            let (list, before) = match dataset {
                Dataset::Events => (
                    &mut holds.events,
                    without(self.archived.deliveries, superseded_before),
                ),
                Dataset::Superseded => (&mut holds.superseded, superseded_before),
            };
            list.clear();
            holds.deliveries = without(holds.deliveries, before);
        }
        for NewFile {
            dataset,
            path,
            written,
        } in files
        {
            let checksum = match dataset {
                Dataset::Events => written.sums.events,
                Dataset::Superseded => written.sums.deliveries,
            };
            let rows = written.sums.events.rows;
            let file = ArchiveFile {
                kind: self.kind,
                dataset,
                path,
                rows,
                bytes: written.bytes,
                checksum,
            };
            let (list, before) = match dataset {
                Dataset::Events => {
                    let before = without(self.archived.deliveries, total(&self.archived.superseded));
                    (&mut holds.events, before)
                }
                Dataset::Superseded => (&mut holds.superseded, total(&self.archived.superseded)),
            };
            *list = vec![file];
            holds.deliveries = without(holds.deliveries, before);
            holds.deliveries.merge(written.sums.deliveries);
        }
        Rewrite::Staged(StagedDay {
            venue: self.venue.clone(),
            day: self.day,
            kind: self.kind,
            fence: self.fence,
            replaces: self.archived.clone(),
            holds,
        })
    }

    fn labels(&self, dataset: Dataset) -> [(&'static str, String); 6] {
        let dataset = match dataset {
            Dataset::Events => "events",
            Dataset::Superseded => "superseded",
        };
        [
            (footer::TENANT, self.venue.tenant.to_string()),
            (footer::VENUE, self.venue.venue.to_string()),
            (footer::DAY, self.day.to_string()),
            (footer::KIND, self.kind.to_string()),
            (footer::DATASET, dataset.to_owned()),
            (footer::FENCE, self.fence.to_string()),
        ]
    }

    fn name(&self, dataset: Dataset, path: &str) -> Path {
        file_name(
            self.archive,
            &TableName::new(&self.venue.tenant, self.kind, dataset),
            path,
        )
    }
}

/// A file's name on the store, from its path below its table's folder.
pub(super) fn file_name(archive: &Path, table: &TableName, path: &str) -> Path {
    path.split('/')
        .fold(table.folder(archive), |folder, part| folder.join(part))
}

/// Sum of the files' checksums.
fn total(files: &[ArchiveFile]) -> Checksum {
    let mut sum = Checksum::default();
    files.iter().for_each(|file| sum.merge(file.checksum));
    sum
}

/// A checksum without a part of its rows.
pub(super) fn without(all: Checksum, part: Checksum) -> Checksum {
    Checksum {
        rows: all.rows.saturating_sub(part.rows),
        sum: all.sum.wrapping_sub(part.sum),
    }
}
