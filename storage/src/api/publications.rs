//! Publications: the feed of a venue's published generations, by numbers that only grow.
//!
//! A generation is published by one flip of its venue-day; its place in the feed is another write. So that none is
//! missing for ever and none is there twice, whatever dies when, a venue's feed has a *head*, one document that every
//! step changes by a conditional write:
//!
//! ```text
//! announce  head.pending += (day, generation)             before the flip
//!   flip    venue_days: published = generation
//! settle 1  head.pending[i].entry = number last + 1       only once the generation is found published
//!        2  entry document under its number               the same by whoever writes it, as often as they like
//!        3  head.pending −= i
//! ```
//!
//! Who dies leaves a pending entry, which the next one to settle takes on from where it stands; a generation that can
//! never be published any more (its fence is passed, and the day's history does not have it) is dropped. A number is
//! given once, in the head. Readers go no further than below the smallest number that is given and not yet written
//! ([`FeedHead::readable`]), so that no entry appears below a number that a reader has passed.
//!
//! Entries are documents in collections of [`BLOCK`] numbers, so that a partition of them stays small.

use dwell_model::ids::VenueKey;
use dwell_model::time::{LocalDay, TsMs};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::documents::{self, DocumentKind, Documents, ListFrom};
use super::{Flip, Generation, GenerationChange, GenerationInfo, VenueDaysReader};
use crate::error::{ErrorKind, Result, StorageError};

/// Numbers of one collection of entries.
pub const BLOCK: u64 = 1 << 10;
/// Most announced generations that are not settled. Each is one worker's day, or one that died.
const PENDING_MAX: usize = 500;
/// Days that are listed anew at a time.
const LISTED_ANEW_AT_ONCE: usize = 100;
/// What the numbers jump to after a restore: above every number that was given after the backup was made.
const JUMP: u64 = 1 << 20;

/// A published generation in the feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// Its number: only grows, may leave gaps, never given twice.
    pub number: u64,
    /// When it got the number; never falls as numbers grow.
    pub listed_at: TsMs,
    /// The day.
    pub day: LocalDay,
    /// The generation.
    pub generation: Generation,
    /// Number of its rows.
    pub rows: u64,
    /// The generation that it replaced.
    pub before: Option<Generation>,
    /// Number of that one's rows.
    pub before_rows: Option<u64>,
    /// When it was published.
    pub published_at: TsMs,
    /// Computed while the day was open.
    pub provisional: bool,
    /// Why it was computed.
    pub reason: String,
    /// What it changed.
    pub changed: Option<GenerationChange>,
}

/// The head of a venue's feed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FeedHead {
    /// The highest number given.
    pub last: u64,
    /// When it was given.
    pub listed_at: TsMs,
    /// The collections that there are, ascending.
    pub blocks: Vec<FeedBlock>,
    /// Generations on their way into the feed.
    pub pending: Vec<Pending>,
}

/// A collection of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedBlock {
    /// Its first number divided by [`BLOCK`].
    pub block: u64,
    /// When its first entry was listed.
    pub first_listed_at: TsMs,
}

/// A generation on its way into the feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The day.
    pub day: LocalDay,
    /// The generation.
    pub generation: Generation,
    /// The one that it replaces.
    pub before: Option<Generation>,
    /// What is, or will be, written, once it has a number.
    pub entry: Option<Publication>,
}

impl DocumentKind for FeedHead {
    const COLLECTION: &'static str = "feed-heads";
}

impl FeedHead {
    /// The highest number up to which every entry is written.
    pub fn readable(&self) -> u64 {
        let given = self.pending.iter().filter_map(|pending| pending.entry.as_ref());
        given
            .map(|entry| entry.number)
            .min()
            .map_or(self.last, |number| number - 1)
    }

