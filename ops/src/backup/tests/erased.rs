//! Backups taken before and after an erasure.

use dwell_storage::api::SessionCursor;

use super::*;
use crate::erasing::tests as erased;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_after_an_erasure_holds_all_sessions_but_those_of_the_erased() {
    let ground = Ground::new().await;
    let world = ground.original().await;
    take(&world, &ground.place(), "b1").await;
    // As an erasure leaves a closed day: the published generation stays, and the visitor's sessions of it are gone.
    let of_day = day(DAYS[0]);
    let (generation, _, before) = world.numbers().await.remove(&of_day).unwrap();
    let track = before[0].session.subject.track.clone();
    let (theirs, others): (Vec<_>, Vec<_>) = before
        .into_iter()
        .partition(|stored| stored.session.subject.track == track);
    assert!(!others.is_empty());
    world.forget_track(&track, None, TsMs::MIN..NOW).await;
    let erased = theirs.into_iter().map(|stored| SessionCursor {
        start: stored.session.start,
        id: stored.id,
    });
    let sessions = &world.stores.sessions;
    sessions
        .erase(&world.venue, of_day, generation, erased.collect())
        .await
        .unwrap();

    // At the same place, after the backup that holds the visitor; and at a place where there is none.
    let uri = StoreUri::Folder(ground.path("fresh"));
    let fresh = BackupPlace::make(&uri, &RemoteArchiveConfig::default()).unwrap();
    for (name, place) in [("same", ground.place()), ("fresh", fresh)] {
        take(&world, &place, "b2").await;
        // Brought back where there is no ledger, it shows what it holds itself.
        let new = World::open(
            &ground.path(name).join("data"),
            &ground.path(name).join("archive"),
        )
        .await;
        restore(&new, &place).await;
        let (_, _, back) = new.numbers().await.remove(&of_day).unwrap();
        assert_eq!(back, others, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_from_before_an_erasure_of_one_sensor_brings_those_of_other_sensors_back() {
    let ground = Ground::new().await;
    let world = ground.empty().await;
    world.add_venue().await;
    erased::store(&world, &erased::two_of_a_name()).await;
    take(&world, &ground.place(), "b1").await;
    let entry = world.forget_track("t1", Some("s1"), TsMs::MIN..NOW).await;
    assert!(erased::carry_out(&world, &entry).await.is_clean());
    let expected = world.numbers().await;
    // All tables are lost; archive and ledger are not.
    let new = World::open(&ground.path("newer"), &ground.path("archive")).await;
    restore(&new, &ground.place()).await;
    let (with_visitor, without) = (day("2026-03-08"), day("2026-03-09"));
    let tracks = erased::shown(&new, with_visitor).await;
    assert_eq!(
        tracks.len(),
        1,
        "of the day with the visitor nobody knows: {tracks:?}"
    );
    assert_eq!(new.numbers().await[&without], expected[&without]);
    new.recompute().await;
    assert_eq!(new.numbers().await[&with_visitor].2, expected[&with_visitor].2);
}
