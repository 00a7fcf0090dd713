//! `dwell audit`

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use super::TargetArgs;
use super::target::with_target;
use super::venues::text;
use crate::output::{Output, table};

/// Flags of `dwell audit`.
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// At most so many, newest first
    #[arg(long, default_value_t = 50)]
    limit: usize,
    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) async fn run(args: &AuditArgs) -> Result<()> {
    let output = Output::from_flag(args.target.json);
    with_target(&args.target, async |opened| {
        let answer: Value = opened
            .client()
            .get(&format!("/v1/audit?limit={}", args.limit))
            .await?;
        output.result(&answer, || {
            let entries = answer["entries"]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default();
            let columns = ["at", "who", "action", "about", "reason"];
            let rows = entries
                .iter()
                .map(|entry| columns.iter().map(|name| text(&entry[*name])).collect());
            table(&columns, &[], rows)
        })
    })
    .await
}
