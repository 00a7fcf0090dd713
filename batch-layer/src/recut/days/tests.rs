//! Expectations worked out by hand from the zones' rules.

use super::*;

fn day(text: &str) -> LocalDay {
    text.parse().unwrap()
}

fn ts(text: &str) -> TsMs {
    dwell_model::time::parse_ts(text).unwrap()
}

fn cuts(from: (&str, u8), to: (&str, u8), now: &str) -> TwoCuts {
    TwoCuts {
        from: VenueCalendar::from_names(from.0, from.1).unwrap(),
        to: VenueCalendar::from_names(to.0, to.1).unwrap(),
        now: ts(now),
    }
}

#[track_caller]
fn check_sources(cuts: &TwoCuts, of: &str, expected: &[&str]) {
    let expected: Vec<LocalDay> = expected.iter().map(|text| day(text)).collect();
    assert_eq!(cuts.sources(day(of)), expected, "{of}");
}

#[test]
fn a_zone_to_the_west_takes_from_the_day_and_the_next_one() {
    // Lisbon's midnight is 01:00 in Madrid, all year: both change their clocks at the same instant.
    let cuts = cuts(("Europe/Madrid", 0), ("Europe/Lisbon", 0), "2026-12-01T00:00:00Z");
    for (of, next) in [
        ("2026-03-28", "2026-03-29"),
        ("2026-03-29", "2026-03-30"),
        ("2026-10-25", "2026-10-26"),
        ("2026-07-01", "2026-07-02"),
    ] {
        check_sources(&cuts, of, &[of, next]);
    }
}

#[test]
fn another_day_start_takes_from_the_day_and_the_one_before() {
    // Days from 04:00 to 04:00 are corrected to days from midnight: 00:00–04:00 belonged to the day before.
    let cuts = cuts(("Europe/Madrid", 4), ("Europe/Madrid", 0), "2026-12-01T00:00:00Z");
    check_sources(&cuts, "2026-03-10", &["2026-03-09", "2026-03-10"]);
    // The day of 23 hours and the one of 25.
    check_sources(&cuts, "2026-03-29", &["2026-03-28", "2026-03-29"]);
    check_sources(&cuts, "2026-10-25", &["2026-10-24", "2026-10-25"]);
}

#[test]
fn zones_that_change_their_clocks_on_other_days_meet_and_part() {
    // London and Accra have one time in winter. From 2026-03-29 01:00Z London's days begin at 23:00Z of the day before.
    let cuts = cuts(("Europe/London", 0), ("Africa/Accra", 0), "2026-12-01T00:00:00Z");
    check_sources(&cuts, "2026-03-27", &["2026-03-27"]);
    check_sources(&cuts, "2026-03-28", &["2026-03-28"]);
    // London's 29th has 23 hours, and ends an hour before Accra's.
    check_sources(&cuts, "2026-03-29", &["2026-03-29", "2026-03-30"]);
    check_sources(&cuts, "2026-10-24", &["2026-10-24", "2026-10-25"]);
    // London's 25th of October has 25 hours, from 23:00Z to 00:00Z.
    check_sources(&cuts, "2026-10-25", &["2026-10-25"]);
    check_sources(&cuts, "2026-10-26", &["2026-10-26"]);
}

#[test]
fn the_two_ends_of_the_world_share_no_day() {
    // Kiritimati is 14 hours before UTC, Niue 11 after: a day there that starts at 23:00 starts at 10:00Z of the next one.
    let cuts = cuts(
        ("Pacific/Kiritimati", 0),
        ("Pacific/Niue", 23),
        "2026-12-01T00:00:00Z",
    );
    check_sources(&cuts, "2026-05-05", &["2026-05-07"]);
    // Apia keeps the time of UTC+13: its days begin an hour after Kiritimati's of the same name.
    let near = TwoCuts {
        to: VenueCalendar::from_names("Pacific/Apia", 0).unwrap(),
        ..cuts
    };
    check_sources(&near, "2026-05-05", &["2026-05-05", "2026-05-06"]);
}

#[test]
fn the_days_to_be_made_cover_all_that_is_known_and_empty_what_is_left() {
    let cuts = cuts(
        ("Pacific/Kiritimati", 0),
        ("Pacific/Niue", 23),
        "2026-12-01T00:00:00Z",
    );
    let made: Vec<LocalDay> = cuts.days([day("2026-05-07")]).into_iter().collect();
    assert_eq!(made, [day("2026-05-05"), day("2026-05-07")], "the 7th is emptied");
}

#[test]
fn a_day_is_made_of_files_raw_or_both() {
    // 00:30 in Madrid on the 11th is 23:30 in Lisbon on the 10th, which has not ended.
    let west = cuts(("Europe/Madrid", 0), ("Europe/Lisbon", 0), "2026-03-10T23:30:00Z");
    assert_eq!(west.make(day("2026-03-10")), Make::Files);
    assert_eq!(
        west.make(day("2026-03-09")),
        Make::Final,
        "all of it lies in Madrid's 9th and 10th, which are over"
    );
    // An hour later it has ended; its last hour lies in Madrid's 11th, which goes on.
    let later = TwoCuts {
        now: ts("2026-03-11T00:30:00Z"),
        ..west
    };
    assert_eq!(later.make(day("2026-03-10")), Make::Provisional);
    assert_eq!(later.make(day("2026-03-11")), Make::Files);
    // To the east days end sooner: half past midnight in Athens, half past eleven in Madrid.
    let east = cuts(("Europe/Madrid", 0), ("Europe/Athens", 0), "2026-03-10T22:30:00Z");
    assert_eq!(east.make(day("2026-03-10")), Make::Provisional);
    assert_eq!(east.make(day("2026-03-09")), Make::Final);
    assert_eq!(east.make(day("2026-03-11")), Make::Files);
}
