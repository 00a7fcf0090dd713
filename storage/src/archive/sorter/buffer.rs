//! A venue-day's rows of one kind in memory, packed.
//!
//! Times are 32-bit offsets, names are numbers of the day's own dictionary, and a column costs nothing as long as it
//! holds one value (the usual floor, revision 0, the one delivery of a file).

use std::sync::Arc;

use dwell_model::event::{Column, Delivery, EventBatch, FieldType, Kind, NO_TEXT, Strings};
use dwell_model::time::TsMs;
use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::api::DeliveredRows;
use crate::archive::order::order_rows;
use crate::error::{ErrorKind, Result, StorageError};

/// A column that is one value until another comes.
#[derive(Debug, Clone)]
pub(super) enum Packed<T> {
    Same(T, usize),
    Each(Vec<T>),
}

/// A payload column, floats as their bits.
#[derive(Debug)]
pub(super) enum PackedColumn {
    /// 32-bit floats and text numbers.
    Narrow(Packed<u32>),
    /// 64-bit floats and integers.
    Wide(Packed<u64>),
}

/// The rows of a venue-day.
#[derive(Debug)]
pub(super) struct DayBuffer {
    pub(super) kind: Kind,
    pub(super) strings: Strings,
    /// What the offsets in `ts` count from.
    pub(super) ts_base: TsMs,
    pub(super) ts: Packed<u32>,
    pub(super) sensor: Packed<u32>,
    pub(super) key: Packed<u32>,
    pub(super) revision: Packed<u64>,
    pub(super) payload: Vec<PackedColumn>,
    pub(super) delivery: Packed<u32>,
    pub(super) deliveries: Vec<Delivery>,
    delivery_numbers: HashMap<Delivery, u32, FixedState>,
}

impl<T: Copy + PartialEq> Packed<T> {
    fn new() -> Self
    where
        T: Default,
    {
        Packed::Same(T::default(), 0)
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Packed::Same(_, count) => *count,
            Packed::Each(values) => values.len(),
        }
    }

    #[inline]
    pub(super) fn get(&self, row: usize) -> T {
        match self {
            Packed::Same(value, _) => *value,
            Packed::Each(values) => values[row],
        }
    }

    /// The values of rows, in their order.
    pub(super) fn gather(&self, rows: &[u32]) -> Packed<T> {
        match self {
            Packed::Same(value, _) => Packed::Same(*value, rows.len()),
            Packed::Each(values) => Packed::Each(rows.iter().map(|&row| values[row as usize]).collect()),
        }
    }

    pub(super) fn map<U>(self, convert: impl Fn(T) -> U) -> Packed<U> {
        match self {
            Packed::Same(value, count) => Packed::Same(convert(value), count),
            Packed::Each(values) => Packed::Each(values.into_iter().map(convert).collect()),
        }
    }

    /// All values, one by one.
    pub(super) fn unpack(self) -> Vec<T> {
        match self {
            Packed::Same(value, count) => vec![value; count],
            Packed::Each(values) => values,
        }
    }

    fn extend(&mut self, mut more: impl ExactSizeIterator<Item = T> + Clone) {
        let added = more.len();
        if let Packed::Same(value, count) = self {
            if *count == 0
                && let Some(first) = more.clone().next()
            {
                *value = first;
            }
            let same = *value;
            if more.clone().all(|other| other == same) {
                *count += added;
                return;
            }
            let mut values = Vec::with_capacity(*count + added);
            values.resize(*count, same);
            *self = Packed::Each(values);
        }
        if let Packed::Each(values) = self {
            if values.capacity() - values.len() < added {
                // By a quarter: the large ones are moved by remapping pages, and a doubled one would waste the budget.
                values.reserve_exact(added.max(values.len() / 4));
            }
            values.extend(more.by_ref());
        }
    }

    fn memory_bytes(&self) -> usize {
        match self {
            Packed::Same(..) => 0,
            Packed::Each(values) => values.capacity() * size_of::<T>(),
        }
    }
}

impl PackedColumn {
    fn new(ty: FieldType) -> Self {
        match ty {
            FieldType::F32 | FieldType::Text => PackedColumn::Narrow(Packed::new()),
            FieldType::F64 | FieldType::I64 => PackedColumn::Wide(Packed::new()),
        }
    }

    pub(super) fn gather(&self, rows: &[u32]) -> PackedColumn {
        match self {
            PackedColumn::Narrow(values) => PackedColumn::Narrow(values.gather(rows)),
            PackedColumn::Wide(values) => PackedColumn::Wide(values.gather(rows)),
        }
    }

    /// The column as a batch has it; `texts` translates text numbers.
    pub(super) fn into_column(self, ty: FieldType, texts: impl Fn(u32) -> u32) -> Column {
        match (self, ty) {
            (PackedColumn::Narrow(values), FieldType::F32) => {
                Column::F32(values.map(f32::from_bits).unpack())
            }
            (PackedColumn::Narrow(values), _) => Column::Text(
                values
                    .map(|id| if id == NO_TEXT { NO_TEXT } else { texts(id) })
                    .unpack(),
            ),
            (PackedColumn::Wide(values), FieldType::F64) => Column::F64(values.map(f64::from_bits).unpack()),
            (PackedColumn::Wide(values), _) => Column::I64(values.map(|value| value as i64).unpack()),
        }
    }
}

