use dwell_model::event::Column;
use dwell_model::time::parse_ts;
use dwell_storage::api::Registry;

use super::*;
use crate::testing::{NOW, World, key, tenant, venue};
use crate::venues::VenueDirectory;

const LATE_MS: i64 = 3 * DAY_MS;

/// Presence of `(device, ts)`s at sensor `s`.
fn presence(rows: &[(&str, TsMs)]) -> VenueBatch {
    let mut events = EventBatch::new(Kind::Presence);
    for &(device, ts) in rows {
        let (sensor, device) = (events.strings.intern("s"), events.strings.intern(device));
        events.ts.push(ts);
        events.sensor.push(sensor);
        events.key.push(device);
        events.revision.push(0);
    }
    let rssi = (0..rows.len() as i64).map(|row| -row).collect();
    let xs: Vec<f32> = (0..rows.len()).map(|row| row as f32).collect();
    events.payload = vec![Column::I64(rssi), Column::F32(xs.clone()), Column::F32(xs)];
    events.check().unwrap();
    let places = (0..rows.len() as u64)
        .map(|index| Place {
            index,
            ..Place::default()
        })
        .collect();
    VenueBatch {
        venue: venue("v1"),
        events,
        places,
    }
}

async fn venues(world: &World) -> Arc<TenantVenues> {
    let registry: Arc<dyn Registry> = Arc::clone(&world.stores.registry) as _;
    VenueDirectory::new(registry, world.clock.shared(), 10)
        .venues(&tenant())
        .await
        .unwrap()
}

fn pseudonymiser(world: &World) -> Pseudonymiser {
    Pseudonymiser::new(
        Arc::clone(&world.stores.pseudonym_keys) as _,
        world.clock.shared(),
        LATE_MS,
        100,
    )
}

/// The pseudonyms of rows, and the numbers of the refused ones.
async fn apply(
    world: &World,
    with: &Pseudonymiser,
    road: Road,
    rows: &[(&str, TsMs)],
) -> (Vec<String>, Vec<u64>) {
    let mut batches = vec![presence(rows)];
    let refused = with
        .apply(&tenant(), &*venues(world).await, &mut batches, road)
        .await
        .unwrap();
    assert!(
        refused
            .iter()
            .all(|refusal| refusal.code == Code::PresenceKeyDestroyed)
    );
    let taken = batches.first().map(|batch| &batch.events);
    if let Some(events) = taken {
        events.check().unwrap();
        assert!(
            events
                .strings
                .iter()
                .all(|text| text == "s" || is_pseudonym(text)),
            "{:?}",
            events.strings
        );
    }
    let pseudonyms = taken.map_or(Vec::new(), |events| {
        (0..events.len()).map(|row| events.key(row).to_owned()).collect()
    });
    (
        pseudonyms,
        refused.iter().map(|refusal| refusal.place.index).collect(),
    )
}

#[tokio::test]
async fn a_device_is_one_pseudonym_within_a_venues_day_and_another_in_the_next() {
    let world = World::new().await;
    // Midnight in Madrid is 23:00 UTC.
    let midnight = parse_ts("2026-03-09T23:00:00Z").unwrap();
    let rows = [
        ("AA:BB:CC:DD:EE:FF", midnight),
        ("aabbccddeeff", NOW),
        ("AA:BB:CC:DD:EE:FF", midnight - 1),
        ("other", NOW),
    ];
    let (pseudonyms, refused) = apply(&world, &pseudonymiser(&world), Road::Gateway, &rows).await;
    assert_eq!(refused, [0_u64; 0]);
    assert_eq!(pseudonyms[0], pseudonyms[1]);
    assert_ne!(pseudonyms[0], pseudonyms[2]);
    assert_ne!(pseudonyms[0], pseudonyms[3]);
    // Another process makes the same ones.
    let (again, _) = apply(&world, &pseudonymiser(&world), Road::Gateway, &rows).await;
    assert_eq!(again, pseudonyms);
    let calendar = venues(&world).await.calendar(&venue("v1")).unwrap();
    let other_venue = pseudonymiser(&world)
        .pseudonym(&key("v2"), calendar, "aabbccddeeff", NOW, Road::Gateway)
        .await
        .unwrap();
    assert_ne!(other_venue.as_ref(), Some(&pseudonyms[0]));
}

