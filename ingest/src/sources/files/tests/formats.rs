//! Whatever the format, the compression and the types of the columns: the same rows.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, DictionaryArray, Float32Array, Float64Array, Int8Array,
    Int32Array, Int64Array, LargeStringArray, ListArray, RecordBatch, StringArray, StructArray,
    TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Int8Type};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use super::harness::{NOW, Row, Shop, gzip, zip, zstd};

/// A million milliseconds before now.
const T: i64 = NOW - 1_000_000;

pub(super) fn parquet(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut bytes = Vec::new();
    // Small pages, so that dictionaries change and fall back to plain within a file.
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(700))
        .set_dictionary_page_size_limit(600)
        .set_data_page_row_count_limit(100)
        .build();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

fn strings<S: AsRef<str>>(texts: &[S]) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(texts))
}

/// A position of both venues, every one different.
fn sample(n: i64) -> (&'static str, String, String, i64, f32, f32) {
    let venue = ["zurich", "kolkata"][(n % 3 == 0) as usize];
    (
        venue,
        format!("s{}", n % 5),
        format!("track-{}", n * 7 % 41),
        T + n * 37,
        n as f32 / 100.0,
        -2.5 + n as f32,
    )
}

const N: i64 = 2_000;

fn ndjson() -> String {
    let line = |n| {
        let (venue, sensor, track, ts, x, y) = sample(n);
        format!(r#"{{"venue":"{venue}","sensor":"{sensor}","track":"{track}","ts":{ts},"x":{x},"y":{y}}}"#)
            + "\n"
    };
    (0..N).map(line).collect()
}

fn expected() -> Vec<Row> {
    let row = |n| {
        let (venue, sensor, track, ts, x, y) = sample(n);
        format!("{venue} position {ts} {sensor} {track} 0 {x} {y} -")
    };
    let mut rows: Vec<Row> = (0..N).map(row).collect();
    rows.sort();
    rows
}

#[tokio::test]
async fn every_format_in_every_compression_brings_the_same_rows() {
    let csv = |separator: &str| {
        let mut text = ["track", "ts", "x", "y", "venue", "sensor"].join(separator) + "\n";
        for n in 0..N {
            let (venue, sensor, track, ts, x, y) = sample(n);
            let cells = [
                &track,
                &ts.to_string(),
                &x.to_string(),
                &y.to_string(),
                venue,
                &sensor,
            ];
            text += &(cells.join(separator) + "\n");
        }
        text
    };
    let json = format!("[{}]", ndjson().trim_end().replace('\n', ",\n"));
    let samples: Vec<_> = (0..N).map(sample).collect();
    let parquet = parquet(vec![
        ("venue", strings(&samples.iter().map(|s| s.0).collect::<Vec<_>>())),
        (
            "sensor",
            strings(&samples.iter().map(|s| &s.1).collect::<Vec<_>>()),
        ),
        (
            "track",
            strings(&samples.iter().map(|s| &s.2).collect::<Vec<_>>()),
        ),
        (
            "ts",
            Arc::new(Int64Array::from_iter_values(samples.iter().map(|s| s.3))),
        ),
        (
            "x",
            Arc::new(Float32Array::from_iter_values(samples.iter().map(|s| s.4))),
        ),
        (
            "y",
            Arc::new(Float32Array::from_iter_values(samples.iter().map(|s| s.5))),
        ),
    ]);
    let contents: [(&str, Vec<u8>); 5] = [
        ("csv", csv(",").into_bytes()),
        ("tsv", csv("\t").into_bytes()),
        ("ndjson", ndjson().into_bytes()),
        ("json", json.into_bytes()),
        ("parquet", parquet),
    ];
    let expected = expected();
    for (format, bytes) in contents {
        let plain = format!("data.{format}");
        for (name, bytes) in [
            (plain.clone(), bytes.clone()),
            (format!("{plain}.gz"), gzip(&bytes)),
            (format!("{plain}.zst"), zstd(&bytes)),
            (format!("{format}.zip"), zip(&[(&plain, &bytes)])),
            (format!("{format}-without-a-name"), gzip(&bytes)),
        ] {
            let shop = Shop::open().await;
            let report = shop.import(&[&shop.file(&name, &bytes)]).await;
            assert_eq!(
                (report.accepted, report.refused, report.logged),
                (N as u64, 0, N as u64),
                "{name}: {report:?}"
            );
            assert!(shop.logged_rows().await == expected, "{name} brings other rows");
        }
    }
}

/// One event of each kind, as NDJSON.
const ALL_KINDS: &str = r#"{"kind":"position","venue":"zurich","sensor":"s","ts":1773140000001,"track":"t1","x":1.25,"y":-0.0,"floor":"EG"}
{"kind":"crossing","venue":"zurich","sensor":"s","ts":1773140000002,"line":"door","direction":"in","seq":7,"count":2}
{"kind":"crossing","venue":"zurich","sensor":"s","ts":1773140000003,"line":"door","direction":"out"}
{"kind":"crossing","venue":"zurich","sensor":"s","ts":1773140000003,"line":"door","direction":"out"}
{"kind":"count","venue":"zurich","sensor":"s","ts":1773140000004,"counter":"people","value":17,"mode":"state"}
{"kind":"transaction","venue":"kolkata","sensor":"till","ts":1773140000005,"number":"r-1","amount":-1250,"currency":"INR","void":true,"items":[{"sku":"a","quantity":2,"amount":-1250}]}
{"kind":"reading","venue":"kolkata","sensor":"s","ts":1773140000006,"metric":"co2","value":412.5,"unit":"ppm","revision":3}
{"kind":"status","venue":"kolkata","sensor":"s","ts":1773140000007,"state":"degraded","sent":10,"dropped":1}
"#;

#[tokio::test]
async fn parquet_columns_of_all_kinds_and_liberal_types_read_like_ndjson() {
    let shop = Shop::open().await;
    shop.import(&[&shop.file("all.ndjson", ALL_KINDS)]).await;
    let from_ndjson = shop.logged_rows().await;
    assert_eq!(from_ndjson.len(), 8);

    let text = |values: [Option<&str>; 8]| -> ArrayRef { Arc::new(StringArray::from(values.to_vec())) };
    let at = |row: usize, value: &'static str| -> [Option<&str>; 8] {
        std::array::from_fn(|i| (i == row).then_some(value))
    };
    let kinds = [
        "position",
        "crossing",
        "crossing",
        "crossing",
        "count",
        "transaction",
        "reading",
        "status",
    ];
    let kind: DictionaryArray<Int8Type> = kinds.into_iter().collect();
    let venue: Vec<&str> = (0..8).map(|i| if i < 5 { "zurich" } else { "kolkata" }).collect();
    let ts = [1, 2, 3, 3, 4, 5, 6, 7].map(|n| (1_773_140_000_000_i64 + n) * 1_000_000);
    let crossings = |value: &'static str| -> [Option<&str>; 8] {
        std::array::from_fn(|i| (1..4).contains(&i).then_some(value))
    };
    let mut direction = crossings("out");
    direction[1] = Some("in");
    let item = StructArray::from(vec![
        (Arc::new(Field::new("sku", DataType::Utf8, true)), strings(&["a"])),
        (
            Arc::new(Field::new("quantity", DataType::Int32, true)),
            Arc::new(Int32Array::from(vec![2])) as ArrayRef,
        ),
        (
            Arc::new(Field::new("amount", DataType::Int64, true)),
            Arc::new(Int64Array::from(vec![-1250])) as ArrayRef,
        ),
    ]);
    let items = ListArray::new(
        Arc::new(Field::new(
            "item",
            arrow::array::Array::data_type(&item).clone(),
            true,
        )),
        OffsetBuffer::from_lengths([0, 0, 0, 0, 0, 1, 0, 0]),
        Arc::new(item),
        Some(vec![false, false, false, false, false, true, false, false].into()),
    );
    let sensors = ["s", "s", "s", "s", "s", "till", "s", "s"];
    let bytes = parquet(vec![
        ("kind", Arc::new(kind)),
        ("venue", Arc::new(LargeStringArray::from(venue))),
        ("sensor", strings(&sensors)),
        (
            "ts",
            Arc::new(TimestampNanosecondArray::from(ts.to_vec()).with_timezone("UTC")),
        ),
        ("track", text(at(0, "t1"))),
        (
            "x",
            Arc::new(Float64Array::from(vec![
                Some(1.25),
                None,
                None,
                None,
                None,
                None,
                None,
                None,
            ])),
        ),
        (
            "y",
            Arc::new(
                Decimal128Array::from(vec![Some(0), None, None, None, None, None, None, None])
                    .with_precision_and_scale(9, 2)
                    .unwrap(),
            ),
        ),
        ("floor", text(at(0, "EG"))),
        ("line", text(crossings("door"))),
        ("direction", text(direction)),
        (
            "seq",
            Arc::new(Int8Array::from(vec![
                None,
                Some(7),
                None,
                None,
                None,
                None,
                None,
                None,
            ])),
        ),
        (
            "count",
            Arc::new(Float64Array::from(vec![
                None,
                Some(2.0),
                None,
                None,
                None,
                None,
                None,
                None,
            ])),
        ),
        ("counter", text(at(4, "people"))),
        (
            "value",
            Arc::new(Float64Array::from(vec![
                None,
                None,
                None,
                None,
                Some(17.0),
                None,
                Some(412.5),
                None,
            ])),
        ),
        ("mode", text(at(4, "state"))),
        ("number", text(at(5, "r-1"))),
        (
            "amount",
            Arc::new(Int32Array::from(vec![
                None,
                None,
                None,
                None,
                None,
                Some(-1250),
                None,
                None,
            ])),
        ),
        ("currency", text(at(5, "INR"))),
        (
            "void",
            Arc::new(BooleanArray::from(vec![
                None,
                None,
                None,
                None,
                None,
                Some(true),
                None,
                None,
            ])),
        ),
        ("items", Arc::new(items)),
        ("metric", text(at(6, "co2"))),
        ("unit", text(at(6, "ppm"))),
        (
            "revision",
            Arc::new(Int8Array::from(vec![
                None,
                None,
                None,
                None,
                None,
                None,
                Some(3),
                None,
            ])),
        ),
        ("state", text(at(7, "degraded"))),
        (
            "sent",
            Arc::new(Int64Array::from(vec![
                None,
                None,
                None,
                None,
                None,
                None,
                None,
                Some(10),
            ])),
        ),
        (
            "dropped",
            Arc::new(Int64Array::from(vec![
                None,
                None,
                None,
                None,
                None,
                None,
                None,
                Some(1),
            ])),
        ),
    ]);
    let shop = Shop::open().await;
    let report = shop.import(&[&shop.file("all.parquet", bytes)]).await;
    assert_eq!(report.refused, 0, "{report:?}");
    assert_eq!(shop.logged_rows().await, from_ndjson);
}

