//! Keeping the archive: what no table names, and what is damaged.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use dwell_model::event::Kind;
use dwell_model::ids::VenueKey;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::super::samples::{day, shop, strangers};
use super::{ArchiveUnderTest, DAY, commit, content, data_files, join, put, rewrite, row, staged};
use crate::api::{
    Archive, Committed, Dataset, DeliveredRows, Rebuilt, StagedDay, StillHeld, TableVersion, UnnamedFile,
};
use crate::error::Result;

/// Names of what nobody names, whatever its age.
async fn unnamed(archive: &dyn Archive, of: &VenueKey) -> Vec<(Dataset, String)> {
    let found = archive.unnamed_files(&of.tenant, i64::MAX).await.unwrap();
    found.into_iter().map(|file| (file.dataset, file.path)).collect()
}

pub(super) async fn what_no_table_names_is_found_and_removed_and_nothing_else(test: ArchiveUnderTest) {
    let archive = &*test.archive;
    assert!(unnamed(archive, &shop()).await.is_empty());
    let first = put(archive, row("t", 1, 1.0, 10)).await;
    let second = put(archive, row("t", 1, 2.0, 20)).await;
    let third = put(archive, row("t", 1, 3.0, 30)).await;
    // Died between staging and commit.
    let orphan = staged(rewrite(archive, row("t", 2, 1.0, 40), 9).await).holds;
    let mut expected: Vec<(Dataset, String)> = Vec::new();
    for (replaced, kept) in [(&first, &third), (&second, &third), (&orphan, &third)] {
        let kept: Vec<_> = kept.events.iter().chain(&kept.superseded).collect();
        let files = replaced.events.iter().chain(&replaced.superseded);
        let gone = files.filter(|file| kept.iter().all(|kept| kept.path != file.path));
        expected.extend(gone.map(|file| (file.dataset, file.path.clone())));
    }
    expected.sort();
    assert!(expected.len() >= 3);
    let told = unnamed(&*test.other, &shop()).await;
    assert_eq!(told, expected);
    assert!(archive.unnamed_files(&shop().tenant, 0).await.unwrap().is_empty());
    for stranger in strangers().iter().filter(|other| other.tenant != shop().tenant) {
        assert!(unnamed(archive, stranger).await.is_empty());
    }

    let files = archive.unnamed_files(&shop().tenant, i64::MAX).await.unwrap();
    let named = UnnamedFile {
        kind: Kind::Position,
        dataset: Dataset::Events,
        path: third.events[0].path.clone(),
        bytes: third.events[0].bytes,
    };
    let asked: Vec<UnnamedFile> = files.iter().cloned().chain([named]).collect();
    let tenant = shop().tenant;
    assert_eq!(archive.remove_unnamed(&tenant, &asked).await.unwrap(), files);
    let again = test.other.remove_unnamed(&tenant, &files).await.unwrap();
    assert_eq!(again, files, "gone is gone, whoever did it");
    assert!(unnamed(archive, &shop()).await.is_empty());
    assert_eq!(
        data_files(&*test.store).await.len(),
        third.events.len() + third.superseded.len()
    );
    archive.verify(&shop(), &third).await.unwrap();
    assert_eq!(
        archive.day(&shop(), Kind::Position, day(DAY)).await.unwrap(),
        third
    );
}

/// Removes a staged day's file when the archive has asked so often whether it may be committed: once per dataset, after
/// looking at the new files.
struct Vacuuming<'a> {
    archive: &'a dyn Archive,
    asked_before: AtomicUsize,
}

#[async_trait]
impl StillHeld for Vacuuming<'_> {
    async fn still_held(&self, day: &StagedDay) -> Result<bool> {
        if self.asked_before.fetch_sub(1, Ordering::SeqCst) != 0 {
            return Ok(true);
        }
        let tenant = &day.venue.tenant;
        let unnamed = self.archive.unnamed_files(tenant, i64::MAX).await?;
        let of_day: Vec<_> = unnamed
            .into_iter()
            .filter(|file| day.holds.events.iter().any(|held| held.path == file.path))
            .collect();
        self.archive.remove_unnamed(tenant, &of_day).await?;
        Ok(true)
    }
}

