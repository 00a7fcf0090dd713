//! What [`Quarantine`] promises.

use std::sync::Arc;

use dwell_model::ids::VenueId;

use super::samples::{DAY_START, receipt, tenant};
use super::{assert_kind, run_cases};
use crate::api::{
    Quarantine, QuarantineBounds, QuarantineEncoding, QuarantineEntry, QuarantineFilter, QuarantineLeftOut,
    QuarantineScope, QuarantineSize, QuarantineState,
};
use crate::error::ErrorKind;

/// Runs all cases, each on a fresh store that `make` gives.
pub async fn suite<M, F>(make: M)
where
    M: Fn() -> F,
    F: Future<Output = Arc<dyn Quarantine>>,
{
    run_cases!(
        "quarantine",
        make,
        [
            an_entry_comes_back_as_it_was,
            an_entry_that_is_there_is_left_as_it_is,
            entries_are_listed_newest_first_in_pages,
            filters_may_be_combined,
            a_tenants_entries_are_bounded,
            an_entry_can_be_settled,
            no_tenant_sees_or_settles_anothers_entries,
            erased_entries_are_gone_and_make_room,
            filters_tell_sensor_receipt_and_time,
            a_mad_sensor_takes_no_more_than_its_own_room,
            bytes_are_bounded_as_entries_are,
            settled_entries_make_room_and_dropped_ones_lose_their_bytes,
        ]
    );
}

const NO_BOUND: u64 = u64::MAX;

fn entry(id: &str, owner: &str) -> QuarantineEntry {
    QuarantineEntry {
        id: id.to_owned(),
        tenant: tenant(owner),
        venue: Some(VenueId::new("shop").unwrap()),
        received_at: DAY_START,
        receipt: receipt(u128::MAX),
        source: "http".to_owned(),
        sensor: None,
        index: 3,
        code: "unknown_field".to_owned(),
        message: "the field \"ü\" is not known".to_owned(),
        format: "ndjson".to_owned(),
        encoding: QuarantineEncoding::Plain,
        bytes: vec![0, 255, 10, 13, 0],
        state: QuarantineState::Open,
    }
}

async fn ids(
    store: &dyn Quarantine,
    filter: &QuarantineFilter,
    before: Option<&str>,
    limit: usize,
) -> Vec<String> {
    let entries = store.list(&tenant("acme"), filter, before, limit).await.unwrap();
    entries.into_iter().map(|entry| entry.id).collect()
}

async fn an_entry_comes_back_as_it_was(store: Arc<dyn Quarantine>) {
    assert_eq!(store.get(&tenant("acme"), "01").await.unwrap(), None);
    assert_eq!(store.add(vec![], NO_BOUND).await.unwrap(), 0);
    let full = entry("01", "acme");
    let sparse = QuarantineEntry {
        id: "02".to_owned(),
        venue: None,
        index: 0,
        encoding: QuarantineEncoding::Encrypted,
        bytes: vec![],
        state: QuarantineState::Dropped,
        ..full.clone()
    };
    assert_eq!(
        store
            .add(vec![full.clone(), sparse.clone()], NO_BOUND)
            .await
            .unwrap(),
        2
    );
    assert_eq!(store.get(&tenant("acme"), "01").await.unwrap(), Some(full));
    assert_eq!(store.get(&tenant("acme"), "02").await.unwrap(), Some(sparse));
}

async fn an_entry_that_is_there_is_left_as_it_is(store: Arc<dyn Quarantine>) {
    store.add(vec![entry("01", "acme")], NO_BOUND).await.unwrap();
    store
        .set_state(&tenant("acme"), "01", QuarantineState::Replayed)
        .await
        .unwrap();
    let retried = QuarantineEntry {
        message: "another".to_owned(),
        received_at: 1,
        ..entry("01", "acme")
    };
    assert_eq!(
        store
            .add(vec![retried, entry("02", "acme"), entry("02", "acme")], NO_BOUND)
            .await
            .unwrap(),
        3
    );
    let kept = QuarantineEntry {
        state: QuarantineState::Replayed,
        ..entry("01", "acme")
    };
    assert_eq!(store.get(&tenant("acme"), "01").await.unwrap(), Some(kept));
    assert_eq!(
        ids(&*store, &QuarantineFilter::default(), None, 10).await,
        ["02", "01"]
    );
}

