//! The OpenAPI 3.1 document, generated from the handlers and the route table.
//!
//! The handlers give parameters, bodies and answers; the route table adds who may call, and the problems that any
//! route answers with. Documents of other routers on the same address (ingest's) are merged in, so that one page
//! shows everything that a client can call.

use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use crate::auth::{Access, role_word};
use crate::dto;
use crate::problem::{self, PROBLEM_JSON, ProblemDto, ProblemKind};
use crate::route_table::ROUTES;
use crate::routes;

const DESCRIPTION: &str = "Metrics, live view, sessions, days and jobs of the tenant that the key belongs to.\n\n\
    Dates include both ends and mean the venue's local days; instants are half-open. Answers are dense: every bucket \
    asked for has a state, and a value or null. Reads carry a strong ETag; send it as If-None-Match. Longer answers \
    come in pages: repeat the request with `cursor` set to `next_cursor`. Every error is problem details (RFC 9457) \
    with a stable `code`.";

#[derive(OpenApi)]
#[openapi(
    info(title = "Dwell", description = DESCRIPTION),
    paths(
        routes::venues::list,
        routes::venues::apply,
        routes::venues::get,
        routes::metrics::get,
        routes::query::post,
        routes::live::get,
        routes::live::stream,
        routes::sessions::list,
        routes::sessions::get,
        routes::transitions::get,
        routes::heatmap::get,
        routes::days::list,
        routes::days::get,
        routes::changes::list,
        routes::explain::get,
        routes::definitions::list,
        routes::periods::list,
        routes::periods::close,
        routes::periods::open,
        routes::jobs::create,
        routes::jobs::list,
        routes::jobs::get,
        routes::jobs::cancel,
        routes::jobs::retry,
        routes::audit::list,
        routes::exclusions::list,
        routes::quarantine::list,
        routes::quarantine::get,
        routes::quarantine::discard,
        routes::keys::list,
        routes::keys::create,
        routes::keys::revoke,
        routes::documentation::openapi,
        routes::documentation::page,
    ),
    components(schemas(ProblemDto<'_>, dto::LiveDto)),
    tags(
        (name = "metrics", description = "Numbers by hour, day, week, month or in total"),
        (name = "live", description = "What happens now"),
        (name = "sessions", description = "Stays of single visitors, and where they went"),
        (name = "venues", description = "Venues and their layouts"),
        (name = "days", description = "How sure the numbers are"),
        (name = "periods", description = "Closed periods, and what is proposed for them"),
        (name = "jobs", description = "Recompute, archive, verify and the like"),
        (name = "quarantine", description = "What was refused"),
        (name = "keys", description = "Access keys of the tenant"),
        (name = "documentation", description = "This document and its page"),
    ),
)]
struct Document;

/// The document as JSON, with the paths and components of further documents.
pub fn document(further: &[Value]) -> Value {
    let mut document = serde_json::to_value(Document::openapi()).unwrap_or_else(|_| json!({}));
    document["info"]["version"] = json!(env!("CARGO_PKG_VERSION"));
    document["components"]["securitySchemes"] = json!({ "bearer": { "type": "http", "scheme": "bearer", "description": "A key of the tenant: dwk_<id>_<secret>" } });
    for route in ROUTES {
        let method = route.method.as_str().to_ascii_lowercase();
        if let Some(Value::Object(operation)) = document["paths"][route.path].get_mut(&method) {
            operation.insert("operationId".to_owned(), json!(operation_id(&method, route.path)));
            shorten_summary(operation);
            describe_access(operation, route.access);
        }
    }
    plain_names(&mut document);
    for other in further {
        merge(&mut document, other);
    }
    document
}

pub(crate) fn document_bytes(further: &[Value]) -> Vec<u8> {
    // A value of texts and numbers: writing it to memory cannot fail.
    serde_json::to_vec(&document(further)).unwrap_or_default()
}

/// A unique name for generated clients: the method and the path's words, as in `getVenuesVenueMetrics`.
fn operation_id(method: &str, path: &str) -> String {
    let words = path
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty() && *word != "v1");
    let mut id = method.to_owned();
    for word in words {
        let (first, rest) = word.split_at(1);
        id.push_str(&first.to_ascii_uppercase());
        id.push_str(rest);
    }
    id
}

/// Keeps the first sentence as the summary and moves the others into the description.
fn shorten_summary(operation: &mut Map<String, Value>) {
    let text = |name: &str| {
        operation
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .replace('\n', " ")
    };
    let (summary, description) = (text("summary"), text("description"));
    let (first, others) = summary
        .split_once(". ")
        .unwrap_or((summary.trim_end_matches('.'), ""));
    let description = format!("{others} {description}").trim().to_owned();
    operation.insert("summary".to_owned(), json!(first));
    if !description.is_empty() {
        operation.insert("description".to_owned(), json!(description));
    }
}

/// Names schemas without the suffix that tells wire types apart in the code.
fn plain_names(document: &mut Value) {
    fn rename(value: &mut Value) {
        match value {
            Value::Object(object) => {
                if let Some(Value::String(reference)) = object.get_mut("$ref") {
                    reference.truncate(reference.strip_suffix("Dto").map_or(reference.len(), str::len));
                }
                object.values_mut().for_each(rename);
            }
            Value::Array(values) => values.iter_mut().for_each(rename),
            _ => {}
        }
    }
    rename(document);
    if let Some(Value::Object(schemas)) = document["components"].get_mut("schemas") {
        let named = std::mem::take(schemas).into_iter();
        schemas.extend(named.map(|(name, schema)| (name.trim_end_matches("Dto").to_owned(), schema)));
    }
}

