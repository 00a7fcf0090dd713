//! How a process takes notice of erasures, and how the eraser learns that it has.
//!
//! ```text
//! reader: permit ─▶ filter ─▶ write ─▶ still valid? ──no──▶ read on, and take back what the news name
//!            └ valid for a few seconds; then: read the ledger on, wait for writes in flight, say "known up to n"
//! eraser: append n ─▶ wait until every row says ≥ n or has expired ─▶ delete
//! ```
//!
//! A process that writes what the log brought takes a [`WritePermit`] first. A permit is given out while the process is
//! *registered*: its row among the documents says up to which entry of the ledger everything that it writes is
//! filtered, and until when that holds. The row is raised only after all writes under the former filter have ended, so
//! an eraser that sees the row raised, or expired, knows that nothing older comes. A process that was paused finds its
//! registration run out when it wakes, and reads the ledger before its next write; one that was paused *within* a write
//! finds it out right after ([`WritePermit::is_valid`]), and takes back what it should not have written. Should it die
//! in between, the nightly repetition of the erasure finds the rows; readers leave them out from the beginning.
//!
//! While the ledger cannot be read (the archive's store is away), nobody can append to it there either, and a process
//! that is cut off alone keeps its row: [`ErasureWatch::run`] *prolongs* the registration without raising it, so that
//! writing goes on, and whoever appends waits for it. Only an unbroken registration is prolonged, one that no eraser can
//! have seen run out; a process that begins while the ledger is away waits for it.
//!
//! Time is measured twice, by a clock that only moves forward and by the wall: the first does not run while a machine
//! sleeps, the second may be set back.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use dwell_model::ids::TenantId;
use dwell_model::time::TsMs;
use dwell_runtime::clock::{SharedClock, timeout};
use dwell_runtime::shutdown::ShutdownToken;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, OwnedRwLockReadGuard, RwLock};

use super::filter::{ErasureFilter, LedgerFollower};
use crate::api::{DocumentKind, Documents, Erasures, Flip, documents};
use crate::error::{ErrorKind, Result, StorageError};

/// The tenant under which readers register.
const NOBODY: &str = "_dwell";
/// How long a registration lets its process write.
const VALID: Duration = Duration::from_secs(5);
/// How long the eraser waits for a process that is not heard of, beyond that.
const EXPIRES_AFTER_MS: i64 = 10_000;
/// How far the clocks of two machines may be apart.
const CLOCK_SKEW_MS: i64 = 5_000;
/// How often [`ErasureWatch::run`] renews.
const RENEW_EVERY: Duration = Duration::from_secs(2);
/// How long a row of a process that is gone stays its own.
const ROW_KEPT_MS: i64 = 24 * 3_600_000;
/// How long the ledger may take to answer before the registration is prolonged without it.
const READ_MAX: Duration = Duration::from_millis(1_500);
/// Tries to find a row.
const TRIES: u32 = 16;

/// A process that reads the log, and how far it knows the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasureReader {
    /// What it is, for people.
    pub name: String,
    /// Everything that it writes is filtered by the entries up to this one.
    pub known: u64,
    /// When it no longer writes without having registered anew.
    pub expires_at: TsMs,
}

impl DocumentKind for ErasureReader {
    const COLLECTION: &'static str = "erasure-readers";
}

/// A process's notice of erasures. Clones are the same.
#[derive(Clone)]
pub struct ErasureWatch {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    follower: LedgerFollower,
    documents: Arc<dyn Documents>,
    clock: SharedClock,
    /// Held for reading by writes in flight.
    in_flight: Arc<RwLock<()>>,
    /// Until when permits are good: monotonic nanoseconds, wall milliseconds.
    valid_until: AtomicU64,
    valid_until_ms: AtomicI64,
    registration: Mutex<Registration>,
    /// Until when erasers see the row as that of a live process, measured as above.
    seen_until: AtomicU64,
    seen_until_ms: AtomicI64,
}

/// What it has said of itself.
#[derive(Debug, Default)]
struct Registration {
    row: Option<Row>,
    /// The entry up to which everything is filtered that is written from now on.
    known: u64,
}

/// A moment by both clocks.
#[derive(Debug, Clone, Copy)]
struct Moment {
    monotonic: Duration,
    now: TsMs,
}

/// Its row among the documents.
#[derive(Debug, Clone)]
struct Row {
    id: String,
    version: Option<u64>,
}

/// The right to write what passes the filter. Hold it until the write is durable.
pub struct WritePermit {
    watch: ErasureWatch,
    filter: Arc<ErasureFilter>,
    _in_flight: OwnedRwLockReadGuard<()>,
}

impl std::fmt::Debug for ErasureWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ErasureWatch")
            .field("name", &self.inner.name)
            .field("follower", &self.inner.follower)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for WritePermit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WritePermit")
            .field("number", &self.filter.number())
            .finish_non_exhaustive()
    }
}

