//! `dwell quarantine …`

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use axum::http::Method;
use clap::{Args, Subcommand};
use dwell_ingest::sources::files::MappingSpec;
use serde_json::{Map, Value, json};

use super::jobs::wait_for;
use super::target::{create_job, venues_of, with_target};
use super::venues::text;
use super::{ReadFlags, TargetArgs};
use crate::client::escape;
use crate::output::{Output, table};

/// `dwell quarantine …`
#[derive(Debug, Subcommand)]
pub(crate) enum QuarantineCommand {
    /// List what was refused, newest first.
    List(ListArgs),
    /// Show an entry with its bytes, the reason marked in them.
    Show {
        /// Its id
        id: String,
        /// Open sealed bytes, while their key exists: they may hold identifiers of devices, and the audit records it
        #[arg(long)]
        open: bool,
        #[command(flatten)]
        _read: ReadFlags,
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Try to take entries again, now that their reason may be gone, or through a mapping that mends it.
    Replay(ReplayArgs),
    /// Decide that entries are rubbish: their bytes are removed for good.
    Drop(DropArgs),
}

/// What entries have in common.
#[derive(Debug, Args)]
pub(crate) struct PickArgs {
    /// Of this venue
    #[arg(long)]
    venue: Option<String>,
    /// Refused with this code
    #[arg(long)]
    code: Option<String>,
    /// From this source: http, or a file's name
    #[arg(long)]
    source: Option<String>,
    /// Of this sensor, where it is known
    #[arg(long)]
    sensor: Option<String>,
    /// Brought by this request or file: its receipt
    #[arg(long)]
    receipt: Option<String>,
    /// Refused at this time or later (RFC 3339, or milliseconds)
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Refused before this time
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
}

/// Flags of `dwell quarantine list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pick: PickArgs,
    /// open, replayed, dropped or all [default: open]
    #[arg(long)]
    state: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// `next_cursor` of the page before
    #[arg(long)]
    cursor: Option<String>,
    #[command(flatten)]
    _read: ReadFlags,
    #[command(flatten)]
    target: TargetArgs,
}

/// Flags of `dwell quarantine replay`.
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// Ids of entries; or say what they have in common
    ids: Vec<String>,
    #[command(flatten)]
    pick: PickArgs,
    /// A mapping file, as for `dwell import`
    #[arg(long, value_name = "FILE")]
    mapping: Option<PathBuf>,
    /// A field is what a column, or a field of the event, says: field=column (repeat for more)
    #[arg(long = "map", value_name = "FIELD=COLUMN")]
    maps: Vec<String>,
    /// A field is this: field=value (repeat for more)
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    sets: Vec<String>,
    /// Say how many would be taken and why the others would not, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Why, for the record
    #[arg(long)]
    reason: Option<String>,
    /// Wait for its end, as it always does
    #[arg(long)]
    #[allow(dead_code, reason = "taken so that it is not refused")]
    wait: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Flags of `dwell quarantine drop`.
#[derive(Debug, Args)]
pub(crate) struct DropArgs {
    /// Ids of entries; or say what they have in common
    ids: Vec<String>,
    #[command(flatten)]
    pick: PickArgs,
    /// Why, for the record; needed where entries are not named one by one
    #[arg(long)]
    reason: Option<String>,
    /// Say how many would be dropped, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Wait for its end, as it always does
    #[arg(long)]
    #[allow(dead_code, reason = "taken so that it is not refused")]
    wait: bool,
    #[command(flatten)]
    target: TargetArgs,
}

impl PickArgs {
    fn is_empty(&self) -> bool {
        self.venue.is_none() && self.options().is_empty()
    }

    /// As options of a job, the venue apart.
    fn options(&self) -> Map<String, Value> {
        let given = [
            ("code", &self.code),
            ("source", &self.source),
            ("sensor", &self.sensor),
            ("receipt", &self.receipt),
            ("from_time", &self.from),
            ("to_time", &self.to),
        ];
        let given = given
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), json!(value.as_ref()?))));
        given.collect()
    }
}

