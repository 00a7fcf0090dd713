//! Made-up people on a made-up floor, as NDJSON: deterministic, with duplicates, disorder and two sensors.

use std::path::Path;

use crate::harness::{file, json};

/// One event as it is sent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) venue: &'static str,
    pub(crate) sensor: String,
    pub(crate) track: String,
    pub(crate) ts: i64,
    /// Centimetres, so that the text and the nearest float mean one value.
    pub(crate) x_cm: i32,
    pub(crate) y_cm: i32,
}

impl Event {
    pub(crate) fn ndjson(&self) -> String {
        let metres = |cm: i32| format!("{}.{:02}", cm / 100, cm % 100);
        format!(
            r#"{{"venue":"{}","sensor":"{}","track":"{}","ts":{},"x":{},"y":{}}}"#,
            self.venue,
            self.sensor,
            self.track,
            self.ts,
            metres(self.x_cm),
            metres(self.y_cm)
        )
    }
}

/// Lines of events.
pub(crate) fn ndjson(events: &[Event]) -> String {
    events.iter().map(|event| event.ndjson() + "\n").collect()
}

/// Numbers that look random and are always the same (xorshift).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// People walking in [from, to): clean events, each identity once.
pub(crate) fn walk(venue: &'static str, people: u64, from: i64, to: i64, seed: u64) -> Vec<Event> {
    let mut dice = Dice(seed | 1);
    let mut events = Vec::new();
    for person in 0..people {
        let mut ts = from + dice.below((to - from) as u64) as i64;
        let (mut x, mut y) = (dice.below(1_000) as i32, dice.below(800) as i32);
        for _ in 0..60 + dice.below(240) {
            // Mostly a second; now and then a gap around the session gap and the zone blink.
            ts += match dice.below(60) {
                0 => 30_000 + dice.below(2) as i64,
                1 => 5_000 + dice.below(2) as i64,
                2 => 40_000,
                _ => 900 + dice.below(200) as i64,
            };
            if ts >= to {
                break;
            }
            x = (x + dice.below(121) as i32 - 60).clamp(0, 1_000);
            y = (y + dice.below(121) as i32 - 60).clamp(0, 800);
            let sensor = if dice.below(40) == 0 { "s-b" } else { "s-a" };
            let track = format!("t{person}");
            events.push(Event {
                venue,
                sensor: sensor.into(),
                track: track.clone(),
                ts,
                x_cm: x,
                y_cm: y,
            });
            if dice.below(50) == 0 {
                events.push(Event {
                    venue,
                    sensor: "s-c".into(),
                    track,
                    ts,
                    x_cm: (x + 3).min(1_000),
                    y_cm: y,
                });
            }
        }
    }
    events
}

/// The order in which events arrive: shuffled within a window, a tenth delivered twice, some very late.
pub(crate) fn arrival(mut clean: Vec<Event>, seed: u64) -> Vec<Event> {
    let mut dice = Dice(seed | 1);
    clean.sort_by_key(|event| event.ts);
    let mut arriving: Vec<(i64, Event)> = Vec::new();
    for event in clean {
        let delay = match dice.below(100) {
            0 => 3_600_000 + dice.below(7_200_000) as i64,
            1..5 => dice.below(600_000) as i64,
            _ => dice.below(3_000) as i64,
        };
        if dice.below(10) == 0 {
            arriving.push((event.ts + delay + dice.below(120_000) as i64, event.clone()));
        }
        arriving.push((event.ts + delay, event));
    }
    arriving.sort_by_key(|(at, _)| *at);
    arriving.into_iter().map(|(_, event)| event).collect()
}

/// The floor of the tests, as `dwell venues apply` takes it: zones that touch, overlap and are no rectangles.
pub(crate) fn venues(tz: &str) -> String {
    format!(
        r#"[{{"id":"v1","tz":"{tz}","open":0,"close":24,"width":10,"height":8,"zones":[
            {{"id":"left","polygon":[[0,0],[5,0],[5,8],[0,8]]}},
            {{"id":"right","polygon":[[5,0],[10,0],[10,8],[5,8]]}},
            {{"id":"star","polygon":[[2.1,1.03],[7.4,1.5],[3.0,5.2],[5.1,0.4],[6.6,6.01]]}}
        ]}}]"#
    )
}

/// Makes a data folder, if it is missing, with the suite's venues in a time zone.
pub(crate) fn apply_venues(data_dir: &Path, tz: &str) {
    std::fs::create_dir_all(data_dir).expect("a folder");
    let venues_file = file(data_dir, "venues.json", &venues(tz));
    json(
        &["venues", "apply", venues_file.to_str().expect("a path")],
        data_dir,
    );
}

/// The same zones, for the oracle.
pub(crate) fn zones() -> Vec<(&'static str, Vec<(f64, f64)>)> {
    vec![
        ("left", vec![(0.0, 0.0), (5.0, 0.0), (5.0, 8.0), (0.0, 8.0)]),
        ("right", vec![(5.0, 0.0), (10.0, 0.0), (10.0, 8.0), (5.0, 8.0)]),
        (
            "star",
            vec![(2.1, 1.03), (7.4, 1.5), (3.0, 5.2), (5.1, 0.4), (6.6, 6.01)],
        ),
    ]
}
