//! `dwell query`

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use super::target::with_target;
use super::venues::text;
use super::{ReadFlags, TargetArgs};
use crate::client::escape;
use crate::output::{Output, table};

/// Flags of `dwell query`.
#[derive(Debug, Args)]
pub(crate) struct QueryArgs {
    /// A venue
    #[arg(long)]
    venue: String,
    /// Metrics, separated by commas (see /v1/definitions)
    #[arg(long)]
    metric: String,
    /// A zone [default: all zones and `_venue`]
    #[arg(long)]
    zone: Option<String>,
    /// First day (local), or an instant
    #[arg(long)]
    from: String,
    /// Last day, included, or an instant, excluded
    #[arg(long)]
    to: String,
    /// hour, day, week, month or total
    #[arg(long, default_value = "day")]
    by: String,
    /// Which events count: all, open (within opening hours) or staff [default: all]
    #[arg(long)]
    slice: Option<String>,
    /// As it was published at this time (RFC 3339); or the number of a generation, for one day
    #[arg(long, value_name = "TIME|GENERATION")]
    as_of: Option<String>,
    #[command(flatten)]
    _read: ReadFlags,
    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) async fn run(args: &QueryArgs) -> Result<()> {
    let output = Output::from_flag(args.target.json);
    with_target(&args.target, async |target| {
        let mut path = format!(
            "/v1/venues/{}/metrics?metric={}&from={}&to={}&by={}",
            escape(&args.venue),
            escape(&args.metric),
            escape(&args.from),
            escape(&args.to),
            escape(&args.by)
        );
        for (name, value) in [
            ("zone", &args.zone),
            ("slice", &args.slice),
            ("as_of", &args.as_of),
        ] {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", escape(value)));
            }
        }
        let answer = target.client().get_all(&path, "buckets").await?;
        output.result(&answer, || human(&answer))
    })
    .await
}

fn human(answer: &Value) -> String {
    let buckets = answer["buckets"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    table(
        &[
            "metric",
            "subject",
            "start (local)",
            "value",
            "unit",
            "state",
            "layer",
            "completeness",
        ],
        &[3, 7],
        buckets.iter().map(|bucket| {
            [
                "metric",
                "subject",
                "start_local",
                "value",
                "unit",
                "state",
                "layer",
                "completeness",
            ]
            .iter()
            .map(|name| text(&bucket[*name]))
            .collect()
        }),
    )
}
