//! Appending one event to the columns of its kind: every value is read and checked before any is written, so that a
//! refused event leaves nothing behind (but perhaps an interned name).

use std::borrow::Cow;
use std::hash::BuildHasher;

use dwell_model::event::{Column, EventBatch, Kind, NO_I64, NO_TEXT, StringId, Strings};
use dwell_model::ids::MAX_NAME_BYTES;
use dwell_model::time::TsMs;
use hashbrown::HashMap;

use super::super::{Value, WireEvent, WireField, wrong_type};
use super::missing;
use crate::refusal::Problem;
use crate::validate::{self, CrossingPart, MAX_INTEGER};

/// Numbers crossings that nothing else tells apart, for the whole of a message: a retry of the same message numbers
/// them alike.
///
/// Keyed by a hash, so that a file of millions of such crossings takes 12 bytes for each. Two that share a hash by
/// chance only get other ordinals, and always the same ones.
#[derive(Debug, Default)]
pub(crate) struct Ordinals {
    seen: HashMap<u64, u32, foldhash::fast::FixedState>,
    hasher: foldhash::fast::FixedState,
}

impl Ordinals {
    /// The ordinal of one more crossing with this identity, from 1.
    fn next(&mut self, identity: (u64, TsMs, &str, &str, &str)) -> u32 {
        let count = self.seen.entry(self.hasher.hash_one(identity)).or_insert(0);
        *count += 1;
        *count
    }
}

/// Appends events; keeps the buffer in which keys are composed.
#[derive(Debug, Default)]
pub(super) struct Appender {
    key: String,
}

/// What every kind has besides its payload.
struct Head {
    sensor: StringId,
    key: StringId,
    revision: i64,
}

impl Appender {
    /// Appends an event to a batch of its kind, or leaves the batch's rows as they are.
    pub(super) fn append(
        &mut self,
        batch: &mut EventBatch,
        ts: TsMs,
        event: &WireEvent<'_>,
        venue: u64,
        ordinals: &mut Ordinals,
    ) -> Result<(), Problem> {
        let revision = integer(event, WireField::Revision, -MAX_INTEGER)?.unwrap_or(0);
        let sensor = required_name(&mut batch.strings, event, WireField::Sensor)?;
        let head = |key| Head {
            sensor,
            key,
            revision,
        };
        match batch.kind {
            Kind::Position => {
                let key = required_name(&mut batch.strings, event, WireField::Track)?;
                let x = required(coordinate(event, WireField::X)?, WireField::X)?;
                let y = required(coordinate(event, WireField::Y)?, WireField::Y)?;
                let floor = name(&mut batch.strings, event, WireField::Floor)?;
                let [xs, ys, floors] = columns(batch);
                push_f32(xs, x);
                push_f32(ys, y);
                push_text(floors, floor);
                push_head(batch, ts, head(key));
            }
            Kind::Crossing => self.append_crossing(batch, ts, event, venue, ordinals, head)?,
            Kind::Count => {
                let key = required_name(&mut batch.strings, event, WireField::Counter)?;
                let mode = validate::count_mode(&required_text(event, WireField::Mode)?)?;
                let value = integer(event, WireField::Value, -MAX_INTEGER)?;
                let value = validate::count_value(mode, required(value, WireField::Value)?)?;
                let mode = batch.strings.intern(mode.word());
                let [values, modes] = columns(batch);
                push_i64(values, Some(value));
                push_text(modes, mode);
                push_head(batch, ts, head(key));
            }
            Kind::Presence => {
                let key = required_name(&mut batch.strings, event, WireField::Device)?;
                let rssi = integer(event, WireField::Rssi, i64::from(i32::MIN))?;
                let x = coordinate(event, WireField::X)?;
                let y = coordinate(event, WireField::Y)?;
                let [rssis, xs, ys] = columns(batch);
                push_i64(rssis, rssi);
                push_f32(xs, x.unwrap_or(f32::NAN));
                push_f32(ys, y.unwrap_or(f32::NAN));
                push_head(batch, ts, head(key));
            }
            Kind::Transaction => {
                let key = required_name(&mut batch.strings, event, WireField::Number)?;
                let amount = required(
                    integer(event, WireField::Amount, -MAX_INTEGER)?,
                    WireField::Amount,
                )?;
                let currency = required_text(event, WireField::Currency)?;
                validate::currency(&currency)?;
                let void = event.get(WireField::Void).truth(WireField::Void)?;
                let items = items(event)?;
                let currency = batch.strings.intern(&currency);
                let items = items.map_or(NO_TEXT, |items| batch.strings.intern(&items));
                let [amounts, currencies, voids, all_items] = columns(batch);
                push_i64(amounts, Some(amount));
                push_text(currencies, currency);
                push_i64(voids, void.map(i64::from));
                push_text(all_items, items);
                push_head(batch, ts, head(key));
            }
            Kind::Reading => {
                let key = required_name(&mut batch.strings, event, WireField::Metric)?;
                let value = required(
                    event.get(WireField::Value).float(WireField::Value)?,
                    WireField::Value,
                )?;
                let value = validate::reading(value)?;
                let unit = required_text(event, WireField::Unit)?;
                validate::unit(&unit)?;
                let unit = batch.strings.intern(&unit);
                let [values, units] = columns(batch);
                push_f64(values, value);
                push_text(units, unit);
                push_head(batch, ts, head(key));
            }
            Kind::Status => {
                let state = validate::sensor_state(&required_text(event, WireField::State)?)?;
                let sent = integer(event, WireField::Sent, 0)?;
                let dropped = integer(event, WireField::Dropped, 0)?;
                let sequence = integer(event, WireField::Sequence, 0)?;
                let offset = integer(event, WireField::ClockOffsetMs, -MAX_INTEGER)?;
                let state = batch.strings.intern(state.word());
                let key = batch.strings.intern("");
                let [states, sents, droppeds, sequences, offsets] = columns(batch);
                push_text(states, state);
                push_i64(sents, sent);
                push_i64(droppeds, dropped);
                push_i64(sequences, sequence);
                push_i64(offsets, offset);
                push_head(batch, ts, head(key));
            }
        }
        Ok(())
    }

