//! What the routes share: stores (reading rights where reading is all they do), the live view, clock, limits.

use std::sync::Arc;

use dwell_model::ids::{TenantId, VenueId, VenueKey};
use dwell_runtime::clock::{Clock, SharedClock};
use dwell_runtime::limits::{Gate, RateLimit, RateLimiter};
use dwell_runtime::shutdown::ShutdownSignal;
use dwell_storage::access::KeyVerifier;
use dwell_storage::api::documents::{self, Stored};
use dwell_storage::api::recuts::{self, Recut};
use dwell_storage::api::{
    AggregatesReader, ArchiveReader, Documents, Jobs, LiveView, Quarantine, RawEventsReader, Registry,
    SessionsReader, StoredVenue, Stores, VenueDaysReader,
};
use dwell_storage::usage::UsageCounter;

use crate::config::Config;
use crate::job_catalogue::JobCatalogue;
use crate::problem::Problem;
use crate::query::as_of::AsOf;
use crate::stale::KeptAnswers;
use crate::views::sources::WholeGenerations;

/// Keys whose rates are remembered.
const RATE_KEYS_MAX: usize = 10_000;
/// Trajectories read back at a time: each may scan a day's file, so the others wait their turn.
const TRAJECTORIES_AT_ONCE: u32 = 2;

/// The stores as the API may use them: readers of everything measured, and the tables that people work on.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct ApiStores {
    pub aggregates: Arc<dyn AggregatesReader>,
    pub venue_days: Arc<dyn VenueDaysReader>,
    pub sessions: Arc<dyn SessionsReader>,
    pub raw: Arc<dyn RawEventsReader>,
    pub archive: Arc<dyn ArchiveReader>,
    pub registry: Arc<dyn Registry>,
    pub jobs: Arc<dyn Jobs>,
    pub quarantine: Arc<dyn Quarantine>,
    pub documents: Arc<dyn Documents>,
}

impl std::fmt::Debug for ApiStores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiStores").finish_non_exhaustive()
    }
}

impl From<Stores> for ApiStores {
    fn from(stores: Stores) -> Self {
        Self {
            aggregates: stores.aggregates,
            venue_days: stores.venue_days,
            sessions: stores.sessions,
            raw: stores.raw,
            archive: stores.archive,
            registry: stores.registry,
            jobs: stores.jobs,
            quarantine: stores.quarantine,
            documents: stores.documents,
        }
    }
}

/// What [`AppState::new`] is made of.
pub struct Parts {
    /// The stores.
    pub stores: ApiStores,
    /// What happens now.
    pub live: Arc<dyn LiveView>,
    /// Verifies bearer keys.
    pub verifier: Arc<KeyVerifier>,
    /// Which jobs can be asked for.
    pub jobs: Arc<dyn JobCatalogue>,
    /// Counts requests and rows.
    pub usage: UsageCounter,
    /// Time.
    pub clock: SharedClock,
    /// Ends live streams (the phase [`FinishRequests`](dwell_runtime::shutdown::Phase::FinishRequests), or an
    /// earlier one).
    pub shutdown: ShutdownSignal,
    /// Bounds.
    pub config: Config,
    /// OpenAPI documents of other routers on the same address (ingest's, for example): their `paths` and
    /// `components` are shown with this API's.
    pub further_documents: Vec<serde_json::Value>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// State of the routes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AppState {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    parts: Parts,
    gate: Gate,
    streams: Gate,
    trajectories: Gate,
    rate: RateLimiter<String>,
    whole_generations: WholeGenerations,
    answers: KeptAnswers,
    document: Vec<u8>,
}

