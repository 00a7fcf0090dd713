//! What [`Registry`] promises.

use std::sync::Arc;

use dwell_model::ids::{VenueId, VenueKey};
use dwell_model::layout::{FoldRules, Layout, Line, LineRole, Sensor, TrackScope, Venue};
use dwell_model::time::VenueCalendar;

use super::samples::{DAY_START, day, tenant};
use super::{assert_kind, run_cases};
use crate::api::{AccessKey, Flip, Registry, Role, StoredVenue};
use crate::error::ErrorKind;

/// Runs all cases, each on a fresh store that `make` gives.
pub async fn suite<M, F>(make: M)
where
    M: Fn() -> F,
    F: Future<Output = Arc<dyn Registry>>,
{
    run_cases!(
        "registry",
        make,
        [
            tenants_are_made_once,
            a_venue_comes_back_as_it_was,
            storing_a_venue_needs_the_version_read_before,
            of_two_who_change_a_venue_one_wins,
            venues_are_listed_by_id,
            keys_are_found_by_their_id,
            a_key_is_taken_back_once_and_by_its_tenant_only,
            the_version_changes_with_every_change_and_with_nothing_else,
            no_tenant_sees_anothers_venues_or_keys,
        ]
    );
}

fn venue(id: &str, name: &str) -> Venue {
    let dated = Layout {
        valid_from: Some(day("2026-03-29")),
        width_m: Some(12.5),
        height_m: Some(0.1),
        lines: vec![Line {
            id: "door".into(),
            name: None,
            role: LineRole::Entrance,
        }],
        sensors: vec![Sensor {
            id: "Süd 2".into(),
            name: Some("n".into()),
            track_scope: TrackScope::Sensor,
            interval_ms: Some(100),
            counter_wrap: Some(i64::MAX),
        }],
        staff_tags: vec!["staff-1".into()],
        rules: FoldRules {
            session_gap_ms: 45_000,
            ..FoldRules::default()
        },
        ..Layout::empty()
    };
    Venue {
        id: VenueId::new(id).unwrap(),
        name: Some(name.to_owned()),
        calendar: VenueCalendar::from_names("Australia/Lord_Howe", 5).unwrap(),
        tags: vec!["city".into(), "a \"quoted\" tag".into()],
        layouts: vec![Layout::empty(), dated],
    }
}

fn key_of(owner: &str, id: &str) -> VenueKey {
    super::samples::venue(owner, id)
}

fn access_key(id: &str, owner: &str) -> AccessKey {
    AccessKey {
        id: id.to_owned(),
        hash: "ab".repeat(32),
        tenant: tenant(owner),
        role: Role::Gateway,
        venues: Some(vec![VenueId::new("shop").unwrap()]),
        name: Some("Gate \u{1f6d2}".to_owned()),
        created_at: DAY_START,
        revoked_at: None,
    }
}

async fn tenants_are_made_once(store: Arc<dyn Registry>) {
    assert_eq!(store.tenants().await.unwrap(), []);
    for id in ["b", "a", "b", "B"] {
        store.create_tenant(&tenant(id)).await.unwrap();
    }
    let mut tenants = store.tenants().await.unwrap();
    tenants.sort();
    assert_eq!(tenants, [tenant("B"), tenant("a"), tenant("b")]);
}

async fn a_venue_comes_back_as_it_was(store: Arc<dyn Registry>) {
    let acme = tenant("acme");
    assert_eq!(store.venue(&key_of("acme", "shop")).await.unwrap(), None);
    assert_eq!(
        store.put_venue(&acme, &venue("shop", "one"), None).await.unwrap(),
        Flip::Done
    );
    let stored = store.venue(&key_of("acme", "shop")).await.unwrap().unwrap();
    assert_eq!(stored.venue, venue("shop", "one"));
}

async fn storing_a_venue_needs_the_version_read_before(store: Arc<dyn Registry>) {
    let (acme, key) = (tenant("acme"), key_of("acme", "shop"));
    assert_eq!(
        store
            .put_venue(&acme, &venue("shop", "x"), Some(1))
            .await
            .unwrap(),
        Flip::Lost,
        "there is none"
    );
    assert_eq!(store.venue(&key).await.unwrap(), None);
    assert_eq!(
        store.put_venue(&acme, &venue("shop", "one"), None).await.unwrap(),
        Flip::Done
    );
    let one = store.venue(&key).await.unwrap().unwrap();
    assert_eq!(
        store.put_venue(&acme, &venue("shop", "x"), None).await.unwrap(),
        Flip::Lost,
        "there is one"
    );
    assert_eq!(
        store
            .put_venue(&acme, &venue("shop", "two"), Some(one.version))
            .await
            .unwrap(),
        Flip::Done
    );
    let two = store.venue(&key).await.unwrap().unwrap();
    assert!(two.version > one.version);
    assert_eq!(
        store
            .put_venue(&acme, &venue("shop", "x"), Some(one.version))
            .await
            .unwrap(),
        Flip::Lost
    );
    assert_eq!(
        store
            .put_venue(&acme, &venue("shop", "x"), Some(two.version + 1))
            .await
            .unwrap(),
        Flip::Lost
    );
    assert_eq!(
        store.venue(&key).await.unwrap().unwrap(),
        StoredVenue {
            venue: venue("shop", "two"),
            ..two
        }
    );
}

