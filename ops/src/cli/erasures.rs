//! `dwell erasures`

use anyhow::Result;
use clap::Args;
use dwell_model::time::format_rfc3339;
use serde_json::Value;

use super::TargetArgs;
use super::target::with_target;
use super::venues::text;
use crate::output::{Output, table};

/// Flags of `dwell erasures`.
#[derive(Debug, Args)]
pub(crate) struct ErasuresArgs {
    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) async fn run(args: &ErasuresArgs) -> Result<()> {
    let output = Output::from_flag(args.target.json);
    with_target(&args.target, async |target| {
        let answer: Value = target.client().get("/v1/erasures").await?;
        output.result(&answer, || human(&answer))
    })
    .await
}

fn human(answer: &Value) -> String {
    let receipts = answer["erasures"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let time = |value: &Value| value.as_i64().map_or_else(|| "–".to_owned(), format_rfc3339);
    table(
        &[
            "id", "venue", "what", "whom", "days", "removed", "proven", "held by",
        ],
        &[4, 5],
        receipts.iter().map(|receipt| {
            let removed = receipt["removed"].as_object();
            let removed: u64 = removed.map_or(0, |places| places.values().filter_map(Value::as_u64).sum());
            let held = receipt["held"].as_array().map(Vec::as_slice).unwrap_or_default();
            let held: Vec<String> = held
                .iter()
                .map(|held| match held["until"].as_i64() {
                    Some(until) => format!("{} until {}", text(&held["place"]), format_rfc3339(until)),
                    None => text(&held["place"]),
                })
                .collect();
            vec![
                text(&receipt["id"]),
                text(&receipt["venue"]["venue"]),
                text(&receipt["class"]),
                text(&receipt["subject"]),
                receipt["days"].as_array().map_or(0, Vec::len).to_string(),
                removed.to_string(),
                time(&receipt["proven_at"]),
                held.join(", "),
            ]
        }),
    )
}
