//! Device identifiers become pseudonyms before anything durable is written.
//!
//! The pseudonym of a device is the HMAC-SHA-256 of its normalised identifier under a key of its venue and local day,
//! shortened to 16 bytes: `p:` and 32 hexadecimal digits. Within a day a device is recognised again, from one day to the
//! next it is not. The keys live in [`PseudonymKeys`], apart from the data; when a key's time is over it is destroyed,
//! and with it every possibility to try identifiers against the pseudonyms of that day.
//!
//! Until when presence of a day is taken: from gateways until `presence_late` after the day's end; an import of history
//! keeps the day's key alive until `presence_late` after the import. Once the key is destroyed nothing more is taken.

mod devices;

pub use devices::{is_pseudonym, normalise};

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dwell_model::event::{EventBatch, Kind, StringId};
use dwell_model::ids::{TenantId, VenueId, VenueKey};
use dwell_model::time::{DAY_MS, HOUR_MS, LocalDay, TsMs, VenueCalendar};
use dwell_runtime::clock::SharedClock;
use dwell_storage::api::{PseudonymKey, PseudonymKeys, SecretKey};
use dwell_storage::error::{ErrorKind, Result, StorageError};
use hashbrown::HashMap;

use crate::decode::VenueBatch;
use crate::recent::Recent;
use crate::refusal::{Code, Keep, Place, Refusal};
use crate::venues::TenantVenues;
use devices::DayPseudonyms;
pub(crate) use devices::keyed;

/// How long after a venue-day's end presence is taken for it, unless configured otherwise.
pub const PRESENCE_LATE_MS: i64 = 3 * DAY_MS;

/// On which road presence comes: it decides how long a day's key is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Road {
    /// From a gateway, as it happens.
    Gateway,
    /// History, brought by an operator.
    Import,
}

/// Makes pseudonyms. Clones share the cache of keys.
#[derive(Clone)]
pub struct Pseudonymiser {
    inner: Arc<Inner>,
}

struct Inner {
    keys: Arc<dyn PseudonymKeys>,
    clock: SharedClock,
    presence_late_ms: i64,
    cache: Mutex<Recent<(VenueKey, LocalDay), Cached>>,
}

#[derive(Clone)]
enum Cached {
    Live { key: SecretKey, keep_until: TsMs },
    Destroyed,
}

impl fmt::Debug for Pseudonymiser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pseudonymiser").finish_non_exhaustive()
    }
}

impl Pseudonymiser {
    /// A pseudonymiser that takes presence until `presence_late_ms` after a day's end, and remembers at most
    /// `keys_max` keys.
    pub fn new(
        keys: Arc<dyn PseudonymKeys>,
        clock: SharedClock,
        presence_late_ms: i64,
        keys_max: usize,
    ) -> Self {
        let cache = Mutex::new(Recent::new(keys_max));
        Self {
            inner: Arc::new(Inner {
                keys,
                clock,
                presence_late_ms,
                cache,
            }),
        }
    }

    /// Replaces the devices of all `presence` batches by pseudonyms; other kinds are left as they are. Events of days
    /// whose key is gone are taken out and returned as refused. Afterwards no batch holds an identifier, its dictionary
    /// included.
    pub async fn apply(
        &self,
        tenant: &TenantId,
        venues: &TenantVenues,
        batches: &mut Vec<VenueBatch>,
        road: Road,
    ) -> Result<Vec<Refusal>> {
        self.apply_to(tenant, venues, batches, road, false).await
    }

    /// The same for events from the quarantine, whose devices may be pseudonyms already.
    pub(crate) async fn apply_again(
        &self,
        tenant: &TenantId,
        venues: &TenantVenues,
        batches: &mut Vec<VenueBatch>,
    ) -> Result<Vec<Refusal>> {
        self.apply_to(tenant, venues, batches, Road::Gateway, true).await
    }

    async fn apply_to(
        &self,
        tenant: &TenantId,
        venues: &TenantVenues,
        batches: &mut Vec<VenueBatch>,
        road: Road,
        pseudonyms_pass: bool,
    ) -> Result<Vec<Refusal>> {
        let mut refused = Vec::new();
        for batch in batches
            .iter_mut()
            .filter(|batch| batch.events.kind == Kind::Presence)
        {
            let Some(calendar) = venues.calendar(&batch.venue) else {
                // Decoding has asked the same directory; the venue was taken away in between.
                return Err(StorageError::new(
                    ErrorKind::Conflict,
                    "the venue of presence events is gone",
                ));
            };
            let venue = VenueKey::new(tenant.clone(), batch.venue.clone());
            let mut days = self.days_of(&venue, calendar, &batch.events, road).await?;
            let (events, places) = replace(batch, &mut days, pseudonyms_pass, &mut refused);
            batch.events = events;
            batch.places = places;
        }
        batches.retain(|batch| !batch.events.is_empty());
        Ok(refused)
    }

    /// The pseudonym of one device at an instant; `None` when the day's key is gone.
    pub async fn pseudonym(
        &self,
        venue: &VenueKey,
        calendar: VenueCalendar,
        device: &str,
        ts: TsMs,
        road: Road,
    ) -> Result<Option<String>> {
        let day = calendar.day_of(ts);
        let key = self.key(venue, day, calendar.bounds(day).1, road).await?;
        Ok(key.map(|key| DayPseudonyms::new(&key).of(device)))
    }

