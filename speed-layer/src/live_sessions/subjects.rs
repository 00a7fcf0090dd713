//! The people of one open day: for each subject its fold, and its events that still wait in the reorder window.
//!
//! Order matters only within a subject, so every subject has its own little queue instead of all sharing a large one.
//! [`Subjects::accept`] puts an event into its subject's queue, at its place by (ts, sensor). [`Subjects::settle`]
//! moves what lies before the watermark into the folds and closes sessions that nothing can extend any more.
//! [`Subjects::provisional`] shows what the day would be if all that waits were settled now.
//!
//! A late event is no problem as long as nothing after it was settled for its subject. Where something was, only a
//! rebuild helps, and [`Accepted::TooLate`] says so.

use dwell_model::event::{EventBatch, NO_TEXT, StringId, Strings, field};
use dwell_model::layout::ZoneSet;
use dwell_model::session::{FoldContext, PositionEvent, SessionSink, Subject, SubjectFold};
use dwell_model::time::TsMs;
use hashbrown::HashTable;

/// Subjects without an open session whose end is remembered; of the earliest ones beyond, only that they were.
const CLOSED_MAX: usize = 1 << 20;
/// Dictionary size at which names that no waiting event uses are thrown away.
const NAMES_MAX: usize = 1 << 16;
/// No slot is known yet.
const UNKNOWN: u32 = u32::MAX;

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// It waits at its place.
    Waiting,
    /// Events after it have been settled: its day must be rebuilt.
    TooLate,
}

/// Subjects with open sessions or waiting events.
#[derive(Debug, Default)]
pub(crate) struct Subjects {
    slots: Vec<Slot>,
    /// Slots by the hash of their subject.
    index: HashTable<u32>,
    /// Names of the sensors and floors of waiting events.
    names: Strings,
    waiting: usize,
    closed: Closed,
    /// For the batch in work, by its numbers of names: the slots of tracks, and our numbers of sensors.
    batch_slots: Vec<u32>,
    batch_sensors: Vec<StringId>,
}

#[derive(Debug)]
struct Slot {
    hash: u64,
    fold: SubjectFold,
    /// Sensor of the last event in the fold.
    settled_sensor: StringId,
    /// Sorted by (ts, sensor).
    waiting: Vec<WaitingEvent>,
    /// The last event, settled or waiting: its time and zones. Kept by [`Subjects::provisional`].
    last: Option<(TsMs, ZoneSet)>,
}

#[derive(Debug, Clone, Copy)]
struct WaitingEvent {
    ts: TsMs,
    x: f32,
    y: f32,
    sensor: StringId,
    floor: StringId,
}

/// Ends of the last sessions of subjects that have no slot. Subjects whose hashes are equal share an entry, which may
/// cost a rebuild and changes no number.
#[derive(Debug, Default)]
struct Closed {
    ends: HashTable<(u64, TsMs)>,
    /// Sessions that ended before this may have been forgotten.
    forgotten_before: Option<TsMs>,
}

impl Subjects {
    /// Whether nobody has an open session or waiting events.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Events in the reorder window.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Prepares for the events of a batch.
    pub(crate) fn begin_batch(&mut self, batch: &EventBatch) {
        self.batch_slots.clear();
        self.batch_slots.resize(batch.strings.len(), UNKNOWN);
        self.batch_sensors.clear();
        self.batch_sensors.resize(batch.strings.len(), NO_TEXT);
    }

    /// Takes an event of the batch that was begun. `track_hash` names the track; equal tracks have equal hashes.
    pub(crate) fn accept(
        &mut self,
        context: &FoldContext,
        batch: &EventBatch,
        row: usize,
        track_hash: u64,
    ) -> Accepted {
        let (ts, gap_ms) = (batch.ts[row], context.rules().session_gap_ms);
        let slot = match self.slot_of(context, batch, row, track_hash) {
            Ok(slot) => {
                let known = &self.slots[slot as usize];
                if known.fold.last_ts().is_none() && self.closed.may_touch(known.hash, ts, gap_ms) {
                    return Accepted::TooLate;
                }
                slot
            }
            Err((hash, _)) if self.closed.may_touch(hash, ts, gap_ms) => return Accepted::TooLate,
            Err((hash, subject)) => self.add(hash, subject),
        };
        if !context.is_scoped(batch.sensor(row)) {
            self.batch_slots[batch.key[row] as usize] = slot;
        }
        let sensor = &mut self.batch_sensors[batch.sensor[row] as usize];
        if *sensor == NO_TEXT {
            *sensor = self.names.intern(batch.sensor(row));
        }
        let sensor = *sensor;
        let floor = batch.text_ids(field::position::FLOOR)[row];
        let event = WaitingEvent {
            ts,
            x: batch.f32s(field::position::X)[row],
            y: batch.f32s(field::position::Y)[row],
            sensor,
            floor: if floor == NO_TEXT {
                NO_TEXT
            } else {
                self.names.intern(batch.strings.get(floor))
            },
        };
        self.queue(slot, event)
    }