/// Adds to an operation who may call it and which problems any caller may meet.
fn describe_access(operation: &mut Map<String, Value>, access: Access) {
    let mut problems = vec![problem::BUSY, problem::TIMEOUT, problem::INTERNAL];
    let has_input = operation.contains_key("parameters") || operation.contains_key("requestBody");
    if has_input {
        problems.push(problem::BAD_PARAMETER);
    }
    let in_path = |parameter: &Value| parameter["in"] == "path";
    let names_something = operation
        .get("parameters")
        .and_then(Value::as_array)
        .is_some_and(|list| list.iter().any(in_path));
    if names_something {
        problems.push(problem::NOT_FOUND);
    }
    if operation.contains_key("requestBody") {
        problems.extend([problem::TOO_LARGE, problem::UNSUPPORTED_MEDIA_TYPE]);
    }
    match access {
        Access::Public => {
            operation.insert("security".to_owned(), json!([]));
        }
        Access::AtLeast(role) => {
            operation.insert("security".to_owned(), json!([{ "bearer": [] }]));
            operation.insert("x-dwell-role".to_owned(), json!(role_word(role)));
            problems.extend([
                problem::UNAUTHENTICATED,
                problem::FORBIDDEN,
                problem::TOO_MANY_REQUESTS,
            ]);
        }
    }
    let responses = operation.entry("responses").or_insert_with(|| json!({}));
    for kind in problems {
        let status = kind.status.as_u16().to_string();
        if responses.get(&status).is_none() {
            responses[status] = problem_response(kind);
        }
    }
}

fn problem_response(kind: ProblemKind) -> Value {
    json!({
        "description": kind.title,
        "content": { PROBLEM_JSON: { "schema": { "$ref": "#/components/schemas/Problem" } } },
    })
}

/// Adds the paths, components and tags of another document; what is there already stays.
fn merge(document: &mut Value, other: &Value) {
    fn add(into: &mut Value, from: &Value, depth: u32) {
        let (Value::Object(into), Value::Object(from)) = (into, from) else {
            return;
        };
        for (name, value) in from {
            match into.get_mut(name) {
                Some(there) if depth > 0 => add(there, value, depth - 1),
                Some(_) => {}
                None => {
                    into.insert(name.clone(), value.clone());
                }
            }
        }
    }
    // A path's methods, and a component's kinds, are joined one by one.
    add(&mut document["paths"], &other["paths"], 1);
    add(&mut document["components"], &other["components"], 1);
    if let (Some(Value::Array(tags)), Some(Value::Array(more))) =
        (document.get_mut("tags"), other.get("tags"))
    {
        let new: Vec<Value> = more
            .iter()
            .filter(|tag| !tags.iter().any(|there| there["name"] == tag["name"]))
            .cloned()
            .collect();
        tags.extend(new);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn operations(document: &Value) -> BTreeSet<(String, String)> {
        let paths = document["paths"].as_object().unwrap();
        let methods = ["get", "put", "post", "delete", "patch", "head", "options"];
        paths
            .iter()
            .flat_map(|(path, item)| {
                let found = methods
                    .into_iter()
                    .filter(move |method| item.get(*method).is_some());
                found.map(move |method| (path.clone(), method.to_ascii_uppercase()))
            })
            .collect()
    }

    #[test]
    fn every_route_is_documented_and_every_documented_operation_is_a_route() {
        let routed: BTreeSet<_> = ROUTES
            .iter()
            .map(|route| (route.path.to_owned(), route.method.to_string()))
            .collect();
        assert_eq!(routed.len(), ROUTES.len(), "a route stands twice in the table");
        assert_eq!(operations(&document(&[])), routed);
    }

    #[test]
    fn operations_say_who_may_call_them_and_what_can_go_wrong() {
        let document = document(&[]);
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        for route in ROUTES {
            let operation = &document["paths"][route.path][route.method.as_str().to_ascii_lowercase()];
            assert!(
                operation["summary"].is_string(),
                "{} {}",
                route.method,
                route.path
            );
            let needs_key = operation["responses"].get("401").is_some();
            assert_eq!(
                needs_key,
                route.access != Access::Public,
                "{} {}",
                route.method,
                route.path
            );
            assert!(operation["tags"][0].is_string());
        }
    }

    #[test]
    fn every_reference_of_the_document_leads_somewhere() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(object) => {
                    if let Some(Value::String(reference)) = object.get("$ref") {
                        found.push(reference.clone());
                    }
                    object.values().for_each(|value| references(value, found));
                }
                Value::Array(values) => values.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let document = document(&[]);
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 20);
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn documents_of_other_routers_are_shown_too() {
        let ingest = json!({
            "paths": { "/v1/venues/{venue}/events": { "post": { "summary": "Post events" } }, "/v1/venues": { "get": {} } },
            "components": { "schemas": { "Receipt": { "type": "object" } } },
        });
        let merged = document(&[ingest]);
        assert_eq!(
            merged["paths"]["/v1/venues/{venue}/events"]["post"]["summary"],
            "Post events"
        );
        assert_eq!(merged["components"]["schemas"]["Receipt"]["type"], "object");
        assert!(
            merged["paths"]["/v1/venues"]["get"]["summary"].is_string(),
            "its own words stay"
        );
    }
}
