//! Files for an import into a running instance: opened, streamed to disk, handed to a job.

use std::path::PathBuf;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use dwell_serving_api::problem::{self, Problem};
use dwell_storage::access::Principal;
use dwell_storage::api::{Job, Lane};
use futures::StreamExt;
use serde::Deserialize;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::{OpsState, authorise};
use crate::importing::ImportRequest;
use crate::jobs::ImportJob;

/// Largest uploaded file.
const FILE_BYTES_MAX: u64 = 64 << 30;
/// Most files of one import.
const FILES_MAX: usize = 10_000;

/// Opens a folder for the files of one import.
pub(super) async fn open(State(state): State<OpsState>, headers: HeaderMap) -> Result<Response, Problem> {
    let caller = authorise(&state, &headers, "operator", Principal::may_operate).await?;
    let mut random = [0_u8; 12];
    getrandom::fill(&mut random).map_err(|error| internal(format!("asking for randomness: {error}")))?;
    let upload = hex::encode(random);
    let folder = folder(&state, &caller, &upload)?;
    tokio::fs::create_dir_all(&folder)
        .await
        .map_err(|error| internal(format!("making a folder: {error}")))?;
    Ok((StatusCode::CREATED, Json(json!({ "upload": upload }))).into_response())
}

/// Takes a file; an existing one of that name is replaced.
pub(super) async fn receive(
    State(state): State<OpsState>,
    Path((upload, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let caller = authorise(&state, &headers, "operator", Principal::may_operate).await?;
    let folder = folder(&state, &caller, &upload)?;
    if !folder.is_dir() {
        return Err(Problem::not_found("upload", &upload));
    }
    check_file_name(&name)?;
    let path = folder.join(&name);
    let mut file = tokio::fs::File::create(&path)
        .await
        .map_err(|error| internal(format!("making a file: {error}")))?;
    let (mut stream, mut bytes) = (body.into_data_stream(), 0_u64);
    while let Some(chunk) = stream.next().await {
        let chunk =
            chunk.map_err(|_| Problem::new(problem::BAD_BODY, "the upload broke off; send it again"))?;
        bytes += chunk.len() as u64;
        if bytes > FILE_BYTES_MAX {
            return Err(Problem::new(
                problem::TOO_LARGE,
                format!("a file may have {FILE_BYTES_MAX} bytes"),
            ));
        }
        file.write_all(&chunk)
            .await
            .map_err(|error| internal(format!("writing an upload: {error}")))?;
    }
    file.flush()
        .await
        .map_err(|error| internal(format!("writing an upload: {error}")))?;
    Ok((StatusCode::CREATED, Json(json!({ "name": name, "bytes": bytes }))).into_response())
}

/// The body of `POST /v1/imports`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewImport {
    upload: String,
    files: Vec<String>,
    #[serde(flatten)]
    request: ImportRequest,
}

/// Stores the job that imports an upload.
pub(super) async fn start(
    State(state): State<OpsState>,
    headers: HeaderMap,
    body: Result<Json<serde_json::Value>, JsonRejection>,
) -> Result<Response, Problem> {
    let caller = authorise(&state, &headers, "operator", Principal::may_operate).await?;
    let refuse = |detail: String| Problem::new(problem::BAD_BODY, detail);
    let Json(body) = body.map_err(|rejection| refuse(rejection.body_text()))?;
    let new = NewImport::read(body).map_err(refuse)?;
    let folder = folder(&state, &caller, &new.upload)?;
    if new.files.is_empty() || new.files.len() > FILES_MAX {
        return Err(refuse(format!("files must name 1 to {FILES_MAX} uploaded files")));
    }
    for name in &new.files {
        check_file_name(name)?;
        if !folder.join(name).is_file() {
            return Err(Problem::not_found("uploaded file", name));
        }
    }
    let now = state.clock.now_ms();
    let spec = ImportJob {
        folder,
        files: new.files,
        request: new.request,
    };
    let job = Job::queued(
        format!("{now:013}-{}", new.upload),
        caller.tenant.clone(),
        "import",
        serde_json::to_value(&spec).map_err(|error| internal(error.to_string()))?,
        caller.key_id.clone(),
        None,
        now,
    )
    .in_lane(Lane::Backfill);
    state.stores.jobs.create(&job).await?;
    state.wake.notify_one();
    let answer = json!({
        "id": job.id, "kind": job.kind, "state": job.state.word(), "progress": job.progress
    });
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
}

impl NewImport {
    /// Reads the body. Flattened structs cannot refuse unknown fields, so the parts are taken one by one.
    fn read(body: serde_json::Value) -> Result<Self, String> {
        let serde_json::Value::Object(mut fields) = body else {
            return Err("a JSON object with upload and files is expected".to_owned());
        };
        let mut take = |name: &str| fields.remove(name).ok_or_else(|| format!("{name} is missing"));
        let upload = serde_json::from_value(take("upload")?).map_err(|error| format!("upload: {error}"))?;
        let files = serde_json::from_value(take("files")?).map_err(|error| format!("files: {error}"))?;
        let request =
            serde_json::from_value(serde_json::Value::Object(fields)).map_err(|error| error.to_string())?;
        Ok(Self {
            upload,
            files,
            request,
        })
    }
}

/// The folder of an upload: below the tenant's own, so that nobody reaches another's files.
fn folder(state: &OpsState, caller: &Principal, upload: &str) -> Result<PathBuf, Problem> {
    let Some(uploads) = &state.uploads else {
        return Err(Problem::new(
            problem::CONFLICT,
            "this installation takes no uploads, since its processes share no folder: run `dwell import --config FILE` \
             where the files are",
        ));
    };
    let is_id = upload.len() == 24 && upload.bytes().all(|byte| byte.is_ascii_hexdigit());
    match is_id {
        true => Ok(uploads.join(caller.tenant.as_str()).join(upload)),
        false => Err(Problem::not_found("upload", upload)),
    }
}

fn check_file_name(name: &str) -> Result<(), Problem> {
    let plain = !name.is_empty()
        && name.len() <= 255
        && !name.starts_with('.')
        && !name.contains(['/', '\\', '\0'])
        && !name.chars().any(char::is_control);
    match plain {
        true => Ok(()),
        false => Err(Problem::parameter(
            "name",
            "give a plain file name, without folders",
        )),
    }
}

fn internal(detail: String) -> Problem {
    tracing::error!(detail, "upload failed");
    Problem::new(
        problem::INTERNAL,
        "the file could not be stored; see the server's log",
    )
}
