//! Where events go once they are decoded: a batch per venue and kind, or the list of the refused.

mod append;

use std::fmt;
use std::sync::Arc;

use dwell_model::event::{EventBatch, Kind};
use dwell_model::ids::VenueId;
use dwell_model::time::TsMs;
use hashbrown::HashMap;

use super::{DecodeRules, FieldSet, WireEvent, WireField};
use crate::refusal::{Code, DeviceSpot, Keep, Place, Problem, Refusal};
use crate::validate;
use append::Appender;
pub(crate) use append::Ordinals;

/// Most names of venues whose verdict is remembered; a message with more asks again.
const VENUES_REMEMBERED: usize = 10_000;

/// Whether events of a venue are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VenueVerdict {
    /// Yes.
    Known,
    /// There is no such venue.
    Unknown,
    /// The sender may not post to it.
    NotAllowed,
}

/// Tells which venues there are. Asked once per venue and message.
pub trait VenueLookup: Send + Sync {
    /// The verdict on a venue.
    fn find(&self, venue: &VenueId) -> VenueVerdict;
}

impl<F: Fn(&VenueId) -> VenueVerdict + Send + Sync> VenueLookup for F {
    fn find(&self, venue: &VenueId) -> VenueVerdict {
        self(venue)
    }
}

/// Events of one venue and one kind, with the place of each in its message.
#[derive(Debug, Clone, PartialEq)]
pub struct VenueBatch {
    /// The venue.
    pub venue: VenueId,
    /// The events. Devices of `presence` stand in it as they were sent: [`crate::pseudonymise`] comes before anything
    /// durable.
    pub events: EventBatch,
    /// For each event its place.
    pub places: Vec<Place>,
}

/// Collects the events of a message (or of a piece of one).
pub struct Batches {
    rules: Arc<DecodeRules>,
    lookup: Arc<dyn VenueLookup>,
    venues: Vec<Venue>,
    by_name: HashMap<String, usize>,
    /// The venue of the event before: mostly the next one's.
    venue_before: usize,
    batches: Vec<VenueBatch>,
    appender: Appender,
    ordinals: Ordinals,
    refused: Vec<Refusal>,
    accepted: u64,
    newest_ts: Option<TsMs>,
}

/// A venue that a message named.
struct Venue {
    name: String,
    verdict: Result<VenueId, Problem>,
    /// Number of its batch, by kind.
    batches: [Option<usize>; Kind::ALL.len()],
}

impl fmt::Debug for Batches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batches")
            .field("accepted", &self.accepted)
            .field("refused", &self.refused.len())
            .finish_non_exhaustive()
    }
}

impl Batches {
    /// No events yet.
    pub fn new(rules: Arc<DecodeRules>, lookup: Arc<dyn VenueLookup>) -> Self {
        Self {
            rules,
            lookup,
            venues: Vec::new(),
            by_name: HashMap::new(),
            venue_before: usize::MAX,
            batches: Vec::new(),
            appender: Appender::default(),
            ordinals: Ordinals::default(),
            refused: Vec::new(),
            accepted: 0,
            newest_ts: None,
        }
    }

    /// Goes on numbering equal crossings where other parts of the same message have ended.
    pub(crate) fn with_ordinals(mut self, ordinals: Ordinals) -> Self {
        self.ordinals = ordinals;
        self
    }

    /// The numbering of equal crossings, for the next part of the same message.
    pub(crate) fn into_ordinals(self) -> Ordinals {
        self.ordinals
    }

    /// Decides on one event: appends it to its batch, or refuses it.
    pub fn push(&mut self, place: Place, event: &WireEvent<'_>) {
        match self.take_event(place, event) {
            Ok(ts) => {
                self.accepted += 1;
                self.newest_ts = self.newest_ts.max(Some(ts));
            }
            Err((problem, venue)) => {
                let keep = keep(event, problem.code, venue.as_ref());
                self.refuse(Refusal {
                    place,
                    code: problem.code,
                    message: problem.message,
                    venue,
                    sensor: sensor_of(event),
                    keep,
                });
            }
        }
    }