/// Positions of which one in three is wrong or odd in its own way.
struct Odd {
    venue: Vec<Option<&'static str>>,
    sensor: Vec<Option<&'static str>>,
    track: Vec<Option<String>>,
    ts: Vec<Option<i64>>,
    x: Vec<Option<f32>>,
    revision: Vec<Option<i64>>,
    kind: Vec<Option<&'static str>>,
    rssi: Vec<Option<i64>>,
}

fn odd_rows(n: i64) -> Odd {
    let mut odd = Odd {
        venue: Vec::new(),
        sensor: Vec::new(),
        track: Vec::new(),
        ts: Vec::new(),
        x: Vec::new(),
        revision: Vec::new(),
        kind: Vec::new(),
        rssi: Vec::new(),
    };
    for i in 0..n {
        let case = i % 36;
        odd.venue.push(match case {
            0 => None,
            1 => Some("nowhere"),
            2 => Some("../etc"),
            _ if i % 2 == 0 => Some("zurich"),
            _ => Some("kolkata"),
        });
        odd.sensor.push(match case {
            3 => None,
            4 => Some(""),
            5 => Some("bell\u{7}"),
            _ => Some("s1"),
        });
        odd.track.push(match case {
            6 => None,
            _ => Some(format!("t{}", i % 17)),
        });
        odd.ts.push(match case {
            7 => None,
            8 => Some(-1),
            9 => Some(NOW + 300_001),
            10 => Some(NOW + 300_000),
            11 => Some(NOW * 1_000),
            12 => Some(0),
            _ => Some(T + i),
        });
        odd.x.push(match case {
            13 => None,
            14 => Some(f32::NAN),
            15 => Some(f32::INFINITY),
            16 => Some(1e9),
            17 => Some(-0.0),
            _ => Some(i as f32 / 8.0),
        });
        odd.revision.push(match case {
            18 => Some(-1),
            19 => Some(i64::MAX),
            20 => Some(4),
            21 => Some(0),
            _ => None,
        });
        odd.kind.push(match case {
            22 => Some("positron"),
            23 => Some("position"),
            24 => Some("status"),
            _ => None,
        });
        odd.rssi.push(match case {
            25 => Some(-60),
            _ => None,
        });
    }
    odd
}

