//! Events of one kind and one venue in columns.

use serde::{Deserialize, Serialize};

use super::{FieldType, Kind, StringId, Strings};
use crate::time::{MAX_TS, MIN_TS, TsMs};

/// An absent integer.
pub const NO_I64: i64 = i64::MIN;
/// An absent text.
pub const NO_TEXT: StringId = StringId::MAX;

/// A payload column. Absent values are NaN, [`NO_I64`] and [`NO_TEXT`], so that no column needs a bitmap.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Column {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// 64-bit floats.
    F64(Vec<f64>),
    /// Integers.
    I64(Vec<i64>),
    /// Texts, as numbers of the batch's dictionary.
    Text(Vec<StringId>),
}

/// Events of one kind and one venue: a column per field, names interned in `strings`.
///
/// The columns are public so that folds and writers can walk them; [`EventBatch::check`] holds what they rely on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventBatch {
    /// What the events tell.
    pub kind: Kind,
    /// The names that the other columns refer to.
    pub strings: Strings,
    /// Event times.
    pub ts: Vec<TsMs>,
    /// Sensors.
    pub sensor: Vec<StringId>,
    /// Identity keys (see [`Kind::key_name`]).
    pub key: Vec<StringId>,
    /// Revisions; 0 where the event has none.
    pub revision: Vec<i64>,
    /// A column for each of [`Kind::fields`].
    pub payload: Vec<Column>,
}

/// A batch that breaks its own rules: damaged in a store, or made by another version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("damaged batch of {kind} events: {what}")]
pub struct BatchError {
    kind: Kind,
    what: &'static str,
}

impl Column {
    /// An empty column of a type.
    pub fn new(ty: FieldType) -> Self {
        match ty {
            FieldType::F32 => Column::F32(Vec::new()),
            FieldType::F64 => Column::F64(Vec::new()),
            FieldType::I64 => Column::I64(Vec::new()),
            FieldType::Text => Column::Text(Vec::new()),
        }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Column::F32(v) => v.len(),
            Column::F64(v) => v.len(),
            Column::I64(v) => v.len(),
            Column::Text(v) => v.len(),
        }
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Type of the values.
    pub fn ty(&self) -> FieldType {
        match self {
            Column::F32(_) => FieldType::F32,
            Column::F64(_) => FieldType::F64,
            Column::I64(_) => FieldType::I64,
            Column::Text(_) => FieldType::Text,
        }
    }

    /// Appends an absent value.
    pub fn push_absent(&mut self) {
        match self {
            Column::F32(v) => v.push(f32::NAN),
            Column::F64(v) => v.push(f64::NAN),
            Column::I64(v) => v.push(NO_I64),
            Column::Text(v) => v.push(NO_TEXT),
        }
    }

    /// Drops all values and keeps the memory.
    pub fn clear(&mut self) {
        match self {
            Column::F32(v) => v.clear(),
            Column::F64(v) => v.clear(),
            Column::I64(v) => v.clear(),
            Column::Text(v) => v.clear(),
        }
    }

    fn take(&self, rows: &[u32]) -> Self {
        match self {
            Column::F32(v) => Column::F32(take(v, rows)),
            Column::F64(v) => Column::F64(take(v, rows)),
            Column::I64(v) => Column::I64(take(v, rows)),
            Column::Text(v) => Column::Text(take(v, rows)),
        }
    }
}

/// The values of `rows`, in their order.
pub(super) fn take<T: Copy>(values: &[T], rows: &[u32]) -> Vec<T> {
    rows.iter().map(|&row| values[row as usize]).collect()
}

impl EventBatch {
    /// An empty batch.
    pub fn new(kind: Kind) -> Self {
        Self::with_strings(kind, Strings::new())
    }

    /// An empty batch that goes on with a dictionary.
    pub fn with_strings(kind: Kind, strings: Strings) -> Self {
        Self {
            kind,
            strings,
            ts: Vec::new(),
            sensor: Vec::new(),
            key: Vec::new(),
            revision: Vec::new(),
            payload: kind.fields().iter().map(|field| Column::new(field.ty)).collect(),
        }
    }

