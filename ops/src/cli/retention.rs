//! `dwell retention …`

use anyhow::Result;
use axum::http::Method;
use clap::{Args, Subcommand};
use dwell_model::time::LocalDay;
use serde_json::{Map, Value, json};

use super::target::with_target;
use super::venues::text;
use super::{ReadFlags, TargetArgs};
use crate::client::escape;
use crate::output::{Output, table};

/// `dwell retention …`
#[derive(Debug, Subcommand)]
pub(crate) enum RetentionCommand {
    /// Show what would be deleted now, and what holds the rest back.
    Plan(PlanArgs),
    /// Show what the last job marked, and how far it came.
    Marks {
        /// Day by day, of this venue
        #[arg(long)]
        venue: Option<String>,
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Show and change how long what is kept.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Forbid to delete anything of a venue or of a range of days.
    #[command(subcommand)]
    Hold(HoldCommand),
}

/// Flags of `dwell retention plan`.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// Only this venue
    #[arg(long)]
    venue: Option<String>,
    /// A time to act as if it were now, for trying (RFC 3339)
    #[arg(long, value_name = "TIME")]
    now: Option<String>,
    /// Only days after this one
    #[arg(long, value_name = "DAY")]
    after: Option<LocalDay>,
    #[command(flatten)]
    _read: ReadFlags,
    #[command(flatten)]
    target: TargetArgs,
}

/// `dwell retention policy …`
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Show the policy in force.
    Show {
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Change it; what is not named stays as it is.
    Set(PolicyArgs),
}

/// Flags of `dwell retention policy set`.
#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    /// Age of raw events, for example 90d
    #[arg(long, value_name = "AGE")]
    raw: Option<String>,
    /// Age of raw events of one kind, as KIND=AGE, or KIND=default
    #[arg(long = "kind", value_name = "KIND=AGE")]
    kinds: Vec<String>,
    /// Age of sessions
    #[arg(long, value_name = "AGE")]
    sessions: Option<String>,
    /// Age of generations that are no longer published
    #[arg(long, value_name = "AGE")]
    generations: Option<String>,
    /// Why, for the record
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    target: TargetArgs,
}

/// `dwell retention hold …`
#[derive(Debug, Subcommand)]
pub(crate) enum HoldCommand {
    /// Add a hold.
    Add(HoldArgs),
    /// Lift a hold.
    Lift {
        /// Its id
        id: String,
        /// Why, for the record
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        target: TargetArgs,
    },
    /// List holds, lifted ones too.
    List {
        #[command(flatten)]
        target: TargetArgs,
    },
}

/// Flags of `dwell retention hold add`.
#[derive(Debug, Args)]
pub(crate) struct HoldArgs {
    /// A venue, or `all`
    #[arg(long)]
    venue: String,
    /// First local day [default: since ever]
    #[arg(long, value_name = "DAY")]
    from: Option<LocalDay>,
    /// Last local day, included [default: for ever]
    #[arg(long, value_name = "DAY")]
    to: Option<LocalDay>,
    /// When it ends by itself (RFC 3339) [default: when it is lifted]
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Why, for the record
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) async fn run(command: &RetentionCommand) -> Result<()> {
    match command {
        RetentionCommand::Plan(args) => plan(args).await,
        RetentionCommand::Marks { venue, target } => {
            let venue = venue.as_deref().map(|venue| format!("?venue={}", escape(venue)));
            let path = format!("/v1/retention/marks{}", venue.unwrap_or_default());
            ask(target, Method::GET, &path, None, marks_table).await
        }
        RetentionCommand::Policy(PolicyCommand::Show { target }) => {
            ask(target, Method::GET, "/v1/retention/policy", None, policy_table).await
        }
        RetentionCommand::Policy(PolicyCommand::Set(args)) => {
            let body = args.body()?;
            let path = "/v1/retention/policy";
            ask(&args.target, Method::PUT, path, Some(body), policy_table).await
        }
        RetentionCommand::Hold(HoldCommand::Add(args)) => {
            let path = "/v1/retention/holds";
            let one = |hold: &Value| holds_table(std::slice::from_ref(hold));
            ask(&args.target, Method::POST, path, Some(args.body()), one).await
        }
        RetentionCommand::Hold(HoldCommand::Lift { id, reason, target }) => {
            let path = format!("/v1/retention/holds/{}/lift", escape(id));
            let body = json!({ "reason": reason });
            let one = |hold: &Value| holds_table(std::slice::from_ref(hold));
            ask(target, Method::POST, &path, Some(body), one).await
        }
        RetentionCommand::Hold(HoldCommand::List { target }) => {
            let all = |answer: &Value| holds_table(list(&answer["holds"]));
            ask(target, Method::GET, "/v1/retention/holds", None, all).await
        }
    }
}

