//! The short way: well-formed positions, column by column.
//!
//! 1. Each row gets its group, from its venue's number and the stretch of time that its venue was in last; what cannot be
//!    told at a glance is odd and takes the long way.
//! 2. A counting sort brings the rows of a group together.
//! 3. Each column is copied group by group. Names were looked up when their dictionary came; the number that a name has in
//!    its group's own dictionary is found once per name and batch.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::buffer::{NullBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int32Type, Int64Type, TimeUnit};
use arrow::datatypes::{
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use dwell_model::event::{Column, Kind, NO_TEXT, StringId, field};
use dwell_model::ids::check_name;
use dwell_model::time::TsMs;

use crate::decode::{FieldSet, WireField};
use crate::sources::files::groups::{Group, Groups, Place};
use crate::sources::files::mapping::{Mapping, Source};
use crate::validate::MAX_INTEGER;

/// Coordinates up to this are good at a glance, in metres; the long way looks closely at larger ones.
const PLAIN_COORDINATE_MAX_M: f32 = 9_999_999.0;
/// A row that takes the long way.
const ODD: u32 = u32::MAX;

/// Where a field's values come from.
#[derive(Debug, Clone)]
enum From {
    Column(String),
    Fixed(ArrayRef),
    Nowhere,
}

/// Reads the positions of one file; keeps what it learnt of the dictionaries from batch to batch.
#[derive(Debug)]
pub(super) struct PositionReader {
    kind: From,
    venue: From,
    sensor: From,
    track: From,
    ts: From,
    x: From,
    y: From,
    floor: From,
    revision: From,
    /// Whether columns of other kinds are to be refused, rather than left out as a mapping does.
    strict: bool,
    kinds: Names,
    venues: Names,
    sensors: Names,
    tracks: Names,
    floors: Names,
    /// Per venue the place of the row before.
    places: Vec<Place>,
    slots: Vec<u32>,
    order: Vec<u32>,
    /// Per group: rows in this batch, then where the next one goes.
    counts: Vec<u32>,
    touched: Vec<u32>,
}

/// The columns of a batch in their plain forms.
#[derive(Debug)]
pub(super) struct PositionColumns {
    kind: Option<Codes>,
    venue: Codes,
    sensor: Codes,
    track: Codes,
    floor: Option<Codes>,
    ts: Numbers<i64>,
    x: Numbers<f32>,
    y: Numbers<f32>,
    revision: Option<Numbers<i64>>,
    /// Columns of other kinds that hold anything, as the rows that they are absent in.
    strangers: Vec<Option<NullBuffer>>,
}

/// Texts as codes of a dictionary.
#[derive(Debug)]
struct Codes {
    keys: ScalarBuffer<i32>,
    nulls: Option<NullBuffer>,
    values: StringArray,
}

/// Numbers with the rows that have none.
#[derive(Debug)]
struct Numbers<T: arrow::datatypes::ArrowNativeType> {
    values: ScalarBuffer<T>,
    nulls: Option<NullBuffer>,
}

/// What is known of a dictionary's names.
#[derive(Debug, Default)]
struct Names {
    /// The dictionary, kept alive so that its address stands for it.
    values: Option<StringArray>,
    /// Per code what the name stands for: a venue's number, or 0 for any good name; [`ODD`] for others.
    meaning: Vec<u32>,
    all_good: bool,
    /// Per code the name's number in the dictionary of a group's generation.
    ids: Vec<(u32, StringId)>,
}

impl PositionReader {
    /// A reader for a file with this mapping; `None` when the mapping computes something or makes other kinds.
    pub(super) fn new(mapping: &Mapping, groups: &Groups) -> Option<Self> {
        let fields = mapping.plain_fields()?;
        let from = |name: &str| {
            let rule = fields.iter().find(|rule| rule.name == name);
            match rule.map(|rule| &rule.source) {
                Some(Source::Column(column)) => From::Column(mapping.columns[*column].name.clone()),
                Some(Source::Fixed(text)) => From::Fixed(Arc::new(StringArray::from(vec![text.as_str()]))),
                _ => From::Nowhere,
            }
        };
        Some(Self {
            kind: from("kind"),
            venue: from("venue"),
            sensor: from("sensor"),
            track: from("track"),
            ts: from("ts"),
            x: from("x"),
            y: from("y"),
            floor: from("floor"),
            revision: from("revision"),
            strict: mapping.is_identity(),
            kinds: Names::default(),
            venues: Names::default(),
            sensors: Names::default(),
            tracks: Names::default(),
            floors: Names::default(),
            places: vec![Place::NOWHERE; groups.venues().len()],
            slots: Vec::new(),
            order: Vec::new(),
            counts: Vec::new(),
            touched: Vec::new(),
        })
    }

    /// Spreads a batch over the groups; rows that take the long way are named in `odd`, ascending.
    pub(super) fn read(&mut self, columns: &PositionColumns, groups: &mut Groups, odd: &mut Vec<u32>) {
        if let Some(kind) = &columns.kind {
            self.kinds
                .learn(&kind.values, |kind| (kind == Kind::Position.name()).then_some(0));
        }
        let table = Arc::clone(groups.venues());
        self.venues
            .learn(&columns.venue.values, |venue| table.number(venue));
        let good = |name: &str| check_name(name).is_ok().then_some(0);
        self.sensors.learn(&columns.sensor.values, good);
        self.tracks.learn(&columns.track.values, good);
        if let Some(floor) = &columns.floor {
            self.floors.learn(&floor.values, good);
        }
        self.find_groups(columns, groups);
        self.leave_out_odd_rows(columns);
        self.sort_by_group(groups);
        odd.extend((0..self.slots.len() as u32).filter(|&row| self.slots[row as usize] == ODD));
        let mut start = 0;
        for &number in &self.touched {
            let end = self.counts[number as usize] as usize;
            let rows = &self.order[start..end];
            start = end;
            let generation = groups.generation(number);
            let group = groups.grow(number, rows.len());
            let tracks = self.tracks.ids_in(generation);
            columns.copy(
                group,
                rows,
                &mut self.sensors.ids_in(generation),
                tracks,
                &mut self.floors,
                generation,
            );
        }
    }

    /// Gives each row its group, by venue and time.
    fn find_groups(&mut self, columns: &PositionColumns, groups: &mut Groups) {
        self.slots.clear();
        let rows = columns.venue.keys.iter().zip(columns.ts.values.iter());
        for (&code, &ts) in rows {
            let venue = self.venues.meaning.get(code as usize).copied().unwrap_or(ODD);
            let slot = match self.places.get_mut(venue as usize) {
                Some(place) if place.start <= ts && ts < place.end => place.group,
                Some(place) => match groups.place(venue, Kind::Position, ts) {
                    Some(found) => {
                        *place = found;
                        found.group
                    }
                    None => ODD,
                },
                None => ODD,
            };
            self.slots.push(slot);
        }
    }

    /// Takes out the rows with an absent or doubtful value; nearly always there are none, which costs a glance a column.
    fn leave_out_odd_rows(&mut self, columns: &PositionColumns) {
        let slots = &mut self.slots;
        let required = [&columns.venue.nulls, &columns.sensor.nulls, &columns.track.nulls];
        let required = required
            .into_iter()
            .chain([&columns.ts.nulls, &columns.x.nulls, &columns.y.nulls]);
        for nulls in required.flatten() {
            leave_out(slots, |row| nulls.is_null(row));
        }
        for numbers in [&columns.x.values, &columns.y.values] {
            // Not a number is not within the limit either.
            let is_plain = |number: f32| number.abs() <= PLAIN_COORDINATE_MAX_M;
            if !numbers.iter().all(|&number| is_plain(number)) {
                leave_out(slots, |row| !is_plain(numbers[row]));
            }
        }
        if let Some(revision) = &columns.revision {
            leave_out(slots, |row| {
                !(-MAX_INTEGER..=MAX_INTEGER).contains(&revision.values[row])
            });
        }
        for nulls in &columns.strangers {
            leave_out(slots, |row| {
                nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row))
            });
        }
        let kinds = columns.kind.as_ref().map(|codes| (codes, &self.kinds));
        let floors = columns.floor.as_ref().map(|codes| (codes, &self.floors));
        let named = [
            Some((&columns.sensor, &self.sensors)),
            Some((&columns.track, &self.tracks)),
            kinds,
            floors,
        ];
        for (codes, names) in named.into_iter().flatten().filter(|(_, names)| !names.all_good) {
            let is_null = |row| codes.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
            leave_out(slots, |row| {
                !is_null(row) && names.meaning[codes.keys[row] as usize] == ODD
            });
        }
    }

    /// Brings the rows of a group together: `order` lists them, group after group in the order of `touched`, and `counts`
    /// tells where each group ends.
    fn sort_by_group(&mut self, groups: &Groups) {
        self.counts.clear();
        self.counts.resize(groups.count(), 0);
        self.touched.clear();
        let mut taken = 0;
        for &slot in self.slots.iter().filter(|&&slot| slot != ODD) {
            let count = &mut self.counts[slot as usize];
            if *count == 0 {
                self.touched.push(slot);
            }
            *count += 1;
            taken += 1;
        }
        let mut start = 0;
        for &group in &self.touched {
            let count = &mut self.counts[group as usize];
            (*count, start) = (start, start + *count);
        }
        self.order.clear();
        self.order.resize(taken, 0);
        for (row, &slot) in self.slots.iter().enumerate().filter(|(_, slot)| **slot != ODD) {
            let next = &mut self.counts[slot as usize];
            self.order[*next as usize] = row as u32;
            *next += 1;
        }
    }
}

