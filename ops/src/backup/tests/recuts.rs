use dwell_model::time::VenueCalendar;
use dwell_storage::api::recuts::{self, Wish};

use super::*;

/// A recut of the world's venue that is decided and not published.
async fn decided(world: &World, job: &str) -> u64 {
    let documents = world.stores.documents.as_ref();
    let wish = Wish {
        job: job.to_owned(),
        from: VenueCalendar::from_names("Etc/UTC", 0).unwrap(),
        to: VenueCalendar::from_names("Europe/Madrid", 0).unwrap(),
        by: "operator".to_owned(),
        at: NOW,
    };
    recuts::ask(documents, &world.venue, &wish).await.unwrap();
    let asked = recuts::load(documents, &world.venue).await.unwrap().unwrap();
    let number = asked.value.number;
    recuts::begin_staging(documents, &world.venue, number, "holder", NOW, NOW + 60_000)
        .await
        .unwrap();
    let days = [(day(DAYS[0]), 9)];
    let decided = recuts::decide(documents, &world.venue, number, "holder", NOW, &days).await;
    assert!(decided.unwrap().unwrap().is_decided());
    number
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_waits_for_what_is_being_published_and_not_for_ever() {
    let ground = Ground::new().await;
    let (world, place) = (ground.original().await, ground.place());
    let number = decided(&world, "recut-1").await;
    let passing = async |seconds: u32| {
        for _ in 0..seconds {
            while world.clock.sleepers() == 0 {
                tokio::task::yield_now().await;
            }
            world.clock.advance(Duration::from_secs(1));
        }
    };
    let publishing = async {
        passing(3).await;
        let documents = world.stores.documents.as_ref();
        recuts::finish(documents, &world.venue, number).await.unwrap();
        passing(1).await;
    };
    let (taken, ()) = tokio::join!(take(&world, &place, "a"), publishing);
    assert_eq!(taken.taken_at, NOW + 4_000, "it shows the moment after");
    let empty = ground.empty().await;
    restore(&empty, &place).await;
    let restored = recuts::load(empty.stores.documents.as_ref(), &world.venue)
        .await
        .unwrap();
    assert!(!restored.unwrap().value.is_pending());

    decided(&world, "recut-2").await;
    let (taken, ()) = tokio::join!(take(&world, &place, "b"), passing(60));
    assert_eq!(taken.taken_at, NOW + 64_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_during_which_days_are_cut_anew_is_begun_anew() {
    let ground = Ground::new().await;
    let (world, place) = (ground.original().await, ground.place());
    let documents = world.stores.documents.as_ref();
    let taken = with_side(&world, &world.archive, &place, "job", async |side| {
        let cuts = taking::moment::settled(side, world.tenant()).await.unwrap();
        taking::moment::check_unchanged(side, world.tenant(), &cuts)
            .await
            .unwrap();
        let number = decided(&world, "recut-1").await;
        let half = taking::moment::check_unchanged(side, world.tenant(), &cuts).await;
        recuts::finish(documents, &world.venue, number).await.unwrap();
        let whole = taking::moment::check_unchanged(side, world.tenant(), &cuts).await;
        [half, whole]
    });
    for refused in taken.await {
        let error = refused.unwrap_err();
        let of_store = error
            .downcast_ref::<dwell_storage::error::StorageError>()
            .unwrap();
        assert!(of_store.kind().is_retryable(), "{error}");
    }
}
