//! Moving an embedded installation onto engines that processes share, without losing an event.
//!
//! ```text
//! log ─▶ raw (the last time) ─▶ raw rows with deliveries and marks ─▶ the other installation's raw table
//! archive ─▶ the other archive, as it is
//! tenants, venues, keys, import claims, quarantine, operators' documents with the audit ─▶ its tables
//! ```
//!
//! Numbers are not moved: they are computed anew from the events, which gives the same ones. Everything is copied by
//! writes that can be repeated, so a move that broke off is begun again.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use dwell_ingest::raw_writer::{self, RawWriterStores};
use dwell_model::event::Kind;
use dwell_model::ids::{TenantId, VenueId, VenueKey};
use dwell_model::time::{DAY_MS, LocalDay, SLOT_MS, TsMs};
use dwell_runtime::clock::SharedClock;
use dwell_storage::api::{
    Flip, ListFrom, Mark, OnlyMember, PseudonymKey, QuarantineFilter, RawWrite, SecretKey, Stores,
};
use dwell_storage::archive::{CopiedArchive, DeltaArchive};
use dwell_storage::error::ErrorKind;
use serde::Serialize;

/// Slots that are read and written at a time.
const SLOTS_AT_ONCE: usize = 6;
/// Quarantine entries, import claims that are read at a time.
const PAGE: usize = 500;
/// Days around today whose pseudonym keys are moved: older ones are destroyed by now.
const KEY_DAYS: std::ops::RangeInclusive<i32> = -5..=1;
/// Venue under whose name the quarantine keeps its keys.
const QUARANTINE_KEYS: &str = "_quarantine";
/// How long the quarantine's keys are kept.
const QUARANTINE_KEY_DAYS: i64 = 8;

/// What was moved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Moved {
    pub(crate) tenants: u64,
    pub(crate) venues: u64,
    pub(crate) access_keys: u64,
    pub(crate) raw_rows: u64,
    pub(crate) deliveries: u64,
    pub(crate) archive_files: u64,
    pub(crate) archive_bytes: u64,
    pub(crate) import_claims: u64,
    pub(crate) quarantine_entries: u64,
    pub(crate) documents: u64,
}

/// One side of a move.
pub(crate) struct Side {
    pub(crate) stores: Stores,
    pub(crate) archive: DeltaArchive,
}

/// Moves everything. `tell` hears what is being done.
pub(crate) async fn move_all(
    from: &Side,
    to: &Side,
    clock: &SharedClock,
    tell: &dyn Fn(&str),
) -> Result<Moved> {
    let mut moved = Moved::default();
    tell("copying what the event log still holds into the raw table");
    finish_log(from, clock).await?;
    let tenants = from.stores.registry.tenants().await?;
    for tenant in &tenants {
        to.stores.registry.create_tenant(tenant).await?;
        moved.tenants += 1;
        move_registry(from, to, tenant, &mut moved).await?;
    }
    tell("copying the archive");
    let CopiedArchive { files, bytes, known } = from.archive.copy_into(&to.archive).await?;
    moved.archive_files = files + known;
    moved.archive_bytes = bytes;
    for tenant in &tenants {
        for stored in from.stores.registry.venues(tenant).await? {
            let venue = VenueKey::new(tenant.clone(), stored.venue.id.clone());
            tell(&format!("copying raw events of {venue}"));
            move_raw(from, to, &venue, &mut moved)
                .await
                .with_context(|| format!("raw events of {venue}"))?;
            let today = stored.venue.calendar.day_of(clock.now_ms());
            move_keys(from, to, &venue, today, |day| stored.venue.calendar.bounds(day).1).await?;
        }
        let quarantine = VenueKey::new(tenant.clone(), VenueId::new(QUARANTINE_KEYS)?);
        let today = LocalDay::of_utc(clock.now_ms());
        let end = |day: LocalDay| (i64::from(day.to_epoch_days()) + QUARANTINE_KEY_DAYS) * DAY_MS;
        move_keys(from, to, &quarantine, today, end).await?;
        move_lists(from, to, tenant, &mut moved).await?;
        move_documents(from, to, tenant, &mut moved).await?;
    }
    Ok(moved)
}

/// Copies the rest of the log into the raw table.
async fn finish_log(from: &Side, clock: &SharedClock) -> Result<()> {
    let sources = RawWriterStores::from_stores(&from.stores);
    let member = Arc::new(OnlyMember::new((0..from.stores.log.shards()).collect()));
    let config = raw_writer::Config::default();
    let (mut writer, _) = raw_writer::Service::new(config, sources, member, Arc::clone(clock), None);
    writer.run_once().await?;
    Ok(())
}

