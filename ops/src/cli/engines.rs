//! `dwell migrate` and `dwell doctor`: what the engines need, and whether they have it.

use anyhow::Result;

use super::EngineArgs;

pub(crate) async fn migrate(args: &EngineArgs) -> Result<()> {
    let _ = args.load_config()?;
    Ok(())
}

pub(crate) async fn doctor(args: &EngineArgs) -> Result<()> {
    let _ = args.load_config()?;
    Ok(())
}
