//! Who is to be forgotten, held in memory: the one matcher that every reader uses.
//!
//! A name is hashed once per batch and class, and only in batches of venues and times that the ledger names, so a
//! platform without erasures pays for a look into an empty map. What is left after filtering has a dictionary of its
//! own, in which the names of those left out do not stand.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use dwell_model::event::{EventBatch, Kind, NO_TEXT, RawRows, StringId, field};
use dwell_model::ids::VenueKey;
use dwell_model::session::Session;
use dwell_model::time::{DAY_MS, TsMs};

use crate::api::{
    DeliveredRows, ErasedSubject, Erasure, Erasures, LedgerKey, LogChunk, SubjectClass, SubjectHash,
};
use crate::error::Result;

/// Whose a session is, as far as it tells by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// Of nobody to be forgotten.
    Others,
    /// The name and the time are theirs, but it may rest on events that are not covered alone: a session over all
    /// sensors does not say which saw it, nor one around a short stretch of time whether anything lies in that.
    PerhapsTheirs,
    /// It rests on events that are covered.
    Theirs,
}

/// The ledger up to an entry, ready to match.
#[derive(Debug, Clone, Default)]
pub struct ErasureFilter {
    number: u64,
    key: Option<LedgerKey>,
    venues: HashMap<VenueKey, Vec<ErasedSubject>>,
}

impl ErasureFilter {
    /// A filter of these entries, which follow each other from number 1 on.
    pub fn new(key: LedgerKey, entries: &[Erasure]) -> Self {
        let mut filter = Self {
            key: Some(key),
            ..Self::default()
        };
        filter.add(entries);
        filter
    }

    fn add(&mut self, entries: &[Erasure]) {
        for entry in entries {
            self.number = self.number.max(entry.number);
            let subjects = self.venues.entry(entry.erasure.venue.clone()).or_default();
            subjects.extend(entry.erasure.subjects.iter().cloned());
        }
    }

    /// Number of the last entry that it knows; 0 for an empty ledger.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether anybody of a venue is to be forgotten.
    pub fn names_anybody(&self, venue: &VenueKey) -> bool {
        self.venues.contains_key(venue)
    }

    /// Whether anybody of a venue is to be forgotten whose time overlaps a range.
    pub fn touches(&self, venue: &VenueKey, range: &Range<TsMs>) -> bool {
        let subjects = self.venues.get(venue).map_or(&[][..], Vec::as_slice);
        subjects
            .iter()
            .any(|subject| subject.from < range.end && range.start < subject.until)
    }

    /// The rows of a batch that stay; `None` when all do.
    pub fn kept(&self, venue: &VenueKey, events: &EventBatch) -> Option<Vec<u32>> {
        let mut matcher = Matcher::new(self, venue, events)?;
        let kept: Vec<u32> = (0..events.len() as u32)
            .filter(|&row| !matcher.is_erased(row as usize))
            .collect();
        (kept.len() < events.len()).then_some(kept)
    }

    /// The rows of a batch that are to be forgotten.
    pub fn erased(&self, venue: &VenueKey, events: &EventBatch) -> Vec<u32> {
        match Matcher::new(self, venue, events) {
            Some(mut matcher) => (0..events.len() as u32)
                .filter(|&row| matcher.is_erased(row as usize))
                .collect(),
            None => Vec::new(),
        }
    }

    /// The events that stay.
    pub fn apply_events(&self, venue: &VenueKey, events: EventBatch) -> EventBatch {
        match self.kept(venue, &events) {
            None => events,
            Some(rows) => pick_events(&events, &rows),
        }
    }

    /// The raw rows that stay, each with its deliveries.
    pub fn apply_raw(&self, venue: &VenueKey, rows: RawRows) -> RawRows {
        match self.kept(venue, &rows.events) {
            None => rows,
            Some(kept) => pick_raw(&rows, &kept),
        }
    }

