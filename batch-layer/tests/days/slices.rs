//! Slices in generations: when they are computed, and what a change of hours or staff restates.

use dwell_batch_layer::report::Outcome;
use dwell_batch_layer::spec::{RunSpec, What};
use dwell_model::layout::{Layout, OpenSpan, OpeningHours};
use dwell_model::metrics::{AggregateRow, Grain, Slice, Value};
use dwell_storage::api::Flip;

use crate::common::events::visit;
use crate::common::{Shop, assert_outcome, day, one_zone};

/// One zone, open every day from hour to hour, with one member of staff.
fn open(from: u16, to: u16) -> Layout {
    Layout {
        opening_hours: Some(OpeningHours::every_day(
            OpenSpan::new(from * 60, to * 60).unwrap(),
        )),
        staff_tags: vec!["clerk".to_owned()],
        ..one_zone(10_000)
    }
}

/// (visits, milliseconds) of the zone's day in a slice.
fn day_of(rows: &[AggregateRow], slice: Slice) -> Option<(u64, u64)> {
    let is_it =
        |row: &&AggregateRow| (row.grain, row.subject.as_str(), row.slice) == (Grain::Day, "square", slice);
    rows.iter().find(is_it).map(|row| match &row.value {
        Value::Zone(zone) => (zone.visits, zone.dwell_ms),
        other => panic!("not a zone: {other:?}"),
    })
}

async fn two_days() -> Shop {
    let shop = Shop::open().await;
    for (n, of) in ["2026-03-08", "2026-03-09"].into_iter().enumerate() {
        let from = n as u128 * 10;
        // A clerk before the opening, a customer after it, another across the closing at 20:00.
        shop.post(visit("clerk", shop.local(of, 8.5), 600), from + 1)
            .await;
        shop.post(visit("a", shop.local(of, 10.0), 60), from + 2).await;
        shop.post(visit("b", shop.local(of, 20.0) - 30_000, 90), from + 3)
            .await;
    }
    shop
}

#[tokio::test(flavor = "multi_thread")]
async fn hours_that_are_changed_in_the_past_restate_open_and_leave_all_as_it_was() {
    let shop = two_days().await;
    shop.put_layouts(vec![open(9, 20)]).await;
    assert_eq!(shop.recompute().await.computed, 2);
    let (first, second) = ("2026-03-08", "2026-03-09");
    let (before, rows) = (shop.published(second).await, shop.rows(second).await);
    assert_eq!(day_of(&rows, Slice::All), Some((3, 600_000 + 60_000 + 90_000)));
    assert_eq!(day_of(&rows, Slice::Open), Some((2, 60_000 + 30_000)));
    assert_eq!(day_of(&rows, Slice::Staff), Some((1, 600_000)));
    let hours = shop.local(second, 9.0)..shop.local(second, 20.0);
    let slices = before.slices.clone().unwrap();
    assert_eq!(
        (slices.open, slices.staff),
        (Some(vec![(hours.start, hours.end)]), true)
    );

    // Opening at eight, from the second day on.
    let mut earlier = open(8, 20);
    earlier.valid_from = Some(day(second));
    shop.put_layouts(vec![open(9, 20), earlier]).await;
    assert!(shop.is_dirty(second).await && !shop.is_dirty(first).await);
    let of_first = shop.published(first).await;
    assert_eq!(shop.recompute().await.computed, 1);
    assert_eq!(shop.published(first).await, of_first);
    let after = shop.rows(second).await;
    assert_eq!(day_of(&after, Slice::Open), Some((3, 600_000 + 60_000 + 30_000)));
    let of = |rows: &[AggregateRow], slice: Slice| -> Vec<AggregateRow> {
        rows.iter().filter(|row| row.slice == slice).cloned().collect()
    };
    for slice in [Slice::All, Slice::Staff] {
        assert_eq!(of(&after, slice), of(&rows, slice));
    }
    let info = shop.published(second).await;
    assert_eq!(info.reason, "layout changed");
    assert!(
        info.changed
            .is_some_and(|changed| changed.added > 0 && changed.removed == 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_hours_and_staff_there_is_nothing_but_all() {
    let shop = two_days().await;
    shop.recompute().await;
    let rows = shop.rows("2026-03-09").await;
    assert!(rows.iter().all(|row| row.slice == Slice::All) && !rows.is_empty());
    assert_eq!(
        shop.published("2026-03-09").await.slices,
        Some(Default::default())
    );
}

/// What an older version published: no other slices, and nothing said of them.
async fn publish_without_slices(shop: &Shop, of: &str) {
    let (published, mut rows) = (shop.published(of).await, shop.rows(of).await);
    let days = &shop.stores.venue_days;
    let lease = days
        .acquire(&shop.venue, day(of), "older", shop.now(), 60_000)
        .await
        .unwrap()
        .unwrap();
    rows.retain(|row| row.slice == Slice::All);
    let mut info = published.clone();
    (info.generation, info.rows, info.slices) = (lease.fence, rows.len() as u64, None);
    let aggregates = &shop.stores.aggregates;
    aggregates
        .write(&shop.venue, day(of), lease.fence, rows)
        .await
        .unwrap();
    let before = Some(published.generation);
    assert_eq!(days.publish(&lease, before, info).await.unwrap(), Flip::Done);
    days.release(&lease).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_from_before_slices_stays_until_its_day_is_asked_for() {
    let shop = two_days().await;
    let of = "2026-03-09";
    shop.put_layouts(vec![open(9, 20)]).await;
    shop.recompute().await;
    publish_without_slices(&shop, of).await;
    assert!(
        !shop.is_dirty(of).await,
        "an update of Dwell recomputes no history by itself"
    );
    let named = RunSpec {
        from: Some(day(of)),
        to: Some(day(of)),
        ..RunSpec::all_dirty(What::Recompute)
    };
    let report = shop.run(&named).await;
    assert_eq!(report.computed, 1, "{report:?}");
    assert_eq!(day_of(&shop.rows(of).await, Slice::Open), Some((2, 90_000)));
    assert_eq!(shop.published(of).await.reason, "first slices");
    assert_outcome(&shop.compute(&shop.layer, of).await, Outcome::Unchanged);

    // Where the layout declares nothing, there is nothing that it lacks.
    shop.put_layouts(vec![one_zone(10_000)]).await;
    shop.recompute().await;
    publish_without_slices(&shop, of).await;
    assert_outcome(&shop.compute(&shop.layer, of).await, Outcome::Unchanged);
}