impl ErasureWatch {
    /// A watch that has read nothing and is not registered yet.
    pub fn new(
        name: &str,
        ledger: Arc<dyn Erasures>,
        documents: Arc<dyn Documents>,
        clock: SharedClock,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                name: name.to_owned(),
                follower: LedgerFollower::new(ledger),
                documents,
                clock,
                in_flight: Arc::default(),
                valid_until: AtomicU64::new(0),
                valid_until_ms: AtomicI64::new(i64::MIN),
                registration: Mutex::default(),
                seen_until: AtomicU64::new(0),
                seen_until_ms: AtomicI64::new(i64::MIN),
            }),
        }
    }

    /// The ledger as far as it is known here. For those who write nothing: no I/O.
    pub fn filter(&self) -> Arc<ErasureFilter> {
        self.inner.follower.filter()
    }

    /// Reads the ledger on without registering: for those who only read.
    pub async fn read_on(&self) -> Result<Arc<ErasureFilter>> {
        let known = self.filter().number();
        if known > 0 || self.is_registered() {
            // Permits that were given out rest on the filter being exchanged by `renew` alone.
            self.renew().await?;
            return Ok(self.filter());
        }
        self.inner.follower.read_on().await
    }

    /// The right to write. Reads the ledger and registers where that is due.
    pub async fn permit(&self) -> Result<WritePermit> {
        for _ in 0..TRIES {
            let in_flight = Arc::clone(&self.inner.in_flight).read_owned().await;
            if self.is_registered() {
                return Ok(WritePermit {
                    watch: self.clone(),
                    filter: self.filter(),
                    _in_flight: in_flight,
                });
            }
            drop(in_flight);
            self.renew().await?;
        }
        Err(StorageError::new(
            ErrorKind::Unavailable,
            "registering as a reader of the ledger of erasures takes longer than a registration lasts",
        ))
    }

    /// Reads the ledger on, waits for the writes in flight where there was news, and says how far it is known here.
    pub async fn renew(&self) -> Result<()> {
        let inner = &self.inner;
        let mut registration = inner.registration.lock().await;
        let is_unbroken = registration.row.is_some() && self.is_seen();
        if !is_unbroken {
            // Seen before it reads: an eraser that does not see the row has appended before, and is read.
            self.announce(&mut registration).await?;
        }
        let begun = self.moment();
        // A registration that holds can be prolonged; without one there is nothing to be in time for, and the first
        // reading has the most to read.
        let read_max = if is_unbroken { READ_MAX } else { Duration::MAX };
        let reading = timeout(&*inner.clock, read_max, inner.follower.read_on());
        let filter = reading.await.map_err(|late| {
            StorageError::with_source(ErrorKind::Unavailable, "read the ledger of erasures", late)
        })??;
        if filter.number() > registration.known {
            tracing::info!(
                reader = inner.name,
                known = filter.number(),
                "erasures to be honoured"
            );
            // From here on permits carry the new filter; those given out before are waited for.
            drop(inner.in_flight.write().await);
            registration.known = filter.number();
        }
        self.register(&mut registration, begun).await
    }

    /// Registers for longer without having read the ledger: what it has since is not filtered here, and whoever appended
    /// it waits.
    async fn prolong(&self) -> Result<()> {
        let mut registration = self.inner.registration.lock().await;
        let begun = self.moment();
        self.register(&mut registration, begun).await
    }

    /// Stores the row from `begun` on, and lets writes begin if nobody can have seen the former one run out.
    async fn register(&self, registration: &mut Registration, begun: Moment) -> Result<()> {
        let Registration { row, known } = registration;
        let is_unbroken = row.is_some() && self.is_seen();
        if is_unbroken {
            self.store(row, *known, begun).await?;
        }
        if !(is_unbroken && self.is_seen()) {
            return Err(StorageError::new(
                ErrorKind::Unavailable,
                "the registration as a reader of the ledger of erasures has run out",
            ));
        }
        let inner = &self.inner;
        self.see_until(begun);
        let valid_ms = VALID.as_millis() as i64;
        inner.valid_until_ms.store(begun.now + valid_ms, Ordering::SeqCst);
        inner
            .valid_until
            .store(nanos(begun.monotonic + VALID), Ordering::SeqCst);
        Ok(())
    }

    /// Stores the row without letting writes begin.
    async fn announce(&self, registration: &mut Registration) -> Result<()> {
        let begun = self.moment();
        self.store(&mut registration.row, registration.known, begun)
            .await?;
        self.see_until(begun);
        Ok(())
    }

    fn see_until(&self, begun: Moment) {
        let inner = &self.inner;
        let expires_after = Duration::from_millis(EXPIRES_AFTER_MS as u64);
        inner
            .seen_until_ms
            .store(begun.now + EXPIRES_AFTER_MS, Ordering::SeqCst);
        inner
            .seen_until
            .store(nanos(begun.monotonic + expires_after), Ordering::SeqCst);
    }

    /// Renews until shutdown, so that permits need not wait and erasures are noticed within seconds.
    pub async fn run(self, shutdown: ShutdownToken) {
        loop {
            if let Err(error) = self.renew().await {
                match self.prolong().await {
                    Ok(()) => {
                        tracing::warn!(%error, "the ledger of erasures cannot be read; whoever erases waits for us")
                    }
                    Err(_) => tracing::warn!(%error, "the ledger of erasures was not read; trying again"),
                }
            }
            tokio::select! {
                () = shutdown.requested() => return,
                () = self.inner.clock.sleep(RENEW_EVERY) => {}
            }
        }
    }

    /// Who has not yet acknowledged an entry and is not known to be gone; nobody when the deletion may begin.
    pub async fn awaited(&self, number: u64) -> Result<Vec<ErasureReader>> {
        let now = self.inner.clock.now_ms();
        let mut readers: Vec<ErasureReader> = Vec::new();
        for stored in documents::all::<ErasureReader>(&*self.inner.documents, &nobody()?).await? {
            let reader = stored.value;
            if reader.known < number && now <= reader.expires_at + CLOCK_SKEW_MS {
                readers.push(reader);
            }
        }
        Ok(readers)
    }

    fn is_registered(&self) -> bool {
        let inner = &self.inner;
        self.is_before(&inner.valid_until, &inner.valid_until_ms)
    }

    /// Whether no eraser can have seen the row run out since it was stored.
    fn is_seen(&self) -> bool {
        let inner = &self.inner;
        self.is_before(&inner.seen_until, &inner.seen_until_ms)
    }

    fn is_before(&self, monotonic: &AtomicU64, wall_ms: &AtomicI64) -> bool {
        let at = self.moment();
        nanos(at.monotonic) < monotonic.load(Ordering::SeqCst) && at.now < wall_ms.load(Ordering::SeqCst)
    }

    fn moment(&self) -> Moment {
        let clock = &self.inner.clock;
        Moment {
            monotonic: clock.monotonic(),
            now: clock.now_ms(),
        }
    }

    /// Stores the row: where it was, or one whose process is long gone, or a new one.
    async fn store(&self, row: &mut Option<Row>, known: u64, begun: Moment) -> Result<()> {
        let (documents, tenant, now) = (&*self.inner.documents, nobody()?, begun.now);
        let reader = ErasureReader {
            name: self.inner.name.clone(),
            known,
            expires_at: now + EXPIRES_AFTER_MS,
        };
        for _ in 0..TRIES {
            let Row { id, version } = match row.take() {
                Some(row) => row,
                None => self.find_row(now).await?,
            };
            match documents::store(documents, &tenant, &id, &reader, version).await? {
                Flip::Done => {
                    let version = Some(version.unwrap_or(0) + 1);
                    *row = Some(Row { id, version });
                    return Ok(());
                }
                // Taken by another process after a day of silence, or a write of ours whose answer was lost.
                Flip::Lost => {}
            }
        }
        Err(StorageError::new(
            ErrorKind::Busy,
            "register as a reader of the ledger of erasures: others take every row",
        ))
    }

    async fn find_row(&self, now: TsMs) -> Result<Row> {
        let rows = documents::all::<ErasureReader>(&*self.inner.documents, &nobody()?).await?;
        let is_free = |expires_at: TsMs| expires_at + ROW_KEPT_MS < now;
        let free = rows.into_iter().find(|row| is_free(row.value.expires_at));
        if let Some(free) = free {
            return Ok(Row {
                id: free.id,
                version: Some(free.version),
            });
        }
        let random = getrandom::u64().map_err(|error| {
            StorageError::with_source(ErrorKind::Unavailable, "name a reader of the ledger", error)
        })?;
        Ok(Row {
            id: format!("{random:016x}"),
            version: None,
        })
    }
}

impl WritePermit {
    /// What must not be written.
    pub fn filter(&self) -> &Arc<ErasureFilter> {
        &self.filter
    }

    /// Whether the registration holds still. When it does not, an erasure may have gone past: read on, and take back
    /// what was written.
    pub fn is_valid(&self) -> bool {
        self.watch.is_registered()
    }
}

fn nanos(since: Duration) -> u64 {
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn nobody() -> Result<TenantId> {
    TenantId::new(NOBODY)
        .map_err(|error| StorageError::with_source(ErrorKind::Bug, "the tenant of Dwell itself", error))
}

#[cfg(test)]
mod tests;