    /// Moves events before `before` into the folds, in their order, and closes the sessions that no event from there
    /// on can extend.
    pub(crate) fn settle(&mut self, context: &FoldContext, before: TsMs, sink: &mut impl SessionSink) {
        let gap_ms = context.rules().session_gap_ms;
        self.settle_and_close(context, before, sink, |last_ts| {
            before.saturating_sub(last_ts) > gap_ms
        });
    }

    /// Settles everything and ends all sessions: the day is over.
    pub(crate) fn finish(&mut self, context: &FoldContext, sink: &mut impl SessionSink) {
        self.settle_and_close(context, TsMs::MAX, sink, |_| true);
    }

    /// Closes the sessions that were heard of longest ago until at most `keep` are left, although events may still
    /// extend them. Returns how many it closed.
    pub(crate) fn cut(&mut self, context: &FoldContext, keep: usize, sink: &mut impl SessionSink) -> usize {
        let before = self.slots.len();
        if before <= keep {
            return 0;
        }
        let mut lasts: Vec<TsMs> = self.slots.iter().filter_map(Slot::last_settled_ts).collect();
        if lasts.is_empty() {
            return 0;
        }
        let nth = (before - keep).min(lasts.len()) - 1;
        let (_, &mut newest_cut, _) = lasts.select_nth_unstable(nth);
        self.settle_and_close(context, TsMs::MIN, sink, |last_ts| last_ts <= newest_cut);
        before - self.slots.len()
    }

    /// The time before which half of the waiting events lie; `None` when none waits.
    pub(crate) fn median_waiting_ts(&self) -> Option<TsMs> {
        let mut times: Vec<TsMs> = self
            .slots
            .iter()
            .flat_map(|slot| &slot.waiting)
            .map(|event| event.ts)
            .collect();
        let middle = times.len() / 2;
        (!times.is_empty()).then(|| *times.select_nth_unstable(middle).1)
    }

    /// Gives the sink what the open sessions would be if all that waits were settled and nothing more came, and brings
    /// up to date where everybody is.
    pub(crate) fn provisional(&mut self, context: &FoldContext, sink: &mut impl SessionSink) {
        for slot in &mut self.slots {
            let ahead = (!slot.waiting.is_empty()).then(|| {
                let mut fold = slot.fold.clone();
                for event in &slot.waiting {
                    fold.push(context, &event.resolve(&self.names), sink);
                }
                fold
            });
            let fold = ahead.as_ref().unwrap_or(&slot.fold);
            slot.last = fold.last_ts().zip(fold.zones_now().cloned());
            if let Some(session) = fold.snapshot(context) {
                sink.session(session);
            }
        }
    }

    /// The people whose last event is no longer ago than the session gap: a hash of who, and the zones that they are
    /// in, as of the last [`provisional`](Self::provisional).
    pub(crate) fn present(&self, context: &FoldContext, now: TsMs) -> impl Iterator<Item = (u64, &ZoneSet)> {
        let gap_ms = context.rules().session_gap_ms;
        let last = self
            .slots
            .iter()
            .filter_map(|slot| slot.last.as_ref().map(|last| (slot.hash, last)));
        last.filter(move |(_, (ts, _))| now.saturating_sub(*ts) <= gap_ms)
            .map(|(hash, (_, zones))| (hash, zones))
    }

    /// The slot of an event's subject, or the subject to be added.
    fn slot_of(
        &self,
        context: &FoldContext,
        batch: &EventBatch,
        row: usize,
        track_hash: u64,
    ) -> Result<u32, (u64, Subject)> {
        let (sensor, track) = (batch.sensor(row), batch.key(row));
        let scoped = context.is_scoped(sensor);
        let cached = self.batch_slots[batch.key[row] as usize];
        if !scoped && cached != UNKNOWN {
            return Ok(cached);
        }
        let hash = if scoped {
            track_hash.rotate_left(17) ^ foldhash_text(sensor)
        } else {
            track_hash
        };
        let same = |&slot: &u32| {
            let subject = self.slots[slot as usize].fold.subject();
            subject.track == track && subject.sensor.as_deref() == scoped.then_some(sensor)
        };
        self.index
            .find(hash, same)
            .copied()
            .ok_or_else(|| (hash, context.subject(sensor, track)))
    }

    fn add(&mut self, hash: u64, subject: Subject) -> u32 {
        let slot = self.slots.len() as u32;
        self.slots.push(Slot {
            hash,
            fold: SubjectFold::new(subject),
            settled_sensor: NO_TEXT,
            waiting: Vec::new(),
            last: None,
        });
        let slots = &self.slots;
        self.index
            .insert_unique(hash, slot, |&slot| slots[slot as usize].hash);
        slot
    }

