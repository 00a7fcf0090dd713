//! Who is to be erased: as asked for, as sealed in the job, and as the ledger names them.
//!
//! The identifier comes in clear with the request. Before anything else is done the job's stored parameters are replaced
//! by a sealed form (XChaCha20-Poly1305 under a key derived from the ledger's), from which a worker that takes the job
//! over can go on; when the job is done, that goes too, and the keyed hash is all that is left.

use anyhow::{Context, Result, bail};
use chacha20poly1305::aead::{Aead, AeadCore, OsRng};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use dwell_ingest::pseudonymise::{is_pseudonym, normalise, pseudonym_under};
use dwell_model::event::Kind;
use dwell_model::ids::{VenueId, VenueKey, check_name};
use dwell_model::time::{DAY_MS, HOUR_MS, LocalDay, TsMs, VenueCalendar, parse_ts, slot_of};
use dwell_storage::api::{ErasedSubject, Job, LedgerKey, PseudonymKey, SubjectClass, SubjectHash};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Eraser;
use crate::backup::restoring::random_key;

const NONCE_BYTES: usize = 24;
/// Days around today whose pseudonym keys are asked for, besides those that hold presence.
const KEY_DAYS_BACK: i64 = 40;
/// How far two cuts of a venue can shift a day: zones lie up to 26 hours apart, and days begin up to 23 hours later.
const CUTS_APART_MS: i64 = 49 * HOUR_MS;

/// Who is meant, in clear.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Named {
    Track(String),
    Device(String),
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Whom {
    pub(crate) venue: VenueKey,
    pub(crate) named: Named,
    pub(crate) sensor: Option<String>,
    /// First event time, and the first after the last.
    pub(crate) from: TsMs,
    pub(crate) until: TsMs,
}

/// A job's parameters, as stored.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Spec {
    pub(crate) venues: Value,
    #[serde(default)]
    pub(crate) dry_run: bool,
    track: Option<String>,
    device: Option<String>,
    sensor: Option<String>,
    from_time: Option<String>,
    to_time: Option<String>,
    /// The two above and the sensor, once they are sealed.
    sealed: Option<String>,
    /// Id of an erasure that is to be carried out once more.
    pub(crate) again: Option<String>,
}

/// What is sealed.
#[derive(Serialize, Deserialize)]
struct Sealed {
    named: Named,
    sensor: Option<String>,
}

impl Spec {
    /// Who is meant; times covered end at the request.
    pub(crate) fn whom(&self, job: &Job, key: &LedgerKey) -> Result<Whom> {
        let Some([venue]) = self.venues.as_array().map(Vec::as_slice) else {
            bail!("one venue must be named");
        };
        let venue = VenueId::new(venue.as_str().unwrap_or_default())?;
        let (named, sensor) = match (&self.sealed, &self.track, &self.device) {
            (Some(sealed), ..) => {
                let Sealed { named, sensor } = open(key, &job.id, sealed)?;
                (named, sensor)
            }
            (None, Some(track), None) => (Named::Track(track.clone()), self.sensor.clone()),
            (None, None, Some(device)) => (Named::Device(device.clone()), self.sensor.clone()),
            _ => bail!("either a track or a device must be named"),
        };
        let time = |text: &Option<String>| text.as_deref().map(parse_ts).transpose();
        let from = time(&self.from_time)?.unwrap_or(TsMs::MIN);
        // An instant is a bound that is not covered, as everywhere; without one everything up to the request is.
        let until = time(&self.to_time)?.unwrap_or(TsMs::MAX);
        Ok(Whom {
            venue: VenueKey::new(job.tenant.clone(), venue),
            named,
            sensor,
            from,
            until: until.min(job.created_at.saturating_add(1)),
        })
    }

    /// The parameters with who is meant sealed.
    pub(crate) fn sealed(&self, job: &Job, whom: &Whom, key: &LedgerKey) -> Result<Value> {
        let mut spec = self.without_names(job);
        spec["sealed"] = json!(seal(key, &job.id, whom)?);
        Ok(spec)
    }

    /// The parameters with a keyed hash in place of who is meant.
    pub(crate) fn forgotten(&self, job: &Job, subject: SubjectHash) -> Value {
        let mut spec = self.without_names(job);
        spec["subject"] = json!(subject);
        spec
    }

