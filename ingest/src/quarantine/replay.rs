//! Playing refused events in again: after a venue was made, a mapping was mended, a clock was set right.

use std::fmt;
use std::sync::Arc;

use dwell_model::ids::{Receipt, TenantId, VenueKey};
use dwell_model::time::MINUTE_MS;
use dwell_runtime::clock::SharedClock;
use dwell_storage::api::{
    EventLogWriter, LogRecord, Quarantine, QuarantineEncoding, QuarantineEntry, QuarantineState,
};
use dwell_storage::error::Result;

use super::QuarantineKeeper;
use super::seal::Sealer;
use crate::decode::{Batches, DecodeRules, Decoder, Format, Ordinals, TimeRules, VenueBatch, VenueVerdict};
use crate::metrics;
use crate::pseudonymise::{Pseudonymiser, Road};
use crate::venues::{TenantVenues, VenueDirectory};

/// Most records that are appended in one call.
const RECORDS_PER_APPEND: usize = 500;

/// What became of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replayed {
    /// Its event is in the log, and the entry is marked as replayed.
    Taken,
    /// Refused again, for this reason.
    Refused {
        /// The stable code.
        code: &'static str,
        /// For people.
        message: String,
    },
    /// Its bytes were sealed and the key is destroyed, or they were cut at the limit: they cannot be read any more.
    Unreadable,
    /// It is not waiting: replayed before, or dropped.
    NotOpen,
}

/// Plays entries in again. Cheap to clone.
#[derive(Clone)]
pub struct Replayer {
    store: Arc<dyn Quarantine>,
    log: Arc<dyn EventLogWriter>,
    venues: VenueDirectory,
    pseudonymiser: Pseudonymiser,
    sealer: Sealer,
    clock: SharedClock,
}

impl fmt::Debug for Replayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replayer").finish_non_exhaustive()
    }
}

impl Replayer {
    /// A replayer of what a keeper has kept.
    pub fn new(
        keeper: &QuarantineKeeper,
        log: Arc<dyn EventLogWriter>,
        venues: VenueDirectory,
        clock: SharedClock,
    ) -> Self {
        Self {
            store: Arc::clone(&keeper.store),
            log,
            venues,
            pseudonymiser: keeper.pseudonymiser.clone(),
            sealer: keeper.sealer.clone(),
            clock,
        }
    }

    /// Decodes entries of a tenant again by `rules` and takes what can be taken, each with the receipt that first
    /// brought it; returns what became of each, in order.
    ///
    /// Of the rules the names, defaults and separator count; an entry's venue is its own. The limit on an event's age
    /// does not bind: replaying is an operator's doing. An entry is marked only after its event is durable, so that a
    /// repetition after a crash delivers it once more, which changes nothing.
    ///
    /// Entries of one message should come in one call: crossings that nothing but their ordinal tells apart are then
    /// numbered as the message itself would number them, and a sender's retry of it changes nothing.
    pub async fn replay(
        &self,
        tenant: &TenantId,
        entries: &[QuarantineEntry],
        rules: &DecodeRules,
    ) -> Result<Vec<Replayed>> {
        let venues = self.venues.venues(tenant).await?;
        let mut order: Vec<usize> = (0..entries.len()).collect();
        order.sort_by_key(|&number| (entries[number].receipt, entries[number].index));
        let mut outcomes = vec![Replayed::NotOpen; entries.len()];
        let mut message = Message::default();
        for some in order.chunks(RECORDS_PER_APPEND) {
            let mut records = Vec::new();
            for &number in some {
                let entry = &entries[number];
                message.go_on_with(entry.receipt);
                let (outcome, of_entry) = self.decode(tenant, &venues, entry, rules, &mut message).await?;
                outcomes[number] = outcome;
                records.extend(of_entry);
            }
            if records.is_empty() {
                continue;
            }
            let accepted: Vec<_> = records
                .iter()
                .map(|record| (record.events.kind, record.events.len()))
                .collect();
            self.log.append(records).await?;
            accepted
                .into_iter()
                .for_each(|(kind, events)| metrics::accepted(kind, events));
            for &number in some.iter().filter(|&&number| outcomes[number] == Replayed::Taken) {
                self.store
                    .set_state(tenant, &entries[number].id, QuarantineState::Replayed)
                    .await?;
            }
        }
        Ok(outcomes)
    }

    async fn decode(
        &self,
        tenant: &TenantId,
        venues: &Arc<TenantVenues>,
        entry: &QuarantineEntry,
        rules: &DecodeRules,
        message: &mut Message,
    ) -> Result<(Replayed, Vec<LogRecord>)> {
        if entry.state != QuarantineState::Open || entry.tenant != *tenant {
            return Ok((Replayed::NotOpen, Vec::new()));
        }
        let opened;
        let bytes = match entry.encoding {
            QuarantineEncoding::Plain => &entry.bytes,
            QuarantineEncoding::Encrypted => match self.sealer.open(tenant, &entry.id, &entry.bytes).await? {
                None => return Ok((Replayed::Unreadable, Vec::new())),
                Some(bytes) => {
                    opened = bytes;
                    &opened
                }
            },
        };
        let Ok(format) = entry.format.parse::<Format>() else {
            return Ok((Replayed::Unreadable, Vec::new()));
        };
        let times = TimeRules {
            now: self.clock.now_ms(),
            max_future_ms: 5 * MINUTE_MS,
            max_age_ms: i64::MAX,
        };
        let rules = Arc::new(DecodeRules {
            venue: entry.venue.clone(),
            times: Some(times),
            ..rules.clone()
        });
        let known = Arc::clone(venues);
        let lookup = move |venue: &_| {
            if known.contains(venue) {
                VenueVerdict::Known
            } else {
                VenueVerdict::Unknown
            }
        };
        let mut batches = Batches::new(Arc::clone(&rules), Arc::new(lookup)).with_ordinals(message.take());
        if let Err(error) = Decoder::new(format, rules).decode(bytes, true, &mut batches) {
            return Ok((
                Replayed::Refused {
                    code: error.code(),
                    message: error.to_string(),
                },
                Vec::new(),
            ));
        }
        let mut refused = batches.take_refused();
        let mut taken = batches.take();
        message.ordinals = batches.into_ordinals();
        let plain = entry.encoding == QuarantineEncoding::Plain;
        refused.extend(if plain {
            self.pseudonymiser.apply_again(tenant, venues, &mut taken).await?
        } else {
            self.pseudonymiser
                .apply(tenant, venues, &mut taken, Road::Gateway)
                .await?
        });
        if let Some(refusal) = refused.first() {
            let (code, message) = (refusal.code.as_str(), refusal.message.to_string());
            return Ok((Replayed::Refused { code, message }, Vec::new()));
        }
        if taken.is_empty() {
            return Ok((Replayed::Unreadable, Vec::new()));
        }
        let record = |batch: VenueBatch| LogRecord {
            venue: VenueKey::new(tenant.clone(), batch.venue),
            receipt: entry.receipt,
            events: batch.events,
            received_at: None,
        };
        Ok((Replayed::Taken, taken.into_iter().map(record).collect()))
    }
}

/// What the entries of one message share.
#[derive(Debug, Default)]
struct Message {
    receipt: Option<Receipt>,
    ordinals: Ordinals,
}

impl Message {
    fn go_on_with(&mut self, receipt: Receipt) {
        if self.receipt != Some(receipt) {
            *self = Self {
                receipt: Some(receipt),
                ordinals: Ordinals::default(),
            };
        }
    }

    fn take(&mut self) -> Ordinals {
        std::mem::take(&mut self.ordinals)
    }
}