    /// The rows on their way into the archive that stay, and the new place of what stood at `mark`.
    pub fn apply_delivered(
        &self,
        venue: &VenueKey,
        rows: DeliveredRows,
        mark: usize,
    ) -> (DeliveredRows, usize) {
        let Some(kept) = self.kept(venue, &rows.events) else {
            return (rows, mark);
        };
        let before_mark = kept.iter().take_while(|&&row| (row as usize) < mark).count();
        let picked = DeliveredRows {
            events: pick_events(&rows.events, &kept),
            delivery: kept.iter().map(|&row| rows.delivery[row as usize]).collect(),
            deliveries: rows.deliveries,
        };
        (picked, before_mark)
    }

    /// The records of a chunk without what is to be forgotten; records of which nothing stays are left out.
    pub fn apply_chunk(&self, mut chunk: LogChunk) -> LogChunk {
        if self.venues.is_empty() {
            return chunk;
        }
        for record in &mut chunk.records {
            if let Some(rows) = self.kept(&record.venue, &record.events) {
                record.events = pick_events(&record.events, &rows);
            }
        }
        chunk.records.retain(|record| !record.events.is_empty());
        chunk
    }

    /// Whether an erasure of a venue covers a track only where one sensor saw it, or from some time on: then a session
    /// may be [`PerhapsTheirs`](Whose::PerhapsTheirs).
    pub fn is_narrow(&self, venue: &VenueKey) -> bool {
        let is_narrow = |subject: &ErasedSubject| {
            subject.class == SubjectClass::Track && (subject.sensor.is_some() || subject.from > TsMs::MIN)
        };
        self.venues
            .get(venue)
            .is_some_and(|subjects| subjects.iter().any(is_narrow))
    }

    /// Whose a session is. Its first and its last event are events of its track; of what lies between only the times
    /// are known.
    pub fn whose(&self, venue: &VenueKey, session: &Session) -> Whose {
        let (Some(subjects), Some(key)) = (self.venues.get(venue), &self.key) else {
            return Whose::Others;
        };
        let track = key.hash(SubjectClass::Track, venue, &session.subject.track);
        let seen_by = session.subject.sensor.as_deref();
        let seen_by = seen_by.map(|sensor| key.hash(SubjectClass::Sensor, venue, sensor));
        let whose = |subject: &ErasedSubject| {
            let covers = |ts: TsMs| subject.from <= ts && ts < subject.until;
            if subject.class != SubjectClass::Track || subject.name != track {
                return Whose::Others;
            }
            let sensor = match (subject.sensor, seen_by) {
                (None, _) => Whose::Theirs,
                (Some(wanted), Some(seen_by)) if wanted == seen_by => Whose::Theirs,
                (Some(_), Some(_)) => Whose::Others,
                (Some(_), None) => Whose::PerhapsTheirs,
            };
            let time = match (covers(session.start), covers(session.end)) {
                (false, false) if session.start < subject.from && subject.until <= session.end => {
                    Whose::PerhapsTheirs
                }
                (false, false) => Whose::Others,
                _ => Whose::Theirs,
            };
            sensor.min(time)
        };
        subjects.iter().map(whose).max().unwrap_or(Whose::Others)
    }

    /// Whether a text that a store keeps by itself names somebody to be forgotten, at whatever time: a track, a
    /// pseudonym, or the key of a crossing with a track in it.
    pub fn names_text(&self, venue: &VenueKey, text: &str) -> bool {
        let (Some(subjects), Some(key)) = (self.venues.get(venue), &self.key) else {
            return false;
        };
        [Some(text), track_of_crossing(text)]
            .into_iter()
            .flatten()
            .any(|name| {
                let track = key.hash(SubjectClass::Track, venue, name);
                let device = key.hash(SubjectClass::Device, venue, name);
                subjects.iter().any(|subject| match subject.class {
                    SubjectClass::Track => subject.name == track,
                    SubjectClass::Device => subject.name == device,
                    SubjectClass::Sensor => false,
                })
            })
    }