async fn entries_are_listed_newest_first_in_pages(store: Arc<dyn Quarantine>) {
    let entries = [4, 1, 3, 2, 5].map(|n| entry(&format!("0{n}"), "acme")).to_vec();
    store.add(entries, NO_BOUND).await.unwrap();
    let all = QuarantineFilter::default();
    assert_eq!(ids(&*store, &all, None, 10).await, ["05", "04", "03", "02", "01"]);
    assert_eq!(ids(&*store, &all, None, 2).await, ["05", "04"]);
    assert_eq!(ids(&*store, &all, Some("04"), 2).await, ["03", "02"]);
    assert_eq!(ids(&*store, &all, Some("01"), 2).await, [""; 0]);
    assert_eq!(ids(&*store, &all, None, 0).await, [""; 0]);
}

async fn filters_may_be_combined(store: Arc<dyn Quarantine>) {
    let mut entries = Vec::new();
    // Every combination of two venues and none, two codes, two sources, two states.
    for n in 0..24_u32 {
        entries.push(QuarantineEntry {
            venue: [Some("shop"), Some("kiosk"), None][n as usize % 3].map(|id| VenueId::new(id).unwrap()),
            code: ["a", "b"][n as usize / 3 % 2].to_owned(),
            source: ["http", "file.csv"][n as usize / 6 % 2].to_owned(),
            state: [QuarantineState::Open, QuarantineState::Dropped][n as usize / 12],
            ..entry(&format!("{n:02}"), "acme")
        });
    }
    store.add(entries.clone(), NO_BOUND).await.unwrap();
    for venue in [None, Some("shop"), Some("elsewhere")] {
        for code in [None, Some("b")] {
            for source in [None, Some("file.csv")] {
                for state in [None, Some(QuarantineState::Open), Some(QuarantineState::Replayed)] {
                    let venue = venue.map(|id| VenueId::new(id).unwrap());
                    let mut expected: Vec<String> = entries
                        .iter()
                        .filter(|e| venue.is_none() || e.venue == venue)
                        .filter(|e| code.is_none_or(|code| e.code == code))
                        .filter(|e| source.is_none_or(|source| e.source == source))
                        .filter(|e| state.is_none_or(|state| e.state == state))
                        .map(|e| e.id.clone())
                        .collect();
                    expected.reverse();
                    let (code, source) = (code.map(str::to_owned), source.map(str::to_owned));
                    let filter = QuarantineFilter {
                        venue,
                        code,
                        source,
                        state,
                        ..QuarantineFilter::default()
                    };
                    assert_eq!(ids(&*store, &filter, None, 100).await, expected, "{filter:?}");
                }
            }
        }
    }
}

async fn a_tenants_entries_are_bounded(store: Arc<dyn Quarantine>) {
    let many = |owner: &str, from: u32, to: u32| -> Vec<QuarantineEntry> {
        (from..to).map(|n| entry(&format!("{n:03}"), owner)).collect()
    };
    assert_eq!(store.add(many("acme", 0, 6), 10).await.unwrap(), 6);
    // Two are there, four more have room, the rest has not.
    assert_eq!(store.add(many("acme", 4, 20), 10).await.unwrap(), 6);
    let kept = ids(&*store, &QuarantineFilter::default(), None, 100).await;
    assert_eq!(kept, (0..10).rev().map(|n| format!("{n:03}")).collect::<Vec<_>>());
    assert_eq!(store.add(many("acme", 30, 31), 10).await.unwrap(), 0);
    // Another tenant's room is its own, in the same call too.
    let mixed = [many("acme", 40, 41), many("other", 0, 3)].concat();
    assert_eq!(store.add(mixed, 10).await.unwrap(), 3);
    assert_eq!(
        store.add(many("acme", 50, 51), 11).await.unwrap(),
        1,
        "a raised bound makes room"
    );
}

