use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use dwell_model::ids::VenueKey;
use dwell_model::layout::Venue;
use dwell_runtime::clock::ManualClock;

use super::*;
use crate::api::{Flip, StoredVenue};

/// Keys in memory, with a count of the look-ups.
#[derive(Default)]
struct Keys {
    keys: Mutex<Vec<AccessKey>>,
    version: Mutex<u64>,
    lookups: AtomicUsize,
    away: AtomicBool,
}

impl Keys {
    fn reach(&self) -> Result<()> {
        match self.away.load(Ordering::Relaxed) {
            true => Err(StorageError::new(ErrorKind::Unavailable, "away")),
            false => Ok(()),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Vec<AccessKey>)) {
        change(&mut self.keys.lock().unwrap());
        *self.version.lock().unwrap() += 1;
    }
}

#[async_trait]
impl Registry for Keys {
    async fn create_tenant(&self, _: &TenantId) -> Result<()> {
        unreachable!("not about keys")
    }
    async fn tenants(&self) -> Result<Vec<TenantId>> {
        unreachable!("not about keys")
    }
    async fn put_venue(&self, _: &TenantId, _: &Venue, _: Option<u64>) -> Result<Flip> {
        unreachable!("not about keys")
    }
    async fn venue(&self, _: &VenueKey) -> Result<Option<StoredVenue>> {
        unreachable!("not about keys")
    }
    async fn venues(&self, _: &TenantId) -> Result<Vec<StoredVenue>> {
        unreachable!("not about keys")
    }
    async fn version(&self) -> Result<u64> {
        self.reach()?;
        Ok(*self.version.lock().unwrap())
    }
    async fn put_key(&self, key: &AccessKey) -> Result<()> {
        self.change(|keys| keys.push(key.clone()));
        Ok(())
    }
    async fn key(&self, id: &str) -> Result<Option<AccessKey>> {
        self.reach()?;
        self.lookups.fetch_add(1, Ordering::Relaxed);
        Ok(self.keys.lock().unwrap().iter().find(|key| key.id == id).cloned())
    }
    async fn keys(&self, _: &TenantId) -> Result<Vec<AccessKey>> {
        unreachable!("not asked for")
    }
    async fn revoke_key(&self, _: &TenantId, id: &str, now: TsMs) -> Result<()> {
        self.change(|keys| {
            keys.iter_mut()
                .filter(|key| key.id == id)
                .for_each(|key| key.revoked_at = Some(now))
        });
        Ok(())
    }
}

fn tenant() -> TenantId {
    TenantId::new("acme").unwrap()
}

fn setup(keys_max: usize) -> (Arc<Keys>, ManualClock, KeyVerifier) {
    let (keys, clock) = (Arc::new(Keys::default()), ManualClock::at_ms(0));
    let verifier = KeyVerifier::new(Arc::clone(&keys) as Arc<dyn Registry>, clock.shared(), keys_max);
    (keys, clock, verifier)
}

#[tokio::test]
async fn a_key_opens_with_its_own_secret_only() {
    let (keys, _, verifier) = setup(10);
    let venues = Some(vec![VenueId::new("v1").unwrap()]);
    let (key, text) = issue(tenant(), Role::Gateway, venues.clone(), None, 5).unwrap();
    let (other, other_text) = issue(tenant(), Role::Admin, None, None, 5).unwrap();
    keys.put_key(&key).await.unwrap();
    keys.put_key(&other).await.unwrap();
    let principal = verifier.verify(text.reveal()).await.unwrap().unwrap();
    assert_eq!(
        (&principal.tenant, &principal.key_id, principal.role),
        (&tenant(), &key.id, Role::Gateway)
    );
    assert_eq!(principal.venues, venues);
    let other_secret = other_text.reveal().rsplit_once('_').unwrap().1;
    for wrong in [
        "",
        "dwk_",
        "dwk__",
        "Bearer x",
        &text.reveal()[..text.reveal().len() - 1],
        &format!("{}0", text.reveal()),
        &format!("dwk_{}_{other_secret}", key.id),
        // The stored hash itself is no secret that opens anything.
        &format!("dwk_{}_{}", key.id, key.hash),
        &"dwk_a_".repeat(100),
    ] {
        assert_eq!(verifier.verify(wrong).await.unwrap(), None, "{wrong}");
    }
    assert!(
        !key.hash.is_empty()
            && !format!("{key:?} {text:?}").contains(text.reveal().rsplit_once('_').unwrap().1)
    );
}

