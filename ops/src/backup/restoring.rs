//! Bringing a backup back.
//!
//! ```text
//! every object read and compared ─▶ nothing here that would be lost? ─▶ (files of the archive, taken into its tables)
//!   ─▶ registry, documents, claims, quarantine, keys ─▶ rows, sessions, then the days that name them
//!   ─▶ a new life of the log ─▶ marks on days whose archive is not what was published ─▶ erasures once more
//! ```
//!
//! Nothing is written before all of the backup has been read. Every day gets a fence from the moment of the restore, far
//! above any that was given out before, days included that the backup does not know: so a worker of the former life that
//! wakes up can neither publish nor commit, and no generation's number is used twice. What the archive has that the
//! backup does not know is computed anew by the next run, because its days are marked.

mod days;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context, Result, bail};
use dwell_ingest::sources::files::Road;
use dwell_model::ids::{TenantId, VenueId, VenueKey};
use dwell_model::layout::Venue;
use dwell_model::time::{LocalDay, TsMs};
use dwell_runtime::failpoint;
use dwell_storage::api::{Flip, Generation, ImportClaim, SecretKey, publications};
use dwell_storage::archive::CopiedFile;
use dwell_storage::backup::manifest::{BackedUpDay, CollectionPart};
use dwell_storage::backup::parts::{self, DestroyedKeyPart, DocumentPart, LiveKeyPart, RegistryPart};
use dwell_storage::backup::{BackupManifest, KeyObject, TenantBackup};
use dwell_storage::error::ErrorKind;
use serde::Serialize;

use super::forgetting::Forgotten;
use super::pruning::{for_each_object, kept_files};
use super::{Side, several, state};

/// A second's room for fences: 2²⁰, some eleven days of a lease per second.
const FENCES_OF_A_SECOND: u32 = 20;
/// Objects between two looks whether to stop.
const CHECKED_AT_ONCE: usize = 64;
/// Tries of a conditional write that others overtake.
const TRIES: u32 = 8;

/// What was brought back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Restored {
    pub(crate) backup: String,
    /// The moment that it shows.
    pub(crate) taken_at: TsMs,
    /// Only read and compared.
    pub(crate) dry_run: bool,
    /// Objects read and compared beforehand.
    pub(crate) objects_checked: u64,
    pub(crate) tenants: u64,
    pub(crate) venues: u64,
    pub(crate) access_keys: u64,
    pub(crate) documents: u64,
    pub(crate) import_claims: u64,
    pub(crate) quarantine_entries: u64,
    pub(crate) pseudonym_keys: u64,
    pub(crate) days: u64,
    pub(crate) generations: u64,
    pub(crate) sessions: u64,
    /// Erasures that the backup does not know to be proven, asked for again.
    pub(crate) erasures_repeated: u64,
    /// Files of the archive that were brought back.
    pub(crate) archive_files: u64,
    /// Fence from which this life counts.
    pub(crate) fence: Generation,
    /// Days that are computed anew: their archive is not what was published, or nothing was.
    pub(crate) dirty_days: u64,
    /// Days whose published generation was made of files that the archive has no more, the first few.
    pub(crate) without_archive: Vec<String>,
    /// What the backup could not take.
    pub(crate) problems: Vec<String>,
}

/// How a restore goes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct How {
    /// Into an installation that has venues already: theirs is replaced by the backup's.
    pub(crate) force: bool,
    /// Only read and compare.
    pub(crate) dry_run: bool,
    /// A restore that nobody will work with: no fences, no new life of the log, no marks.
    pub(crate) is_drill: bool,
}

/// Finds a backup: by its id, or the newest.
pub(crate) async fn find(side: &Side<'_>, id: Option<&str>) -> Result<BackupManifest> {
    let ids = side.place.backups().await?;
    let id = match id {
        Some(id) if ids.iter().any(|known| known == id) => id,
        Some(id) => bail!("there is no backup {id} at {}", side.place.name()),
        None => match ids.last() {
            Some(newest) => newest,
            None => bail!("there is no backup at {}", side.place.name()),
        },
    };
    Ok(side.place.backup(id).await?)
}

