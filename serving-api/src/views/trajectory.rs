//! The positions behind a session, read back from the archive and the raw table.
//!
//! Both may hold the day, wholly or in part: what they hold of the subject is united and resolved again, so that the
//! same payloads count as in the computation. Memory is bounded by the session's own positions and one slot or chunk.

use dwell_model::event::{Delivery, EventBatch, Kind, RawRows, field, resolve};
use dwell_model::exclusion::DayExclusions;
use dwell_model::ids::VenueKey;
use dwell_model::layout::Venue;
use dwell_model::session::{FoldContext, Session, Subject};
use dwell_model::time::{LocalDay, SLOT_MS, TsMs, slot_of};
use dwell_runtime::tasks::blocking;
use dwell_storage::api::{DayReader, GenerationInfo, Projection, exclusions};

use crate::dto::PointDto;
use crate::problem::{self, Problem};
use crate::state::AppState;

/// A session of more positions is not read back: a day of one subject at ten positions a second has fewer.
const POSITIONS_MAX: usize = 1_000_000;

/// A session's positions by time, at most `points_max` of them, evenly thinned; and whether any were left out.
pub(crate) async fn trajectory(
    state: &AppState,
    key: &VenueKey,
    venue: &Venue,
    day: LocalDay,
    session: &Session,
    info: &GenerationInfo,
) -> Result<(Vec<PointDto>, bool), Problem> {
    let wanted = Wanted {
        subject: session.subject.clone(),
        context: FoldContext::new(&venue.calendar.cut(day), venue.layout_on(day)),
        first: session.start,
        last: session.end,
    };
    let mut rows = RawRows::new(EventBatch::new(Kind::Position));
    let _turn = state.trajectories().acquire().await;
    let archive = &state.stores().archive;
    let archived = archive.day(key, Kind::Position, day).await?;
    let wanted = if archived.is_empty() {
        wanted
    } else {
        wanted.take(
            &archive.superseded(key, Kind::Position, &archived).await?,
            &mut rows,
        )?;
        let mut reader = archive
            .open(key, &archived, Projection::EventsAndDeliveries)
            .await?;
        let read = blocking("trajectory", move || {
            wanted
                .take_archived(&mut *reader, rows)
                .map(|rows| (wanted, rows))
        });
        let (wanted, found) = read
            .await
            .map_err(|error| Problem::internal(error.to_string()))??;
        rows = found;
        wanted
    };
    for slot in slot_of(wanted.first)..=slot_of(wanted.last) {
        let range = (slot * SLOT_MS).max(wanted.first)..((slot + 1) * SLOT_MS).min(wanted.last + 1);
        wanted.take(
            &state.stores().raw.scan(key, Kind::Position, range).await?,
            &mut rows,
        )?;
    }
    let excluded = excluded(state, key, info).await?;
    Ok(points(&rows, &excluded, state.config().trajectory_points_max))
}

/// Which positions belong to a session.
struct Wanted {
    subject: Subject,
    context: FoldContext,
    first: TsMs,
    last: TsMs,
}

impl Wanted {
    fn is(&self, events: &EventBatch, row: usize) -> bool {
        (self.first..=self.last).contains(&events.ts[row])
            && events.key(row) == self.subject.track
            && match &self.subject.sensor {
                Some(sensor) => events.sensor(row) == sensor,
                None => !self.context.is_scoped(events.sensor(row)),
            }
    }

    /// Adds the rows of the session with all their deliveries.
    fn take(&self, from: &RawRows, into: &mut RawRows) -> Result<(), Problem> {
        for row in (0..from.len()).filter(|&row| self.is(&from.events, row)) {
            push(into, &from.events, row, from.deliveries(row))?;
        }
        Ok(())
    }

    /// Adds the session's winners. They come by key, so that reading ends with the track.
    fn take_archived(&self, reader: &mut dyn DayReader, mut into: RawRows) -> Result<RawRows, Problem> {
        while let Some(chunk) = reader.next_chunk()? {
            for row in (0..chunk.events.len()).filter(|&row| self.is(chunk.events, row)) {
                let first = chunk
                    .first
                    .get(row)
                    .ok_or_else(|| Problem::internal("an archived event has no delivery"))?;
                push(&mut into, chunk.events, row, std::slice::from_ref(first))?;
            }
            let last = chunk.events.len().checked_sub(1).map(|row| chunk.events.key(row));
            if last.is_some_and(|key| key.as_bytes() > self.subject.track.as_bytes()) {
                break;
            }
        }
        Ok(into)
    }
}

fn push(into: &mut RawRows, events: &EventBatch, row: usize, deliveries: &[Delivery]) -> Result<(), Problem> {
    if into.len() >= POSITIONS_MAX {
        let detail = format!("the session has more than {POSITIONS_MAX} positions; they are not read back");
        return Err(Problem::new(problem::BAD_RANGE, detail));
    }
    into.events.push_from(events, row);
    into.deliveries.extend_from_slice(deliveries);
    let end = u32::try_from(into.deliveries.len()).map_err(|_| Problem::internal("too many deliveries"))?;
    into.ends.push(end);
    Ok(())
}

/// The exclusions that a generation was computed with: its sessions are made of what they left.
async fn excluded(state: &AppState, key: &VenueKey, info: &GenerationInfo) -> Result<DayExclusions, Problem> {
    let applied = &info.exclusions.jobs;
    if applied.is_empty() {
        return Ok(DayExclusions::default());
    }
    let known = exclusions::of_tenant(&*state.stores().documents, &key.tenant).await?;
    Ok(DayExclusions::exactly(
        known.iter().filter(|exclusion| applied.contains(&exclusion.id)),
    ))
}

fn points(rows: &RawRows, excluded: &DayExclusions, points_max: usize) -> (Vec<PointDto>, bool) {
    let events = &rows.events;
    let excluded = excluded.on(events);
    let mut winners = resolve(rows, |row, delivery| excluded.covers(events, row, delivery)).winners;
    winners.sort_by_key(|&row| events.ts[row as usize]);
    let step = winners.len().div_ceil(points_max.max(1)).max(1);
    let (x, y) = (events.f32s(field::position::X), events.f32s(field::position::Y));
    let last = winners.len().saturating_sub(1);
    let kept = winners
        .iter()
        .enumerate()
        .filter(|(i, _)| i % step == 0 || *i == last);
    let points = kept.map(|(_, &row)| {
        let row = row as usize;
        PointDto {
            ts: events.ts[row],
            x: x.get(row).copied().unwrap_or(f32::NAN),
            y: y.get(row).copied().unwrap_or(f32::NAN),
            floor: events.text(field::position::FLOOR, row).map(str::to_owned),
            sensor: events.sensor(row).to_owned(),
        }
    });
    (points.collect(), step > 1)
}
