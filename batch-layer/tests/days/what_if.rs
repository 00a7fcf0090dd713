//! Looking at what a run would change, changing nothing.

use dwell_batch_layer::{Source, WhatIf};
use dwell_model::layout::Layout;
use dwell_model::metrics::Number;
use dwell_storage::api::GenerationChange;
use tokio_util::sync::CancellationToken;

use crate::common::events::visit;
use crate::common::{Shop, day, one_zone};

const DAY: &str = "2026-03-09";

#[tokio::test(flavor = "multi_thread")]
async fn a_look_at_late_events_or_another_layout_changes_nothing() {
    let shop = Shop::open().await;
    shop.post(visit("a", shop.local(DAY, 10.0), 60), 1).await;
    shop.recompute().await;
    // From the 10th on a visit of 90 s is engaged, until then one of 10 s.
    let next = Layout {
        valid_from: Some(day("2026-03-10")),
        ..one_zone(90_000)
    };
    shop.put_layouts(vec![one_zone(10_000), next]).await;
    let before = shop.published(DAY).await;
    let fence = async || {
        let row = shop.stores.venue_days.get(&shop.venue, day(DAY)).await;
        row.unwrap().unwrap().fence
    };
    let fence_before = fence().await;
    let look_at = async |layout_of: Option<&str>, source, buckets_max| {
        let what_if = WhatIf {
            layout_of: layout_of.map(day),
            source,
            buckets_max,
        };
        let cancel = CancellationToken::new();
        shop.layer
            .what_if(&shop.venue, day(DAY), what_if, &cancel)
            .await
            .unwrap()
    };
    let look = async |layout_of, buckets_max| look_at(layout_of, Source::Both, buckets_max).await;
    let same = look(None, 10).await;
    assert_eq!(
        (same.changed.clone(), same.buckets.len()),
        (GenerationChange::default(), 0)
    );
    assert_eq!(
        (same.events, same.sessions, same.published),
        (61, 1, Some(before.generation))
    );

    // With the later layout the visit of a minute is engaged in neither the hour nor the day.
    let other = look(Some("2026-03-10"), 10).await;
    assert_eq!(other.layout_valid_from, Some(day("2026-03-10")));
    let told: Vec<_> = other
        .buckets
        .iter()
        .map(|bucket| {
            let engaged = |numbers: &Option<_>| {
                let numbers: &std::collections::BTreeMap<&str, Number> = numbers.as_ref().unwrap();
                numbers["engaged"]
            };
            (
                bucket.grain,
                bucket.subject.as_str(),
                engaged(&bucket.before),
                engaged(&bucket.after),
            )
        })
        .collect();
    let (one, none) = (Number::Integer(1), Number::Integer(0));
    assert_eq!(
        told,
        [("hour", "square", one, none), ("day", "square", one, none)]
    );
    assert_eq!((other.changed.changed, other.buckets_unlisted), (2, 0));

    // A late visitor is seen before anything is archived or published.
    shop.post(visit("late", shop.local(DAY, 12.0), 5), 2).await;
    let late = look(None, 1).await;
    assert_eq!((late.events, late.sessions, late.buckets.len()), (67, 2, 1));
    assert!(late.buckets_unlisted > 0 && late.changed.added > 0, "{late:?}");
    // It lies in raw alone; the first visitor in both places.
    let seen = async |source| {
        let found = look_at(None, source, 1).await;
        (found.events, found.sessions)
    };
    assert_eq!(seen(Source::Raw).await, (67, 2));
    assert_eq!(seen(Source::Archive).await, (61, 1));
    assert_eq!(shop.published(DAY).await, before);
    assert_eq!(fence().await, fence_before, "no lease was taken");
    assert!(shop.is_dirty(DAY).await);
}
