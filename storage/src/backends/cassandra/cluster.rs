//! The connection to a cluster, as all tables of the backend use it.
//!
//! A statement is a constant ([`Cql`]): its text, what it is for, and how it behaves. It is prepared at its first use
//! and kept. In its text `{ks}` stands for the keyspace.
//!
//! - Reads and plain writes are idempotent, so the driver may send them again to another node; a read that is slow is
//!   sent to a second one at once.
//! - Conditional writes (lightweight transactions) are sent once. When nobody knows what became of one, the caller's
//!   own SERIAL read settles it ([`Cluster::conditional`]).
//! - Requests in flight are bounded; who comes when the bound is reached waits, and gets `Busy` when that takes longer
//!   than an answer may.
//!
//! The driver keeps one pool per node, routes by token within the local datacenter, and reconnects by itself.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use dwell_runtime::clock::{self, Clock, SharedClock};
use hashbrown::HashMap;
use scylla::client::execution_profile::{ExecutionProfile, ExecutionProfileHandle};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::deserialize::row::{ColumnIterator, DeserializeRow};
use scylla::errors::ExecutionError;
use scylla::frame::Compression;
use scylla::policies::load_balancing::{DefaultPolicy, LoadBalancingPolicy};
use scylla::policies::retry::{DefaultRetryPolicy, FallthroughRetryPolicy};
use scylla::policies::speculative_execution::SimpleSpeculativeExecutionPolicy;
use scylla::response::PagingState;
use scylla::response::query_result::{QueryResult, QueryRowsResult};
use scylla::serialize::batch::BatchValues;
use scylla::serialize::row::SerializeRow;
use scylla::statement::batch::{Batch, BatchStatement, BatchType};
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::unprepared::Statement;
use scylla::statement::{Consistency, SerialConsistency};
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};

use super::config::{CassandraConfig, WireCompression};
use super::errors::{self, Outcome};
use super::node_clocks;
use super::write_clock::{Due, WriteClock};
use crate::error::{ErrorKind, Result, StorageError};

/// Stands for the keyspace in the text of statements.
pub(super) const KEYSPACE_MARK: &str = "{ks}";

/// Rows of a page; a page is held in memory whole.
const PAGE_ROWS: i32 = 5_000;

/// After this long a coordinator nobody heard from has given up a conditional write by its own timeouts
/// (`cas_contention_timeout` and `write_request_timeout`, 1 s and 2 s by default), so that a SERIAL read finds its
/// last word.
const CONDITIONAL_SETTLES_AFTER: Duration = Duration::from_secs(4);

/// How long a write waits for the nodes to say their time. Where they did not, nor ever have, it waits once more, as
/// long as a request may take.
const CLOCKS_WAIT_MAX: Duration = Duration::from_millis(500);

/// Times that a SERIAL read is sent. Each one has the servers' `cas_contention_timeout`, 1 s.
const SERIAL_READS_MAX: u32 = 6;
/// Before the second time; longer before each further one.
const SERIAL_READ_PAUSE: Duration = Duration::from_millis(30);

/// A statement: what it is for (as messages say it), its text, and how it behaves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cql {
    doing: &'static str,
    text: &'static str,
    manner: Manner,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Manner {
    Read,
    SerialRead,
    Write,
    Counter,
    Conditional,
}

impl Cql {
    /// A SELECT at LOCAL_QUORUM.
    pub(super) const fn read(doing: &'static str, text: &'static str) -> Self {
        Self {
            doing,
            text,
            manner: Manner::Read,
        }
    }

    /// A SELECT at LOCAL_SERIAL: it sees, and settles, conditional writes that are under way. Of one partition only.
    pub(super) const fn serial_read(doing: &'static str, text: &'static str) -> Self {
        Self {
            doing,
            text,
            manner: Manner::SerialRead,
        }
    }

    /// An INSERT, UPDATE or DELETE that may be repeated without harm. (No counters, no list appends.)
    pub(super) const fn write(doing: &'static str, text: &'static str) -> Self {
        Self {
            doing,
            text,
            manner: Manner::Write,
        }
    }