/// Tenants' venues and access keys.
async fn move_registry(from: &Side, to: &Side, tenant: &TenantId, moved: &mut Moved) -> Result<()> {
    for stored in from.stores.registry.venues(tenant).await? {
        let key = VenueKey::new(tenant.clone(), stored.venue.id.clone());
        let there = to.stores.registry.venue(&key).await?;
        if there.as_ref().is_none_or(|there| there.venue != stored.venue) {
            let version = there.map(|there| there.version);
            let put = to
                .stores
                .registry
                .put_venue(tenant, &stored.venue, version)
                .await?;
            if put == Flip::Lost {
                bail!("{key} is being changed by somebody else: begin the move again");
            }
        }
        moved.venues += 1;
    }
    for key in from.stores.registry.keys(tenant).await? {
        match to.stores.registry.put_key(&key).await {
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            put => put?,
        }
        moved.access_keys += 1;
    }
    Ok(())
}

/// A venue's raw rows, with all their deliveries and marks.
async fn move_raw(from: &Side, to: &Side, venue: &VenueKey, moved: &mut Moved) -> Result<()> {
    let slots = from.stores.raw.marked_slots(venue, TsMs::MIN..TsMs::MAX).await?;
    for some in slots.chunks(SLOTS_AT_ONCE) {
        let mut write = RawWrite::default();
        for (slot, marks) in some {
            let range = slot * SLOT_MS..(slot + 1) * SLOT_MS;
            for kind in Kind::ALL {
                let rows = from.stores.raw.scan(venue, kind, range.clone()).await?;
                if rows.is_empty() {
                    continue;
                }
                moved.raw_rows += rows.len() as u64;
                moved.deliveries += rows.deliveries.len() as u64;
                write.rows.push((venue.clone(), rows));
            }
            write.marks.extend(marks.0.iter().map(|(source, &position)| Mark {
                venue: venue.clone(),
                slot: *slot,
                source: source.clone(),
                position,
            }));
        }
        to.stores.raw.apply(write).await?;
    }
    Ok(())
}

/// The keys of pseudonyms that still live, so that a device keeps its pseudonym over the move.
async fn move_keys(
    from: &Side,
    to: &Side,
    venue: &VenueKey,
    today: LocalDay,
    end: impl Fn(LocalDay) -> TsMs,
) -> Result<()> {
    for offset in KEY_DAYS {
        let Some(day) = LocalDay::from_epoch_days(today.to_epoch_days() + offset) else {
            continue;
        };
        let mut fresh = [0_u8; 32];
        getrandom::fill(&mut fresh).map_err(|error| anyhow::anyhow!("asking for randomness: {error}"))?;
        let keep_until = end(day) + 3 * DAY_MS;
        let known = from
            .stores
            .pseudonym_keys
            .get_or_create(venue, day, SecretKey(fresh), keep_until)
            .await?;
        if let PseudonymKey::Live(key) = known {
            to.stores
                .pseudonym_keys
                .get_or_create(venue, day, key, keep_until)
                .await?;
        }
    }
    Ok(())
}

/// Import claims, so that a file is still known; and the quarantine.
async fn move_lists(from: &Side, to: &Side, tenant: &TenantId, moved: &mut Moved) -> Result<()> {
    for claim in from.stores.imports.list(tenant, usize::MAX).await? {
        to.stores.imports.claim(tenant, &claim).await?;
        if let Some(finished_at) = claim.finished_at {
            let (accepted, refused) = (claim.accepted, claim.refused);
            to.stores
                .imports
                .finish(tenant, claim.receipt, finished_at, accepted, refused)
                .await?;
        }
        moved.import_claims += 1;
    }
    let mut before: Option<String> = None;
    loop {
        let filter = QuarantineFilter::default();
        let page = from
            .stores
            .quarantine
            .list(tenant, &filter, before.as_deref(), PAGE)
            .await?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        before = Some(last.id.clone());
        moved.quarantine_entries += page.len() as u64;
        to.stores.quarantine.add(page, u64::MAX).await?;
    }
}

/// What operators made, and the audit of it.
async fn move_documents(from: &Side, to: &Side, tenant: &TenantId, moved: &mut Moved) -> Result<()> {
    let (source, target) = (&from.stores.documents, &to.stores.documents);
    for collection in source.collections(tenant).await? {
        let mut after: Option<String> = None;
        loop {
            let page = source
                .list(tenant, &collection, ListFrom::After(after.as_deref()), PAGE)
                .await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id.clone());
            for document in &page {
                let there = target.get(tenant, &collection, &document.id).await?;
                moved.documents += 1;
                if there.as_ref().is_some_and(|there| there.body == document.body) {
                    continue;
                }
                let version = there.map(|there| there.version);
                let put = target
                    .put(tenant, &collection, &document.id, &document.body, version)
                    .await?;
                if put == Flip::Lost {
                    bail!(
                        "the document {} of {collection} is being changed by somebody else: begin the move again",
                        document.id
                    );
                }
            }
        }
    }
    Ok(())
}
