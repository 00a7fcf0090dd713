//! The model's folds, fed with chunks of a day.

use std::collections::BTreeMap;

use dwell_model::event::{Checksum, Delivery, EventBatch, Fingerprinter, Kind, RawRows, Resolution, resolve};
use dwell_model::exclusion::{BatchExclusions, DayExclusions};
use dwell_model::layout::Layout;
use dwell_model::metrics::{Carry, DayAccumulator};
use dwell_model::session::{DayFold, FoldContext, PositionEvent, Session, SessionSink, session_id};
use dwell_model::time::{DayCut, LocalDay, TsMs};
use dwell_storage::api::StoredSession;

use super::{Computed, Excluded};
use crate::late::Late;

/// Takes a day's winners kind by kind, each kind in the order (key, ts, sensor), and gives what they come to.
pub(super) struct DayFolder<'a> {
    bounds: (TsMs, TsMs),
    fold: DayFold<'a>,
    gathered: Gathered,
    events: BTreeMap<Kind, Checksum>,
    conflicts: u64,
    late: Late,
    fingerprinter: Fingerprinter,
    /// Winners of the parts of one kind, one after the other, under one dictionary.
    winners: Option<EventBatch>,
    /// Rows of a chunk that are folded; kept for its memory.
    kept: Vec<u32>,
    exclusions: DayExclusions,
    excluded: Excluded,
}

impl<'a> DayFolder<'a> {
    pub(super) fn new(context: &'a FoldContext, cut: &DayCut, layout: &Layout, carry_in: Carry) -> Self {
        let mut accumulator = DayAccumulator::new(cut, layout);
        accumulator.set_carry(carry_in);
        Self {
            bounds: (cut.start, cut.end),
            fold: DayFold::new(context),
            gathered: Gathered {
                day: cut.day,
                accumulator,
                sessions: Vec::new(),
            },
            events: BTreeMap::new(),
            conflicts: 0,
            late: Late::default(),
            fingerprinter: Fingerprinter::new(),
            winners: None,
            kept: Vec::new(),
            exclusions: DayExclusions::default(),
            excluded: Excluded::default(),
        }
    }

    /// From when on a received event was too late for the generation before.
    pub(super) fn late_after(&mut self, published: Option<TsMs>) {
        self.late.after = published;
    }

    /// Leaves out the deliveries that these cover.
    pub(super) fn exclude(&mut self, exclusions: DayExclusions) {
        self.exclusions = exclusions;
    }

    /// Takes a chunk of archived winners; all chunks of a kind share one growing dictionary. `first` is empty where
    /// deliveries were not read; a covered one is its winner's only delivery. The kind's checksum is told by
    /// [`count`](Self::count), less the rows that are left out here.
    pub(super) fn chunk(&mut self, events: &EventBatch, first: &[Delivery]) {
        let (start, end) = self.bounds;
        let within = |ts: &TsMs| (start..end).contains(ts);
        let exclusions = self.exclusions.on(events);
        if exclusions.is_empty() && events.ts.iter().all(within) {
            self.fold(events, None);
            self.late.see(events, None, first);
            return;
        }
        let mut kept = std::mem::take(&mut self.kept);
        kept.clear();
        let mut left_out = Checksum::default();
        for row in 0..events.len() {
            // Rows outside of the day are a neighbour's now: the venue's cut was changed after they were archived.
            let is_inside = within(&events.ts[row]);
            if is_inside && !self.is_excluded(&exclusions, events, row, first.get(row)) {
                kept.push(row as u32);
            } else {
                left_out.add(self.fingerprinter.event_hash(events, row));
            }
        }
        let rows = (kept.len() < events.len()).then_some(kept.as_slice());
        self.fold(events, rows);
        self.late.see(events, rows, first);
        self.kept = kept;
        let sum = self.events.entry(events.kind).or_default();
        sum.rows = sum.rows.wrapping_sub(left_out.rows);
        sum.sum = sum.sum.wrapping_sub(left_out.sum);
    }

    /// Adds the checksum of all archived chunks of a kind.
    pub(super) fn count(&mut self, kind: Kind, sum: Checksum) {
        let counted = self.events.entry(kind).or_default();
        counted.rows = counted.rows.wrapping_add(sum.rows);
        counted.sum = counted.sum.wrapping_add(sum.sum);
    }

    /// Adds identities with more than one payload.
    pub(super) fn conflicts(&mut self, conflicts: u64) {
        self.conflicts += conflicts;
    }