    fn without_names(&self, job: &Job) -> Value {
        let mut spec = job.spec.clone();
        if let Some(fields) = spec.as_object_mut() {
            for name in ["track", "device", "sensor", "sealed", "subject"] {
                fields.remove(name);
            }
        }
        spec
    }
}

impl Whom {
    /// The class that it is asked by.
    pub(crate) fn class(&self) -> SubjectClass {
        match self.named {
            Named::Track(_) => SubjectClass::Track,
            Named::Device(_) => SubjectClass::Device,
        }
    }

    /// What a receipt keeps of the name. A device's is that of the identifier, which differs from those of its
    /// pseudonyms.
    pub(crate) fn hash(&self, key: &LedgerKey) -> SubjectHash {
        match &self.named {
            Named::Track(track) => key.hash(SubjectClass::Track, &self.venue, track),
            Named::Device(device) => key.hash(SubjectClass::Device, &self.venue, &normalise(device)),
        }
    }

    /// The subjects that the ledger is to name, and the days of a device whose key is gone or never was there. A day for
    /// which presence is still taken gets its key now, unless it has one: a gateway may have heard the device before the
    /// request and bring the day's first events after it.
    pub(crate) async fn subjects(
        &self,
        eraser: &Eraser,
        calendar: VenueCalendar,
        key: &LedgerKey,
        dry_run: bool,
    ) -> Result<(Vec<ErasedSubject>, Vec<LocalDay>)> {
        let sensor = self
            .sensor
            .as_ref()
            .map(|sensor| key.hash(SubjectClass::Sensor, &self.venue, sensor));
        let subject = |name: &str, from: TsMs, until: TsMs| ErasedSubject {
            class: self.class(),
            name: key.hash(self.class(), &self.venue, name),
            sensor,
            from: from.max(self.from),
            until: until.min(self.until),
        };
        let device = match &self.named {
            Named::Track(track) => return Ok((vec![subject(track, self.from, self.until)], Vec::new())),
            Named::Device(device) if is_pseudonym(device) => {
                return Ok((vec![subject(device, self.from, self.until)], Vec::new()));
            }
            Named::Device(device) => device,
        };
        let (mut subjects, mut not_findable) = (Vec::new(), Vec::new());
        let with_presence = self.days_with_presence(eraser, calendar).await?;
        let mut days = with_presence.clone();
        let now = eraser.clock.now_ms();
        days.extend((-1..=KEY_DAYS_BACK).map(|back| calendar.day_of(now - back * DAY_MS)));
        days.sort();
        days.dedup();
        for day in days {
            let (start, end) = calendar.bounds(day);
            // A key is its day's as the venue was cut then: after a recut its events may lie on other days.
            let (first, last) = (start - CUTS_APART_MS, end + CUTS_APART_MS);
            if last <= self.from || self.until <= first {
                continue;
            }
            let keys = &eraser.bare.pseudonym_keys;
            let keep_until = end.saturating_add(eraser.presence_late_ms);
            let mut known = keys.look_up(&self.venue, day).await?.map(|stored| stored.key);
            if known.is_none() && !dry_run && keep_until > now && start < self.until {
                let candidate = random_key()?;
                known = Some(
                    keys.get_or_create(&self.venue, day, candidate, keep_until)
                        .await?,
                );
            }
            match known {
                Some(PseudonymKey::Live(day_key)) => {
                    subjects.push(subject(&pseudonym_under(&day_key, device), first, last));
                }
                _ if with_presence.contains(&day) && self.from < end && start < self.until => {
                    not_findable.push(day);
                }
                _ => {}
            }
        }
        Ok((subjects, not_findable))
    }

    /// Days that raw or the archive holds presence of.
    async fn days_with_presence(&self, eraser: &Eraser, calendar: VenueCalendar) -> Result<Vec<LocalDay>> {
        let mut days: Vec<LocalDay> = Vec::new();
        for (day, kind) in eraser.bare.archive.days(&self.venue).await? {
            if kind == Kind::Presence {
                days.push(day);
            }
        }
        let range = self.from..self.until;
        let mut last = None;
        for (slot, _) in eraser.bare.raw.marked_slots(&self.venue, range).await? {
            let start = slot * dwell_model::time::SLOT_MS;
            debug_assert_eq!(slot_of(start), slot);
            let day = calendar.day_of(start);
            if last == Some(day) {
                continue;
            }
            last = Some(day);
            let (from, to) = calendar.bounds(day);
            let counted = eraser.bare.raw.count(&self.venue, from..to).await?;
            if counted.iter().any(|(kind, _)| *kind == Kind::Presence) {
                days.push(day);
            }
        }
        Ok(days)
    }

