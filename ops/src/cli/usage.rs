//! `dwell usage`

use anyhow::Result;
use clap::Args;
use dwell_model::time::LocalDay;
use serde_json::Value;

use super::TargetArgs;
use super::target::with_target;
use super::venues::text;
use crate::client::escape;
use crate::output::{Output, table};

/// Flags of `dwell usage`.
#[derive(Debug, Args)]
pub(crate) struct UsageArgs {
    /// First day, of UTC [default: 31 days up to the last]
    #[arg(long, value_name = "DAY")]
    from: Option<LocalDay>,
    /// Last day, included [default: today]
    #[arg(long, value_name = "DAY")]
    to: Option<LocalDay>,
    /// Only this venue
    #[arg(long)]
    venue: Option<String>,
    /// Only this tenant, for who runs the installation
    #[arg(long)]
    tenant: Option<String>,
    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) async fn run(args: &UsageArgs) -> Result<()> {
    let output = Output::from_flag(args.target.json);
    let given = [
        ("from", args.from.map(|day| day.to_string())),
        ("to", args.to.map(|day| day.to_string())),
        ("venue", args.venue.clone()),
        ("tenant", args.tenant.clone()),
    ];
    let query: Vec<String> = given
        .iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", escape(value.as_ref()?))))
        .collect();
    with_target(&args.target, async |opened| {
        let path = format!("/v1/usage?{}", query.join("&"));
        let answer: Value = opened.client().get(&path).await?;
        output.result(&answer, || shown(&answer))
    })
    .await
}

fn shown(answer: &Value) -> String {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut parts = Vec::new();
    for tenant in list(&answer["tenants"]) {
        let name = text(&tenant["tenant"]);
        let (mut modules, mut events, mut stored) = (Vec::new(), Vec::new(), Vec::new());
        for day in list(&tenant["days"]) {
            let place = || vec![text(&day["day"]), text(&day["venue"])];
            for (module, amounts) in day["modules"].as_object().into_iter().flatten() {
                let mut row = place();
                row.extend([module.clone(), text(&amounts["requests"]), text(&amounts["rows"])]);
                modules.push(row);
            }
            for (source, amounts) in day["events"].as_object().into_iter().flatten() {
                let mut row = place();
                row.extend([source.clone(), text(&amounts["taken"]), text(&amounts["refused"])]);
                events.push(row);
            }
        }
        for venue in list(&tenant["stored"]) {
            for age in list(&venue["by_age"]).iter().filter(|age| age["days"] != 0) {
                let ages = match age["to_days"].as_i64() {
                    Some(to) => format!("{}–{to} days", text(&age["from_days"])),
                    None => format!("{} days and more", text(&age["from_days"])),
                };
                let mut row = vec![text(&venue["venue"]), ages];
                let names = ["days", "archive_bytes", "raw_events", "raw_bytes_estimated"];
                row.extend(names.iter().map(|name| text(&age[*name])));
                stored.push(row);
            }
        }
        parts.push(format!(
            "tenant {name}, {} to {}",
            text(&answer["from"]),
            text(&answer["to"])
        ));
        parts.push(table(
            &["day", "venue", "module", "requests", "rows"],
            &[3, 4],
            modules,
        ));
        parts.push(table(
            &["day", "venue", "source", "taken", "refused"],
            &[3, 4],
            events,
        ));
        let heads = [
            "venue",
            "age",
            "days",
            "archive bytes",
            "raw events",
            "raw bytes (about)",
        ];
        parts.push(table(&heads, &[2, 3, 4, 5], stored));
    }
    parts.join("\n\n")
}
