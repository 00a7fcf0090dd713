//! How long the fold of a venue-day takes per event: sessions, zone visits, hourly and daily rows.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test or benchmark may panic and print"
)]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use dwell_model::event::{EventBatch, sort_by_key};
use dwell_model::layout::VenueSpec;
use dwell_model::metrics::DayAccumulator;
use dwell_model::session::{FoldContext, fold_day};
use dwell_model::testing::walkers;

const VENUE: &str = r#"{"id":"v","tz":"Europe/Madrid","zones":[
    {"id":"entrance","polygon":[[0.5,0],[6.5,0],[6.5,4],[0.5,4]]},
    {"id":"aisle-1","polygon":[[1.5,6],[6.5,6],[6.5,12],[1.5,12]]},
    {"id":"aisle-2","polygon":[[7.5,6],[12.5,6],[12.5,12],[7.5,12]]},
    {"id":"aisle-3","polygon":[[13.5,6],[18.5,6],[18.5,12],[13.5,12]]},
    {"id":"aisle-4","polygon":[[1.5,13],[6.5,13],[6.5,19],[1.5,19]]},
    {"id":"promo","polygon":[[10.1,9.9],[12.4,8.7],[14.9,10.2],[13.2,12.8],[10.9,12.1]]}]}"#;

/// The day without slices, and with opening hours and staff.
fn fold(c: &mut Criterion) {
    fold_day_of(c, "venue_day", VENUE);
    let declared = r#""open":9,"close":21,"staff_tags":["e220a8397b1dcdaf"],"zones""#;
    fold_day_of(c, "venue_day_sliced", &VENUE.replacen(r#""zones""#, declared, 1));
}

fn fold_day_of(c: &mut Criterion, name: &str, venue: &str) {
    let spec: VenueSpec = serde_json::from_str(venue).expect("a venue");
    let venue = spec.to_venue(None).expect("a venue");
    let day = "2026-10-24".parse().expect("a day");
    let cut = venue.calendar.cut(day);
    let layout = venue.layout_on(day);
    let batch: EventBatch = walkers(250_000, cut.start, cut.end, 7);
    let rows = sort_by_key(&batch);
    let context = FoldContext::new(&cut, layout);

    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(batch.len() as u64));
    group.bench_function("sort", |b| b.iter(|| sort_by_key(&batch)));
    group.bench_function("fold", |b| {
        b.iter_batched(
            || DayAccumulator::new(&cut, layout),
            |mut day| {
                fold_day(&context, &batch, &rows, &mut day);
                day.observe_positions(&batch, Some(&rows));
                day
            },
            BatchSize::LargeInput,
        );
    });
    let mut day = DayAccumulator::new(&cut, layout);
    fold_day(&context, &batch, &rows, &mut day);
    println!("{name}: {} rows", day.rows().len());
    group.bench_function("rows", |b| b.iter(|| day.rows()));
    group.finish();
}

criterion_group!(benches, fold);
criterion_main!(benches);
