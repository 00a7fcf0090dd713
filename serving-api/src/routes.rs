//! The handlers, a file per resource. What they share: the caller's tenant scopes everything, answers leave through
//! [`crate::respond`], errors as [`crate::problem::Problem`].

pub(crate) mod audit;
pub(crate) mod changes;
pub(crate) mod days;
pub(crate) mod definitions;
pub(crate) mod documentation;
pub(crate) mod exclusions;
pub(crate) mod explain;
pub(crate) mod heatmap;
pub(crate) mod jobs;
pub(crate) mod keys;
pub(crate) mod live;
pub(crate) mod metrics;
pub(crate) mod periods;
pub(crate) mod quarantine;
pub(crate) mod query;
pub(crate) mod sessions;
pub(crate) mod transitions;
pub(crate) mod venues;