#[tokio::test]
async fn a_key_that_is_taken_back_stops_within_the_refresh_time() {
    let (keys, clock, verifier) = setup(10);
    let (key, text) = issue(tenant(), Role::Viewer, None, None, 5).unwrap();
    assert_eq!(verifier.verify(text.reveal()).await.unwrap(), None);
    keys.put_key(&key).await.unwrap();
    clock.advance(Duration::from_millis(REFRESH_MS));
    assert!(verifier.verify(text.reveal()).await.unwrap().is_some());
    keys.revoke_key(&tenant(), &key.id, 6).await.unwrap();
    clock.advance(Duration::from_millis(REFRESH_MS));
    assert_eq!(verifier.verify(text.reveal()).await.unwrap(), None);
}

#[tokio::test]
async fn what_is_known_is_not_asked_again_and_what_is_kept_is_bounded() {
    let (keys, _, verifier) = setup(8);
    let (key, text) = issue(tenant(), Role::Viewer, None, None, 5).unwrap();
    keys.put_key(&key).await.unwrap();
    for stranger in 0..100 {
        assert!(verifier.verify(text.reveal()).await.unwrap().is_some());
        assert_eq!(verifier.verify(&format!("dwk_{stranger}_x")).await.unwrap(), None);
        let cache = verifier.inner.cache();
        assert!(cache.young.len() + cache.old.len() <= 8);
    }
    // One for the key, which is used all the time, and one for each stranger.
    assert_eq!(keys.lookups.load(Ordering::Relaxed), 101);
}

#[test]
fn roles_open_what_they_are_for() {
    let with = |role, venues: Option<&[&str]>| Principal {
        tenant: tenant(),
        key_id: "k".to_owned(),
        role,
        venues: venues.map(|ids| ids.iter().map(|id| VenueId::new(id).unwrap()).collect()),
    };
    let rights = |role| {
        let principal = with(role, None);
        (
            principal.may_post(),
            principal.may_read(),
            principal.may_operate(),
            principal.may_administer(),
        )
    };
    assert_eq!(rights(Role::Gateway), (true, false, false, false));
    assert_eq!(rights(Role::Viewer), (false, true, false, false));
    assert_eq!(rights(Role::Operator), (true, true, true, false));
    assert_eq!(rights(Role::Admin), (true, true, true, true));
    let (v1, v2) = (VenueId::new("v1").unwrap(), VenueId::new("v2").unwrap());
    let gateway = with(Role::Gateway, Some(&["v1"]));
    assert_eq!(
        (gateway.may_post_to(&v1), gateway.may_post_to(&v2)),
        (true, false)
    );
    assert!(with(Role::Gateway, None).may_post_to(&v2) && !with(Role::Viewer, None).may_post_to(&v1));
}

#[tokio::test]
async fn a_known_key_goes_on_working_for_a_while_when_the_registry_is_away() {
    let (keys, clock, verifier) = setup(10);
    let (key, text) = issue(tenant(), Role::Viewer, None, None, 5).unwrap();
    keys.put_key(&key).await.unwrap();
    assert!(verifier.verify(text.reveal()).await.unwrap().is_some());
    keys.away.store(true, Ordering::Relaxed);
    clock.advance(Duration::from_millis(REFRESH_MS));
    assert!(verifier.verify(text.reveal()).await.unwrap().is_some());
    let unknown = verifier.verify("dwk_other_x").await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::Unavailable);
    clock.advance(Duration::from_millis(REGISTRY_AWAY_MAX_MS));
    assert!(verifier.verify(text.reveal()).await.is_err());
    keys.away.store(false, Ordering::Relaxed);
    clock.advance(Duration::from_millis(REFRESH_MS));
    assert!(verifier.verify(text.reveal()).await.unwrap().is_some());
}

#[tokio::test]
async fn a_key_of_this_process_opens_here_and_nowhere_else() {
    let (keys, clock, verifier) = setup(10);
    let text = verifier.trust(tenant(), Role::Admin).unwrap();
    let principal = verifier.verify(text.reveal()).await.unwrap().unwrap();
    assert_eq!(principal.role, Role::Admin);
    assert_eq!(
        verifier.verify(&format!("{}0", text.reveal())).await.unwrap(),
        None
    );
    let other = KeyVerifier::new(Arc::clone(&keys) as _, clock.shared(), 10);
    assert_eq!(other.verify(text.reveal()).await.unwrap(), None);
}
