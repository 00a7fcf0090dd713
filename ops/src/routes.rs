//! The routes that only the binary can offer, since they need several layers: uploads for imports, exports, schedules.
//!
//! - `POST /v1/uploads` → `{upload}`: opens a folder for the files of one import.
//! - `PUT /v1/uploads/{upload}/{name}`: a file, streamed to disk.
//! - `POST /v1/imports` `{upload, files, to_archive, mapping}` → 202 with the job.
//! - `GET /v1/schedules`, `PUT` and `DELETE /v1/schedules/{name}`, `POST /v1/schedules/{name}/pause` and `/resume`.
//! - `GET /v1/erasures` → `{erasures}`: receipts, the newest first.
//! - `GET /v1/quarantine/{entry}/look`: see [`quarantine`].
//! - `GET /v1/usage`: see [`usage`].
//! - `GET /v1/permits`, `PUT /v1/permits/{tenant}`: see [`permits`].
//! - `GET /v1/export/{table}?from=&to=&venue=` → the table as Parquet.
//! - `/v1/retention/…`: see [`retention`].

mod erasures;
mod export;
mod permits;
mod quarantine;
mod retention;
mod schedules;
mod uploads;
mod usage;

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, header};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post, put};
use dwell_ingest::quarantine::Replayer;
use dwell_retention::{Policy, Retention};
use dwell_runtime::clock::SharedClock;
use dwell_serving_api::JobCatalogue;
use dwell_serving_api::problem::{self, Problem};
use dwell_storage::access::{KeyVerifier, Principal};
use dwell_storage::api::Stores;
use dwell_storage::usage::UsageCounter;
use tokio::sync::Notify;

/// What these routes share.
#[derive(Clone)]
pub(crate) struct OpsState {
    pub(crate) stores: Stores,
    /// Folder for the files of imports; `None` where the process that would import them may be on another machine.
    pub(crate) uploads: Option<PathBuf>,
    /// Folder for files on their way.
    pub(crate) spill: PathBuf,
    pub(crate) clock: SharedClock,
    pub(crate) verifier: Arc<KeyVerifier>,
    /// Wakes the job worker.
    pub(crate) wake: Arc<Notify>,
    pub(crate) retention: Retention,
    /// The retention policy of tenants that have set none.
    pub(crate) retention_policy: Policy,
    /// Counts requests.
    pub(crate) usage: UsageCounter,
    /// Looks at refused events.
    pub(crate) replayer: Replayer,
    /// The kinds of jobs that schedules may ask for.
    pub(crate) kinds: Arc<dyn JobCatalogue>,
    /// Days that a tenant may have worked on again that is denied the past, unless its permit says otherwise.
    pub(crate) recent_days: u32,
}

/// The router of these routes.
pub(crate) fn router(state: OpsState) -> Router {
    Router::new()
        .route("/v1/uploads", post(uploads::open))
        .route("/v1/uploads/{upload}/{name}", put(uploads::receive))
        .route("/v1/imports", post(uploads::start))
        .route("/v1/export/{table}", get(export::table))
        .route("/v1/retention/plan", get(retention::plan))
        .route(
            "/v1/retention/policy",
            get(retention::show_policy).put(retention::set_policy),
        )
        .route(
            "/v1/retention/holds",
            get(retention::list_holds).post(retention::add_hold),
        )
        .route("/v1/retention/holds/{hold}/lift", post(retention::lift_hold))
        .route("/v1/retention/marks", get(retention::show_marks))
        .route("/v1/schedules", get(schedules::list))
        .route(
            "/v1/schedules/{name}",
            put(schedules::put).delete(schedules::remove),
        )
        .route("/v1/schedules/{name}/pause", post(schedules::pause))
        .route("/v1/schedules/{name}/resume", post(schedules::resume))
        .route("/v1/erasures", get(erasures::list))
        .route("/v1/quarantine/{entry}/look", get(quarantine::look))
        .route("/v1/usage", get(usage::show))
        .route("/v1/permits", get(permits::list))
        .route("/v1/permits/{tenant}", put(permits::set))
        .route_layer(from_fn_with_state(state.clone(), usage::count))
        .with_state(state)
}