pub(crate) async fn run(command: &QuarantineCommand) -> Result<()> {
    match command {
        QuarantineCommand::List(args) => list(args).await,
        QuarantineCommand::Show { id, open, target, .. } => {
            with_target(target, async |opened| {
                let path = format!("/v1/quarantine/{}/look?open={open}", escape(id));
                let entry: Value = opened.client().get(&path).await?;
                Output::from_flag(target.json).result(&entry, || shown(&entry))
            })
            .await
        }
        QuarantineCommand::Replay(args) => replay(args).await,
        QuarantineCommand::Drop(args) if args.ids.is_empty() || args.dry_run => drop_many(args).await,
        QuarantineCommand::Drop(args) => drop_named(args).await,
    }
}

async fn list(args: &ListArgs) -> Result<()> {
    let output = Output::from_flag(args.target.json);
    with_target(&args.target, async |target| {
        let mut path = format!("/v1/quarantine?limit={}", args.limit);
        let pick = &args.pick;
        let filters = [
            ("venue", &pick.venue),
            ("code", &pick.code),
            ("source", &pick.source),
            ("sensor", &pick.sensor),
            ("receipt", &pick.receipt),
            ("from", &pick.from),
            ("to", &pick.to),
            ("state", &args.state),
            ("cursor", &args.cursor),
        ];
        for (name, value) in filters {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", escape(value)));
            }
        }
        let answer: Value = target.client().get(&path).await?;
        output.result(&answer, || listed(&answer))
    })
    .await
}

fn listed(answer: &Value) -> String {
    let rows = |list: &str, names: &[&str]| -> Vec<Vec<String>> {
        let entries = answer[list].as_array().map(Vec::as_slice).unwrap_or_default();
        let row = |entry: &Value| names.iter().map(|name| text(&entry[*name])).collect();
        entries.iter().map(row).collect()
    };
    let names = [
        "id",
        "received_at",
        "venue",
        "source",
        "sensor",
        "index",
        "code",
        "message",
        "state",
    ];
    let heads = [
        "id", "received", "venue", "source", "sensor", "index", "code", "message", "state",
    ];
    let mut shown = table(&heads, &[5], rows("entries", &names));
    if let Some(cursor) = answer["next_cursor"].as_str() {
        shown.push_str(&format!("\nmore: --cursor {cursor}"));
    }
    let left_out = rows(
        "left_out",
        &["venue", "source", "sensor", "code", "bound", "entries"],
    );
    if !left_out.is_empty() {
        let heads = ["venue", "source", "sensor", "code", "bound", "not kept"];
        shown.push_str(&format!("\n\n{}", table(&heads, &[5], left_out)));
    }
    shown
}

/// An entry, its text with the place of the reason underlined.
fn shown(entry: &Value) -> String {
    const ABOVE: [&str; 11] = [
        "id",
        "received_at",
        "venue",
        "source",
        "sensor",
        "receipt",
        "index",
        "format",
        "state",
        "code",
        "message",
    ];
    let mut lines: Vec<String> = ABOVE
        .iter()
        .filter(|name| !entry[**name].is_null())
        .map(|name| format!("{name}: {}", text(&entry[*name])))
        .collect();
    let now = &entry["now"];
    match now["outcome"].as_str() {
        Some("taken") => lines.push("now: it would be taken".to_owned()),
        Some("refused") => lines.push(format!("now: {}: {}", text(&now["code"]), text(&now["message"]))),
        _ => {}
    }
    lines.push(String::new());
    match (entry["text"].as_str(), entry["hex"].as_str()) {
        (Some(bytes), _) => lines.push(underlined(bytes, &entry["mark"])),
        (None, Some(hex)) => lines.push(format!("hex: {hex}")),
        (None, None) if entry["sealed"] == true && entry["state"] == "open" => lines.push(
            "its bytes are sealed, since an identifier may stand anywhere in them: --open shows them while their key exists"
                .to_owned(),
        ),
        (None, None) => lines.push("its bytes are gone".to_owned()),
    }
    lines.join("\n")
}

/// A text with carets under a place.
fn underlined(bytes: &str, mark: &Value) -> String {
    let number = |name: &str| {
        mark[name]
            .as_u64()
            .and_then(|number| usize::try_from(number).ok())
    };
    let (Some(line), Some(start), Some(len)) = (number("line"), number("start"), number("len")) else {
        return bytes.to_owned();
    };
    let mut out: Vec<String> = Vec::new();
    let mut at = 0;
    for (number, text) in bytes.split('\n').enumerate() {
        out.push(text.to_owned());
        if number + 1 == line {
            let before = text.get(..start.saturating_sub(at)).unwrap_or(text);
            let of_line = bytes.get(start..(start + len).min(at + text.len())).unwrap_or("");
            let carets = "^".repeat(of_line.chars().count().max(1));
            out.push(format!("{}{carets}", " ".repeat(before.chars().count())));
        }
        at += text.len() + 1;
    }
    out.join("\n")
}

