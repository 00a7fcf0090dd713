//! What an installation remembers of its backups, as documents: its own name, the last backup and drill, and who writes
//! to a place now.

use anyhow::{Result, bail};
use dwell_model::ids::TenantId;
use dwell_model::time::TsMs;
use dwell_storage::api::{DocumentKind, Documents, documents};
use serde::{Deserialize, Serialize};

use super::INSTALLATION_TENANT;

/// The one document of each of these kinds.
const ONLY: &str = "this";
/// How long a writer has a place without renewing that, milliseconds.
const LEASE_MS: i64 = 300_000;

/// Who an installation is. It keeps its name over a restore, so that its backups go on at the same place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Installation {
    pub(crate) id: String,
    pub(crate) named_at: TsMs,
    /// Restores that it went through.
    #[serde(default)]
    pub(crate) lives: Vec<Life>,
}

/// A restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Life {
    pub(crate) restored_at: TsMs,
    pub(crate) backup: String,
}

impl DocumentKind for Installation {
    const COLLECTION: &'static str = "installation";
}

/// What became of backups and drills, for metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BackupState {
    /// Where the last one went.
    pub(crate) place: String,
    pub(crate) backup: Option<LastBackup>,
    pub(crate) drill: Option<LastDrill>,
}

/// The last backup that succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastBackup {
    pub(crate) id: String,
    pub(crate) taken_at: TsMs,
    pub(crate) duration_ms: i64,
    pub(crate) objects: u64,
    pub(crate) new_objects: u64,
    pub(crate) bytes: u64,
}

/// The last drill that succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastDrill {
    pub(crate) backup: String,
    pub(crate) at: TsMs,
    pub(crate) duration_ms: i64,
}

impl DocumentKind for BackupState {
    const COLLECTION: &'static str = "backup-state";
}

/// Who writes to a place: two backups at once would each take the other's new objects for nobody's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct PlaceLease {
    holder: String,
    expires_at: TsMs,
}

impl DocumentKind for PlaceLease {
    const COLLECTION: &'static str = "backup-places";
}

/// A restore that has begun to write, so that it may go on after a crash where nobody else may begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RestoreUnderWay {
    /// The backup; none once it has ended.
    backup: Option<String>,
}

impl DocumentKind for RestoreUnderWay {
    const COLLECTION: &'static str = "restore-under-way";
}

/// Collections that a backup leaves out: of this life, and no other.
pub(crate) const OF_THIS_LIFE: [&str; 4] = [
    RestoreUnderWay::COLLECTION,
    <dwell_storage::api::Pin as DocumentKind>::COLLECTION,
    PlaceLease::COLLECTION,
    BackupState::COLLECTION,
];

fn tenant() -> Result<TenantId> {
    Ok(TenantId::new(INSTALLATION_TENANT)?)
}

/// The installation's name, given now if it has none.
pub(crate) async fn installation(documents: &dyn Documents, now: TsMs) -> Result<Installation> {
    let mut random = [0_u8; 8];
    getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("asking for randomness: {error}"))?;
    let fresh = Installation {
        id: hex::encode(random),
        named_at: now,
        lives: Vec::new(),
    };
    let stored = documents::update::<Installation>(documents, &tenant()?, ONLY, |before| match before {
        Some(_) => None,
        None => Some(fresh.clone()),
    })
    .await?;
    Ok(stored.map_or(fresh, |stored| stored.value))
}

/// Notes a restore.
pub(crate) async fn restored(documents: &dyn Documents, backup: &str, id: &str, now: TsMs) -> Result<()> {
    let life = Life {
        restored_at: now,
        backup: backup.to_owned(),
    };
    documents::update::<Installation>(documents, &tenant()?, ONLY, |before| {
        let mut installation = before.cloned().unwrap_or_else(|| Installation {
            id: id.to_owned(),
            named_at: now,
            lives: Vec::new(),
        });
        installation.id = id.to_owned();
        installation.lives.push(life.clone());
        Some(installation)
    })
    .await?;
    Ok(())
}

/// The backup of a restore that has begun to write and has not ended.
pub(crate) async fn restore_under_way(documents: &dyn Documents) -> Result<Option<String>> {
    let found = documents::load::<RestoreUnderWay>(documents, &tenant()?, ONLY).await?;
    Ok(found.and_then(|found| found.value.backup))
}

/// Notes that the restore of a backup begins to write, or that none is under way any more.
pub(crate) async fn set_restore_under_way(documents: &dyn Documents, backup: Option<&str>) -> Result<()> {
    documents::update::<RestoreUnderWay>(documents, &tenant()?, ONLY, |_| {
        Some(RestoreUnderWay {
            backup: backup.map(str::to_owned),
        })
    })
    .await?;
    Ok(())
}

/// What is remembered of backups.
pub(crate) async fn load(documents: &dyn Documents) -> Result<BackupState> {
    let found = documents::load::<BackupState>(documents, &tenant()?, ONLY).await?;
    Ok(found.map(|found| found.value).unwrap_or_default())
}

/// Remembers more.
pub(crate) async fn change(documents: &dyn Documents, change: impl Fn(&mut BackupState)) -> Result<()> {
    documents::update::<BackupState>(documents, &tenant()?, ONLY, |before| {
        let mut state = before.cloned().unwrap_or_default();
        change(&mut state);
        (before != Some(&state)).then_some(state)
    })
    .await?;
    Ok(())
}

/// Takes, or renews, the right to write to a place; an error while another job has it.
pub(crate) async fn hold_place(
    documents: &dyn Documents,
    place: &str,
    holder: &str,
    now: TsMs,
) -> Result<()> {
    let stands = documents::update::<PlaceLease>(documents, &tenant()?, &id_of(place), |before| {
        let is_held = before.is_some_and(|lease| lease.holder != holder && lease.expires_at > now);
        (!is_held).then(|| PlaceLease {
            holder: holder.to_owned(),
            expires_at: now + LEASE_MS,
        })
    })
    .await?;
    match stands.filter(|stands| stands.value.holder != holder) {
        None => Ok(()),
        Some(other) => bail!(
            "the job {} is writing to {place}: wait for it",
            other.value.holder
        ),
    }
}

/// Gives it back.
pub(crate) async fn release_place(
    documents: &dyn Documents,
    place: &str,
    holder: &str,
    now: TsMs,
) -> Result<()> {
    documents::update::<PlaceLease>(documents, &tenant()?, &id_of(place), |before| {
        let before = before.filter(|lease| lease.holder == holder)?;
        Some(PlaceLease {
            expires_at: now,
            ..before.clone()
        })
    })
    .await?;
    Ok(())
}

/// A place's document: ids are short and plain.
fn id_of(place: &str) -> String {
    format!(
        "{:032x}",
        dwell_model::ids::Receipt::derive(b"place", place.as_bytes()).to_u128()
    )
}