/// Brings a backup back.
pub(crate) async fn restore(side: &Side<'_>, manifest: &BackupManifest, how: How) -> Result<Restored> {
    let mut restored = Restored {
        backup: manifest.id.clone(),
        taken_at: manifest.taken_at,
        dry_run: how.dry_run,
        problems: manifest.problems.clone(),
        ..Restored::default()
    };
    if !how.is_drill {
        restored.objects_checked = check(side, manifest).await?;
        let begun = state::restore_under_way(side.stores.documents.as_ref()).await?;
        if !how.force && begun.as_deref() != Some(&manifest.id) {
            refuse_where_there_is_something(side).await?;
        }
    }
    if how.dry_run {
        return Ok(restored);
    }
    let now = side.clock.now_ms();
    restored.fence = u64::try_from(now / 1_000).unwrap_or(0) << FENCES_OF_A_SECOND;
    if !how.is_drill {
        state::set_restore_under_way(side.stores.documents.as_ref(), Some(&manifest.id)).await?;
        restored.archive_files = bring_files_back(side, manifest).await?;
    }
    failpoint!("restore_backup.before_tables");
    let forgotten = Forgotten::read(side.stores.erasures.as_ref()).await?;
    let restoring = Restoring {
        side,
        how,
        now,
        forgotten,
    };
    for tenant in &manifest.tenants {
        let of_tenant = restoring.tenant(tenant, &mut restored).await;
        of_tenant.with_context(|| format!("tenant {}", tenant.tenant))?;
    }
    if how.is_drill {
        return Ok(restored);
    }
    restoring.live_keys(&manifest.keys, &mut restored).await?;
    failpoint!("restore_backup.after_tables");
    side.stores.log.begin_new_life().await?;
    for tenant in &manifest.tenants {
        restoring.mark_days(tenant, &mut restored).await?;
    }
    // Whoever followed the feed of publications further than the backup knows must miss nothing from now on, and hear that
    // numbers went back.
    for tenant in &manifest.tenants {
        let venues: BTreeSet<&VenueId> = tenant.days.iter().map(|part| &part.venue).collect();
        for venue in venues {
            let venue = VenueKey::new(tenant.tenant.clone(), venue.clone());
            let (documents, days) = (side.stores.documents.as_ref(), side.stores.venue_days.as_ref());
            publications::skip_ahead(documents, &venue).await?;
            publications::list_anew(documents, days, &venue, now).await?;
        }
    }
    let documents = side.stores.documents.as_ref();
    state::restored(documents, &manifest.id, &manifest.installation, now).await?;
    restored.erasures_repeated = restoring.forgotten.ask_again(side).await?;
    // Last: a restore that broke off before may be done again without force.
    state::set_restore_under_way(documents, None).await?;
    Ok(restored)
}

/// Reads every object of a backup and compares it with its checksum; how many there are. Whatever is missing or damaged
/// is named by the error.
pub(crate) async fn check(side: &Side<'_>, manifest: &BackupManifest) -> Result<u64> {
    let mut objects = BTreeSet::new();
    for_each_object(side.place, manifest, &mut |object| {
        objects.insert(object.clone());
    })
    .await?;
    let total = objects.len() as u64;
    let objects: Vec<_> = objects.into_iter().collect();
    for (chunk, objects) in objects.chunks(CHECKED_AT_ONCE).enumerate() {
        side.check_cancel()?;
        (side.tell)((chunk * CHECKED_AT_ONCE) as u64, total, "reading the backup");
        let read = |object| async move { Ok(side.place.object(object).await.map(drop)?) };
        several(objects.iter().map(read)).await?;
    }
    for keys in &manifest.keys {
        side.place.keys(keys).await?;
    }
    for (tenant, files) in kept_files(side.place, manifest).await? {
        for file in files {
            side.check_cancel()?;
            side.place.check_file(&tenant, &file).await?;
        }
    }
    Ok(total)
}

