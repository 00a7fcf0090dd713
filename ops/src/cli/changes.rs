//! `dwell changes`

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use super::target::{venues_of, with_target};
use super::venues::text;
use super::{ReadFlags, TargetArgs};
use crate::client::{Client, escape};
use crate::output::{Output, table};

/// Entries asked for at a time.
const PAGE: usize = 100;

/// Flags of `dwell changes`.
#[derive(Debug, Args)]
pub(crate) struct ChangesArgs {
    /// A venue, or `all`
    #[arg(long, default_value = "all")]
    venue: String,
    /// The last number that has been read, or a time (RFC 3339) from which on to list
    #[arg(long, value_name = "TIME|NUMBER", default_value = "0")]
    since: String,
    /// Most publications shown of a venue
    #[arg(long, default_value_t = 1_000)]
    limit: usize,
    /// Show every restated bucket, before and after
    #[arg(long)]
    buckets: bool,
    #[command(flatten)]
    _read: ReadFlags,
    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) async fn run(args: &ChangesArgs) -> Result<()> {
    let output = Output::from_flag(args.target.json);
    with_target(&args.target, async |target| {
        let client = target.client();
        let mut all = Vec::new();
        for venue in venues_of(client, &args.venue).await? {
            all.push(follow(client, &venue, args).await?);
        }
        output.result(&json!({ "venues": all }), || human(&all, args.buckets))
    })
    .await
}

/// What was published of a venue, page by page; parts of one entry are joined.
async fn follow(client: &Client, venue: &str, args: &ChangesArgs) -> Result<Value> {
    let mut changes: Vec<Value> = Vec::new();
    let mut cursor = String::new();
    loop {
        let left = args.limit.saturating_sub(changes.len()).clamp(1, PAGE);
        let path = format!(
            "/v1/venues/{}/changes?since={}&limit={left}&without_buckets={}{cursor}",
            escape(venue),
            escape(&args.since),
            !args.buckets
        );
        let page: Value = client.get(&path).await?;
        for mut change in page["changes"].as_array().cloned().unwrap_or_default() {
            match changes.last_mut() {
                Some(last) if change["continued"] == true && last["number"] == change["number"] => {
                    let further = change["buckets"].as_array_mut().map(std::mem::take);
                    if let Some(buckets) = last["buckets"].as_array_mut() {
                        buckets.extend(further.unwrap_or_default());
                    }
                    last["continues"] = change["continues"].clone();
                }
                _ => changes.push(change),
            }
        }
        let is_whole = changes.last().is_none_or(|last| last["continues"] != true);
        match page["next_cursor"].as_str() {
            Some(next) if changes.len() < args.limit || !is_whole => {
                cursor = format!("&cursor={}", escape(next));
            }
            _ => {
                return Ok(json!({
                    "venue": venue, "next": page["next"], "last": page["last"], "changes": changes,
                }));
            }
        }
    }
}

fn human(venues: &[Value], with_buckets: bool) -> String {
    let entries = venues.iter().flat_map(|venue| {
        let changes = venue["changes"].as_array().map(Vec::as_slice).unwrap_or_default();
        changes.iter().map(move |change| (&venue["venue"], change))
    });
    if with_buckets {
        let rows = entries.flat_map(|(venue, change)| {
            let buckets = change["buckets"]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default();
            buckets.iter().map(move |bucket| {
                vec![
                    text(venue),
                    text(&change["number"]),
                    text(&bucket["grain"]),
                    text(&bucket["start_local"]),
                    text(&bucket["family"]),
                    text(&bucket["subject"]),
                    differing(&bucket["before"], &bucket["after"]),
                ]
            })
        });
        let heads = [
            "venue",
            "number",
            "grain",
            "start (local)",
            "family",
            "subject",
            "restated",
        ];
        return table(&heads, &[1], rows);
    }
    let rows = entries.map(|(venue, change)| {
        vec![
            text(venue),
            text(&change["number"]),
            text(&change["day"]),
            text(&change["generation"]),
            text(&change["before"]),
            text(&change["published_at"]),
            text(&change["changed"]["changed"]),
            text(&change["changed"]["added"]),
            text(&change["changed"]["removed"]),
            text(&change["reason"]),
        ]
    });
    let heads = [
        "venue",
        "number",
        "day",
        "generation",
        "before",
        "published",
        "changed",
        "added",
        "removed",
        "reason",
    ];
    table(&heads, &[1, 3, 4, 6, 7, 8], rows)
}

/// The numbers that differ, as `visits 4 → 5`.
pub(crate) fn differing(before: &Value, after: &Value) -> String {
    let names = [before, after]
        .into_iter()
        .filter_map(Value::as_object)
        .flat_map(|numbers| numbers.keys());
    let mut names: Vec<&String> = names.collect();
    names.sort_unstable();
    names.dedup();
    let differing = names
        .into_iter()
        .filter(|name| before[name.as_str()] != after[name.as_str()])
        .map(|name| match after[name.as_str()] {
            Value::Array(_) => format!("{name} changed"),
            _ => format!(
                "{name} {} → {}",
                text(&before[name.as_str()]),
                text(&after[name.as_str()])
            ),
        });
    differing.collect::<Vec<_>>().join(", ")
}
