//! Which computation answers for a venue-day: the batch layer where a final generation is published, the live view
//! after it.
//!
//! A day's *source* is chosen once per request, from the published pointers and one look at the live view; a cursor or
//! `as_of` pins it. Rows are then read from exactly that source. A generation's row count is compared with its pointer
//! before anything of it is answered, so that nobody sees half of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dwell_model::ids::VenueKey;
use dwell_model::metrics::AggregateRow;
use dwell_model::time::{LocalDay, SLOT_MS, TsMs, VenueCalendar};
use dwell_storage::api::{Generation, GenerationInfo, LiveDay, LiveVenue, RowFilter, VenueDay, recuts};
use hashbrown::HashSet;
use serde::{Deserialize, Serialize};

use crate::metrics;
use crate::problem::{self, Problem};
use crate::query::as_of::AsOf;
use crate::state::AppState;

/// Which layer computed a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Layer {
    /// A published generation.
    Batch,
    /// The speed layer.
    Live,
}

impl Layer {
    /// The layer as a word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Layer::Batch => "batch",
            Layer::Live => "live",
        }
    }
}

/// What answers for one venue-day.
#[derive(Debug, Clone)]
pub(crate) enum DaySource {
    /// A published generation.
    Batch(Arc<GenerationInfo>),
    /// A day of the live view.
    Live(LiveDay),
    /// Nobody has computed it.
    Nothing,
    /// It is over and no event of it has ever come: there is nothing to compute.
    Silent,
}

impl DaySource {
    /// The layer, where there is one.
    pub(crate) fn layer(&self) -> Option<Layer> {
        match self {
            DaySource::Batch(_) => Some(Layer::Batch),
            DaySource::Live(_) => Some(Layer::Live),
            DaySource::Nothing | DaySource::Silent => None,
        }
    }

    /// The generation, where it is one.
    pub(crate) fn generation(&self) -> Option<Generation> {
        match self {
            DaySource::Batch(info) => Some(info.generation),
            DaySource::Live(_) | DaySource::Nothing | DaySource::Silent => None,
        }
    }

    /// Whether a better number is bound to come.
    pub(crate) fn is_provisional(&self) -> bool {
        match self {
            DaySource::Batch(info) => info.provisional,
            DaySource::Live(_) => true,
            DaySource::Nothing | DaySource::Silent => false,
        }
    }

    /// Whether it changes only when the day is restated.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            DaySource::Batch(info) => !info.provisional,
            DaySource::Silent => true,
            DaySource::Live(_) | DaySource::Nothing => false,
        }
    }

    /// Whether what there is to be known of the day has been computed.
    pub(crate) fn is_computed(&self) -> bool {
        !matches!(self, DaySource::Nothing)
    }

    /// What answers for a day: a final generation, else the live view, else a provisional generation.
    pub(crate) fn choose(published: Option<&GenerationInfo>, live: Option<&LiveDay>) -> Self {
        match (published, live) {
            (Some(info), _) if !info.provisional => DaySource::Batch(Arc::new(info.clone())),
            (_, Some(day)) => DaySource::Live(day.clone()),
            (Some(info), None) => DaySource::Batch(Arc::new(info.clone())),
            (None, None) => DaySource::Nothing,
        }
    }
}

/// The sources of a range of venue-days, one for each day.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    days: BTreeMap<LocalDay, DaySource>,
    /// Days whose generation is not the published one: retention may take its rows at any time.
    replaced: BTreeSet<LocalDay>,
}

/// A day of which nothing is known.
static NOTHING: DaySource = DaySource::Nothing;

impl Sources {
    /// Sources that are at hand.
    #[cfg(test)]
    pub(crate) fn of(days: impl IntoIterator<Item = (LocalDay, DaySource)>) -> Self {
        Self {
            days: days.into_iter().collect(),
            replaced: BTreeSet::new(),
        }
    }

    /// What answers for a day.
    pub(crate) fn day(&self, day: LocalDay) -> &DaySource {
        self.days.get(&day).unwrap_or(&NOTHING)
    }

    /// All days with a source, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (LocalDay, &DaySource)> {
        self.days.iter().map(|(day, source)| (*day, source))
    }

    /// The generations of days `first` to `last`, to be pinned by a cursor.
    pub(crate) fn pins(&self, first: LocalDay, last: LocalDay) -> Pins {
        let mut runs: Vec<(Generation, u32)> = Vec::new();
        for day in first.through(last) {
            let generation = self.day(day).generation().unwrap_or(0);
            match runs.last_mut() {
                Some((pinned, run)) if *pinned == generation => *run += 1,
                _ => runs.push((generation, 1)),
            }
        }
        Pins { first, runs }
    }
}

