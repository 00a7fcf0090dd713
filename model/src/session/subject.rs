//! Who a session is about, and how a session is named.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::time::{LocalDay, TsMs};

/// A person within a venue-day, as the sensors know them: the track, or sensor and track where the sensor's track ids
/// are its own. Ordered by bytes, track first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Subject {
    /// The track.
    pub track: String,
    /// The sensor, where its track ids are its own ([`TrackScope::Sensor`](crate::layout::TrackScope::Sensor)).
    pub sensor: Option<String>,
}

impl Subject {
    /// The subject of a track that is the venue's.
    pub fn of_track(track: &str) -> Self {
        Self {
            track: track.to_owned(),
            sensor: None,
        }
    }

    /// 64-bit hash of the subject: names it in sketches and session ids.
    pub fn hash(&self) -> u64 {
        hash_subject(&self.track, self.sensor.as_deref())
    }
}

/// [`Subject::hash`] without a subject.
pub(crate) fn hash_subject(track: &str, sensor: Option<&str>) -> u64 {
    match sensor {
        None => xxh3_64(track.as_bytes()),
        // Names hold no control character, so the separator keeps the two apart.
        Some(sensor) => xxh3_64([sensor, "\u{1f}", track].concat().as_bytes()),
    }
}

/// Id of a session: its day and a hash of subject and start, so that it is the same after any recompute that leaves its
/// start alone.
pub fn session_id(day: LocalDay, subject: &Subject, start: TsMs) -> String {
    let mut bytes = [0_u8; 16];
    bytes[..8].copy_from_slice(&subject.hash().to_be_bytes());
    bytes[8..].copy_from_slice(&start.to_be_bytes());
    format!("{day}-{:016x}", xxh3_64(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_tell_day_subject_and_start_apart() {
        let day: LocalDay = "2026-10-24".parse().unwrap();
        let track = Subject::of_track("t1");
        let scoped = Subject {
            sensor: Some("s1".into()),
            ..track.clone()
        };
        let id = session_id(day, &track, 1_000);
        assert_eq!(id, session_id(day, &track, 1_000));
        assert!(id.starts_with("2026-10-24-"));
        let others = [
            session_id(day, &scoped, 1_000),
            session_id(day, &track, 1_001),
            session_id(day.next(), &track, 1_000),
        ];
        assert!(others.iter().all(|other| *other != id));
    }
}