    /// Whether bytes that were refused name somebody to be forgotten: as a value of JSON, or as a word between commas,
    /// quotes and white space. `received_at` stands in for an event time that cannot be read, and a sensor cannot be
    /// told apart there: rather a refused line too many than a person too few.
    pub fn names_bytes(&self, venue: &VenueKey, bytes: &[u8], received_at: TsMs) -> bool {
        let (Some(subjects), Some(key)) = (self.venues.get(venue), &self.key) else {
            return false;
        };
        let text = String::from_utf8_lossy(bytes);
        let json: Option<serde_json::Value> = serde_json::from_str(text.trim()).ok();
        let ts = json
            .as_ref()
            .and_then(|json| json.get("ts"))
            .and_then(serde_json::Value::as_i64);
        let is_covered = |subject: &ErasedSubject| match ts {
            Some(ts) => (subject.from..subject.until).contains(&ts),
            None => (subject.from..subject.until.saturating_add(DAY_MS)).contains(&received_at),
        };
        let covered: Vec<&ErasedSubject> = subjects.iter().filter(|subject| is_covered(subject)).collect();
        let is_named = |word: &str| {
            let track = key.hash(SubjectClass::Track, venue, word);
            let device = key.hash(SubjectClass::Device, venue, word);
            covered
                .iter()
                .any(|subject| subject.name == track || subject.name == device)
        };
        if covered.is_empty() {
            return false;
        }
        let mut words: Vec<String> = Vec::new();
        json.iter().for_each(|json| gather(json, &mut words));
        let is_separator =
            |c: char| c.is_whitespace() || matches!(c, ',' | ';' | '"' | '\'' | '|' | '\u{1f}');
        words.iter().any(|word| is_named(word))
            || text
                .split(is_separator)
                .filter(|word| !word.is_empty())
                .any(is_named)
    }
}

/// The track in the key of a crossing: line, direction, and `t` with the track, told apart by unit separators.
fn track_of_crossing(key: &str) -> Option<&str> {
    key.rsplit_once('\u{1f}')?.1.strip_prefix('t')
}

/// All texts and numbers of a JSON value.
fn gather(json: &serde_json::Value, words: &mut Vec<String>) {
    match json {
        serde_json::Value::String(text) => words.push(text.clone()),
        serde_json::Value::Number(number) => words.push(number.to_string()),
        serde_json::Value::Array(values) => values.iter().for_each(|value| gather(value, words)),
        serde_json::Value::Object(fields) => fields.values().for_each(|value| gather(value, words)),
        _ => {}
    }
}

/// Follows the ledger into a filter. Clones of the filter are cheap; entries are never taken back.
pub struct LedgerFollower {
    ledger: Arc<dyn Erasures>,
    filter: RwLock<Arc<ErasureFilter>>,
}

impl std::fmt::Debug for LedgerFollower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LedgerFollower")
            .field("number", &self.filter().number())
            .finish_non_exhaustive()
    }
}

impl LedgerFollower {
    /// A follower that has read nothing yet.
    pub fn new(ledger: Arc<dyn Erasures>) -> Self {
        Self {
            ledger,
            filter: RwLock::default(),
        }
    }

    /// The ledger that it follows.
    pub fn ledger(&self) -> &Arc<dyn Erasures> {
        &self.ledger
    }