async fn an_entry_can_be_settled(store: Arc<dyn Quarantine>) {
    store
        .add(vec![entry("01", "acme"), entry("02", "acme")], NO_BOUND)
        .await
        .unwrap();
    // Dropped last: its bytes are gone then, and stay gone.
    let whole = entry("01", "acme").bytes;
    for (state, bytes) in [
        (QuarantineState::Replayed, whole.clone()),
        (QuarantineState::Open, whole),
        (QuarantineState::Dropped, vec![]),
        (QuarantineState::Open, vec![]),
    ] {
        store.set_state(&tenant("acme"), "01", state).await.unwrap();
        store.set_state(&tenant("acme"), "01", state).await.unwrap();
        let expected = QuarantineEntry {
            state,
            bytes,
            ..entry("01", "acme")
        };
        assert_eq!(store.get(&tenant("acme"), "01").await.unwrap(), Some(expected));
    }
    assert_eq!(
        store.get(&tenant("acme"), "02").await.unwrap(),
        Some(entry("02", "acme"))
    );
    assert_kind(
        store
            .set_state(&tenant("acme"), "03", QuarantineState::Open)
            .await,
        ErrorKind::NotFound,
    );
}

async fn no_tenant_sees_or_settles_anothers_entries(store: Arc<dyn Quarantine>) {
    // Ids are a tenant's own: the same one may be there twice.
    let mine = entry("01", "acme");
    let theirs = QuarantineEntry {
        message: "theirs".to_owned(),
        ..entry("01", "other")
    };
    store
        .add(vec![mine.clone(), entry("02", "acme")], NO_BOUND)
        .await
        .unwrap();
    assert_eq!(store.get(&tenant("other"), "01").await.unwrap(), None);
    assert_eq!(
        store
            .list(&tenant("other"), &QuarantineFilter::default(), None, 9)
            .await
            .unwrap(),
        []
    );
    assert_eq!(store.add(vec![theirs.clone()], NO_BOUND).await.unwrap(), 1);
    store
        .set_state(&tenant("other"), "01", QuarantineState::Dropped)
        .await
        .unwrap();
    assert_kind(
        store
            .set_state(&tenant("other"), "02", QuarantineState::Dropped)
            .await,
        ErrorKind::NotFound,
    );
    assert_eq!(store.get(&tenant("acme"), "01").await.unwrap(), Some(mine));
    let listed = store
        .list(&tenant("other"), &QuarantineFilter::default(), None, 9)
        .await
        .unwrap();
    assert_eq!(
        listed,
        [QuarantineEntry {
            state: QuarantineState::Dropped,
            bytes: vec![],
            ..theirs
        }]
    );
}

async fn erased_entries_are_gone_and_make_room(store: Arc<dyn Quarantine>) {
    let (acme, other) = (tenant("acme"), tenant("other"));
    let entries = ["01", "02", "03"].map(|id| entry(id, "acme")).to_vec();
    assert_eq!(store.add(entries, 3).await.unwrap(), 3);
    store.add(vec![entry("02", "other")], 3).await.unwrap();
    for _ in 0..2 {
        let ids = vec!["02".to_owned(), "there is none".to_owned()];
        store.erase(&acme, ids).await.unwrap();
        assert_eq!(store.get(&acme, "02").await.unwrap(), None);
        assert!(store.get(&acme, "01").await.unwrap().is_some());
        assert!(store.get(&other, "02").await.unwrap().is_some());
    }
    assert_eq!(
        store.add(vec![entry("04", "acme")], 3).await.unwrap(),
        1,
        "one has made room"
    );
    assert_eq!(
        store.add(vec![entry("05", "acme")], 3).await.unwrap(),
        0,
        "and one only"
    );
}

