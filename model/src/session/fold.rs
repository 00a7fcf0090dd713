//! The fold from a subject's events to sessions and zone visits.

use serde::{Deserialize, Serialize};

use super::{Session, SessionSink, Subject, ZoneVisit};
use crate::event::{EventBatch, StringId, field};
use crate::layout::{FoldRules, Layout, StaffTags, TrackScope, ZoneIndex, ZoneSet};
use crate::time::{DayCut, TsMs};

/// What the fold of one venue-day needs to know: zones, rules, the day's bounds.
#[derive(Debug, Clone)]
pub struct FoldContext {
    zones: ZoneIndex,
    blinks: FoldRules,
    day: (TsMs, TsMs),
    /// Sensors whose track ids are their own, sorted.
    scoped_sensors: Vec<String>,
    staff_tags: StaffTags,
}

/// A position on its way into the fold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PositionEvent<'a> {
    /// Event time.
    pub ts: TsMs,
    /// Metres.
    pub x: f32,
    /// Metres.
    pub y: f32,
    /// The floor, if the event names one.
    pub floor: Option<&'a str>,
}

/// The state of one subject between two of its events. Small and storable, so that the speed layer can keep and clone it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubjectFold {
    subject: Subject,
    open: Option<OpenSession>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct OpenSession {
    is_staff: bool,
    start: TsMs,
    last_ts: TsMs,
    last_x: f32,
    last_y: f32,
    last_floor: Option<String>,
    points: u64,
    path_um: u64,
    /// Zones that hold the last event.
    inside: ZoneSet,
    /// Visits that have begun, each zone's last one still open to further runs; by zone.
    running: Vec<RunningVisit>,
    /// Visits that no further run can join.
    done: Vec<ZoneVisit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct RunningVisit {
    zone: u16,
    enter: TsMs,
    /// Last instant inside; not kept up while the subject is inside.
    exit: TsMs,
}

impl FoldContext {
    /// The context of a day under the layout in force.
    pub fn new(cut: &DayCut, layout: &Layout) -> Self {
        let scoped = layout
            .sensors
            .iter()
            .filter(|sensor| sensor.track_scope == TrackScope::Sensor);
        Self {
            zones: ZoneIndex::build(layout),
            blinks: layout.rules,
            day: (cut.start, cut.end),
            scoped_sensors: scoped.map(|sensor| sensor.id.clone()).collect(),
            staff_tags: StaffTags::of(layout),
        }
    }

    /// The zones, for asking where somebody is.
    pub fn zones(&self) -> &ZoneIndex {
        &self.zones
    }

    /// The rules.
    pub fn rules(&self) -> &FoldRules {
        &self.blinks
    }

    /// Whether a sensor's track ids are its own.
    pub fn is_scoped(&self, sensor: &str) -> bool {
        self.scoped_sensors
            .binary_search_by(|known| known.as_str().cmp(sensor))
            .is_ok()
    }

    /// The subject of a position.
    pub fn subject(&self, sensor: &str, track: &str) -> Subject {
        Subject {
            track: track.to_owned(),
            sensor: self.is_scoped(sensor).then(|| sensor.to_owned()),
        }
    }
}

impl SubjectFold {
    /// A subject of whom nothing has been seen.
    pub fn new(subject: Subject) -> Self {
        Self { subject, open: None }
    }

    /// Who it is.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Time of the last event of the open session.
    pub fn last_ts(&self) -> Option<TsMs> {
        self.open.as_ref().map(|open| open.last_ts)
    }

    /// The zones that hold the last event of the open session.
    pub fn zones_now(&self) -> Option<&ZoneSet> {
        self.open.as_ref().map(|open| &open.inside)
    }

    /// Takes the subject's next event in the order (ts, sensor).
    #[inline]
    pub fn push(&mut self, context: &FoldContext, event: &PositionEvent<'_>, sink: &mut impl SessionSink) {
        if let Some(open) = &mut self.open {
            if event.ts - open.last_ts <= context.blinks.session_gap_ms {
                open.extend(context, event, sink);
                return;
            }
            self.finish(context, sink);
        }
        let is_staff = context.staff_tags.contains(&self.subject.track);
        self.open = Some(OpenSession::begin(context, event, is_staff));
    }

    /// Ends the open session, if there is one.
    pub fn finish(&mut self, context: &FoldContext, sink: &mut impl SessionSink) {
        if let Some(open) = self.open.take() {
            sink.session(open.close(context, self.subject.clone()));
        }
    }

    /// The open session as if its last event were the last of the day.
    pub fn snapshot(&self, context: &FoldContext) -> Option<Session> {
        let open = self.open.clone()?;
        Some(open.close(context, self.subject.clone()))
    }
}

impl OpenSession {
    fn begin(context: &FoldContext, event: &PositionEvent<'_>, is_staff: bool) -> Self {
        let mut inside = ZoneSet::empty(context.zones.zones());
        context.zones.zones_at(event.x, event.y, event.floor, &mut inside);
        let running = inside
            .iter()
            .map(|zone| RunningVisit {
                zone: zone as u16,
                enter: event.ts,
                exit: event.ts,
            })
            .collect();
        Self {
            is_staff,
            start: event.ts,
            last_ts: event.ts,
            last_x: event.x,
            last_y: event.y,
            last_floor: event.floor.map(str::to_owned),
            points: 1,
            path_um: 0,
            inside,
            running,
            done: Vec::new(),
        }
    }

    #[inline]
    fn extend(&mut self, context: &FoldContext, event: &PositionEvent<'_>, sink: &mut impl SessionSink) {
        let before = PositionEvent {
            ts: self.last_ts,
            x: self.last_x,
            y: self.last_y,
            floor: self.last_floor.as_deref(),
        };
        sink.stay(&before, event.ts - self.last_ts, self.is_staff);
        let (dx, dy) = (
            f64::from(event.x) - f64::from(self.last_x),
            f64::from(event.y) - f64::from(self.last_y),
        );
        // Whole micrometres: their sum does not depend on the order of adding. Casting saturates.
        self.path_um = self
            .path_um
            .saturating_add(((dx * dx + dy * dy).sqrt() * 1e6 + 0.5) as u64);
        if context.zones.is_one_word() {
            let inside = context.zones.word_at(event.x, event.y, event.floor);
            if inside != self.inside.first_word() {
                let mut zones = ZoneSet::empty(context.zones.zones());
                zones.set_first_word(inside);
                self.change_zones(context, event.ts, zones);
            }
        } else {
            let mut zones = ZoneSet::empty(context.zones.zones());
            context.zones.zones_at(event.x, event.y, event.floor, &mut zones);
            if zones != self.inside {
                self.change_zones(context, event.ts, zones);
            }
        }
        self.last_ts = event.ts;
        self.last_x = event.x;
        self.last_y = event.y;
        if self.last_floor.as_deref() != event.floor {
            self.last_floor = event.floor.map(str::to_owned);
        }
        self.points += 1;
    }

    /// The subject has left some zones after its last event, or entered some with this one.
    fn change_zones(&mut self, context: &FoldContext, ts: TsMs, now: ZoneSet) {
        for visit in &mut self.running {
            if self.inside.contains(usize::from(visit.zone)) && !now.contains(usize::from(visit.zone)) {
                visit.exit = self.last_ts;
            }
        }
        for zone in now.iter().filter(|&zone| !self.inside.contains(zone)) {
            let fresh = RunningVisit {
                zone: zone as u16,
                enter: ts,
                exit: ts,
            };
            match self
                .running
                .iter_mut()
                .find(|visit| usize::from(visit.zone) == zone)
            {
                None => self.running.push(fresh),
                // A short absence: the visit goes on.
                Some(visit) if ts - visit.exit <= context.blinks.zone_blink_ms => {}
                Some(visit) => {
                    self.done.push(ZoneVisit {
                        enter: visit.enter,
                        exit: visit.exit,
                        zone: visit.zone,
                    });
                    *visit = fresh;
                }
            }
        }
        self.inside = now;
    }

    fn close(self, context: &FoldContext, subject: Subject) -> Session {
        let mut visits = self.done;
        visits.extend(self.running.iter().map(|visit| {
            let still_inside = self.inside.contains(usize::from(visit.zone));
            let exit = if still_inside { self.last_ts } else { visit.exit };
            ZoneVisit {
                enter: visit.enter,
                exit,
                zone: visit.zone,
            }
        }));
        // Zones are sorted by id, so their indexes compare like their ids.
        visits.sort_unstable();
        let (day_start, day_end) = context.day;
        let gap = context.blinks.session_gap_ms;
        Session {
            subject,
            start: self.start,
            end: self.last_ts,
            points: self.points,
            path_um: self.path_um,
            continued_in: self.start - day_start <= gap,
            continued_out: day_end - self.last_ts <= gap,
            visits,
        }
    }
}

/// Folds a venue-day that arrives in chunks sorted by (track, ts, sensor), cut anywhere. All chunks share one growing
/// dictionary.
#[derive(Debug)]
pub struct DayFold<'a> {
    context: &'a FoldContext,
    track: Option<StringId>,
    /// The track's subject in the venue's scope, and those of sensors whose ids are their own.
    folds: Vec<(Option<StringId>, SubjectFold)>,
}

