//! What was refused, kept with its reason until somebody has looked at it; and playing it in again.
//!
//! No identifier is kept in clear. An event that was taken apart with certainty is kept as it came, a device in it
//! replaced by its pseudonym; anything else is sealed ([`seal`]) with a key that is destroyed after seven days.
//!
//! An entry's id is made of the hour, the receipt and the event's number, so that a retry adds nothing: a message whose
//! entries of the hour before are there goes on with that hour.
//!
//! - [`QuarantineKeeper`] makes entries of refusals, within limits per message and tenant.
//! - [`Replayer`] decodes entries again and takes what can now be taken.

mod marks;
mod replay;
mod seal;

pub use marks::{Mark, mark};
pub use replay::{Look, Mapping, Replayed, Replayer};

use std::fmt;
use std::sync::Arc;

use dwell_model::ids::{Receipt, TenantId, VenueId, VenueKey};
use dwell_model::time::{HOUR_MS, TsMs};
use dwell_storage::api::{
    PseudonymKeys, Quarantine, QuarantineBounds, QuarantineEncoding, QuarantineEntry, QuarantineScope,
    QuarantineSize, QuarantineState,
};
use dwell_storage::error::Result;

use crate::decode::Format;
use crate::metrics;
use crate::pseudonymise::{Pseudonymiser, Road};
use crate::refusal::{BodyError, Code, DeviceSpot, Keep, Refusal};
use crate::venues::TenantVenues;
use seal::Sealer;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuarantineLimits {
    /// Most entries of one message; the first ones are kept.
    pub message_entries_max: usize,
    /// Most bytes of one entry; what is longer is cut.
    pub entry_bytes_max: usize,
    /// How much may wait of a tenant, of a venue from a source, of a sensor.
    pub bounds: QuarantineBounds,
}

impl Default for QuarantineLimits {
    /// 1,000 entries of a message, 64 KiB each; 1,000,000 entries and 4 GiB of a tenant, 100,000 and 512 MiB of a venue from
    /// a source, 10,000 and 64 MiB of a sensor; 20 of each reason beyond those two.
    fn default() -> Self {
        let size = |entries, mib: u64| QuarantineSize {
            entries,
            bytes: mib << 20,
        };
        Self {
            message_entries_max: 1_000,
            entry_bytes_max: 64 * 1024,
            bounds: QuarantineBounds {
                tenant: size(1_000_000, 4_096),
                source: size(100_000, 512),
                sensor: size(10_000, 64),
                sample_entries: 20,
            },
        }
    }
}

/// The message that refused events came in.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// Whose.
    pub tenant: &'a TenantId,
    /// What brought them.
    pub receipt: Receipt,
    /// When.
    pub received_at: TsMs,
    /// Where they came from: `http`, or the file's name.
    pub source: &'a str,
    /// Format of the bytes.
    pub format: Format,
    /// The header of a CSV message: kept with each of its rows, which mean nothing without.
    pub header: Option<&'a str>,
    /// Whether entries are numbered by line (files) or by event (messages).
    pub numbered_by_line: bool,
}

/// What became of the refusals of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kept {
    /// How many are in the quarantine.
    pub kept: u64,
    /// How many are not, because there are too many.
    pub left_out: u64,
}

/// Keeps refused events. Cheap to clone.
#[derive(Clone)]
pub struct QuarantineKeeper {
    store: Arc<dyn Quarantine>,
    pseudonymiser: Pseudonymiser,
    sealer: Sealer,
    limits: QuarantineLimits,
}

