//! Copies that follow the feed across a recut.

use std::collections::BTreeMap;

use dwell_model::event::Delivery;
use dwell_model::ids::Receipt;
use dwell_model::metrics::AggregateRow;
use dwell_model::time::{HOUR_MS, LocalDay};
use dwell_storage::api::publications;

use super::common::events::visit;
use super::common::{Shop, day, deliver};
use super::{ALONE, calendar, expected, read, recut};

/// A copy of the venue's numbers, kept by following the feed as its page says. Buckets are named without their day.
async fn follow(shop: &Shop) -> BTreeMap<(i64, String), AggregateRow> {
    let name = |row: &AggregateRow| {
        (
            row.start,
            format!("{:?} {:?} {}", row.grain, row.family, row.subject),
        )
    };
    let documents = &*shop.stores.documents;
    let head = publications::head(documents, &shop.venue).await.unwrap();
    let entries = publications::list(documents, &shop.venue, &head, 0, 1_000)
        .await
        .unwrap();
    let mut copy: BTreeMap<(i64, String), (LocalDay, AggregateRow)> = BTreeMap::new();
    for entry in entries {
        let of = entry.day.to_string();
        let after = shop.rows_of(&of, entry.generation).await;
        match entry.before {
            Some(before) => {
                let names: Vec<_> = after.iter().map(name).collect();
                for gone in shop.rows_of(&of, before).await.iter().map(name) {
                    if !names.contains(&gone) {
                        copy.remove(&gone);
                    }
                }
            }
            None => copy.retain(|_, (day, _)| *day != entry.day),
        }
        copy.extend(after.into_iter().map(|row| (name(&row), (entry.day, row))));
    }
    copy.into_iter().map(|(name, (_, row))| (name, row)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_follows_the_feed_has_the_numbers_after_a_day_that_was_open() {
    let _alone = ALONE.lock().await;
    let newyork = calendar("America/New_York", 0);
    let shop = Shop::open().await;
    // At one in the morning of the 11th in Madrid it is eight in the evening of the 10th in New York.
    shop.clock.set_ms(shop.local("2026-03-11", 1.0));
    let posts = vec![
        visit("a", shop.local("2026-03-10", 12.0), 60),
        visit("b", shop.local("2026-03-11", 0.5), 60),
    ];
    let mut delivered = deliver(&shop, posts).await;
    shop.recompute().await;
    assert!(shop.published("2026-03-11").await.provisional);
    recut(&shop, "1", newyork).await;
    shop.clock.set_ms(newyork.bounds(day("2026-03-11")).0 + HOUR_MS);
    shop.recompute().await;
    let late = visit("c", shop.now() - HOUR_MS / 2, 60);
    let delivery = Delivery {
        received_at: shop.now(),
        receipt: Receipt::from_u128(3),
    };
    shop.post(late.clone(), 3).await;
    delivered.push((late, delivery));
    shop.clock.set_ms(newyork.bounds(day("2026-03-11")).1 + HOUR_MS);
    shop.recompute().await;
    let numbers = read(&shop).await.2;
    assert_eq!(numbers, expected(&delivered, &newyork));
    let copied: Vec<AggregateRow> = follow(&shop).await.into_values().collect();
    let mut published: Vec<AggregateRow> = numbers.into_values().flatten().collect();
    let order = |row: &AggregateRow| {
        (
            row.start,
            format!("{:?} {:?} {}", row.grain, row.family, row.subject),
        )
    };
    published.sort_by_key(order);
    assert_eq!(copied, published);
}
