use chrono::{DateTime, Timelike, Utc};
use proptest::prelude::*;

use super::*;

fn calendar(tz: &str, day_start_hour: u8) -> VenueCalendar {
    VenueCalendar::from_names(tz, day_start_hour).unwrap()
}

fn day(text: &str) -> LocalDay {
    text.parse().unwrap()
}

fn utc(text: &str) -> TsMs {
    text.parse::<DateTime<Utc>>().unwrap().timestamp_millis()
}

/// Expected bounds are from the published rules of each zone, in UTC.
#[test]
fn days_have_the_bounds_that_the_zones_rules_give() {
    for (tz, day_start, date, start, end) in [
        (
            "Europe/Madrid",
            0,
            "2026-10-25",
            "2026-10-24T22:00:00Z",
            "2026-10-25T23:00:00Z",
        ),
        (
            "Europe/Madrid",
            0,
            "2026-03-29",
            "2026-03-28T23:00:00Z",
            "2026-03-29T22:00:00Z",
        ),
        (
            "America/New_York",
            4,
            "2026-10-31",
            "2026-10-31T08:00:00Z",
            "2026-11-01T09:00:00Z",
        ),
        (
            "Asia/Kolkata",
            0,
            "2026-10-25",
            "2026-10-24T18:30:00Z",
            "2026-10-25T18:30:00Z",
        ),
        (
            "Australia/Lord_Howe",
            0,
            "2026-10-04",
            "2026-10-03T13:30:00Z",
            "2026-10-04T13:00:00Z",
        ),
        // Midnight did not exist in São Paulo on 2018-11-04: the day began at 01:00.
        (
            "America/Sao_Paulo",
            0,
            "2018-11-04",
            "2018-11-04T03:00:00Z",
            "2018-11-05T02:00:00Z",
        ),
        // Day start inside the repeated hour: the first pass counts.
        (
            "Europe/Madrid",
            2,
            "2026-10-25",
            "2026-10-25T00:00:00Z",
            "2026-10-26T01:00:00Z",
        ),
        // Day start inside the skipped hour: the first instant after it.
        (
            "Europe/Madrid",
            2,
            "2026-03-29",
            "2026-03-29T01:00:00Z",
            "2026-03-30T00:00:00Z",
        ),
        // Samoa skipped 2011-12-30 altogether: an empty day.
        (
            "Pacific/Apia",
            0,
            "2011-12-30",
            "2011-12-30T10:00:00Z",
            "2011-12-30T10:00:00Z",
        ),
    ] {
        assert_eq!(
            calendar(tz, day_start).bounds(day(date)),
            (utc(start), utc(end)),
            "{tz} {day_start} {date}"
        );
    }
}

#[test]
fn the_repeated_hour_of_autumn_is_two_buckets() {
    let cut = calendar("Europe/Madrid", 0).cut(day("2026-10-25"));
    assert_eq!(cut.hours.len(), 25);
    let twos: Vec<_> = cut.hours.iter().filter(|h| h.hour == 2).collect();
    assert_eq!(twos.iter().map(|h| h.offset_s).collect::<Vec<_>>(), [7200, 3600]);
    assert_eq!(twos[1].start, utc("2026-10-25T01:00:00Z"));
}

#[test]
fn spring_has_23_hours_and_no_two_o_clock() {
    let cut = calendar("Europe/Madrid", 0).cut(day("2026-03-29"));
    assert_eq!(cut.hours.len(), 23);
    assert!(cut.hours.iter().all(|h| h.hour != 2));
}

#[test]
fn a_half_hour_clock_change_makes_a_short_bucket() {
    let hours = calendar("Australia/Lord_Howe", 0).cut(day("2026-10-04")).hours;
    let short: Vec<_> = hours.iter().filter(|h| h.length_ms() != HOUR_MS).collect();
    assert_eq!(short.len(), 1);
    assert_eq!((short[0].hour, short[0].length_ms()), (2, HOUR_MS / 2));
    // Backwards: 01:30 to 02:00 comes twice, under two offsets.
    let hours = calendar("Australia/Lord_Howe", 0).cut(day("2026-04-05")).hours;
    let ones: Vec<_> = hours
        .iter()
        .filter(|h| h.hour == 1)
        .map(|h| h.length_ms())
        .collect();
    assert_eq!(ones, [HOUR_MS, HOUR_MS / 2]);
}

#[test]
fn unknown_zones_and_hours_are_refused_by_name() {
    assert!(
        VenueCalendar::from_names("Europe/Atlantis", 0)
            .unwrap_err()
            .to_string()
            .contains("Atlantis")
    );
    assert!(VenueCalendar::from_names("Europe/Madrid", 24).is_err());
}

const ZONES: [&str; 8] = [
    "Europe/Madrid",
    "America/New_York",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "Pacific/Apia",
    "Asia/Kathmandu",
    "Africa/Casablanca",
];

proptest! {
    /// The definition read literally, one minute at a time, against the cut.
    #[test]
    fn every_instant_lies_in_its_day_and_in_the_bucket_of_its_wall_clock(
        zone in 0..ZONES.len(), day_start in 0_u8..24, ts in utc("2005-01-01T00:00:00Z")..utc("2035-01-01T00:00:00Z"),
    ) {
        let calendar = calendar(ZONES[zone], day_start);
        let cut = calendar.cut(calendar.day_of(ts));
        prop_assert!(cut.contains(ts));
        prop_assert_eq!(calendar.bounds(cut.day.next()).0, cut.end);
        prop_assert_eq!(cut.hours.first().unwrap().start, cut.start);
        prop_assert_eq!(cut.hours.last().unwrap().end, cut.end);
        for pair in cut.hours.windows(2) {
            prop_assert_eq!(pair[0].end, pair[1].start);
        }
        let bucket = cut.hours[cut.hour_index(ts)];
        let local = DateTime::from_timestamp_millis(ts).unwrap().with_timezone(&calendar.tz());
        prop_assert_eq!(u32::from(bucket.hour), local.hour());
        let name = |ms: TsMs| {
            let t = DateTime::from_timestamp_millis(ms).unwrap().with_timezone(&calendar.tz());
            (t.date_naive(), t.hour(), t.offset().fix())
        };
        prop_assert_eq!(name(bucket.start), name(ts));
        prop_assert_eq!(name(bucket.end - 1), name(ts));
        prop_assert_ne!(name(bucket.end), name(ts));
        prop_assert_ne!(name(bucket.start - 1), name(ts));
    }
}
