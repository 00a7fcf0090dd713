//! `dwell days`

use anyhow::Result;
use clap::Args;
use dwell_model::time::LocalDay;
use serde_json::Value;

use super::target::{venues_of, with_target};
use super::venues::text;
use super::{ReadFlags, TargetArgs};
use crate::client::escape;
use crate::output::{Output, table};

/// Flags of `dwell days`.
#[derive(Debug, Args)]
pub(crate) struct DaysArgs {
    /// A venue, or `all`
    #[arg(long, default_value = "all")]
    venue: String,
    /// First day (local)
    #[arg(long, value_name = "DAY")]
    from: Option<LocalDay>,
    /// Last day, included
    #[arg(long, value_name = "DAY")]
    to: Option<LocalDay>,
    /// One day of one venue with everything that was ever published of it: when, why, what changed, who was late
    #[arg(long, value_name = "DAY", conflicts_with_all = ["from", "to"])]
    day: Option<LocalDay>,
    #[command(flatten)]
    _read: ReadFlags,
    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) async fn run(args: &DaysArgs) -> Result<()> {
    let output = Output::from_flag(args.target.json);
    with_target(&args.target, async |target| {
        let client = target.client();
        if let Some(day) = args.day {
            let path = format!("/v1/venues/{}/days/{day}", escape(&args.venue));
            let answer: Value = client.get(&path).await?;
            return output.result(&answer, || human_history(&answer));
        }
        let mut all = Vec::new();
        for venue in venues_of(client, &args.venue).await? {
            let mut path = format!("/v1/venues/{}/days?limit=1000", escape(&venue));
            for (name, day) in [("from", args.from), ("to", args.to)] {
                if let Some(day) = day {
                    path.push_str(&format!("&{name}={day}"));
                }
            }
            let answer = client.get_all(&path, "days").await?;
            let days = answer["days"].as_array().cloned().unwrap_or_default();
            all.extend(days.into_iter().map(|mut day| {
                day["venue"] = Value::String(venue.clone());
                day
            }));
        }
        output.result(&serde_json::json!({ "days": all }), || human(&all))
    })
    .await
}

fn human_history(answer: &Value) -> String {
    let generations = answer["generations"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let heads = [
        "generation",
        "published",
        "events",
        "changed",
        "late",
        "delay p50",
        "delay max",
        "from",
        "reason",
    ];
    let rows = generations.iter().map(|info| {
        let late = &info["late"]["added"];
        let sensors = late["sensors"].as_array().map(Vec::as_slice).unwrap_or_default();
        let sensors: Vec<String> = sensors
            .iter()
            .map(|sensor| format!("{} {}", text(&sensor["name"]), text(&sensor["events"])))
            .collect();
        vec![
            text(&info["generation"]),
            text(&info["published_at"]),
            text(&info["events"]),
            text(&info["changed"]["changed"]),
            text(&late["events"]),
            text(&late["delay_p50_ms"]),
            text(&late["delay_max_ms"]),
            sensors.join(", "),
            text(&info["reason"]),
        ]
    });
    table(&heads, &[0, 2, 3, 4, 5, 6], rows)
}

fn human(days: &[Value]) -> String {
    table(
        &[
            "venue",
            "day",
            "state",
            "generation",
            "events",
            "sessions",
            "completeness",
            "late",
            "drift",
            "reason",
            "dirty, since",
        ],
        &[3, 4, 5, 6, 7, 8],
        days.iter().map(|day| {
            vec![
                text(&day["venue"]),
                text(&day["day"]),
                text(&day["state"]),
                text(&day["generation"]),
                text(&day["events"]),
                text(&day["sessions"]),
                text(&day["completeness"]),
                text(&day["late"]["events"]),
                text(&day["drift"]["differing"]),
                text(&day["reason"]),
                dirty_because(day),
            ]
        }),
    )
}

/// Why a day waits to be computed anew, if it does.
fn dirty_because(day: &Value) -> String {
    let reasons = day["dirty_because"].as_array().map(Vec::as_slice);
    let reasons: Vec<String> = reasons.unwrap_or_default().iter().map(text).collect();
    match reasons.is_empty() {
        true => "–".to_owned(),
        false => reasons.join(", "),
    }
}
