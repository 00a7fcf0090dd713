//! `dwell explain`

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use super::TargetArgs;
use super::target::with_target;
use super::venues::text;
use crate::client::escape;
use crate::output::{Output, table};

/// Events shown to people.
const EVENTS_SHOWN: usize = 20;

/// Flags of `dwell explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The venue
    #[arg(long)]
    venue: String,
    /// The metric
    #[arg(long)]
    metric: String,
    /// What it is about: a zone, a line, a currency, `sensor counter`, `sensor quantity` [default: the whole venue]
    #[arg(long)]
    subject: Option<String>,
    /// An instant within the bucket (RFC 3339), or a local day
    #[arg(long, value_name = "TIME|DAY")]
    start: String,
    /// hour or day [default: hour for an instant, day for a day]
    #[arg(long)]
    grain: Option<String>,
    /// As it was published at this time (RFC 3339); or the number of a generation
    #[arg(long, value_name = "TIME|GENERATION")]
    as_of: Option<String>,
    /// Most events given
    #[arg(long, default_value_t = 100)]
    limit: usize,
    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) async fn run(args: &ExplainArgs) -> Result<()> {
    let output = Output::from_flag(args.target.json);
    with_target(&args.target, async |target| {
        let mut path = format!(
            "/v1/venues/{}/explain?metric={}&start={}&limit={}",
            escape(&args.venue),
            escape(&args.metric),
            escape(&args.start),
            args.limit
        );
        for (name, value) in [
            ("subject", &args.subject),
            ("grain", &args.grain),
            ("as_of", &args.as_of),
        ] {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", escape(value)));
            }
        }
        let answer: Value = target.client().get(&path).await?;
        output.result(&answer, || human(&answer))
    })
    .await
}

fn human(answer: &Value) -> String {
    let (bucket, generation, inputs) = (&answer["bucket"], &answer["generation"], &answer["inputs"]);
    let sources = |name: &str| {
        let list = answer["sources"][name]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let named = list.iter().take(10);
        let named = named.map(|source| format!("{} ({})", text(&source["name"]), text(&source["events"])));
        named.collect::<Vec<_>>().join(", ")
    };
    let verdict = match answer["recomputed"]["equal"].as_bool() {
        Some(true) => "the events, folded once more, give just that".to_owned(),
        Some(false) => format!(
            "the events, folded once more, give {}: look at the archive (dwell jobs run verify)",
            text(&answer["recomputed"]["value"])
        ),
        None => format!("not folded once more: {}", text(&answer["recomputed"]["why_not"])),
    };
    let files = inputs["files"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut lines = vec![
        format!(
            "{} of {} in the {} of {}: {} {}",
            text(&bucket["metric"]),
            text(&bucket["subject"]),
            text(&bucket["grain"]),
            text(&bucket["start_local"]),
            text(&bucket["value"]),
            text(&bucket["unit"])
        ),
        format!(
            "  formula     {} version {}: {}",
            text(&answer["definition"]["id"]),
            text(&answer["definition"]["version"]),
            text(&answer["definition"]["description"])
        ),
        format!(
            "  generation  {} of {}, published {}, in place of {}: {}",
            text(&generation["generation"]),
            text(&generation["day"]),
            text(&generation["published_at"]),
            text(&generation["before"]),
            text(&generation["reason"])
        ),
        format!(
            "  layout      {}, valid from {}",
            text(&inputs["layout"]),
            text(&inputs["layout_valid_from"])
        ),
        format!(
            "  events      {} behind the bucket",
            text(&answer["sources"]["events"])
        ),
        format!("  sensors     {}", sources("sensors")),
        format!("  receipts    {}", sources("receipts")),
        format!("  check       {verdict}"),
    ];
    lines.extend(
        files
            .iter()
            .map(|file| format!("  file        {}", text(&file["path"]))),
    );
    let events = answer["events"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !events.is_empty() {
        let names = ["ts", "kind", "sensor", "key", "x", "y", "received_at", "receipt"];
        let rows = events
            .iter()
            .take(EVENTS_SHOWN)
            .map(|event| names.iter().map(|name| text(&event[*name])).collect());
        lines.push(table(&names, &[4, 5], rows));
    }
    lines.join("\n")
}
