//! The default road: claims, resuming, the quarantine.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use dwell_runtime::failpoints;
use dwell_storage::api::QuarantineEncoding;

use super::harness::{NOW, Shop, gzip, zip};
use crate::sources::files::FileState;

fn line(track: &str, ts: i64, x: f64) -> String {
    format!(r#"{{"venue":"zurich","sensor":"s","track":"{track}","ts":{ts},"x":{x},"y":0}}"#) + "\n"
}

#[tokio::test]
async fn a_file_imported_twice_changes_nothing_whatever_its_name() {
    let shop = Shop::open().await;
    let text = line("a", NOW - 2, 1.0) + &line("b", NOW - 1, 2.0);
    let (first, copy) = (shop.file("first.ndjson", &text), shop.file("copy.ndjson", &text));
    let report = shop.import(&[&first, &copy]).await;
    let states: Vec<_> = report
        .files
        .iter()
        .map(|file| (file.state, file.accepted))
        .collect();
    assert_eq!(
        states,
        [(FileState::Imported, 2), (FileState::AlreadyImported, 0)]
    );
    assert!(report.files[1].errors[0].contains("same content"));
    let before = shop.logged().await;
    assert_eq!(before.len(), 2);

    shop.clock.set_ms(NOW + 60_000);
    let report = shop.import(&[&copy]).await;
    assert_eq!(
        (report.files[0].state, report.files[0].accepted),
        (FileState::AlreadyImported, 2)
    );
    assert_eq!((report.accepted, report.logged), (0, 0));
    assert_eq!(shop.logged().await, before);
}

#[tokio::test]
async fn all_new_claims_of_an_import_carry_its_start() {
    let shop = Shop::open().await;
    let (a, b) = (
        shop.file("a.ndjson", line("a", NOW - 2, 1.0)),
        shop.file("b.ndjson", line("a", NOW - 2, 2.0)),
    );
    shop.import(&[&a, &b]).await;
    let logged = shop.logged().await;
    assert_eq!(
        logged
            .iter()
            .map(|(_, delivery)| delivery.received_at)
            .collect::<Vec<_>>(),
        [NOW, NOW]
    );
    assert_ne!(logged[0].1.receipt, logged[1].1.receipt);
}

#[tokio::test]
async fn bad_rows_go_to_the_quarantine_with_file_and_line() {
    let mut shop = Shop::open().await;
    let good = line("a", NOW - 2, 1.0);
    let ndjson = format!(
        "{good}\n{{\"venue\":\"zurich\"\n{good}{}not json\n",
        line("b", NOW + 400_000, 1.0)
    );
    let csv = format!(
        "venue,sensor,track,ts,x,y\nzurich,s,\"two\nlines\",{0},1,1\nzurich,s,t,{0},1,1\nnowhere,s,t,{0},1,1\nzurich,s,t\n",
        NOW - 5
    );
    let files = [
        shop.file("a.ndjson", &ndjson),
        shop.file("b.csv.gz", gzip(csv.as_bytes())),
        shop.file(
            "c.zip",
            zip(&[
                ("one.csv", csv.as_bytes()),
                ("two.csv", csv.replace("two", "2").as_bytes()),
            ]),
        ),
    ];
    let report = shop.import(&files.each_ref().map(|path| path.as_path())).await;
    let codes = |file: &str, rows: &[(u64, &str)]| -> Vec<(String, u64, String)> {
        rows.iter()
            .map(|(line, code)| (file.to_owned(), *line, (*code).to_owned()))
            .collect()
    };
    // A quoted line end is a control character in a name, and shifts the lines after it.
    let csv_rows = [(2, "invalid_name"), (5, "unknown_venue"), (6, "csv_columns")];
    let mut expected = codes(
        "a.ndjson",
        &[(3, "json_syntax"), (5, "ts_in_future"), (6, "json_syntax")],
    );
    expected.extend(codes("b.csv.gz", &csv_rows));
    expected.extend(codes("c.zip:one.csv", &csv_rows));
    expected.extend(codes("c.zip:two.csv", &csv_rows));
    assert_eq!(shop.quarantined().await, expected);
    assert_eq!((report.accepted, report.refused), (2 + 1 + 2, 3 + 3 + 6));
    let first = &report.files[0].errors[0];
    assert!(first.contains("a.ndjson:3: "), "{first}");

    // The same rows under a mapping that computes: the quarantine names their lines in the file all the same.
    shop.map("constants = { sensor = 's-{sensor}' }");
    let path = shop.file("mapped.csv", csv.replace("nowhere", "elsewhere"));
    shop.import(&[&path]).await;
    let mapped: Vec<_> = shop
        .quarantined()
        .await
        .into_iter()
        .filter(|(file, _, _)| file == "mapped.csv")
        .collect();
    assert_eq!(mapped, codes("mapped.csv", &csv_rows));
}

#[tokio::test]
async fn mapping_errors_name_file_line_and_column() {
    let mut shop = Shop::open().await;
    shop.map("[ts]\nformat = '%Y-%m-%d %H:%M:%S'\nzone = 'venue'\n[scale]\nx = 0.01");
    let header = "venue,sensor,track,ts,x,y";
    let csv = format!(
        "{header}\nzurich,s,t,2026-03-09 10:00:00,150,1\nzurich,s,t,09.03.2026,150,1\n\nzurich,s,t,2026-03-09 10:00:01,wide,1\n"
    );
    let report = shop.import(&[&shop.file("m.csv", csv)]).await;
    // 10:00 in Zurich is 09:00 UTC in March.
    assert_eq!(
        shop.logged_rows().await,
        ["zurich position 1773046800000 s t 0 1.5 1 -"]
    );
    let errors = &report.files[0].errors;
    assert!(
        errors[0].contains("m.csv:3: column \"ts\": not a time"),
        "{errors:?}"
    );
    assert!(
        errors[1].contains("m.csv:5: column \"x\": not a number"),
        "{errors:?}"
    );
    let entries = shop.quarantine_entries().await;
    assert!(
        entries.iter().all(|entry| entry.message.contains("column")),
        "{entries:?}"
    );
}

#[tokio::test]
async fn devices_are_pseudonyms_in_the_log_and_in_the_quarantine() {
    let mut shop = Shop::open().await;
    let device = "aa:bb:cc:dd:ee:ff";
    let csv = format!(
        "when;mac;rssi\n{};{device};-60\n{};{device};-61\n{};{device};x\n",
        NOW - 9,
        NOW - 8,
        NOW - 7
    );
    shop.map(
        "columns = { ts = 'when', device = 'mac' }\nconstants = { venue = 'zurich', sensor = 's', kind = 'presence' }",
    );
    shop.import(&[&shop.file("probes.csv", &csv)]).await;
    let rows = shop.logged_rows().await;
    assert_eq!(rows.len(), 2);
    let key = |row: &str| row.split(' ').nth(4).unwrap().to_owned();
    assert!(
        key(&rows[0]).starts_with("p:") && key(&rows[0]) == key(&rows[1]),
        "{rows:?}"
    );
    let entries = shop.quarantine_entries().await;
    assert_eq!(entries.len(), 1);
    assert!(!String::from_utf8_lossy(&entries[0].bytes).contains("ee:ff"));
    // The bytes may be kept readable with a pseudonym, or sealed; never in clear.
    if entries[0].encoding == QuarantineEncoding::Plain {
        assert!(String::from_utf8_lossy(&entries[0].bytes).contains("p:"));
    }
    drop(shop.deps);
    for entry in std::fs::read_dir(shop.folder.path().join("data")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            assert!(
                !bytes
                    .windows(device.len())
                    .any(|window| window == device.as_bytes()),
                "{}",
                path.display()
            );
        }
    }
}