    /// Gives the next number to a generation found published.
    fn list(&mut self, place: usize, info: &GenerationInfo, before: Option<&GenerationInfo>, now: TsMs) {
        self.last += 1;
        self.listed_at = self.listed_at.max(now);
        let block = self.last / BLOCK;
        if self.blocks.last().is_none_or(|last| last.block < block) {
            self.blocks.push(FeedBlock {
                block,
                first_listed_at: self.listed_at,
            });
        }
        let pending = &mut self.pending[place];
        pending.entry = Some(Publication {
            number: self.last,
            listed_at: self.listed_at,
            day: pending.day,
            generation: pending.generation,
            rows: info.rows,
            before: pending.before,
            before_rows: before.map(|before| before.rows),
            published_at: info.published_at,
            provisional: info.provisional,
            reason: info.reason.clone(),
            changed: info.changed.clone(),
        });
    }
}

/// The head of a venue's feed; empty before the first publication.
pub async fn head(documents: &dyn Documents, venue: &VenueKey) -> Result<FeedHead> {
    let found = documents::load(documents, &venue.tenant, venue.venue.as_str()).await?;
    Ok(found.map(|found| found.value).unwrap_or_default())
}

/// Says that a generation is about to be published. To be called under its lease, before the flip; doing it twice
/// changes nothing. A venue whose days were published before there was a feed gets them as its first entries.
pub async fn announce(
    documents: &dyn Documents,
    days: &dyn VenueDaysReader,
    venue: &VenueKey,
    day: LocalDay,
    generation: Generation,
    before: Option<Generation>,
) -> Result<()> {
    let id = venue.venue.as_str();
    if documents::load::<FeedHead>(documents, &venue.tenant, id)
        .await?
        .is_none()
    {
        begin(documents, days, venue).await?;
    }
    let announced = documents::update::<FeedHead>(documents, &venue.tenant, id, |head| {
        let mut head = head.cloned().unwrap_or_default();
        let is_known = |pending: &Pending| (pending.day, pending.generation) == (day, generation);
        if head.pending.iter().any(is_known) || head.pending.len() >= PENDING_MAX {
            return None;
        }
        head.pending.push(Pending {
            day,
            generation,
            before,
            entry: None,
        });
        Some(head)
    })
    .await?;
    let is_in = |head: &FeedHead| {
        head.pending
            .iter()
            .any(|pending| (pending.day, pending.generation) == (day, generation))
    };
    if announced.is_some_and(|stored| is_in(&stored.value)) {
        return Ok(());
    }
    let what = format!("announce a generation of {venue} {day}: {PENDING_MAX} others wait to be listed");
    Err(StorageError::new(ErrorKind::Busy, what))
}

/// Brings what was announced and published into the feed, and drops what never will be published. Whoever may call it,
/// at any time, any number of times; returns how many entries it listed.
pub async fn settle(
    documents: &dyn Documents,
    days: &dyn VenueDaysReader,
    venue: &VenueKey,
    now: TsMs,
) -> Result<u64> {
    let id = venue.venue.as_str();
    let Some(stored) = documents::load::<FeedHead>(documents, &venue.tenant, id).await? else {
        return Ok(0);
    };
    if stored.value.pending.is_empty() {
        return Ok(0);
    }
    let mut fates = Vec::new();
    for pending in stored
        .value
        .pending
        .iter()
        .filter(|pending| pending.entry.is_none())
    {
        fates.push((pending.clone(), fate(days, venue, pending).await?));
    }
    // In the order in which they were published, as far as clocks tell.
    fates.sort_by_key(|(pending, fate)| match fate {
        Fate::Published { info, .. } => (info.published_at, pending.day),
        _ => (TsMs::MAX, pending.day),
    });
    let numbered = documents::update::<FeedHead>(documents, &venue.tenant, id, |head| {
        let mut head = head.cloned()?;
        let mut is_changed = false;
        for (of, fate) in &fates {
            let place = head.pending.iter().position(|pending| pending == of);
            match (place, fate) {
                (Some(place), Fate::Published { info, before }) => {
                    head.list(place, info, before.as_deref(), now);
                    is_changed = true;
                }
                (Some(place), Fate::Never) => {
                    head.pending.remove(place);
                    is_changed = true;
                }
                _ => {}
            }
        }
        is_changed.then_some(head)
    })
    .await?;
    let entries: Vec<Publication> = numbered
        .into_iter()
        .flat_map(|stored| stored.value.pending)
        .filter_map(|pending| pending.entry)
        .collect();
    for entry in &entries {
        write(documents, venue, entry).await?;
    }
    if !entries.is_empty() {
        documents::update::<FeedHead>(documents, &venue.tenant, id, |head| {
            let mut head = head.cloned()?;
            let had = head.pending.len();
            head.pending.retain(|pending| {
                pending
                    .entry
                    .as_ref()
                    .is_none_or(|entry| !entries.contains(entry))
            });
            (head.pending.len() < had).then_some(head)
        })
        .await?;
    }
    Ok(entries.len() as u64)
}