    /// An UPDATE of a counter: sent once, since it would count twice.
    pub(super) const fn counter(doing: &'static str, text: &'static str) -> Self {
        Self {
            doing,
            text,
            manner: Manner::Counter,
        }
    }

    /// An INSERT, UPDATE or DELETE with `IF …`.
    pub(super) const fn conditional(doing: &'static str, text: &'static str) -> Self {
        Self {
            doing,
            text,
            manner: Manner::Conditional,
        }
    }

    /// What it is for.
    pub(super) const fn doing(&self) -> &'static str {
        self.doing
    }
}

/// A connected cluster. Clones share everything.
#[derive(Clone)]
pub(super) struct Cluster {
    inner: Arc<Inner>,
}

struct Inner {
    session: Session,
    keyspace: String,
    local_datacenter: String,
    request_timeout: Duration,
    in_flight: Semaphore,
    statements: RwLock<HashMap<(&'static str, Manner), PreparedStatement, foldhash::fast::FixedState>>,
    profiles: Profiles,
    clock: SharedClock,
    write_clock: Arc<WriteClock>,
    /// Held by who asks the nodes for their time.
    comparing_clocks: Mutex<()>,
}

struct Profiles {
    read: ExecutionProfileHandle,
    serial_read: ExecutionProfileHandle,
    write: ExecutionProfileHandle,
    conditional: ExecutionProfileHandle,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("keyspace", &self.inner.keyspace)
            .field("local_datacenter", &self.inner.local_datacenter)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// Connects, within `connect_timeout_ms`. Says nothing of the keyspace: see
    /// [`migrations`](super::migrations).
    pub(super) async fn connect(config: &CassandraConfig, clock: SharedClock) -> Result<Self> {
        config
            .check()
            .map_err(|error| StorageError::new(ErrorKind::Invalid, error.to_string()))?;
        let points = config.contact_points.join(", ");
        let write_clock = Arc::new(WriteClock::new(Arc::clone(&clock)));
        let builder = session_builder(config, &write_clock);
        let connecting = clock::timeout(&*clock, config.connect_timeout(), builder.build());
        let session = match connecting.await {
            Ok(built) => built.map_err(|error| errors::not_connected(&points, error))?,
            Err(_) => {
                let why = format!(
                    "connect to Cassandra at {points}: nobody answered within {} ms",
                    config.connect_timeout_ms
                );
                return Err(StorageError::new(ErrorKind::Unavailable, why));
            }
        };
        let local_datacenter = local_datacenter(&session, config)?;
        let profiles = Profiles::new(config, &local_datacenter);
        // Statements of the driver's own (schema agreement, for one) follow the default profile.
        let mut default = session.get_default_execution_profile_handle().clone();
        default.map_to_another_profile(profiles.write.to_profile());
        let inner = Inner {
            session,
            keyspace: config.keyspace.clone(),
            local_datacenter,
            request_timeout: config.request_timeout(),
            in_flight: Semaphore::new(config.concurrency as usize),
            statements: RwLock::default(),
            profiles,
            clock,
            write_clock,
            comparing_clocks: Mutex::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The driver's session, for what is not a statement on Dwell's tables.
    pub(super) fn session(&self) -> &Session {
        &self.inner.session
    }

    /// The keyspace's name.
    pub(super) fn keyspace(&self) -> &str {
        &self.inner.keyspace
    }

    /// The datacenter whose nodes are asked.
    pub(super) fn local_datacenter(&self) -> &str {
        &self.inner.local_datacenter
    }

    /// Where this cluster's users take their time from.
    pub(super) fn clock(&self) -> &SharedClock {
        &self.inner.clock
    }

    /// What dates writes, compared with the nodes' clocks where that is due. Every write goes by here.
    pub(super) async fn write_clock(&self) -> Result<&WriteClock> {
        let inner = &*self.inner;
        let undated = || {
            let why = "compare clocks with Cassandra: no node said its time, so a write cannot be dated";
            StorageError::new(ErrorKind::Unavailable, why)
        };
        let _comparing = match inner.write_clock.due() {
            Due::No => return Ok(&inner.write_clock),
            Due::Soon => match inner.comparing_clocks.try_lock() {
                Ok(comparing) => comparing,
                // Somebody is at it.
                Err(_) => return Ok(&inner.write_clock),
            },
            // Who waits behind those that wait for an answer in vain waits no longer than they do.
            Due::Now => {
                let turn = inner.comparing_clocks.lock();
                let turn = clock::timeout(&*inner.clock, inner.request_timeout, turn).await;
                turn.map_err(|_| undated())?
            }
        };
        // A node that hangs keeps writes waiting only where the others do not suffice.
        for limit in [inner.request_timeout.min(CLOCKS_WAIT_MAX), inner.request_timeout] {
            if inner.write_clock.due() == Due::No {
                break;
            }
            let began_ms = inner.write_clock.origin_ms();
            let (readings, nodes) = node_clocks::read_all(self, limit).await;
            inner.write_clock.compare(&readings, nodes, began_ms);
        }
        match inner.write_clock.due() {
            Due::Now => Err(undated()),
            _ => Ok(&inner.write_clock),
        }
    }

    /// Writes.
    pub(super) async fn execute(&self, cql: Cql, values: impl SerializeRow) -> Result<()> {
        debug_assert!(
            matches!(cql.manner, Manner::Write | Manner::Counter),
            "{}",
            cql.text
        );
        self.write_clock().await?;
        self.run(cql, values)
            .await?
            .map_err(|error| errors::failed(cql.doing, error))?;
        Ok(())
    }

    /// The first row of the answer, if any; for reads of a single row.
    pub(super) async fn first<R>(&self, cql: Cql, values: impl SerializeRow) -> Result<Option<R>>
    where
        R: for<'f, 'm> DeserializeRow<'f, 'm>,
    {
        let result = self
            .run(cql, values)
            .await?
            .map_err(|error| errors::failed(cql.doing, error))?;
        let rows = result
            .into_rows_result()
            .map_err(|error| errors::not_rows(cql.doing, error))?;
        rows.maybe_first_row::<R>()
            .map_err(|error| errors::damaged(cql.doing, error))
    }

    /// All rows of the answer, page by page, in memory: for answers that are bounded.
    pub(super) async fn all<R>(&self, cql: Cql, values: impl SerializeRow) -> Result<Vec<R>>
    where
        R: for<'f, 'm> DeserializeRow<'f, 'm>,
    {
        let mut rows = Vec::new();
        self.pages(cql, values, |page| {
            rows.reserve(page.rows_num());
            for row in page
                .rows::<R>()
                .map_err(|error| errors::damaged(cql.doing, error))?
            {
                rows.push(row.map_err(|error| errors::damaged(cql.doing, error))?);
            }
            Ok(())
        })
        .await?;
        Ok(rows)
    }

    /// Gives the answer page by page; the next page is asked for when `each` has returned.
    pub(super) async fn pages(
        &self,
        cql: Cql,
        values: impl SerializeRow,
        mut each: impl FnMut(QueryRowsResult) -> Result<()>,
    ) -> Result<()> {
        let statement = self.prepared(cql).await?;
        let bound = statement
            .bind(&values)
            .map_err(|error| StorageError::with_source(ErrorKind::Bug, cql.doing, error))?;
        let mut state = PagingState::start();
        loop {
            let (result, next) = {
                let _permit = self.permit(cql.doing).await?;
                self.inner
                    .session
                    .execute_bound_single_page(&bound, state)
                    .await
                    .map_err(|error| errors::failed(cql.doing, error))?
            };
            let page = result
                .into_rows_result()
                .map_err(|error| errors::not_rows(cql.doing, error))?;
            each(page)?;
            match next.into_paging_control_flow() {
                ControlFlow::Continue(next) => state = next,
                ControlFlow::Break(()) => return Ok(()),
            }
        }
    }

    /// A conditional write: whether it was applied. When its outcome is unknown, `read_back` tells: a SERIAL read of
    /// the row that answers whether it now holds what this write would have written. It is polled then only.
    ///
    /// `false` may also mean that others wanted the row at the same time: read again, decide anew.
    pub(super) async fn conditional(
        &self,
        cql: Cql,
        values: impl SerializeRow,
        read_back: impl Future<Output = Result<bool>>,
    ) -> Result<bool> {
        debug_assert_eq!(cql.manner, Manner::Conditional, "{}", cql.text);
        let outcome = self.run(cql, values).await?;
        settle(cql.doing, &*self.inner.clock, outcome, read_back).await
    }

    /// Runs a batch that its caller keeps (see [`batch_of_one`](Self::batch_of_one)).
    pub(super) async fn run_batch(
        &self,
        doing: &'static str,
        batch: &Batch,
        values: impl BatchValues,
    ) -> Result<()> {
        self.write_clock().await?;
        let _permit = self.permit(doing).await?;
        let done = self.inner.session.batch(batch, values).await;
        done.map_err(|error| errors::failed(doing, error))?;
        Ok(())
    }

    /// An unlogged batch of the same write `n` times, to be kept and run with many values of one partition.
    pub(super) async fn batch_of_one(&self, cql: Cql, n: usize) -> Result<Batch> {
        let statement = self.prepared(cql).await?;
        let mut batch = Batch::new_with_statements(
            BatchType::Unlogged,
            vec![BatchStatement::PreparedStatement(statement); n],
        );
        batch.set_is_idempotent(true);
        batch.set_execution_profile_handle(Some(self.inner.profiles.write.clone()));
        Ok(batch)
    }

    /// Runs a statement that has no place in the cache: a schema change, a table of the system.
    pub(super) async fn run_once(&self, doing: &'static str, statement: Statement) -> Result<QueryResult> {
        let _permit = self.permit(doing).await?;
        let done = self.inner.session.query_unpaged(statement, ()).await;
        done.map_err(|error| errors::failed(doing, error))
    }

    /// A text with the keyspace's name in the place of its mark.
    pub(super) fn text(&self, text: &str) -> String {
        text.replace(KEYSPACE_MARK, &self.inner.keyspace)
    }

    async fn run(&self, cql: Cql, values: impl SerializeRow) -> Result<Result<QueryResult, ExecutionError>> {
        let statement = self.prepared(cql).await?;
        let mut tries = 0;
        loop {
            let outcome = {
                let _permit = self.permit(cql.doing).await?;
                self.inner.session.execute_unpaged(&statement, &values).await
            };
            // A SERIAL read gives way to conditional writes of its row, and changes nothing: it is sent again.
            tries += 1;
            let gave_way = |error: &ExecutionError| errors::outcome(error) == Outcome::Unknown;
            if cql.manner != Manner::SerialRead
                || tries == SERIAL_READS_MAX
                || !outcome.as_ref().is_err_and(gave_way)
            {
                return Ok(outcome);
            }
            self.inner.clock.sleep(SERIAL_READ_PAUSE * tries).await;
        }
    }

    /// A place among the requests in flight.
    async fn permit(&self, doing: &'static str) -> Result<SemaphorePermit<'_>> {
        // Most of the time there is room, and no timer is needed.
        if let Ok(permit) = self.inner.in_flight.try_acquire() {
            return Ok(permit);
        }
        let waiting = clock::timeout(
            &*self.inner.clock,
            self.inner.request_timeout,
            self.inner.in_flight.acquire(),
        );
        match waiting.await {
            // The semaphore is never closed.
            Ok(Ok(permit)) => Ok(permit),
            _ => {
                let why = format!("{doing} in Cassandra: too many requests are in flight");
                Err(StorageError::new(ErrorKind::Busy, why))
            }
        }
    }

    async fn prepared(&self, cql: Cql) -> Result<PreparedStatement> {
        let key = (cql.text, cql.manner);
        if let Some(known) = self
            .inner
            .statements
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
        {
            return Ok(known.clone());
        }
        let preparing = self.inner.session.prepare(self.text(cql.text));
        let mut statement = clock::timeout(&*self.inner.clock, self.inner.request_timeout, preparing)
            .await
            .map_err(|_| errors::timed_out(cql.doing, self.inner.request_timeout.as_millis() as u64))?
            .map_err(|error| errors::not_prepared(cql.doing, error))?;
        statement.set_is_idempotent(!matches!(cql.manner, Manner::Counter | Manner::Conditional));
        statement.set_page_size(PAGE_ROWS);
        // Columns are named one by one and never change their type, so an answer needs no description of its own. A
        // conditional write's columns differ with its outcome.
        statement.set_use_cached_result_metadata(matches!(cql.manner, Manner::Read | Manner::SerialRead));
        statement.set_execution_profile_handle(Some(self.inner.profiles.of(cql.manner).clone()));
        // Prepared twice at the same time it is the same statement.
        self.inner
            .statements
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, statement.clone());
        Ok(statement)
    }
}

impl Profiles {
    fn new(config: &CassandraConfig, local_datacenter: &str) -> Self {
        let policy = nearby(local_datacenter);
        let base = || {
            ExecutionProfile::builder()
                .request_timeout(Some(config.request_timeout()))
                .consistency(Consistency::LocalQuorum)
                .serial_consistency(Some(SerialConsistency::LocalSerial))
                .load_balancing_policy(Arc::clone(&policy))
                .retry_policy(Arc::new(DefaultRetryPolicy::new()))
        };
        let mut read = base();
        if config.speculative_read_after_ms > 0 {
            read = read.speculative_execution_policy(Some(Arc::new(SimpleSpeculativeExecutionPolicy {
                max_retry_count: 1,
                retry_interval: Duration::from_millis(config.speculative_read_after_ms),
            })));
        }
        let serial_read = base().consistency(Consistency::LocalSerial);
        // Even `Unavailable` may come after an accepted round, so not even that is sent again.
        let conditional = base().retry_policy(Arc::new(FallthroughRetryPolicy::new()));
        let handle = |profile: scylla::client::execution_profile::ExecutionProfileBuilder| {
            profile.build().into_handle()
        };
        Self {
            read: handle(read),
            serial_read: handle(serial_read),
            write: handle(base()),
            conditional: handle(conditional),
        }
    }

    fn of(&self, manner: Manner) -> &ExecutionProfileHandle {
        match manner {
            Manner::Read => &self.read,
            Manner::SerialRead => &self.serial_read,
            Manner::Write => &self.write,
            // Sent once, as they are.
            Manner::Counter | Manner::Conditional => &self.conditional,
        }
    }
}

fn nearby(datacenter: &str) -> Arc<dyn LoadBalancingPolicy> {
    // LOCAL_QUORUM means another quorum in another datacenter, so there is no going over.
    DefaultPolicy::builder()
        .prefer_datacenter(datacenter.to_owned())
        .token_aware(true)
        .permit_dc_failover(false)
        .build()
}

fn session_builder(config: &CassandraConfig, write_clock: &Arc<WriteClock>) -> SessionBuilder {
    let compression = match config.compression {
        WireCompression::None => None,
        WireCompression::Lz4 => Some(Compression::Lz4),
    };
    let mut builder = SessionBuilder::new()
        .known_nodes(&config.contact_points)
        .compression(compression)
        .connection_timeout(config.connect_timeout().min(Duration::from_secs(5)))
        .keepalive_interval(Duration::from_secs(15))
        .keepalive_timeout(Duration::from_secs(15))
        .tcp_nodelay(true)
        .tcp_keepalive_interval(Duration::from_secs(30))
        // Of the schema the driver only needs what routes requests.
        .keyspaces_to_fetch([&config.keyspace])
        .fetch_full_schema_metadata(false)
        .schema_agreement_interval(Duration::from_millis(50))
        .schema_agreement_timeout(Duration::from_secs(60))
        // Writes of this process take effect in the order in which it made them, whichever nodes they go through.
        .timestamp_generator(Arc::<WriteClock>::clone(write_clock));
    if let (Some(user), Some(password)) = (&config.user, &config.password) {
        builder = builder.user(user, password);
    }
    builder
}

/// The configured datacenter, or the only one there is.
fn local_datacenter(session: &Session, config: &CassandraConfig) -> Result<String> {
    let state = session.get_cluster_state();
    let found: BTreeSet<&str> = state
        .get_nodes_info()
        .iter()
        .filter_map(|node| node.datacenter.as_deref())
        .collect();
    let listed = || found.iter().copied().collect::<Vec<_>>().join(", ");
    match &config.local_datacenter {
        Some(name) if found.contains(name.as_str()) => Ok(name.clone()),
        Some(name) => {
            let why = format!("Cassandra has no datacenter {name:?}; it has: {}", listed());
            Err(StorageError::new(ErrorKind::Invalid, why))
        }
        None if found.len() == 1 => Ok(listed()),
        None => {
            let why = format!(
                "Cassandra has several datacenters ({}): local_datacenter must name the near one",
                listed()
            );
            Err(StorageError::new(ErrorKind::Invalid, why))
        }
    }
}

/// What became of a conditional write.
async fn settle(
    doing: &'static str,
    clock: &dyn Clock,
    outcome: Result<QueryResult, ExecutionError>,
    read_back: impl Future<Output = Result<bool>>,
) -> Result<bool> {
    let error = match outcome {
        Ok(result) => return was_applied(doing, result),
        Err(error) => error,
    };
    match errors::outcome(&error) {
        Outcome::NotDone => return Err(errors::failed(doing, error)),
        Outcome::Unknown => {}
        Outcome::Open => clock.sleep(CONDITIONAL_SETTLES_AFTER).await,
    }
    tracing::debug!(doing, %error, "the outcome of a conditional write is read back");
    read_back.await
}

/// The `[applied]` column of a conditional write's answer. Cassandra gives the row only when it was not applied,
/// ScyllaDB always, so nothing but that column is looked at.
fn was_applied(doing: &'static str, result: QueryResult) -> Result<bool> {
    let rows = result
        .into_rows_result()
        .map_err(|error| errors::not_rows(doing, error))?;
    let mut columns = rows
        .first_row::<ColumnIterator<'_, '_>>()
        .map_err(|error| errors::damaged(doing, error))?;
    let applied = columns
        .next()
        .transpose()
        .map_err(|error| errors::damaged(doing, error))?
        .filter(|column| column.spec.name() == "[applied]")
        .and_then(|column| column.slice)
        .and_then(|slice| slice.as_slice().first().copied());
    match applied {
        Some(byte) => Ok(byte != 0),
        None => Err(StorageError::new(
            ErrorKind::Bug,
            format!("{doing} in Cassandra: the answer does not say whether it was applied"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use dwell_runtime::clock::ManualClock;
    use futures::poll;
    use scylla::errors::{DbError, RequestAttemptError, WriteType};

    use super::*;

    fn answered(error: DbError) -> ExecutionError {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, String::new()))
    }

    fn contended() -> ExecutionError {
        answered(DbError::WriteTimeout {
            consistency: Consistency::LocalSerial,
            received: 1,
            required: 2,
            write_type: WriteType::Cas,
        })
    }

    #[tokio::test]
    async fn an_unknown_outcome_is_read_back_and_a_refusal_is_not() {
        let clock = ManualClock::at_ms(0);
        for stored in [true, false] {
            let settled = settle("test", &clock, Err(contended()), async { Ok(stored) }).await;
            assert_eq!(settled.unwrap(), stored);
        }
        let refused = settle("test", &clock, Err(answered(DbError::Overloaded)), async {
            Ok(true)
        })
        .await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Busy);
        let unreadable = settle("test", &clock, Err(contended()), async {
            Err(StorageError::new(ErrorKind::Unavailable, "gone"))
        });
        assert_eq!(unreadable.await.unwrap_err().kind(), ErrorKind::Unavailable);
    }

    #[tokio::test]
    async fn a_write_that_nobody_heard_of_is_read_back_once_its_coordinator_has_given_up() {
        let clock = ManualClock::at_ms(0);
        let silent = ExecutionError::RequestTimeout(Duration::from_secs(12));
        let mut settled = pin!(settle("test", &clock, Err(silent), async { Ok(true) }));
        assert!(poll!(&mut settled).is_pending());
        clock.advance(CONDITIONAL_SETTLES_AFTER - Duration::from_millis(1));
        assert!(poll!(&mut settled).is_pending());
        clock.advance(Duration::from_millis(1));
        assert!(settled.await.unwrap());
    }
}