#[tokio::test]
async fn a_file_that_breaks_off_fails_alone_and_can_be_brought_again() {
    let shop = Shop::open().await;
    let text: String = (0..50_000)
        .map(|n| line(&format!("t{n}"), NOW - 60_000 + n, n as f64))
        .collect();
    let whole = gzip(text.as_bytes());
    let broken = shop.file("a.ndjson.gz", &whole[..whole.len() / 2]);
    let other = shop.file("b.ndjson", line("other", NOW - 1, 1.0));
    let report = shop.import(&[&broken, &other]).await;
    assert_eq!(
        report.files.iter().map(|f| f.state).collect::<Vec<_>>(),
        [FileState::Failed, FileState::Imported]
    );
    assert!(
        report.files[0].errors[0].contains("a.ndjson.gz"),
        "{:?}",
        report.files[0]
    );
    assert!(!report.is_complete());
    let taken = shop.logged().await.len() as u64;
    assert_eq!(taken, report.accepted);
    assert!(taken > 1_000, "the rows before the damage are taken");

    let mended = shop.file("a.ndjson.gz", &whole);
    assert_eq!(shop.import(&[&mended]).await.accepted, 50_000);
    let mut rows = shop.logged_rows().await;
    rows.dedup();
    assert_eq!(rows.len(), 50_001);
}