    /// Refuses an event whose text could not be read.
    pub fn refuse_unread(&mut self, place: Place, problem: Problem) {
        let venue = self.rules.venue.clone();
        let Problem { code, message } = problem;
        self.refuse(Refusal {
            place,
            code,
            message,
            venue,
            sensor: None,
            keep: Keep::Encrypted,
        });
    }

    /// Adds a refusal.
    pub fn refuse(&mut self, refusal: Refusal) {
        self.refused.push(refusal);
    }

    /// How many events were appended since the beginning, those already taken out included.
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// How many events wait to be taken out.
    pub fn len(&self) -> usize {
        self.batches.iter().map(|batch| batch.events.len()).sum()
    }

    /// Whether no event waits to be taken out.
    pub fn is_empty(&self) -> bool {
        self.batches.iter().all(|batch| batch.events.is_empty())
    }

    /// Bytes of memory that the waiting events take, roughly.
    pub fn memory_bytes(&self) -> usize {
        self.batches
            .iter()
            .map(|batch| batch.events.memory_bytes() + batch.places.len() * size_of::<Place>())
            .sum()
    }

    /// The refused events, in the order of the message.
    pub fn refused(&self) -> &[Refusal] {
        &self.refused
    }

    /// The latest event time that was taken.
    pub fn newest_ts(&self) -> Option<TsMs> {
        self.newest_ts
    }

    /// Takes the batches out, in the order in which their first events came. Collecting goes on: what tells equal
    /// crossings apart is kept for the whole message.
    pub fn take(&mut self) -> Vec<VenueBatch> {
        self.venues
            .iter_mut()
            .for_each(|venue| venue.batches = Default::default());
        std::mem::take(&mut self.batches)
    }

    /// Takes the refusals out.
    pub fn take_refused(&mut self) -> Vec<Refusal> {
        std::mem::take(&mut self.refused)
    }

    fn take_event(
        &mut self,
        place: Place,
        event: &WireEvent<'_>,
    ) -> Result<TsMs, (Problem, Option<VenueId>)> {
        let venue = self.venue_of(event);
        let known = |batches: &Self, venue: usize| batches.venues[venue].verdict.clone().ok();
        if let Some(problem) = event.problem() {
            return Err((problem.clone(), venue.ok().and_then(|venue| known(self, venue))));
        }
        let venue = venue.map_err(|problem| (problem, None))?;
        self.append(place, event, venue)
            .map_err(|problem| (problem, known(self, venue)))
    }

    fn append(&mut self, place: Place, event: &WireEvent<'_>, venue: usize) -> Result<TsMs, Problem> {
        let kind = event.kind()?;
        if let Some(stranger) = event.first_outside(FieldSet::of_kind(kind)) {
            let message = format!(
                "the field {:?} does not belong to events of kind {kind}",
                stranger.name()
            );
            return Err(Problem::new(Code::UnknownField, message));
        }
        let ts = event
            .get(WireField::Ts)
            .instant(WireField::Ts)?
            .ok_or_else(|| missing(WireField::Ts))?;
        validate::event_time(ts, self.rules.times.as_ref())?;
        event
            .get(WireField::CollectedAt)
            .instant(WireField::CollectedAt)?;
        let batch = self.batch_of(venue, kind)?;
        let (batches, appender) = (&mut self.batches, &mut self.appender);
        appender.append(
            &mut batches[batch].events,
            ts,
            event,
            venue as u64,
            &mut self.ordinals,
        )?;
        batches[batch].places.push(place);
        Ok(ts)
    }

    /// The venue that an event belongs to, as a number of `venues`.
    fn venue_of(&mut self, event: &WireEvent<'_>) -> Result<usize, Problem> {
        let named = event.get(WireField::Venue).text(WireField::Venue)?;
        let name = match (&named, &self.rules.venue) {
            (Some(name), Some(venue)) if name != venue.as_str() => {
                return Err(Problem::new(
                    Code::VenueMismatch,
                    format!("the event must belong to venue {venue}"),
                ));
            }
            (_, Some(venue)) => venue.as_str(),
            (Some(name), None) => name,
            (None, None) => return Err(missing(WireField::Venue)),
        };
        if self
            .venues
            .get(self.venue_before)
            .is_some_and(|venue| venue.name == name)
        {
            return self.judged(self.venue_before);
        }
        let number = match self.by_name.get(name) {
            Some(&number) => number,
            None => {
                let name = name.to_owned();
                self.remember(name)
            }
        };
        self.venue_before = number;
        self.judged(number)
    }