    fn append_crossing(
        &mut self,
        batch: &mut EventBatch,
        ts: TsMs,
        event: &WireEvent<'_>,
        venue: u64,
        ordinals: &mut Ordinals,
        head: impl Fn(StringId) -> Head,
    ) -> Result<(), Problem> {
        let line = required_name(&mut batch.strings, event, WireField::Line)?;
        let direction = validate::direction(&required_text(event, WireField::Direction)?)?;
        let count = integer(event, WireField::Count, 1)?.unwrap_or(1);
        let track = name(&mut batch.strings, event, WireField::Track)?;
        let seq = integer(event, WireField::Seq, -MAX_INTEGER)?;
        let sensor = head(0).sensor;
        let strings = &batch.strings;
        let (part, weak) = match (track, seq) {
            (NO_TEXT, None) => {
                let identity = (
                    venue,
                    ts,
                    strings.get(sensor),
                    strings.get(line),
                    direction.word(),
                );
                (CrossingPart::Ordinal(ordinals.next(identity)), Some(1))
            }
            (NO_TEXT, Some(seq)) => (CrossingPart::Sequence(seq), None),
            (track, _) => (CrossingPart::Track(strings.get(track)), None),
        };
        validate::crossing_key(&mut self.key, strings.get(line), direction, part);
        let key = batch.strings.intern(&self.key);
        let direction = batch.strings.intern(direction.word());
        let [lines, directions, counts, tracks, seqs, weaks] = columns(batch);
        push_text(lines, line);
        push_text(directions, direction);
        push_i64(counts, Some(count));
        push_text(tracks, track);
        push_i64(seqs, seq);
        push_i64(weaks, weak);
        push_head(batch, ts, head(key));
        Ok(())
    }
}

fn push_head(batch: &mut EventBatch, ts: TsMs, head: Head) {
    batch.ts.push(ts);
    batch.sensor.push(head.sensor);
    batch.key.push(head.key);
    batch.revision.push(head.revision);
}

/// The payload columns of a batch, as many as its kind has.
fn columns<const N: usize>(batch: &mut EventBatch) -> [&mut Column; N] {
    let mut columns = batch.payload.iter_mut();
    // `EventBatch::new` makes a column for each of the kind's fields; the tests below append one event of each kind.
    std::array::from_fn(|_| {
        columns
            .next()
            .unwrap_or_else(|| unreachable!("a batch without its columns"))
    })
}

fn push_f32(column: &mut Column, value: f32) {
    if let Column::F32(values) = column {
        values.push(value);
    }
}

fn push_f64(column: &mut Column, value: f64) {
    if let Column::F64(values) = column {
        values.push(value);
    }
}

fn push_i64(column: &mut Column, value: Option<i64>) {
    if let Column::I64(values) = column {
        values.push(value.unwrap_or(NO_I64));
    }
}

fn push_text(column: &mut Column, value: StringId) {
    if let Column::Text(values) = column {
        values.push(value);
    }
}

fn required<T>(value: Option<T>, field: WireField) -> Result<T, Problem> {
    value.ok_or_else(|| missing(field))
}

fn required_text<'e>(event: &'e WireEvent<'_>, field: WireField) -> Result<Cow<'e, str>, Problem> {
    required(event.get(field).text(field)?, field)
}

fn required_name(
    strings: &mut Strings,
    event: &WireEvent<'_>,
    field: WireField,
) -> Result<StringId, Problem> {
    match name(strings, event, field)? {
        NO_TEXT => Err(missing(field)),
        id => Ok(id),
    }
}

/// The number of a name, or of none. A name that the dictionary holds has been checked before.
fn name(strings: &mut Strings, event: &WireEvent<'_>, field: WireField) -> Result<StringId, Problem> {
    let Some(text) = event.get(field).text(field)? else {
        return Ok(NO_TEXT);
    };
    if (1..=MAX_NAME_BYTES).contains(&text.len())
        && let Some(id) = strings.find(&text)
        // Composite keys are in the dictionary, too, and hold separators that a name may not.
        && !text.contains(validate::KEY_SEPARATOR)
    {
        return Ok(id);
    }
    validate::name(field, &text)?;
    Ok(strings.intern(&text))
}

fn integer(event: &WireEvent<'_>, field: WireField, at_least: i64) -> Result<Option<i64>, Problem> {
    event
        .get(field)
        .integer(field)?
        .map(|number| validate::integer(field, number, at_least))
        .transpose()
}

fn coordinate(event: &WireEvent<'_>, field: WireField) -> Result<Option<f32>, Problem> {
    event
        .get(field)
        .float(field)?
        .map(|metres| validate::coordinate(field, metres))
        .transpose()
}

fn items(event: &WireEvent<'_>) -> Result<Option<String>, Problem> {
    match event.get(WireField::Items) {
        Value::Absent => Ok(None),
        Value::Json(json) => validate::canonical_items(json).map(Some),
        Value::Cell(json) | Value::Text(json) => validate::canonical_items(json).map(Some),
        other => Err(wrong_type(WireField::Items, "a list", other)),
    }
}