    /// Number of events.
    pub fn len(&self) -> usize {
        self.ts.len()
    }

    /// Whether there is no event.
    pub fn is_empty(&self) -> bool {
        self.ts.is_empty()
    }

    /// Bytes of memory that the events take, roughly.
    pub fn memory_bytes(&self) -> usize {
        let payload: usize = self
            .payload
            .iter()
            .map(|c| {
                c.len()
                    * if matches!(c.ty(), FieldType::F32 | FieldType::Text) {
                        4
                    } else {
                        8
                    }
            })
            .sum();
        self.len() * 24 + payload + self.strings.memory_bytes()
    }

    /// Drops all events; keeps the dictionary and the memory.
    pub fn clear(&mut self) {
        self.ts.clear();
        self.sensor.clear();
        self.key.clear();
        self.revision.clear();
        self.payload.iter_mut().for_each(Column::clear);
    }

    /// Sensor of an event.
    pub fn sensor(&self, row: usize) -> &str {
        self.strings.get(self.sensor[row])
    }

    /// Identity key of an event.
    pub fn key(&self, row: usize) -> &str {
        self.strings.get(self.key[row])
    }

    /// The floats of an `f32` payload column; empty if the column has another type, which [`check`](Self::check)
    /// rules out for the columns of [`field`](super::field).
    pub fn f32s(&self, field: usize) -> &[f32] {
        match self.payload.get(field) {
            Some(Column::F32(values)) => values,
            _ => &[],
        }
    }

    /// The floats of an `f64` payload column (see [`f32s`](Self::f32s)).
    pub fn f64s(&self, field: usize) -> &[f64] {
        match self.payload.get(field) {
            Some(Column::F64(values)) => values,
            _ => &[],
        }
    }

    /// The integers of a payload column (see [`f32s`](Self::f32s)).
    pub fn i64s(&self, field: usize) -> &[i64] {
        match self.payload.get(field) {
            Some(Column::I64(values)) => values,
            _ => &[],
        }
    }

    /// The text numbers of a payload column (see [`f32s`](Self::f32s)).
    pub fn text_ids(&self, field: usize) -> &[StringId] {
        match self.payload.get(field) {
            Some(Column::Text(values)) => values,
            _ => &[],
        }
    }

    /// The text of a payload field of an event, if it has one.
    pub fn text(&self, field: usize, row: usize) -> Option<&str> {
        match self.text_ids(field).get(row) {
            Some(&id) if id != NO_TEXT => Some(self.strings.get(id)),
            _ => None,
        }
    }

    /// Appends an event of another batch of the same kind, translating its names.
    pub fn push_from(&mut self, other: &EventBatch, row: usize) {
        debug_assert_eq!(self.kind, other.kind);
        let sensor = self.strings.intern(other.sensor(row));
        let key = self.strings.intern(other.key(row));
        self.ts.push(other.ts[row]);
        self.sensor.push(sensor);
        self.key.push(key);
        self.revision.push(other.revision[row]);
        for (mine, theirs) in self.payload.iter_mut().zip(&other.payload) {
            match (mine, theirs) {
                (Column::F32(a), Column::F32(b)) => a.push(b[row]),
                (Column::F64(a), Column::F64(b)) => a.push(b[row]),
                (Column::I64(a), Column::I64(b)) => a.push(b[row]),
                (Column::Text(a), Column::Text(b)) => a.push(match b[row] {
                    NO_TEXT => NO_TEXT,
                    id => self.strings.intern(other.strings.get(id)),
                }),
                (mine, _) => mine.push_absent(),
            }
        }
    }

