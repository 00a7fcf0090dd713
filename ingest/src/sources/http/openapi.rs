//! The routes as OpenAPI, to be shown on the API's page.

use serde_json::{Value, json};

use crate::refusal::Code;

/// The `paths` and `components` of an OpenAPI 3.1 document that tell these routes.
pub fn openapi() -> Value {
    let with_path = |parameters: Vec<Value>| {
        let mut all = vec![json!({
            "name": "venue", "in": "path", "required": true, "schema": { "type": "string" },
            "description": "The venue of all events.",
        })];
        all.extend(parameters);
        all
    };
    let mut to_venue = operation("postVenueEvents", "Post events of a venue");
    to_venue["parameters"] = Value::from(with_path(parameters()));
    let mut to_any = operation("postEvents", "Post events, each naming its venue");
    to_any["parameters"] = Value::from(parameters());
    json!({
        "paths": {
            "/v1/venues/{venue}/events": { "post": to_venue },
            "/v1/events": { "post": to_any },
        },
        "components": { "schemas": schemas() },
    })
}

fn operation(id: &str, summary: &str) -> Value {
    let answer = |description: &str| {
        let schema = json!({ "$ref": "#/components/schemas/EventsVerdict" });
        json!({ "description": description, "content": { "application/json": { "schema": schema } } })
    };
    let problem = |description: &str| json!({ "description": description, "content": { "application/problem+json": { "schema": { "type": "object" } } } });
    let event = json!({ "$ref": "#/components/schemas/Event" });
    let events = json!({ "oneOf": [{ "type": "array", "items": event }, event] });
    json!({
        "operationId": id,
        "summary": summary,
        "description": "Answers when everything that was taken is durable. After a timeout, 429 or 503 send the same again: nothing is counted twice.",
        "tags": ["events"],
        "requestBody": { "required": true, "content": {
            "application/json": { "schema": events },
            "application/x-ndjson": { "schema": { "type": "string", "description": "An event per line." } },
            "text/csv": { "schema": { "type": "string", "description": "Rows under a header that names the fields." } },
        }},
        "responses": {
            "200": answer("A dry run: what would be taken, and what not."),
            "202": answer("Some or all events were taken; the others are listed with what to do."),
            "400": problem("Nothing was taken: the body cannot be read."),
            "401": problem("A valid key is needed."),
            "403": problem("The key may not post here."),
            "404": problem("There is no such venue."),
            "408": problem("The body took too long."),
            "413": problem("Nothing was taken: the body is too large."),
            "415": problem("Nothing was taken: type, charset or encoding of the body is not read here."),
            "422": answer("Every event was refused."),
            "429": problem("The key's rate is used up; see Retry-After."),
            "503": problem("Nothing was taken, or it is not known; see Retry-After, then send the same again."),
        },
    })
}

fn parameters() -> Vec<Value> {
    let header = |name: &str, description: &str| json!({ "name": name, "in": "header", "schema": { "type": "string" }, "description": description });
    vec![
        json!({ "name": "dry_run", "in": "query", "schema": { "type": "boolean" }, "description": "Decide only; store nothing." }),
        json!({ "name": "sent_at", "in": "query", "schema": { "type": "string" }, "description": "The sender's clock, milliseconds or RFC 3339." }),
        header(
            "Idempotency-Key",
            "Names the request for retries; without it the body does.",
        ),
        header("X-Sent-At", "As sent_at."),
        json!({ "name": "Content-Encoding", "in": "header", "schema": { "type": "string", "enum": ["gzip", "zstd"] } }),
    ]
}

