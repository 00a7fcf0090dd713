//! The columns of the archive's data files, per kind.
//!
//! | column | type | holds |
//! |---|---|---|
//! | the key's name (`track`, `counter`, …, see [`Kind::key_name`]) | text | identity key |
//! | `ts` | 64-bit integer | event time, ms UTC |
//! | `sensor` | text | sensor |
//! | each of [`Kind::fields`] | text, 64-bit integer, double, or `DECIMAL(9,2)` for 32-bit floats | payload, null where absent |
//! | `<field>_f32` for each 32-bit float | float | the exact value, only where it is not the decimal's float |
//! | `revision` | 64-bit integer | null stands for 0 |
//! | `received_at`, `receipt` | 64-bit integer, text of 32 hexadecimal digits | the row's delivery |
//!
//! `venue` and `day` are the partition: folders and the log hold them, the files do not. Positions come in whole
//! centimetres from most sensors, and those take a third less room as integers than as floats; `x::FLOAT` in any
//! engine gives the same bits back. What is finer, larger or −0 is kept exactly in the `_f32` column. Both datasets
//! of a kind have the same columns; `superseded` has a row per delivery.

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use dwell_model::event::{FieldType, Kind};
use parquet::basic::{ConvertedType, LogicalType, Repetition, Type as Physical};
use parquet::schema::types::{SchemaDescPtr, SchemaDescriptor, Type};

use crate::api::Projection;

/// Version of this layout, in every file's metadata.
pub(super) const FORMAT_VERSION: &str = "1";
/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    Key,
    Ts,
    Sensor,
    /// A payload field, by its number.
    Field(usize),
    /// The exact floats of a payload field, by its number.
    ExactFloat(usize),
    Revision,
    ReceivedAt,
    Receipt,
}

/// How its values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    Text,
    Integer,
    /// A decimal of two places: hundredths as a 32-bit integer.
    Hundredths,
    Float,
    Double,
}

/// A column of a data file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ColumnSpec {
    pub(super) name: String,
    pub(super) holds: Holds,
    pub(super) stored: Stored,
    pub(super) required: bool,
}

/// A kind's columns.
#[derive(Debug)]
pub(super) struct FileSchema {
    pub(super) columns: Vec<ColumnSpec>,
    pub(super) parquet: SchemaDescPtr,
}

impl FileSchema {
    /// The schema of a kind's files.
    pub(super) fn of(kind: Kind) -> &'static FileSchema {
        static SCHEMAS: LazyLock<Vec<FileSchema>> =
            LazyLock::new(|| Kind::ALL.into_iter().map(FileSchema::build).collect());
        &SCHEMAS[kind as usize]
    }

    /// Numbers of the columns that a projection reads, in stretches of neighbours.
    pub(super) fn stretches(&self, projection: Projection) -> impl Iterator<Item = Range<usize>> {
        // Key, time and sensor come first, the deliveries' two columns last.
        let (identity, all) = (3, self.columns.len());
        let events = all - 2;
        let stretches = match projection {
            Projection::Events => [0..events, 0..0],
            Projection::EventsAndDeliveries => [0..all, 0..0],
            Projection::IdentitiesAndDeliveries => [0..identity, events..all],
        };
        stretches.into_iter().filter(|columns| !columns.is_empty())
    }

    fn build(kind: Kind) -> Self {
        let column = |name: &str, holds, stored, required| ColumnSpec {
            name: name.to_owned(),
            holds,
            stored,
            required,
        };
        let mut columns = vec![
            column(kind.key_name(), Holds::Key, Stored::Text, true),
            column("ts", Holds::Ts, Stored::Integer, true),
            column("sensor", Holds::Sensor, Stored::Text, true),
        ];
        for (number, field) in kind.fields().iter().enumerate() {
            let stored = match field.ty {
                FieldType::F32 => Stored::Hundredths,
                FieldType::F64 => Stored::Double,
                FieldType::I64 => Stored::Integer,
                FieldType::Text => Stored::Text,
            };
            columns.push(column(field.name, Holds::Field(number), stored, field.required));
        }
        for (number, field) in kind
            .fields()
            .iter()
            .enumerate()
            .filter(|(_, field)| field.ty == FieldType::F32)
        {
            columns.push(column(
                &format!("{}_f32", field.name),
                Holds::ExactFloat(number),
                Stored::Float,
                false,
            ));
        }
        columns.push(column("revision", Holds::Revision, Stored::Integer, false));
        columns.push(column("received_at", Holds::ReceivedAt, Stored::Integer, true));
        columns.push(column("receipt", Holds::Receipt, Stored::Text, true));
        let fields = columns
            .iter()
            .map(|column| Arc::new(parquet_type(column)))
            .collect();
        let root = Type::group_type_builder("event").with_fields(fields).build();
        let parquet = Arc::new(SchemaDescriptor::new(Arc::new(root.unwrap_or_else(|error| {
            unreachable!("the columns of {kind} form no schema: {error}")
        }))));
        Self { columns, parquet }
    }
}

fn parquet_type(column: &ColumnSpec) -> Type {
    let physical = match column.stored {
        Stored::Text => Physical::BYTE_ARRAY,
        Stored::Integer => Physical::INT64,
        Stored::Hundredths => Physical::INT32,
        Stored::Float => Physical::FLOAT,
        Stored::Double => Physical::DOUBLE,
    };
    let repetition = if column.required {
        Repetition::REQUIRED
    } else {
        Repetition::OPTIONAL
    };
    let builder = Type::primitive_type_builder(&column.name, physical).with_repetition(repetition);
    let builder = match column.stored {
        Stored::Text => builder
            .with_logical_type(Some(LogicalType::String))
            .with_converted_type(ConvertedType::UTF8),
        Stored::Hundredths => builder
            .with_logical_type(Some(LogicalType::decimal(2, 9)))
            .with_converted_type(ConvertedType::DECIMAL)
            .with_precision(9)
            .with_scale(2),
        Stored::Integer | Stored::Float | Stored::Double => builder,
    };
    builder
        .build()
        .unwrap_or_else(|error| unreachable!("the column {} has no type: {error}", column.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_of_positions_are_those_that_readers_rely_on() {
        let names: Vec<_> = FileSchema::of(Kind::Position)
            .columns
            .iter()
            .map(|column| column.name.as_str())
            .collect();
        assert_eq!(
            names,
            [
                "track",
                "ts",
                "sensor",
                "x",
                "y",
                "floor",
                "x_f32",
                "y_f32",
                "revision",
                "received_at",
                "receipt"
            ]
        );
    }

    #[test]
    fn no_kind_has_two_columns_of_one_name() {
        for kind in Kind::ALL {
            let columns = FileSchema::of(kind)
                .columns
                .iter()
                .map(|column| column.name.as_str());
            let mut names: Vec<_> = columns.chain(["venue", "day"]).collect();
            names.sort_unstable();
            let all = names.len();
            names.dedup();
            assert_eq!(names.len(), all, "{kind}");
        }
    }
}
