//! The buckets of one venue: what is asked for is laid out as series × buckets, read chunk by chunk, folded, and given
//! page by page.

use dwell_model::definitions::MetricDefinition;
use dwell_model::ids::VenueKey;
use dwell_model::layout::Venue;
use dwell_model::metrics::{Family, Grain, Slice};
use dwell_model::time::LocalDay;
use serde::{Deserialize, Serialize};

use super::fold::{self, BucketFold, BucketInfo, Ingredients};
use super::judge::Judge;
use super::rows::{self, Needs};
use super::series::{self, Selection, Series};
use super::sources::{self, Pins, Sources, Wanted};
use crate::dto::{BucketDto, Scope};
use crate::problem::{self, Problem};
use crate::query::as_of::AsOf;
use crate::query::hours_of_day::HoursOfDay;
use crate::query::range::{self, Bucket, By, Piece, Range};
use crate::query::slice;
use crate::respond::Caching;
use crate::state::AppState;

/// Venue-days whose rows are in memory at a time.
const DAYS_AT_ONCE: usize = 31;

/// What is asked of a venue.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// The metrics, in order.
    pub(crate) metrics: Vec<&'static MetricDefinition>,
    /// The subjects.
    pub(crate) selection: Selection,
    /// The range.
    pub(crate) range: Range,
    /// The buckets' length.
    pub(crate) by: By,
    /// Hours of the day.
    pub(crate) hours: HoursOfDay,
    /// As it was published then.
    pub(crate) as_of: Option<AsOf>,
    /// Which events count.
    pub(crate) slice: Slice,
}

/// Where a page begins: after a row of the page before, with what that page has pinned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    venue_version: u64,
    pins: Pins,
    /// Index of the last row's bucket.
    bucket: u64,
    /// Index of its metric.
    metric: u64,
    /// Its subject, as rows have it.
    subject: Option<String>,
}

/// A page of buckets.
#[derive(Debug)]
pub(crate) struct Page {
    /// By start, then metric in the order asked for, then subject.
    pub(crate) rows: Vec<BucketDto>,
    /// Where the next page begins.
    pub(crate) next: Option<Position>,
    /// What answered for the days of the page.
    pub(crate) sources: Sources,
    /// First and last day of the page.
    pub(crate) days: (LocalDay, LocalDay),
    /// How long it may be kept.
    pub(crate) caching: Caching,
}

/// What is asked of a venue, laid out: its buckets and series, and what answers for its days.
pub(crate) struct Plan<'a> {
    state: &'a AppState,
    key: VenueKey,
    venue: &'a Venue,
    /// The buckets.
    pub(crate) buckets: Vec<Bucket>,
    /// The series.
    pub(crate) series: Vec<Series>,
    /// What answers for the days.
    pub(crate) sources: Sources,
    families: Vec<Family>,
    needs: Needs,
    /// The only subjects to be read, where that is known.
    subjects: Option<Vec<String>>,
    slice: Slice,
}

impl<'a> Plan<'a> {
    /// Lays out what is asked. Refuses what the metrics do not declare and what is too much.
    pub(crate) async fn new(
        state: &'a AppState,
        key: VenueKey,
        venue: &'a Venue,
        asked: &Asked,
        pins: Option<&Pins>,
    ) -> Result<Self, Problem> {
        let config = state.config();
        let buckets = range::cut(
            &venue.calendar,
            asked.range,
            asked.by,
            asked.hours,
            config.buckets_max,
            config.range_days_max,
        )?;
        asked.selection.check(&asked.metrics)?;
        slice::check(&asked.metrics, asked.slice)?;
        series::check_time(&asked.metrics, &buckets)?;
        let days = asked.range.days(&venue.calendar);
        let wanted = match (pins, asked.as_of) {
            (Some(pins), None) => Wanted::Pinned(pins),
            (Some(pins), Some(_)) => Wanted::OnlyPinned(pins),
            (None, Some(as_of)) => Wanted::AsOf(as_of),
            (None, None) => Wanted::Current,
        };
        let sources = sources::choose(state, &key, &venue.calendar, days, wanted).await?;
        let families = series::families(&asked.metrics);
        let needs = Needs::of(&asked.metrics, &buckets);
        let mut plan = Self {
            needs,
            state,
            key,
            venue,
            buckets,
            series: Vec::new(),
            sources,
            families,
            subjects: None,
            slice: asked.slice,
        };
        let found = plan
            .subjects_found(&series::families_to_look_for(&asked.metrics))
            .await?;
        plan.series = series::series(&asked.metrics, &asked.selection, venue, days, &found)?;
        if plan.families == [Family::Zone] {
            plan.subjects = asked.selection.zones.clone();
        }
        Ok(plan)
    }

    /// The subjects of some families in the day rows of the range.
    async fn subjects_found(&self, families: &[Family]) -> Result<Vec<(Family, String)>, Problem> {
        let mut found: Vec<(Family, String)> = Vec::new();
        if families.is_empty() {
            return Ok(found);
        }
        let mut days: Vec<LocalDay> = self
            .buckets
            .iter()
            .flat_map(|bucket| &bucket.pieces)
            .map(|piece| piece.day)
            .collect();
        days.dedup();
        for days in days.chunks(DAYS_AT_ONCE) {
            let whole = |&day: &LocalDay| {
                let (start, end) = self.venue.calendar.bounds(day);
                Piece {
                    day,
                    grain: Grain::Day,
                    start,
                    end,
                }
            };
            let pieces: Vec<Piece> = days.iter().map(whole).collect();
            // What there is in a slice, there is among all.
            let rows = rows::load(
                self.state,
                &self.key,
                &self.sources,
                &pieces,
                families,
                None,
                Slice::All,
            )
            .await?;
            for piece in &pieces {
                for &family in families {
                    found.extend(
                        rows.of_piece(piece, family)
                            .iter()
                            .map(|row| (family, row.subject.clone())),
                    );
                }
            }
            found.sort_unstable();
            found.dedup();
        }
        Ok(found)
    }