fn schemas() -> Value {
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    json!({
        "Event": {
            "type": "object",
            "description": "An event of any kind; a field that is not known, or belongs to another kind, is refused by name.",
            "required": ["sensor", "ts"],
            "properties": {
                "venue": { "type": "string", "description": "Where the path names none." },
                "sensor": { "type": "string" },
                "kind": { "type": "string", "enum": ["position", "crossing", "count", "presence", "transaction", "reading", "status"], "default": "position" },
                "ts": { "oneOf": [{ "type": "integer", "description": "Milliseconds since 1970." }, { "type": "string", "format": "date-time" }] },
                "revision": { "type": "integer", "default": 0, "description": "The highest revision of an event wins." },
                "collected_at": { "oneOf": [{ "type": "integer" }, { "type": "string", "format": "date-time" }], "description": "Checked, not kept." },
                "track": { "type": "string", "description": "position, crossing" },
                "x": { "type": "number", "description": "position, presence: metres" },
                "y": { "type": "number", "description": "position, presence: metres" },
                "floor": { "type": "string", "description": "position" },
                "line": { "type": "string", "description": "crossing" },
                "direction": { "type": "string", "enum": ["in", "out"], "description": "crossing" },
                "count": { "type": "integer", "minimum": 1, "default": 1, "description": "crossing" },
                "seq": { "type": "integer", "description": "crossing" },
                "counter": { "type": "string", "description": "count" },
                "value": { "type": "number", "description": "count (integer), reading" },
                "mode": { "type": "string", "enum": ["delta", "cumulative", "state"], "description": "count" },
                "device": { "type": "string", "description": "presence; pseudonymised before it is stored" },
                "rssi": { "type": "integer", "description": "presence" },
                "number": { "type": "string", "description": "transaction" },
                "amount": { "type": "integer", "description": "transaction: minor units, negative for returns" },
                "currency": { "type": "string", "pattern": "^[A-Z]{3}$", "description": "transaction" },
                "void": { "type": "boolean", "description": "transaction" },
                "items": { "type": "array", "description": "transaction", "items": { "type": "object", "required": ["sku", "quantity", "amount"], "properties": { "sku": { "type": "string" }, "quantity": { "type": "number" }, "amount": { "type": "integer" } } } },
                "metric": { "type": "string", "description": "reading" },
                "unit": { "type": "string", "maxLength": 32, "description": "reading" },
                "state": { "type": "string", "enum": ["ok", "degraded", "offline"], "description": "status" },
                "sent": { "type": "integer", "minimum": 0, "description": "status" },
                "dropped": { "type": "integer", "minimum": 0, "description": "status" },
                "sequence": { "type": "integer", "minimum": 0, "description": "status" },
                "clock_offset_ms": { "type": "integer", "description": "status" },
            },
        },
        "EventsVerdict": {
            "type": "object",
            "required": ["receipt", "accepted", "refused", "refused_total"],
            "properties": {
                "receipt": { "type": "string", "description": "Names the request; the same for a retry." },
                "accepted": { "type": "integer", "description": "Events taken, redeliveries included." },
                "refused": { "type": "array", "items": { "$ref": "#/components/schemas/RefusedEvent" } },
                "refused_total": { "type": "integer", "description": "How many were refused; the list may be shorter." },
                "dry_run": { "type": "boolean" },
            },
        },
        "RefusedEvent": {
            "type": "object",
            "required": ["index", "code", "message", "retryable"],
            "properties": {
                "index": { "type": "integer", "description": "Number of the event in the request, from 0." },
                "code": { "type": "string", "enum": codes },
                "message": { "type": "string" },
                "retryable": { "type": "boolean", "description": "The same event may be taken later, unchanged." },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::WireField;

    #[test]
    fn the_document_knows_every_field() {
        let document = openapi();
        let properties = document["components"]["schemas"]["Event"]["properties"]
            .as_object()
            .unwrap();
        let known: Vec<&str> = WireField::ALL.iter().map(|field| field.name()).collect();
        assert!(known.iter().all(|name| properties.contains_key(*name)));
        assert_eq!(properties.len(), known.len());
        assert_eq!(document["paths"].as_object().unwrap().len(), 2);
    }
}
