//! Venue-days: leases, fences, and which generation is published.

use std::collections::BTreeMap;

use async_trait::async_trait;
use dwell_model::event::{Checksum, Kind};
use dwell_model::ids::VenueKey;
use dwell_model::metrics::{Carry, DaySlices};
use dwell_model::time::{LocalDay, TsMs, VenueCalendar};
use serde::{Deserialize, Serialize};

use super::{ArchiveFile, Generation, Marks};
use crate::error::{ErrorKind, Result, StorageError};

/// The right to change a venue-day until it expires. Expiry gives liveness; safety comes from the fence, on which
/// publishing is conditional.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Whose day.
    pub venue: VenueKey,
    /// The day.
    pub day: LocalDay,
    /// Raised by every taking of the lease; the id of the generation computed under it.
    pub fence: Generation,
    /// Who holds it.
    pub holder: String,
    /// When another may take it.
    pub expires_at: TsMs,
}

/// What a generation was made of and what it holds. Stored as JSON: fields may be added with a default, none changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GenerationInfo {
    /// Its number.
    pub generation: Generation,
    /// When it was published.
    pub published_at: TsMs,
    /// How long the run took.
    pub duration_ms: i64,
    /// Computed while the day was still open: the live view goes on answering.
    pub provisional: bool,
    /// Computed before the raw writer had passed the day's end.
    pub lagging: bool,
    /// Why it was computed, for people (for example `first computation`, `late events`).
    pub reason: String,
    /// How time was cut.
    pub calendar: VenueCalendar,
    /// The day's bounds under that cut.
    pub day_start: TsMs,
    /// See `day_start`.
    pub day_end: TsMs,
    /// Fingerprint of the layout used.
    pub layout: u64,
    /// Version of the metric definitions used.
    pub definitions: u32,
    /// Marks read before the rows: what the generation includes.
    pub marks: Marks,
    /// Per kind: the events that counted.
    pub events: BTreeMap<Kind, Checksum>,
    /// Identities with more than one payload.
    pub conflicts: u64,
    /// Number of aggregate rows; a reader who finds another number reads again.
    pub rows: u64,
    /// Number of sessions.
    pub sessions: u64,
    /// Archive files read: those of the winners, and of what was superseded where exclusions were applied.
    pub files: Vec<ArchiveFile>,
    /// The late ledger.
    pub late: LateLedger,
    /// Difference from the live view at the time of publishing; `None` when there was none to compare with.
    pub drift: Option<Drift>,
    /// Difference to the generation before: buckets changed, by metric family.
    pub changed: Option<GenerationChange>,
    /// Last samples of cumulative counters, carried into the next day.
    pub carry: Carry,
    /// The carry that this generation was computed with.
    pub carry_in: Carry,
    /// The exclusions that were applied.
    #[serde(default)]
    pub exclusions: AppliedExclusions,
    /// Which slices it has besides `all`; `None` where it was computed before there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slices: Option<DaySlices>,
}

/// Which exclusions a generation was computed with, and what they took out of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AppliedExclusions {
    /// Stands for the exclusions (see [`dwell_model::exclusion::fingerprint`]); 0 for none.
    pub fingerprint: u64,
    /// Their ids, ascending: the jobs that made them.
    pub jobs: Vec<String>,
    /// Per kind: events of which no delivery was left.
    pub excluded: BTreeMap<Kind, u64>,
    /// Events that count with a payload which one that is excluded had covered.
    pub restored: u64,
}

/// Events that came after the day had been computed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LateLedger {
    /// How many events, over all generations after the first.
    pub events: u64,
    /// The longest time between an event and the publishing of the generation that had missed it.
    pub max_late_ms: i64,
    /// Receipts that brought them, the first few.
    pub receipts: u64,
    /// What this generation added to the ledger; `None` when nothing was late.
    #[serde(default)]
    pub added: Option<LateArrivals>,
}

