//! The definitions of the design, written down row by row without any of Dwell's code, and the comparison with what
//! `dwell export` wrote.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, Int64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::harness::now_ms;
use crate::walkers::Event;

const HOUR: i64 = 3_600_000;

/// A row as text cells by column name.
pub(crate) type Row = BTreeMap<String, String>;

/// What a computation gives: each table's rows by key.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Tables {
    pub(crate) sessions: BTreeSet<(String, i64, i64, i64)>,
    /// (zone, hour) → visits, visitors, dwell_ms, p50, p90, engaged
    pub(crate) hourly: BTreeMap<(String, i64), ZoneNumbers>,
    pub(crate) daily: BTreeMap<(String, String), ZoneNumbers>,
}

#[derive(Debug, Default, PartialEq, Clone)]
pub(crate) struct ZoneNumbers {
    pub(crate) visits: i64,
    pub(crate) visitors: i64,
    pub(crate) dwell_ms: i64,
    pub(crate) p50: Option<i64>,
    pub(crate) p90: Option<i64>,
    pub(crate) engaged: i64,
}

/// How the test's days and hours are cut, given by hand: `(day, start, end)`, hours aligned to the UTC hour.
pub(crate) type Days = Vec<(&'static str, i64, i64)>;

#[derive(Default)]
struct Gathered {
    numbers: ZoneNumbers,
    tracks: BTreeSet<String>,
    dwells: Vec<i64>,
}

/// The UTC day so many days ago.
pub(crate) fn utc_day(days_ago: i64) -> Days {
    const DAY: i64 = 86_400_000;
    let start = now_ms() / DAY * DAY - days_ago * DAY;
    let name = chrono::DateTime::from_timestamp_millis(start)
        .expect("a time")
        .format("%Y-%m-%d")
        .to_string();
    vec![(Box::leak(name.into_boxed_str()), start, start + DAY)]
}

/// Computes the tables of one venue from clean events.
pub(crate) fn compute(events: &[Event], zones: &[(&str, Vec<(f64, f64)>)], days: &Days) -> Tables {
    let mut tables = Tables::default();
    let mut hourly: BTreeMap<(String, i64), Gathered> = BTreeMap::new();
    let mut daily: BTreeMap<(String, String), Gathered> = BTreeMap::new();
    for (day, start, end) in days {
        let mut by_track: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
        for event in events.iter().filter(|event| (*start..*end).contains(&event.ts)) {
            by_track.entry(&event.track).or_default().push(event);
        }
        for (track, mut of_track) in by_track {
            of_track.sort_by(|a, b| (a.ts, &a.sensor).cmp(&(b.ts, &b.sensor)));
            of_track.dedup_by(|a, b| a.ts == b.ts && a.sensor == b.sensor);
            let mut sessions: Vec<Vec<&Event>> = Vec::new();
            for event in of_track {
                match sessions.last_mut() {
                    Some(session) if event.ts - session[session.len() - 1].ts <= 30_000 => {
                        session.push(event)
                    }
                    _ => sessions.push(vec![event]),
                }
            }
            for session in sessions {
                let (first, last) = (session[0].ts, session[session.len() - 1].ts);
                tables
                    .sessions
                    .insert((track.to_owned(), first, last, session.len() as i64));
                let mut visits = vec![("_venue", first, last)];
                for (zone, polygon) in zones {
                    visits.extend(
                        zone_visits(&session, polygon)
                            .into_iter()
                            .map(|(a, b)| (*zone, a, b)),
                    );
                }
                for (zone, enter, exit) in visits {
                    let mut hour = enter - enter.rem_euclid(HOUR);
                    while hour <= exit {
                        let bucket = hourly.entry((zone.to_owned(), hour)).or_default();
                        gather(bucket, track, enter, exit, hour, hour + HOUR);
                        hour += HOUR;
                    }
                    let bucket = daily.entry((zone.to_owned(), (*day).to_owned())).or_default();
                    gather(bucket, track, enter, exit, *start, *end);
                }
            }
        }
    }
    tables.hourly = hourly
        .into_iter()
        .map(|(key, gathered)| (key, finish(gathered)))
        .collect();
    tables.daily = daily
        .into_iter()
        .map(|(key, gathered)| (key, finish(gathered)))
        .collect();
    tables
}

fn zone_visits(session: &[&Event], polygon: &[(f64, f64)]) -> Vec<(i64, i64)> {
    let mut runs: Vec<(i64, i64)> = Vec::new();
    let mut was_inside = false;
    for event in session {
        let metres = |cm: i32| f64::from((f64::from(cm) / 100.0) as f32);
        let is_inside = inside(polygon, metres(event.x_cm), metres(event.y_cm));
        match runs.last_mut() {
            Some(run) if is_inside && (was_inside || event.ts - run.1 <= 5_000) => run.1 = event.ts,
            _ if is_inside => runs.push((event.ts, event.ts)),
            _ => {}
        }
        was_inside = is_inside;
    }
    runs
}

fn inside(polygon: &[(f64, f64)], x: f64, y: f64) -> bool {
    let mut odd = false;
    for (i, &(ax, ay)) in polygon.iter().enumerate() {
        let (bx, by) = polygon[(i + 1) % polygon.len()];
        if (ay > y) != (by > y) && x < (bx - ax) * (y - ay) / (by - ay) + ax {
            odd = !odd;
        }
    }
    odd
}

fn gather(bucket: &mut Gathered, track: &str, enter: i64, exit: i64, start: i64, end: i64) {
    bucket.tracks.insert(track.to_owned());
    bucket.numbers.dwell_ms += (exit.min(end) - enter.max(start)).max(0);
    if (start..end).contains(&enter) {
        bucket.numbers.visits += 1;
        bucket.numbers.engaged += i64::from(exit - enter >= 10_000);
        bucket.dwells.push(exit - enter);
    }
}

fn finish(mut gathered: Gathered) -> ZoneNumbers {
    gathered.dwells.sort_unstable();
    let n = gathered.dwells.len();
    let rank = |percent: usize| (n > 0).then(|| gathered.dwells[(percent * n).div_ceil(100) - 1]);
    ZoneNumbers {
        visitors: gathered.tracks.len() as i64,
        p50: rank(50),
        p90: rank(90),
        ..gathered.numbers
    }
}

/// Reads what an export wrote.
pub(crate) fn exported(folder: &Path) -> Tables {
    let integer = |row: &Row, name: &str| row[name].parse::<i64>().expect("an integer");
    let zone_numbers = |row: &Row| ZoneNumbers {
        visits: integer(row, "visits"),
        visitors: integer(row, "visitors"),
        dwell_ms: integer(row, "dwell_ms"),
        p50: row.get("p50").map(|text| text.parse().expect("an integer")),
        p90: row.get("p90").map(|text| text.parse().expect("an integer")),
        engaged: integer(row, "engaged"),
    };
    let mut tables = Tables::default();
    for row in parquet(&folder.join("sessions.parquet")) {
        let session = (
            row["track"].clone(),
            integer(&row, "start"),
            integer(&row, "end"),
            integer(&row, "n"),
        );
        assert!(tables.sessions.insert(session), "a session stands twice: {row:?}");
    }
    for row in parquet(&folder.join("hourly.parquet")) {
        let key = (row["zone"].clone(), integer(&row, "hour"));
        assert!(
            tables.hourly.insert(key, zone_numbers(&row)).is_none(),
            "an hour stands twice: {row:?}"
        );
    }
    for row in parquet(&folder.join("daily.parquet")) {
        let key = (row["zone"].clone(), row["day"].clone());
        assert!(
            tables.daily.insert(key, zone_numbers(&row)).is_none(),
            "a day stands twice: {row:?}"
        );
    }
    tables
}

/// All rows of a Parquet file as text; absent values are left out.
pub(crate) fn parquet(path: &Path) -> Vec<Row> {
    let file = std::fs::File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .expect("Parquet")
        .build()
        .expect("a reader");
    let mut rows = Vec::new();
    for batch in reader {
        let batch = batch.expect("a batch");
        for i in 0..batch.num_rows() {
            let mut row = Row::new();
            for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
                if column.is_null(i) {
                    continue;
                }
                let text = if let Some(values) = column.as_primitive_opt::<Int64Type>() {
                    values.value(i).to_string()
                } else if let Some(values) = column.as_primitive_opt::<Float64Type>() {
                    values.value(i).to_string()
                } else if let Some(values) = column.as_string_opt::<i32>() {
                    values.value(i).to_owned()
                } else {
                    // Of the archive's columns only names and times are looked at.
                    continue;
                };
                row.insert(field.name().clone(), text);
            }
            rows.push(row);
        }
    }
    rows
}

/// Fails with the first few differences.
pub(crate) fn assert_equal(got: &Tables, expected: &Tables) {
    for session in got.sessions.symmetric_difference(&expected.sessions).take(5) {
        let side = if got.sessions.contains(session) {
            "extra"
        } else {
            "missing"
        };
        eprintln!("{side} session {session:?}");
    }
    for (key, numbers) in &expected.hourly {
        if got.hourly.get(key) != Some(numbers) {
            eprintln!(
                "hour {key:?}: expected {numbers:?}, got {:?}",
                got.hourly.get(key)
            );
        }
    }
    assert!(!expected.sessions.is_empty(), "nothing to compare");
    assert!(
        got == expected,
        "the export differs from the independent computation"
    );
}