fn leave_out(slots: &mut [u32], is_odd: impl Fn(usize) -> bool) {
    slots
        .iter_mut()
        .enumerate()
        .filter(|(row, _)| is_odd(*row))
        .for_each(|(_, slot)| *slot = ODD);
}

impl PositionColumns {
    /// The columns of a batch; `None` when one is missing or has a type that only the long way can read.
    pub(super) fn of(reader: &PositionReader, batch: &RecordBatch) -> Option<Self> {
        Some(Self {
            kind: Codes::optional(&reader.kind, batch)?,
            venue: Codes::required(&reader.venue, batch)?,
            sensor: Codes::required(&reader.sensor, batch)?,
            track: Codes::required(&reader.track, batch)?,
            floor: Codes::optional(&reader.floor, batch)?,
            ts: instants(column(&reader.ts, batch)?)?,
            x: coordinates(column(&reader.x, batch)?)?,
            y: coordinates(column(&reader.y, batch)?)?,
            revision: match column(&reader.revision, batch) {
                None if matches!(reader.revision, From::Fixed(_)) => return None,
                None => None,
                Some(array) => Some(integers(array)?),
            },
            strangers: if reader.strict {
                strangers(batch)
            } else {
                Vec::new()
            },
        })
    }

    /// Copies some rows to a group's columns.
    fn copy(
        &self,
        group: &mut Group,
        rows: &[u32],
        sensors: &mut Ids<'_>,
        mut tracks: Ids<'_>,
        floors: &mut Names,
        generation: u32,
    ) {
        let events = group.events();
        events
            .ts
            .extend(rows.iter().map(|&row| self.ts.values[row as usize]));
        let strings = &mut events.strings;
        events
            .sensor
            .extend(rows.iter().map(|&row| sensors.id(strings, &self.sensor, row)));
        events
            .key
            .extend(rows.iter().map(|&row| tracks.id(strings, &self.track, row)));
        match &self.revision {
            None => events.revision.resize(events.revision.len() + rows.len(), 0),
            Some(revision) => events
                .revision
                .extend(rows.iter().map(|&row| match &revision.nulls {
                    Some(nulls) if nulls.is_null(row as usize) => 0,
                    _ => revision.values[row as usize],
                })),
        }
        for (number, values) in [
            (field::position::X, &self.x.values),
            (field::position::Y, &self.y.values),
        ] {
            if let Some(Column::F32(column)) = events.payload.get_mut(number) {
                // Adding 0 turns −0 into 0, as the decoders do.
                column.extend(rows.iter().map(|&row| values[row as usize] + 0.0));
            }
        }
        if let Some(Column::Text(column)) = events.payload.get_mut(field::position::FLOOR) {
            match &self.floor {
                None => column.resize(column.len() + rows.len(), NO_TEXT),
                Some(floor) => {
                    let mut ids = floors.ids_in(generation);
                    column.extend(rows.iter().map(|&row| match &floor.nulls {
                        Some(nulls) if nulls.is_null(row as usize) => NO_TEXT,
                        _ => ids.id(strings, floor, row),
                    }));
                }
            }
        }
    }
}

