//! Transitions and heat maps: one answer for a whole range, united over its days.

use std::collections::BTreeMap;

use dwell_model::ids::VenueKey;
use dwell_model::layout::Venue;
use dwell_model::metrics::{Family, Slice, Span, Value, merge};
use dwell_model::time::LocalDay;

use super::rows::{self, Rows};
use super::slices::SliceOfDay;
use super::sources::{self, Sources, Wanted};
use crate::dto::OriginDto;
use crate::problem::{self, Problem};
use crate::query::as_of::AsOf;
use crate::query::hours_of_day::HoursOfDay;
use crate::query::range::{self, By, Piece, Range};
use crate::respond::Caching;
use crate::state::AppState;

/// Most days that one such answer unites.
const DAYS_MAX: usize = 400;
/// Pieces whose rows are in memory at a time.
const DAYS_AT_ONCE: usize = 31;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SpatialAsked<'a> {
    /// The range.
    pub(crate) range: Range,
    /// The family.
    pub(crate) family: Family,
    /// Only this subject.
    pub(crate) subject: Option<&'a str>,
    /// As it was published once.
    pub(crate) as_of: Option<AsOf>,
    /// Which events count; `None` for all, and for saying nothing about slices.
    pub(crate) slice: Option<Slice>,
}

/// The united ingredients of a family over a range, by subject, with where they come from.
pub(crate) struct United {
    /// By subject.
    pub(crate) values: BTreeMap<String, Value>,
    /// A day each.
    pub(crate) origins: Vec<OriginDto>,
    /// How long the answer may be kept.
    pub(crate) caching: Caching,
}

/// Reads and unites the rows of a family.
pub(crate) async fn united(
    state: &AppState,
    key: &VenueKey,
    venue: &Venue,
    asked: SpatialAsked<'_>,
) -> Result<United, Problem> {
    let SpatialAsked {
        range,
        family,
        subject,
        as_of,
        slice,
    } = asked;
    let buckets_max = state.config().buckets_max;
    let buckets = range::cut(
        &venue.calendar,
        range,
        By::Total,
        HoursOfDay::ALL,
        buckets_max,
        DAYS_MAX,
    )?;
    let days = range.days(&venue.calendar);
    let sources = sources::choose(
        state,
        key,
        &venue.calendar,
        days,
        as_of.map_or(Wanted::Current, Wanted::AsOf),
    )
    .await?;
    let subjects = subject.map(|subject| vec![subject.to_owned()]);
    let mut values = BTreeMap::new();
    for pieces in buckets
        .iter()
        .flat_map(|bucket| bucket.pieces.chunks(DAYS_AT_ONCE))
    {
        let rows = rows::load(
            state,
            key,
            &sources,
            pieces,
            &[family],
            subjects.as_deref(),
            slice.unwrap_or_default(),
        )
        .await?;
        unite(&mut values, pieces, &rows, family)?;
    }
    let settled = days.0.through(days.1).all(|day| sources.day(day).is_final());
    let caching = if settled {
        Caching::SETTLED
    } else {
        Caching::UNSETTLED
    };
    Ok(United {
        values,
        origins: origins(venue, &sources, days, slice),
        caching,
    })
}

/// Unites the rows of a family with what is there, subject by subject.
fn unite(
    united: &mut BTreeMap<String, Value>,
    pieces: &[Piece],
    rows: &Rows,
    family: Family,
) -> Result<(), Problem> {
    let mut parts: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for row in pieces.iter().flat_map(|piece| rows.of_piece(piece, family)) {
        parts.entry(&row.subject).or_default().push(&row.value);
    }
    for (subject, mut values) in parts {
        let before = united.remove(subject);
        values.extend(&before);
        let value = merge(values, Span::VenueDays).map_err(|error| {
            Problem::new(
                problem::UNMERGEABLE,
                format!("{error}; ask for a range within one layout"),
            )
            .about("to")
        })?;
        united.insert(subject.to_owned(), value);
    }
    Ok(())
}

/// Where the numbers of some days come from, and what they have of a slice that the request names.
pub(crate) fn origins(
    venue: &Venue,
    sources: &Sources,
    (first, last): (LocalDay, LocalDay),
    slice: Option<Slice>,
) -> Vec<OriginDto> {
    let origin = |day: LocalDay| {
        let source = sources.day(day);
        OriginDto {
            day: day.to_string(),
            layer: source.layer().map(sources::Layer::word),
            generation: source.generation(),
            provisional: source.is_provisional(),
            slice: slice.map(|slice| SliceOfDay::of(venue, day, source, slice).word()),
        }
    };
    first.through(last).map(origin).collect()
}