impl<'a> DayFold<'a> {
    /// A fold that has seen nothing.
    pub fn new(context: &'a FoldContext) -> Self {
        Self {
            context,
            track: None,
            folds: Vec::new(),
        }
    }

    /// Takes the next chunk: the batch's `rows`, or all of them in their order.
    pub fn push_chunk(&mut self, batch: &EventBatch, rows: Option<&[u32]>, sink: &mut impl SessionSink) {
        match rows {
            Some(rows) => rows.iter().for_each(|&row| self.push(batch, row as usize, sink)),
            None => (0..batch.len()).for_each(|row| self.push(batch, row, sink)),
        }
    }

    /// Ends all sessions.
    pub fn finish(mut self, sink: &mut impl SessionSink) {
        self.end_track(sink);
    }

    #[inline]
    fn push(&mut self, batch: &EventBatch, row: usize, sink: &mut impl SessionSink) {
        let (track, sensor) = (batch.key[row], batch.sensor[row]);
        if self.track != Some(track) {
            self.end_track(sink);
            self.track = Some(track);
        }
        let scope = if self.context.scoped_sensors.is_empty() {
            None
        } else {
            self.context
                .is_scoped(batch.strings.get(sensor))
                .then_some(sensor)
        };
        let known = self.folds.iter().position(|(of, _)| *of == scope);
        let at = known.unwrap_or_else(|| {
            let subject = Subject {
                track: batch.strings.get(track).to_owned(),
                sensor: scope.map(|sensor| batch.strings.get(sensor).to_owned()),
            };
            self.folds.push((scope, SubjectFold::new(subject)));
            self.folds.len() - 1
        });
        let event = PositionEvent {
            ts: batch.ts[row],
            x: batch.f32s(field::position::X)[row],
            y: batch.f32s(field::position::Y)[row],
            floor: batch.text(field::position::FLOOR, row),
        };
        self.folds[at].1.push(self.context, &event, sink);
    }

    fn end_track(&mut self, sink: &mut impl SessionSink) {
        for (_, mut fold) in self.folds.drain(..) {
            fold.finish(self.context, sink);
        }
    }
}

/// Folds a whole venue-day: the batch's `rows`, sorted by (track, ts, sensor).
pub fn fold_day(context: &FoldContext, batch: &EventBatch, rows: &[u32], sink: &mut impl SessionSink) {
    let mut fold = DayFold::new(context);
    fold.push_chunk(batch, Some(rows), sink);
    fold.finish(sink);
}
