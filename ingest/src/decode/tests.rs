use std::sync::Arc;

use dwell_model::event::{EventBatch, Kind};
use dwell_model::ids::VenueId;
use proptest::prelude::*;

use super::*;
use crate::refusal::{BodyError, Code, Keep};

const TS: i64 = 1_700_000_000_000;

fn rules() -> DecodeRules {
    DecodeRules {
        max_event_bytes: 4_096,
        ..DecodeRules::default()
    }
}

/// Venue `v1` and `v2` exist, `locked` may not be posted to.
fn lookup(venue: &VenueId) -> VenueVerdict {
    match venue.as_str() {
        "v1" | "v2" => VenueVerdict::Known,
        "locked" => VenueVerdict::NotAllowed,
        _ => VenueVerdict::Unknown,
    }
}

fn decode_with(rules: DecodeRules, format: Format, body: &[u8]) -> Result<Batches, BodyError> {
    let rules = Arc::new(rules);
    let mut batches = Batches::new(Arc::clone(&rules), Arc::new(lookup));
    let used = Decoder::new(format, rules).decode(body, true, &mut batches)?;
    assert_eq!(used, body.len(), "a last piece is used to its end");
    Ok(batches)
}

fn decode(format: Format, body: &[u8]) -> Result<Batches, BodyError> {
    decode_with(rules(), format, body)
}

fn codes(batches: &Batches) -> Vec<(u64, Code)> {
    batches
        .refused()
        .iter()
        .map(|refusal| (refusal.place.index, refusal.code))
        .collect()
}

fn only(batches: &mut Batches, kind: Kind) -> EventBatch {
    assert_eq!(codes(batches), []);
    let mut taken = batches.take();
    assert_eq!(taken.len(), 1);
    let batch = taken.remove(0).events;
    assert_eq!(batch.kind, kind);
    batch.check().unwrap();
    batch
}

