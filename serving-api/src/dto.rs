//! What goes over the wire: types of their own, made from the domain's, so that neither binds the other.
//!
//! Instants are RFC 3339 in UTC with milliseconds; local times carry their offset. Days are `YYYY-MM-DD`, local.

mod audit;
mod changes;
mod days;
mod exclusions;
mod explain;
mod jobs;
mod keys;
mod live;
mod metrics;
mod periods;
mod quarantine;
mod sessions;
mod spatial;
mod venues;

pub(crate) use audit::*;
pub(crate) use changes::*;
pub(crate) use days::*;
pub(crate) use exclusions::*;
pub(crate) use explain::*;
pub(crate) use jobs::*;
pub(crate) use keys::*;
pub(crate) use live::*;
pub(crate) use metrics::*;
pub(crate) use periods::*;
pub(crate) use quarantine::*;
pub(crate) use sessions::*;
pub(crate) use spatial::*;
pub(crate) use venues::*;

use chrono::{DateTime, FixedOffset, SecondsFormat, Utc};
use dwell_model::time::{SECOND_MS, TsMs, format_rfc3339};

/// An instant as it is sent.
pub(crate) fn instant(ts: TsMs) -> String {
    format_rfc3339(ts)
}

/// An instant in local time with its offset.
pub(crate) fn local(ts: TsMs, offset_ms: i64) -> String {
    let offset = i32::try_from(offset_ms / SECOND_MS)
        .ok()
        .and_then(FixedOffset::east_opt);
    match (DateTime::<Utc>::from_timestamp_millis(ts), offset) {
        (Some(time), Some(offset)) => time
            .with_timezone(&offset)
            .to_rfc3339_opts(SecondsFormat::Millis, false),
        _ => format_rfc3339(ts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_times_carry_their_offset() {
        let ts = dwell_model::time::parse_ts("2026-03-01T23:30:00Z").unwrap();
        assert_eq!(local(ts, 3_600_000), "2026-03-02T00:30:00.000+01:00");
        assert_eq!(local(ts, -12_600_000), "2026-03-01T20:00:00.000-03:30");
        assert_eq!(local(ts, 0), "2026-03-01T23:30:00.000+00:00");
    }
}