impl fmt::Debug for QuarantineKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuarantineKeeper")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl QuarantineKeeper {
    /// A keeper over a quarantine and the keys with which entries are sealed.
    pub fn new(
        store: Arc<dyn Quarantine>,
        keys: Arc<dyn PseudonymKeys>,
        pseudonymiser: Pseudonymiser,
        limits: QuarantineLimits,
    ) -> Self {
        Self {
            store,
            pseudonymiser,
            sealer: Sealer::new(keys),
            limits,
        }
    }

    /// Keeps refused events of a message; `bytes` are the slice that was given to the decoder. Repeating it adds
    /// nothing.
    pub async fn keep(
        &self,
        origin: &Origin<'_>,
        venues: &TenantVenues,
        bytes: &[u8],
        refusals: &[Refusal],
    ) -> Result<Kept> {
        let some = &refusals[..refusals.len().min(self.limits.message_entries_max)];
        let Some(first) = some.first() else {
            return Ok(Kept::default());
        };
        let hour = self.hour(origin, &number(origin, first)).await?;
        let mut entries = Vec::with_capacity(some.len());
        for refusal in some {
            entries.push(self.entry(origin, venues, hour, bytes, refusal).await?);
        }
        let by_message = (refusals.len() - some.len()) as u64;
        metrics::quarantine_left_out("message_limit", by_message);
        let mut kept = self.store_all(entries).await?;
        kept.left_out += by_message;
        Ok(kept)
    }

    async fn store_all(&self, entries: Vec<QuarantineEntry>) -> Result<Kept> {
        let added = self.store.keep(entries, &self.limits.bounds).await?;
        metrics::quarantined(added.kept);
        for (scope, left_out) in QuarantineScope::ALL.into_iter().zip(added.left_out) {
            let reason = match scope {
                QuarantineScope::Tenant => "tenant_limit",
                QuarantineScope::Source => "source_limit",
                QuarantineScope::Sensor => "sensor_limit",
            };
            metrics::quarantine_left_out(reason, left_out);
        }
        Ok(Kept {
            kept: added.kept,
            left_out: added.left_out.iter().sum(),
        })
    }

    /// Keeps a message that could not be read as a whole: its beginning, sealed.
    pub async fn keep_message(
        &self,
        origin: &Origin<'_>,
        venue: Option<VenueId>,
        bytes: &[u8],
        error: &BodyError,
    ) -> Result<Kept> {
        let hour = self.hour(origin, MESSAGE_NUMBER).await?;
        let id = entry_id(hour, origin.receipt, MESSAGE_NUMBER);
        let cut = &bytes[..bytes.len().min(self.limits.entry_bytes_max)];
        let entry = QuarantineEntry {
            bytes: self
                .sealer
                .seal(origin.tenant, &id, origin.received_at, cut)
                .await?,
            id,
            tenant: origin.tenant.clone(),
            venue,
            received_at: origin.received_at,
            receipt: origin.receipt,
            source: origin.source.to_owned(),
            sensor: None,
            index: 0,
            code: error.code().to_owned(),
            // The particulars may name columns of a file that has no header, which are values.
            message: format!("the message as a whole could not be read ({} bytes)", bytes.len()),
            format: origin.format.name().to_owned(),
            encoding: QuarantineEncoding::Encrypted,
            state: QuarantineState::Open,
        };
        self.store_all(vec![entry]).await
    }

    async fn entry(
        &self,
        origin: &Origin<'_>,
        venues: &TenantVenues,
        hour: i64,
        bytes: &[u8],
        refusal: &Refusal,
    ) -> Result<QuarantineEntry> {
        let id = entry_id(hour, origin.receipt, &number(origin, refusal));
        let event = refusal.place.of(bytes);
        let clear = match &refusal.keep {
            Keep::Plain => Some(event.to_vec()),
            Keep::Device(spot) => self.with_pseudonym(origin, venues, event, spot).await?,
            Keep::Encrypted => None,
        };
        let header = origin.header.filter(|_| origin.format == Format::Csv);
        let with_header = |event: &[u8]| {
            let room = self.limits.entry_bytes_max;
            let mut kept = header
                .map(|header| format!("{header}\n").into_bytes())
                .unwrap_or_default();
            kept.extend_from_slice(event);
            kept.truncate(room);
            kept
        };
        let (encoding, kept) = match clear {
            Some(clear) => (QuarantineEncoding::Plain, with_header(&clear)),
            None => {
                let sealed = self
                    .sealer
                    .seal(origin.tenant, &id, origin.received_at, &with_header(event))
                    .await?;
                (QuarantineEncoding::Encrypted, sealed)
            }
        };
        // Where an identifier may stand anywhere, it may stand in a field's name.
        let message = if encoding == QuarantineEncoding::Plain || refusal.code != Code::UnknownField {
            refusal.message.to_string()
        } else {
            refusal.code.summary().to_owned()
        };
        // The same holds for a sensor's name, unless the venue's layout knows it.
        let is_known = |sensor: &str| {
            let venue = refusal.venue.as_ref();
            encoding == QuarantineEncoding::Plain
                || venue.is_some_and(|venue| venues.names_sensor(venue, sensor))
        };
        let sensor = refusal.sensor.as_deref().filter(|sensor| is_known(sensor));
        Ok(QuarantineEntry {
            id,
            sensor: sensor.map(str::to_owned),
            tenant: origin.tenant.clone(),
            venue: refusal.venue.clone(),
            received_at: origin.received_at,
            receipt: origin.receipt,
            source: origin.source.to_owned(),
            index: if origin.numbered_by_line {
                refusal.place.line
            } else {
                refusal.place.index
            },
            code: refusal.code.as_str().to_owned(),
            message,
            format: origin.format.name().to_owned(),
            encoding,
            bytes: kept,
            state: QuarantineState::Open,
        })
    }

    /// An event's bytes with the device replaced by its pseudonym; `None` when there is none to be had.
    async fn with_pseudonym(
        &self,
        origin: &Origin<'_>,
        venues: &TenantVenues,
        event: &[u8],
        spot: &DeviceSpot,
    ) -> Result<Option<Vec<u8>>> {
        let (start, end) = (spot.start as usize, (spot.start + spot.len) as usize);
        let (Some(before), Some(after)) = (event.get(..start), event.get(end..)) else {
            return Ok(None);
        };
        let Some(calendar) = venues.calendar(&spot.venue) else {
            return Ok(None);
        };
        let venue = VenueKey::new(origin.tenant.clone(), spot.venue.clone());
        let pseudonym = self
            .pseudonymiser
            .pseudonym(&venue, calendar, &spot.device, spot.ts, Road::Gateway)
            .await?;
        Ok(pseudonym.map(|pseudonym| [before, format!("\"{pseudonym}\"").as_bytes(), after].concat()))
    }

    /// The hour in the ids of a message's entries: that of an earlier delivery where there was one lately.
    async fn hour(&self, origin: &Origin<'_>, first: &str) -> Result<i64> {
        let hour = origin.received_at.div_euclid(HOUR_MS);
        let earlier = entry_id(hour - 1, origin.receipt, first);
        let found = self.store.get(origin.tenant, &earlier).await?;
        Ok(if found.is_some() { hour - 1 } else { hour })
    }
}

/// Stands for the number of an event in the id of a whole message.
const MESSAGE_NUMBER: &str = "message";

fn number(origin: &Origin<'_>, refusal: &Refusal) -> String {
    let number = if origin.numbered_by_line {
        refusal.place.line
    } else {
        refusal.place.index
    };
    format!("{number:012x}")
}

fn entry_id(hour: i64, receipt: Receipt, number: &str) -> String {
    format!("{:08x}-{receipt}-{number}", hour.max(0))
}

#[cfg(test)]
mod tests;