async fn filters_tell_sensor_receipt_and_time(store: Arc<dyn Quarantine>) {
    const HOUR: i64 = 3_600_000;
    let first_hour = DAY_START / HOUR;
    let mut entries = Vec::new();
    // An entry every 20 minutes of a day, from two sensors and none, of four receipts. Ids begin with the hour.
    for n in 0..72_i64 {
        let received_at = DAY_START + n * HOUR / 3;
        let hour = received_at / HOUR;
        // A repeated message keeps the hour before.
        let hour = if n % 10 == 3 {
            (hour - 1).max(first_hour)
        } else {
            hour
        };
        entries.push(QuarantineEntry {
            received_at,
            receipt: receipt(n as u128 % 4),
            sensor: [Some("s1"), Some("ü"), None][n as usize % 3].map(str::to_owned),
            ..entry(&format!("{hour:08x}-{n:03}"), "acme")
        });
    }
    store.add(entries.clone(), NO_BOUND).await.unwrap();
    entries.sort_by(|a, b| b.id.cmp(&a.id));
    for sensor in [None, Some("s1"), Some("ü"), Some("nobody")] {
        for of in [None, Some(receipt(1))] {
            for (from, until) in [
                (None, None),
                (Some(DAY_START + 5 * HOUR), None),
                (None, Some(DAY_START + 7 * HOUR)),
                (Some(DAY_START + 4 * HOUR + 1), Some(DAY_START + 6 * HOUR)),
                (Some(DAY_START + 30 * HOUR), None),
            ] {
                let expected: Vec<String> = entries
                    .iter()
                    .filter(|e| sensor.is_none() || e.sensor.as_deref() == sensor)
                    .filter(|e| of.is_none_or(|of| e.receipt == of))
                    .filter(|e| from.is_none_or(|from| e.received_at >= from))
                    .filter(|e| until.is_none_or(|until| e.received_at < until))
                    .map(|e| e.id.clone())
                    .collect();
                let filter = QuarantineFilter {
                    sensor: sensor.map(str::to_owned),
                    receipt: of,
                    from,
                    until,
                    ..QuarantineFilter::default()
                };
                assert_eq!(ids(&*store, &filter, None, 100).await, expected, "{filter:?}");
                if let Some(second) = expected.get(1) {
                    assert_eq!(
                        ids(&*store, &filter, Some(&expected[0]), 1).await,
                        std::slice::from_ref(second)
                    );
                }
            }
        }
    }
}

/// Bounds of entries: of a tenant, a source, a sensor; and the sample.
fn bounds(tenant: u64, source: u64, sensor: u64, sample_entries: u64) -> QuarantineBounds {
    let of = |entries| QuarantineSize {
        entries,
        bytes: u64::MAX,
    };
    QuarantineBounds {
        tenant: of(tenant),
        source: of(source),
        sensor: of(sensor),
        sample_entries,
    }
}

fn of_sensor(numbers: std::ops::Range<u32>, sensor: &str, code: &str) -> Vec<QuarantineEntry> {
    numbers
        .map(|n| QuarantineEntry {
            sensor: (!sensor.is_empty()).then(|| sensor.to_owned()),
            code: code.to_owned(),
            ..entry(&format!("{n:04}"), "acme")
        })
        .collect()
}

async fn a_mad_sensor_takes_no_more_than_its_own_room(store: Arc<dyn Quarantine>) {
    let bounds = bounds(40, 20, 10, 2);
    let keep = async |entries| {
        let added = store.keep(entries, &bounds).await.unwrap();
        (added.kept, added.left_out)
    };
    assert_eq!(keep(of_sensor(0..50, "mad", "a")).await, (10, [0, 0, 40]));
    // Sent again, what is there is there; the others are still too many.
    assert_eq!(keep(of_sensor(0..12, "mad", "a")).await, (10, [0, 0, 2]));
    // Others have their room, and what else goes wrong with the mad one can be looked at.
    assert_eq!(keep(of_sensor(100..108, "good", "a")).await, (8, [0, 0, 0]));
    assert_eq!(keep(of_sensor(200..205, "mad", "b")).await, (2, [0, 0, 3]));
    // The source is full: of a reason that it has enough of, nobody adds any more.
    assert_eq!(keep(of_sensor(300..303, "new", "a")).await, (0, [0, 3, 0]));
    assert_eq!(keep(of_sensor(310..313, "", "c")).await, (2, [0, 1, 0]));
    // Another venue, and another source, have theirs.
    let elsewhere = |entries: Vec<QuarantineEntry>, venue: Option<&str>, source: &str| -> Vec<_> {
        entries
            .into_iter()
            .map(|entry| QuarantineEntry {
                venue: venue.map(|id| VenueId::new(id).unwrap()),
                source: source.to_owned(),
                ..entry
            })
            .collect()
    };
    assert_eq!(
        keep(elsewhere(of_sensor(400..410, "mad", "a"), Some("kiosk"), "http")).await,
        (10, [0, 0, 0])
    );
    // Past the tenant's bound there is no sample either.
    assert_eq!(
        keep(elsewhere(of_sensor(500..512, "x", "z"), None, "f.csv")).await,
        (8, [4, 0, 0])
    );
    let acme = tenant("acme");
    let left_out = |venue: Option<&str>, source: &str, sensor: Option<&str>, code: &str, scope, entries| {
        QuarantineLeftOut {
            venue: venue.map(|id| VenueId::new(id).unwrap()),
            source: source.to_owned(),
            sensor: sensor.map(str::to_owned),
            code: code.to_owned(),
            scope,
            entries,
        }
    };
    let shop = Some("shop");
    let expected = [
        left_out(None, "f.csv", None, "z", QuarantineScope::Tenant, 4),
        left_out(shop, "http", None, "a", QuarantineScope::Source, 3),
        left_out(shop, "http", None, "c", QuarantineScope::Source, 1),
        left_out(shop, "http", Some("mad"), "a", QuarantineScope::Sensor, 42),
        left_out(shop, "http", Some("mad"), "b", QuarantineScope::Sensor, 3),
    ];
    assert_eq!(store.left_out(&acme, 100).await.unwrap(), expected);
    assert_eq!(store.left_out(&acme, 2).await.unwrap(), expected[..2]);
    assert_eq!(store.left_out(&tenant("other"), 100).await.unwrap(), []);
}

