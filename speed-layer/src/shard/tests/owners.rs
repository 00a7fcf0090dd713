//! Two processes that both believe that a shard is theirs.

use dwell_storage::api::LiveViewWriter;

use super::*;
use crate::handle::Handle;
use crate::testing::live_table::MemoryLiveTable;

/// A process of its own: what it shows goes to its handle, and through a queue to the table.
fn process(shop: &Shop) -> Handle {
    Handle::new(&shop.config, true)
}

/// Lets the table take everything that waits.
async fn show(handle: &Handle, table: &MemoryLiveTable, shop: &Shop) {
    let queue = handle.shared().table.as_ref().unwrap();
    queue
        .show_waiting(table as &dyn LiveViewWriter, shop.deps.clock.monotonic())
        .await;
}

#[tokio::test]
async fn a_paused_former_owner_that_wakes_is_neither_seen_nor_stored_and_stops() {
    let shop = Shop::open("Europe/Madrid", DAY, 12.0).await.split_log(2);
    let (paused, next, table) = (process(&shop), process(&shop), MemoryLiveTable::default());
    let number = shop.deps.log.shard_of(&shop.venue);
    let mut former = Shard::open(number, shop.context_of(&paused)).await.unwrap();
    shop.post(walker("t1", shop.now(), 5, 1.0)).await;
    shop.catch_up(&mut former).await;
    former.checkpoint().await.unwrap();
    show(&paused, &table, &shop).await;
    let before = table.row(&shop.venue).unwrap();
    assert!(before.occupancy.contains(&("_venue".to_owned(), 1)));

    // The first is paused here. The group gives the shard to the second, which goes on.
    shop.pass(60.0);
    let mut owner = Shard::open(number, shop.context_of(&next)).await.unwrap();
    shop.post(walker("t2", shop.now(), 1, 1.0)).await;
    shop.post(walker("t3", shop.now(), 1, 6.0)).await;
    shop.catch_up(&mut owner).await;
    owner.checkpoint().await.unwrap();
    show(&next, &table, &shop).await;
    let shown = table.row(&shop.venue).unwrap();
    assert!(shown.fence > before.fence);
    assert!(shown.occupancy.contains(&("_venue".to_owned(), 2)));

    // The first wakes, knows nothing of what happened, and does all that it would do.
    shop.pass(1.0);
    former.tick().unwrap();
    show(&paused, &table, &shop).await;
    assert_eq!(
        table.row(&shop.venue).unwrap(),
        shown,
        "readers see the owner's state"
    );
    while former.follow().await.unwrap() {}
    former.tick().unwrap();
    show(&paused, &table, &shop).await;
    assert_eq!(table.row(&shop.venue).unwrap(), shown);
    let upkeep = former.upkeep().await;
    assert!(
        matches!(upkeep, Err(Error::TakenOver { fence, .. }) if fence == before.fence),
        "{upkeep:?}"
    );
    former.withdraw();
    assert!(
        paused.shared().board.venue(&shop.venue).is_none(),
        "its own readers see nothing of it any more"
    );

    // The owner has noticed nothing.
    shop.post(walker("t4", shop.now(), 1, 1.0)).await;
    shop.catch_up(&mut owner).await;
    owner.checkpoint().await.unwrap();
    show(&next, &table, &shop).await;
    assert!(
        table
            .row(&shop.venue)
            .unwrap()
            .occupancy
            .contains(&("_venue".to_owned(), 3))
    );
    let days = &next.shared().board.venue(&shop.venue).unwrap().days;
    crate::testing::assert_same_rows(&days[0].rows, &shop.batch(DAY, Default::default()).await);
}

#[tokio::test]
async fn a_shard_has_only_its_own_venues() {
    let shop = Shop::open("Europe/Madrid", DAY, 12.0).await.split_log(2);
    let mine = shop.deps.log.shard_of(&shop.venue);
    let elsewhere = shop.put_venue_elsewhere().await;
    shop.append_for(&elsewhere, walker("t1", shop.now(), 1, 1.0))
        .await;
    shop.post(walker("t1", shop.now(), 1, 1.0)).await;
    let (one, other) = (process(&shop), process(&shop));
    let mut first = Shard::open(mine, shop.context_of(&one)).await.unwrap();
    let mut second = Shard::open(1 - mine, shop.context_of(&other)).await.unwrap();
    shop.catch_up(&mut first).await;
    shop.catch_up(&mut second).await;
    let shown = |handle: &Handle, venue| handle.shared().board.venue(venue).is_some();
    assert!(shown(&one, &shop.venue) && !shown(&one, &elsewhere));
    assert!(!shown(&other, &shop.venue) && shown(&other, &elsewhere));
}
