//! The proof of a day: its archive read back, and every raw row with each of its deliveries looked for in it.

use std::collections::BTreeSet;

use dwell_model::event::Kind;
use dwell_model::ids::VenueKey;
use dwell_model::time::{DayCut, LocalDay, VenueCalendar};
use dwell_runtime::failpoint;
use dwell_storage::api::{ArchivedDay, GenerationInfo};
use dwell_storage::error::{ErrorKind, StorageError};
use tokio_util::sync::CancellationToken;

use crate::compare::Comparison;
use crate::engine::Retention;
use crate::error::{Doing, Error, Result};
use crate::lease::under_leases;
use crate::records::{self, KindProof, Proof};

/// Rows that were not found, told by their times.
const NOT_FOUND_TOLD: usize = 5;

impl Retention {
    /// Compares a day's raw rows with its archive under the day's lease, and remembers the result; `None` when somebody
    /// else holds the day.
    pub async fn prove(
        &self,
        venue: &VenueKey,
        calendar: &VenueCalendar,
        day: LocalDay,
        cancel: &CancellationToken,
    ) -> Result<Option<Proof>> {
        under_leases(self, venue, &[day], cancel, async |held| {
            let proof = self.compare_day(venue, calendar, day, cancel).await?;
            held.check()?;
            failpoint!("retention.before_proof");
            let documents = &*self.stores().documents;
            records::update(documents, venue, day, |record| {
                record.proof = Some(proof.clone());
            })
            .await
            .doing("remember a proof")?;
            Ok(proof)
        })
        .await
    }

    /// The same for looking at: takes no lease and remembers nothing.
    pub async fn compare_day(
        &self,
        venue: &VenueKey,
        calendar: &VenueCalendar,
        day: LocalDay,
        cancel: &CancellationToken,
    ) -> Result<Proof> {
        self.compare_rest(venue, calendar, day, &BTreeSet::new(), cancel)
            .await
    }

    /// The same but for kinds that were compared in this very step: their files are not read a second time.
    pub(crate) async fn compare_rest(
        &self,
        venue: &VenueKey,
        calendar: &VenueCalendar,
        day: LocalDay,
        compared: &BTreeSet<Kind>,
        cancel: &CancellationToken,
    ) -> Result<Proof> {
        let cut = calendar.cut(day);
        let marks = self.stores().raw.marks(venue, cut.start..cut.end).await;
        let mut proof = Proof {
            at: self.now_ms(),
            marks: marks.doing("read the marks")?,
            calendar: *calendar,
            kinds: Default::default(),
            unreadable: Vec::new(),
            missing: false,
        };
        let row = self.stores().venue_days.get(venue, day).await;
        let published = row
            .doing("read the published generation")?
            .and_then(|row| row.published);
        for kind in Kind::ALL {
            if cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let archive = &self.stores().archive;
            let held = archive
                .day(venue, kind, day)
                .await
                .doing("look a day up in the archive")?;
            if lacks(published.as_ref(), kind, &held) {
                proof.missing = true;
            }
            if compared.contains(&kind) {
                continue;
            }
            let outcome = self.compare_kind(venue, kind, &cut, held, cancel).await;
            match outcome {
                Ok(None) => {}
                Ok(Some(compared)) => {
                    proof.kinds.insert(kind, compared);
                }
                Err(error) => proof.unreadable.push(unreadable(error)?),
            }
        }
        Ok(proof)
    }

    /// `None` when neither raw nor the archive has anything.
    async fn compare_kind(
        &self,
        venue: &VenueKey,
        kind: Kind,
        cut: &DayCut,
        held: ArchivedDay,
        cancel: &CancellationToken,
    ) -> Result<Option<KindProof>> {
        if !held.is_empty() {
            let verified = self.stores().archive.verify(venue, &held).await;
            verified.doing("read archived files back")?;
        }
        let files = held.events.iter().chain(&held.superseded);
        let mut proof = KindProof {
            files: files.map(|file| file.path.clone()).collect(),
            ..KindProof::default()
        };
        let comparison = Comparison {
            retention: self,
            venue,
            kind,
            archived: &[held],
            cancel,
        };
        for window in comparison.windows(cut.start..cut.end).await? {
            let compared = comparison.compare(window).await?;
            proof.raw.merge(compared.raw);
            proof.found.merge(compared.found);
            let not_held = (0..compared.rows.len()).filter(|&row| !compared.held[row]);
            let times = not_held.map(|row| compared.rows.events.ts[row]);
            let room = NOT_FOUND_TOLD - proof.not_found_at.len();
            proof.not_found_at.extend(times.take(room));
        }
        let is_nothing = proof.files.is_empty() && proof.raw.rows == 0;
        Ok((!is_nothing).then_some(proof))
    }
}

/// Whether the archive has less of a kind than the published generation was made of.
fn lacks(published: Option<&GenerationInfo>, kind: Kind, held: &ArchivedDay) -> bool {
    let made_of = published.and_then(|info| info.events.get(&kind));
    made_of.is_some_and(|made_of| held.events_checksum().rows < made_of.rows)
}

/// What is wrong with an archive that cannot be read back; any other failure is one.
pub(crate) fn unreadable(error: Error) -> Result<String> {
    let is_of_the_archive =
        |source: &StorageError| matches!(source.kind(), ErrorKind::Damaged | ErrorKind::NotFound);
    match &error {
        Error::Storage { source, .. } if is_of_the_archive(source) => Ok(source.to_string()),
        _ => Err(error),
    }
}