async fn refuse_where_there_is_something(side: &Side<'_>) -> Result<()> {
    let registry = &side.stores.registry;
    for tenant in registry.tenants().await? {
        if let Some(first) = registry.venues(&tenant).await?.first() {
            bail!(
                "this installation is not empty: it has the venue {}/{}; restore into an empty one, or force it, and what \
                 the backup has takes the place of what is here",
                tenant,
                first.venue.id
            );
        }
    }
    Ok(())
}

/// Brings the archive's files back where the backup has them and the archive does not, and takes them into its tables.
/// An archive that holds anything of a tenant is the newer truth and is left alone.
async fn bring_files_back(side: &Side<'_>, manifest: &BackupManifest) -> Result<u64> {
    let Some(archive) = side.archive else { return Ok(0) };
    let mut brought = 0;
    for (tenant, files) in kept_files(side.place, manifest).await? {
        let there: BTreeSet<String> = archive
            .files_now(&tenant)
            .await?
            .into_iter()
            .map(|file| file.path)
            .collect();
        // Files of this backup may be there because a restore broke off; any other means that the archive lives.
        if there
            .iter()
            .any(|path| files.iter().all(|file| file.path != *path))
        {
            continue;
        }
        let missing: Vec<CopiedFile> = files
            .into_iter()
            .filter(|file| !there.contains(&file.path))
            .collect();
        let total = missing.len() as u64;
        for (done, file) in missing.iter().enumerate() {
            side.check_cancel()?;
            (side.tell)(done as u64, total, "bringing the archive's files back");
            side.place.bring_back(archive, &tenant, file).await?;
        }
        failpoint!("restore_backup.before_adopt");
        brought += archive.adopt(&tenant, &missing).await?;
    }
    Ok(brought)
}

struct Restoring<'a> {
    side: &'a Side<'a>,
    how: How,
    now: TsMs,
    forgotten: Forgotten,
}

