//! Taking a backup.
//!
//! ```text
//! pins ─▶ the moment ─▶ archive versions ─▶ registry, documents, claims, quarantine ─▶ days, venue by venue ─▶ keys
//!      ─▶ (files of the archive) ─▶ manifest ─▶ pins released, keys destroyed whose time is over
//! ```
//!
//! A backup shows one moment, at which its pins were set: generations published later are left out, and none that was
//! published then can be collected before it is copied. An object that the last backup names is not written again, and a
//! generation, which never changes, not even read. A backup that breaks off leaves objects that nothing names; begun
//! again it finds them.

mod days;
pub(super) mod moment;

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;

use anyhow::{Context, Result};
use dwell_model::ids::{TenantId, VenueKey};
use dwell_model::time::{DAY_MS, LocalDay, TsMs};
use dwell_runtime::clock::Stopwatch;
use dwell_runtime::failpoint;
use dwell_storage::api::{ListFrom, Pin, Pinned, PseudonymKey, QuarantineEntry, QuarantineFilter, pins};
use dwell_storage::backup::manifest::{BACKUP_FORMAT, CollectionPart};
use dwell_storage::backup::parts::{self, DestroyedKeyPart, DocumentPart, LiveKeyPart, RegistryPart};
use dwell_storage::backup::{BackupManifest, ObjectRef, TenantBackup};
use serde::Serialize;

use self::moment::Cuts;
use super::forgetting::Forgotten;
use super::pruning::{Previous, destroy_expired_keys};
use super::{Side, quarantine_keys, several, state, utc_day, whole_calendar};

/// Entries of a list that go into one object.
const CHUNK: usize = 500;
/// How long a pin holds without being renewed, milliseconds.
const PIN_MS: i64 = 3_600_000;
/// Days around today whose pseudonym keys may live.
const KEY_DAYS: std::ops::RangeInclusive<i32> = -40..=1;

/// What taking a backup gave.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Taken {
    pub(crate) backup: String,
    pub(crate) place: String,
    pub(crate) taken_at: TsMs,
    pub(crate) duration_ms: i64,
    pub(crate) days: u64,
    pub(crate) generations: u64,
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
    /// Objects that were not there, and bytes written for them.
    pub(crate) new_objects: u64,
    pub(crate) written_bytes: u64,
    /// Files of the archive beside it, and how many of them were not there; 0 where it goes without them.
    pub(crate) archive_files: u64,
    pub(crate) new_archive_files: u64,
    /// Objects with keys of pseudonyms that older backups lost because the keys' time was over.
    pub(crate) destroyed_keys: u64,
    pub(crate) problems: Vec<String>,
}

/// Takes a backup with an id; does nothing when there is one of that id.
pub(crate) async fn take(side: &Side<'_>, id: &str, with_archive: bool) -> Result<Taken> {
    let stopwatch = Stopwatch::start();
    let documents = side.stores.documents.as_ref();
    let installation = state::installation(documents, side.clock.now_ms()).await?;
    side.place.claim(&installation.id).await?;
    let place = side.place.name();
    state::hold_place(documents, place, side.job, side.clock.now_ms()).await?;
    let tenants = side.stores.registry.tenants().await?;
    for tenant in &tenants {
        pin(side, tenant).await?;
    }
    failpoint!("backup.after_pin");
    let ids = side.place.backups().await?;
    let taken = match ids.iter().any(|known| known == id) {
        true => {
            // A worker died between writing the manifest and saying so.
            let manifest = side.place.backup(id).await?;
            Taken::of(&manifest, place)
        }
        false => {
            let previous = Previous::load(side.place, &ids).await?;
            let mut tenants_and_cuts = Vec::new();
            for tenant in &tenants {
                tenants_and_cuts.push((tenant, moment::settled(side, tenant).await?));
            }
            let forgotten = Forgotten::read(side.stores.erasures.as_ref()).await?;
            let taking = Taking::new(side, previous, forgotten);
            taking
                .run(id, &installation.id, &tenants_and_cuts, with_archive)
                .await?
        }
    };
    failpoint!("backup.after_manifest");
    let now = side.clock.now_ms();
    let taken = Taken {
        duration_ms: i64::try_from(stopwatch.elapsed().as_millis()).unwrap_or(i64::MAX),
        destroyed_keys: destroy_expired_keys(side.place, now).await?,
        ..taken
    };
    for tenant in &tenants {
        pins::release(documents, tenant, &pin_id(side), side.job, now).await?;
    }
    state::release_place(documents, place, side.job, now).await?;
    let last = state::LastBackup {
        id: taken.backup.clone(),
        taken_at: taken.taken_at,
        duration_ms: taken.duration_ms,
        objects: taken.objects,
        new_objects: taken.new_objects,
        bytes: taken.bytes,
    };
    if taken.problems.is_empty() {
        state::change(documents, |state| {
            state.place = place.to_owned();
            state.backup = Some(last.clone());
        })
        .await?;
    }
    Ok(taken)
}