#[tokio::test]
async fn the_short_way_of_parquet_takes_and_refuses_what_the_decoder_does() {
    let odd = odd_rows(3_600);
    let line = |i: usize| {
        let mut fields = serde_json::Map::new();
        let mut set = |name: &str, value: serde_json::Value| {
            if !value.is_null() {
                fields.insert(name.to_owned(), value);
            }
        };
        set("venue", odd.venue[i].into());
        set("sensor", odd.sensor[i].into());
        set("track", odd.track[i].clone().into());
        set("ts", odd.ts[i].into());
        set("y", 1.into());
        set("revision", odd.revision[i].into());
        set("kind", odd.kind[i].into());
        set("rssi", odd.rssi[i].into());
        let mut line = serde_json::Value::from(fields).to_string();
        // JSON cannot write NaN and infinity: a number too large stands for both.
        if let Some(x) = odd.x[i] {
            let x = if x.is_finite() {
                x.to_string()
            } else {
                "1e999".to_owned()
            };
            line.insert_str(1, &format!("\"x\":{x},"));
        }
        line + "\n"
    };
    let text: String = (0..odd.ts.len()).map(line).collect();
    let from_text = Shop::open().await;
    let text_report = from_text.import(&[&from_text.file("odd", &text)]).await;

    let texts = |values: &[Option<&str>]| -> ArrayRef { Arc::new(StringArray::from(values.to_vec())) };
    let tracks: Vec<Option<&str>> = odd.track.iter().map(Option::as_deref).collect();
    let bytes = parquet(vec![
        ("x", Arc::new(Float32Array::from(odd.x.clone()))),
        ("venue", texts(&odd.venue)),
        ("sensor", texts(&odd.sensor)),
        ("track", texts(&tracks)),
        ("ts", Arc::new(Int64Array::from(odd.ts.clone()))),
        ("y", Arc::new(Int32Array::from(vec![1; odd.ts.len()]))),
        ("revision", Arc::new(Int64Array::from(odd.revision.clone()))),
        ("kind", texts(&odd.kind)),
        ("rssi", Arc::new(Int64Array::from(odd.rssi.clone()))),
    ]);
    let from_parquet = Shop::open().await;
    let parquet_report = from_parquet.import(&[&from_parquet.file("odd", bytes)]).await;

    assert_eq!(
        (parquet_report.accepted, parquet_report.refused),
        (text_report.accepted, text_report.refused)
    );
    // 36 cases a hundred times over, 19 of which are wrong: venue 0–2, sensor 3–5, track 6, ts 7, 8, 9, 11, x 13–16,
    // revision 19, kind 22 and 24, rssi 25.
    assert_eq!(text_report.refused, 100 * (3 + 3 + 1 + 4 + 4 + 1 + 2 + 1));
    assert_eq!(from_parquet.logged_rows().await, from_text.logged_rows().await);
    // An empty name means absent in a cell and not in JSON; NaN cannot be written in JSON. Refused they are all.
    let codes = |mut entries: Vec<(String, u64, String)>| {
        entries.retain(|(_, line, _)| ![4, 14, 15].contains(&((line - 1) % 36)));
        entries
    };
    assert_eq!(
        codes(from_parquet.quarantined().await),
        codes(from_text.quarantined().await)
    );
}