impl Restoring<'_> {
    async fn tenant(&self, backup: &TenantBackup, restored: &mut Restored) -> Result<()> {
        let (stores, tenant) = (self.side.stores, &backup.tenant);
        stores.registry.create_tenant(tenant).await?;
        restored.tenants += 1;
        let registry: RegistryPart = self.part(&backup.registry).await?;
        for venue in &registry.venues {
            self.venue(tenant, venue).await?;
            restored.venues += 1;
        }
        for key in &registry.keys {
            match stores.registry.put_key(key).await {
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                put => put?,
            }
            if let Some(revoked_at) = key.revoked_at {
                stores.registry.revoke_key(tenant, &key.id, revoked_at).await?;
            }
            restored.access_keys += 1;
        }
        for part in &backup.documents {
            restored.documents += self.documents(tenant, part).await?;
        }
        for object in &backup.imports {
            let claims: Vec<ImportClaim> = self.part(object).await?;
            for claim in claims {
                // The log and raw are not in backups: what a file had brought into them may be lost, and must be
                // taken when it is sent again. Where it is not, its events carry the same delivery and change nothing.
                let finished_at = claim.finished_at.filter(|_| claim.road != Road::Log.name());
                let claim = ImportClaim {
                    finished_at: None,
                    ..claim
                };
                stores.imports.claim(tenant, &claim).await?;
                if let Some(finished_at) = finished_at {
                    let (accepted, refused) = (claim.accepted, claim.refused);
                    stores
                        .imports
                        .finish(tenant, claim.receipt, finished_at, accepted, refused)
                        .await?;
                }
                restored.import_claims += 1;
            }
        }
        for object in &backup.quarantine {
            let entries = self.forgotten.quarantine(tenant, self.part(object).await?);
            restored.quarantine_entries += entries.len() as u64;
            stores.quarantine.add(entries, u64::MAX).await?;
        }
        for object in backup.destroyed_keys.iter().filter(|_| !self.how.is_drill) {
            let keys: Vec<DestroyedKeyPart> = self.part(object).await?;
            for key in keys {
                let venue = VenueKey::new(tenant.clone(), key.venue);
                self.key(&venue, key.day, random_key()?, 0).await?;
            }
        }
        // Those given a time in the past are destroyed at once, and stand as such.
        stores.pseudonym_keys.destroy_expired(1).await?;
        let calendars: HashMap<&VenueId, &Venue> =
            registry.venues.iter().map(|venue| (&venue.id, venue)).collect();
        let archived = self.archived(backup).await?;
        let mut known: BTreeMap<&VenueId, BTreeSet<LocalDay>> = BTreeMap::new();
        for part in &backup.days {
            self.side.check_cancel()?;
            let venue = VenueKey::new(tenant.clone(), part.venue.clone());
            (self.side.tell)(restored.days, 0, &format!("restoring {venue} {}", part.month));
            let days: Vec<BackedUpDay> = self.part(&part.object).await?;
            known
                .entry(&part.venue)
                .or_default()
                .extend(days.iter().map(|day| day.day));
            let fence = restored.fence;
            let work = days
                .into_iter()
                .map(|day| self.day(&venue, day, fence, &archived));
            for (generations, sessions) in several(work).await? {
                restored.days += 1;
                restored.generations += generations;
                restored.sessions += sessions;
            }
            failpoint!("restore_backup.after_month");
        }
        if self.how.is_drill {
            return Ok(());
        }
        for (id, venue) in calendars {
            let key = VenueKey::new(tenant.clone(), id.clone());
            let of_backup = known.remove(id).unwrap_or_default();
            self.fence_other_days(&key, venue, &of_backup, restored).await?;
        }
        Ok(())
    }

    async fn venue(&self, tenant: &TenantId, venue: &Venue) -> Result<()> {
        let registry = &self.side.stores.registry;
        let key = VenueKey::new(tenant.clone(), venue.id.clone());
        for _ in 0..TRIES {
            let there = registry.venue(&key).await?;
            if there.as_ref().is_some_and(|there| there.venue == *venue) {
                return Ok(());
            }
            let version = there.map(|there| there.version);
            if registry.put_venue(tenant, venue, version).await? == Flip::Done {
                return Ok(());
            }
        }
        bail!("{key} is being changed by somebody else: stop what runs on this installation")
    }

    async fn documents(&self, tenant: &TenantId, part: &CollectionPart) -> Result<u64> {
        let documents = self.side.stores.documents.as_ref();
        let mut count = 0;
        for object in &part.objects {
            let all: Vec<DocumentPart> = self.part(object).await?;
            for DocumentPart { id, body } in all {
                let mut version = None;
                for _ in 0..TRIES {
                    let put = documents.put(tenant, &part.collection, &id, &body, version);
                    if put.await? == Flip::Done {
                        break;
                    }
                    let there = documents.get(tenant, &part.collection, &id).await?;
                    if there.as_ref().is_some_and(|there| there.body == body) {
                        break;
                    }
                    version = there.map(|there| there.version);
                }
                count += 1;
            }
        }
        Ok(count)
    }

    async fn live_keys(&self, keys: &[KeyObject], restored: &mut Restored) -> Result<()> {
        for object in keys {
            let Some(content) = self.side.place.keys(object).await? else {
                continue;
            };
            let keys: Vec<LiveKeyPart> = parts::from_json(&content)?;
            for key in &keys {
                if key.keep_until > self.now {
                    self.key(&key.venue, key.day, key.key()?, key.keep_until).await?;
                    restored.pseudonym_keys += 1;
                } else {
                    // Its time ended since: another in its place would count devices of that day anew.
                    self.key(&key.venue, key.day, random_key()?, 0).await?;
                }
            }
        }
        self.side.stores.pseudonym_keys.destroy_expired(1).await?;
        Ok(())
    }

    async fn key(&self, venue: &VenueKey, day: LocalDay, key: SecretKey, keep_until: TsMs) -> Result<()> {
        let keys = &self.side.stores.pseudonym_keys;
        keys.get_or_create(venue, day, key, keep_until).await?;
        Ok(())
    }

    async fn part<T: serde::de::DeserializeOwned>(
        &self,
        object: &dwell_storage::backup::ObjectRef,
    ) -> Result<T> {
        Ok(parts::from_json(&self.side.place.object(object).await?)?)
    }
}

/// A key for what nobody is to find again, or for a day that has none yet.
pub(crate) fn random_key() -> Result<SecretKey> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("asking for randomness: {error}"))?;
    Ok(SecretKey(bytes))
}