    /// Appends all events of another batch of the same kind, translating each name once.
    pub fn append(&mut self, other: &EventBatch) {
        debug_assert_eq!(self.kind, other.kind);
        let translated: Vec<StringId> = other
            .strings
            .iter()
            .map(|text| self.strings.intern(text))
            .collect();
        let translate = |id: &StringId| {
            if *id == NO_TEXT {
                NO_TEXT
            } else {
                translated[*id as usize]
            }
        };
        self.ts.extend_from_slice(&other.ts);
        self.sensor.extend(other.sensor.iter().map(translate));
        self.key.extend(other.key.iter().map(translate));
        self.revision.extend_from_slice(&other.revision);
        for (mine, theirs) in self.payload.iter_mut().zip(&other.payload) {
            match (mine, theirs) {
                (Column::F32(a), Column::F32(b)) => a.extend_from_slice(b),
                (Column::F64(a), Column::F64(b)) => a.extend_from_slice(b),
                (Column::I64(a), Column::I64(b)) => a.extend_from_slice(b),
                (Column::Text(a), Column::Text(b)) => a.extend(b.iter().map(translate)),
                (mine, theirs) => (0..theirs.len()).for_each(|_| mine.push_absent()),
            }
        }
    }

    /// The events of `rows`, in their order, with the same dictionary.
    pub fn take(&self, rows: &[u32]) -> Self {
        Self {
            kind: self.kind,
            strings: self.strings.clone(),
            ts: take(&self.ts, rows),
            sensor: take(&self.sensor, rows),
            key: take(&self.key, rows),
            revision: take(&self.revision, rows),
            payload: self.payload.iter().map(|column| column.take(rows)).collect(),
        }
    }

    /// Checks what the rest of Dwell relies on: equal lengths, column types, known names, sane times. Called after
    /// every read from a store.
    pub fn check(&self) -> Result<(), BatchError> {
        let refuse = |what| {
            Err(BatchError {
                kind: self.kind,
                what,
            })
        };
        let (n, texts) = (self.len(), self.strings.len() as StringId);
        if self.sensor.len() != n || self.key.len() != n || self.revision.len() != n {
            return refuse("columns differ in length");
        }
        let fields = self.kind.fields();
        if self.payload.len() != fields.len() {
            return refuse("wrong number of payload columns");
        }
        for (column, field) in self.payload.iter().zip(fields) {
            if column.ty() != field.ty {
                return refuse("a payload column has another type");
            }
            if column.len() != n {
                return refuse("columns differ in length");
            }
            if let Column::Text(ids) = column
                && ids.iter().any(|&id| id >= texts && id != NO_TEXT)
            {
                return refuse("a text is not in the dictionary");
            }
        }
        if self.sensor.iter().chain(&self.key).any(|&id| id >= texts) {
            return refuse("a name is not in the dictionary");
        }
        if self.ts.iter().any(|ts| !(MIN_TS..MAX_TS).contains(ts)) {
            return refuse("an event time lies outside 1970 to 2199");
        }
        Ok(())
    }

    pub(super) fn refuse_deliveries(&self) -> BatchError {
        BatchError {
            kind: self.kind,
            what: "rows and deliveries do not match",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::position_batch;

    #[test]
    fn appending_translates_names_between_dictionaries() {
        let mut a = position_batch(&[("s1", "t1", 10, 1.0, 2.0)]);
        let b = position_batch(&[("s2", "t1", 20, 3.0, 4.0), ("s1", "t2", 30, 5.0, 6.0)]);
        let mut row_by_row = a.clone();
        a.append(&b);
        (0..b.len()).for_each(|row| row_by_row.push_from(&b, row));
        for batch in [&a, &row_by_row] {
            let seen: Vec<_> = (0..3)
                .map(|i| (batch.sensor(i), batch.key(i), batch.ts[i]))
                .collect();
            assert_eq!(seen, [("s1", "t1", 10), ("s2", "t1", 20), ("s1", "t2", 30)]);
            assert_eq!(batch.f32s(0), [1.0, 3.0, 5.0]);
            batch.check().unwrap();
        }
    }

    #[test]
    fn a_damaged_batch_is_refused() {
        let good = position_batch(&[("s1", "t1", 10, 1.0, 2.0)]);
        let mut unknown_name = good.clone();
        unknown_name.key[0] = 99;
        let mut short = good.clone();
        short.payload[0] = Column::F32(vec![]);
        let mut other_type = good.clone();
        other_type.payload[0] = Column::I64(vec![1]);
        let mut time = good.clone();
        time.ts[0] = -5;
        for bad in [unknown_name, short, other_type, time] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        good.check().unwrap();
    }
}
