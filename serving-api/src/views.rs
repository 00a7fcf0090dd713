//! From stored rows to answers: which generation or live day answers for a venue-day, and what a bucket says.
//!
//! - [`sources`]: for each venue-day the batch generation or the live day that answers, with its rows.
//! - [`rows`]: rows of some days, found by bucket.
//! - [`slices`]: which slices the numbers of a day have. Pure.
//! - [`series`]: which metrics of which subjects are asked for.
//! - [`judge`]: the state and completeness of buckets. Pure.
//! - [`fold`]: buckets made of the rows of their pieces, each with value, state and origin. Pure.
//! - [`answer`]: the rows of an answer, page by page, for one venue; [`groups`]: united over many.
//! - [`refold`]: a day folded once more from its archive, and the events behind a bucket.
//! - [`restated`]: what a publication changed against the one before.
//! - [`spatial`], [`live_day`], [`day_status`], [`trajectory`]: the other resources' views.
//!
//! No formula stands here: ingredients are merged, evaluated and judged by `dwell_model`.

pub(crate) mod answer;
pub(crate) mod day_status;
pub(crate) mod fold;
pub(crate) mod groups;
pub(crate) mod judge;
pub(crate) mod live_day;
pub(crate) mod refold;
pub(crate) mod restated;
pub(crate) mod rows;
pub(crate) mod series;
pub(crate) mod slices;
pub(crate) mod sources;
pub(crate) mod spatial;
pub(crate) mod trajectory;
