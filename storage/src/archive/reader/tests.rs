use dwell_model::event::{Delivery, FieldType, sort_by_key};
use proptest::prelude::*;

use super::*;
use crate::archive::writer::{DayFileWriter, PAGE_ROWS, SortedRows};

struct InMemory(Bytes);

impl FileBytes for InMemory {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, range: Range<u64>) -> Result<Bytes> {
        Ok(self.0.slice(range.start as usize..range.end as usize))
    }

    fn name(&self) -> &str {
        "in-memory"
    }
}

/// Random rows of a kind, sorted. Values are drawn from few, so that runs, gaps and repetitions all occur.
fn rows_of(kind: Kind, of: &[(u8, u8, i64, u8)]) -> (EventBatch, Vec<u32>) {
    let mut batch = EventBatch::new(kind);
    for &(key, sensor, ts, value) in of {
        let (key, sensor) = (format!("k{key}"), format!("s{sensor}"));
        let (key, sensor) = (batch.strings.intern(&key), batch.strings.intern(&sensor));
        batch.ts.push(1_000_000_000 + ts);
        batch.key.push(key);
        batch.sensor.push(sensor);
        batch.revision.push(i64::from(value % 7 == 0) * 3);
        for (field, column) in kind.fields().iter().zip(&mut batch.payload) {
            if !field.required && value % 3 == 0 {
                column.push_absent();
                continue;
            }
            match column {
                Column::F32(values) => {
                    values.push(f32::from(value) / if value % 5 == 0 { 7.0 } else { 100.0 })
                }
                Column::F64(values) => values.push(f64::from(value) / 7.0),
                Column::I64(values) => values.push(i64::from(value) - 100),
                Column::Text(values) => values.push(batch.strings.intern(&format!("text {}", value % 11))),
            }
        }
    }
    let order = sort_by_key(&batch);
    let deliveries = of.iter().map(|row| u32::from(row.3 % 4)).collect::<Vec<_>>();
    (
        batch.take(&order),
        order.iter().map(|&row| deliveries[row as usize]).collect(),
    )
}

fn deliveries() -> Vec<Delivery> {
    (0..4)
        .map(|n| Delivery {
            received_at: 5_000 - n,
            receipt: Receipt::from_u128(n as u128),
        })
        .collect()
}

/// A file of the rows, given to the writer in pieces.
fn file_of(batch: &EventBatch, delivery: &[u32], piece: usize) -> Bytes {
    let mut writer = DayFileWriter::new(batch.kind, Vec::new()).unwrap();
    let all: Vec<u32> = (0..batch.len() as u32).collect();
    for rows in all.chunks(piece) {
        // A dictionary of its own for each piece.
        let mut events = EventBatch::new(batch.kind);
        rows.iter().for_each(|&row| events.push_from(batch, row as usize));
        let delivery: Vec<u32> = rows.iter().map(|&row| delivery[row as usize]).collect();
        let rows = SortedRows {
            events: &events,
            delivery: &delivery,
            deliveries: &deliveries(),
        };
        writer.write(rows).unwrap();
    }
    writer.finish([("dwell.format", "1".to_owned())]).unwrap().into()
}