/// Late events that one generation was the first to include.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LateArrivals {
    /// How many. More than the sources below add up to where an import dated events before the former publishing.
    pub events: u64,
    /// When the first and the last of them were received.
    pub received: Option<(TsMs, TsMs)>,
    /// Earliest and latest event time among them.
    pub event_times: Option<(TsMs, TsMs)>,
    /// Half of them were received within so long after their event time; to one part in sixteen, as the others.
    pub delay_p50_ms: Option<i64>,
    /// Nine tenths of them.
    pub delay_p90_ms: Option<i64>,
    /// All of them, exactly.
    pub delay_max_ms: Option<i64>,
    /// The sensors that sent most of them, most first.
    pub sensors: Vec<LateSource>,
    /// How many sensors sent any.
    pub sensors_all: u64,
    /// The receipts that brought most of them, most first.
    pub receipts: Vec<LateSource>,
    /// How many receipts brought any, as far as they were told apart.
    pub receipts_all: u64,
}

/// Who sent, or what brought, late events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LateSource {
    /// The sensor, or the receipt.
    pub name: String,
    /// How many of the late events.
    pub events: u64,
}

/// How far the live view was from the batch result.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Drift {
    /// Buckets compared.
    pub buckets: u64,
    /// Buckets that differed.
    pub differing: u64,
    /// Some of them, for people: `zone/aisle-01@2026-10-24T10:00:00.000Z visits 5≠4`.
    pub examples: Vec<String>,
}

/// What a generation changed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GenerationChange {
    /// Buckets that are new.
    pub added: u64,
    /// Buckets that are gone.
    pub removed: u64,
    /// Buckets whose values differ.
    pub changed: u64,
}

/// A venue-day's row.
#[derive(Debug, Clone, PartialEq)]
pub struct VenueDay {
    /// The day.
    pub day: LocalDay,
    /// Highest fence given out.
    pub fence: Generation,
    /// Holder and expiry of the lease, when it is held.
    pub lease: Option<(String, TsMs)>,
    /// The published generation.
    pub published: Option<GenerationInfo>,
}

/// A day as a backup has it.
#[derive(Debug, Clone, PartialEq)]
pub struct RestoredDay {
    /// The day.
    pub day: LocalDay,
    /// The highest fence given out from now on: above every one of the former life, so that nothing of it can publish.
    pub fence: Generation,
    /// The published generation, one of `history`.
    pub published: Option<Generation>,
    /// All generations that are kept.
    pub history: Vec<GenerationInfo>,
}

impl RestoredDay {
    /// Refuses a day whose parts do not go together.
    pub fn check(&self) -> Result<()> {
        let known = |generation: Generation| self.history.iter().any(|info| info.generation == generation);
        let above = self.history.iter().all(|info| info.generation <= self.fence);
        if above && self.published.is_none_or(known) {
            return Ok(());
        }
        let what = format!(
            "restore {}: its fence {} must not lie below a generation, and what is published must be in the history",
            self.day, self.fence
        );
        Err(StorageError::new(ErrorKind::Invalid, what))
    }

    /// What the published generation holds.
    pub fn published_info(&self) -> Option<&GenerationInfo> {
        let published = self.published?;
        self.history.iter().find(|info| info.generation == published)
    }
}

/// Outcome of a conditional write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Flip {
    /// It happened.
    Done,
    /// The fence or the generation before was another: nothing was changed.
    Lost,
}

/// A lease that ends so long after one given now would was given by a clock that has been set back since, and counts as
/// expired: nobody waits until the time has come round again. Milliseconds; longer than any lease.
pub const LEASE_AHEAD_MS_MAX: i64 = 3_600_000;

/// Writing venue-days.
#[async_trait]
pub trait VenueDaysWriter: Send + Sync {
    /// Takes the lease of a day for `ttl_ms`: raises the fence by a conditional write. `None` while another holder's
    /// lease has not expired at `now`; one that ends more than [`LEASE_AHEAD_MS_MAX`] after `now + ttl_ms` has. The same holder may take it again: the fence rises, the former lease is lost.
    async fn acquire(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        holder: &str,
        now: TsMs,
        ttl_ms: i64,
    ) -> Result<Option<Lease>>;

    /// Extends a lease; `Lost` when its fence is no longer the highest.
    async fn renew(&self, lease: &Lease, now: TsMs, ttl_ms: i64) -> Result<Flip>;

