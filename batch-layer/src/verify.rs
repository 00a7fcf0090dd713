//! Verifying: do the archive and the tables still hold what was published?
//!
//! A day's files are read back, their counts and checksums compared with what the archive says of them, and that with
//! what the published generation was made of. Nothing is changed and no lease is taken.

use std::collections::BTreeMap;

use dwell_model::event::{Checksum, Kind};
use dwell_model::ids::VenueKey;
use dwell_model::time::LocalDay;
use dwell_runtime::clock::Stopwatch;
use dwell_storage::api::{ArchiveFile, ArchivedDay, GenerationInfo};
use dwell_storage::error::ErrorKind;

use crate::error::{Doing, Error, Result};
use crate::layer::BatchLayer;
use crate::metrics;
use crate::report::{DayReport, Outcome};
use crate::spec::What;

impl BatchLayer {
    /// Verifies one day: `Verified`, or `Failed` with what is wrong, or `Skipped` when there is nothing to verify.
    pub async fn verify_day(&self, venue: &VenueKey, day: LocalDay) -> DayReport {
        let stopwatch = Stopwatch::start();
        let mut report = match self.verify(venue, day).await {
            Ok(report) => report,
            Err(error) => DayReport::of_failure(venue, day, What::Verify, &error),
        };
        report.duration_ms = i64::try_from(stopwatch.elapsed().as_millis()).unwrap_or(i64::MAX);
        metrics::day_done(&report);
        report
    }

    async fn verify(&self, venue: &VenueKey, day: LocalDay) -> Result<DayReport> {
        let stores = self.stores();
        let mut archived: BTreeMap<Kind, ArchivedDay> = BTreeMap::new();
        for kind in Kind::ALL {
            let held = stores
                .archive
                .day(venue, kind, day)
                .await
                .doing("look a day up in the archive")?;
            if held.is_empty() {
                continue;
            }
            if let Err(error) = stores.archive.verify(venue, &held).await {
                return match error.kind() {
                    ErrorKind::Damaged | ErrorKind::NotFound => Ok(failed(venue, day, error.to_string())),
                    _ => Err(Error::Storage {
                        doing: "read archived files back",
                        source: error,
                    }),
                };
            }
            archived.insert(kind, held);
        }
        let row = stores
            .venue_days
            .get(venue, day)
            .await
            .doing("read the published generation")?;
        let published = row.and_then(|row| row.published).filter(|info| !info.provisional);
        let Some(info) = published else {
            let outcome = if archived.is_empty() {
                Outcome::Skipped
            } else {
                Outcome::Verified
            };
            let reason = "no final generation is published".to_owned();
            let mut report = DayReport::new(venue, day, What::Verify, outcome, reason);
            report.events = archived.values().map(|held| held.events_checksum().rows).sum();
            return Ok(report);
        };
        let rows = stores
            .aggregates
            .count(venue, day, info.generation)
            .await
            .doing("count aggregates")?;
        if rows != info.rows {
            let problem = format!(
                "generation {} has {rows} aggregate rows of {}",
                info.generation, info.rows
            );
            return Ok(failed(venue, day, problem));
        }
        Ok(match against_archive(&info, &archived) {
            Ok(note) => {
                let mut report = DayReport::new(venue, day, What::Verify, Outcome::Verified, note.to_owned());
                report.generation = Some(info.generation);
                report.events = info.events.values().map(|sum| sum.rows).sum();
                report.rows = info.rows;
                report.sessions = info.sessions;
                report
            }
            Err(problem) => failed(venue, day, problem),
        })
    }
}

/// Compares what a generation was made of with what the archive holds now.
fn against_archive(
    info: &GenerationInfo,
    archived: &BTreeMap<Kind, ArchivedDay>,
) -> std::result::Result<&'static str, String> {
    // With exclusions a generation is made of what was superseded too, and of fewer events than the files hold.
    let excluded = info.exclusions.fingerprint != 0;
    let of_day = |held: &'_ ArchivedDay| -> Vec<ArchiveFile> {
        let superseded = held.superseded.iter().filter(|_| excluded);
        held.events.iter().chain(superseded).cloned().collect()
    };
    let mut files: Vec<_> = archived.values().flat_map(of_day).collect();
    files.sort();
    if files != info.files {
        // Not damage: what came since is archived, and makes the day dirty.
        return Ok("files read back; the archive was rewritten since the generation");
    }
    for (kind, held) in archived {
        let (holds, read) = (
            held.events_checksum(),
            info.events.get(kind).copied().unwrap_or_default(),
        );
        if holds.rows < read.rows {
            return Err(format!(
                "the archive holds {} {kind} events of {}",
                holds.rows, read.rows
            ));
        }
        // More events than were read belong to a neighbouring day: the venue's cut was changed since they were
        // archived.
        if !excluded && holds.rows == read.rows && holds.sum != read.sum {
            return Err(format!(
                "the archive's {kind} events are others than the generation's"
            ));
        }
    }
    let gone = |(kind, sum): (&Kind, &Checksum)| sum.rows > 0 && !archived.contains_key(kind);
    match info.events.iter().find(|(kind, sum)| gone((kind, sum))) {
        Some((kind, _)) => Err(format!("the archive has no {kind} events any more")),
        None => Ok("files read back"),
    }
}

fn failed(venue: &VenueKey, day: LocalDay, problem: String) -> DayReport {
    DayReport::new(venue, day, What::Verify, Outcome::Failed, problem)
}

#[cfg(test)]
mod tests {
    use dwell_storage::api::Dataset;

    use super::*;
    use crate::testing::generation;

    fn file(rows: u64, sum: u128) -> ArchiveFile {
        ArchiveFile {
            kind: Kind::Position,
            dataset: Dataset::Events,
            path: "a.parquet".into(),
            rows,
            bytes: 1,
            checksum: Checksum { rows, sum },
        }
    }

    fn archive_of(file: ArchiveFile) -> BTreeMap<Kind, ArchivedDay> {
        BTreeMap::from([(
            Kind::Position,
            ArchivedDay {
                events: vec![file],
                ..ArchivedDay::default()
            },
        )])
    }

    #[test]
    fn a_generation_is_held_against_its_files() {
        let made_of = |file: &ArchiveFile, rows, sum| GenerationInfo {
            files: vec![file.clone()],
            events: BTreeMap::from([(Kind::Position, Checksum { rows, sum })]),
            ..generation()
        };
        let held = file(5, 9);
        assert!(against_archive(&made_of(&held, 5, 9), &archive_of(held.clone())).is_ok());
        assert!(against_archive(&made_of(&held, 6, 9), &archive_of(held.clone())).is_err());
        assert!(against_archive(&made_of(&held, 5, 8), &archive_of(held.clone())).is_err());
        let mut other = held.clone();
        other.path = "b.parquet".into();
        assert!(
            against_archive(&made_of(&held, 5, 9), &archive_of(other)).is_ok(),
            "rewritten, not damaged"
        );
    }
}
