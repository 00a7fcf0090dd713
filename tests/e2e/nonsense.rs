//! Nonsense of every kind, posted to every route: a clear refusal each time, and nothing else is harmed.

use crate::harness::{Instance, now_ms};
use crate::walkers::apply_venues;

#[test]
fn nonsense_gets_a_clear_refusal_and_harms_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("d");
    let instance = Instance::start(&data_dir);
    apply_venues(&data_dir, "Etc/UTC");

    // Routes come from the instance's own description.
    let (status, openapi) = instance.get("/openapi.json");
    assert_eq!(status, 200);
    let bearer = format!("Bearer {}", instance.key);
    let bodies: [&[u8]; 6] = [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe\x00",
        b"null",
        br#"{"a":{"b":[1,2,"x"]}}"#,
    ];
    let paths = openapi["paths"].as_object().expect("paths");
    assert!(paths.len() > 15, "the description names the routes");
    for (template, operations) in paths {
        if template.ends_with("/live/stream") {
            continue;
        }
        let path = template.replace('{', "%7B").replace('}', "%27%22");
        for method in operations.as_object().expect("operations").keys() {
            // These answer without looking at a body, at length, and the connection ends when a body was left unread: the
            // rest of the answer may be lost with it.
            let is_document = ["/openapi.json", "/docs"].contains(&template.as_str());
            for body in bodies
                .iter()
                .copied()
                .filter(|body| body.is_empty() || !is_document)
            {
                let headers = [
                    ("authorization", bearer.as_str()),
                    ("content-type", "application/json"),
                ];
                let (status, answer) = instance.raw(&method.to_uppercase(), &path, &headers, body);
                assert!(status < 500, "{method} {path} {body:?}: {status} {answer}");
                // A post of which every event was refused is answered with its verdicts.
                let is_verdict = status == 422 && answer["refused"].is_array();
                if status >= 400 && !is_verdict {
                    assert!(
                        answer["title"].is_string(),
                        "{method} {path}: {status} {answer} is no problem detail"
                    );
                    assert_eq!(answer["status"], status, "{method} {path}");
                }
            }
            let (status, answer) = instance.raw(&method.to_uppercase(), &path, &[], b"");
            let open = ["/openapi.json", "/docs"].contains(&template.as_str());
            assert!(
                open || status == 401,
                "{method} {path} without a key: {status} {answer}"
            );
        }
    }

    // A batch with some nonsense: the good is taken, the bad is named and kept.
    let now = now_ms();
    let lines = [
        format!(r#"{{"sensor":"s","track":"t","ts":{now},"x":1,"y":1}}"#),
        r#"{"sensor":"s","track":"t","ts":"yesterday","x":1,"y":1}"#.to_owned(),
        format!(r#"{{"sensor":"s","ts":{now},"x":1,"y":1}}"#),
        format!(
            r#"{{"sensor":"s","track":"t","ts":{},"x":1,"y":1}}"#,
            now + 86_400_000
        ),
        "not json".to_owned(),
        format!(r#"{{"sensor":"s","track":"u","ts":{now},"x":2,"y":2}}"#),
    ];
    let body = lines.join("\n");
    let (status, answer) = instance.post("/v1/venues/v1/events", "application/x-ndjson", body.as_bytes());
    assert_eq!((status, &answer["accepted"]), (202, &2.into()), "{answer}");
    let refused: Vec<u64> = answer["refused"]
        .as_array()
        .expect("refused")
        .iter()
        .filter_map(|r| r["index"].as_u64())
        .collect();
    assert_eq!(refused, [1, 2, 3, 4]);
    for refusal in answer["refused"].as_array().expect("refused") {
        assert!(
            refusal["code"].is_string() && refusal["message"].is_string(),
            "{refusal}"
        );
        assert!(refusal["retryable"].is_boolean(), "{refusal}");
    }
    let (_, kept) = instance.get("/v1/quarantine?venue=v1");
    assert_eq!(kept["entries"].as_array().map(Vec::len), Some(4), "{kept}");
    let (status, _) = instance.post(
        "/v1/venues/v1/events",
        "application/x-ndjson",
        b"nothing\nof use\n",
    );
    assert_eq!(status, 422);
    let (status, _) = instance.post(
        "/v1/venues/unknown/events",
        "application/x-ndjson",
        lines[0].as_bytes(),
    );
    assert_eq!(status, 404);
    assert!(instance.stop());
}
