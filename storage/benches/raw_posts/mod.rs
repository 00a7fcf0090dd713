//! What the benchmarks of raw tables write: positions as the raw writer brings them, and what a call costs.
//!
//! A write has ten posts of different venues with 1,000 rows each, event times within a few seconds of each other, one
//! row in twenty delivered twice. CPU is that of all threads of this process, from the operating system's books (Linux;
//! elsewhere only wall time is shown).

use dwell_model::event::{Column, Delivery, EventBatch, Kind, NO_TEXT, RawRows};
use dwell_model::ids::{Receipt, TenantId, VenueId, VenueKey};
use dwell_model::time::slot_of;
use dwell_runtime::clock::Stopwatch;
use dwell_storage::api::{ConsumerPosition, Mark, MarkSource, RawWrite};

/// 2026-03-29T00:00:00Z.
pub(crate) const FIRST_TS: i64 = 1_774_742_400_000;
/// Venues that take turns.
pub(crate) const VENUES: usize = 20;
const TRACKS_AT_ONCE: u64 = 150;
/// Rows of a post.
pub(crate) const ROWS_PER_POST: usize = 1_000;
/// Posts of a write.
pub(crate) const POSTS_PER_WRITE: usize = 10;

/// Posts in arrival order.
pub(crate) struct Source {
    pub(crate) venues: Vec<VenueKey>,
    seed: u64,
    posts: u64,
    last: Vec<(VenueKey, EventBatch)>,
}

impl Source {
    pub(crate) fn new() -> Self {
        let venue = |n| {
            VenueKey::new(
                TenantId::new("acme").unwrap(),
                VenueId::new(&format!("v{n:03}")).unwrap(),
            )
        };
        Self {
            venues: (0..VENUES).map(venue).collect(),
            seed: 7,
            posts: 0,
            last: Vec::new(),
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % limit
    }

    pub(crate) fn write(&mut self, position: i64) -> RawWrite {
        let posts: Vec<(VenueKey, EventBatch)> = (0..POSTS_PER_WRITE)
            .map(|_| {
                let post = self.posts;
                self.posts += 1;
                let venue = self.venues[post as usize % VENUES].clone();
                // A post covers a second and a half of a venue's 700 positions a second.
                let ts = FIRST_TS + (post / VENUES as u64) as i64 * 1_500;
                let batch = self.post(ts, post / VENUES as u64);
                (venue, batch)
            })
            .collect();
        let write = delivered(&posts, position);
        self.last = posts;
        write
    }

    fn post(&mut self, first_ts: i64, step: u64) -> EventBatch {
        let mut batch = EventBatch::new(Kind::Position);
        let (mut xs, mut ys) = (Vec::new(), Vec::new());
        for row in 0..ROWS_PER_POST as u64 {
            if row % 20 == 19 {
                // A gateway that sends an event twice.
                let before = batch.ts.len() - 1;
                batch.ts.push(batch.ts[before]);
                batch.sensor.push(batch.sensor[before]);
                batch.key.push(batch.key[before]);
                xs.push(xs[before]);
                ys.push(ys[before]);
            } else {
                let track = step / 40 * TRACKS_AT_ONCE / 4 + self.below(TRACKS_AT_ONCE);
                let sensor = format!("cam-{:02}", track % 12);
                let (sensor, track) = (
                    batch.strings.intern(&sensor),
                    batch.strings.intern(&format!("t-{track:08x}")),
                );
                batch.ts.push(first_ts + self.below(3_500) as i64);
                batch.sensor.push(sensor);
                batch.key.push(track);
                xs.push(self.below(6_000) as f32 / 100.0);
                ys.push(self.below(4_000) as f32 / 100.0);
            }
            batch.revision.push(0);
        }
        batch.payload = vec![
            Column::F32(xs),
            Column::F32(ys),
            Column::Text(vec![NO_TEXT; ROWS_PER_POST]),
        ];
        batch.check().unwrap();
        batch
    }

    pub(crate) fn repeat_last(&self, position: i64) -> RawWrite {
        delivered(&self.last, position)
    }
}

fn delivered(posts: &[(VenueKey, EventBatch)], position: i64) -> RawWrite {
    let mut write = RawWrite::default();
    for (i, (venue, batch)) in posts.iter().enumerate() {
        let receipt = Receipt::derive(
            b"gateway",
            &[position.to_be_bytes(), (i as i64).to_be_bytes()].concat(),
        );
        let by = Delivery {
            received_at: FIRST_TS + position,
            receipt,
        };
        let mut slots: Vec<i64> = batch.ts.iter().map(|&ts| slot_of(ts)).collect();
        slots.dedup();
        let mark = |slot| Mark {
            venue: venue.clone(),
            slot,
            source: MarkSource::log(1, 0),
            position,
        };
        write.marks.extend(slots.into_iter().map(mark));
        write
            .rows
            .push((venue.clone(), RawRows::delivered_once(batch.clone(), by)));
    }
    write.position = Some(ConsumerPosition {
        consumer: "raw-writer",
        epoch: 1,
        partition: 0,
        position,
    });
    write
}

/// Time spent in some calls, everything around them left out.
#[derive(Default)]
pub(crate) struct Cost {
    wall_seconds: f64,
    slowest_seconds: f64,
    cpu_seconds: f64,
}

impl Cost {
    pub(crate) async fn of<T>(&mut self, call: impl Future<Output = T>) -> T {
        let (stopwatch, cpu) = (Stopwatch::start(), cpu_seconds());
        let outcome = call.await;
        let took = stopwatch.elapsed_seconds();
        self.wall_seconds += took;
        self.slowest_seconds = self.slowest_seconds.max(took);
        self.cpu_seconds += cpu_seconds() - cpu;
        outcome
    }

    pub(crate) fn report(&self, what: &str, rows: u64) {
        let per_row = |seconds: f64| seconds * 1e6 / rows as f64;
        let (wall, cpu) = (per_row(self.wall_seconds), per_row(self.cpu_seconds));
        let slowest_ms = self.slowest_seconds * 1e3;
        println!(
            "{what}: {rows} rows, {wall:.3} µs wall, {cpu:.3} µs CPU per row, slowest call {slowest_ms:.0} ms"
        );
    }
}

/// CPU time of all threads of this process.
fn cpu_seconds() -> f64 {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
        return 0.0;
    };
    let nanoseconds: u64 = tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .sum();
    nanoseconds as f64 / 1e9
}
