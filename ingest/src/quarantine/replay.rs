//! Playing refused events in again: after a venue was made, or through a mapping that mends what was wrong with them.
//!
//! The mapping is that of files ([`MappingSpec`]): fields renamed and set, instants read and shifted, numbers scaled,
//! values exchanged. What it makes of an entry goes the way of any event from there on.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use dwell_model::ids::{Receipt, TenantId, VenueId, VenueKey};
use dwell_model::time::{MINUTE_MS, VenueCalendar};
use dwell_runtime::clock::SharedClock;
use dwell_runtime::failpoints;
use dwell_storage::api::{
    EventLogWriter, LogRecord, Quarantine, QuarantineEncoding, QuarantineEntry, QuarantineState,
};
use dwell_storage::erasure::{ErasureFilter, ErasureWatch};
use dwell_storage::error::{ErrorKind, Result, StorageError};
use dwell_storage::usage::{Amounts, UsageCounter};

use super::QuarantineKeeper;
use super::marks::{Mark, mark};
use super::seal::Sealer;
use crate::decode::{Batches, DecodeRules, Decoder, Format, Ordinals, TimeRules, VenueBatch, VenueVerdict};
use crate::intake::EVENTS;
use crate::metrics;
use crate::pseudonymise::{Pseudonymiser, Road};
use crate::sources::files::{Constant, KeptRows, MappingSpec, ZoneOfVenue};
use crate::venues::{TenantVenues, VenueDirectory};

/// Most records that are appended in one call.
const RECORDS_PER_APPEND: usize = 500;
/// The field that says which venue an event belongs to.
const VENUE: &str = "venue";

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
    /// It names somebody who is to be forgotten: it is removed from the quarantine, and nothing of it was taken.
    Erased,
}

/// A mapping, checked.
#[derive(Clone)]
pub struct Mapping {
    rows: Arc<KeptRows>,
    /// Whether it says which venue an event belongs to, so that an entry's own does not bind.
    sets_venue: bool,
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping").finish_non_exhaustive()
    }
}

impl Mapping {
    /// Checks a mapping; the error says what is wrong with it.
    pub fn new(spec: &MappingSpec) -> std::result::Result<Self, String> {
        let says = |fields: &BTreeMap<String, String>, constants: &BTreeMap<String, Constant>| {
            fields.contains_key(VENUE) || constants.contains_key(VENUE)
        };
        let sets_venue = says(&spec.columns, &spec.constants)
            || spec.values.contains_key(VENUE)
            || spec
                .events
                .iter()
                .any(|event| says(&event.columns, &event.constants));
        let rows = KeptRows::new(spec).map_err(|error| error.to_string())?;
        Ok(Self {
            rows: Arc::new(rows),
            sets_venue,
        })
    }
}

/// An entry, looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Its bytes; `None` when they are sealed and were not to be opened, or can no longer be.
    pub bytes: Option<Vec<u8>>,
    /// Where the reason stands in them.
    pub mark: Option<Mark>,
    /// What would become of it if it were replayed now.
    pub now: Replayed,
}