    /// The texts whose bytes no database file may hold, as far as they tell enough to be looked for.
    pub(crate) fn texts(&self) -> Vec<String> {
        let texts = match &self.named {
            Named::Track(track) => vec![track.clone()],
            Named::Device(device) => vec![device.clone(), normalise(device)],
        };
        // A short text stands anywhere by chance.
        let mut texts: Vec<String> = texts.into_iter().filter(|text| text.len() >= 6).collect();
        texts.dedup();
        texts
    }
}

/// Refuses what cannot be meant.
pub(crate) fn check(options: &serde_json::Map<String, Value>) -> Result<()> {
    let text = |name: &str| -> Result<Option<&str>> {
        match options.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => bail!("{name} must be a text"),
        }
    };
    if options.contains_key("again") {
        return Ok(());
    }
    let (track, device, sensor) = (text("track")?, text("device")?, text("sensor")?);
    if track.is_some() == device.is_some() {
        bail!("name whom to erase: either track or device");
    }
    for name in [track, device, sensor].into_iter().flatten() {
        check_name(name).with_context(|| "no sensor can have sent this name")?;
    }
    let time = |name: &str| -> Result<Option<TsMs>> {
        let parsed = text(name)?.map(parse_ts).transpose();
        parsed.with_context(|| format!("{name} is no time"))
    };
    if let (Some(from), Some(to)) = (time("from_time")?, time("to_time")?)
        && to <= from
    {
        bail!("to_time must be after from_time");
    }
    Ok(())
}

fn cipher(key: &LedgerKey) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(&key.derive("names in jobs that erase").into())
}

fn seal(key: &LedgerKey, job: &str, whom: &Whom) -> Result<String> {
    let sealed = Sealed {
        named: whom.named.clone(),
        sensor: whom.sensor.clone(),
    };
    let nonce = XChaCha20Poly1305::generate_nonce(&mut OsRng);
    let payload = chacha20poly1305::aead::Payload {
        msg: &serde_json::to_vec(&sealed)?,
        aad: job.as_bytes(),
    };
    let Ok(body) = cipher(key).encrypt(&nonce, payload) else {
        bail!("sealing whom to erase failed");
    };
    Ok(hex::encode([nonce.as_slice(), &body].concat()))
}

fn open(key: &LedgerKey, job: &str, sealed: &str) -> Result<Sealed> {
    let bytes = hex::decode(sealed).context("the job's parameters cannot be read")?;
    let Some((nonce, body)) = bytes.split_at_checked(NONCE_BYTES) else {
        bail!("the job's parameters are cut off");
    };
    let payload = chacha20poly1305::aead::Payload {
        msg: body,
        aad: job.as_bytes(),
    };
    let Ok(opened) = cipher(key).decrypt(XNonce::from_slice(nonce), payload) else {
        bail!("the job's parameters were sealed under another key, or changed");
    };
    Ok(serde_json::from_slice(&opened)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(value: Value) -> serde_json::Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn nonsense_is_refused_at_once() {
        for good in [
            json!({"track": "t9"}),
            json!({"device": "aa:bb", "from_time": "2026-03-01T00:00:00Z", "to_time": "2026-03-02T00:00:00Z"}),
            json!({"again": "job"}),
        ] {
            check(&options(good.clone())).unwrap_or_else(|error| panic!("{good}: {error}"));
        }
        for bad in [
            json!({}),
            json!({"track": "t9", "device": "d"}),
            json!({"track": ""}),
            json!({"track": 9}),
            json!({"track": "t9", "from_time": "yesterday"}),
            json!({"track": "t9", "from_time": "2026-03-02T00:00:00Z", "to_time": "2026-03-01T00:00:00Z"}),
        ] {
            assert!(check(&options(bad.clone())).is_err(), "{bad}");
        }
    }
}
