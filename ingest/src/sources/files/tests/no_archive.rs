//! A store that must not be touched.

use std::sync::Arc;

use async_trait::async_trait;
use dwell_model::event::{Kind, RawRows};
use dwell_model::ids::{TenantId, VenueKey};
use dwell_model::time::{LocalDay, TsMs};
use dwell_storage::api::{
    ArchiveKeeper, ArchiveReader, ArchiveRepair, ArchiveWriter, ArchivedDay, BrokenFile, Committed,
    DayReader, Erasure, Erasures, IncomingDay, LedgerKey, NewErasure, Projection, PurgedFiles, Rebuilt,
    Rewrite, StagedDay, StillHeld, TableVersion, UnnamedFile,
};
use dwell_storage::error::{ErrorKind, Result, StorageError};

/// For tests that must not touch an archive.
pub(super) struct NoArchive;

fn none<T>() -> Result<T> {
    Err(StorageError::new(ErrorKind::Unavailable, "there is no archive"))
}

#[async_trait]
impl ArchiveWriter for NoArchive {
    async fn rewrite_day(
        &self,
        _: &VenueKey,
        _: Kind,
        _: LocalDay,
        _: u64,
        _: Box<dyn IncomingDay>,
    ) -> Result<Rewrite> {
        none()
    }

    async fn replace_day(
        &self,
        _: &VenueKey,
        _: Kind,
        _: LocalDay,
        _: u64,
        _: Box<dyn IncomingDay>,
    ) -> Result<StagedDay> {
        none()
    }

    async fn commit(&self, _: Vec<StagedDay>, _: &(dyn StillHeld + '_)) -> Result<Vec<Committed>> {
        none()
    }

    async fn discard(&self, _: Vec<StagedDay>) -> Result<()> {
        none()
    }

    async fn purge_day(&self, _: &VenueKey, _: Kind, _: LocalDay) -> Result<PurgedFiles> {
        none()
    }
}

#[async_trait]
impl ArchiveReader for NoArchive {
    async fn day(&self, _: &VenueKey, _: Kind, _: LocalDay) -> Result<ArchivedDay> {
        none()
    }

    async fn days(&self, _: &VenueKey) -> Result<Vec<(LocalDay, Kind)>> {
        none()
    }

    async fn open(&self, _: &VenueKey, _: &ArchivedDay, _: Projection) -> Result<Box<dyn DayReader>> {
        none()
    }

    async fn superseded(&self, _: &VenueKey, _: Kind, _: &ArchivedDay) -> Result<RawRows> {
        none()
    }

    async fn verify(&self, _: &VenueKey, _: &ArchivedDay) -> Result<()> {
        none()
    }

    fn erasures(&self) -> Arc<dyn Erasures> {
        Arc::new(NoArchive)
    }

    async fn tables(&self) -> Result<Vec<(TenantId, Kind)>> {
        none()
    }
}

#[async_trait]
impl Erasures for NoArchive {
    async fn key(&self) -> Result<LedgerKey> {
        none()
    }

    async fn append(&self, _: NewErasure) -> Result<Erasure> {
        none()
    }

    async fn read(&self, _: u64) -> Result<Vec<Erasure>> {
        none()
    }
}

#[async_trait]
impl ArchiveKeeper for NoArchive {
    async fn unnamed_files(&self, _: &TenantId, _: TsMs) -> Result<Vec<UnnamedFile>> {
        none()
    }

    async fn remove_unnamed(&self, _: &TenantId, _: &[UnnamedFile]) -> Result<Vec<UnnamedFile>> {
        none()
    }

    async fn versions(&self, _: &TenantId) -> Result<Vec<TableVersion>> {
        none()
    }
}

#[async_trait]
impl ArchiveRepair for NoArchive {
    async fn broken_files(&self, _: &VenueKey, _: &ArchivedDay) -> Result<Vec<BrokenFile>> {
        none()
    }

    async fn rebuild_day(
        &self,
        _: &VenueKey,
        _: Kind,
        _: LocalDay,
        _: u64,
        _: Box<dyn IncomingDay>,
        _: &[BrokenFile],
    ) -> Result<Rebuilt> {
        none()
    }
}
