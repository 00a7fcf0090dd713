//! Reads an archived day's winners chunk by chunk.

use dwell_model::event::{Delivery, EventBatch, Kind};

use super::reader::{DayFileReader, DeliveryColumns, FileBytes};
use crate::api::{DayChunk, DayReader, Projection};
use crate::error::Result;

/// Reads the file of a day's events; a day without one has no chunks.
#[derive(Debug)]
pub(super) struct ArchivedDayReader {
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    reader: DayFileReader,
    projection: Projection,
    events: EventBatch,
    columns: DeliveryColumns,
    first: Vec<Delivery>,
}

impl ArchivedDayReader {
    pub(super) fn empty() -> Self {
        Self { open: None }
    }

    pub(super) fn open(file: Box<dyn FileBytes>, kind: Kind, projection: Projection) -> Result<Self> {
        let reader = DayFileReader::open(file, kind, projection)?;
        let (events, columns) = (EventBatch::new(kind), DeliveryColumns::default());
        Ok(Self {
            open: Some(Open {
                reader,
                projection,
                events,
                columns,
                first: Vec::new(),
            }),
        })
    }
}

impl DayReader for ArchivedDayReader {
    fn next_chunk(&mut self) -> Result<Option<DayChunk<'_>>> {
        let Some(open) = &mut self.open else {
            return Ok(None);
        };
        open.events.clear();
        open.columns.clear();
        open.first.clear();
        if open.reader.next_page(&mut open.events, &mut open.columns)? == 0 {
            return Ok(None);
        }
        if open.projection.has_deliveries() {
            let DeliveryColumns {
                received_at,
                receipt,
                receipts,
            } = &open.columns;
            let deliveries = received_at.iter().zip(receipt);
            open.first
                .extend(deliveries.map(|(&received_at, &receipt)| Delivery {
                    received_at,
                    receipt: receipts[receipt as usize],
                }));
        }
        Ok(Some(DayChunk {
            events: &open.events,
            first: &open.first,
        }))
    }
}
