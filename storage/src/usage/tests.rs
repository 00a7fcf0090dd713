use std::sync::Arc;
use std::time::Duration;

use dwell_model::ids::{TenantId, VenueId};
use dwell_model::time::{LocalDay, parse_ts};
use dwell_runtime::clock::ManualClock;

use super::*;
use crate::api::Documents;
use crate::backends::sqlite::SqliteStores;
use crate::paths::DataPaths;

struct World {
    clock: ManualClock,
    stores: SqliteStores,
    _folder: tempfile::TempDir,
}

impl World {
    async fn at(now: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::at_ms(parse_ts(now).unwrap());
        let stores = SqliteStores::open(&DataPaths::new(folder.path()), clock.shared())
            .await
            .unwrap();
        Self {
            clock,
            stores,
            _folder: folder,
        }
    }

    fn documents(&self) -> Arc<dyn Documents> {
        Arc::clone(&self.stores.documents) as _
    }

    fn process(&self, life: &str) -> (UsageCounter, UsageWriter) {
        let counter = UsageCounter::default();
        let writer = UsageWriter::new(counter.clone(), self.documents(), self.clock.shared(), life);
        (counter, writer)
    }

    /// Day, venue, module, source, amounts as four numbers.
    async fn usage(&self, from: &str, to: &str) -> Vec<(String, String, String, String, [u64; 4])> {
        let (from, to): (LocalDay, LocalDay) = (from.parse().unwrap(), to.parse().unwrap());
        let found = read(&*self.documents(), &tenant(), from, to, None).await.unwrap();
        let mut told = Vec::new();
        for day in found {
            let venue = day.venue.map_or("-".to_owned(), |venue| venue.to_string());
            for ((module, source), a) in day.by {
                let amounts = [a.requests, a.rows, a.taken, a.refused];
                told.push((day.day.to_string(), venue.clone(), module, source, amounts));
            }
        }
        told
    }
}

fn tenant() -> TenantId {
    TenantId::new("acme").unwrap()
}

fn row(
    day: &str,
    venue: &str,
    module: &str,
    source: &str,
    amounts: [u64; 4],
) -> (String, String, String, String, [u64; 4]) {
    let own = str::to_owned;
    (own(day), own(venue), own(module), own(source), amounts)
}

#[test]
fn a_path_says_which_part_of_the_api_and_which_venue() {
    for (path, module, venue) in [
        ("/v1/venues/v1/metrics", "metrics", Some("v1")),
        ("/v1/venues/v1/sessions/2026-1", "sessions", Some("v1")),
        ("/v1/venues/v1", "venues", Some("v1")),
        ("/v1/venues", "venues", None),
        ("/v1/query", "query", None),
        ("/v1/quarantine/1/drop", "quarantine", None),
        ("/v1/nonsense/metrics", "other", None),
        ("/", "other", None),
    ] {
        let found = (module_of(path), venue_in(path));
        let expected = venue.map(|id| VenueId::new(id).unwrap());
        assert_eq!(found, (module, expected), "{path}");
    }
}

#[test]
fn threads_count_together_and_a_full_table_leaves_out_rather_than_mixes_up() {
    let counter = UsageCounter::with_places(4);
    let venues: Vec<VenueId> = (0..4).map(|n| VenueId::new(&format!("v{n}")).unwrap()).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 0..1_000 {
                    let venue = &venues[n % 4];
                    counter.count(&tenant(), Some(venue), "metrics", "", Amounts::request(2));
                }
            });
        }
    });
    let none = VenueId::new("one-too-many").unwrap();
    counter.count(&tenant(), Some(&none), "metrics", "", Amounts::request(1));
    let mut counted = counter.counted();
    counted.sort_by(|a, b| a.venue.cmp(&b.venue));
    assert_eq!(counted.len(), 4);
    for (counted, venue) in counted.iter().zip(&venues) {
        assert_eq!(counted.venue.as_ref(), Some(venue));
        assert_eq!((counted.amounts.requests, counted.amounts.rows), (1_000, 2_000));
    }
}

