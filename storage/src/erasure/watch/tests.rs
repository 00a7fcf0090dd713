use dwell_model::event::{Delivery, Kind, RawRows};
use dwell_model::ids::Receipt;
use dwell_runtime::clock::{Clock, ManualClock};
use tokio::sync::Notify;

use super::*;
use crate::api::{
    ErasedSubject, Mark, MarkSource, Marks, NewErasure, Partition, Position, RawApplied, RawEvents,
    RawEventsReader, RawEventsWriter, RawWrite, SubjectClass,
};
use crate::archive::DeltaArchive;
use crate::backends::sqlite::SqliteStores;
use crate::conformance::samples::{DAY_START, position, shop};
use crate::decorators::erasing::ErasingRawEvents;
use crate::paths::DataPaths;

/// Stores in a folder, with a ledger beside the archive.
struct Shop {
    _folder: tempfile::TempDir,
    stores: SqliteStores,
    ledger: Arc<dyn Erasures>,
    clock: ManualClock,
}

impl Shop {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::at_ms(DAY_START);
        let paths = DataPaths::new(folder.path());
        let stores = SqliteStores::open_blocking(&paths, clock.shared()).unwrap();
        let archive = DeltaArchive::local(&paths.archive, clock.shared()).unwrap();
        let ledger = crate::api::ArchiveReader::erasures(&archive);
        Self {
            _folder: folder,
            stores,
            ledger,
            clock,
        }
    }

    fn watch(&self, name: &str) -> ErasureWatch {
        let documents = Arc::clone(&self.stores.documents);
        ErasureWatch::new(name, Arc::clone(&self.ledger), documents, self.clock.shared())
    }

    /// Says that a track is to be forgotten; the number of the entry.
    async fn forget(&self, track: &str) -> u64 {
        let key = self.ledger.key().await.unwrap();
        let erasure = NewErasure {
            id: format!("forget {track}"),
            venue: shop(),
            requested_at: DAY_START + 1_000,
            subjects: vec![ErasedSubject {
                class: SubjectClass::Track,
                name: key.hash(SubjectClass::Track, &shop(), track),
                sensor: None,
                from: i64::MIN,
                until: DAY_START + 1_001,
            }],
        };
        self.ledger.append(erasure).await.unwrap().number
    }

    async fn tracks(&self) -> Vec<String> {
        let rows = self
            .stores
            .raw
            .scan(&shop(), Kind::Position, i64::MIN..i64::MAX)
            .await;
        let rows = rows.unwrap();
        (0..rows.len())
            .map(|row| rows.events.key(row).to_owned())
            .collect()
    }
}

/// A write of one event of each track, with the mark of its slot.
fn write(tracks: &[&str]) -> RawWrite {
    let by = Delivery {
        received_at: DAY_START,
        receipt: Receipt::from_u128(1),
    };
    let rows = tracks
        .iter()
        .map(|track| {
            let event = position("s", track, DAY_START, 1.0, 2.0);
            (shop(), RawRows::delivered_once(event, by))
        })
        .collect();
    let marks = vec![Mark {
        venue: shop(),
        slot: dwell_model::time::slot_of(DAY_START),
        source: MarkSource::log(1, 0),
        position: 1,
    }];
    RawWrite {
        rows,
        marks,
        position: None,
    }
}

/// A raw table whose writes wait until they are let go: a process that is stopped in the middle of one.
struct Stopped {
    inner: Arc<dyn RawEvents>,
    begun: Notify,
    go_on: Notify,
}

#[async_trait::async_trait]
impl RawEventsWriter for Stopped {
    async fn delete_compared(&self, slot: crate::api::ComparedSlot) -> Result<()> {
        self.inner.delete_compared(slot).await
    }

    async fn apply(&self, write: RawWrite) -> Result<RawApplied> {
        self.begun.notify_one();
        self.go_on.notified().await;
        self.inner.apply(write).await
    }

    async fn erase(&self, venue: &dwell_model::ids::VenueKey, rows: &RawRows) -> Result<u64> {
        self.inner.erase(venue, rows).await
    }
}

#[async_trait::async_trait]
impl RawEventsReader for Stopped {
    async fn marked_at(
        &self,
        venue: &dwell_model::ids::VenueKey,
        range: std::ops::Range<TsMs>,
    ) -> Result<Vec<(i64, TsMs)>> {
        self.inner.marked_at(venue, range).await
    }

    async fn scan(
        &self,
        venue: &dwell_model::ids::VenueKey,
        kind: Kind,
        range: std::ops::Range<TsMs>,
    ) -> Result<RawRows> {
        self.inner.scan(venue, kind, range).await
    }

    async fn count(
        &self,
        venue: &dwell_model::ids::VenueKey,
        range: std::ops::Range<TsMs>,
    ) -> Result<Vec<(Kind, u64)>> {
        self.inner.count(venue, range).await
    }