/// The entries with numbers above `after`, ascending, at most `limit`, as far as the feed is readable.
pub async fn list(
    documents: &dyn Documents,
    venue: &VenueKey,
    head: &FeedHead,
    after: u64,
    limit: usize,
) -> Result<Vec<Publication>> {
    let readable = head.readable();
    let mut found: Vec<Publication> = Vec::new();
    let blocks = head.blocks.iter().map(|block| block.block);
    for block in blocks.filter(|block| *block >= (after + 1) / BLOCK) {
        let mut last = id_of(after);
        loop {
            let wanted = limit - found.len();
            let from = ListFrom::After(Some(&last));
            let page = documents
                .list(&venue.tenant, &collection_of(venue, block), from, wanted)
                .await?;
            let is_last = page.len() < wanted;
            for document in page {
                let entry = read(document.body)?;
                if entry.number > readable {
                    return Ok(found);
                }
                last = document.id;
                found.push(entry);
            }
            if found.len() >= limit {
                return Ok(found);
            }
            if is_last {
                break;
            }
        }
    }
    Ok(found)
}

/// The highest number listed before an instant; 0 when there is none. What follows it was listed at or after.
pub async fn number_before(
    documents: &dyn Documents,
    venue: &VenueKey,
    head: &FeedHead,
    ts: TsMs,
) -> Result<u64> {
    let Some(block) = head.blocks.iter().rev().find(|block| block.first_listed_at < ts) else {
        return Ok(0);
    };
    let from = ListFrom::After(None);
    let collection = collection_of(venue, block.block);
    let entries = documents
        .list(&venue.tenant, &collection, from, BLOCK as usize)
        .await?;
    let mut number = 0;
    for document in entries {
        let entry = read(document.body)?;
        if entry.listed_at < ts {
            number = entry.number;
        }
    }
    Ok(number)
}

/// After a backup was restored: lets the numbers go on above every one that was given since it was made, so that a
/// reader who had followed further misses nothing of what is published from now on.
pub async fn skip_ahead(documents: &dyn Documents, venue: &VenueKey) -> Result<()> {
    let skipped = documents::update::<FeedHead>(documents, &venue.tenant, venue.venue.as_str(), |head| {
        let mut head = head.cloned()?;
        head.last = (head.last / JUMP + 1) * JUMP;
        Some(head)
    });
    skipped.await.map(|_| ())
}