fn same_columns(a: &EventBatch, b: &EventBatch) -> bool {
    let texts = |batch: &EventBatch, ids: &[u32]| {
        ids.iter()
            .map(|&id| (id != NO_TEXT).then(|| batch.strings.get(id).to_owned()))
            .collect::<Vec<_>>()
    };
    a.ts == b.ts
        && a.revision == b.revision
        && texts(a, &a.key) == texts(b, &b.key)
        && texts(a, &a.sensor) == texts(b, &b.sensor)
        && a.kind
            .fields()
            .iter()
            .enumerate()
            .all(|(i, field)| match field.ty {
                FieldType::F32 => a
                    .f32s(i)
                    .iter()
                    .map(|v| v.to_bits())
                    .eq(b.f32s(i).iter().map(|v| v.to_bits())),
                FieldType::F64 => a
                    .f64s(i)
                    .iter()
                    .map(|v| v.to_bits())
                    .eq(b.f64s(i).iter().map(|v| v.to_bits())),
                FieldType::I64 => a.i64s(i) == b.i64s(i),
                FieldType::Text => texts(a, a.text_ids(i)) == texts(b, b.text_ids(i)),
            })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Over several pages and row groups, whatever the pieces.
    #[test]
    fn what_was_written_is_read(
        kind in prop::sample::select(&Kind::ALL[..]),
        of in prop::collection::vec((0_u8..6, 0_u8..3, 0_i64..100_000, any::<u8>()), 0..600),
        piece in prop_oneof![1_usize..200, Just(1000)],
        projection in prop::sample::select(vec![
            Projection::Events,
            Projection::EventsAndDeliveries,
            Projection::IdentitiesAndDeliveries,
        ]),
    ) {
        let (batch, delivery) = rows_of(kind, &of);
        let file = file_of(&batch, &delivery, piece);
        let mut reader = DayFileReader::open(Box::new(InMemory(file)), kind, projection).unwrap();
        prop_assert_eq!(reader.rows(), batch.len() as u64);
        let range = batch.ts.iter().copied().min().zip(batch.ts.iter().copied().max());
        prop_assert_eq!(reader.ts_range(), range);
        let mut read = EventBatch::new(kind);
        let mut columns = DeliveryColumns::default();
        loop {
            let count = reader.next_page(&mut read, &mut columns).unwrap();
            prop_assert!(count <= PAGE_ROWS);
            if count == 0 {
                break;
            }
        }
        read.check().unwrap();
        let mut wanted = batch.clone();
        if projection == Projection::IdentitiesAndDeliveries {
            wanted.revision.fill(0);
            wanted.payload.iter_mut().for_each(|column| {
                let rows = column.len();
                column.clear();
                (0..rows).for_each(|_| column.push_absent());
            });
        }
        prop_assert!(same_columns(&read, &wanted));
        let expected: Vec<Delivery> = delivery.iter().map(|&number| deliveries()[number as usize]).collect();
        let first: Vec<Delivery> = columns
            .received_at
            .iter()
            .zip(&columns.receipt)
            .map(|(&received_at, &receipt)| Delivery { received_at, receipt: columns.receipts[receipt as usize] })
            .collect();
        prop_assert_eq!(first, if projection.has_deliveries() { expected } else { Vec::new() });
    }

    /// Damage gives an error or other rows, never a panic.
    #[test]
    fn damaged_files_are_survived(
        kind in prop::sample::select(&Kind::ALL[..]),
        of in prop::collection::vec((0_u8..3, 0_u8..3, 0_i64..1000, any::<u8>()), 1..120),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let (batch, delivery) = rows_of(kind, &of);
        let mut file = file_of(&batch, &delivery, 50).to_vec();
        for (at, value) in damage {
            let at = at.index(file.len());
            file[at] = value;
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        let read = || -> Result<usize> {
            let mut reader = DayFileReader::open(Box::new(InMemory(file.into())), kind, Projection::EventsAndDeliveries)?;
            let (mut read, mut columns) = (EventBatch::new(kind), DeliveryColumns::default());
            let mut rows = 0;
            loop {
                match reader.next_page(&mut read, &mut columns)? {
                    0 => return Ok(rows),
                    count => rows += count,
                }
            }
        };
        if let Err(error) = read() {
            prop_assert!(error.to_string().contains("in-memory"), "{}", error);
        }
    }
}

#[test]
fn a_file_of_another_kind_or_version_is_refused() {
    let (batch, delivery) = rows_of(Kind::Position, &[(1, 1, 1, 1)]);
    let file = file_of(&batch, &delivery, 1);
    assert!(
        DayFileReader::open(
            Box::new(InMemory(file)),
            Kind::Reading,
            Projection::EventsAndDeliveries
        )
        .is_err()
    );
    let mut writer = DayFileWriter::new(Kind::Position, Vec::new()).unwrap();
    let rows = SortedRows {
        events: &batch,
        delivery: &delivery,
        deliveries: &deliveries(),
    };
    writer.write(rows).unwrap();
    let next = writer.finish([("dwell.format", "2".to_owned())]).unwrap();
    let error = DayFileReader::open(
        Box::new(InMemory(next.into())),
        Kind::Position,
        Projection::EventsAndDeliveries,
    )
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.to_string().contains("version"), "{error}");
}