/// Plays entries in again. Cheap to clone.
#[derive(Clone)]
pub struct Replayer {
    store: Arc<dyn Quarantine>,
    log: Arc<dyn EventLogWriter>,
    venues: VenueDirectory,
    pseudonymiser: Pseudonymiser,
    sealer: Sealer,
    erasures: Option<ErasureWatch>,
    usage: UsageCounter,
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
            erasures: None,
            usage: UsageCounter::default(),
            clock,
        }
    }

    /// The same, counting what it takes.
    pub(crate) fn counting(mut self, usage: &UsageCounter) -> Self {
        self.usage = usage.clone();
        self
    }

    /// The same, taking nothing of whom the ledger of erasures names.
    pub fn honouring(mut self, erasures: ErasureWatch) -> Self {
        self.erasures = Some(erasures);
        self
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
    ///
    /// What a mapping makes of an entry keeps the entry's receipt too, so a revert of the message covers it, and the same
    /// mapping played twice delivers the same events, which count once.
    pub async fn replay(
        &self,
        tenant: &TenantId,
        entries: &[QuarantineEntry],
        rules: &DecodeRules,
        mapping: Option<&Mapping>,
    ) -> Result<Vec<Replayed>> {
        self.go_over(tenant, entries, rules, mapping, true).await
    }

    /// What [`replay`](Self::replay) would do: nothing is stored anywhere.
    pub async fn try_out(
        &self,
        tenant: &TenantId,
        entries: &[QuarantineEntry],
        rules: &DecodeRules,
        mapping: Option<&Mapping>,
    ) -> Result<Vec<Replayed>> {
        self.go_over(tenant, entries, rules, mapping, false).await
    }

    /// Looks at an entry: its bytes (`open`: sealed ones too, where their key still exists), the place of the reason, and
    /// what would become of it now.
    pub async fn look(&self, entry: &QuarantineEntry, open: bool) -> Result<Look> {
        let rules = DecodeRules::default();
        let now = self
            .try_out(&entry.tenant, std::slice::from_ref(entry), &rules, None)
            .await?
            .pop()
            .unwrap_or(Replayed::NotOpen);
        let bytes = match entry.encoding {
            QuarantineEncoding::Encrypted if !open => None,
            _ => self.bytes_of(entry).await?,
        };
        // Sealed entries keep no name of a field in their reason; what is wrong now has it.
        let message = match &now {
            Replayed::Refused { code, message } if *code == entry.code => message,
            _ => &entry.message,
        };
        let format = entry.format.parse::<Format>().ok();
        let marked = bytes
            .as_ref()
            .zip(format)
            .filter(|(bytes, _)| !bytes.is_empty())
            .map(|(bytes, format)| mark(format, bytes, &entry.code, message));
        Ok(Look {
            bytes,
            mark: marked,
            now,
        })
    }

    /// An entry's bytes in clear; `None` when they can no longer be opened.
    async fn bytes_of(&self, entry: &QuarantineEntry) -> Result<Option<Vec<u8>>> {
        match entry.encoding {
            QuarantineEncoding::Plain => Ok(Some(entry.bytes.clone())),
            QuarantineEncoding::Encrypted => self.sealer.open(&entry.tenant, &entry.id, &entry.bytes).await,
        }
    }

    async fn go_over(
        &self,
        tenant: &TenantId,
        entries: &[QuarantineEntry],
        rules: &DecodeRules,
        mapping: Option<&Mapping>,
        is_meant: bool,
    ) -> Result<Vec<Replayed>> {
        let venues = self.venues.venues(tenant).await?;
        let forgotten = match &self.erasures {
            Some(erasures) => Some(erasures.read_on().await?),
            None => None,
        };
        let mut order: Vec<usize> = (0..entries.len()).collect();
        order.sort_by_key(|&number| (entries[number].receipt, entries[number].index));
        let mut outcomes = vec![Replayed::NotOpen; entries.len()];
        let mut message = Message::default();
        for some in order.chunks(RECORDS_PER_APPEND) {
            let mut records = Vec::new();
            for &number in some {
                let entry = &entries[number];
                message.go_on_with(entry.receipt);
                let (outcome, of_entry) = self
                    .decode(tenant, &venues, entry, rules, mapping, &mut message)
                    .await?;
                let (outcome, of_entry) = match &forgotten {
                    Some(forgotten) => without(forgotten, outcome, of_entry),
                    None => (outcome, of_entry),
                };
                outcomes[number] = outcome;
                records.extend(of_entry);
            }
            if !is_meant {
                continue;
            }
            let accepted: Vec<_> = records
                .iter()
                .map(|record| {
                    (
                        record.venue.venue.clone(),
                        record.events.kind,
                        record.events.len(),
                    )
                })
                .collect();
            if !records.is_empty() {
                self.log.append(records).await?;
            }
            failpoints::hit("quarantine.replayed")
                .map_err(|error| StorageError::with_source(ErrorKind::Unavailable, "replay", error))?;
            for (venue, kind, events) in accepted {
                metrics::accepted(kind, events);
                let amounts = Amounts::events(events as u64, 0);
                self.usage.count(tenant, Some(&venue), EVENTS, "replay", amounts);
            }
            let mut erased = Vec::new();
            for &number in some {
                let id = &entries[number].id;
                match outcomes[number] {
                    Replayed::Taken => {
                        self.store
                            .set_state(tenant, id, QuarantineState::Replayed)
                            .await?;
                    }
                    Replayed::Erased => erased.push(id.clone()),
                    _ => {}
                }
            }
            if !erased.is_empty() {
                self.store.erase(tenant, erased).await?;
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
        mapping: Option<&Mapping>,
        message: &mut Message,
    ) -> Result<(Replayed, Vec<LogRecord>)> {
        if entry.state != QuarantineState::Open || entry.tenant != *tenant {
            return Ok((Replayed::NotOpen, Vec::new()));
        }
        let Some(mut bytes) = self.bytes_of(entry).await? else {
            return Ok((Replayed::Unreadable, Vec::new()));
        };
        let Ok(mut format) = entry.format.parse::<Format>() else {
            return Ok((Replayed::Unreadable, Vec::new()));
        };
        if let Some(mapping) = mapping {
            let zones = Zones {
                venues,
                of_entry: entry.venue.as_ref(),
            };
            match mapping.rows.events_of(&zones, format, &bytes) {
                Ok(lines) => (bytes, format) = (lines, Format::Ndjson),
                Err(problem) => {
                    let refused = Replayed::Refused {
                        code: problem.code.as_str(),
                        message: problem.message.to_string(),
                    };
                    return Ok((refused, Vec::new()));
                }
            }
        }
        let times = TimeRules {
            now: self.clock.now_ms(),
            max_future_ms: 5 * MINUTE_MS,
            max_age_ms: i64::MAX,
        };
        let rules = Arc::new(DecodeRules {
            venue: entry
                .venue
                .clone()
                .filter(|_| mapping.is_none_or(|mapping| !mapping.sets_venue)),
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
        if let Err(error) = Decoder::new(format, rules).decode(&bytes, true, &mut batches) {
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

/// Leaves out whom the ledger names; an entry that names somebody is not taken at all.
fn without(
    forgotten: &ErasureFilter,
    outcome: Replayed,
    records: Vec<LogRecord>,
) -> (Replayed, Vec<LogRecord>) {
    let names = |record: &LogRecord| !forgotten.erased(&record.venue, &record.events).is_empty();
    match records.iter().any(names) {
        true => (Replayed::Erased, Vec::new()),
        false => (outcome, records),
    }
}

/// Zones of venues for wall times; a row that names no venue means its entry's.
struct Zones<'a> {
    venues: &'a TenantVenues,
    of_entry: Option<&'a VenueId>,
}

impl ZoneOfVenue for Zones<'_> {
    fn calendar(&self, venue: &str) -> Option<VenueCalendar> {
        self.venues.calendar(&VenueId::new(venue).ok()?)
    }

    fn of_unnamed(&self) -> Option<VenueCalendar> {
        self.venues.calendar(self.of_entry?)
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
