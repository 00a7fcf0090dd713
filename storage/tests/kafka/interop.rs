//! The documented format, used by another client in another language (`interop.py`).
//!
//! `DWELL_TEST_PYTHON` names a Python that has `confluent_kafka`.

use std::process::Command;

use dwell_model::event::{Column, EventBatch, Kind, NO_I64, NO_TEXT};
use dwell_storage::api::{EventLogReader, EventLogWriter, LogRecord};
use dwell_storage::conformance::samples::{position, receipt, record, venue};

use super::kafka;

const TS: i64 = 1_792_879_200_000;

fn transaction() -> EventBatch {
    let mut batch = EventBatch::new(Kind::Transaction);
    let text = |batch: &mut EventBatch, text| batch.strings.intern(text);
    batch.ts = vec![TS];
    batch.sensor = vec![text(&mut batch, "till 1")];
    batch.key = vec![text(&mut batch, "R-17")];
    batch.revision = vec![2];
    let currency = text(&mut batch, "EUR");
    let items = text(&mut batch, r#"[{"sku":"Ä","quantity":2,"amount":1250}]"#);
    batch.payload = vec![
        Column::I64(vec![1_250]),
        Column::Text(vec![currency]),
        Column::I64(vec![NO_I64]),
        Column::Text(vec![items]),
    ];
    batch
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_client_reads_and_writes_by_the_documentation() {
    let Some(kafka) = kafka() else { return };
    let Ok(python) = std::env::var("DWELL_TEST_PYTHON") else {
        eprintln!("skipped: DWELL_TEST_PYTHON names no Python with confluent_kafka");
        return;
    };
    let (log, config) = kafka.fresh_log(5).await;
    let shop = venue("acme", "Koeln");
    log.append(vec![
        record(&shop, 1, position("s 1", "t\"1", TS, 1.1, -0.0)),
        LogRecord {
            received_at: Some(1_790_000_000_000),
            ..record(&shop, 2, transaction())
        },
    ])
    .await
    .unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kafka/interop.py");
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/kafka-record.schema.json");
    let run = Command::new(python)
        .args([script, &config.bootstrap, &config.prefix, schema])
        .output()
        .unwrap();
    let said = String::from_utf8(run.stdout).unwrap();
    assert!(
        run.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&run.stderr)
    );

    // What it has written lies with the venue's other events, and means what it said.
    let partition = log.partition_of(&shop, Kind::Count);
    let read = log.read(partition, 0, usize::MAX).await.unwrap().records;
    assert_eq!(read.len(), 1, "{said}");
    let (logged, events) = (&read[0], &read[0].events);
    assert_eq!((&logged.venue, logged.receipt), (&shop, receipt(0xabc)));
    assert_eq!(
        (events.sensor(0), events.key(0), events.ts[0], events.revision[0]),
        ("door", "in", TS, 0)
    );
    assert_eq!((events.i64s(0), events.text(1, 0)), (&[42][..], Some("delta")));
    assert!(!events.text_ids(1).contains(&NO_TEXT));
}