impl Taken {
    fn of(manifest: &BackupManifest, place: &str) -> Self {
        Self {
            backup: manifest.id.clone(),
            place: place.to_owned(),
            taken_at: manifest.taken_at,
            duration_ms: manifest.finished_at - manifest.taken_at,
            days: manifest.days,
            generations: manifest.generations,
            objects: manifest.objects,
            bytes: manifest.bytes,
            new_objects: manifest.new_objects,
            written_bytes: 0,
            archive_files: 0,
            new_archive_files: 0,
            destroyed_keys: 0,
            problems: manifest.problems.clone(),
        }
    }
}

/// Sets or renews the pin of a tenant.
async fn pin(side: &Side<'_>, tenant: &TenantId) -> Result<()> {
    let now = side.clock.now_ms();
    let pin = Pin {
        holder: side.job.to_owned(),
        reason: format!("backup to {}", side.place.name()),
        set_at: now,
        expires_at: now + PIN_MS,
        files: Pinned::All,
        generations: Pinned::All,
    };
    Ok(pins::hold(side.stores.documents.as_ref(), tenant, &pin_id(side), &pin).await?)
}

/// One pin per kind of holder: a repeated backup renews that of the one that died.
fn pin_id(side: &Side<'_>) -> String {
    format!("backup-{}", side.job)
}

/// A backup being taken.
struct Taking<'a> {
    side: &'a Side<'a>,
    previous: Previous,
    /// Whose sessions are left out, though they may not be gone yet.
    forgotten: Forgotten,
    /// The moment that it shows.
    at: TsMs,
    sum: Mutex<Sum>,
}

#[derive(Default)]
struct Sum {
    seen: HashSet<ObjectRef>,
    new_objects: u64,
    bytes: u64,
    written_bytes: u64,
    days: u64,
    generations: u64,
    archive_files: u64,
    new_archive_files: u64,
    problems: Vec<String>,
}

impl<'a> Taking<'a> {
    fn new(side: &'a Side<'a>, previous: Previous, forgotten: Forgotten) -> Self {
        Self {
            side,
            previous,
            forgotten,
            at: side.clock.now_ms(),
            sum: Mutex::default(),
        }
    }

    async fn run(
        &self,
        id: &str,
        installation: &str,
        tenants: &[(&TenantId, Cuts)],
        with_archive: bool,
    ) -> Result<Taken> {
        let side = self.side;
        let mut backed_up = Vec::new();
        let mut live_keys = Vec::new();
        for (tenant, cuts) in tenants {
            let of_tenant = self.tenant(tenant, with_archive, &mut live_keys).await;
            moment::check_unchanged(side, tenant, cuts).await?;
            backed_up.push(of_tenant.with_context(|| format!("tenant {tenant}"))?);
        }
        let mut keys = Vec::new();
        for (number, (destroy_at, of_day)) in by_end(live_keys).into_iter().enumerate() {
            let (content, count) = (parts::to_json(&of_day)?, of_day.len() as u64);
            keys.push(
                side.place
                    .put_keys(id, number, content, count, destroy_at)
                    .await?,
            );
        }
        let sum = std::mem::take(&mut *self.lock());
        let manifest = BackupManifest {
            format: BACKUP_FORMAT,
            id: id.to_owned(),
            installation: installation.to_owned(),
            taken_at: self.at,
            finished_at: side.clock.now_ms(),
            dwell: env!("CARGO_PKG_VERSION").to_owned(),
            log_epoch: side.stores.log.epoch(),
            archive: side.archive_name.to_owned(),
            tenants: backed_up,
            keys,
            days: sum.days,
            generations: sum.generations,
            objects: sum.seen.len() as u64,
            bytes: sum.bytes,
            new_objects: sum.new_objects,
            problems: sum.problems,
        };
        side.check_cancel()?;
        failpoint!("backup.before_manifest");
        // Whoever lost the place to another job must not rest on objects that one may have swept.
        let documents = side.stores.documents.as_ref();
        state::hold_place(documents, side.place.name(), side.job, side.clock.now_ms()).await?;
        side.place.put_manifest(&manifest).await?;
        Ok(Taken {
            written_bytes: sum.written_bytes,
            archive_files: sum.archive_files,
            new_archive_files: sum.new_archive_files,
            ..Taken::of(&manifest, side.place.name())
        })
    }