async fn ask(
    target: &TargetArgs,
    method: Method,
    path: &str,
    body: Option<Value>,
    human: impl FnOnce(&Value) -> String,
) -> Result<()> {
    let output = Output::from_flag(target.json);
    with_target(target, async |opened| {
        let answer: Value = opened.client().json(method, path, body.as_ref()).await?;
        output.result(&answer, || human(&answer))
    })
    .await
}

async fn plan(args: &PlanArgs) -> Result<()> {
    let after = args.after.map(|day| day.to_string());
    let parameters = [("venue", &args.venue), ("now", &args.now), ("after", &after)];
    let query: Vec<String> = parameters
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", escape(value.as_deref()?))))
        .collect();
    let path = format!("/v1/retention/plan?{}", query.join("&"));
    ask(&args.target, Method::GET, &path, None, plan_table).await
}

impl PolicyArgs {
    fn body(&self) -> Result<Value> {
        let mut body = Map::new();
        for (name, value) in [
            ("raw", &self.raw),
            ("sessions", &self.sessions),
            ("generations", &self.generations),
            ("reason", &self.reason),
        ] {
            if let Some(value) = value {
                body.insert(name.to_owned(), json!(value));
            }
        }
        let mut kinds = Map::new();
        for kind in &self.kinds {
            let Some((kind, age)) = kind.split_once('=') else {
                anyhow::bail!("--kind {kind}: KIND=AGE is wanted, for example presence=30d");
            };
            let age = if age == "default" { Value::Null } else { json!(age) };
            kinds.insert(kind.to_owned(), age);
        }
        if !kinds.is_empty() {
            body.insert("kinds".to_owned(), Value::Object(kinds));
        }
        Ok(Value::Object(body))
    }
}