    async fn marks(&self, venue: &dwell_model::ids::VenueKey, range: std::ops::Range<TsMs>) -> Result<Marks> {
        self.inner.marks(venue, range).await
    }

    async fn marked_slots(
        &self,
        venue: &dwell_model::ids::VenueKey,
        range: std::ops::Range<TsMs>,
    ) -> Result<Vec<(i64, Marks)>> {
        self.inner.marked_slots(venue, range).await
    }

    async fn now_ms(&self) -> Result<TsMs> {
        self.inner.now_ms().await
    }

    async fn position(&self, consumer: &str, epoch: u64, partition: Partition) -> Result<Option<Position>> {
        self.inner.position(consumer, epoch, partition).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_waits_for_the_writes_in_flight_of_every_live_reader() {
    let shop = Shop::new();
    let (writer, eraser) = (shop.watch("writer"), shop.watch("eraser"));
    let permit = writer.permit().await.unwrap();
    let number = shop.forget("gone").await;
    eraser.renew().await.unwrap();
    let awaited =
        |readers: Vec<ErasureReader>| readers.into_iter().map(|reader| reader.name).collect::<Vec<_>>();
    assert_eq!(awaited(eraser.awaited(number).await.unwrap()), ["writer"]);
    // The writer hears of it, and says so only when its write has ended.
    let looking = async {
        for _ in 0..20 {
            assert_eq!(awaited(eraser.awaited(number).await.unwrap()), ["writer"]);
        }
        assert_eq!(writer.filter().number(), number, "it has heard of it by now");
        drop(permit);
    };
    let (renewed, ()) = futures::join!(writer.renew(), looking);
    renewed.unwrap();
    assert_eq!(
        awaited(eraser.awaited(number).await.unwrap()),
        Vec::<String>::new()
    );
    assert_eq!(writer.permit().await.unwrap().filter().number(), number);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_gone_blocks_no_erasure_for_ever() {
    let shop = Shop::new();
    let eraser = shop.watch("eraser");
    shop.watch("gone").permit().await.unwrap();
    let number = shop.forget("gone").await;
    eraser.renew().await.unwrap();
    assert_eq!(eraser.awaited(number).await.unwrap().len(), 1);
    let wait = EXPIRES_AFTER_MS + CLOCK_SKEW_MS;
    shop.clock.advance(Duration::from_millis(wait as u64));
    assert_eq!(eraser.awaited(number).await.unwrap().len(), 1);
    shop.clock.advance(Duration::from_millis(1));
    assert_eq!(eraser.awaited(number).await.unwrap(), vec![]);
    // Its row is another's after a day: rows do not pile up.
    shop.clock.advance(Duration::from_millis(ROW_KEPT_MS as u64 + 1));
    shop.watch("next").renew().await.unwrap();
    let rows = documents::all::<ErasureReader>(&*shop.stores.documents, &nobody().unwrap()).await;
    assert_eq!(rows.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_was_paused_reads_the_ledger_before_its_next_write() {
    let shop = Shop::new();
    let watch = shop.watch("writer");
    let raw = ErasingRawEvents::new(Arc::clone(&shop.stores.raw) as Arc<dyn RawEvents>, watch.clone());
    raw.apply(write(&["before"])).await.unwrap();
    // It stands still for longer than it is waited for; meanwhile somebody is erased.
    shop.forget("gone").await;
    shop.clock.advance(Duration::from_millis(
        (EXPIRES_AFTER_MS + CLOCK_SKEW_MS) as u64 + 1,
    ));
    assert_eq!(watch.filter().number(), 0, "it has not heard of it");
    raw.apply(write(&["gone", "stays"])).await.unwrap();
    assert_eq!(shop.tracks().await, ["before", "stays"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_was_paused_within_a_write_takes_it_back() {
    // A restore marks its day before and after its rows, not with them.
    let mut restored = write(&["gone", "stays"]);
    restored.marks.clear();
    for write in [write(&["gone", "stays"]), restored] {
        paused_within(write).await;
    }
}

async fn paused_within(write: RawWrite) {
    let shop = Shop::new();
    let watch = shop.watch("writer");
    let stopped = Arc::new(Stopped {
        inner: Arc::clone(&shop.stores.raw) as Arc<dyn RawEvents>,
        begun: Notify::new(),
        go_on: Notify::new(),
    });
    let raw = ErasingRawEvents::new(Arc::clone(&stopped) as Arc<dyn RawEvents>, watch);
    let meanwhile = async {
        stopped.begun.notified().await;
        let number = shop.forget("gone").await;
        let eraser = shop.watch("eraser");
        shop.clock.advance(Duration::from_millis(
            (EXPIRES_AFTER_MS + CLOCK_SKEW_MS) as u64 + 1,
        ));
        eraser.renew().await.unwrap();
        assert_eq!(
            eraser.awaited(number).await.unwrap(),
            vec![],
            "it is waited for no longer"
        );
        stopped.go_on.notify_one();
    };
    let (written, ()) = futures::join!(raw.apply(write), meanwhile);
    written.unwrap();
    assert_eq!(shop.tracks().await, ["stays"]);
}

/// A ledger that can be out of reach.
struct Cut {
    inner: Arc<dyn Erasures>,
    is_cut: std::sync::atomic::AtomicBool,
}

#[async_trait::async_trait]
impl Erasures for Cut {
    async fn key(&self) -> Result<crate::api::LedgerKey> {
        self.inner.key().await
    }

    async fn append(&self, erasure: NewErasure) -> Result<crate::api::Erasure> {
        self.inner.append(erasure).await
    }

    async fn read(&self, from: u64) -> Result<Vec<crate::api::Erasure>> {
        match self.is_cut.load(Ordering::SeqCst) {
            true => Err(StorageError::new(ErrorKind::Unavailable, "cut off")),
            false => self.inner.read(from).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writing_goes_on_while_the_ledger_is_away_and_whoever_erases_waits() {
    let shop = Shop::new();
    let cut = Arc::new(Cut {
        inner: Arc::clone(&shop.ledger),
        is_cut: false.into(),
    });
    let documents = Arc::clone(&shop.stores.documents);
    let ledger = Arc::clone(&cut) as Arc<dyn Erasures>;
    let writer = ErasureWatch::new("writer", ledger, documents, shop.clock.shared());
    writer.renew().await.unwrap();
    cut.is_cut.store(true, Ordering::SeqCst);
    // Cut off from the ledger only: others append to it meanwhile.
    let number = shop.forget("gone").await;
    let eraser = shop.watch("eraser");
    for _ in 0..20 {
        shop.clock.advance(RENEW_EVERY);
        assert!(writer.renew().await.is_err(), "the ledger is away");
        writer.prolong().await.unwrap();
        assert!(writer.permit().await.unwrap().is_valid());
        let awaited = eraser.awaited(number).await.unwrap();
        assert_eq!(awaited.len(), 1, "it writes, so it is waited for");
    }
    // A registration that ran out is not prolonged: it may not have been waited for.
    shop.clock.advance(Duration::from_millis(EXPIRES_AFTER_MS as u64));
    assert!(writer.prolong().await.is_err());
    assert!(writer.permit().await.is_err());
    cut.is_cut.store(false, Ordering::SeqCst);
    assert_eq!(writer.permit().await.unwrap().filter().number(), number);
    assert_eq!(eraser.awaited(number).await.unwrap(), vec![]);
}

/// A ledger to which somebody appends, and is not told of a waiting reader, at the moment after it was read.
struct ReadThenAppended {
    shop: Shop,
    ledger: Arc<dyn Erasures>,
    not_awaited: std::sync::atomic::AtomicBool,
}

#[async_trait::async_trait]
impl Erasures for ReadThenAppended {
    async fn key(&self) -> Result<crate::api::LedgerKey> {
        self.ledger.key().await
    }

    async fn append(&self, erasure: NewErasure) -> Result<crate::api::Erasure> {
        self.ledger.append(erasure).await
    }

    async fn read(&self, from: u64) -> Result<Vec<crate::api::Erasure>> {
        let read = self.ledger.read(from).await;
        let number = self.shop.forget("gone").await;
        let awaited = self.shop.watch("eraser").awaited(number).await?;
        self.not_awaited.store(awaited.is_empty(), Ordering::SeqCst);
        read
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_registers_while_somebody_is_erased_is_waited_for() {
    let shop = Shop::new();
    let (documents, clock) = (Arc::clone(&shop.stores.documents), shop.clock.shared());
    let ledger = Arc::new(ReadThenAppended {
        ledger: Arc::clone(&shop.ledger),
        shop,
        not_awaited: true.into(),
    });
    let watch = ErasureWatch::new(
        "writer",
        Arc::clone(&ledger) as Arc<dyn Erasures>,
        documents,
        clock,
    );
    let permit = watch.permit().await.unwrap();
    assert_eq!(permit.filter().number(), 0, "it read before the entry was there");
    assert!(
        !ledger.not_awaited.load(Ordering::SeqCst),
        "it may write what the entry names, so it must be waited for"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_leaves_out_whom_the_ledger_names() {
    let shop = Shop::new();
    let watch = shop.watch("reader");
    shop.stores.raw.apply(write(&["gone", "stays"])).await.unwrap();
    let raw = ErasingRawEvents::new(Arc::clone(&shop.stores.raw) as Arc<dyn RawEvents>, watch.clone());
    let venue = crate::conformance::samples::shop();
    let read = async || {
        let rows = raw
            .scan(&venue, Kind::Position, i64::MIN..i64::MAX)
            .await
            .unwrap();
        (0..rows.len())
            .map(|row| rows.events.key(row).to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(read().await, ["gone", "stays"]);
    shop.forget("gone").await;
    watch.renew().await.unwrap();
    assert_eq!(read().await, ["stays"]);
    assert!(shop.clock.monotonic() >= Duration::ZERO);
}