async fn replay(args: &ReplayArgs) -> Result<()> {
    if args.ids.is_empty() && args.pick.is_empty() {
        bail!("name entries, or say what they have in common: --venue, --code, --sensor, …");
    }
    let mut options = args.pick.options();
    if !args.ids.is_empty() {
        options.insert("entries".to_owned(), json!(args.ids));
    }
    if let Some(mapping) = mapping(args)? {
        options.insert("mapping".to_owned(), serde_json::to_value(mapping)?);
    }
    let mut body = json!({ "kind": "replay", "options": options, "dry_run": args.dry_run });
    if let Some(reason) = &args.reason {
        body["reason"] = json!(reason);
    }
    have_done(body, &args.pick, &args.target).await
}

/// The mapping that the flags say; flags win over the file.
fn mapping(args: &ReplayArgs) -> Result<Option<MappingSpec>> {
    if args.mapping.is_none() && args.maps.is_empty() && args.sets.is_empty() {
        return Ok(None);
    }
    let mut spec = match &args.mapping {
        None => MappingSpec::default(),
        Some(path) => {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
            MappingSpec::from_toml(&name, &text)?
        }
    };
    args.maps.iter().try_for_each(|map| spec.add_map(map))?;
    args.sets.iter().try_for_each(|set| spec.add_set(set))?;
    Ok(Some(spec))
}

async fn drop_many(args: &DropArgs) -> Result<()> {
    if args.ids.is_empty() && args.pick.is_empty() {
        bail!("name entries, or say what they have in common: --venue, --code, --sensor, …");
    }
    let mut options = args.pick.options();
    if !args.ids.is_empty() {
        options.insert("entries".to_owned(), json!(args.ids));
    }
    let reason = args.reason.as_deref();
    let reason = reason.or(args.dry_run.then_some("dry run"));
    let body = json!({
        "kind": "drop-refused", "options": options, "dry_run": args.dry_run,
        "reason": reason.context("say why: --reason TEXT; what is dropped is gone for good")?,
    });
    have_done(body, &args.pick, &args.target).await
}

async fn drop_named(args: &DropArgs) -> Result<()> {
    with_target(&args.target, async |opened| {
        for id in &args.ids {
            let mut path = format!("/v1/quarantine/{}/drop", escape(id));
            if let Some(reason) = &args.reason {
                path.push_str(&format!("?reason={}", escape(reason)));
            }
            opened
                .client()
                .send(Method::POST, &path, None)
                .await?
                .json::<Value>()?;
        }
        let answer = json!({ "dropped": args.ids });
        Output::from_flag(args.target.json).result(&answer, || format!("{} dropped", args.ids.len()))
    })
    .await
}

/// Has a job done, and shows its report.
async fn have_done(mut body: Value, pick: &PickArgs, target: &TargetArgs) -> Result<()> {
    let output = Output::from_flag(target.json);
    with_target(target, async |opened| {
        let client = opened.client();
        if let Some(venue) = &pick.venue {
            body["venues"] = json!(venues_of(client, venue).await?);
        }
        let job = wait_for(client, create_job(client, &body).await?, output).await?;
        output.result(&job, || lines(&job["report"]))
    })
    .await
}

fn lines(value: &Value) -> String {
    match value.as_object() {
        Some(fields) => fields
            .iter()
            .map(|(name, value)| format!("{name}: {}", text(value)))
            .collect::<Vec<_>>()
            .join("\n"),
        None => text(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_the_reason_is_underlined() {
        let rows = "ä,ts\nü1,soon\nb,2";
        let mark = json!({ "line": 2, "start": 10, "len": 4 });
        assert_eq!(underlined(rows, &mark), "ä,ts\nü1,soon\n   ^^^^\nb,2");
        assert_eq!(underlined("x", &json!(null)), "x");
        let whole = json!({ "line": 1, "start": 0, "len": 99 });
        assert_eq!(underlined("ab\ncd", &whole), "ab\n^^\ncd");
    }
}
