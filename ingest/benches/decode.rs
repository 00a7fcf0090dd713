//! How fast bodies become columns: 1,000 positions per message, as gateways post them.
//!
//! `cargo bench -p dwell-ingest --bench decode`; the figure to look at is events per second on one core.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use std::fmt::Write;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dwell_ingest::decode::{Batches, DecodeRules, Decoder, Format, TimeRules, VenueVerdict};

const EVENTS: u64 = 1_000;
const NOW: i64 = 1_773_144_000_000;

/// Fields of event `n`: a shop with 60 people in it, four sensors, centimetres.
fn fields(n: u64) -> (u64, u64, i64, f64, f64) {
    let (x, y) = (
        (n * 7_919 % 4_000) as f64 / 100.0,
        (n * 104_729 % 2_500) as f64 / 100.0,
    );
    (n % 4, n * 31 % 60, NOW - 60_000 + n as i64 * 13, x, y)
}

fn object(n: u64) -> String {
    let (sensor, track, ts, x, y) = fields(n);
    format!(r#"{{"venue":"v001","sensor":"s{sensor}","track":"t{track:05}","ts":{ts},"x":{x},"y":{y}}}"#)
}

fn bodies() -> Vec<(Format, Vec<u8>)> {
    let objects: Vec<String> = (0..EVENTS).map(object).collect();
    let mut csv = String::from("venue,sensor,track,ts,x,y\n");
    for n in 0..EVENTS {
        let (sensor, track, ts, x, y) = fields(n);
        writeln!(csv, "v001,s{sensor},t{track:05},{ts},{x},{y}").unwrap();
    }
    vec![
        (Format::Ndjson, objects.join("\n").into_bytes()),
        (Format::Json, format!("[{}]", objects.join(",")).into_bytes()),
        (Format::Csv, csv.into_bytes()),
    ]
}

fn decode(c: &mut Criterion) {
    let rules = Arc::new(DecodeRules {
        times: Some(TimeRules::at(NOW)),
        ..DecodeRules::default()
    });
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Elements(EVENTS));
    for (format, body) in bodies() {
        group.bench_function(format.name(), |bencher| {
            bencher.iter(|| {
                let mut batches = Batches::new(Arc::clone(&rules), Arc::new(|_: &_| VenueVerdict::Known));
                Decoder::new(format, Arc::clone(&rules))
                    .decode(black_box(&body), true, &mut batches)
                    .unwrap();
                assert_eq!(batches.accepted(), EVENTS);
                batches.take()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