    async fn tenant(
        &self,
        tenant: &TenantId,
        with_archive: bool,
        live_keys: &mut Vec<LiveKeyPart>,
    ) -> Result<TenantBackup> {
        let stores = self.side.stores;
        let archive = stores.archive.versions(tenant).await?;
        let venues = stores.registry.venues(tenant).await?;
        let registry = RegistryPart {
            keys: stores.registry.keys(tenant).await?,
            venues: venues.into_iter().map(|stored| stored.venue).collect(),
        };
        let registry_object = self.put(parts::to_json(&registry)?).await?;
        let documents = self.documents(tenant).await?;
        let imports = self.imports(tenant).await?;
        let quarantine = self.quarantine(tenant).await?;
        let mut days = Vec::new();
        let mut destroyed = self.previous.destroyed_keys(self.side.place, tenant).await?;
        for venue in &registry.venues {
            let key = VenueKey::new(tenant.clone(), venue.id.clone());
            let today = venue.calendar.day_of(self.at);
            let rows = stores
                .venue_days
                .list(&key, *whole_calendar().start(), *whole_calendar().end())
                .await?;
            let mut heard = HashSet::new();
            let of_venue = self.venue(&key, rows, &mut heard).await;
            days.extend(of_venue.with_context(|| format!("venue {key}"))?);
            heard.extend(around(today));
            self.keys(&key, heard, live_keys, &mut destroyed).await?;
        }
        let mut of_quarantine = HashSet::new();
        of_quarantine.extend(around(utc_day(self.at)));
        let key = quarantine_keys(tenant)?;
        self.keys(&key, of_quarantine, live_keys, &mut destroyed).await?;
        destroyed.sort();
        destroyed.dedup();
        let files = match with_archive {
            true => Some(self.files(tenant).await?),
            false => None,
        };
        Ok(TenantBackup {
            tenant: tenant.clone(),
            archive,
            registry: registry_object,
            documents,
            imports,
            quarantine,
            destroyed_keys: self.put_chunks(&destroyed).await?,
            days,
            files,
        })
    }

    async fn documents(&self, tenant: &TenantId) -> Result<Vec<CollectionPart>> {
        let documents = self.side.stores.documents.as_ref();
        let mut collections = Vec::new();
        for collection in documents.collections(tenant).await? {
            if state::OF_THIS_LIFE.contains(&collection.as_str()) {
                continue;
            }
            let (mut objects, mut after): (Vec<ObjectRef>, Option<String>) = (Vec::new(), None);
            loop {
                let page = documents
                    .list(tenant, &collection, ListFrom::After(after.as_deref()), CHUNK)
                    .await?;
                let Some(last) = page.last() else { break };
                after = Some(last.id.clone());
                let page: Vec<DocumentPart> = page
                    .into_iter()
                    .map(|document| DocumentPart {
                        id: document.id,
                        body: document.body,
                    })
                    .collect();
                objects.push(self.put(parts::to_json(&page)?).await?);
            }
            collections.push(CollectionPart { collection, objects });
        }
        Ok(collections)
    }

    async fn imports(&self, tenant: &TenantId) -> Result<Vec<ObjectRef>> {
        // Oldest first, so that what is old stands in the same objects every time.
        let mut claims = self.side.stores.imports.list(tenant, usize::MAX).await?;
        claims.reverse();
        self.put_chunks(&claims).await
    }

    async fn quarantine(&self, tenant: &TenantId) -> Result<Vec<ObjectRef>> {
        let (mut objects, mut before): (Vec<ObjectRef>, Option<String>) = (Vec::new(), None);
        let filter = QuarantineFilter::default();
        // An object ends where a day ends, so that those of days gone by stay as they are.
        let mut held: Vec<QuarantineEntry> = Vec::new();
        loop {
            let page = self
                .side
                .stores
                .quarantine
                .list(tenant, &filter, before.as_deref(), CHUNK)
                .await?;
            before = page.last().map(|last| last.id.clone());
            for entry in page {
                let is_full = held.first().is_some_and(|first| {
                    held.len() == CHUNK || utc_day(first.received_at) != utc_day(entry.received_at)
                });
                if is_full {
                    objects.push(self.put(parts::to_json(&std::mem::take(&mut held))?).await?);
                }
                held.push(entry);
            }
            if before.is_none() {
                break;
            }
            self.renew(tenant).await?;
        }
        if !held.is_empty() {
            objects.push(self.put(parts::to_json(&held)?).await?);
        }
        Ok(objects)
    }