/// The generations of consecutive days, as a cursor carries them: runs of equal ones; 0 where no generation answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pins {
    first: LocalDay,
    runs: Vec<(Generation, u32)>,
}

impl Pins {
    /// The days with a pinned generation.
    fn generations(&self) -> BTreeMap<LocalDay, Generation> {
        let mut pinned = BTreeMap::new();
        let mut day = self.first;
        for &(generation, run) in &self.runs {
            for _ in 0..run.min(40_000) {
                if generation != 0 {
                    pinned.insert(day, generation);
                }
                day = day.next();
            }
        }
        pinned
    }
}

/// Which computations of the days are wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wanted<'a> {
    /// The best there are now.
    Current,
    /// Published generations only, provisional ones too.
    Published,
    /// Those that were published once.
    AsOf(AsOf),
    /// Those that a cursor has pinned; days without a pin as [`Wanted::Current`].
    Pinned(&'a Pins),
    /// Those that a cursor has pinned, and nothing of other days: what had not been published then stays so.
    OnlyPinned(&'a Pins),
}

/// Chooses the sources of the days `first` to `last` of a venue. A generation that was cut by another time zone or day
/// start than the venue's is no answer for its days: they wait to be computed again.
pub(crate) async fn choose(
    state: &AppState,
    venue: &VenueKey,
    calendar: &VenueCalendar,
    (first, last): (LocalDay, LocalDay),
    wanted: Wanted<'_>,
) -> Result<Sources, Problem> {
    let days = state.stores().venue_days.as_ref();
    let mut published = recuts::list_under(days, venue, calendar, first, last).await?;
    let now = state.now_ms();
    for row in &mut published {
        if let Some(info) = &mut row.published {
            // A day that goes on is not final, whatever a clock that was ahead has made of it.
            info.provisional |= calendar.bounds(row.day).1 > now;
        }
    }
    let mut days = match wanted {
        Wanted::Current => current(
            &published,
            state.live().venue(venue).await?.as_deref(),
            (first, last),
        ),
        Wanted::Published => current(&published, None, (first, last)),
        Wanted::AsOf(AsOf::Moment(ts)) => {
            let mut days = BTreeMap::new();
            for day in &published {
                if let Some(info) = generation_as_of(state, venue, calendar, day, ts).await? {
                    days.insert(day.day, DaySource::Batch(Arc::new(info)));
                }
            }
            days
        }
        Wanted::AsOf(AsOf::Generation(_)) if first != last => {
            let detail = "a generation is one day's; ask for that day alone, or give as_of an instant";
            return Err(Problem::parameter("as_of", detail));
        }
        Wanted::AsOf(AsOf::Generation(generation)) => {
            let info = the_generation(state, venue, calendar, first, generation).await?;
            BTreeMap::from([(first, DaySource::Batch(Arc::new(info)))])
        }
        Wanted::Pinned(pins) | Wanted::OnlyPinned(pins) => {
            let mut days = match wanted {
                Wanted::OnlyPinned(_) => current(&published, None, (first, last)),
                _ => current(
                    &published,
                    state.live().venue(venue).await?.as_deref(),
                    (first, last),
                ),
            };
            let pinned = pins.generations();
            if matches!(wanted, Wanted::OnlyPinned(_)) {
                days.retain(|day, _| pinned.contains_key(day));
            }
            for (day, generation) in pinned {
                if days.get(&day).and_then(DaySource::generation) != Some(generation) {
                    let history = state.stores().venue_days.history(venue, day).await?;
                    let Some(info) = history.into_iter().find(|info| info.generation == generation) else {
                        let detail = format!(
                            "generation {generation} of {day} is no longer kept; start again without a cursor"
                        );
                        return Err(Problem::new(problem::STALE_CURSOR, detail).about("cursor"));
                    };
                    days.insert(day, DaySource::Batch(Arc::new(info)));
                }
            }
            days
        }
    };
    if matches!(wanted, Wanted::Current | Wanted::Pinned(_)) {
        find_silent(state, venue, calendar, (first, last), &mut days).await?;
    }
    let now: BTreeMap<LocalDay, Generation> = published
        .iter()
        .filter_map(|row| Some((row.day, row.published.as_ref()?.generation)))
        .collect();
    let replaced = days
        .iter()
        .filter(|(day, source)| source.generation().is_some_and(|of| now.get(day) != Some(&of)))
        .map(|(day, _)| *day)
        .collect();
    Ok(Sources { days, replaced })
}

/// Finds the closed days without a source of which no event has ever come.
async fn find_silent(
    state: &AppState,
    venue: &VenueKey,
    calendar: &VenueCalendar,
    (first, last): (LocalDay, LocalDay),
    days: &mut BTreeMap<LocalDay, DaySource>,
) -> Result<(), Problem> {
    let today = calendar.day_of(state.now_ms());
    let has_source = |day: &LocalDay| days.get(day).is_some_and(DaySource::is_computed);
    let unknown: Vec<LocalDay> = first
        .through(last)
        .filter(|day| *day < today && !has_source(day))
        .collect();
    let (Some(&from), Some(&to)) = (unknown.first(), unknown.last()) else {
        return Ok(());
    };
    let span = calendar.bounds(from).0..calendar.bounds(to).1;
    let marked = state.stores().raw.marked_slots(venue, span).await?;
    // A slot may lie in two days, where days do not begin on a full ten minutes.
    let instants = |slot: i64| [slot * SLOT_MS, (slot + 1) * SLOT_MS - 1];
    let touched: BTreeSet<LocalDay> = marked
        .iter()
        .flat_map(|(slot, _)| instants(*slot))
        .map(|ts| calendar.day_of(ts))
        .collect();
    days.extend(
        unknown
            .into_iter()
            .filter(|day| !touched.contains(day))
            .map(|day| (day, DaySource::Silent)),
    );
    Ok(())
}

/// The best source of each day now.
fn current(
    published: &[VenueDay],
    live: Option<&LiveVenue>,
    (first, last): (LocalDay, LocalDay),
) -> BTreeMap<LocalDay, DaySource> {
    let mut days: BTreeMap<LocalDay, DaySource> = BTreeMap::new();
    let live_day = |day: LocalDay| live?.days.iter().find(|live_day| live_day.day == day);
    for row in published {
        days.insert(
            row.day,
            DaySource::choose(row.published.as_ref(), live_day(row.day)),
        );
    }
    for live_day in live.iter().flat_map(|live| &live.days) {
        if (first..=last).contains(&live_day.day) && !days.contains_key(&live_day.day) {
            days.insert(live_day.day, DaySource::choose(None, Some(live_day)));
        }
    }
    days
}

async fn generation_as_of(
    state: &AppState,
    venue: &VenueKey,
    calendar: &VenueCalendar,
    day: &VenueDay,
    ts: TsMs,
) -> Result<Option<GenerationInfo>, Problem> {
    match &day.published {
        Some(info) if info.published_at <= ts => Ok(Some(info.clone())),
        _ => {
            let history = state.stores().venue_days.history(venue, day.day).await?;
            // Only a day's first generation has none to be compared with: retention forgets the oldest.
            let is_forgotten = history.last().is_some_and(|oldest| oldest.changed.is_some());
            let is_any_known = history.iter().any(|info| info.published_at <= ts);
            let found = history
                .into_iter()
                .find(|info| info.published_at <= ts && info.calendar == *calendar);
            if !is_any_known && is_forgotten {
                let detail = format!(
                    "what was published of {} at that time is no longer kept; ask for a later time",
                    day.day
                );
                return Err(Problem::new(problem::GENERATION_GONE, detail).about("as_of"));
            }
            Ok(found)
        }
    }
}

/// A generation of a day by its number.
async fn the_generation(
    state: &AppState,
    venue: &VenueKey,
    calendar: &VenueCalendar,
    day: LocalDay,
    generation: Generation,
) -> Result<GenerationInfo, Problem> {
    let history = state.stores().venue_days.history(venue, day).await?;
    let Some(info) = history.into_iter().find(|info| info.generation == generation) else {
        let detail = format!("no generation {generation} of {day} was published, or it is no longer known");
        return Err(Problem::new(problem::NOT_FOUND, detail).about("as_of"));
    };
    if info.calendar != *calendar {
        let detail = format!(
            "generation {generation} of {day} was computed when the venue had another time zone or day start: its \
             buckets are not those of today"
        );
        return Err(Problem::new(problem::GENERATION_GONE, detail).about("as_of"));
    }
    Ok(info)
}

/// The answer for a generation whose rows retention has taken.
pub(crate) fn gone(day: LocalDay, generation: Generation) -> Problem {
    let detail = format!(
        "generation {generation} of {day} was published, and its numbers have been deleted by retention since; recompute \
         the day, or leave out as_of for the numbers of now"
    );
    Problem::new(problem::GENERATION_GONE, detail).about("as_of")
}

/// Whether another generation is published in place of this one.
pub(crate) async fn is_replaced(
    state: &AppState,
    venue: &VenueKey,
    day: LocalDay,
    generation: Generation,
) -> Result<bool, Problem> {
    let row = state.stores().venue_days.get(venue, day).await?;
    let published = row.and_then(|row| row.published);
    Ok(published.is_none_or(|info| info.generation != generation))
}

/// Rows of the days' sources by a filter, one list for each day asked for. Whole generations only: one whose number of
/// rows is not the pointer's is counted again, and refused with 503 while it stays so.
pub(crate) async fn rows(
    state: &AppState,
    venue: &VenueKey,
    sources: &Sources,
    days: &[LocalDay],
    filter: &RowFilter,
) -> Result<Vec<Vec<AggregateRow>>, Problem> {
    let mut generations = Vec::new();
    for &day in days {
        if let DaySource::Batch(info) = sources.day(day) {
            if !sources.replaced.contains(&day) {
                ensure_whole(state, venue, day, info).await?;
            }
            generations.push((day, info.generation));
        }
    }
    let read = match generations.is_empty() {
        true => Vec::new(),
        false => {
            state
                .stores()
                .aggregates
                .read_many(venue, &generations, filter)
                .await?
        }
    };
    // What is whole after the reading was whole while it was read.
    for &day in days.iter().filter(|day| sources.replaced.contains(day)) {
        if let DaySource::Batch(info) = sources.day(day) {
            let found = state
                .stores()
                .aggregates
                .count(venue, day, info.generation)
                .await?;
            if found < info.rows {
                return Err(gone(day, info.generation));
            }
        }
    }
    let mut read = read.into_iter();
    let rows_of = |day: &LocalDay| match sources.day(*day) {
        DaySource::Batch(_) => read.next().unwrap_or_default(),
        DaySource::Live(day) => day
            .rows
            .iter()
            .filter(|row| filter.accepts(row))
            .cloned()
            .collect(),
        DaySource::Nothing | DaySource::Silent => Vec::new(),
    };
    Ok(days.iter().map(rows_of).collect())
}

/// Generations found whole: what is published never changes, so once is enough.
#[derive(Debug, Default)]
pub(crate) struct WholeGenerations {
    seen: std::sync::Mutex<HashSet<(VenueKey, LocalDay, Generation)>>,
}

impl WholeGenerations {
    const KEPT_MAX: usize = 100_000;

    fn contains(&self, venue: &VenueKey, day: LocalDay, generation: Generation) -> bool {
        let seen = self
            .seen
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        seen.contains(&(venue.clone(), day, generation))
    }

    fn insert(&self, venue: &VenueKey, day: LocalDay, generation: Generation) {
        let mut seen = self
            .seen
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if seen.len() >= Self::KEPT_MAX {
            seen.clear();
        }
        seen.insert((venue.clone(), day, generation));
    }
}

async fn ensure_whole(
    state: &AppState,
    venue: &VenueKey,
    day: LocalDay,
    info: &GenerationInfo,
) -> Result<(), Problem> {
    const TRIES: u32 = 3;
    if state.whole_generations().contains(venue, day, info.generation) {
        return Ok(());
    }
    let mut found = 0;
    for attempt in 0..TRIES {
        if attempt > 0 {
            metrics::reread();
            state
                .clock()
                .sleep(std::time::Duration::from_millis(20 << attempt))
                .await;
        }
        found = state
            .stores()
            .aggregates
            .count(venue, day, info.generation)
            .await?;
        if found == info.rows {
            state.whole_generations().insert(venue, day, info.generation);
            return Ok(());
        }
    }
    let detail = "a generation is not readable as a whole yet; send the same again in a few seconds";
    let internal = format!(
        "{venue} {day} generation {}: {found} rows of {}",
        info.generation, info.rows
    );
    Err(Problem::new(problem::UNAVAILABLE, detail)
        .retry_after(5)
        .logging(internal))
}
