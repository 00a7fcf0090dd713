//! Pins: what nobody may collect while somebody needs it, whatever its age.
//!
//! A backup pins before it copies pointers, a drill before it reads days again; vacuum asks before it removes a replaced
//! file of the archive, retention before it removes an old generation ([`held`]). A pin ends by itself: its holder renews
//! it while it works, so that a holder that died holds nothing for long.
//!
//! A pin that is set counts for what is removed afterwards. Whoever removes asks right before each step, and nothing
//! younger than days is ever removed, so what a holder finds named after it has set its pin is still there.

use std::collections::BTreeSet;

use dwell_model::ids::{TenantId, VenueId};
use dwell_model::time::{LocalDay, TsMs};
use serde::{Deserialize, Serialize};

use super::documents::{self, DocumentKind};
use super::{Documents, Generation};
use crate::error::Result;

/// A pin, as it is stored: a document of its tenant, under an id that its holder chooses and uses again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Who holds it: a job's id, for people.
    pub holder: String,
    /// Why, for people.
    pub reason: String,
    /// When it was set.
    pub set_at: TsMs,
    /// When it ends unless it is renewed.
    pub expires_at: TsMs,
    /// Files of the archive that it holds.
    pub files: Pinned<String>,
    /// Generations that it holds.
    pub generations: Pinned<PinnedGeneration>,
}

impl DocumentKind for Pin {
    const COLLECTION: &'static str = "pins";
}

/// What a pin holds of one sort.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pinned<T: Ord> {
    /// Nothing.
    #[default]
    None,
    /// These.
    These(BTreeSet<T>),
    /// All of the tenant.
    All,
}

/// A generation that is held.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PinnedGeneration {
    /// Whose.
    pub venue: VenueId,
    /// Of which day.
    pub day: LocalDay,
    /// Its number.
    pub generation: Generation,
}

impl<T: Ord> Pinned<T> {
    /// Whether something is held.
    pub fn holds(&self, thing: &T) -> bool {
        match self {
            Pinned::None => false,
            Pinned::These(these) => these.contains(thing),
            Pinned::All => true,
        }
    }
}

/// The pins of a tenant that are in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeldPins(Vec<Pin>);

impl HeldPins {
    /// Whether a file of the archive (a path as in [`ArchiveFile::path`](super::ArchiveFile::path)) is to be kept.
    pub fn holds_file(&self, path: &str) -> bool {
        let path = path.to_owned();
        self.0.iter().any(|pin| pin.files.holds(&path))
    }

    /// Whether a generation, with its rows, sessions and place in the history, is to be kept.
    pub fn holds_generation(&self, venue: &VenueId, day: LocalDay, generation: Generation) -> bool {
        let generation = PinnedGeneration {
            venue: venue.clone(),
            day,
            generation,
        };
        self.0.iter().any(|pin| pin.generations.holds(&generation))
    }

    /// The pins.
    pub fn pins(&self) -> &[Pin] {
        &self.0
    }
}

/// The pins of a tenant that are in force at `now`: to be asked for right before each step of a collection.
pub async fn held(documents: &dyn Documents, tenant: &TenantId, now: TsMs) -> Result<HeldPins> {
    let all = documents::all::<Pin>(documents, tenant).await?;
    let in_force = all.into_iter().map(|stored| stored.value);
    Ok(HeldPins(in_force.filter(|pin| pin.expires_at > now).collect()))
}

/// Sets a pin, or renews it: the later end of both stands while it is the same holder's.
pub async fn hold(documents: &dyn Documents, tenant: &TenantId, id: &str, pin: &Pin) -> Result<()> {
    documents::update::<Pin>(documents, tenant, id, |before| {
        let mut pin = pin.clone();
        if let Some(before) = before.filter(|before| before.holder == pin.holder) {
            pin.set_at = before.set_at.min(pin.set_at);
            pin.expires_at = pin.expires_at.max(before.expires_at);
        }
        (before != Some(&pin)).then_some(pin)
    })
    .await?;
    Ok(())
}

/// Ends a pin. One that another holder has set under the same id meanwhile is left alone.
pub async fn release(
    documents: &dyn Documents,
    tenant: &TenantId,
    id: &str,
    holder: &str,
    now: TsMs,
) -> Result<()> {
    documents::update::<Pin>(documents, tenant, id, |before| {
        let before = before.filter(|pin| pin.holder == holder && pin.expires_at > now)?;
        Some(Pin {
            expires_at: now,
            ..before.clone()
        })
    })
    .await?;
    Ok(())
}