    /// The ledger as far as it was read.
    pub fn filter(&self) -> Arc<ErasureFilter> {
        Arc::clone(&self.filter.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads on: the filter holds every entry that was appended before this call. One look for the next entry where
    /// there is none.
    pub async fn read_on(&self) -> Result<Arc<ErasureFilter>> {
        let known = self.filter();
        let news = self.ledger.read(known.number + 1).await?;
        if news.is_empty() {
            return Ok(known);
        }
        let mut next = ErasureFilter::clone(&known);
        if next.key.is_none() {
            next.key = Some(self.ledger.key().await?);
        }
        next.add(&news);
        let next = Arc::new(next);
        let mut filter = self.filter.write().unwrap_or_else(PoisonError::into_inner);
        // Another call may have read further meanwhile.
        if filter.number < next.number {
            *filter = Arc::clone(&next);
        }
        Ok(Arc::clone(&filter))
    }
}

/// Matches the rows of one batch. A name is hashed and looked up once; a row then costs a look at its number.
struct Matcher<'a> {
    events: &'a EventBatch,
    key: &'a LedgerKey,
    venue: &'a VenueKey,
    /// Those whom the batch can hold, by their hash.
    subjects: HashMap<SubjectHash, Vec<&'a ErasedSubject>>,
    class: SubjectClass,
    /// For each name of the dictionary whom it names; `None` until it is met.
    named: Vec<Option<Vec<&'a ErasedSubject>>>,
    sensors: HashMap<StringId, SubjectHash>,
}

impl<'a> Matcher<'a> {
    /// `None` when no row can match.
    fn new(filter: &'a ErasureFilter, venue: &'a VenueKey, events: &'a EventBatch) -> Option<Self> {
        let (subjects, key) = (filter.venues.get(venue)?, filter.key.as_ref()?);
        let class = match events.kind {
            Kind::Position | Kind::Crossing => SubjectClass::Track,
            Kind::Presence => SubjectClass::Device,
            Kind::Count | Kind::Transaction | Kind::Reading | Kind::Status => return None,
        };
        let first = events.ts.iter().copied().min()?;
        let last = events.ts.iter().copied().max()?;
        let mut possible: HashMap<SubjectHash, Vec<&ErasedSubject>> = HashMap::new();
        for subject in subjects {
            if subject.class == class && subject.from <= last && first < subject.until {
                possible.entry(subject.name).or_default().push(subject);
            }
        }
        (!possible.is_empty()).then(|| Self {
            events,
            key,
            venue,
            subjects: possible,
            class,
            named: vec![None; events.strings.len()],
            sensors: HashMap::new(),
        })
    }

    fn is_erased(&mut self, row: usize) -> bool {
        let name = match self.events.kind {
            Kind::Crossing => self.events.text_ids(field::crossing::TRACK)[row],
            _ => self.events.key[row],
        };
        if name == NO_TEXT {
            return false;
        }
        let (events, key, venue, class) = (self.events, self.key, self.venue, self.class);
        let hash_of = |class, id| key.hash(class, venue, events.strings.get(id));
        let (subjects, sensors) = (&self.subjects, &mut self.sensors);
        let named = self.named[name as usize].get_or_insert_with(|| {
            let found = subjects.get(&hash_of(class, name));
            found.cloned().unwrap_or_default()
        });
        let (ts, sensor) = (events.ts[row], events.sensor[row]);
        named.iter().any(|subject| {
            (subject.from..subject.until).contains(&ts)
                && subject.sensor.is_none_or(|wanted| {
                    let hash = sensors
                        .entry(sensor)
                        .or_insert_with(|| hash_of(SubjectClass::Sensor, sensor));
                    wanted == *hash
                })
        })
    }
}

/// Rows of a batch, with a dictionary of their own.
pub fn pick_events(events: &EventBatch, rows: &[u32]) -> EventBatch {
    let mut picked = EventBatch::new(events.kind);
    rows.iter()
        .for_each(|&row| picked.push_from(events, row as usize));
    picked
}

/// Raw rows with their deliveries, with a dictionary of their own.
pub fn pick_raw(rows: &RawRows, kept: &[u32]) -> RawRows {
    let mut picked = RawRows::new(EventBatch::new(rows.events.kind));
    picked.events = pick_events(&rows.events, kept);
    for &row in kept {
        picked.deliveries.extend_from_slice(rows.deliveries(row as usize));
        picked.ends.push(picked.deliveries.len() as u32);
    }
    picked
}

#[cfg(test)]
mod tests;