async fn bytes_are_bounded_as_entries_are(store: Arc<dyn Quarantine>) {
    let sized = |n: u32, bytes: usize| QuarantineEntry {
        bytes: vec![b'x'; bytes],
        ..entry(&format!("{n:04}"), "acme")
    };
    let mut bounds = bounds(100, 100, 100, 0);
    // Two entries of 1,000 bytes and what a row takes, and nearly a third.
    let two = sized(0, 1_000).size().bytes * 3 - 1;
    assert!(two > 3_000, "an entry counts for more than its bytes");
    bounds.sensor.bytes = two;
    let added = store
        .keep(vec![sized(0, 1_000), sized(1, 1_000), sized(2, 1_000)], &bounds)
        .await
        .unwrap();
    assert_eq!((added.kept, added.left_out), (2, [0, 0, 1]));
    let added = store.keep(vec![sized(3, 900)], &bounds).await.unwrap();
    assert_eq!(added.kept, 1, "a smaller one has room");
    bounds.tenant.bytes = two;
    let of_another = QuarantineEntry {
        sensor: Some("other".to_owned()),
        ..sized(4, 1_000)
    };
    let added = store.keep(vec![of_another], &bounds).await.unwrap();
    assert_eq!((added.kept, added.left_out), (0, [1, 0, 0]));
}

async fn settled_entries_make_room_and_dropped_ones_lose_their_bytes(store: Arc<dyn Quarantine>) {
    let acme = tenant("acme");
    let bounds = bounds(100, 100, 3, 0);
    let kept = async |entries| store.keep(entries, &bounds).await.unwrap().kept;
    assert_eq!(kept(of_sensor(0..5, "mad", "a")).await, 3);
    for (id, state) in [
        ("0000", QuarantineState::Dropped),
        ("0001", QuarantineState::Replayed),
    ] {
        store.set_state(&acme, id, state).await.unwrap();
        store.set_state(&acme, id, state).await.unwrap();
    }
    let bytes = async |id: &str| store.get(&acme, id).await.unwrap().unwrap().bytes.len();
    assert_eq!((bytes("0000").await, bytes("0001").await), (0, 5));
    assert_eq!(kept(of_sensor(10..15, "mad", "a")).await, 2, "two were settled");
    // Opened again it takes room again; what comes settled takes none.
    store
        .set_state(&acme, "0001", QuarantineState::Open)
        .await
        .unwrap();
    store.erase(&acme, vec!["0002".to_owned()]).await.unwrap();
    assert_eq!(kept(of_sensor(20..25, "mad", "a")).await, 0);
    let settled = of_sensor(30..35, "mad", "a")
        .into_iter()
        .map(|entry| QuarantineEntry {
            state: QuarantineState::Replayed,
            ..entry
        })
        .collect();
    assert_eq!(kept(settled).await, 5);
}
