//! What single tables do beyond the suite: sizes, tidying up, what cqlsh shows.

use dwell_model::metrics::{AggregateRow, CellValue, Family, Grain, Slice, Value};
use dwell_model::time::DAY_MS;
use dwell_storage::api::*;
use dwell_storage::conformance::samples::{DAY_START, day, receipt, shop, tenant};
use serde_json::json;

use super::lost_answers::TTL;
use super::{Keyspace, in_fresh_keyspace};

pub(crate) fn job(id: &str) -> Job {
    Job {
        id: id.to_owned(),
        tenant: tenant("acme"),
        kind: "recompute".to_owned(),
        lane: Default::default(),
        spec: json!({}),
        state: JobState::Queued,
        progress: JobProgress::default(),
        requested_by: "key".to_owned(),
        reason: None,
        created_at: DAY_START,
        started_at: None,
        finished_at: None,
        attempts: 0,
        cancel_requested: false,
        report: None,
        error: None,
        fence: 0,
        leased_until: None,
    }
}

impl Keyspace {
    /// Rows of a table.
    pub(crate) async fn count(&self, table: &str) -> i64 {
        let count = self.text(&format!("SELECT count(*) FROM {{ks}}.{table}"));
        let rows = self
            .session
            .query_unpaged(count, ())
            .await
            .unwrap()
            .into_rows_result()
            .unwrap();
        rows.first_row::<(i64,)>().unwrap().0
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_rows_and_one_larger_than_a_batch_come_back() {
    in_fresh_keyspace(async |keyspace| {
        let (store, d) = (keyspace.stores().await.aggregates, day("2026-03-29"));
        let row = |n: usize, cells: usize| AggregateRow {
            grain: Grain::Hour,
            start: DAY_START + n as i64 / 100,
            length_ms: 3_600_000,
            family: Family::Cell,
            subject: format!("floor-{:05}", n),
            slice: Slice::All,
            value: Value::Cell(CellValue {
                cell_cm: 50,
                cells: (0..cells).map(|cell| (cell as i32, n as i32, u64::MAX)).collect(),
            }),
        };
        let mut rows: Vec<AggregateRow> = (0..7_000).map(|n| row(n, n % 7)).collect();
        rows.push(row(7_000, 100_000));
        let expected = rows.clone();
        rows.reverse();
        store.write(&shop(), d, 4, rows).await.unwrap();
        assert_eq!(store.count(&shop(), d, 4).await.unwrap(), 7_001);
        let found = store.read(&shop(), d, 4, &RowFilter::default()).await.unwrap();
        assert!(found == expected);
        // Fewer than before, over several pages.
        let fewer: Vec<AggregateRow> = expected.iter().step_by(1_000).cloned().collect();
        store.write(&shop(), d, 4, fewer.clone()).await.unwrap();
        assert!(store.read(&shop(), d, 4, &RowFilter::default()).await.unwrap() == fewer);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_year_of_days_is_read_in_one_call() {
    in_fresh_keyspace(async |keyspace| {
        let store = keyspace.stores().await.aggregates;
        let first = day("2025-07-01");
        let row = |number: u64| AggregateRow {
            grain: Grain::Day,
            start: DAY_START,
            length_ms: 1,
            family: Family::Zone,
            subject: number.to_string(),
            slice: Slice::All,
            value: Value::Transition(vec![]),
        };
        let days: Vec<_> = (0..370).map(|n| (first.plus(n), n % 3 + 1)).collect();
        for chunk in days.chunks(16) {
            let writes = chunk.iter().map(|&(d, generation)| async move {
                store_one(keyspace, d, generation, row(d.to_epoch_days() as u64)).await
            });
            futures::future::join_all(writes).await;
        }
        for families in [None, Some(vec![Family::Zone, Family::Line])] {
            let filter = RowFilter {
                grain: Some(Grain::Day),
                families,
                subjects: None,
                slice: None,
            };
            let read = store.read_many(&shop(), &days, &filter).await.unwrap();
            let expected: Vec<_> = days
                .iter()
                .map(|(d, _)| vec![row(d.to_epoch_days() as u64)])
                .collect();
            assert_eq!(read, expected);
        }
    })
    .await;

    async fn store_one(
        keyspace: &Keyspace,
        d: dwell_model::time::LocalDay,
        generation: u64,
        row: AggregateRow,
    ) {
        // Straight into the table: what is tested is reading.
        let insert = "INSERT INTO {ks}.day_rows (tenant, venue, month, day, generation, family, start, subject, slice, \
                      length_ms, value) VALUES ('acme', 'shop', ?, '{day}', ?, 0, ?, ?, 0, 1, ?)";
        let insert = keyspace.text(insert).replace("{day}", &d.to_string());
        let text = d.to_string();
        let month: i32 = text[..4].parse::<i32>().unwrap() * 100 + text[5..7].parse::<i32>().unwrap();
        let value = dwell_model::metrics::encode_value(&row.value);
        let start = scylla::value::CqlTimestamp(row.start);
        let values = (month, generation as i64, start, row.subject, value);
        keyspace.session.query_unpaged(insert, values).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destroyed_key_leaves_a_row_without_its_bytes_and_no_entry() {
    in_fresh_keyspace(async |keyspace| {
        let keys = keyspace.stores().await.pseudonym_keys;
        let d = day("2026-03-29");
        for (byte, keep_until) in [(7, DAY_START), (8, DAY_START + 10)] {
            keys.get_or_create(&shop(), d, SecretKey([byte; 32]), keep_until)
                .await
                .unwrap();
        }
        assert_eq!(keyspace.count("pseudonym_key_ends").await, 2, "one of each time");
        assert_eq!(keys.destroy_expired(DAY_START).await.unwrap(), 0);
        assert_eq!(
            keyspace.count("pseudonym_key_ends").await,
            1,
            "the time that was raised is tidied up"
        );
        assert_eq!(keys.destroy_expired(DAY_START + 10).await.unwrap(), 1);
        assert_eq!(keyspace.count("pseudonym_key_ends").await, 0);
        let select = keyspace.text("SELECT key, destroyed FROM {ks}.pseudonym_keys");
        let rows = keyspace
            .session
            .query_unpaged(select, ())
            .await
            .unwrap()
            .into_rows_result()
            .unwrap();
        assert_eq!(rows.single_row::<(Vec<u8>, bool)>().unwrap(), (vec![], true));
        // The day's list goes a day later.
        assert_eq!(keyspace.count("pseudonym_key_end_days").await, 1);
        assert_eq!(keys.destroy_expired(DAY_START + 2 * DAY_MS).await.unwrap(), 0);
        assert_eq!(keyspace.count("pseudonym_key_end_days").await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_that_have_ended_are_no_longer_open_and_abandoned_entries_go() {
    in_fresh_keyspace(async |keyspace| {
        let jobs = keyspace.stores().await.jobs;
        for id in ["01", "02", "03"] {
            jobs.create(&job(id)).await.unwrap();
        }
        jobs.request_cancel(&tenant("acme"), "01", DAY_START)
            .await
            .unwrap();
        assert_eq!(keyspace.count("open_jobs").await, 2);
        let claimed = jobs.claim(DAY_START, TTL).await.unwrap().unwrap();
        assert_eq!(claimed.id, "02");
        // It ends, but its process dies before it tidies up.
        let ended = Job {
            state: JobState::Failed,
            ..claimed
        };
        assert_eq!(jobs.update(&ended).await.unwrap(), Flip::Done);
        keyspace
            .cql("INSERT INTO {ks}.open_jobs (part, id, created_at) VALUES (0, '02', 0)")
            .await;
        // Another one died between the entry and the job, long ago, and one just now.
        keyspace
            .cql("INSERT INTO {ks}.open_jobs (part, id, created_at) VALUES (0, '00', 0)")
            .await;
        let recent =
            format!("INSERT INTO {{ks}}.open_jobs (part, id, created_at) VALUES (0, '000', {DAY_START})");
        keyspace.cql(&recent).await;
        assert_eq!(jobs.claim(DAY_START, TTL).await.unwrap().unwrap().id, "03");
        assert_eq!(
            keyspace.count("open_jobs").await,
            2,
            "the running one, and the one just now"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_quarantine_is_listed_over_many_stretches_of_time() {
    in_fresh_keyspace(async |keyspace| {
        let store = keyspace.stores().await.quarantine;
        let entry = |hour: u64, n: u64| QuarantineEntry {
            id: format!("{hour:08x}-{}-{n:012x}", receipt(u128::from(hour))),
            tenant: tenant("acme"),
            venue: None,
            received_at: DAY_START,
            receipt: receipt(1),
            source: "http".to_owned(),
            sensor: None,
            index: n,
            code: ["a", "b"][n as usize % 2].to_owned(),
            message: String::new(),
            format: "ndjson".to_owned(),
            encoding: QuarantineEncoding::Plain,
            bytes: vec![b'x'; 300],
            state: QuarantineState::Open,
        };
        let entries: Vec<_> = (0..40)
            .flat_map(|stretch| (0..15).map(move |n| (493_000 + stretch * 9, n)))
            .map(|(hour, n)| entry(hour, n))
            .collect();
        assert_eq!(store.add(entries.clone(), 10_000).await.unwrap(), 600);
        assert!(keyspace.count("quarantine_buckets").await > 20);
        for code in [None, Some("b")] {
            let filter = QuarantineFilter {
                code: code.map(str::to_owned),
                ..QuarantineFilter::default()
            };
            let expected = entries
                .iter()
                .rev()
                .filter(|entry| code.is_none_or(|code| entry.code == code));
            let (mut listed, mut before) = (Vec::new(), None);
            loop {
                let page = store
                    .list(&tenant("acme"), &filter, before.as_deref(), 37)
                    .await
                    .unwrap();
                let Some(last) = page.last() else { break };
                before = Some(last.id.clone());
                listed.extend(page);
            }
            assert!(listed.iter().eq(expected));
        }
    })
    .await;
}
