//! An archive that is only read: for a drill, which must not touch what it proves.

use std::sync::Arc;

use async_trait::async_trait;
use dwell_model::event::{Kind, RawRows};
use dwell_model::ids::{TenantId, VenueKey};
use dwell_model::time::{LocalDay, TsMs};

use crate::api::{
    Archive, ArchiveKeeper, ArchiveReader, ArchiveRepair, ArchiveWriter, ArchivedDay, BrokenFile, Committed,
    DayReader, Erasures, Generation, IncomingDay, Projection, PurgedFiles, Rebuilt, Rewrite, StagedDay,
    StillHeld, TableVersion, UnnamedFile,
};
use crate::error::{ErrorKind, Result, StorageError};

/// Reads like the archive given, and refuses to write.
pub struct ReadOnlyArchive(pub Arc<dyn Archive>);

impl std::fmt::Debug for ReadOnlyArchive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadOnlyArchive").finish_non_exhaustive()
    }
}

fn refused<T>(what: &str) -> Result<T> {
    let why = format!("{what}: this archive is only read");
    Err(StorageError::new(ErrorKind::Invalid, why))
}

#[async_trait]
impl ArchiveReader for ReadOnlyArchive {
    async fn day(&self, venue: &VenueKey, kind: Kind, day: LocalDay) -> Result<ArchivedDay> {
        self.0.day(venue, kind, day).await
    }

    async fn days(&self, venue: &VenueKey) -> Result<Vec<(LocalDay, Kind)>> {
        self.0.days(venue).await
    }

    async fn open(
        &self,
        venue: &VenueKey,
        day: &ArchivedDay,
        projection: Projection,
    ) -> Result<Box<dyn DayReader>> {
        self.0.open(venue, day, projection).await
    }

    async fn superseded(&self, venue: &VenueKey, kind: Kind, day: &ArchivedDay) -> Result<RawRows> {
        self.0.superseded(venue, kind, day).await
    }

    async fn verify(&self, venue: &VenueKey, day: &ArchivedDay) -> Result<()> {
        self.0.verify(venue, day).await
    }

    fn erasures(&self) -> Arc<dyn Erasures> {
        self.0.erasures()
    }

    async fn tables(&self) -> Result<Vec<(TenantId, Kind)>> {
        self.0.tables().await
    }
}

#[async_trait]
impl ArchiveWriter for ReadOnlyArchive {
    async fn rewrite_day(
        &self,
        _: &VenueKey,
        _: Kind,
        _: LocalDay,
        _: Generation,
        _: Box<dyn IncomingDay>,
    ) -> Result<Rewrite> {
        refused("rewrite a day")
    }

    async fn replace_day(
        &self,
        _: &VenueKey,
        _: Kind,
        _: LocalDay,
        _: Generation,
        _: Box<dyn IncomingDay>,
    ) -> Result<StagedDay> {
        refused("replace a day")
    }

    async fn commit(&self, _: Vec<StagedDay>, _: &(dyn StillHeld + '_)) -> Result<Vec<Committed>> {
        refused("commit days")
    }

    async fn discard(&self, _: Vec<StagedDay>) -> Result<()> {
        refused("discard days")
    }

    async fn purge_day(&self, _: &VenueKey, _: Kind, _: LocalDay) -> Result<PurgedFiles> {
        refused("purge a day")
    }
}

#[async_trait]
impl ArchiveKeeper for ReadOnlyArchive {
    async fn unnamed_files(&self, tenant: &TenantId, older_than: TsMs) -> Result<Vec<UnnamedFile>> {
        self.0.unnamed_files(tenant, older_than).await
    }

    async fn remove_unnamed(&self, _: &TenantId, _: &[UnnamedFile]) -> Result<Vec<UnnamedFile>> {
        refused("remove files")
    }

    async fn versions(&self, tenant: &TenantId) -> Result<Vec<TableVersion>> {
        self.0.versions(tenant).await
    }
}

#[async_trait]
impl ArchiveRepair for ReadOnlyArchive {
    async fn broken_files(&self, venue: &VenueKey, day: &ArchivedDay) -> Result<Vec<BrokenFile>> {
        self.0.broken_files(venue, day).await
    }

    async fn rebuild_day(
        &self,
        _: &VenueKey,
        _: Kind,
        _: LocalDay,
        _: Generation,
        _: Box<dyn IncomingDay>,
        _: &[BrokenFile],
    ) -> Result<Rebuilt> {
        refused("rebuild a day")
    }
}