#[tokio::test]
async fn the_rest_of_an_event_stays_with_it() {
    let world = World::new().await;
    let too_late = NOW - 10 * DAY_MS;
    let mut batches = vec![presence(&[("a", NOW), ("b", too_late), ("c", NOW - 5)])];
    let known = venues(&world).await;
    let refused = pseudonymiser(&world)
        .apply(&tenant(), &known, &mut batches, Road::Gateway)
        .await
        .unwrap();
    assert_eq!(
        refused
            .iter()
            .map(|refusal| refusal.place.index)
            .collect::<Vec<_>>(),
        [1]
    );
    let batch = &batches[0];
    assert_eq!(
        (
            batch.events.ts.clone(),
            batch.events.i64s(0),
            batch.events.f32s(1)
        ),
        (vec![NOW, NOW - 5], &[0, -2][..], &[0.0, 2.0][..])
    );
    assert_eq!(
        batch.places.iter().map(|place| place.index).collect::<Vec<_>>(),
        [0, 2]
    );
}

#[tokio::test]
async fn presence_is_taken_until_a_day_is_too_long_past() {
    let world = World::new().await;
    let with = pseudonymiser(&world);
    // The day of the event ends at 23:00 UTC, so it may come until three days later, and not a moment longer.
    let ts = parse_ts("2026-03-10T08:00:00Z").unwrap();
    let closes = parse_ts("2026-03-13T23:00:00Z").unwrap();
    world.clock.set_ms(closes - 1);
    assert_eq!(
        apply(&world, &with, Road::Gateway, &[("a", ts)]).await.1,
        [0_u64; 0]
    );
    world.clock.set_ms(closes);
    assert_eq!(apply(&world, &with, Road::Gateway, &[("a", ts)]).await.1, [0]);
}

#[tokio::test]
async fn history_keeps_its_key_until_it_was_brought_long_ago_and_then_is_refused_for_ever() {
    let world = World::new().await;
    let ts = NOW - 400 * DAY_MS;
    let (first, refused) = apply(&world, &pseudonymiser(&world), Road::Import, &[("a", ts)]).await;
    assert_eq!(refused, [0_u64; 0]);
    world.clock.set_ms(NOW + 2 * DAY_MS);
    assert_eq!(
        world
            .stores
            .pseudonym_keys
            .destroy_expired(NOW + 2 * DAY_MS)
            .await
            .unwrap(),
        0
    );
    let (second, _) = apply(&world, &pseudonymiser(&world), Road::Import, &[("a", ts)]).await;
    assert_eq!(first, second);
    // The second import has prolonged the key's life.
    assert_eq!(
        world
            .stores
            .pseudonym_keys
            .destroy_expired(NOW + 4 * DAY_MS)
            .await
            .unwrap(),
        0
    );
    assert_eq!(
        world
            .stores
            .pseudonym_keys
            .destroy_expired(NOW + 6 * DAY_MS)
            .await
            .unwrap(),
        1
    );
    world.clock.set_ms(NOW + 6 * DAY_MS);
    assert_eq!(
        apply(&world, &pseudonymiser(&world), Road::Import, &[("a", ts)])
            .await
            .1,
        [0]
    );
}

#[tokio::test]
async fn pseudonyms_from_the_quarantine_are_not_made_pseudonyms_of_again() {
    let world = World::new().await;
    let with = pseudonymiser(&world);
    let (first, _) = apply(&world, &with, Road::Gateway, &[("a", NOW)]).await;
    let mut batches = vec![presence(&[(&first[0], NOW), ("b", NOW)])];
    let known = venues(&world).await;
    assert_eq!(
        with.apply_again(&tenant(), &known, &mut batches).await.unwrap(),
        []
    );
    assert_eq!(batches[0].events.key(0), first[0]);
    assert!(is_pseudonym(batches[0].events.key(1)));
    // A gateway cannot pass one off as its own.
    let (from_gateway, _) = apply(&world, &with, Road::Gateway, &[(&first[0], NOW)]).await;
    assert_ne!(from_gateway[0], first[0]);
}
