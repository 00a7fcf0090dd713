//! `/v1/definitions`: what each number means.

use axum::http::HeaderMap;
use axum::response::Response;
use dwell_model::definitions;

use crate::dto::{DefinitionDto, DefinitionsDto};
use crate::problem::Problem;
use crate::respond::{self, Caching};

/// Every metric with its version, unit, formula in words, and how it unites over time, subjects and venues.
#[utoipa::path(
    get, path = "/v1/definitions", tag = "metrics",
    responses((status = 200, description = "The definitions", body = DefinitionsDto)),
)]
pub(crate) async fn list(headers: HeaderMap) -> Result<Response, Problem> {
    let definitions = definitions::ALL.iter().map(DefinitionDto::from).collect();
    respond::json(
        &headers,
        &DefinitionsDto {
            version: definitions::VERSION,
            definitions,
        },
        Caching::SETTLED,
    )
}
