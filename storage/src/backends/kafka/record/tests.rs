use dwell_model::event::{Column, EventBatch, FieldType, Kind, NO_I64, NO_TEXT, field};
use dwell_model::time::{MAX_TS, TsMs};
use proptest::prelude::*;

use super::decode::Damage;
use super::*;
use crate::api::{LogRecord, LoggedRecord};
use crate::backends::kafka::layout::{key_of, shard_of_key};
use crate::conformance::samples::{DAY_START, events, receipt, record, shop, venue};
use crate::error::ErrorKind;

/// The texts of a record's events.
fn written(record: &LogRecord) -> Vec<String> {
    let mut call = EncodedCall::default();
    call.encode(std::slice::from_ref(record)).unwrap();
    (0..call.events())
        .map(|event| String::from_utf8(call.event(event).to_vec()).unwrap())
        .collect()
}

/// Reads texts as the records of one partition, each appended at the time given.
fn read(kind: Kind, texts: &[(TsMs, &str)]) -> Result<Vec<LoggedRecord>, Damage> {
    let decoder = Decoder::new(kind, 0, 1);
    let mut runs = Runs::default();
    for (position, (time, text)) in (7..).zip(texts) {
        decoder.add(position, *time, Some(text.as_bytes()), &mut runs)?;
    }
    Ok(runs.take())
}

fn read_one(kind: Kind, text: &str) -> Result<EventBatch, Damage> {
    read(kind, &[(1, text)]).map(|mut records| records.remove(0).events)
}

/// One event with the columns given; texts of the payload by their words.
fn one_event(kind: Kind, key: &str, revision: i64, payload: Vec<Column>, texts: &[&str]) -> LogRecord {
    let mut batch = EventBatch::new(kind);
    for text in texts {
        batch.strings.intern(text);
    }
    batch.ts.push(1_792_879_200_000);
    batch.sensor.push(batch.strings.intern("s1"));
    batch.key.push(batch.strings.intern(key));
    batch.revision.push(revision);
    batch.payload = payload;
    record(&shop(), 0x0123_4567_89ab_cdef, batch)
}

