//! What tests share: embedded stores in a folder that goes away, a tenant with venues, a clock that stands still.

use std::sync::Arc;

use dwell_model::ids::{Receipt, TenantId, VenueId, VenueKey};
use dwell_model::layout::{Layout, Venue};
use dwell_model::time::{TsMs, VenueCalendar};
use dwell_runtime::clock::ManualClock;
use dwell_storage::access::Principal;
use dwell_storage::api::Quarantine;
use dwell_storage::api::{
    EventLogReader, Flip, LoggedRecord, QuarantineEntry, QuarantineFilter, Registry, Role,
};
use dwell_storage::backends::sqlite::SqliteStores;
use dwell_storage::paths::DataPaths;
use tempfile::TempDir;

use crate::intake::{Intake, IntakeConfig, IntakeStores};

/// 2026-03-10T12:00:00Z, a Tuesday.
pub(crate) const NOW: TsMs = 1_773_144_000_000;

/// An installation with tenant `acme` and venues `v1` and `v2` in Madrid.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) stores: SqliteStores,
    pub(crate) clock: ManualClock,
}

pub(crate) fn tenant() -> TenantId {
    TenantId::new("acme").unwrap()
}

pub(crate) fn venue(id: &str) -> VenueId {
    VenueId::new(id).unwrap()
}

pub(crate) fn key(id: &str) -> VenueKey {
    VenueKey::new(tenant(), venue(id))
}

pub(crate) fn receipt(number: u128) -> Receipt {
    Receipt::from_u128(number)
}

pub(crate) fn principal(role: Role, venues: Option<&[&str]>) -> Arc<Principal> {
    let venues = venues.map(|ids| ids.iter().map(|id| venue(id)).collect());
    Arc::new(Principal {
        tenant: tenant(),
        key_id: "key1".to_owned(),
        role,
        venues,
    })
}

impl World {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::at_ms(NOW);
        let stores = SqliteStores::open(&DataPaths::new(dir.path()), clock.shared())
            .await
            .unwrap();
        let world = Self { dir, stores, clock };
        world.stores.registry.create_tenant(&tenant()).await.unwrap();
        world.make_venue("v1").await;
        world.make_venue("v2").await;
        world
    }

    pub(crate) async fn make_venue(&self, id: &str) {
        let made = Venue {
            id: venue(id),
            name: None,
            calendar: VenueCalendar::from_names("Europe/Madrid", 0).unwrap(),
            tags: Vec::new(),
            layouts: vec![Layout::empty()],
        };
        assert_eq!(
            self.stores
                .registry
                .put_venue(&tenant(), &made, None)
                .await
                .unwrap(),
            Flip::Done
        );
    }

    pub(crate) fn intake_with(&self, config: IntakeConfig) -> Intake {
        let stores = IntakeStores {
            log: Arc::clone(&self.stores.log) as _,
            registry: Arc::clone(&self.stores.registry) as _,
            quarantine: Arc::clone(&self.stores.quarantine) as _,
            pseudonym_keys: Arc::clone(&self.stores.pseudonym_keys) as _,
        };
        Intake::new(config, stores, self.clock.shared())
    }

    pub(crate) fn intake(&self) -> Intake {
        self.intake_with(IntakeConfig::default())
    }

    /// All records of the log.
    pub(crate) async fn logged(&self) -> Vec<LoggedRecord> {
        let start = self.stores.log.bounds(0).await.unwrap().start;
        self.stores.log.read(0, start, usize::MAX).await.unwrap().records
    }

    /// The tenant's quarantine, oldest first.
    pub(crate) async fn quarantined(&self) -> Vec<QuarantineEntry> {
        let all = QuarantineFilter::default();
        let mut entries = self
            .stores
            .quarantine
            .list(&tenant(), &all, None, 10_000)
            .await
            .unwrap();
        entries.reverse();
        entries
    }

    /// Every byte that is on disk, keys apart.
    pub(crate) fn bytes_on_disk(&self) -> Vec<u8> {
        let files = std::fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let data = files.filter(|path| path.is_file() && !path.to_string_lossy().contains("keys.db"));
        data.flat_map(|path| std::fs::read(path).unwrap()).collect()
    }
}

/// Whether some bytes hold a text.
pub(crate) fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}
