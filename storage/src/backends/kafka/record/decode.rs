//! JSON to columns.

use std::borrow::Cow;
use std::fmt;

use dwell_model::event::{Column, EventBatch, Field, FieldType, Kind, NO_I64};
use dwell_model::ids::{Receipt, TenantId, VenueId, VenueKey};
use dwell_model::time::{MAX_TS, MIN_TS, TsMs};
use serde::Deserialize;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{ITEMS, VERSION, is_flag};
use crate::api::{LoggedRecord, Position};

/// Most fields of a payload.
const FIELDS_MAX: usize = 6;

/// Why a record cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in super::super) enum Damage {
    #[error("it has no value")]
    NoValue,
    #[error("its value is not JSON of the form expected: {0}")]
    Syntax(String),
    #[error("it is of version {0} of the format, of which this Dwell knows version {VERSION}")]
    Version(String),
    #[error("it lacks the field {0}")]
    Missing(&'static str),
    #[error("its field {0} is not {1}")]
    Wrong(&'static str, &'static str),
    #[error("it is of kind {found} in a topic of kind {expected}")]
    Kind { found: String, expected: Kind },
    #[error("it stands in partition {found}, but records with the key {key} belong to partition {expected}")]
    Place { key: String, found: u32, expected: u32 },
}

/// Records being put together from events: neighbours of one venue, receipt and time of receipt become one.
#[derive(Debug, Default)]
pub(in super::super) struct Runs {
    records: Vec<LoggedRecord>,
    bytes: usize,
}

impl Runs {
    /// Whether there is no event.
    pub(in super::super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Memory that the events take, roughly.
    pub(in super::super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the first event was received.
    pub(in super::super) fn first_received_at(&self) -> Option<TsMs> {
        self.records.first().map(|record| record.received_at)
    }

    /// Takes the records out.
    pub(in super::super) fn take(&mut self) -> Vec<LoggedRecord> {
        self.bytes = 0;
        std::mem::take(&mut self.records)
    }
}

/// Reads the records of one partition of a kind's topic. Remembers the last venue, whose place needs no second look.
#[derive(Debug)]
pub(in super::super) struct Decoder {
    kind: Kind,
    shard: u32,
    shards: u32,
    /// Bytes of an event in columns, names apart.
    event_bytes: usize,
}

impl Decoder {
    pub(in super::super) fn new(kind: Kind, shard: u32, shards: u32) -> Self {
        let payload: usize = kind.fields().iter().map(|field| width(field.ty)).sum();
        Self {
            kind,
            shard,
            shards,
            // Time and revision of 8 bytes, sensor and key of 4.
            event_bytes: 24 + payload,
        }
    }

    /// Reads a record and adds its event to the runs. `received_at` is the partition's time at the record, which an
    /// imported event replaces by its own. After an error the runs are as before.
    pub(in super::super) fn add(
        &self,
        position: Position,
        received_at: TsMs,
        value: Option<&[u8]>,
        runs: &mut Runs,
    ) -> Result<(), Damage> {
        let text = std::str::from_utf8(value.ok_or(Damage::NoValue)?)
            .map_err(|error| Damage::Syntax(error.to_string()))?;
        let event = self.event(text)?;
        let received_at = event.received_at.unwrap_or(received_at);
        let continues = runs.records.last().is_some_and(|last| {
            last.received_at == received_at
                && last.receipt == event.receipt
                && last.venue.tenant.as_str() == event.tenant
                && last.venue.venue.as_str() == event.venue
        });
        if !continues {
            let venue = match runs.records.last() {
                Some(last)
                    if last.venue.tenant.as_str() == event.tenant
                        && last.venue.venue.as_str() == event.venue =>
                {
                    last.venue.clone()
                }
                _ => self.venue(&event)?,
            };
            runs.records.push(LoggedRecord {
                position,
                received_at,
                venue,
                receipt: event.receipt,
                events: EventBatch::new(self.kind),
            });
        }
        if let Some(record) = runs.records.last_mut() {
            let names_before = record.events.strings.len();
            push(&mut record.events, &event);
            // New names are counted by their number: the length of each is small beside the rest.
            runs.bytes += self.event_bytes + 24 * (record.events.strings.len() - names_before);
        }
        Ok(())
    }

    fn venue(&self, event: &Event<'_>) -> Result<VenueKey, Damage> {
        let venue = VenueKey::new(
            TenantId::new(&event.tenant).map_err(|_| Damage::Wrong("tenant", "a tenant's id"))?,
            VenueId::new(&event.venue).map_err(|_| Damage::Wrong("venue", "a venue's id"))?,
        );
        let key = super::super::layout::key_of(&venue);
        let expected = super::super::layout::shard_of_key(key.as_bytes(), self.shards);
        match expected == self.shard {
            true => Ok(venue),
            // Taken here it would be counted apart from the venue's other events.
            false => Err(Damage::Place {
                key,
                found: self.shard,
                expected,
            }),
        }
    }

    fn event<'a>(&self, text: &'a str) -> Result<Event<'a>, Damage> {
        let syntax = |error: serde_json::Error| Damage::Syntax(error.to_string());
        let mut json = serde_json::Deserializer::from_str(text);
        let raw = RawEventOf(self.kind).deserialize(&mut json).map_err(syntax)?;
        json.end().map_err(syntax)?;
        match raw.v {
            Some("1") => {}
            Some(v) => return Err(Damage::Version(v.chars().take(32).collect())),
            None => return Err(Damage::Missing("v")),
        }
        let kind = text_of("kind", raw.kind)?;
        if kind != self.kind.name() {
            return Err(Damage::Kind {
                found: kind.chars().take(32).collect(),
                expected: self.kind,
            });
        }
        let ts = integer("ts", raw.ts.ok_or(Damage::Missing("ts"))?)?;
        if !(MIN_TS..MAX_TS).contains(&ts) {
            return Err(Damage::Wrong("ts", "a time between 1970 and 2199"));
        }
        let key = match raw.key {
            None if self.kind == Kind::Status => Cow::Borrowed(""),
            key => text_of(self.kind.key_name(), key)?,
        };
        let mut payload = [const { Value::Absent }; FIELDS_MAX];
        for ((field, raw), value) in self.kind.fields().iter().zip(raw.payload).zip(&mut payload) {
            *value = value_of(field, raw)?;
        }
        let receipt = text_of("receipt", raw.receipt)?;
        Ok(Event {
            tenant: text_of("tenant", raw.tenant)?,
            venue: text_of("venue", raw.venue)?,
            receipt: receipt
                .parse::<Receipt>()
                .map_err(|_| Damage::Wrong("receipt", "32 hexadecimal digits"))?,
            received_at: raw
                .received_at
                .map(|raw| integer("received_at", raw))
                .transpose()?,
            sensor: text_of("sensor", raw.sensor)?,
            ts,
            key,
            revision: raw.revision.map_or(Ok(0), |raw| integer("revision", raw))?,
            payload,
        })
    }
}

