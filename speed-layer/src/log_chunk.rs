//! Reading a chunk of the log, around records that cannot be read.

use dwell_storage::api::{EventLogReader, LogChunk, Partition, Position};
use dwell_storage::error::ErrorKind;

use crate::error::{Error, Result};
use crate::metrics;

/// Reads a chunk of a partition. A damaged record is stepped over, as the raw writer does, who names it in the
/// quarantine: it must not stall the records behind it. So a chunk may be empty although `next` lies behind `from`.
pub(crate) async fn read(
    log: &dyn EventLogReader,
    partition: Partition,
    from: Position,
    bytes: usize,
) -> Result<LogChunk> {
    let failed = |error| Error::from_log(partition, from, error);
    match log.read(partition, from, bytes).await {
        Err(error) if error.kind() == ErrorKind::Damaged => {}
        read => return read.map_err(failed),
    }
    // Alone, so that a damaged record does not hide those before it.
    match log.read(partition, from, 1).await {
        Ok(chunk) => Ok(chunk),
        Err(error) if error.kind() == ErrorKind::Damaged => {
            if from >= log.bounds(partition).await.map_err(failed)?.end {
                return Err(failed(error));
            }
            tracing::warn!(partition, position = from, %error, "a record of the event log cannot be read and is stepped over");
            metrics::ignored("damaged", 1);
            Ok(LogChunk {
                records: Vec::new(),
                next: from + 1,
            })
        }
        Err(error) => Err(failed(error)),
    }
}
