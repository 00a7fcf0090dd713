use super::*;
use crate::time::{HOUR_MS, VenueCalendar};

fn calendar(tz: &str, day_start: u8) -> VenueCalendar {
    VenueCalendar::from_names(tz, day_start).unwrap()
}

fn day(text: &str) -> LocalDay {
    text.parse().unwrap()
}

fn hours_of(hours: &OpeningHours, calendar: &VenueCalendar, date: &str) -> Vec<(i64, i64)> {
    let cut = calendar.cut(day(date));
    hours
        .open_intervals(&cut)
        .into_iter()
        .map(|(from, to)| ((from - cut.start) / HOUR_MS, (to - cut.start) / HOUR_MS))
        .collect()
}

#[test]
fn a_span_past_midnight_belongs_to_both_days() {
    let hours = OpeningHours::every_day(OpenSpan::new(22 * 60, 2 * 60).unwrap());
    assert_eq!(
        hours_of(&hours, &calendar("Etc/UTC", 0), "2026-05-05"),
        [(0, 2), (22, 24)]
    );
    // With a day start at 04:00 the night is one piece.
    assert_eq!(
        hours_of(&hours, &calendar("Etc/UTC", 4), "2026-05-05"),
        [(18, 22)]
    );
}

#[test]
fn clock_changes_move_the_hours_in_utc() {
    let hours = OpeningHours::every_day(OpenSpan::new(9 * 60, 21 * 60).unwrap());
    let madrid = calendar("Europe/Madrid", 0);
    assert_eq!(hours_of(&hours, &madrid, "2026-10-24"), [(9, 21)]);
    assert_eq!(hours_of(&hours, &madrid, "2026-10-25"), [(10, 22)]);
    assert_eq!(hours_of(&hours, &madrid, "2026-03-29"), [(8, 20)]);
    let always = OpeningHours::every_day(OpenSpan::all_day());
    assert_eq!(hours_of(&always, &madrid, "2026-10-25"), [(0, 25)]);
}

#[test]
fn an_exception_replaces_the_weekday() {
    let weekly = [(Weekday::Fri, vec![OpenSpan::new(600, 720).unwrap()])].into();
    let exceptions = [(day("2026-12-25"), vec![])].into();
    let hours = OpeningHours::new(weekly, exceptions);
    let utc = calendar("Etc/UTC", 0);
    assert_eq!(hours_of(&hours, &utc, "2026-12-18"), [(10, 12)]);
    assert!(
        hours_of(&hours, &utc, "2026-12-25").is_empty(),
        "a Friday, but Christmas"
    );
    assert!(hours_of(&hours, &utc, "2026-12-17").is_empty(), "a Thursday");
}

#[test]
fn open_time_of_a_bucket_is_what_overlaps() {
    assert_eq!(open_ms(&[(10, 20), (30, 40)], 15, 35), 10);
    assert_eq!(open_ms(&[(10, 20)], 20, 30), 0);
}

#[test]
fn an_instant_is_open_from_the_opening_until_before_the_closing() {
    let open = [(10, 20), (30, 40)];
    let found: Vec<i64> = (0..50).filter(|&ts| is_open_at(&open, ts)).collect();
    let expected: Vec<i64> = (10..20).chain(30..40).collect();
    assert_eq!(found, expected);
    assert!(!is_open_at(&[], 5));
}

/// The calendar finds the instant of a wall time by the zone's rules, the day's cut by its hours: they agree in zones
/// whose clocks change at midnight, by half an hour, or skip a whole date.
#[test]
fn a_days_open_intervals_are_those_of_the_calendar() {
    let places = [
        ("Europe/Madrid", 0, "2026-03-28"),
        ("Europe/Madrid", 3, "2026-10-24"),
        ("Australia/Lord_Howe", 2, "2026-10-03"),
        ("Australia/Lord_Howe", 0, "2026-04-04"),
        ("America/St_Johns", 0, "2006-10-28"),
        ("America/Sao_Paulo", 0, "2018-11-03"),
        ("America/Havana", 0, "2026-10-31"),
        ("Pacific/Apia", 0, "2011-12-29"),
        ("Asia/Kathmandu", 6, "2026-05-05"),
    ];
    for (tz, day_start, first) in places {
        let calendar = calendar(tz, day_start);
        for span in [
            (0, 30),
            (23 * 60 + 30, 30),
            (9 * 60, 21 * 60),
            (120, 150),
            (600, 600),
        ] {
            let span = OpenSpan::new(span.0, span.1).unwrap();
            let hours = OpeningHours::every_day(span);
            for day in day(first).through(day(first).plus(2)) {
                let cut = calendar.cut(day);
                let mut expected = Vec::new();
                for date in [day.prev(), day, day.next()] {
                    let from = calendar.instant_of(date, span.open_minute()).max(cut.start);
                    let to = calendar.instant_of(date, span.close_minute()).min(cut.end);
                    if from < to {
                        expected.push((from, to));
                    }
                }
                expected.sort_unstable();
                let expected =
                    expected
                        .into_iter()
                        .fold(Vec::new(), |mut all: Vec<(i64, i64)>, (from, to)| {
                            match all.last_mut() {
                                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                                _ => all.push((from, to)),
                            }
                            all
                        });
                assert_eq!(hours.open_intervals(&cut), expected, "{tz} {day} {span:?}");
            }
        }
    }
}
