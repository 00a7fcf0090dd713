//! One message in, one verdict out, whatever transport brought it.
//!
//! ```text
//! decode (on a blocking thread when large) ─▶ pseudonymise ─▶ one append ─▶ durable ─▶ verdict
//!     └ refused ──────────────────────────────────────────▶ quarantine ──┘
//! ```
//!
//! A message is appended in one call, a record per venue and kind, so that it shares one fsync with whatever else waits.
//! The quarantine comes after the append: when the log fails, nothing was taken, the sender sends again, and the
//! entries are made then.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use dwell_model::ids::{Receipt, TenantId, VenueId, VenueKey};
use dwell_model::time::{DAY_MS, MINUTE_MS};
use dwell_runtime::clock::{SharedClock, Stopwatch};
use dwell_runtime::tasks::{self, BlockingError};
use dwell_storage::access::Principal;
use dwell_storage::api::{EventLogWriter, LogRecord, PseudonymKeys, Quarantine, Registry};
use dwell_storage::error::StorageError;
use dwell_storage::usage::{Amounts, UsageCounter};

use crate::decode::{Batches, DecodeRules, Decoder, FieldNames, Format, TimeRules, VenueBatch, VenueVerdict};
use crate::metrics;
use crate::pseudonymise::{PRESENCE_LATE_MS, Pseudonymiser, Road};
use crate::quarantine::{Origin, QuarantineKeeper, QuarantineLimits, Replayer};
use crate::refusal::{BodyError, Code, Refusal};
use crate::venues::{TenantVenues, VenueDirectory};

/// Tenants whose venues are remembered.
const TENANTS_REMEMBERED: usize = 1_024;
/// The part of the API that takes events, as usage names it.
pub(crate) const EVENTS: &str = "events";
/// Pseudonym keys (of a venue and day) that are remembered.
const KEYS_REMEMBERED: usize = 16_384;

/// What is taken.
#[derive(Debug, Clone)]
pub struct IntakeConfig {
    /// Fields beyond the known ones that events may have; they are ignored. Default: none, others are refused by name.
    pub ignored_fields: Vec<String>,
    /// Longest event, in bytes of its text. Default 1 MiB.
    pub event_bytes_max: usize,
    /// Most events of one message. Default 200,000.
    pub events_max: u64,
    /// How far in the future an event may lie, in milliseconds. Default 5 minutes.
    pub future_tolerance_ms: i64,
    /// How old an event may be, in milliseconds: as long as raw events are kept. Default 90 days.
    pub raw_retention_ms: i64,
    /// How long after a venue-day's end presence is taken for it, in milliseconds. Default 3 days.
    pub presence_late_ms: i64,
    /// Messages up to this length are decoded where they are received; longer ones on a thread for that. Default
    /// 256 KiB.
    pub inline_bytes_max: usize,
    /// How much the quarantine keeps.
    pub quarantine: QuarantineLimits,
}

impl Default for IntakeConfig {
    fn default() -> Self {
        Self {
            ignored_fields: Vec::new(),
            event_bytes_max: 1 << 20,
            events_max: 200_000,
            future_tolerance_ms: 5 * MINUTE_MS,
            raw_retention_ms: 90 * DAY_MS,
            presence_late_ms: PRESENCE_LATE_MS,
            inline_bytes_max: 256 * 1024,
            quarantine: QuarantineLimits::default(),
        }
    }
}

/// The stores that an intake writes to and asks.
#[derive(Clone)]
#[allow(missing_docs, reason = "each is the store of its own name")]
pub struct IntakeStores {
    pub log: Arc<dyn EventLogWriter>,
    pub registry: Arc<dyn Registry>,
    pub quarantine: Arc<dyn Quarantine>,
    pub pseudonym_keys: Arc<dyn PseudonymKeys>,
}

impl fmt::Debug for IntakeStores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntakeStores").finish_non_exhaustive()
    }
}

/// A message to be taken.
#[derive(Debug, Clone)]
pub struct Message {
    /// Who sends it: whose data it is, and which venues it may touch.
    pub principal: Arc<Principal>,
    /// Names it; a retry has the same one.
    pub receipt: Receipt,
    /// The venue of all its events, where the path or topic names it. Must be known.
    pub venue: Option<VenueId>,
    /// How it is written.
    pub format: Format,
    /// Its bytes, decompressed.
    pub bytes: Bytes,
    /// What brought it, for the quarantine: `http`.
    pub source: &'static str,
    /// Decide only: nothing is stored anywhere.
    pub dry_run: bool,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Names the message.
    pub receipt: Receipt,
    /// Events that are durable in the log (with `dry_run`: that would have been taken). Redeliveries count.
    pub accepted: u64,
    /// Events that were not taken, by their number in the message.
    pub refused: Vec<Refusal>,
}

/// Why nothing of a message was taken.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// The message cannot be read.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// A store failed; sending the same again is right.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Decoding was not carried out.
    #[error(transparent)]
    Blocking(#[from] BlockingError),
}

/// Takes messages. Cheap to clone.
#[derive(Clone)]
pub struct Intake {
    inner: Arc<Inner>,
}

