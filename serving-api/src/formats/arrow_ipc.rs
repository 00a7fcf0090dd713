//! Arrow IPC streams.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;

use super::{Table, TableColumn};

/// Writes a table as one record batch.
pub(crate) fn to_arrow_stream(table: Table) -> Result<Vec<u8>, ArrowError> {
    let fields: Vec<Field> = table
        .columns
        .iter()
        .map(|(name, column)| Field::new(*name, data_type(column), true))
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let columns = table
        .columns
        .into_iter()
        .map(|(_, column)| array(column))
        .collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
    let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
    writer.write(&batch)?;
    writer.into_inner()
}

fn data_type(column: &TableColumn) -> DataType {
    match column {
        TableColumn::Text(_) => DataType::Utf8,
        TableColumn::Instant(_) => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
        TableColumn::Integer(_) => DataType::Int64,
        TableColumn::Number(_) => DataType::Float64,
        TableColumn::Flag(_) => DataType::Boolean,
    }
}

fn array(column: TableColumn) -> ArrayRef {
    match column {
        TableColumn::Text(values) => Arc::new(StringArray::from(values)),
        TableColumn::Instant(values) => {
            Arc::new(TimestampMillisecondArray::from(values).with_timezone("UTC"))
        }
        TableColumn::Integer(values) => Arc::new(Int64Array::from(values)),
        TableColumn::Number(values) => Arc::new(Float64Array::from(values)),
        TableColumn::Flag(values) => Arc::new(BooleanArray::from(values)),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Float64Type, TimestampMillisecondType};
    use arrow::ipc::reader::StreamReader;

    use super::*;

    #[test]
    fn a_reader_of_the_stream_finds_the_table() {
        let table = Table {
            columns: vec![
                ("zone", TableColumn::Text(vec![Some("a".into()), None])),
                ("start", TableColumn::Instant(vec![Some(3_600_000), Some(0)])),
                ("value", TableColumn::Number(vec![None, Some(0.5)])),
            ],
        };
        let bytes = to_arrow_stream(table).unwrap();
        let batches: Vec<_> = StreamReader::try_new(bytes.as_slice(), None)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let [batch] = batches.as_slice() else {
            panic!("{} batches", batches.len())
        };
        assert_eq!(
            batch.schema().field(1).data_type(),
            &DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
        );
        assert_eq!(batch.column(0).as_string::<i32>().value(0), "a");
        assert!(batch.column(0).is_null(1));
        assert_eq!(
            batch
                .column(1)
                .as_primitive::<TimestampMillisecondType>()
                .value(0),
            3_600_000
        );
        assert_eq!(batch.column(2).as_primitive::<Float64Type>().value(1), 0.5);
        assert!(batch.column(2).is_null(0));
    }

    #[test]
    fn a_table_without_rows_is_a_stream_with_a_schema() {
        let bytes = to_arrow_stream(Table {
            columns: vec![("value", TableColumn::Number(Vec::new()))],
        })
        .unwrap();
        let reader = StreamReader::try_new(bytes.as_slice(), None).unwrap();
        assert_eq!(reader.schema().fields().len(), 1);
    }
}
