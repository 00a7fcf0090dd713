//! `GET /v1/erasures`: receipts of erasures. They name nobody.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use dwell_serving_api::problem::{self, Problem};
use dwell_storage::access::Principal;
use dwell_storage::api::documents;
use serde_json::{Value, json};

use super::{OpsState, authorise};
use crate::erasing::receipt::ErasureReceipt;

pub(super) async fn list(State(state): State<OpsState>, headers: HeaderMap) -> Result<Json<Value>, Problem> {
    let caller = authorise(&state, &headers, "operator", Principal::may_operate).await?;
    let receipts = documents::all::<ErasureReceipt>(&*state.stores.documents, &caller.tenant).await?;
    // The newest first: ids sort by time.
    let receipts: Result<Vec<Value>, _> = receipts
        .iter()
        .rev()
        .map(|stored| serde_json::to_value(&stored.value))
        .collect();
    let receipts = receipts.map_err(|error| Problem::new(problem::INTERNAL, error.to_string()))?;
    Ok(Json(json!({ "erasures": receipts })))
}