#[tokio::test]
async fn timestamps_of_every_unit_and_floats_of_every_width_are_the_same_position() {
    let columns = |ts: ArrayRef, x: ArrayRef, track: ArrayRef| {
        let one = |text: &str| strings(&[text]);
        parquet(vec![
            ("venue", one("zurich")),
            ("sensor", one("s")),
            ("track", track),
            ("ts", ts),
            ("x", Arc::clone(&x)),
            ("y", x),
        ])
    };
    let x32 = || -> ArrayRef { Arc::new(Float32Array::from(vec![2.66])) };
    let track = || strings(&["42"]);
    let files = [
        columns(Arc::new(Int64Array::from(vec![T])), x32(), track()),
        columns(Arc::new(TimestampMillisecondArray::from(vec![T])), x32(), track()),
        columns(
            Arc::new(TimestampMicrosecondArray::from(vec![T * 1_000 + 999]).with_timezone("+01:00")),
            x32(),
            track(),
        ),
        columns(
            Arc::new(TimestampNanosecondArray::from(vec![T * 1_000_000])),
            x32(),
            track(),
        ),
        columns(strings(&[T.to_string()]), x32(), track()),
        columns(strings(&[dwell_model::time::format_rfc3339(T)]), x32(), track()),
        columns(Arc::new(Float64Array::from(vec![T as f64])), x32(), track()),
        columns(
            Arc::new(Int64Array::from(vec![T])),
            Arc::new(Float64Array::from(vec![2.66])),
            track(),
        ),
        columns(Arc::new(Int64Array::from(vec![T])), strings(&["2.66"]), track()),
        columns(
            Arc::new(Int64Array::from(vec![T])),
            Arc::new(
                Decimal128Array::from(vec![266])
                    .with_precision_and_scale(10, 2)
                    .unwrap(),
            ),
            track(),
        ),
        columns(
            Arc::new(Int64Array::from(vec![T])),
            x32(),
            Arc::new(Int64Array::from(vec![42])),
        ),
        columns(
            Arc::new(Int64Array::from(vec![T])),
            x32(),
            Arc::new(Int32Array::from(vec![42])),
        ),
    ];
    let shop = Shop::open().await;
    for (n, bytes) in files.into_iter().enumerate() {
        let report = shop.import(&[&shop.file(&format!("{n}.parquet"), bytes)]).await;
        assert_eq!(report.accepted, 1, "{report:?}");
    }
    let mut rows = shop.logged_rows().await;
    rows.dedup();
    assert_eq!(rows, [format!("zurich position {T} s 42 0 2.66 2.66 -")]);
}