/// An event as it was written.
struct Event<'a> {
    tenant: Cow<'a, str>,
    venue: Cow<'a, str>,
    receipt: Receipt,
    received_at: Option<TsMs>,
    sensor: Cow<'a, str>,
    ts: TsMs,
    key: Cow<'a, str>,
    revision: i64,
    payload: [Value<'a>; FIELDS_MAX],
}

enum Value<'a> {
    Absent,
    F32(f32),
    F64(f64),
    I64(i64),
    Text(Cow<'a, str>),
}

fn push(batch: &mut EventBatch, event: &Event<'_>) {
    let sensor = batch.strings.intern(&event.sensor);
    let key = batch.strings.intern(&event.key);
    batch.ts.push(event.ts);
    batch.sensor.push(sensor);
    batch.key.push(key);
    batch.revision.push(event.revision);
    for (column, value) in batch.payload.iter_mut().zip(&event.payload) {
        match (column, value) {
            (Column::F32(values), Value::F32(value)) => values.push(*value),
            (Column::F64(values), Value::F64(value)) => values.push(*value),
            (Column::I64(values), Value::I64(value)) => values.push(*value),
            (Column::Text(ids), Value::Text(text)) => ids.push(batch.strings.intern(text)),
            (column, _) => column.push_absent(),
        }
    }
}

fn width(ty: FieldType) -> usize {
    match ty {
        FieldType::F32 | FieldType::Text => 4,
        FieldType::F64 | FieldType::I64 => 8,
    }
}