pub(super) async fn a_day_whose_staged_file_was_removed_is_left_out(test: ArchiveUnderTest) {
    let archive = &*test.archive;
    let held = put(archive, row("t", 1, 1.0, 10)).await;
    let by = [(archive, 0), (archive, 1), (&*test.other, 0), (&*test.other, 1)];
    for (fence, (vacuuming, asked_before)) in (2..).zip(by) {
        let late = staged(rewrite(archive, row("u", 2, 1.0, 20), fence).await);
        let vacuuming = Vacuuming {
            archive: vacuuming,
            asked_before: asked_before.into(),
        };
        let committed = archive.commit(vec![late], &vacuuming).await.unwrap();
        assert_eq!(committed, [Committed::Stale], "{asked_before}");
        for archive in [archive, &*test.other] {
            let now = archive.day(&shop(), Kind::Position, day(DAY)).await.unwrap();
            assert_eq!(now, held);
            archive.verify(&shop(), &now).await.unwrap();
        }
    }
    // Done again, it goes in.
    put(archive, row("u", 2, 1.0, 20)).await;
}

pub(super) async fn versions_rise_with_commits(test: ArchiveUnderTest) {
    let archive = &*test.archive;
    let tenant = shop().tenant;
    assert_eq!(archive.versions(&tenant).await.unwrap(), []);
    put(archive, row("t", 1, 1.0, 10)).await;
    let first = test.other.versions(&tenant).await.unwrap();
    let held = put(archive, row("t", 1, 2.0, 20)).await;
    let second = test.other.versions(&tenant).await.unwrap();
    let of = |versions: &[TableVersion], dataset| {
        let found = versions.iter().find(|table| table.dataset == dataset);
        found.map_or(0, |table| table.version)
    };
    assert!(of(&second, Dataset::Events) > of(&first, Dataset::Events));
    assert!(of(&second, Dataset::Superseded) > of(&first, Dataset::Superseded));
    let order: Vec<Dataset> = second.iter().map(|table| table.dataset).collect();
    assert_eq!(
        order,
        [Dataset::Superseded, Dataset::Events],
        "as they are committed"
    );
    assert_eq!((second[1].files, second[1].bytes), (1, held.events[0].bytes));
}

pub(super) async fn a_broken_file_is_written_anew_only_as_it_was(test: ArchiveUnderTest) {
    let archive = &*test.archive;
    let rows = join(&[
        row("t", 1, 1.0, 10),
        row("t", 1, 2.0, 20),
        row("u", 5, 3.0, 10),
        row("u", 5, 3.0, 30),
    ]);
    let held = put(archive, rows.clone()).await;
    assert!(!held.superseded.is_empty());
    let before = content(archive, Kind::Position).await;
    assert!(archive.broken_files(&shop(), &held).await.unwrap().is_empty());
    let folder = |dataset| match dataset {
        Dataset::Events => "acme/position",
        Dataset::Superseded => "acme/position_superseded",
    };
    for (fence, dataset) in [(2, Dataset::Events), (3, Dataset::Superseded)] {
        let now = archive.day(&shop(), Kind::Position, day(DAY)).await.unwrap();
        let file = match dataset {
            Dataset::Events => &now.events[0],
            Dataset::Superseded => &now.superseded[0],
        };
        let place = Path::from(format!("{}/{}", folder(dataset), file.path));
        match dataset {
            Dataset::Events => test.store.delete(&place).await.unwrap(),
            Dataset::Superseded => drop(test.store.put(&place, "rubbish".into()).await.unwrap()),
        }
        let broken = archive.broken_files(&shop(), &now).await.unwrap();
        assert_eq!(broken.len(), 1);
        assert_eq!(&broken[0].file, file);
        assert!(broken[0].problem.contains(&file.path), "{}", broken[0].problem);
        // A row too few, a row too many, another one: not what was recorded.
        let few = row("t", 1, 2.0, 20);
        let many = join(&[rows.clone(), row("v", 9, 1.0, 10)]);
        let none = DeliveredRows::new(Kind::Position);
        for other in [few, many, none] {
            let rebuilt = archive
                .rebuild_day(&shop(), Kind::Position, day(DAY), fence, Box::new(other), &broken)
                .await
                .unwrap();
            let Rebuilt::NotAsRecorded { recorded, .. } = rebuilt else {
                panic!("staged: {rebuilt:?}")
            };
            assert_eq!(recorded, now.events_checksum());
        }
        let rebuilt = archive
            .rebuild_day(
                &shop(),
                Kind::Position,
                day(DAY),
                fence,
                Box::new(rows.clone()),
                &broken,
            )
            .await
            .unwrap();
        let Rebuilt::Staged(staged) = rebuilt else {
            panic!("{rebuilt:?}")
        };
        assert_eq!(commit(archive, staged).await, Committed::Yes);
        assert_eq!(content(&*test.other, Kind::Position).await, before);
        let now = archive.day(&shop(), Kind::Position, day(DAY)).await.unwrap();
        assert_eq!(now.deliveries, held.deliveries);
        assert!(archive.broken_files(&shop(), &now).await.unwrap().is_empty());
    }
}