impl Names {
    /// Looks at a dictionary's names, unless it is the one of the batch before.
    fn learn(&mut self, values: &StringArray, meaning: impl Fn(&str) -> Option<u32>) {
        if self.values.as_ref().is_some_and(|known| is_same(known, values)) {
            return;
        }
        self.meaning.clear();
        self.meaning
            .extend(values.iter().map(|name| name.and_then(&meaning).unwrap_or(ODD)));
        self.all_good = !self.meaning.contains(&ODD);
        self.ids.clear();
        self.ids.resize(values.len(), (0, 0));
        self.values = Some(values.clone());
    }

    fn ids_in(&mut self, generation: u32) -> Ids<'_> {
        Ids {
            generation,
            ids: &mut self.ids,
        }
    }
}

/// Numbers of names in one group's dictionary.
#[derive(Debug)]
struct Ids<'a> {
    generation: u32,
    ids: &'a mut [(u32, StringId)],
}

impl Ids<'_> {
    fn id(&mut self, strings: &mut dwell_model::event::Strings, codes: &Codes, row: u32) -> StringId {
        let code = codes.keys[row as usize] as usize;
        let (generation, id) = &mut self.ids[code];
        if *generation != self.generation {
            *generation = self.generation;
            *id = strings.intern(codes.values.value(code));
        }
        *id
    }
}

