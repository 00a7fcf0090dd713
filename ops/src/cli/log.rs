//! `dwell log …`: where the event log and its reader stand, and what to do when they have lost each other.

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use dwell_storage::api::{ConsumerPosition, Partition, Position, RAW_WRITER, RawWrite, Stores};
use serde::Serialize;

use super::EngineArgs;
use crate::output::{Output, count, table};
use crate::platform::{Base, Engines};

/// `dwell log …`
#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Show what each partition holds and how far the raw writers have copied it
    Positions(EngineArgs),
    /// Let the raw writers go on behind events that the log no longer has: they are lost to the raw table, unless sent
    /// again
    AcceptGap(AcceptGapArgs),
}

/// Flags of `dwell log accept-gap`.
#[derive(Debug, Args)]
pub(crate) struct AcceptGapArgs {
    /// The partition, as `dwell log positions` numbers it
    #[arg(long)]
    partition: Partition,
    #[command(flatten)]
    engines: EngineArgs,
}

/// Where a partition stands.
#[derive(Debug, Serialize)]
struct Standing {
    partition: Partition,
    start: Position,
    end: Position,
    /// The next record that a raw writer copies; `null` when none was ever copied.
    copied_to: Option<Position>,
    /// Records that the log had deleted before they were copied.
    lost: i64,
}

pub(crate) async fn run(command: &LogCommand) -> Result<()> {
    let args = match command {
        LogCommand::Positions(args) => args,
        LogCommand::AcceptGap(args) => &args.engines,
    };
    let engines = Engines::open(&args.load_config()?, &Base::new()).await?;
    let output = Output::from_flag(args.json);
    let outcome = match command {
        LogCommand::Positions(_) => positions(&engines.stores, output).await,
        LogCommand::AcceptGap(args) => accept_gap(&engines.stores, args.partition, output).await,
    };
    engines.hold.release();
    outcome
}

async fn positions(stores: &Stores, output: Output) -> Result<()> {
    let mut all = Vec::new();
    for partition in 0..stores.log.partitions() {
        all.push(standing(stores, partition).await?);
    }
    output.result(&all, || {
        let row = |at: &Standing| {
            vec![
                at.partition.to_string(),
                at.start.to_string(),
                at.end.to_string(),
                at.copied_to
                    .map_or_else(|| "-".to_owned(), |position| position.to_string()),
                count(at.lost.unsigned_abs()),
            ]
        };
        let heading = ["partition", "start", "end", "copied to", "lost"];
        table(&heading, &[0, 1, 2, 3, 4], all.iter().map(row))
    })
}

async fn accept_gap(stores: &Stores, partition: Partition, output: Output) -> Result<()> {
    if partition >= stores.log.partitions() {
        bail!(
            "the log has the partitions 0 to {}",
            stores.log.partitions().saturating_sub(1)
        );
    }
    let at = standing(stores, partition).await?;
    if at.lost == 0 {
        bail!("partition {partition} has no gap: what it holds follows on what was copied");
    }
    let position = ConsumerPosition {
        consumer: RAW_WRITER,
        epoch: stores.log.epoch(),
        partition,
        position: at.start,
    };
    let write = RawWrite {
        position: Some(position),
        ..RawWrite::default()
    };
    stores.raw.apply(write).await?;
    output.result(&at, || {
        format!(
            "the raw writers go on at {} of partition {partition}; {} records before it were never copied",
            at.start,
            count(at.lost.unsigned_abs())
        )
    })
}

async fn standing(stores: &Stores, partition: Partition) -> Result<Standing> {
    let bounds = stores.log.bounds(partition).await?;
    let copied_to = stores
        .raw
        .position(RAW_WRITER, stores.log.epoch(), partition)
        .await?;
    Ok(Standing {
        partition,
        start: bounds.start,
        end: bounds.end,
        copied_to,
        lost: copied_to.map_or(0, |position| (bounds.start - position).max(0)),
    })
}