impl DayBuffer {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            strings: Strings::new(),
            ts_base: 0,
            ts: Packed::new(),
            sensor: Packed::new(),
            key: Packed::new(),
            revision: Packed::new(),
            payload: kind
                .fields()
                .iter()
                .map(|field| PackedColumn::new(field.ty))
                .collect(),
            delivery: Packed::new(),
            deliveries: Vec::new(),
            delivery_numbers: HashMap::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ts.len()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let payload = self.payload.iter().map(|column| match column {
            PackedColumn::Narrow(values) => values.memory_bytes(),
            PackedColumn::Wide(values) => values.memory_bytes(),
        });
        let narrow = [&self.ts, &self.sensor, &self.key, &self.delivery];
        let deliveries = self.deliveries.capacity() * size_of::<Delivery>()
            + self.delivery_numbers.capacity() * (size_of::<(Delivery, u32)>() + 1);
        narrow.into_iter().map(Packed::memory_bytes).sum::<usize>()
            + self.revision.memory_bytes()
            + payload.sum::<usize>()
            + self.strings.memory_bytes()
            + deliveries
    }

    /// Appends rows of the same kind.
    pub(super) fn append(&mut self, rows: &DeliveredRows) -> Result<()> {
        let events = &rows.events;
        self.append_times(&events.ts)?;
        let texts: Arc<[u32]> = events
            .strings
            .iter()
            .map(|text| self.strings.intern(text))
            .collect();
        let text = |id: &u32| {
            if *id == NO_TEXT {
                NO_TEXT
            } else {
                texts[*id as usize]
            }
        };
        self.sensor.extend(events.sensor.iter().map(text));
        self.key.extend(events.key.iter().map(text));
        self.revision
            .extend(events.revision.iter().map(|&revision| revision as u64));
        for (mine, theirs) in self.payload.iter_mut().zip(&events.payload) {
            match (mine, theirs) {
                (PackedColumn::Narrow(mine), Column::F32(theirs)) => {
                    mine.extend(theirs.iter().map(|v| v.to_bits()))
                }
                (PackedColumn::Narrow(mine), Column::Text(theirs)) => mine.extend(theirs.iter().map(text)),
                (PackedColumn::Wide(mine), Column::F64(theirs)) => {
                    mine.extend(theirs.iter().map(|v| v.to_bits()))
                }
                (PackedColumn::Wide(mine), Column::I64(theirs)) => {
                    mine.extend(theirs.iter().map(|&v| v as u64))
                }
                _ => {
                    return Err(StorageError::new(
                        ErrorKind::Bug,
                        "sorting: a payload column has another type",
                    ));
                }
            }
        }
        let deliveries: Vec<u32> = rows
            .deliveries
            .iter()
            .map(|delivery| self.delivery_number(delivery))
            .collect();
        self.delivery
            .extend(rows.delivery.iter().map(|&number| deliveries[number as usize]));
        Ok(())
    }

    /// The rows' numbers in the order (key, ts, sensor), names compared as bytes, equal rows in their order.
    pub(super) fn order(&self, ranks: &[u32]) -> Vec<u32> {
        let key = |row| ranks[self.key.get(row) as usize];
        let place = |row| u64::from(self.ts.get(row)) << 32 | u64::from(ranks[self.sensor.get(row) as usize]);
        order_rows(self.len(), ranks.len(), key, place)
            .rows
            .into_iter()
            .map(|placed| placed.1)
            .collect()
    }

    /// All rows, unsorted, as the archive's writer takes them.
    pub(super) fn into_rows(self) -> DeliveredRows {
        let base = self.ts_base;
        let payload = self.payload.into_iter().zip(self.kind.fields());
        let events = EventBatch {
            kind: self.kind,
            strings: self.strings,
            ts: self.ts.map(|offset| base + TsMs::from(offset)).unpack(),
            sensor: self.sensor.unpack(),
            key: self.key.unpack(),
            revision: self.revision.map(|revision| revision as i64).unpack(),
            payload: payload
                .map(|(column, field)| column.into_column(field.ty, |id| id))
                .collect(),
        };
        DeliveredRows {
            events,
            delivery: self.delivery.unpack(),
            deliveries: self.deliveries,
        }
    }

    fn append_times(&mut self, times: &[TsMs]) -> Result<()> {
        if self.ts.len() == 0
            && let Some(first) = times.first()
        {
            // 24 days to either side; a venue-day has 25 hours at most.
            self.ts_base = first - (1 << 31);
        }
        let base = self.ts_base;
        if !times.iter().all(|ts| (0..1 << 32).contains(&(ts - base))) {
            return Err(StorageError::new(
                ErrorKind::Invalid,
                "sorting: rows of one venue-day lie weeks apart",
            ));
        }
        self.ts.extend(times.iter().map(|ts| (ts - base) as u32));
        Ok(())
    }

    fn delivery_number(&mut self, delivery: &Delivery) -> u32 {
        if self.deliveries.last() == Some(delivery) {
            return self.deliveries.len() as u32 - 1;
        }
        let next = self.deliveries.len() as u32;
        let number = *self.delivery_numbers.entry(*delivery).or_insert(next);
        if number == next {
            self.deliveries.push(*delivery);
        }
        number
    }
}
