//! `GET /v1/export/{table}`: written to a file first, so that a reader gets a whole table or none.

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use dwell_model::ids::VenueId;
use dwell_model::time::LocalDay;
use dwell_serving_api::problem::{self, Problem};
use dwell_storage::access::Principal;
use serde::Deserialize;
use tokio_util::io::ReaderStream;

use super::{OpsState, authorise};
use crate::export::{Selection, Table, export};

/// Query of an export.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    from: Option<String>,
    to: Option<String>,
    venue: Option<String>,
}

pub(super) async fn table(
    State(state): State<OpsState>,
    Path(name): Path<String>,
    headers: HeaderMap,
    params: Result<Query<Params>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let caller = authorise(&state, &headers, "viewer", Principal::may_read).await?;
    let table = Table::from_name(&name).ok_or_else(|| Problem::not_found("table", &name))?;
    let Query(params) =
        params.map_err(|rejection| Problem::new(problem::BAD_PARAMETER, rejection.body_text()))?;
    let day = |name: &str, text: Option<String>, otherwise: &str| {
        let text = text.unwrap_or_else(|| otherwise.to_owned());
        text.parse::<LocalDay>()
            .map_err(|error| Problem::parameter(name, error.to_string()))
    };
    let venue = params
        .venue
        .map(|id| VenueId::new(&id).map_err(|_| Problem::not_found("venue", &id)))
        .transpose()?;
    let selection = Selection {
        tenant: caller.tenant.clone(),
        venues: venue.map(|venue| vec![venue]),
        from: day("from", params.from, "1970-01-01")?,
        to: day("to", params.to, "2199-12-31")?,
    };
    let mut random = [0_u8; 8];
    getrandom::fill(&mut random).map_err(|_| Problem::new(problem::INTERNAL, "no randomness to be had"))?;
    let folder = state.spill.join(format!("export-{}", hex::encode(random)));
    let opened = async {
        let report = export(&state.stores, &selection, &[table], &folder).await?;
        let path = report
            .files
            .first()
            .map(|file| file.path.clone())
            .unwrap_or_default();
        let file = tokio::fs::File::open(&path).await?;
        let bytes = file.metadata().await?.len();
        anyhow::Ok((file, bytes))
    }
    .await;
    // The open file outlives its name: it is gone from the disk once it has been sent.
    if let Err(error) = std::fs::remove_dir_all(&folder) {
        tracing::warn!(%error, "cannot remove an export's folder");
    }
    let (file, bytes) = opened.map_err(|error| {
        tracing::error!(error = format!("{error:#}"), "export failed");
        Problem::new(problem::INTERNAL, "the export failed; see the server's log")
    })?;
    let headers = [
        (header::CONTENT_TYPE, "application/vnd.apache.parquet".to_owned()),
        (header::CONTENT_LENGTH, bytes.to_string()),
        (
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"{name}.parquet\""),
        ),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    Ok((headers, Body::from_stream(ReaderStream::new(file))).into_response())
}