/// OpenAPI of these routes, shown with the serving API's.
pub(crate) fn document() -> serde_json::Value {
    let bearer = serde_json::json!([{ "bearer": [] }]);
    let parameter = |name: &str, place: &str, required: bool, about: &str| {
        serde_json::json!({
            "name": name, "in": place, "required": required, "description": about, "schema": { "type": "string" }
        })
    };
    let tagged = |tag: &str, summary: &str, parameters: Vec<serde_json::Value>, status: &str, about: &str| {
        serde_json::json!({
            "tags": [tag], "summary": summary, "parameters": parameters, "security": bearer,
            "responses": { status: { "description": about }, "default": { "description": "Problem details" } }
        })
    };
    let operation = |summary: &str, parameters: Vec<serde_json::Value>, status: &str, about: &str| {
        tagged("import and export", summary, parameters, status, about)
    };
    let schedule = |summary: &str| {
        let name = parameter("name", "path", true, "Name of the schedule");
        tagged("jobs", summary, vec![name], "200", "`{name, schedule}`")
    };
    let upload = parameter("upload", "path", true, "Id of the upload");
    let mut document = serde_json::json!({
        "paths": {
            "/v1/uploads": { "post": operation("Open a folder for the files of one import (operator)", vec![], "201", "`{upload}`") },
            "/v1/uploads/{upload}/{name}": { "put": operation(
                "Send a file of an import, as its bytes are (operator)",
                vec![upload, parameter("name", "path", true, "Name of the file; its ending tells the format")],
                "201", "`{name, bytes}`") },
            "/v1/imports": { "post": operation(
                "Import uploaded files: `{upload, files, to_archive, mapping}` (operator)", vec![], "202", "The job") },
            "/v1/schedules": { "get": tagged(
                "jobs", "All schedules and how each stands (operator)", vec![], "200",
                "`{schedules: [{name, venue, schedule, last, last_state, next}]}`") },
            "/v1/schedules/{name}": {
                "put": schedule(
                    "Make or change a schedule: `{kind, cron, time_zone, venues, options, after, reason, lane}` (operator; backups: admin)"),
                "delete": schedule("Take a schedule back (operator)"),
            },
            "/v1/schedules/{name}/pause": { "post": schedule("Let a schedule do nothing (operator)") },
            "/v1/schedules/{name}/resume": { "post": schedule("Let a schedule go on (operator)") },
            "/v1/erasures": { "get": tagged(
                "jobs", "Receipts of erasures, the newest first: what was removed where, what still holds whom until when (operator)",
                vec![], "200", "`{erasures}`") },
            "/v1/export/{table}": { "get": operation(
                "A table of published numbers as Parquet (viewer)",
                vec![
                    parameter("table", "path", true, "For example `hourly`"),
                    parameter("from", "query", false, "First local day"),
                    parameter("to", "query", false, "Last local day, included"),
                    parameter("venue", "query", false, "Only this venue"),
                ],
                "200", "A Parquet file") },
        }
    });
    if let Some(paths) = document["paths"].as_object_mut() {
        paths.extend(retention::document());
        paths.extend(usage::document());
        paths.extend(permits::document());
        paths.extend(quarantine::document());
    }
    document
}

/// The caller, if the key may do what `allowed` asks.
async fn authorise(
    state: &OpsState,
    headers: &HeaderMap,
    needs: &str,
    allowed: impl Fn(&Principal) -> bool,
) -> Result<Principal, Problem> {
    let key = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, key)| key.trim());
    let Some(key) = key else {
        return Err(Problem::new(
            problem::UNAUTHENTICATED,
            "send the key as `authorization: Bearer <key>`",
        ));
    };
    let denied = || {
        Problem::new(
            problem::UNAUTHENTICATED,
            "the key is not known, or was taken back",
        )
    };
    let principal = state.verifier.verify(key).await?.ok_or_else(denied)?;
    match allowed(&principal) {
        true => Ok(principal),
        false => Err(Problem::new(
            problem::FORBIDDEN,
            format!("this needs a key with the role {needs} or more"),
        )),
    }
}