/// After a backup was restored, and the numbers [skipped ahead](skip_ahead): lists each day's published generation once more,
/// in the place of the day as a whole, so that a reader who had followed further learns which numbers went back. Repeating it
/// lists them again. Returns how many entries it listed.
pub async fn list_anew(
    documents: &dyn Documents,
    days: &dyn VenueDaysReader,
    venue: &VenueKey,
    now: TsMs,
) -> Result<u64> {
    let id = venue.venue.as_str();
    let known = documents::load::<FeedHead>(documents, &venue.tenant, id).await?;
    if known.is_none() {
        return Ok(0);
    }
    let (first, last) = LocalDay::first_and_last();
    let rows = days.list(venue, first, last).await?;
    let published: Vec<(LocalDay, Generation)> = rows
        .into_iter()
        .filter_map(|row| Some((row.day, row.published?.generation)))
        .collect();
    let mut listed = settle(documents, days, venue, now).await?;
    for some in published.chunks(LISTED_ANEW_AT_ONCE) {
        documents::update::<FeedHead>(documents, &venue.tenant, id, |head| {
            let mut head = head.cloned()?;
            head.pending.extend(some.iter().map(|&(day, generation)| Pending {
                day,
                generation,
                before: None,
                entry: None,
            }));
            Some(head)
        })
        .await?;
        listed += settle(documents, days, venue, now).await?;
    }
    Ok(listed)
}

/// What became of an announced generation.
enum Fate {
    Published {
        info: Box<GenerationInfo>,
        before: Option<Box<GenerationInfo>>,
    },
    /// Somebody may still publish it.
    Open,
    /// Nobody can publish it any more.
    Never,
}

async fn fate(days: &dyn VenueDaysReader, venue: &VenueKey, pending: &Pending) -> Result<Fate> {
    // The fence before the history: once it has passed the generation, the history can no longer get it.
    let row = days.get(venue, pending.day).await?;
    let is_passed = row.as_ref().is_some_and(|row| row.fence > pending.generation);
    let published = row.and_then(|row| row.published).map(|info| info.generation);
    let history = days.history(venue, pending.day).await?;
    let find = |generation| history.iter().find(|info| info.generation == generation);
    Ok(match find(pending.generation) {
        Some(info) if published >= Some(pending.generation) => Fate::Published {
            info: Box::new(info.clone()),
            before: pending.before.and_then(find).cloned().map(Box::new),
        },
        // Staged, and its pointer may still follow; or published since the row was read.
        Some(_) => Fate::Open,
        None if is_passed => Fate::Never,
        None => Fate::Open,
    })
}

/// Begins the feed of a venue with what is published of it.
async fn begin(documents: &dyn Documents, days: &dyn VenueDaysReader, venue: &VenueKey) -> Result<()> {
    let (first, last) = LocalDay::first_and_last();
    let mut published: Vec<(LocalDay, GenerationInfo)> = days
        .list(venue, first, last)
        .await?
        .into_iter()
        .filter_map(|row| Some((row.day, row.published?)))
        .collect();
    published.sort_by_key(|(day, info)| (info.published_at, *day));
    let mut head = FeedHead::default();
    for (day, info) in published {
        head.pending.push(Pending {
            day,
            generation: info.generation,
            before: None,
            entry: None,
        });
        head.list(0, &info, None, info.published_at);
        for entry in head.pending.drain(..).filter_map(|pending| pending.entry) {
            write(documents, venue, &entry).await?;
        }
    }
    // Lost to another who began it: that is as good.
    let _ = documents::store(documents, &venue.tenant, venue.venue.as_str(), &head, None).await?;
    Ok(())
}

async fn write(documents: &dyn Documents, venue: &VenueKey, entry: &Publication) -> Result<()> {
    let body = serde_json::to_value(entry)
        .map_err(|error| StorageError::with_source(ErrorKind::Bug, "write an entry of the feed", error))?;
    let (collection, id) = (collection_of(venue, entry.number / BLOCK), id_of(entry.number));
    match documents
        .put(&venue.tenant, &collection, &id, &body, None)
        .await?
    {
        // There already: a number is given once, so it is the same.
        Flip::Done | Flip::Lost => Ok(()),
    }
}

fn read(body: Value) -> Result<Publication> {
    serde_json::from_value(body)
        .map_err(|error| StorageError::with_source(ErrorKind::Damaged, "read an entry of the feed", error))
}

fn collection_of(venue: &VenueKey, block: u64) -> String {
    format!("feed-{}-{block:08}", venue.venue)
}

/// Numbers as texts in their order.
fn id_of(number: u64) -> String {
    format!("{number:020}")
}
