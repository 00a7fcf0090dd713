//! What stands at a place: the backups before, which of them are kept, and what only others named.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result};
use dwell_model::ids::{TenantId, VenueKey};
use dwell_model::time::{DAY_MS, LocalDay, TsMs};
use dwell_storage::api::Generation;
use dwell_storage::archive::CopiedFile;
use dwell_storage::backup::manifest::{BackedUpDay, BackedUpGeneration, DaysPart};
use dwell_storage::backup::parts::{self, DestroyedKeyPart};
use dwell_storage::backup::place::{Named, SWEEP_AGE_MS, Swept};
use dwell_storage::backup::{BackupManifest, BackupPlace, ObjectRef};
use serde::Serialize;

use super::several;

/// Months of venues that are held at once while all are read.
const MONTHS_AT_ONCE: usize = 32;

/// The last backup at a place, for the next one to rest on.
#[derive(Debug, Default)]
pub(crate) struct Previous {
    manifest: Option<BackupManifest>,
    objects: HashSet<ObjectRef>,
}

impl Previous {
    /// Reads what the newest readable backup names. One that is damaged helps nobody, and is passed by.
    pub(crate) async fn load(place: &BackupPlace, ids: &[String]) -> Result<Self> {
        for id in ids.iter().rev() {
            let found = async {
                let manifest = place.backup(id).await?;
                let mut objects = HashSet::new();
                for_each_object(place, &manifest, &mut |object| {
                    objects.insert(object.clone());
                })
                .await?;
                Ok::<_, anyhow::Error>(Self {
                    manifest: Some(manifest),
                    objects,
                })
            };
            match found.await {
                Ok(found) => return Ok(found),
                Err(error) => {
                    tracing::warn!(
                        backup = id,
                        error = format!("{error:#}"),
                        "an earlier backup cannot be read"
                    );
                }
            }
        }
        Ok(Self::default())
    }

    /// All objects that it names.
    pub(crate) fn objects(&self) -> &HashSet<ObjectRef> {
        &self.objects
    }

    /// Its generations of a venue's month.
    pub(crate) async fn month(
        &self,
        place: &BackupPlace,
        venue: &VenueKey,
        month: &str,
    ) -> Result<HashMap<(LocalDay, Generation), BackedUpGeneration>> {
        let tenants = self.manifest.iter().flat_map(|manifest| &manifest.tenants);
        let part = tenants
            .filter(|of_tenant| of_tenant.tenant == venue.tenant)
            .flat_map(|of_tenant| &of_tenant.days)
            .find(|part| part.venue == venue.venue && part.month == month);
        let Some(part) = part else {
            return Ok(HashMap::new());
        };
        let days: Vec<BackedUpDay> = parts::from_json(&place.object(&part.object).await?)?;
        let generations = days.into_iter().flat_map(|day| {
            let date = day.day;
            day.generations
                .into_iter()
                .map(move |generation| ((date, generation.info.generation), generation))
        });
        Ok(generations.collect())
    }

    /// Keys that it knows to be destroyed.
    pub(crate) async fn destroyed_keys(
        &self,
        place: &BackupPlace,
        tenant: &TenantId,
    ) -> Result<Vec<DestroyedKeyPart>> {
        let tenants = self.manifest.iter().flat_map(|manifest| &manifest.tenants);
        let mut destroyed = Vec::new();
        for object in tenants
            .filter(|of_tenant| of_tenant.tenant == *tenant)
            .flat_map(|of_tenant| &of_tenant.destroyed_keys)
        {
            let part: Vec<DestroyedKeyPart> = parts::from_json(&place.object(object).await?)?;
            destroyed.extend(part);
        }
        Ok(destroyed)
    }
}

/// Names every object of a backup, those that objects name included.
pub(crate) async fn for_each_object(
    place: &BackupPlace,
    manifest: &BackupManifest,
    name: &mut (dyn FnMut(&ObjectRef) + Send),
) -> Result<()> {
    for tenant in &manifest.tenants {
        name(&tenant.registry);
        let lists = [&tenant.imports, &tenant.quarantine, &tenant.destroyed_keys];
        lists.into_iter().flatten().for_each(&mut *name);
        tenant
            .documents
            .iter()
            .flat_map(|part| &part.objects)
            .for_each(&mut *name);
        tenant.files.iter().flatten().for_each(&mut *name);
        for months in tenant.days.chunks(MONTHS_AT_ONCE) {
            let read = |part: &DaysPart| {
                let object = part.object.clone();
                async move { Ok((place.object(&object).await?, object)) }
            };
            for (content, object) in several(months.iter().map(read)).await? {
                name(&object);
                let days: Vec<BackedUpDay> = parts::from_json(&content)?;
                for generation in days.iter().flat_map(|day| &day.generations) {
                    name(&generation.rows);
                    generation.sessions.iter().for_each(&mut *name);
                }
            }
        }
    }
    Ok(())
}