    /// Gives a lease back; a lost one is left alone.
    async fn release(&self, lease: &Lease) -> Result<()>;

    /// Publishes a generation: one atomic flip, conditional on the lease's fence being the highest and on the
    /// generation published before. The former generation goes to the history.
    async fn publish(
        &self,
        lease: &Lease,
        published_before: Option<Generation>,
        info: GenerationInfo,
    ) -> Result<Flip>;

    /// Keeps a generation that nobody is to be shown yet beside the published one: it goes to the day's generations, and
    /// what is published stays. Its rows and sessions are written before. Conditional on the lease's fence being the
    /// highest; its number is that fence, so it lies above the published one. Doing it again changes nothing. `Invalid`
    /// when the number is not the fence.
    async fn stage(&self, lease: &Lease, info: GenerationInfo) -> Result<Flip>;

    /// Publishes a generation that was [staged](Self::stage), as of `published_at`: one atomic flip under the conditions
    /// of [`publish`](Self::publish). `Done`, too, where it is the published one already. `Invalid` when the day has no
    /// such generation above the published one.
    async fn promote(
        &self,
        lease: &Lease,
        published_before: Option<Generation>,
        staged: Generation,
        published_at: TsMs,
    ) -> Result<Flip>;

    /// On unchanged input: raises the published generation's marks (and its state flags), under the same conditions.
    async fn raise_marks(
        &self,
        lease: &Lease,
        published: Generation,
        marks: &Marks,
        provisional: bool,
    ) -> Result<Flip>;

    /// Takes generations out of the history, conditional on the lease's fence being the highest; those that are not in
    /// it are passed over. `Invalid` when the published one is among them. Their rows and sessions are removed
    /// afterwards, by whoever forgot them.
    async fn forget(&self, lease: &Lease, generations: &[Generation]) -> Result<Flip>;

    /// Puts a day as a backup has it in place of everything that its row says, a lease included. Conditional on its
    /// fence being higher than that of the row; repeating it is `Done` as long as nobody has taken the lease since.
    /// Rows and sessions of the generations are written before.
    async fn restore(&self, venue: &VenueKey, day: RestoredDay) -> Result<Flip>;
}

/// The refusal to stage a generation under another lease than the one that it was computed under.
pub(crate) fn refuse_other_fence(lease: &Lease, generation: Generation) -> StorageError {
    let why = format!(
        "stage a generation: that of {} {} is {generation}, its lease has the fence {}",
        lease.venue, lease.day, lease.fence
    );
    StorageError::new(ErrorKind::Invalid, why)
}

/// The refusal to publish what is not staged.
pub(crate) fn refuse_not_staged(lease: &Lease, generation: Generation) -> StorageError {
    let why = format!(
        "publish a staged generation: {} {} has no generation {generation} above the published one",
        lease.venue, lease.day
    );
    StorageError::new(ErrorKind::Invalid, why)
}

/// The refusal to forget a published generation.
pub(crate) fn refuse_published(lease: &Lease, generation: Generation) -> StorageError {
    let why = format!(
        "forget generations: {generation} of {} {} is the published one",
        lease.venue, lease.day
    );
    StorageError::new(ErrorKind::Invalid, why)
}

/// Reading venue-days.
#[async_trait]
pub trait VenueDaysReader: Send + Sync {
    /// A day; `None` when it was never leased.
    async fn get(&self, venue: &VenueKey, day: LocalDay) -> Result<Option<VenueDay>>;

    /// The days of a venue in a range, both ends included, ascending; days never leased are left out.
    async fn list(&self, venue: &VenueKey, from: LocalDay, to: LocalDay) -> Result<Vec<VenueDay>>;

    /// All generations of a day that are kept, newest first: those above the published one are
    /// [staged](VenueDaysWriter::stage), the others were published once.
    async fn history(&self, venue: &VenueKey, day: LocalDay) -> Result<Vec<GenerationInfo>>;
}

/// The venue-days table.
pub trait VenueDays: VenueDaysWriter + VenueDaysReader {}

impl<T: VenueDaysWriter + VenueDaysReader> VenueDays for T {}
