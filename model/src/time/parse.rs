//! Instants as people and sensors write them.

use chrono::{DateTime, SecondsFormat, Utc};

use super::{MAX_TS, MIN_TS, TsMs};

/// Why a time was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TsError {
    /// Neither an integer nor RFC 3339.
    #[error("{0:?} is not a time: integer milliseconds since 1970 or RFC 3339 with an offset is expected")]
    Unreadable(String),
    /// Outside 1970 to 2199.
    #[error("{0} ms lies outside 1970 to 2199; are these seconds or microseconds instead of milliseconds?")]
    OutOfRange(i64),
}

/// Reads an instant: integer milliseconds since 1970, or RFC 3339 with an offset (cut to milliseconds).
pub fn parse_ts(text: &str) -> Result<TsMs, TsError> {
    let trimmed = text.trim();
    let ms = match trimmed.parse::<i64>() {
        Ok(ms) => ms,
        Err(_) => DateTime::parse_from_rfc3339(trimmed)
            .map_err(|_| TsError::Unreadable(text.chars().take(64).collect()))?
            .timestamp_millis(),
    };
    check_ts(ms)
}

fn check_ts(ms: i64) -> Result<TsMs, TsError> {
    if (MIN_TS..MAX_TS).contains(&ms) {
        Ok(ms)
    } else {
        Err(TsError::OutOfRange(ms))
    }
}

/// Writes an instant as RFC 3339 UTC with milliseconds.
pub fn format_rfc3339(ts: TsMs) -> String {
    match DateTime::<Utc>::from_timestamp_millis(ts) {
        Some(time) => time.to_rfc3339_opts(SecondsFormat::Millis, true),
        None => ts.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_milliseconds_and_rfc3339_alike() {
        for (text, ms) in [
            ("1645780665470", 1_645_780_665_470),
            ("2022-02-25T09:17:45.470Z", 1_645_780_665_470),
            ("2022-02-25T10:17:45.470+01:00", 1_645_780_665_470),
            ("2022-02-25T09:17:45.4709Z", 1_645_780_665_470),
            ("0", 0),
        ] {
            assert_eq!(parse_ts(text), Ok(ms), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_instant() {
        for text in ["", "now", "2022-02-25T09:17:45", "12.5", "1e12", "2022-02-25"] {
            assert!(matches!(parse_ts(text), Err(TsError::Unreadable(_))), "{text}");
        }
        for text in ["-1", "9999999999999999", "1645780665470000"] {
            assert!(matches!(parse_ts(text), Err(TsError::OutOfRange(_))), "{text}");
        }
    }

    #[test]
    fn writes_what_it_reads() {
        assert_eq!(format_rfc3339(1_645_780_665_470), "2022-02-25T09:17:45.470Z");
    }
}