/// Columns of other kinds than positions that are not empty.
fn strangers(batch: &RecordBatch) -> Vec<Option<NullBuffer>> {
    let own = FieldSet::of_kind(Kind::Position);
    let columns = batch.schema_ref().fields().iter().zip(batch.columns());
    columns
        .filter(|(field, column)| {
            WireField::from_name(field.name()).is_some_and(|field| !own.contains(field)) && !is_empty(column)
        })
        .map(|(_, column)| column.logical_nulls())
        .collect()
}

fn is_empty(column: &ArrayRef) -> bool {
    column.logical_null_count() == column.len()
}

fn is_same(a: &StringArray, b: &StringArray) -> bool {
    a.len() == b.len()
        && a.value_data().as_ptr() == b.value_data().as_ptr()
        && a.value_offsets().as_ptr() == b.value_offsets().as_ptr()
}

fn column<'b>(from: &From, batch: &'b RecordBatch) -> Option<&'b ArrayRef> {
    match from {
        From::Column(name) => batch.column_by_name(name),
        From::Fixed(_) | From::Nowhere => None,
    }
}

impl Codes {
    fn required(from: &From, batch: &RecordBatch) -> Option<Self> {
        match from {
            From::Column(name) => Self::of(batch.column_by_name(name)?),
            From::Fixed(value) => {
                let values = value.as_string::<i32>().clone();
                Some(Self {
                    keys: vec![0; batch.num_rows()].into(),
                    nulls: None,
                    values,
                })
            }
            From::Nowhere => None,
        }
    }

