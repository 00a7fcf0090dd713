//! `dwell exclusions`

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use super::target::with_target;
use super::venues::text;
use super::{ReadFlags, TargetArgs};
use crate::client::escape;
use crate::output::{Output, table};

/// Flags of `dwell exclusions`.
#[derive(Debug, Args)]
pub(crate) struct ExclusionsArgs {
    /// Of this venue only
    #[arg(long)]
    venue: Option<String>,
    /// in_force, ended or all
    #[arg(long, default_value = "all")]
    state: String,
    /// At most so many
    #[arg(long, default_value_t = 1_000)]
    limit: usize,
    #[command(flatten)]
    _read: ReadFlags,
    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) async fn run(args: &ExclusionsArgs) -> Result<()> {
    let output = Output::from_flag(args.target.json);
    with_target(&args.target, async |target| {
        let mut path = format!("/v1/exclusions?state={}", escape(&args.state));
        if let Some(venue) = &args.venue {
            path.push_str(&format!("&venue={}", escape(venue)));
        }
        let mut all: Vec<Value> = Vec::new();
        let mut cursor = None;
        while all.len() < args.limit {
            let page = match &cursor {
                None => path.clone(),
                Some(cursor) => format!("{path}&cursor={cursor}"),
            };
            let mut answer: Value = target.client().get(&page).await?;
            all.extend(
                answer["exclusions"]
                    .as_array_mut()
                    .map(std::mem::take)
                    .unwrap_or_default(),
            );
            cursor = answer["next_cursor"].as_str().map(str::to_owned);
            if cursor.is_none() {
                break;
            }
        }
        all.truncate(args.limit);
        output.result(&json!({ "exclusions": all }), || human(&all))
    })
    .await
}

fn human(exclusions: &[Value]) -> String {
    table(
        &[
            "job",
            "venue",
            "state",
            "leaves out",
            "days",
            "made",
            "by",
            "why",
            "ended",
        ],
        &[4],
        exclusions.iter().map(|exclusion| {
            vec![
                text(&exclusion["id"]),
                text(&exclusion["venue"]),
                text(&exclusion["state"]),
                covers(exclusion),
                text(&exclusion["day_count"]),
                text(&exclusion["made_at"]),
                text(&exclusion["made_by"]),
                text(&exclusion["reason"]),
                text(&exclusion["ended_at"]),
            ]
        }),
    )
}

/// What it covers, in a few words.
fn covers(exclusion: &Value) -> String {
    let words = [
        ("sensor", "sensor"),
        ("receipt", "receipt"),
        ("from_time", "from"),
        ("to_time", "before"),
        ("received_before", "received before"),
    ];
    let said = words
        .iter()
        .filter_map(|(name, word)| exclusion[*name].as_str().map(|value| format!("{word} {value}")));
    said.collect::<Vec<_>>().join(", ")
}