fn value_of<'a>(field: &Field, raw: Option<&'a str>) -> Result<Value<'a>, Damage> {
    let Some(raw) = raw else {
        return match field.required {
            true => Err(Damage::Missing(field.name)),
            false => Ok(Value::Absent),
        };
    };
    Ok(match field.ty {
        FieldType::F32 => Value::F32(float(field.name, raw, f32::is_finite)?),
        FieldType::F64 => Value::F64(float(field.name, raw, f64::is_finite)?),
        FieldType::I64 if raw == "true" && is_flag(field.name) => Value::I64(1),
        FieldType::I64 if raw == "false" && is_flag(field.name) => Value::I64(0),
        FieldType::I64 => match integer(field.name, raw)? {
            NO_I64 => return Err(Damage::Wrong(field.name, "an integer above -2^63")),
            number => Value::I64(number),
        },
        FieldType::Text if field.name == ITEMS && raw.starts_with('[') => Value::Text(Cow::Borrowed(raw)),
        FieldType::Text => Value::Text(text_of(field.name, Some(raw))?),
    })
}

/// Reads a number of the width it is kept in: through a wider one it would be rounded twice.
fn float<T: std::str::FromStr + Copy>(
    name: &'static str,
    raw: &str,
    is_finite: impl Fn(T) -> bool,
) -> Result<T, Damage> {
    // The grammar of JSON has been checked: what begins like this is a number.
    let is_number = raw.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    match raw.parse().ok().filter(|&value| is_number && is_finite(value)) {
        Some(value) => Ok(value),
        None => Err(Damage::Wrong(name, "a finite number")),
    }
}

fn integer(name: &'static str, raw: &str) -> Result<i64, Damage> {
    raw.parse()
        .map_err(|_| Damage::Wrong(name, "an integer of 64 bits"))
}

/// The text of a JSON string; borrowed where it holds no escapes.
fn text_of<'a>(name: &'static str, raw: Option<&'a str>) -> Result<Cow<'a, str>, Damage> {
    let raw = raw.ok_or(Damage::Missing(name))?;
    let quoted = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match quoted {
        Some(text) if !text.contains('\\') => Ok(Cow::Borrowed(text)),
        Some(_) => serde_json::from_str(raw)
            .map(Cow::Owned)
            .map_err(|_| Damage::Wrong(name, "a text")),
        None => Err(Damage::Wrong(name, "a text")),
    }
}

/// The values of the known fields as they stand in the text. A value of `null` counts as none.
#[derive(Default)]
struct RawEvent<'a> {
    v: Option<&'a str>,
    tenant: Option<&'a str>,
    venue: Option<&'a str>,
    kind: Option<&'a str>,
    receipt: Option<&'a str>,
    received_at: Option<&'a str>,
    sensor: Option<&'a str>,
    ts: Option<&'a str>,
    key: Option<&'a str>,
    revision: Option<&'a str>,
    payload: [Option<&'a str>; FIELDS_MAX],
}

impl<'a> RawEvent<'a> {
    /// Where the value of a field of this name goes.
    fn slot(&mut self, kind: Kind, name: &str) -> Option<&mut Option<&'a str>> {
        let own = match name {
            "v" => &mut self.v,
            "tenant" => &mut self.tenant,
            "venue" => &mut self.venue,
            "kind" => &mut self.kind,
            "receipt" => &mut self.receipt,
            "received_at" => &mut self.received_at,
            "sensor" => &mut self.sensor,
            "ts" => &mut self.ts,
            "revision" => &mut self.revision,
            name if name == kind.key_name() => &mut self.key,
            name => {
                let number = kind.fields().iter().position(|field| field.name == name)?;
                self.payload.get_mut(number)?
            }
        };
        Some(own)
    }
}

struct RawEventOf(Kind);

impl<'de> DeserializeSeed<'de> for RawEventOf {
    type Value = RawEvent<'de>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RawEventOf {
    type Value = RawEvent<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawEvent<'de>, A::Error> {
        #[derive(Deserialize)]
        struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

        let mut event = RawEvent::default();
        while let Some(Name(name)) = map.next_key()? {
            let Some(slot) = event.slot(self.0, &name) else {
                // Another version of the writer, or another writer, may know more.
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if slot.is_some() {
                return Err(serde::de::Error::custom(format_args!(
                    "the field {name} stands twice"
                )));
            }
            let raw = map.next_value::<&'de RawValue>()?.get();
            if raw != "null" {
                *slot = Some(raw);
            }
        }
        Ok(event)
    }
}