async fn of_two_who_change_a_venue_one_wins(store: Arc<dyn Registry>) {
    let acme = tenant("acme");
    let (a, b) = (venue("shop", "a"), venue("shop", "b"));
    let (first, second) = futures::join!(store.put_venue(&acme, &a, None), store.put_venue(&acme, &b, None));
    let outcomes = (first.unwrap(), second.unwrap());
    let name = store
        .venue(&key_of("acme", "shop"))
        .await
        .unwrap()
        .unwrap()
        .venue
        .name;
    match outcomes {
        (Flip::Done, Flip::Lost) => assert_eq!(name.as_deref(), Some("a")),
        (Flip::Lost, Flip::Done) => assert_eq!(name.as_deref(), Some("b")),
        other => panic!("one of them must win: {other:?}"),
    }
}

async fn venues_are_listed_by_id(store: Arc<dyn Registry>) {
    assert_eq!(store.venues(&tenant("acme")).await.unwrap(), []);
    for id in ["shop-2", "shop-10", "Shop", "a"] {
        assert_eq!(
            store
                .put_venue(&tenant("acme"), &venue(id, id), None)
                .await
                .unwrap(),
            Flip::Done
        );
    }
    let listed = store.venues(&tenant("acme")).await.unwrap();
    let ids: Vec<&str> = listed.iter().map(|stored| stored.venue.id.as_str()).collect();
    assert_eq!(ids, ["Shop", "a", "shop-10", "shop-2"]);
}

async fn keys_are_found_by_their_id(store: Arc<dyn Registry>) {
    assert_eq!(store.key("k1").await.unwrap(), None);
    let everywhere = AccessKey {
        venues: None,
        name: None,
        role: Role::Admin,
        ..access_key("k2", "other")
    };
    store.put_key(&access_key("k1", "acme")).await.unwrap();
    store.put_key(&everywhere).await.unwrap();
    assert_eq!(store.key("k1").await.unwrap(), Some(access_key("k1", "acme")));
    assert_eq!(store.key("k2").await.unwrap(), Some(everywhere));
    assert_eq!(store.key("K1").await.unwrap(), None);
    let taken = AccessKey {
        role: Role::Admin,
        ..access_key("k1", "other")
    };
    assert_kind(store.put_key(&taken).await, ErrorKind::Conflict);
    assert_eq!(store.key("k1").await.unwrap(), Some(access_key("k1", "acme")));
}

async fn a_key_is_taken_back_once_and_by_its_tenant_only(store: Arc<dyn Registry>) {
    store.put_key(&access_key("k1", "acme")).await.unwrap();
    assert_kind(
        store.revoke_key(&tenant("other"), "k1", 5).await,
        ErrorKind::NotFound,
    );
    assert_kind(
        store.revoke_key(&tenant("acme"), "k2", 5).await,
        ErrorKind::NotFound,
    );
    assert_eq!(store.key("k1").await.unwrap().unwrap().revoked_at, None);
    store.revoke_key(&tenant("acme"), "k1", 5).await.unwrap();
    store.revoke_key(&tenant("acme"), "k1", 9).await.unwrap();
    let expected = AccessKey {
        revoked_at: Some(5),
        ..access_key("k1", "acme")
    };
    assert_eq!(
        store.key("k1").await.unwrap(),
        Some(expected),
        "the first revocation stands"
    );
}

async fn the_version_changes_with_every_change_and_with_nothing_else(store: Arc<dyn Registry>) {
    let acme = tenant("acme");
    let mut seen = vec![store.version().await.unwrap()];
    let note = async |seen: &mut Vec<u64>| {
        let version = store.version().await.unwrap();
        assert!(!seen.contains(&version), "{version} was seen before: {seen:?}");
        seen.push(version);
    };
    assert_eq!(
        store.put_venue(&acme, &venue("shop", "one"), None).await.unwrap(),
        Flip::Done
    );
    note(&mut seen).await;
    let version = store
        .venue(&key_of("acme", "shop"))
        .await
        .unwrap()
        .unwrap()
        .version;
    assert_eq!(
        store
            .put_venue(&acme, &venue("shop", "two"), Some(version))
            .await
            .unwrap(),
        Flip::Done
    );
    note(&mut seen).await;
    store.put_key(&access_key("k1", "acme")).await.unwrap();
    note(&mut seen).await;
    store.revoke_key(&acme, "k1", 5).await.unwrap();
    note(&mut seen).await;

    let now = store.version().await.unwrap();
    store.venues(&acme).await.unwrap();
    assert_eq!(
        store.put_venue(&acme, &venue("shop", "x"), None).await.unwrap(),
        Flip::Lost
    );
    assert_kind(
        store.put_key(&access_key("k1", "acme")).await,
        ErrorKind::Conflict,
    );
    assert_eq!(store.version().await.unwrap(), now);
}

async fn no_tenant_sees_anothers_venues_or_keys(store: Arc<dyn Registry>) {
    for owner in ["acme", "other"] {
        assert_eq!(
            store
                .put_venue(&tenant(owner), &venue("shop", owner), None)
                .await
                .unwrap(),
            Flip::Done
        );
        store
            .put_key(&access_key(&format!("k-{owner}"), owner))
            .await
            .unwrap();
    }
    for owner in ["acme", "other"] {
        let listed = store.venues(&tenant(owner)).await.unwrap();
        assert_eq!(
            listed
                .iter()
                .map(|stored| stored.venue.name.as_deref())
                .collect::<Vec<_>>(),
            [Some(owner)]
        );
        let stored = store.venue(&key_of(owner, "shop")).await.unwrap().unwrap();
        assert_eq!(stored.venue.name.as_deref(), Some(owner));
        assert_eq!(
            store.keys(&tenant(owner)).await.unwrap(),
            [access_key(&format!("k-{owner}"), owner)]
        );
    }
    assert_eq!(store.venues(&tenant("nobody")).await.unwrap(), []);
    assert_eq!(store.keys(&tenant("nobody")).await.unwrap(), []);
}