    /// Info and ingredients of some buckets, by index.
    pub(crate) async fn evaluate(
        &self,
        buckets: std::ops::Range<usize>,
    ) -> Result<Vec<(BucketInfo, Vec<Ingredients>)>, Problem> {
        let buckets = &self.buckets[buckets];
        let mut judge = Judge::new(self.venue, &self.sources, self.state.now_ms(), self.slice);
        let mut folds: Vec<BucketFold<'_>> = buckets
            .iter()
            .map(|_| BucketFold::new(self.venue, &self.sources, &self.series))
            .collect();
        for chunk in fold::chunks(buckets, DAYS_AT_ONCE) {
            let pieces: Vec<Piece> = chunk
                .iter()
                .flat_map(|(_, pieces)| pieces.iter().copied())
                .collect();
            let subjects = self.subjects.as_deref();
            let load = |families, subjects, slice| {
                rows::load(
                    self.state,
                    &self.key,
                    &self.sources,
                    &pieces,
                    families,
                    subjects,
                    slice,
                )
            };
            let mut rows = load(&self.families, subjects, self.slice).await?;
            rows.slim(self.needs);
            let health = load(&[Family::Source], None, Slice::All).await?;
            for (index, pieces) in chunk {
                folds[index].add(pieces, &rows, &health, &mut judge)?;
            }
            // Folding is work for the processor: let others have a turn.
            tokio::task::yield_now().await;
        }
        Ok(folds.into_iter().map(BucketFold::finish).collect())
    }
}

/// A page of at most `limit` rows.
pub(crate) async fn page(
    state: &AppState,
    key: VenueKey,
    (venue, venue_version): (&Venue, u64),
    asked: &Asked,
    position: Option<&Position>,
    limit: usize,
) -> Result<Page, Problem> {
    if position.is_some_and(|position| position.venue_version != venue_version) {
        return Err(stale("the venue has been changed meanwhile"));
    }
    let plan = Plan::new(state, key, venue, asked, position.map(|position| &position.pins)).await?;
    let width = plan.series.len();
    let first = match position {
        Some(position) => plan.row_after(position, asked)?,
        None => 0,
    };
    let end = first.saturating_add(limit).min(plan.buckets.len() * width);
    if first >= end {
        return Err(stale("there is nothing after it"));
    }
    let (first_bucket, last_bucket) = (first / width, (end - 1) / width);
    let evaluated = plan.evaluate(first_bucket..last_bucket + 1).await?;
    let scope = Scope {
        venue: Some(venue.id.to_string()),
        tag: None,
    };
    let mut rows = Vec::with_capacity(end - first);
    for row in first..end {
        let (bucket, (info, ingredients)) =
            (&plan.buckets[row / width], &evaluated[row / width - first_bucket]);
        let series = &plan.series[row % width];
        rows.push(BucketDto::new(
            &scope,
            series,
            bucket,
            info,
            &ingredients[row % width],
        ));
    }
    let all_days = asked.range.days(&venue.calendar);
    let next = (end < plan.buckets.len() * width).then(|| Position {
        venue_version,
        pins: plan.sources.pins(all_days.0, all_days.1),
        bucket: last_bucket as u64,
        metric: plan.metric_index((end - 1) % width, asked),
        subject: plan.series[(end - 1) % width].subject.in_rows(),
    });
    let days = plan.days(first_bucket, last_bucket);
    let caching = caching(&plan.sources, days);
    Ok(Page {
        rows,
        next,
        sources: plan.sources,
        days,
        caching,
    })
}

impl Plan<'_> {
    /// Index of the row that follows a position.
    fn row_after(&self, position: &Position, asked: &Asked) -> Result<usize, Problem> {
        let found = (0..self.series.len()).find(|&index| {
            self.metric_index(index, asked) == position.metric
                && self.series[index].subject.in_rows() == position.subject
        });
        let bucket = usize::try_from(position.bucket)
            .ok()
            .filter(|bucket| *bucket < self.buckets.len());
        match (bucket, found) {
            (Some(bucket), Some(series)) => Ok(bucket * self.series.len() + series + 1),
            _ => Err(stale("what it points to is no longer there")),
        }
    }

    fn metric_index(&self, series: usize, asked: &Asked) -> u64 {
        let id = self.series[series].definition.id;
        asked
            .metrics
            .iter()
            .position(|definition| definition.id == id)
            .unwrap_or(0) as u64
    }

    /// First and last day of some buckets.
    fn days(&self, first: usize, last: usize) -> (LocalDay, LocalDay) {
        let day = |piece: Option<&Piece>| piece.map_or(LocalDay::new(Default::default()), |piece| piece.day);
        (
            day(self.buckets[first].pieces.first()),
            day(self.buckets[last].pieces.last()),
        )
    }
}

fn stale(why: &str) -> Problem {
    let detail = format!("the cursor leads nowhere: {why}; start again without a cursor");
    Problem::new(problem::STALE_CURSOR, detail).about("cursor")
}

/// Live numbers are not kept, days that wait for their generation for a moment, others longer.
pub(crate) fn caching(sources: &Sources, (first, last): (LocalDay, LocalDay)) -> Caching {
    if sources
        .iter()
        .any(|(day, source)| (first..=last).contains(&day) && source.layer() == Some(sources::Layer::Live))
    {
        return Caching::No;
    }
    let settled = first.through(last).all(|day| sources.day(day).is_final());
    if settled {
        Caching::SETTLED
    } else {
        Caching::UNSETTLED
    }
}