impl HoldArgs {
    fn body(&self) -> Value {
        let venue = (self.venue != "all").then_some(&self.venue);
        json!({
            "venue": venue, "from": self.from, "to": self.to, "until": self.until, "reason": self.reason,
        })
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn plan_table(answer: &Value) -> String {
    let mut rows = Vec::new();
    let mut notes = Vec::new();
    for venue in list(&answer["venues"]) {
        for day in list(&venue["days"]) {
            rows.extend(rows_of_day(&text(&venue["venue"]), day));
        }
        let mut note = format!(
            "{}: {} days too young for anything",
            text(&venue["venue"]),
            text(&venue["young"])
        );
        if let Some(at) = venue["next_due_at"].as_str() {
            note.push_str(&format!(", the first is due at {at}"));
        }
        if let Some(after) = venue["more_after"].as_str() {
            note.push_str(&format!("; more days: --after {after}"));
        }
        notes.push(note);
    }
    let heading = ["venue", "day", "what", "rows", "verdict", "why"];
    format!("{}\n{}", table(&heading, &[3], rows), notes.join("\n"))
}

fn rows_of_day(venue: &str, day: &Value) -> Vec<Vec<String>> {
    let name = text(&day["day"]);
    let mut rows = Vec::new();
    let mut add = |what: &str, verdict: &Value| {
        if verdict["verdict"] != "empty" {
            rows.push(vec![
                venue.to_owned(),
                name.clone(),
                what.to_owned(),
                text(&verdict["rows"]),
                text(&verdict["verdict"]),
                reasons(&verdict["reasons"]),
            ]);
        }
    };
    for (kind, verdict) in day["raw"].as_object().into_iter().flatten() {
        add(&format!("raw {kind}"), verdict);
    }
    add("sessions", &day["sessions"]);
    for old in list(&day["generations"]) {
        let why = reasons(&old["reasons"]);
        let verdict = if why.is_empty() { "delete" } else { "keep" };
        let what = format!("generation {}", text(&old["generation"]));
        add(&what, &json!({ "verdict": verdict, "reasons": old["reasons"] }));
    }
    rows
}

/// Reasons as people say them.
fn reasons(reasons: &Value) -> String {
    let said = list(reasons).iter().map(|reason| {
        let until = |at: &Value| at.as_i64().map(dwell_model::time::format_rfc3339);
        match reason["reason"].as_str().unwrap_or_default() {
            "too_young" => format!("too young until {}", until(&reason["until"]).unwrap_or_default()),
            "legal_hold" => format!("legal hold: {}", text(&reason["because"])),
            "archive_unreadable" => text(&reason["what"]),
            "archive_differs" => format!(
                "the archive holds {} of {} rows",
                text(&reason["found_rows"]),
                text(&reason["raw_rows"])
            ),
            "dirty" => "something came since it was computed: recompute it".to_owned(),
            other => other.replace('_', " "),
        }
    });
    said.collect::<Vec<_>>().join("; ")
}

fn policy_table(answer: &Value) -> String {
    let policy = &answer["policy"];
    let mut rows = vec![
        vec!["raw events".to_owned(), text(&policy["raw"])],
        vec!["sessions".to_owned(), text(&policy["sessions"])],
        vec!["old generations".to_owned(), text(&policy["generations"])],
    ];
    for (kind, age) in policy["kinds"].as_object().into_iter().flatten() {
        rows.push(vec![format!("raw events, {kind}"), text(age)]);
    }
    table(&["what", "kept for"], &[1], rows)
}

fn holds_table(holds: &[Value]) -> String {
    let heading = [
        "id", "venue", "from", "to", "in force", "until", "reason", "added by",
    ];
    let rows = holds.iter().map(|hold| {
        let or_all = |value: &Value| {
            if value.is_null() {
                "all".to_owned()
            } else {
                text(value)
            }
        };
        vec![
            text(&hold["id"]),
            or_all(&hold["venue"]),
            text(&hold["from"]),
            text(&hold["to"]),
            text(&hold["in_force"]),
            text(&hold["until"]),
            text(&hold["reason"]),
            text(&hold["added_by"]),
        ]
    });
    table(&heading, &[], rows)
}

fn marks_table(answer: &Value) -> String {
    let mut rows = Vec::new();
    for mark in list(&answer["marks"]) {
        rows.push(vec![
            text(&mark["venue"]),
            text(&mark["made_at"]),
            text(&mark["now"]),
            text(&mark["days_marked"]),
            text(&mark["days_done"]),
            text(&mark["days_kept"]),
            text(&mark["finished_at"]),
            text(&mark["job"]),
        ]);
    }
    let heading = [
        "venue", "made at", "for", "days", "done", "kept", "finished", "job",
    ];
    let mut out = table(&heading, &[3, 4, 5], rows);
    for mark in list(&answer["marks"]) {
        for (title, days) in [("goes", &mark["days"]), ("stays", &mark["kept"])] {
            let days = list(days);
            if !days.is_empty() {
                let venue = text(&mark["venue"]);
                let rows = days.iter().flat_map(|day| rows_of_day(&venue, day));
                let heading = ["venue", "day", "what", "rows", "verdict", "why"];
                out.push_str(&format!("\n{title}\n{}", table(&heading, &[3], rows)));
            }
        }
    }
    out
}