#[test]
fn a_record_is_written_like_this() {
    let head = |kind: &str| {
        format!(
            r#"{{"v":1,"tenant":"acme","venue":"shop","kind":"{kind}","receipt":"00000000000000000123456789abcdef""#
        )
    };
    let common = r#","sensor":"s1","ts":1792879200000"#;
    let text = |id: u32| Column::Text(vec![id]);
    let number = |value: i64| Column::I64(vec![value]);
    for (record, tail) in [
        (
            one_event(
                Kind::Position,
                "t\"1",
                0,
                vec![Column::F32(vec![1.5]), Column::F32(vec![-0.0]), text(NO_TEXT)],
                &[],
            ),
            r#","track":"t\"1","x":1.5,"y":-0.0}"#,
        ),
        (
            one_event(
                Kind::Crossing,
                "door\u{1f}in\u{1f}3",
                0,
                vec![text(0), text(1), number(1), text(NO_TEXT), number(3), number(0)],
                &["door", "in"],
            ),
            r#","key":"door\u001fin\u001f3","line":"door","direction":"in","count":1,"seq":3,"weak":false}"#,
        ),
        (
            one_event(
                Kind::Count,
                "c",
                -7,
                vec![number(i64::MAX), text(0)],
                &["cumulative"],
            ),
            r#","counter":"c","value":9223372036854775807,"mode":"cumulative","revision":-7}"#,
        ),
        (
            one_event(
                Kind::Presence,
                "p:00ff",
                0,
                vec![number(-61), Column::F32(vec![f32::NAN]), Column::F32(vec![0.1])],
                &[],
            ),
            r#","device":"p:00ff","rssi":-61,"y":0.1}"#,
        ),
        (
            one_event(
                Kind::Transaction,
                "R1",
                0,
                vec![number(-1250), text(0), number(1), text(1)],
                &["EUR", r#"[{"sku":"a","quantity":1,"amount":-1250}]"#],
            ),
            r#","number":"R1","amount":-1250,"currency":"EUR","void":true,"items":[{"sku":"a","quantity":1,"amount":-1250}]}"#,
        ),
        (
            one_event(
                Kind::Reading,
                "temperature",
                0,
                vec![Column::F64(vec![1e300]), text(0)],
                &["°C"],
            ),
            r#","metric":"temperature","value":1e+300,"unit":"°C"}"#,
        ),
        (
            one_event(
                Kind::Status,
                "",
                0,
                vec![text(0), number(NO_I64), number(2), number(3), number(-4)],
                &["ok"],
            ),
            r#","state":"ok","dropped":2,"sequence":3,"clock_offset_ms":-4}"#,
        ),
    ] {
        let expected = format!("{}{common}{tail}", head(record.events.kind.name()));
        assert_eq!(written(&record), [expected]);
    }
    let mut of_a_file = one_event(
        Kind::Status,
        "",
        0,
        vec![
            text(0),
            number(NO_I64),
            number(NO_I64),
            number(NO_I64),
            number(NO_I64),
        ],
        &["ok"],
    );
    of_a_file.received_at = Some(-5);
    let expected = format!("{},\"received_at\":-5{common},\"state\":\"ok\"}}", head("status"));
    assert_eq!(written(&of_a_file), [expected]);
}

#[test]
fn neighbours_of_one_venue_receipt_and_time_are_one_record() {
    let of = |number, rows: usize| written(&record(&shop(), number, events(Kind::Count, DAY_START, rows, 0)));
    let mut imported = record(&shop(), 3, events(Kind::Count, DAY_START, 1, 0));
    imported.received_at = Some(99);
    let mut elsewhere = record(&shop(), 1, events(Kind::Count, DAY_START, 1, 0));
    elsewhere.venue = venue("acme", "other");
    let texts = [
        (10, &of(1, 3)[..]),
        (10, &of(1, 2)[..]),
        (10, &of(2, 1)[..]),
        (11, &of(2, 2)[..]),
        (12, &written(&imported)[..]),
        (13, &written(&imported)[..]),
        (13, &written(&elsewhere)[..]),
    ]
    .iter()
    .flat_map(|(time, texts)| texts.iter().map(|text| (*time, text.clone())))
    .collect::<Vec<_>>();
    let borrowed: Vec<(TsMs, &str)> = texts.iter().map(|(time, text)| (*time, text.as_str())).collect();
    let found: Vec<_> = read(Kind::Count, &borrowed)
        .unwrap()
        .into_iter()
        .map(|run| {
            run.events.check().unwrap();
            (
                run.position,
                run.received_at,
                run.receipt,
                run.venue,
                run.events.len(),
            )
        })
        .collect();
    let expected = [
        (7, 10, receipt(1), shop(), 5),
        (12, 10, receipt(2), shop(), 1),
        (13, 11, receipt(2), shop(), 2),
        (15, 99, receipt(3), shop(), 2),
        (17, 13, receipt(1), elsewhere.venue, 1),
    ];
    assert_eq!(found, expected);
}

const READING: &str = r#"{"v":1,"tenant":"acme","venue":"shop","kind":"reading","receipt":"00000000000000000000000000000001","sensor":"s","ts":5,"metric":"m","value":1.5,"unit":"K"}"#;

#[test]
fn what_other_writers_may_do() {
    let plain = read_one(Kind::Reading, READING).unwrap();
    for (change, to) in [
        (r#""v":1,"#, r#""v":1,"trace":{"a":[1,"}",null]},"#),
        (r#""ts":5"#, r#""ts" : 5 "#),
        (r#""sensor":"s""#, r#""sensor":"\u0073""#),
        (r#""sensor""#, r#""s\u0065nsor""#),
        (
            r#""unit":"K""#,
            r#""unit":"K","revision":null,"received_at":null"#,
        ),
        (r#"1.5"#, r#"15e-1"#),
        (r#"{"v":1,"tenant":"acme""#, r#"{"tenant":"acme","v":1"#),
    ] {
        assert!(READING.contains(change), "{change}");
        assert_eq!(
            read_one(Kind::Reading, &READING.replace(change, to)).unwrap(),
            plain,
            "{to}"
        );
    }
    let flags = r#"{"v":1,"tenant":"acme","venue":"shop","kind":"transaction","receipt":"00000000000000000000000000000001","sensor":"s","ts":5,"number":"1","amount":1,"currency":"EUR","void":1}"#;
    for void in ["1", "true"] {
        let batch = read_one(
            Kind::Transaction,
            &flags.replace("\"void\":1", &format!("\"void\":{void}")),
        );
        assert_eq!(batch.unwrap().i64s(field::transaction::VOID), [1]);
    }
}

#[test]
fn what_cannot_be_read_says_why() {
    let change = |from: &str, to: &str| {
        assert!(READING.contains(from), "{from}");
        read_one(Kind::Reading, &READING.replace(from, to))
            .unwrap_err()
            .to_string()
    };
    for (from, to, why) in [
        (r#""v":1"#, r#""v":2"#, "version 2"),
        (r#""v":1"#, r#""v":"1""#, "version \"1\""),
        (r#""v":1,"#, "", "lacks the field v"),
        (r#""sensor":"s","#, "", "lacks the field sensor"),
        (r#""metric":"m","#, "", "lacks the field metric"),
        (r#""value":1.5"#, r#""value":null"#, "lacks the field value"),
        ("1.5", r#""1.5""#, "value is not a finite number"),
        ("1.5", "1e999", "value is not a finite number"),
        ("1.5", "true", "value is not a finite number"),
        (r#""ts":5"#, r#""ts":5.0"#, "ts is not an integer"),
        (r#""ts":5"#, r#""ts":-1"#, "ts is not a time"),
        (r#""unit":"K""#, r#""unit":["K"]"#, "unit is not a text"),
        (
            r#""sensor":"s""#,
            r#""sensor":"s","sensor":"t""#,
            "sensor stands twice",
        ),
        ("\"acme\"", "\"ac/me\"", "tenant is not"),
        ("\"shop\"", "\"\"", "venue is not"),
        ("00000000000000000000000000000001", "1", "receipt is not"),
        (
            "\"reading\"",
            "\"count\"",
            "of kind count in a topic of kind reading",
        ),
        ("\"unit\":\"K\"}", "\"unit\":\"K\"", "not JSON"),
        ("\"unit\":\"K\"}", "\"unit\":\"K\"} {}", "not JSON"),
    ] {
        let found = change(from, to);
        assert!(found.contains(why), "{to}: {found}");
    }
    let mut runs = Runs::default();
    let decoder = Decoder::new(Kind::Reading, 0, 1);
    assert_eq!(decoder.add(0, 1, None, &mut runs), Err(Damage::NoValue));
    assert!(matches!(
        decoder.add(0, 1, Some(b"\xff"), &mut runs),
        Err(Damage::Syntax(_))
    ));
    assert!(runs.is_empty());
    let shards = 12;
    let own = shard_of_key(key_of(&shop()).as_bytes(), shards);
    let add = |shard| {
        Decoder::new(Kind::Reading, shard, shards).add(0, 1, Some(READING.as_bytes()), &mut Runs::default())
    };
    assert_eq!(add(own), Ok(()));
    let elsewhere = Damage::Place {
        key: "acme/shop".to_owned(),
        found: (own + 1) % shards,
        expected: own,
    };
    assert_eq!(add((own + 1) % shards), Err(elsewhere));
}

#[test]
fn what_could_not_be_read_again_is_not_written() {
    let text = |id: u32| Column::Text(vec![id]);
    let reading = |value| {
        one_event(
            Kind::Reading,
            "m",
            0,
            vec![Column::F64(vec![value]), text(0)],
            &["K"],
        )
    };
    for bad in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
        let mut call = EncodedCall::default();
        let error = call.encode(&[reading(1.0), reading(bad)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{bad}: {error}");
    }
    written(&reading(f64::MAX));
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9]{1,6}",
        any::<String>(),
        Just(String::new()),
        Just(r#"[{"sku":"a\n","quantity":1}]"#.to_owned()),
        Just("[ 1]".to_owned()),
        Just("[1] ".to_owned()),
        Just("null".to_owned()),
    ]
}

fn f32_bits() -> impl Strategy<Value = f32> {
    any::<u32>().prop_map(|bits| match f32::from_bits(bits) {
        value if value.is_finite() => value,
        _ => -0.0,
    })
}

fn f64_bits() -> impl Strategy<Value = f64> {
    any::<u64>().prop_map(|bits| match f64::from_bits(bits) {
        value if value.is_finite() => value,
        _ => -0.0,
    })
}

fn i64_value() -> impl Strategy<Value = i64> {
    prop_oneof![any::<i64>(), -2..3_i64, Just(i64::MAX), Just(i64::MIN + 1)]
        .prop_filter("absent", |value| *value != NO_I64)
}

/// A value for each type of field, and whether an optional field has it.
type Cell = (f32, f64, i64, String, bool);

/// Time, sensor, key, revision and payload.
type Row = (TsMs, String, String, i64, Vec<Cell>);

fn rows() -> impl Strategy<Value = (Kind, Vec<Row>)> {
    let cell = (f32_bits(), f64_bits(), i64_value(), text(), any::<bool>());
    let row = (
        0..MAX_TS,
        text(),
        text(),
        any::<i64>(),
        prop::collection::vec(cell, 6),
    );
    let kind = (0..Kind::ALL.len()).prop_map(|number| Kind::ALL[number]);
    (kind, prop::collection::vec(row, 1..12))
}

/// Everything that an event holds, to the bit.
fn bits(batch: &EventBatch, row: usize) -> String {
    let payload: Vec<String> = batch
        .payload
        .iter()
        .enumerate()
        .map(|(number, column)| match column {
            Column::F32(values) if values[row].is_nan() => "absent".to_owned(),
            Column::F32(values) => format!("{:x}", values[row].to_bits()),
            Column::F64(values) if values[row].is_nan() => "absent".to_owned(),
            Column::F64(values) => format!("{:x}", values[row].to_bits()),
            Column::I64(values) => values[row].to_string(),
            Column::Text(_) => format!("{:?}", batch.text(number, row)),
        })
        .collect();
    let (ts, revision) = (batch.ts[row], batch.revision[row]);
    format!(
        "{ts} {:?} {:?} {revision} {payload:?}",
        batch.sensor(row),
        batch.key(row)
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_event_comes_back_to_the_last_bit((kind, rows) in rows()) {
        let mut batch = EventBatch::new(kind);
        for (ts, sensor, key, revision, cells) in &rows {
            batch.ts.push(*ts);
            batch.sensor.push(batch.strings.intern(sensor));
            batch.key.push(batch.strings.intern(key));
            batch.revision.push(*revision);
            for ((described, (f32, f64, i64, text, has)), column) in
                kind.fields().iter().zip(cells).zip(&mut batch.payload)
            {
                if !described.required && !has {
                    column.push_absent();
                    continue;
                }
                match column {
                    Column::F32(values) => values.push(*f32),
                    Column::F64(values) => values.push(*f64),
                    Column::I64(values) => values.push(*i64),
                    Column::Text(ids) => ids.push(batch.strings.intern(text)),
                }
            }
        }
        let texts = written(&record(&shop(), 1, batch.clone()));
        for text in &texts {
            // Another parser takes it for JSON too.
            let parsed: serde_json::Value = serde_json::from_str(text).unwrap();
            prop_assert_eq!(&parsed["kind"], kind.name());
        }
        let texts: Vec<(TsMs, &str)> = texts.iter().map(|text| (1, text.as_str())).collect();
        let found = read(kind, &texts).unwrap();
        prop_assert_eq!(found.len(), 1);
        found[0].events.check().unwrap();
        for row in 0..batch.len() {
            prop_assert_eq!(bits(&found[0].events, row), bits(&batch, row));
        }
    }

    #[test]
    fn a_damaged_text_never_ends_the_process(cut in 0..READING.len(), place in 0..READING.len(), byte in any::<u8>()) {
        let mut bytes = READING.as_bytes().to_vec();
        bytes[place] = byte;
        let decoder = Decoder::new(Kind::Reading, 0, 1);
        let _ = decoder.add(0, 1, Some(&bytes), &mut Runs::default());
        let _ = decoder.add(0, 1, Some(&bytes[..cut]), &mut Runs::default());
    }
}

#[test]
fn types_of_all_kinds_have_room_in_the_decoder() {
    for kind in Kind::ALL {
        assert!(kind.fields().len() <= 6);
        assert!(
            kind.fields()
                .iter()
                .all(|field| !super::is_flag(field.name) || field.ty == FieldType::I64)
        );
    }
}