    fn queue(&mut self, slot: u32, event: WaitingEvent) -> Accepted {
        let names = &self.names;
        let slot = &mut self.slots[slot as usize];
        let order = |ts: TsMs, sensor: StringId| {
            ts.cmp(&event.ts).then_with(|| match sensor == event.sensor {
                true => std::cmp::Ordering::Equal,
                false => names
                    .get(sensor)
                    .as_bytes()
                    .cmp(names.get(event.sensor).as_bytes()),
            })
        };
        if let Some(last_ts) = slot.fold.last_ts()
            && order(last_ts, slot.settled_sensor).is_ge()
        {
            return Accepted::TooLate;
        }
        let place = match slot.waiting.last() {
            None => 0,
            Some(last) if order(last.ts, last.sensor).is_lt() => slot.waiting.len(),
            Some(_) => slot
                .waiting
                .partition_point(|other| order(other.ts, other.sensor).is_lt()),
        };
        // Only where identities are no longer remembered can one come here twice.
        if slot
            .waiting
            .get(place)
            .is_some_and(|other| order(other.ts, other.sensor).is_eq())
        {
            return Accepted::TooLate;
        }
        slot.waiting.insert(place, event);
        self.waiting += 1;
        Accepted::Waiting
    }

    fn settle_and_close(
        &mut self,
        context: &FoldContext,
        before: TsMs,
        sink: &mut impl SessionSink,
        closes: impl Fn(TsMs) -> bool,
    ) {
        let mut i = 0;
        while i < self.slots.len() {
            let slot = &mut self.slots[i];
            let due = slot.waiting.partition_point(|event| event.ts < before);
            for event in slot.waiting.drain(..due) {
                slot.fold.push(context, &event.resolve(&self.names), sink);
                slot.settled_sensor = event.sensor;
            }
            self.waiting -= due;
            let ended = slot
                .fold
                .last_ts()
                .filter(|&last_ts| slot.waiting.is_empty() && closes(last_ts));
            match ended {
                None => i += 1,
                Some(end) => {
                    slot.fold.finish(context, sink);
                    self.closed.note(slot.hash, end);
                    self.remove(i);
                }
            }
        }
        self.closed.stay_bounded();
        self.forget_names();
    }

    /// Removes a slot; the last one takes its place.
    fn remove(&mut self, slot: usize) {
        let (removed, moved) = (slot as u32, self.slots.len() as u32 - 1);
        if let Ok(entry) = self
            .index
            .find_entry(self.slots[slot].hash, |&other| other == removed)
        {
            entry.remove();
        }
        self.slots.swap_remove(slot);
        if moved != removed
            && let Some(entry) = self
                .index
                .find_mut(self.slots[slot].hash, |&other| other == moved)
        {
            *entry = removed;
        }
    }

    /// Sensors and floors are few; a source that names ever new ones must not fill the memory.
    fn forget_names(&mut self) {
        if self.names.len() <= NAMES_MAX {
            return;
        }
        let mut kept = Strings::new();
        let old = &self.names;
        let mut translate = |id: &mut StringId| {
            if *id != NO_TEXT {
                *id = kept.intern(old.get(*id));
            }
        };
        for slot in &mut self.slots {
            translate(&mut slot.settled_sensor);
            for event in &mut slot.waiting {
                translate(&mut event.sensor);
                translate(&mut event.floor);
            }
        }
        self.names = kept;
    }
}

impl Slot {
    /// Time of the last settled event, where nothing waits.
    fn last_settled_ts(&self) -> Option<TsMs> {
        self.fold.last_ts().filter(|_| self.waiting.is_empty())
    }
}

impl WaitingEvent {
    fn resolve<'a>(&self, names: &'a Strings) -> PositionEvent<'a> {
        let floor = (self.floor != NO_TEXT).then(|| names.get(self.floor));
        PositionEvent {
            ts: self.ts,
            x: self.x,
            y: self.y,
            floor,
        }
    }
}

impl Closed {
    /// Whether an event of a subject without a slot could belong to, or come before the end of, a session that was
    /// closed.
    fn may_touch(&self, hash: u64, ts: TsMs, gap_ms: i64) -> bool {
        let known = self
            .ends
            .find(hash, |(other, _)| *other == hash)
            .map(|(_, end)| *end);
        let end = known.or(self.forgotten_before);
        end.is_some_and(|end| ts <= end.saturating_add(gap_ms))
    }

    fn note(&mut self, hash: u64, end: TsMs) {
        match self.ends.find_mut(hash, |(other, _)| *other == hash) {
            Some((_, known)) => *known = end.max(*known),
            None => {
                self.ends.insert_unique(hash, (hash, end), |(hash, _)| *hash);
            }
        }
    }

    fn stay_bounded(&mut self) {
        if self.ends.len() <= CLOSED_MAX {
            return;
        }
        let mut ends: Vec<TsMs> = self.ends.iter().map(|(_, end)| *end).collect();
        let middle = ends.len() / 2;
        let (_, &mut median, _) = ends.select_nth_unstable(middle);
        self.ends.retain(|(_, end)| *end > median);
        self.forgotten_before = self.forgotten_before.max(Some(median));
    }
}

fn foldhash_text(text: &str) -> u64 {
    use std::hash::BuildHasher;
    foldhash::quality::FixedState::default().hash_one(text)
}

#[cfg(test)]
mod tests;