#[tokio::test]
async fn an_import_that_died_goes_on_under_its_old_time() {
    let shop = Shop::open().await;
    let file = |name: &str, offset: i64| {
        let text: String = (0..40_000)
            .map(|n| line(&format!("t{n}"), NOW - 90_000 + offset + n, n as f64))
            .collect();
        shop.file(name, text)
    };
    let (a, b) = (file("a.ndjson", 0), file("b.ndjson", 50_000));
    let paths: [&Path; 2] = [&a, &b];
    {
        // The first file and a part of the second are in the log when the import dies.
        let (passes, thread) = (AtomicU32::new(0), std::thread::current().id());
        let _guard = failpoints::set_fn("import.append", move || {
            // Points are global: imports of other tests pass this one on their own threads.
            let is_ours = std::thread::current().id() == thread;
            if is_ours && passes.fetch_add(1, Ordering::Relaxed) >= 6 {
                return Err(failpoints::Injected::new("import.append", "died"));
            }
            Ok(())
        });
        let error = shop.try_import(&paths).await.unwrap_err();
        assert!(error.to_string().contains("died"), "{error}");
    }
    let before = shop.logged().await.len();
    assert!((40_000..80_000).contains(&before), "{before}");
    shop.clock.set_ms(NOW + 3_600_000);
    let report = shop.import(&paths).await;
    assert_eq!(
        report.files.iter().map(|f| f.state).collect::<Vec<_>>(),
        [FileState::AlreadyImported, FileState::Imported]
    );
    let mut logged = shop.logged().await;
    assert!(
        logged.iter().all(|(_, delivery)| delivery.received_at == NOW),
        "resumed under the time of the first try"
    );
    logged.dedup();
    assert_eq!(logged.len(), 80_000);
}

#[tokio::test]
async fn a_mapping_makes_the_same_bytes_another_import() {
    let mut shop = Shop::open().await;
    let path = shop.file(
        "a.csv",
        format!("venue,sensor,id,ts,a,b\nzurich,s,t,{},1,2\n", NOW - 1),
    );
    shop.map("columns = { track = 'id', x = 'b', y = 'a' }");
    shop.import(&[&path]).await;
    shop.map("columns = { track = 'id', x = 'a', y = 'b' }");
    assert_eq!(shop.import(&[&path]).await.files[0].state, FileState::Imported);
    assert_eq!(
        shop.import(&[&path]).await.files[0].state,
        FileState::AlreadyImported
    );
    assert_eq!(shop.logged_rows().await.len(), 2);
}

#[tokio::test]
async fn nothing_to_import_is_an_error_that_says_where() {
    let shop = Shop::open().await;
    let missing = shop.folder.path().join("missing.csv");
    assert!(
        shop.try_import(&[&missing])
            .await
            .unwrap_err()
            .to_string()
            .contains("missing.csv")
    );
    let empty = shop.file("folder/readme.txt", "hello");
    let error = shop
        .try_import(&[empty.parent().unwrap()])
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("folder"), "{error}");
    let report = shop.import(&[&shop.file("empty.ndjson", "")]).await;
    assert_eq!((report.is_complete(), report.accepted), (true, 0));
}