/// An event of every kind, in full, as JSON.
fn every_kind() -> Vec<(Kind, String)> {
    let head = |kind: Kind| format!(r#"{{"venue":"v1","sensor":"s1","kind":"{kind}","ts":{TS}"#);
    let body = |kind| match kind {
        Kind::Position => r#""track":"t1","x":1.5,"y":-2.25,"floor":"1""#,
        Kind::Crossing => r#""line":"door","direction":"in","count":2,"track":17,"seq":5"#,
        Kind::Count => r#""counter":"c","value":-4,"mode":"state""#,
        Kind::Presence => r#""device":"AA:BB","rssi":-61,"x":0.5,"y":0"#,
        Kind::Transaction => {
            r#""number":"R1","amount":-1250,"currency":"EUR","void":true,"items":[{"quantity":1,"sku":"a","amount":-1250}]"#
        }
        Kind::Reading => r#""metric":"temp","value":21.7,"unit":"°C""#,
        Kind::Status => r#""state":"degraded","sent":10,"dropped":1,"sequence":99,"clock_offset_ms":-20"#,
    };
    Kind::ALL
        .into_iter()
        .map(|kind| (kind, format!("{},{}}}", head(kind), body(kind))))
        .collect()
}

#[test]
fn every_field_of_every_kind_arrives_in_its_column() {
    let read = |kind: Kind| {
        let (_, json) = every_kind().into_iter().find(|(of, _)| *of == kind).unwrap();
        let batch = only(&mut decode(Format::Ndjson, json.as_bytes()).unwrap(), kind);
        assert_eq!((batch.ts[0], batch.sensor(0), batch.revision[0]), (TS, "s1", 0));
        batch
    };
    let position = read(Kind::Position);
    assert_eq!(
        (position.key(0), position.f32s(0)[0], position.f32s(1)[0]),
        ("t1", 1.5, -2.25)
    );
    assert_eq!(position.text(2, 0), Some("1"));
    let crossing = read(Kind::Crossing);
    assert_eq!(crossing.key(0), "door\u{1f}in\u{1f}t17");
    assert_eq!(
        (crossing.text(0, 0), crossing.text(1, 0), crossing.i64s(2)[0]),
        (Some("door"), Some("in"), 2)
    );
    assert_eq!((crossing.text(3, 0), crossing.i64s(4)[0]), (Some("17"), 5));
    assert_eq!(crossing.i64s(5)[0], dwell_model::event::NO_I64);
    let count = read(Kind::Count);
    assert_eq!(
        (count.key(0), count.i64s(0)[0], count.text(1, 0)),
        ("c", -4, Some("state"))
    );
    let presence = read(Kind::Presence);
    assert_eq!(
        (
            presence.key(0),
            presence.i64s(0)[0],
            presence.f32s(1)[0],
            presence.f32s(2)[0]
        ),
        ("AA:BB", -61, 0.5, 0.0)
    );
    let transaction = read(Kind::Transaction);
    assert_eq!(
        (transaction.key(0), transaction.i64s(0)[0], transaction.text(1, 0)),
        ("R1", -1250, Some("EUR"))
    );
    assert_eq!(transaction.i64s(2)[0], 1);
    assert_eq!(
        transaction.text(3, 0),
        Some(r#"[{"sku":"a","quantity":1,"amount":-1250}]"#)
    );
    let reading = read(Kind::Reading);
    assert_eq!(
        (reading.key(0), reading.f64s(0)[0], reading.text(1, 0)),
        ("temp", 21.7, Some("°C"))
    );
    let status = read(Kind::Status);
    assert_eq!((status.key(0), status.text(0, 0)), ("", Some("degraded")));
    assert_eq!(
        [1, 2, 3, 4].map(|column| status.i64s(column)[0]),
        [10, 1, 99, -20]
    );
}

#[test]
fn each_required_field_is_missed_by_name() {
    use dwell_model::event::Kind as Of;

    use WireField::*;
    for (kind, json) in every_kind() {
        let required: &[WireField] = match kind {
            Of::Position => &[Track, X, Y],
            Of::Crossing => &[Line, Direction],
            Of::Count => &[Counter, Value, Mode],
            Of::Presence => &[Device],
            Of::Transaction => &[Number, Amount, Currency],
            Of::Reading => &[Metric, Value, Unit],
            Of::Status => &[State],
        };
        let optional = WireField::ALL.iter().filter(|field| field.belongs_to(kind));
        for field in optional {
            let mut object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&json).unwrap();
            object.remove(field.name());
            let without = serde_json::Value::Object(object).to_string();
            let batches = decode(Format::Ndjson, without.as_bytes()).unwrap();
            let needed = required.contains(field) || matches!(field, Venue | Sensor | Ts);
            // Without its kind an event is taken for a position.
            if *field == Kind {
                continue;
            }
            if needed {
                assert_eq!(
                    codes(&batches),
                    [(0, Code::MissingField)],
                    "{kind} without {field:?}"
                );
                assert!(
                    batches.refused()[0].message.contains(field.name()),
                    "{kind} {field:?}"
                );
            } else {
                assert_eq!(codes(&batches), [], "{kind} without {field:?}");
            }
        }
    }
}

fn line(fields: &str) -> String {
    format!(r#"{{"venue":"v1","sensor":"s","track":"t","ts":{TS},{fields}}}"#)
}

#[test]
fn nonsense_gets_a_clear_code_and_harms_no_neighbour() {
    let good = line(r#""x":1,"y":2"#);
    let long = line(&format!(r#""x":1,"y":2,"floor":"{}""#, "f".repeat(5_000)));
    let cases: &[(&str, Code)] = &[
        ("nonsense", Code::JsonSyntax),
        ("{", Code::JsonSyntax),
        (r#"{"x":1,}"#, Code::JsonSyntax),
        (&format!("{good}{good}"), Code::JsonSyntax),
        (&format!("{good},"), Code::JsonSyntax),
        (&line(r#""x":NaN,"y":2"#), Code::JsonSyntax),
        (&line(r#""x":.5,"y":2"#), Code::JsonSyntax),
        (&line(r#""x":1,"y":2,"floor":"\ud800""#), Code::JsonSyntax),
        (&"[".repeat(3_000), Code::JsonSyntax),
        ("[]", Code::NotAnObject),
        ("null", Code::NotAnObject),
        ("17", Code::NotAnObject),
        (&line(r#""x":1,"y":2,"x":1"#), Code::DuplicateField),
        (
            &line(r#""x":1,"y":2,"mac":"aa"#.replace("aa", "aa\"").as_str()),
            Code::UnknownField,
        ),
        (&line(r#""x":1,"y":2,"rssi":-3"#), Code::UnknownField),
        (&line(r#""x":1,"y":2,"tenant":"other""#), Code::UnknownField),
        (&line(r#""x":"1","y":2"#), Code::WrongType),
        (&line(r#""x":[1],"y":2"#), Code::WrongType),
        (&line(r#""x":1,"y":2,"floor":{"a":1}"#), Code::WrongType),
        (&line(r#""x":1,"y":2,"floor":1.5"#), Code::WrongType),
        (&line(r#""x":1,"y":2,"revision":"1""#), Code::WrongType),
        (&line(r#""x":1,"y":2,"revision":1.5"#), Code::WrongType),
        (
            &line(r#""x":1,"y":2,"revision":99999999999999999999"#),
            Code::NumberOutOfRange,
        ),
        (&line(r#""x":1e999,"y":2"#), Code::NotFinite),
        (&line(r#""x":1e9,"y":2"#), Code::CoordinateOutOfRange),
        (&line(r#""x":1"#), Code::MissingField),
        (&line(r#""x":null,"y":2"#), Code::MissingField),
        (&line(r#""x":1,"y":2,"kind":"footfall""#), Code::UnknownKind),
        (&line(r#""x":1,"y":2,"floor":"a\u001fb""#), Code::InvalidName),
        (&line(r#""x":1,"y":2,"floor":"""#), Code::InvalidName),
        (&line(r#""x":1,"y":2,"collected_at":"noon""#), Code::TsUnreadable),
        (
            r#"{"venue":"v1","sensor":"s","track":"t","ts":"2026-01-01","x":1,"y":2}"#,
            Code::TsUnreadable,
        ),
        (
            r#"{"venue":"v1","sensor":"s","track":"t","ts":-1,"x":1,"y":2}"#,
            Code::TsOutOfRange,
        ),
        (
            r#"{"venue":"no such","sensor":"s","track":"t","ts":1,"x":1,"y":2}"#,
            Code::InvalidVenue,
        ),
        (
            r#"{"venue":"v9","sensor":"s","track":"t","ts":1,"x":1,"y":2}"#,
            Code::UnknownVenue,
        ),
        (
            r#"{"venue":"locked","sensor":"s","track":"t","ts":1,"x":1,"y":2}"#,
            Code::VenueNotAllowed,
        ),
        (
            r#"{"sensor":"s","track":"t","ts":1,"x":1,"y":2}"#,
            Code::MissingField,
        ),
        (&long, Code::LineTooLong),
    ];
    for (bad, code) in cases {
        let body = format!("{good}\n{bad}\r\n\n  \n{good}");
        let mut batches = decode(Format::Ndjson, body.as_bytes()).unwrap();
        assert_eq!(codes(&batches), [(1, *code)], "{bad}");
        assert_eq!(batches.accepted(), 2, "{bad}");
        let refusal = &batches.refused()[0];
        assert_eq!(refusal.place.line, 2);
        assert_eq!(refusal.place.of(body.as_bytes()), bad.as_bytes());
        assert_eq!(
            batches.take()[0]
                .places
                .iter()
                .map(|p| (p.index, p.line))
                .collect::<Vec<_>>(),
            [(0, 1), (2, 5)]
        );
        // In an array whatever is JSON harms no neighbour either; what is not ends the message.
        let array = format!("[{good},{bad},{good}]");
        match decode(Format::Json, array.as_bytes()) {
            Ok(batches) => assert_eq!(codes(&batches), [(1, *code)], "{bad}"),
            Err(error) => assert!(matches!(error, BodyError::JsonSyntax { .. }), "{bad}: {error}"),
        }
    }
}

#[test]
fn bytes_that_are_no_utf8_are_refused_where_they_stand() {
    let good = line(r#""x":1,"y":2"#);
    let mut body = format!("{good}\n").into_bytes();
    body.extend_from_slice(b"{\"venue\":\"v1\",\"track\":\"\xff\"}\n");
    body.extend_from_slice(good.as_bytes());
    let batches = decode(Format::Ndjson, &body).unwrap();
    assert_eq!(
        (codes(&batches), batches.accepted()),
        (vec![(1, Code::InvalidUtf8)], 2)
    );
    assert!(matches!(
        decode(Format::Json, b"[\xff]"),
        Err(BodyError::InvalidUtf8 { offset: 1 })
    ));
    let csv = b"venue,sensor,track,ts,x,y\nv1,s,\xff,5,1,2\nv1,s,t,5,1,2\n";
    let batches = decode(Format::Csv, csv).unwrap();
    assert_eq!(
        (codes(&batches), batches.accepted()),
        (vec![(0, Code::InvalidUtf8)], 1)
    );
}

#[test]
fn a_json_body_is_an_array_or_one_event() {
    let good = line(r#""x":1,"y":2"#);
    for body in [
        format!("[{good}]"),
        good.clone(),
        format!("\u{feff} [\n{good}\n]\n"),
    ] {
        assert_eq!(
            decode(Format::Json, body.as_bytes()).unwrap().accepted(),
            1,
            "{body}"
        );
    }
    for body in ["", " \n", "[]"] {
        assert_eq!(decode(Format::Json, body.as_bytes()).unwrap().accepted(), 0);
    }
    let two = format!("{good}\n{good}");
    for body in [
        "[",
        "]",
        "{",
        "[1",
        "[,1]",
        &format!("[{good},]"),
        &format!("[{good}"),
        &format!("[{good} {good}]"),
        &format!("[{good}]x"),
        &two,
        "nonsense",
    ] {
        assert!(
            matches!(
                decode(Format::Json, body.as_bytes()),
                Err(BodyError::JsonSyntax { .. })
            ),
            "{body}"
        );
    }
    let hint = decode(Format::Json, two.as_bytes()).unwrap_err().to_string();
    assert!(
        hint.contains("line 2") && hint.contains("application/x-ndjson"),
        "{hint}"
    );
}

#[test]
fn the_path_names_the_venue_and_events_may_only_agree() {
    let rules = DecodeRules {
        venue: Some(VenueId::new("v2").unwrap()),
        ..rules()
    };
    let body = format!(
        "{}\n{{\"sensor\":\"s\",\"track\":\"t\",\"ts\":{TS},\"x\":1,\"y\":2}}",
        line(r#""x":1,"y":2"#)
    );
    let mut batches = decode_with(rules, Format::Ndjson, body.as_bytes()).unwrap();
    assert_eq!(codes(&batches), [(0, Code::VenueMismatch)]);
    assert_eq!(batches.take()[0].venue.as_str(), "v2");
}

#[test]
fn a_mapping_and_defaults_fill_what_files_leave_unsaid() {
    let rules = DecodeRules {
        names: FieldNames::new()
            .map("time", WireField::Ts)
            .map("kWh", WireField::Value)
            .ignore("comment"),
        defaults: vec![
            (WireField::Kind, "reading".to_owned()),
            (WireField::Venue, "v1".to_owned()),
            (WireField::Unit, "kWh".to_owned()),
            (WireField::Metric, "energy".to_owned()),
            // Not a field of readings, so not used.
            (WireField::Mode, "delta".to_owned()),
        ],
        ..rules()
    };
    let csv = "time;sensor;kWh;comment\n2023-11-14T22:13:20Z;meter;17.25;\"so; long\"\n";
    let mut batches = decode_with(rules, Format::Csv, csv.as_bytes()).unwrap();
    let reading = only(&mut batches, Kind::Reading);
    assert_eq!(
        (
            reading.ts[0],
            reading.key(0),
            reading.f64s(0)[0],
            reading.text(1, 0)
        ),
        (TS, "energy", 17.25, Some("kWh"))
    );
}

#[test]
fn crossings_without_track_or_sequence_are_numbered_among_equals() {
    let crossing = |line: &str, ts: i64, rest: &str| {
        format!(
            r#"{{"venue":"v1","sensor":"s","kind":"crossing","line":"{line}","direction":"in","ts":{ts}{rest}}}"#
        )
    };
    let body = [
        crossing("a", TS, ""),
        crossing("a", TS, ""),
        crossing("b", TS, ""),
        crossing("a", TS + 1, ""),
        crossing("a", TS, r#","seq":1"#),
        crossing("a", TS, r#","track":"1""#),
        crossing("a", TS, r#","count":3"#),
    ]
    .join("\n");
    let batch = only(
        &mut decode(Format::Ndjson, body.as_bytes()).unwrap(),
        Kind::Crossing,
    );
    let parts: Vec<_> = (0..batch.len())
        .map(|row| batch.key(row).rsplit('\u{1f}').next().unwrap().to_owned())
        .collect();
    assert_eq!(parts, ["o1", "o2", "o1", "o1", "s1", "t1", "o3"]);
    let weak: Vec<_> = batch.i64s(5).iter().map(|&weak| weak == 1).collect();
    assert_eq!(weak, [true, true, true, true, false, false, true]);
    assert_eq!(batch.i64s(2), [1, 1, 1, 1, 1, 1, 3]);
}

#[test]
fn what_may_be_kept_in_clear_depends_on_how_far_it_was_understood() {
    let presence =
        |fields: &str| format!(r#"{{"venue":"v1","sensor":"s","kind":"presence","ts":{TS},{fields}}}"#);
    let kept = |body: &str| {
        let rules = DecodeRules {
            times: Some(TimeRules::at(TS)),
            ..rules()
        };
        decode_with(rules, Format::Ndjson, body.as_bytes())
            .unwrap()
            .take_refused()
            .remove(0)
            .keep
    };
    let spot_text = |body: &str| match kept(body) {
        Keep::Device(spot) => body[spot.start as usize..][..spot.len as usize].to_owned(),
        other => format!("{other:?}"),
    };
    assert_eq!(kept(&line(r#""x":1"#)), Keep::Plain);
    assert_eq!(kept("{"), Keep::Encrypted);
    assert_eq!(kept(&line(r#""x":1,"y":1,"mac":"aa:bb""#)), Keep::Encrypted);
    // A device on what claims to be a position: somebody forgot the kind.
    assert_eq!(kept(&line(r#""device":"aa:bb","x":1"#)), Keep::Encrypted);
    assert_eq!(kept(&presence(r#""device":"aa:bb","x":"?""#)), Keep::Encrypted);
    assert_eq!(spot_text(&presence(r#""device":"aa:bb","x":1e9"#)), r#""aa:bb""#);
    assert_eq!(kept(&presence(r#""rssi":1"#)), Keep::Encrypted);
    let unknown_venue = presence(r#""device":"aa:bb""#).replace("v1", "v9");
    assert_eq!(kept(&unknown_venue), Keep::Encrypted);
    let old = presence(r#""device":"aa:bb""#).replace(&TS.to_string(), "86400000");
    assert_eq!(kept(&old), Keep::Encrypted);
    let early = presence(r#""device":"aa:bb""#).replace(&TS.to_string(), &(TS + 400_000).to_string());
    assert_eq!(kept(&early), Keep::Encrypted);
}

#[test]
fn no_message_repeats_a_value() {
    let secret = "aa:bb:cc:dd:ee:ff";
    let bodies = [
        format!(r#"{{"venue":"v1","sensor":"s","kind":"presence","ts":"{secret}","device":"x"}}"#),
        format!(r#"{{"venue":"v1","sensor":"s","kind":"{secret}","ts":1}}"#),
        format!(r#"{{"venue":"{secret}","sensor":"s","ts":1}}"#),
        format!(
            r#"{{"venue":"v1","sensor":"s","kind":"presence","ts":1,"device":"{secret}","rssi":"{secret}"}}"#
        ),
        format!(r#"{{"venue":"v1","sensor":"s","kind":"presence","ts":1,"device":"{secret}\u0007"}}"#),
        format!(
            r#"{{"venue":"v1","sensor":"s","kind":"crossing","ts":1,"line":"l","direction":"{secret}"}}"#
        ),
        format!(
            r#"{{"venue":"v1","sensor":"s","kind":"transaction","ts":1,"number":"1","amount":1,"currency":"{secret}"}}"#
        ),
        format!(r#"{{"device":"{secret}" "#),
    ];
    for body in bodies {
        let batches = decode(Format::Ndjson, body.as_bytes()).unwrap();
        let refusal = &batches.refused()[0];
        assert!(!refusal.message.contains("aa:bb"), "{}", refusal.message);
    }
}

#[test]
fn a_message_may_hold_so_many_events_and_no_more() {
    let rules = DecodeRules {
        max_events: 2,
        ..rules()
    };
    let good = line(r#""x":1,"y":2"#);
    let body = format!("{good}\nnonsense\n");
    assert!(decode_with(rules.clone(), Format::Ndjson, body.as_bytes()).is_ok());
    let body = format!("{good}\nnonsense\n{good}");
    assert_eq!(
        decode_with(rules, Format::Ndjson, body.as_bytes()).unwrap_err(),
        BodyError::TooManyEvents { max: 2 }
    );
}

/// Decodes a message given in pieces that end at the given distances, and wherever the decoder wants more.
fn decode_in_pieces(format: Format, body: &[u8], step: usize) -> Result<Batches, BodyError> {
    let rules = Arc::new(rules());
    let mut batches = Batches::new(Arc::clone(&rules), Arc::new(lookup));
    let mut decoder = Decoder::new(format, rules);
    let (mut from, mut to) = (0, 0);
    while from < body.len() {
        to = (to + step).min(body.len());
        from += decoder.decode(&body[from..to], to == body.len(), &mut batches)?;
    }
    Ok(batches)
}

#[test]
fn pieces_of_any_length_give_what_the_whole_gives() {
    let json: Vec<String> = every_kind().into_iter().map(|(_, json)| json).collect();
    let ndjson = format!("\u{feff}{}\r\n\nnonsense\n{}", json.join("\n"), json.join("\r\n"));
    let array = format!("\u{feff}[{} , 17, true,\n{}]\n", json.join(",\n"), json.join(","));
    let csv = "\u{feff}venue,sensor,track,ts,x,y,floor\r\nv1,s,\"t\n1\",5,1,2,é\nv1,s,t,5,,\nv1,\"s\"\"2\",t,6,1,2,\n";
    for (format, body) in [
        (Format::Ndjson, ndjson.as_str()),
        (Format::Json, &array),
        (Format::Csv, csv),
    ] {
        let mut whole = decode(format, body.as_bytes()).unwrap();
        let taken = whole.take();
        assert!(!taken.is_empty() && !whole.refused().is_empty());
        let expected: Vec<_> = taken.iter().map(|batch| (&batch.venue, &batch.events)).collect();
        for step in 1..body.len() {
            let mut pieces = decode_in_pieces(format, body.as_bytes(), step).unwrap();
            assert_eq!(codes(&pieces), codes(&whole), "{format} {step}");
            let lines =
                |batches: &Batches| batches.refused().iter().map(|r| r.place.line).collect::<Vec<_>>();
            assert_eq!(lines(&pieces), lines(&whole), "{format} {step}");
            let taken = pieces.take();
            let got: Vec<_> = taken.iter().map(|batch| (&batch.venue, &batch.events)).collect();
            assert_eq!(got, expected, "{format} {step}");
        }
    }
}

#[test]
fn a_line_without_end_is_refused_once_and_skipped() {
    let good = line(r#""x":1,"y":2"#);
    let body = format!("{good}\n{}\n{good}", "z".repeat(50_000));
    for step in [1_000, 7_777, 100_000] {
        let batches = decode_in_pieces(Format::Ndjson, body.as_bytes(), step).unwrap();
        assert_eq!(
            (batches.accepted(), codes(&batches)),
            (2, vec![(1, Code::LineTooLong)]),
            "{step}"
        );
    }
    let endless = format!("[{{\"x\":\"{}", "z".repeat(50_000));
    assert!(matches!(
        decode_in_pieces(Format::Json, endless.as_bytes(), 1_000),
        Err(BodyError::EventTooLong {
            line: 1,
            max_bytes: 4_096
        })
    ));
}

/// An event of any kind as `(field, JSON value)`s; texts hold what CSV has to quote.
fn any_event() -> impl Strategy<Value = Vec<(&'static str, serde_json::Value)>> {
    use serde_json::{Value, json};
    let text = || {
        prop::sample::select(vec![
            "a", "b,c", "d \"e\"", "é;ß", "line\\n", "17", "t'1", " pad ",
        ])
    };
    let number = || (-1_000_000_i64..1_000_000).prop_map(|n| json!(n as f64 / 128.0));
    let small = || (0_i64..10_000).prop_map(|n| json!(n));
    let option =
        |strategy: BoxedStrategy<Value>| prop::option::of(strategy).prop_map(|v| v.unwrap_or(Value::Null));
    let text_value = move || text().prop_map(|t| json!(t)).boxed();
    let head = (
        prop::sample::select(vec!["v1", "v2"]),
        text(),
        0_i64..2_000_000_000_000,
        option(small().boxed()),
    );
    let fields = prop_oneof![
        (text_value(), number(), number(), option(text_value())).prop_map(|(t, x, y, f)| vec![
            ("kind", json!("position")),
            ("track", t),
            ("x", x),
            ("y", y),
            ("floor", f)
        ]),
        (
            text_value(),
            prop::sample::select(vec!["in", "out"]),
            option(text_value()),
            option(small().boxed())
        )
            .prop_map(|(l, d, t, s)| vec![
                ("kind", json!("crossing")),
                ("line", l),
                ("direction", json!(d)),
                ("track", t),
                ("seq", s)
            ]),
        (
            text_value(),
            small(),
            prop::sample::select(vec!["delta", "cumulative", "state"])
        )
            .prop_map(|(c, v, m)| vec![
                ("kind", json!("count")),
                ("counter", c),
                ("value", v),
                ("mode", json!(m))
            ]),
        (
            text_value(),
            small(),
            option(prop::bool::ANY.prop_map(|b| json!(b)).boxed()),
            option(text_value())
        )
            .prop_map(|(n, a, v, sku)| {
                let items = if sku.is_null() {
                    sku
                } else {
                    json!([{"sku": sku, "quantity": 1.5, "amount": a}])
                };
                let currency = json!("CHF");
                vec![
                    ("kind", json!("transaction")),
                    ("number", n),
                    ("amount", a),
                    ("currency", currency),
                    ("void", v),
                    ("items", items),
                ]
            }),
        (text_value(), number(), text_value()).prop_map(|(m, v, u)| vec![
            ("kind", json!("reading")),
            ("metric", m),
            ("value", v),
            ("unit", u)
        ]),
    ];
    (head, fields).prop_map(|((venue, sensor, ts, revision), mut fields)| {
        fields.push(("venue", json!(venue)));
        fields.push(("sensor", json!(sensor)));
        fields.push(("ts", json!(ts)));
        fields.push(("revision", revision));
        fields
    })
}

proptest! {
    #[test]
    fn every_format_gives_the_same_batches(events in prop::collection::vec(any_event(), 1..12)) {
        let objects: Vec<String> = events
            .iter()
            .map(|fields| {
                let object: serde_json::Map<_, _> =
                    fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
                serde_json::Value::Object(object).to_string()
            })
            .collect();
        let mut csv = ::csv::Writer::from_writer(Vec::new());
        csv.write_record(WireField::ALL.iter().map(|field| field.name())).unwrap();
        for fields in &events {
            csv.write_record(WireField::ALL.iter().map(|column| {
                let value = fields.iter().find(|(name, _)| *name == column.name()).map(|(_, value)| value);
                match value {
                    None | Some(serde_json::Value::Null) => String::new(),
                    Some(serde_json::Value::String(text)) => text.clone(),
                    Some(other) => other.to_string(),
                }
            })).unwrap();
        }
        let bodies = [
            (Format::Ndjson, objects.join("\n").into_bytes()),
            (Format::Json, format!("[{}]", objects.join(",")).into_bytes()),
            (Format::Csv, csv.into_inner().unwrap()),
        ];
        let mut results = Vec::new();
        for (format, body) in bodies {
            let mut batches = decode(format, &body).unwrap();
            prop_assert_eq!(codes(&batches), vec![], "{}", format);
            prop_assert_eq!(batches.accepted(), events.len() as u64);
            let taken: Vec<_> = batches.take().into_iter().map(|batch| {
                batch.events.check().unwrap();
                let indices: Vec<u64> = batch.places.iter().map(|place| place.index).collect();
                (batch.venue, batch.events, indices)
            }).collect();
            results.push(taken);
        }
        prop_assert!(results[0].iter().all(|(_, events, indices)| events.len() == indices.len()));
        // NaN marks absent coordinates, and NaN differs from itself: printed, all are equal or not.
        prop_assert_eq!(format!("{:?}", &results[0]), format!("{:?}", &results[1]));
        prop_assert_eq!(format!("{:?}", &results[0]), format!("{:?}", &results[2]));
    }
}