struct Inner {
    config: IntakeConfig,
    names: FieldNames,
    log: Arc<dyn EventLogWriter>,
    venues: VenueDirectory,
    pseudonymiser: Pseudonymiser,
    quarantine: QuarantineKeeper,
    usage: UsageCounter,
    clock: SharedClock,
}

impl fmt::Debug for Intake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intake")
            .field("config", &self.inner.config)
            .finish_non_exhaustive()
    }
}

/// A decoded message.
struct Decoded {
    batches: Vec<VenueBatch>,
    refused: Vec<Refusal>,
    newest_ts: Option<i64>,
    header: Option<String>,
}

impl Intake {
    /// An intake over these stores.
    pub fn new(config: IntakeConfig, stores: IntakeStores, clock: SharedClock) -> Self {
        let shared = || SharedClock::clone(&clock);
        let keys = || Arc::clone(&stores.pseudonym_keys);
        let pseudonymiser = Pseudonymiser::new(keys(), shared(), config.presence_late_ms, KEYS_REMEMBERED);
        let quarantine = QuarantineKeeper::new(
            stores.quarantine,
            keys(),
            pseudonymiser.clone(),
            config.quarantine,
        );
        let inner = Inner {
            names: config
                .ignored_fields
                .iter()
                .fold(FieldNames::new(), |names, name| names.ignore(name)),
            log: stores.log,
            venues: VenueDirectory::new(stores.registry, shared(), TENANTS_REMEMBERED),
            pseudonymiser,
            quarantine,
            usage: UsageCounter::default(),
            clock,
            config,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The same, counting what it takes and refuses where it can be read. To be called before it is shared.
    pub fn counting(mut self, usage: &UsageCounter) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.usage = usage.clone();
        }
        self
    }

    /// Counts a request, whatever was answered.
    pub(crate) fn count_request(&self, tenant: &TenantId, venue: Option<&VenueId>) {
        self.inner
            .usage
            .count(tenant, venue, EVENTS, "", Amounts::request(0));
    }

    /// Which venues there are.
    pub fn venues(&self) -> &VenueDirectory {
        &self.inner.venues
    }

    /// Makes pseudonyms with the same keys and the same cache.
    pub fn pseudonymiser(&self) -> &Pseudonymiser {
        &self.inner.pseudonymiser
    }

    /// Keeps refused events.
    pub fn quarantine(&self) -> &QuarantineKeeper {
        &self.inner.quarantine
    }

    /// Plays refused events in again.
    pub fn replayer(&self) -> Replayer {
        let inner = &*self.inner;
        Replayer::new(
            &inner.quarantine,
            Arc::clone(&inner.log),
            inner.venues.clone(),
            SharedClock::clone(&inner.clock),
        )
        .counting(&inner.usage)
    }

    /// Takes a message: returns when everything that was accepted is durable.
    ///
    /// An error means that nothing was taken (or, after a failure of the log, that it is not known): sending the same
    /// message again is right and changes nothing twice.
    pub async fn take(&self, message: Message) -> Result<Verdict, IntakeError> {
        let inner = &*self.inner;
        let tenant = &message.principal.tenant;
        let received_at = inner.clock.now_ms();
        let mut venues = inner.venues.venues(tenant).await?;
        let mut decoded = self.decode(&message, &venues).await;
        if misses_a_venue(&decoded)
            && let Some(newer) = inner.venues.newer(tenant, &venues).await?
        {
            // A venue may have been made a moment ago.
            venues = newer;
            decoded = self.decode(&message, &venues).await;
        }
        let origin = Origin {
            tenant,
            receipt: message.receipt,
            received_at,
            source: message.source,
            format: message.format,
            header: None,
            numbered_by_line: false,
        };
        let mut decoded = match decoded {
            Ok(decoded) => decoded,
            Err(IntakeError::Body(error)) => {
                self.keep_unreadable(&message, &origin, &error).await;
                return Err(error.into());
            }
            Err(error) => return Err(error),
        };
        let found = decoded.refused.len()
            + decoded
                .batches
                .iter()
                .map(|batch| batch.events.len())
                .sum::<usize>();
        if found == 0 {
            return Err(BodyError::Empty.into());
        }
        if message.dry_run {
            let accepted = decoded
                .batches
                .iter()
                .map(|batch| batch.events.len() as u64)
                .sum();
            return Ok(Verdict {
                receipt: message.receipt,
                accepted,
                refused: decoded.refused,
            });
        }
        let destroyed = inner
            .pseudonymiser
            .apply(tenant, &venues, &mut decoded.batches, Road::Gateway)
            .await?;
        if !destroyed.is_empty() {
            decoded.refused.extend(destroyed);
            decoded.refused.sort_by_key(|refusal| refusal.place.index);
        }
        let accepted = self.append(&message, decoded.batches).await?;
        if let Some(newest) = decoded.newest_ts {
            metrics::newest_event_age(received_at - newest);
        }
        let origin = Origin {
            header: decoded.header.as_deref(),
            ..origin
        };
        self.keep_refused(&message, &origin, &venues, &decoded.refused)
            .await;
        Ok(Verdict {
            receipt: message.receipt,
            accepted,
            refused: decoded.refused,
        })
    }