    /// Keys of pseudonyms of some days: those that live, and which were destroyed.
    async fn keys(
        &self,
        venue: &VenueKey,
        days: HashSet<LocalDay>,
        live: &mut Vec<LiveKeyPart>,
        destroyed: &mut Vec<DestroyedKeyPart>,
    ) -> Result<()> {
        let gone: HashSet<LocalDay> = destroyed
            .iter()
            .filter(|key| key.venue == venue.venue)
            .map(|key| key.day)
            .collect();
        let keys = &self.side.stores.pseudonym_keys;
        let mut days: Vec<LocalDay> = days.into_iter().filter(|day| !gone.contains(day)).collect();
        days.sort();
        let look_ups = days
            .into_iter()
            .map(|day| async move { Ok((day, keys.look_up(venue, day).await?)) });
        for (day, stored) in several(look_ups).await? {
            let Some(stored) = stored else { continue };
            match stored.key {
                PseudonymKey::Live(key) if stored.keep_until > self.at => {
                    live.push(LiveKeyPart::new(venue.clone(), day, &key, stored.keep_until));
                }
                _ => destroyed.push(DestroyedKeyPart {
                    venue: venue.venue.clone(),
                    day,
                }),
            }
        }
        Ok(())
    }

    /// Copies the archive's files, and lists them.
    async fn files(&self, tenant: &TenantId) -> Result<Vec<ObjectRef>> {
        let archive = self
            .side
            .archive
            .context("the archive's files cannot be reached")?;
        let files = archive.files_now(tenant).await?;
        let total = files.len() as u64;
        for (done, file) in files.iter().enumerate() {
            self.side.check_cancel()?;
            if done % 50 == 0 {
                self.renew(tenant).await?;
                (self.side.tell)(done as u64, total, "copying the archive's files");
            }
            let is_new = self.side.place.keep_file(archive, tenant, file).await?;
            let mut sum = self.lock();
            sum.archive_files += 1;
            sum.new_archive_files += u64::from(is_new);
        }
        self.put_chunks(&files).await
    }

    async fn put_chunks<T: Serialize>(&self, list: &[T]) -> Result<Vec<ObjectRef>> {
        let mut objects = Vec::new();
        for chunk in list.chunks(CHUNK) {
            objects.push(self.put(parts::to_json(&chunk)?).await?);
        }
        Ok(objects)
    }

    async fn put(&self, content: Vec<u8>) -> Result<ObjectRef> {
        let now = self.side.clock.now_ms();
        let put = self
            .side
            .place
            .put_object(content, self.previous.objects(), now)
            .await?;
        let mut sum = self.lock();
        if sum.seen.insert(put.object.clone()) {
            sum.bytes += put.object.bytes;
            sum.new_objects += u64::from(put.is_new);
            sum.written_bytes += put.stored_bytes;
        }
        Ok(put.object)
    }

    /// An object that the last backup has.
    fn known(&self, object: &ObjectRef) -> ObjectRef {
        let mut sum = self.lock();
        if sum.seen.insert(object.clone()) {
            sum.bytes += object.bytes;
        }
        object.clone()
    }

    /// Renews what ends by itself.
    async fn renew(&self, tenant: &TenantId) -> Result<()> {
        pin(self.side, tenant).await?;
        let documents = self.side.stores.documents.as_ref();
        let place = self.side.place.name();
        state::hold_place(documents, place, self.side.job, self.side.clock.now_ms()).await
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Sum> {
        self.sum.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Days around one.
fn around(today: LocalDay) -> impl Iterator<Item = LocalDay> {
    KEY_DAYS.filter_map(move |offset| LocalDay::from_epoch_days(today.to_epoch_days() + offset))
}

/// Keys by the UTC midnight after their time is over, so that those which end together can be destroyed together.
fn by_end(keys: Vec<LiveKeyPart>) -> BTreeMap<TsMs, Vec<LiveKeyPart>> {
    let mut days: BTreeMap<TsMs, Vec<LiveKeyPart>> = BTreeMap::new();
    for key in keys {
        let end = (key.keep_until.div_euclid(DAY_MS) + 1).saturating_mul(DAY_MS);
        days.entry(end).or_default().push(key);
    }
    days
}