#[tokio::test]
async fn two_processes_add_up_and_a_repeated_write_counts_once() {
    let world = World::at("2026-11-20T12:00:00Z").await;
    let venue = VenueId::new("shop").unwrap();
    let (first, mut first_writer) = world.process("one");
    let (second, mut second_writer) = world.process("two");
    first.count(&tenant(), Some(&venue), "metrics", "", Amounts::request(10));
    second.count(&tenant(), Some(&venue), "metrics", "", Amounts::request(5));
    second.count(&tenant(), None, "events", "http", Amounts::events(100, 3));
    for _ in 0..2 {
        first_writer.write().await.unwrap();
        second_writer.write().await.unwrap();
    }
    first.count(&tenant(), Some(&venue), "metrics", "", Amounts::request(1));
    first_writer.write().await.unwrap();
    let day = "2026-11-20";
    let expected = [
        row(day, "-", "events", "http", [0, 0, 100, 3]),
        row(day, "shop", "metrics", "", [3, 16, 0, 0]),
    ];
    assert_eq!(world.usage(day, day).await, expected);
    assert_eq!(world.usage("2026-11-21", "2026-11-30").await, []);

    // The same process started anew is another life: it begins at nothing, and nothing is forgotten.
    let (again, mut writer) = world.process("three");
    again.count(&tenant(), Some(&venue), "metrics", "", Amounts::request(0));
    writer.write().await.unwrap();
    assert_eq!(world.usage(day, day).await[1].4, [4, 16, 0, 0]);
}

#[tokio::test]
async fn a_day_ends_at_midnight_and_old_days_are_folded_without_a_change() {
    let world = World::at("2026-11-29T23:59:30Z").await;
    let (counter, mut writer) = world.process("long");
    let count = |rows| counter.count(&tenant(), None, "query", "", Amounts::request(rows));
    count(1);
    writer.write().await.unwrap();
    // Sixty short lives in one day: their entries are folded once they are silent.
    for n in 0..60 {
        let (short, mut writer) = world.process(&format!("short-{n}"));
        short.count(&tenant(), None, "query", "", Amounts::request(0));
        writer.write().await.unwrap();
    }
    world.clock.advance(Duration::from_secs(60));
    count(2);
    writer.write().await.unwrap();
    let days = ["2026-11-29", "2026-11-30", "2026-12-01", "2026-12-02"];
    assert_eq!(
        world.usage(days[0], days[3]).await,
        [
            row(days[0], "-", "query", "", [61, 1, 0, 0]),
            row(days[1], "-", "query", "", [1, 2, 0, 0]),
        ]
    );
    for rows in [4, 8] {
        world.clock.advance(Duration::from_secs(86_400));
        count(rows);
        writer.write().await.unwrap();
    }
    let expected = [
        row(days[0], "-", "query", "", [61, 1, 0, 0]),
        row(days[1], "-", "query", "", [1, 2, 0, 0]),
        row(days[2], "-", "query", "", [1, 4, 0, 0]),
        row(days[3], "-", "query", "", [1, 8, 0, 0]),
    ];
    assert_eq!(world.usage(days[0], days[3]).await, expected);
    // However many processes there were, the document stays small.
    let november = world
        .documents()
        .get(&tenant(), "usage-2026-11", "-")
        .await
        .unwrap()
        .unwrap();
    let text = november.body.to_string();
    assert!(text.len() < 20_000, "{} bytes", text.len());
}

#[tokio::test]
async fn a_process_whose_entry_was_folded_goes_on_without_counting_twice() {
    let world = World::at("2026-11-20T01:00:00Z").await;
    let (sleeper, mut writer) = world.process("sleeper");
    let count = |rows| sleeper.count(&tenant(), None, "query", "", Amounts::request(rows));
    count(1);
    writer.write().await.unwrap();
    // It sleeps for hours; so many others come and go that its entry is folded.
    world.clock.advance(Duration::from_secs(4 * 3_600));
    for n in 0..60 {
        let (short, mut writer) = world.process(&format!("short-{n}"));
        short.count(&tenant(), None, "query", "", Amounts::request(0));
        writer.write().await.unwrap();
    }
    let stored = world
        .documents()
        .get(&tenant(), "usage-2026-11", "-")
        .await
        .unwrap()
        .unwrap();
    assert!(!stored.body.to_string().contains("sleeper"), "folded");
    for rows in [2, 4] {
        count(rows);
        writer.write().await.unwrap();
    }
    let day = "2026-11-20";
    assert_eq!(
        world.usage(day, day).await,
        [row(day, "-", "query", "", [63, 7, 0, 0])]
    );
}