    async fn decode(&self, message: &Message, venues: &Arc<TenantVenues>) -> Result<Decoded, IntakeError> {
        let config = &self.inner.config;
        let rules = Arc::new(DecodeRules {
            names: self.inner.names.clone(),
            venue: message.venue.clone(),
            defaults: Vec::new(),
            times: Some(TimeRules {
                now: self.inner.clock.now_ms(),
                max_future_ms: config.future_tolerance_ms,
                max_age_ms: config.raw_retention_ms,
            }),
            delimiter: None,
            max_event_bytes: config.event_bytes_max,
            max_events: config.events_max,
        });
        let (format, bytes) = (message.format, message.bytes.clone());
        let (venues, principal) = (Arc::clone(venues), Arc::clone(&message.principal));
        let lookup = move |venue: &VenueId| match venues.contains(venue) {
            false => VenueVerdict::Unknown,
            true if principal.may_post_to(venue) => VenueVerdict::Known,
            true => VenueVerdict::NotAllowed,
        };
        let length = bytes.len();
        let work = move || decode_whole(format, &bytes, rules, lookup);
        if length <= config.inline_bytes_max {
            return Ok(work()?);
        }
        Ok(tasks::blocking("decode message", work).await??)
    }

    async fn append(&self, message: &Message, batches: Vec<VenueBatch>) -> Result<u64, IntakeError> {
        if batches.is_empty() {
            return Ok(0);
        }
        let counts: Vec<_> = batches
            .iter()
            .map(|batch| (batch.events.kind, batch.events.len()))
            .collect();
        let of_venues: Vec<_> = batches
            .iter()
            .map(|batch| (batch.venue.clone(), batch.events.len() as u64))
            .collect();
        let record = |batch: VenueBatch| LogRecord {
            venue: VenueKey::new(message.principal.tenant.clone(), batch.venue),
            receipt: message.receipt,
            events: batch.events,
            received_at: None,
        };
        let stopwatch = Stopwatch::start();
        self.inner
            .log
            .append(batches.into_iter().map(record).collect())
            .await?;
        metrics::appended(stopwatch.elapsed());
        counts
            .iter()
            .for_each(|&(kind, events)| metrics::accepted(kind, events));
        let tenant = &message.principal.tenant;
        for (venue, events) in &of_venues {
            let amounts = Amounts::events(*events, 0);
            self.inner
                .usage
                .count(tenant, Some(venue), EVENTS, message.source, amounts);
        }
        Ok(counts.iter().map(|&(_, events)| events as u64).sum())
    }

    /// Keeps what was refused. What was accepted is durable by now, so that a failing quarantine must not make the
    /// sender believe the contrary: the verdict still tells what was refused and why.
    async fn keep_refused(
        &self,
        message: &Message,
        origin: &Origin<'_>,
        venues: &TenantVenues,
        refused: &[Refusal],
    ) {
        for refusal in refused {
            metrics::refused(refusal.code);
            let (venue, amounts) = (refusal.venue.as_ref(), Amounts::events(0, 1));
            let tenant = &message.principal.tenant;
            self.inner
                .usage
                .count(tenant, venue, EVENTS, message.source, amounts);
        }
        if let Err(error) = self
            .inner
            .quarantine
            .keep(origin, venues, &message.bytes, refused)
            .await
        {
            metrics::quarantine_left_out("store_failed", refused.len() as u64);
            tracing::warn!(%error, receipt = %origin.receipt, refused = refused.len(), "quarantine failed");
        }
    }

    async fn keep_unreadable(&self, message: &Message, origin: &Origin<'_>, error: &BodyError) {
        if message.dry_run || message.bytes.trim_ascii().is_empty() {
            return;
        }
        let kept = self
            .inner
            .quarantine
            .keep_message(origin, message.venue.clone(), &message.bytes, error)
            .await;
        if let Err(error) = kept {
            metrics::quarantine_left_out("store_failed", 1);
            tracing::warn!(%error, receipt = %origin.receipt, "quarantine failed");
        }
    }
}

fn decode_whole(
    format: Format,
    bytes: &[u8],
    rules: Arc<DecodeRules>,
    lookup: impl Fn(&VenueId) -> VenueVerdict + Send + Sync + 'static,
) -> Result<Decoded, BodyError> {
    let mut batches = Batches::new(Arc::clone(&rules), Arc::new(lookup));
    let mut decoder = Decoder::new(format, rules);
    decoder.decode(bytes, true, &mut batches)?;
    Ok(Decoded {
        newest_ts: batches.newest_ts(),
        header: decoder.header().map(str::to_owned),
        refused: batches.take_refused(),
        batches: batches.take(),
    })
}

fn misses_a_venue(decoded: &Result<Decoded, IntakeError>) -> bool {
    let is_missing = |refusal: &Refusal| refusal.code == Code::UnknownVenue;
    decoded
        .as_ref()
        .is_ok_and(|decoded| decoded.refused.iter().any(is_missing))
}

#[cfg(test)]
mod tests;
