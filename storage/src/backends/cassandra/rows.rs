//! Many rows of one partition, written in batches.

use futures::{TryStreamExt, stream};
use scylla::serialize::row::SerializeRow;

use super::cluster::{Cluster, Cql};
use crate::error::Result;

/// Bytes of a batch, as its rows count them: below the 50 KiB at which a server refuses one.
const BATCH_BYTES: usize = 32 * 1024;
/// Rows of a batch.
const BATCH_ROWS: usize = 256;
/// Batches of one call under way at a time.
const BATCHES_AT_ONCE: usize = 8;
/// What a row takes beside its values.
const ROW_BYTES: usize = 64;

/// A row to be written.
#[derive(Debug)]
pub(super) struct SizedRow<V> {
    /// Bytes of its texts and blobs.
    pub(super) bytes: usize,
    pub(super) values: V,
}

/// Writes rows of one partition by unlogged batches, some of them at a time. A row that is larger than a batch goes
/// alone. When it fails some rows are there and some are not.
pub(super) async fn write<V>(cluster: &Cluster, cql: Cql, rows: Vec<SizedRow<V>>) -> Result<()>
where
    V: SerializeRow + Send + Sync,
{
    stream::iter(batches(rows).into_iter().map(Ok))
        .try_for_each_concurrent(BATCHES_AT_ONCE, async |values| {
            let batch = cluster.batch_of_one(cql, values.len()).await?;
            cluster.run_batch(cql.doing(), &batch, values).await
        })
        .await
}

fn batches<V>(rows: Vec<SizedRow<V>>) -> Vec<Vec<V>> {
    let mut batches: Vec<Vec<V>> = Vec::new();
    let mut room = 0;
    for SizedRow { bytes, values } in rows {
        let bytes = bytes + ROW_BYTES;
        match batches
            .last_mut()
            .filter(|batch| bytes <= room && batch.len() < BATCH_ROWS)
        {
            Some(batch) => {
                room -= bytes;
                batch.push(values);
            }
            None => {
                room = BATCH_BYTES.saturating_sub(bytes);
                batches.push(vec![values]);
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_bounded_in_bytes_and_rows_and_a_large_row_goes_alone() {
        let row = |bytes, values| SizedRow { bytes, values };
        let sizes = |rows| batches(rows).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(vec![]), [0; 0]);
        assert_eq!(sizes((0..600).map(|n| row(0, n)).collect()), [256, 256, 88]);
        // 10,064 bytes each: three in 32,768.
        assert_eq!(sizes((0..7).map(|n| row(10_000, n)).collect()), [3, 3, 1]);
        assert_eq!(
            sizes(vec![row(1, 0), row(1 << 20, 1), row(1, 2), row(1, 3)]),
            [1, 1, 2]
        );
        let kept: Vec<i32> = batches((0..600).map(|n| row(500, n)).collect()).concat();
        assert_eq!(kept, (0..600).collect::<Vec<_>>());
    }
}
