//! `dwell migrate-data`

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Args;
use dwell_storage::decorators::erasing::honour_erasures;
use dwell_storage::erasure::ErasureWatch;
use dwell_storage::resolver;

use super::EngineArgs;
use crate::config::Config;
use crate::moving::{self, Side};
use crate::output::{Output, count};
use crate::platform::{Base, Engines};

/// Flags of `dwell migrate-data`.
#[derive(Debug, Args)]
pub(crate) struct MigrateDataArgs {
    /// Folder of the embedded installation; nothing may run on it
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    #[command(flatten)]
    to: EngineArgs,
}

pub(crate) async fn run(args: &MigrateDataArgs) -> Result<()> {
    let from = Config {
        data_dir: args.from.clone(),
        ..Config::default()
    };
    let to = args.to.load_config()?;
    if to.engines()?.is_embedded() {
        bail!(
            "the configuration to move to keeps everything in a folder: name engines in [storage], with --config"
        );
    }
    let base = Base::new();
    let clock = &base.clock;
    let (source, target) = (
        Engines::open(&from, &base).await?,
        Engines::open(&to, &base).await?,
    );
    // Whom the ledger names stays behind; the ledger itself moves with the archive.
    let ledger = Arc::clone(&source.stores.erasures);
    let documents = Arc::clone(&source.stores.documents);
    let watch = ErasureWatch::new("migrate-data", ledger, documents, Arc::clone(clock));
    watch.read_on().await?;
    let side = |engines: &Engines, config: &Config| -> Result<Side> {
        Ok(Side {
            stores: honour_erasures(engines.stores.clone(), &watch),
            archive: resolver::open_archive(&config.engines()?, clock)?,
        })
    };
    let output = Output::from_flag(args.to.json);
    let moved = moving::move_all(&side(&source, &from)?, &side(&target, &to)?, clock, &|doing| {
        output.note(doing);
    })
    .await;
    source.hold.release();
    target.hold.release();
    let moved = moved?;
    output.result(&moved, || {
        format!(
            "moved {} raw events with {} deliveries, {} archive files, {} venues, {} access keys and {} documents of {} \
             tenants\nnow \
             compute the numbers there: dwell jobs run recompute --venue all --wait --config FILE",
            count(moved.raw_rows),
            count(moved.deliveries),
            count(moved.archive_files),
            moved.venues,
            moved.access_keys,
            moved.documents,
            moved.tenants,
        )
    })
}