    /// `Some(None)` when the file has no such column.
    fn optional(from: &From, batch: &RecordBatch) -> Option<Option<Self>> {
        match from {
            From::Column(name) if batch.column_by_name(name).is_none_or(is_empty) => Some(None),
            From::Nowhere => Some(None),
            from => Self::required(from, batch).map(Some),
        }
    }

    fn of(array: &ArrayRef) -> Option<Self> {
        let wanted = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let array = match array.data_type() {
            ty if *ty == wanted => Arc::clone(array),
            // Numbered tracks and sensors; and texts in their other forms.
            ty if ty.is_integer()
                || matches!(ty, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) =>
            {
                let texts = cast(array, &DataType::Utf8).ok()?;
                cast(&texts, &wanted).ok()?
            }
            _ => return None,
        };
        let dictionary = array.as_dictionary_opt::<Int32Type>()?;
        let values = dictionary.values().as_string_opt::<i32>()?.clone();
        // An absent name within the dictionary is left to the long way.
        if values.null_count() > 0 || values.is_empty() {
            return None;
        }
        let keys = dictionary.keys();
        Some(Self {
            keys: keys.values().clone(),
            nulls: some_nulls(keys.nulls()),
            values,
        })
    }
}

fn some_nulls(nulls: Option<&NullBuffer>) -> Option<NullBuffer> {
    nulls.filter(|nulls| nulls.null_count() > 0).cloned()
}

fn integers(array: &ArrayRef) -> Option<Numbers<i64>> {
    let array = match array.data_type() {
        ty if ty.is_integer() => cast(array, &DataType::Int64).ok()?,
        _ => return None,
    };
    let array = array.as_primitive_opt::<Int64Type>()?;
    Some(Numbers {
        values: array.values().clone(),
        nulls: some_nulls(array.nulls()),
    })
}

fn instants(array: &ArrayRef) -> Option<Numbers<TsMs>> {
    let nulls = some_nulls(array.nulls());
    let divided =
        |values: &ScalarBuffer<i64>, by: i64| values.iter().map(|value| value.div_euclid(by)).collect();
    let values: ScalarBuffer<i64> = match array.data_type() {
        DataType::Timestamp(TimeUnit::Millisecond, _) => array
            .as_primitive_opt::<TimestampMillisecondType>()?
            .values()
            .clone(),
        DataType::Timestamp(TimeUnit::Microsecond, _) => divided(
            array.as_primitive_opt::<TimestampMicrosecondType>()?.values(),
            1_000,
        ),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => divided(
            array.as_primitive_opt::<TimestampNanosecondType>()?.values(),
            1_000_000,
        ),
        DataType::Timestamp(TimeUnit::Second, _) => {
            let seconds = array.as_primitive_opt::<TimestampSecondType>()?.values();
            seconds
                .iter()
                .map(|second| second.saturating_mul(1_000))
                .collect()
        }
        _ => return integers(array),
    };
    Some(Numbers { values, nulls })
}

fn coordinates(array: &ArrayRef) -> Option<Numbers<f32>> {
    let array = match array.data_type() {
        DataType::Float32 => {
            let array = array.as_primitive_opt::<Float32Type>()?;
            return Some(Numbers {
                values: array.values().clone(),
                nulls: some_nulls(array.nulls()),
            });
        }
        ty if ty.is_numeric() => cast(array, &DataType::Float64).ok()?,
        _ => return None,
    };
    let array = array.as_primitive_opt::<Float64Type>()?;
    // Rounded once, as the decoders round what they read as text.
    let values = array.values().iter().map(|&value| value as f32).collect();
    Some(Numbers {
        values,
        nulls: some_nulls(array.nulls()),
    })
}