/// Files of the archive that lie beside a backup.
pub(crate) async fn kept_files(
    place: &BackupPlace,
    manifest: &BackupManifest,
) -> Result<Vec<(TenantId, Vec<CopiedFile>)>> {
    let mut all = Vec::new();
    for tenant in &manifest.tenants {
        let mut files: Vec<CopiedFile> = Vec::new();
        for object in tenant.files.iter().flatten() {
            let part: Vec<CopiedFile> = parts::from_json(&place.object(object).await?)?;
            files.extend(part);
        }
        if tenant.files.is_some() {
            all.push((tenant.tenant.clone(), files));
        }
    }
    Ok(all)
}

/// Destroys keys of pseudonyms in all backups of a place whose time is over; how many objects of them.
pub(crate) async fn destroy_expired_keys(place: &BackupPlace, now: TsMs) -> Result<u64> {
    let mut destroyed = 0;
    for id in place.backups().await? {
        let manifest = match place.backup(&id).await {
            Ok(manifest) => manifest,
            Err(error) => {
                tracing::warn!(backup = id, %error, "the keys in a backup cannot be looked for");
                continue;
            }
        };
        for keys in manifest.keys.iter().filter(|keys| keys.destroy_at <= now) {
            destroyed += u64::from(place.destroy_keys(keys).await?);
        }
    }
    Ok(destroyed)
}

/// Which backups are kept: the newest always.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Keep {
    /// At least so many of the newest.
    pub(crate) count: Option<usize>,
    /// And those that are younger than so many days.
    pub(crate) days: Option<u64>,
}

/// What pruning did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Pruned {
    /// Backups that are no more.
    pub(crate) backups: Vec<String>,
    /// What only they named, as far as it is older than a day.
    pub(crate) swept: Swept,
}

/// The backups that are not kept. Pure.
pub(crate) fn not_kept(manifests: &[BackupManifest], keep: Keep, now: TsMs) -> Vec<String> {
    if keep == Keep::default() {
        return Vec::new();
    }
    let newest = keep.count.unwrap_or(0).max(1);
    let since = keep
        .days
        .map(|days| now.saturating_sub(i64::try_from(days).unwrap_or(i64::MAX).saturating_mul(DAY_MS)));
    let mut by_age: Vec<&BackupManifest> = manifests.iter().collect();
    by_age.sort_by_key(|manifest| std::cmp::Reverse((manifest.taken_at, manifest.id.clone())));
    let old = by_age.into_iter().skip(newest);
    let mut gone: Vec<String> = old
        .filter(|manifest| since.is_none_or(|since| manifest.taken_at < since))
        .map(|manifest| manifest.id.clone())
        .collect();
    gone.sort();
    gone
}

/// Removes backups that are not kept, and what only they named. The caller has the place to itself. A backup that cannot
/// be read keeps everything: nobody knows what it names.
pub(crate) async fn prune(place: &BackupPlace, keep: Keep, now: TsMs) -> Result<Pruned> {
    let mut manifests = Vec::new();
    for id in place.backups().await? {
        let read = place.backup(&id).await;
        manifests.push(read.with_context(|| format!("the backup {id} cannot be read: nothing is removed"))?);
    }
    let gone = not_kept(&manifests, keep, now);
    let mut named: Named = place.named();
    for manifest in manifests.iter().filter(|manifest| !gone.contains(&manifest.id)) {
        manifest.keys.iter().for_each(|keys| named.keys(keys));
        for_each_object(place, manifest, &mut |object| named.object(object)).await?;
        for (tenant, files) in kept_files(place, manifest).await? {
            files.iter().for_each(|file| named.file(&tenant, file));
        }
    }
    for id in &gone {
        place.remove_backup(id).await?;
    }
    let swept = place.sweep(&named, now - SWEEP_AGE_MS).await?;
    Ok(Pruned { backups: gone, swept })
}
