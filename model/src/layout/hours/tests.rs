use super::*;
use crate::time::HOUR_MS;

fn calendar(tz: &str, day_start: u8) -> VenueCalendar {
    VenueCalendar::from_names(tz, day_start).unwrap()
}

fn day(text: &str) -> LocalDay {
    text.parse().unwrap()
}

fn hours_of(hours: &OpeningHours, calendar: &VenueCalendar, date: &str) -> Vec<(i64, i64)> {
    let cut = calendar.cut(day(date));
    hours
        .open_intervals(&cut, calendar)
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