    /// Takes a part of a kind's rows with their deliveries, decides which of them count, and folds these. Parts of a
    /// kind follow each other in the order (key, ts) and share no identity.
    pub(super) fn part(&mut self, rows: &RawRows) {
        let exclusions = self.exclusions.on(&rows.events);
        let resolved = resolve(rows, |row, delivery| {
            exclusions.covers(&rows.events, row, delivery)
        });
        if !exclusions.is_empty() {
            self.note_excluded(&exclusions, rows, &resolved);
        }
        self.conflicts += resolved.conflicts;
        let winners = rows.events.take(&resolved.winners);
        let sum = self.fingerprinter.checksum(&winners);
        self.events.entry(winners.kind).or_default().merge(sum);
        // The fold knows tracks by number, so a track that goes on in the next part must keep its number.
        let all = match self.winners.take() {
            Some(mut all) if all.kind == winners.kind => {
                all.clear();
                all.append(&winners);
                all
            }
            _ => winners,
        };
        self.fold(&all, None);
        self.late.see(&all, None, &resolved.first);
        self.winners = Some(all);
    }

    pub(super) fn finish(mut self) -> Computed {
        self.fold.finish(&mut self.gathered);
        self.events.retain(|_, sum| sum.rows > 0);
        Computed {
            rows: self.gathered.accumulator.rows(),
            carry: self.gathered.accumulator.carry_out(),
            sessions: self.gathered.sessions,
            events: self.events,
            conflicts: self.conflicts,
            late: self.late.found(),
            excluded: self.excluded,
        }
    }

    /// Whether a winner's only delivery is covered; counts it then.
    fn is_excluded(
        &mut self,
        exclusions: &BatchExclusions,
        events: &EventBatch,
        row: usize,
        only: Option<&Delivery>,
    ) -> bool {
        let Some(only) = only.filter(|_| !exclusions.is_empty()) else {
            return false;
        };
        if !note_covering(
            &self.exclusions,
            exclusions,
            events,
            row,
            only,
            &mut self.excluded,
        ) {
            return false;
        }
        *self.excluded.events.entry(events.kind).or_default() += 1;
        true
    }

    /// Counts what exclusions took out of a part: events that are gone, and payloads that came back.
    fn note_excluded(&mut self, exclusions: &BatchExclusions, rows: &RawRows, left: &Resolution) {
        let events = &rows.events;
        let mut is_touched = false;
        for row in 0..rows.len() {
            for delivery in rows.deliveries(row) {
                is_touched |= note_covering(
                    &self.exclusions,
                    exclusions,
                    events,
                    row,
                    delivery,
                    &mut self.excluded,
                );
            }
        }
        if !is_touched {
            return;
        }
        // Both lists are in the order (key, ts, sensor), and the second has a part of the first's identities.
        let all = resolve(rows, |_, _| false).winners;
        let mut left = left.winners.iter().map(|&row| row as usize).peekable();
        let identity = |row: usize| (events.key[row], events.ts[row], events.sensor[row]);
        for before in all.into_iter().map(|row| row as usize) {
            match left.next_if(|&row| identity(row) == identity(before)) {
                None => *self.excluded.events.entry(events.kind).or_default() += 1,
                Some(now) => {
                    let is_other = self.fingerprinter.compare_payloads(events, before, now).is_ne();
                    self.excluded.restored += u64::from(is_other);
                }
            }
        }
    }

    fn fold(&mut self, events: &EventBatch, rows: Option<&[u32]>) {
        if events.kind == Kind::Position {
            self.gathered.accumulator.observe_positions(events, rows);
            self.fold.push_chunk(events, rows, &mut self.gathered);
        } else {
            self.gathered.accumulator.add_events(events, rows);
        }
    }
}

/// Whether a delivery is covered; notes by which exclusions.
fn note_covering(
    day: &DayExclusions,
    exclusions: &BatchExclusions,
    events: &EventBatch,
    row: usize,
    delivery: &Delivery,
    excluded: &mut Excluded,
) -> bool {
    let mut is_covered = false;
    for place in exclusions.covering(events, row, delivery) {
        is_covered = true;
        let id = &day.rules()[place].id;
        if !excluded.by.contains(id) {
            excluded.by.insert(id.clone());
        }
    }
    is_covered
}

/// Sessions go into the buckets and into the list.
struct Gathered {
    day: LocalDay,
    accumulator: DayAccumulator,
    sessions: Vec<StoredSession>,
}

impl SessionSink for Gathered {
    fn session(&mut self, session: Session) {
        self.accumulator.add_session(&session);
        let id = session_id(self.day, &session.subject, session.start);
        self.sessions.push(StoredSession { id, session });
    }

    #[inline]
    fn stay(&mut self, at: &PositionEvent<'_>, duration_ms: i64, is_staff: bool) {
        self.accumulator.stay(at, duration_ms, is_staff);
    }
}