    fn judged(&self, number: usize) -> Result<usize, Problem> {
        match &self.venues[number].verdict {
            Ok(_) => Ok(number),
            Err(problem) => Err(problem.clone()),
        }
    }

    fn remember(&mut self, name: String) -> usize {
        if self.by_name.len() >= VENUES_REMEMBERED {
            // Batches of venues that are forgotten stay; the venue's next event opens another one.
            self.by_name.clear();
            self.venues.clear();
        }
        let verdict = match VenueId::new(&name) {
            Err(_) => Err(Code::InvalidVenue.into()),
            Ok(id) => match self.lookup.find(&id) {
                VenueVerdict::Known => Ok(id),
                VenueVerdict::Unknown => Err(Problem::new(
                    Code::UnknownVenue,
                    format!("venue {id} is not known"),
                )),
                VenueVerdict::NotAllowed => Err(Problem::new(
                    Code::VenueNotAllowed,
                    format!("the key may not post to venue {id}"),
                )),
            },
        };
        let number = self.venues.len();
        self.venues.push(Venue {
            name: name.clone(),
            verdict,
            batches: Default::default(),
        });
        self.by_name.insert(name, number);
        number
    }

    /// The batch of a venue and kind, as a number of `batches`.
    fn batch_of(&mut self, venue: usize, kind: Kind) -> Result<usize, Problem> {
        let entry = &mut self.venues[venue];
        if let Some(batch) = entry.batches[kind as usize] {
            return Ok(batch);
        }
        let id = entry.verdict.clone()?;
        let batch = self.batches.len();
        entry.batches[kind as usize] = Some(batch);
        self.batches.push(VenueBatch {
            venue: id,
            events: EventBatch::new(kind),
            places: Vec::new(),
        });
        Ok(batch)
    }
}

pub(super) fn missing(field: WireField) -> Problem {
    Problem::new(
        Code::MissingField,
        format!("the field {:?} is missing", field.name()),
    )
}

/// The sensor that a refused event names, where it names one as sensors are named.
fn sensor_of(event: &WireEvent<'_>) -> Option<Box<str>> {
    let sensor = event.get(WireField::Sensor).text(WireField::Sensor).ok()??;
    validate::name(WireField::Sensor, &sensor).ok()?;
    Some(sensor.into())
}

/// How the bytes of a refused event may be kept. A device identifier can be replaced where the event was taken apart
/// with certainty and says which day's key to use; where it was not, an identifier may stand anywhere.
fn keep(event: &WireEvent<'_>, code: Code, venue: Option<&VenueId>) -> Keep {
    if !code.is_understood() || event.problem().is_some() {
        return Keep::Encrypted;
    }
    let is_presence = matches!(event.kind(), Ok(Kind::Presence));
    let device = event.get(WireField::Device);
    if !is_presence {
        return if device.is_absent() {
            Keep::Plain
        } else {
            Keep::Encrypted
        };
    }
    let spot = || {
        let device = device.text(WireField::Device).ok()??.into_owned();
        let (start, len) = event.device_place()?;
        let ts = event.get(WireField::Ts).instant(WireField::Ts).ok()??;
        Some(DeviceSpot {
            device,
            start,
            len,
            venue: venue?.clone(),
            ts,
        })
    };
    match (code, spot()) {
        (_, None) => Keep::Encrypted,
        // The key of such a day is gone, or would be made for a clock that is wrong.
        (Code::TsTooOld | Code::TsInFuture, Some(_)) => Keep::Encrypted,
        (_, Some(spot)) => Keep::Device(spot),
    }
}