#[tokio::test]
async fn unknown_columns_are_refused_by_name_and_left_out_under_a_mapping() {
    let bytes = parquet(vec![
        ("venue", strings(&["zurich"])),
        ("trak", strings(&["t"])),
        ("sensor", strings(&["s"])),
        ("ts", Arc::new(Int64Array::from(vec![T]))),
        ("x", Arc::new(Float32Array::from(vec![1.0]))),
        ("y", Arc::new(Float32Array::from(vec![1.0]))),
        ("comment", strings(&["hello"])),
    ]);
    let csv = format!("venue,trak,sensor,ts,x,y,comment\nzurich,t,s,{T},1,1,hello\n");
    for (name, bytes) in [("a.parquet", bytes), ("a.csv", csv.into_bytes())] {
        let mut shop = Shop::open().await;
        let path = shop.file(name, &bytes);
        let report = shop.import(&[&path]).await;
        let error = &report.files[0].errors[0];
        assert!(
            error.contains(name) && error.contains("trak") && error.contains("comment"),
            "{error}"
        );
        assert!(!report.is_complete() && shop.logged_rows().await.is_empty());

        shop.options.mapping.add_map("track=trak").unwrap();
        let report = shop.import(&[&path]).await;
        assert!(report.is_complete(), "{report:?}");
        assert_eq!(
            shop.logged_rows().await,
            [format!("zurich position {T} s t 0 1 1 -")]
        );

        shop.options.mapping.add_map("floor=level").unwrap();
        let error = shop.import(&[&path]).await.files[0].errors[0].clone();
        assert!(error.contains("level"), "{error}");
    }
}