    /// The days that a batch touches, each with its key while there is one.
    async fn days_of(
        &self,
        venue: &VenueKey,
        calendar: VenueCalendar,
        events: &EventBatch,
        road: Road,
    ) -> Result<Days> {
        let mut days = Days::default();
        for &ts in &events.ts {
            if days.find(ts).is_some() {
                continue;
            }
            let day = calendar.day_of(ts);
            let (start, end) = calendar.bounds(day);
            let key = self.key(venue, day, end, road).await?;
            days.days.push(Day {
                start,
                end,
                pseudonyms: key.as_ref().map(DayPseudonyms::new),
            });
        }
        Ok(days)
    }

    /// The key of a day that ends at `day_end`; `None` when presence of that day is no longer taken.
    async fn key(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        day_end: TsMs,
        road: Road,
    ) -> Result<Option<SecretKey>> {
        let (now, late) = (self.inner.clock.now_ms(), self.inner.presence_late_ms);
        let keep_until = match road {
            Road::Gateway => day_end.saturating_add(late),
            Road::Import => day_end.max(now).saturating_add(late),
        };
        if keep_until <= now {
            return Ok(None);
        }
        let cache_key = (venue.clone(), day);
        match self.inner.cache().get(&cache_key) {
            Some(Cached::Destroyed) => return Ok(None),
            // A running import would raise the time with every batch: an hour more or less does not matter to it.
            Some(Cached::Live {
                key,
                keep_until: known,
            }) if keep_until <= known.saturating_add(HOUR_MS) && now < known => {
                return Ok(Some(key));
            }
            _ => {}
        }
        let mut candidate = [0_u8; 32];
        getrandom::fill(&mut candidate).map_err(|error| {
            StorageError::new(ErrorKind::Unavailable, format!("asking for randomness: {error}"))
        })?;
        let stored = self
            .inner
            .keys
            .get_or_create(venue, day, SecretKey(candidate), keep_until)
            .await?;
        let (cached, key) = match stored {
            PseudonymKey::Live(key) => (
                Cached::Live {
                    key: key.clone(),
                    keep_until,
                },
                Some(key),
            ),
            PseudonymKey::Destroyed => (Cached::Destroyed, None),
        };
        self.inner.cache().insert(cache_key, cached);
        Ok(key)
    }
}

impl Inner {
    fn cache(&self) -> MutexGuard<'_, Recent<(VenueKey, LocalDay), Cached>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pseudonym of a device under the key of a venue-day.
pub fn pseudonym_under(key: &SecretKey, device: &str) -> String {
    DayPseudonyms::new(key).of(device)
}

/// A venue-day with what makes its pseudonyms, while that exists.
struct Day {
    start: TsMs,
    end: TsMs,
    pseudonyms: Option<DayPseudonyms>,
}

/// The days that a batch touches.
#[derive(Default)]
struct Days {
    days: Vec<Day>,
    /// The day of the event before: mostly the next one's.
    found_before: usize,
}

impl Days {
    fn find(&mut self, ts: TsMs) -> Option<usize> {
        let holds = |day: &Day| (day.start..day.end).contains(&ts);
        if self.days.get(self.found_before).is_some_and(holds) {
            return Some(self.found_before);
        }
        self.found_before = self.days.iter().position(holds)?;
        Some(self.found_before)
    }
}

/// The batch anew, with a dictionary that never held an identifier.
fn replace(
    batch: &VenueBatch,
    days: &mut Days,
    pseudonyms_pass: bool,
    refused: &mut Vec<Refusal>,
) -> (EventBatch, Vec<Place>) {
    let from = &batch.events;
    let mut to = EventBatch::new(Kind::Presence);
    let mut places = Vec::with_capacity(batch.places.len());
    let mut kept_rows = Vec::with_capacity(from.len());
    let mut known: HashMap<(StringId, usize), StringId> = HashMap::new();
    for row in 0..from.len() {
        let (ts, place, device) = (from.ts[row], batch.places[row], from.key[row]);
        let day = days.find(ts);
        let passes = pseudonyms_pass && is_pseudonym(from.key(row));
        let key =
            match day.and_then(|number| days.days[number].pseudonyms.as_ref().map(|made| (number, made))) {
                _ if passes => to.strings.intern(from.key(row)),
                Some((number, pseudonyms)) => *known
                    .entry((device, number))
                    .or_insert_with(|| to.strings.intern(&pseudonyms.of(from.strings.get(device)))),
                None => {
                    refused.push(key_destroyed(place, batch.venue.clone()));
                    continue;
                }
            };
        let sensor = to.strings.intern(from.sensor(row));
        to.ts.push(ts);
        to.sensor.push(sensor);
        to.key.push(key);
        to.revision.push(from.revision[row]);
        places.push(place);
        kept_rows.push(row as u32);
    }
    // The payload of presence holds no text, so its columns need no translation.
    to.payload = from.take(&kept_rows).payload;
    (to, places)
}

fn key_destroyed(place: Place, venue: VenueId) -> Refusal {
    let code = Code::PresenceKeyDestroyed;
    Refusal {
        place,
        code,
        message: code.summary().into(),
        venue: Some(venue),
        sensor: None,
        keep: Keep::Encrypted,
    }
}

#[cfg(test)]
mod tests;