impl AppState {
    /// The state of one server.
    pub fn new(parts: Parts) -> Self {
        let config = parts.config;
        let rate = RateLimit {
            per_second: config.rate_per_second,
            burst: config.rate_burst,
        };
        let inner = Inner {
            gate: Gate::new("requests", config.requests_at_once_max),
            streams: Gate::new("live streams", config.streams_max),
            trajectories: Gate::new("trajectories", TRAJECTORIES_AT_ONCE),
            rate: RateLimiter::new(rate, RATE_KEYS_MAX),
            whole_generations: WholeGenerations::default(),
            answers: KeptAnswers::default(),
            document: crate::openapi::document_bytes(&parts.further_documents),
            parts,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    pub(crate) fn stores(&self) -> &ApiStores {
        &self.inner.parts.stores
    }

    pub(crate) fn live(&self) -> &dyn LiveView {
        &*self.inner.parts.live
    }

    pub(crate) fn verifier(&self) -> &KeyVerifier {
        &self.inner.parts.verifier
    }

    pub(crate) fn jobs(&self) -> &dyn JobCatalogue {
        &*self.inner.parts.jobs
    }

    pub(crate) fn usage(&self) -> &UsageCounter {
        &self.inner.parts.usage
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.inner.parts.clock
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.clock().now_ms()
    }

    pub(crate) fn monotonic_ms(&self) -> i64 {
        i64::try_from(self.clock().monotonic().as_millis()).unwrap_or(i64::MAX)
    }

    pub(crate) fn shutdown(&self) -> &ShutdownSignal {
        &self.inner.parts.shutdown
    }

    pub(crate) fn config(&self) -> &Config {
        &self.inner.parts.config
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.inner.gate
    }

    pub(crate) fn streams(&self) -> &Gate {
        &self.inner.streams
    }

    pub(crate) fn trajectories(&self) -> &Gate {
        &self.inner.trajectories
    }

    pub(crate) fn rate(&self) -> &RateLimiter<String> {
        &self.inner.rate
    }

    pub(crate) fn whole_generations(&self) -> &WholeGenerations {
        &self.inner.whole_generations
    }

    pub(crate) fn answers(&self) -> &KeptAnswers {
        &self.inner.answers
    }

    pub(crate) fn document(&self) -> &[u8] {
        &self.inner.document
    }

    /// A venue of the caller's tenant. What is no id, and what another tenant has, is as unknown as what nobody has.
    pub(crate) async fn venue(&self, tenant: &TenantId, id: &str) -> Result<StoredVenue, Problem> {
        let Ok(venue) = VenueId::new(id) else {
            return Err(Problem::not_found("venue", id));
        };
        let found = self
            .stores()
            .registry
            .venue(&VenueKey::new(tenant.clone(), venue))
            .await?;
        found.ok_or_else(|| Problem::not_found("venue", id))
    }

    /// The same as it cut time at an instant, where one is given: a later time zone or day start is not that of then.
    pub(crate) async fn venue_as_of(
        &self,
        tenant: &TenantId,
        id: &str,
        as_of: Option<AsOf>,
    ) -> Result<StoredVenue, Problem> {
        let stored = self.venue(tenant, id).await?;
        let mut venues = [stored];
        self.cuts_as_of(tenant, &mut venues, as_of).await?;
        let [stored] = venues;
        Ok(stored)
    }

    /// Gives venues the cuts that they had at an instant, where one is given.
    pub(crate) async fn cuts_as_of(
        &self,
        tenant: &TenantId,
        venues: &mut [StoredVenue],
        as_of: Option<AsOf>,
    ) -> Result<(), Problem> {
        let Some(AsOf::Moment(ts)) = as_of else {
            return Ok(());
        };
        let documents = self.stores().documents.as_ref();
        let recuts: Vec<Stored<Recut>> = match &venues {
            [one] => {
                let key = VenueKey::new(tenant.clone(), one.venue.id.clone());
                recuts::load(documents, &key).await?.into_iter().collect()
            }
            _ => documents::all(documents, tenant).await?,
        };
        for recut in recuts {
            if let Some(stored) = venues
                .iter_mut()
                .find(|stored| stored.venue.id.as_str() == recut.id)
            {
                stored.venue.calendar = recut.value.cut_at(stored.venue.calendar, ts);
            }
        }
        Ok(())
    }
}
