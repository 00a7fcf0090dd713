use dwell_model::time::HOUR_MS;

use super::*;

fn calendar(tz: &str, day_start_hour: u8) -> VenueCalendar {
    VenueCalendar::from_names(tz, day_start_hour).unwrap()
}

fn at(text: &str) -> TsMs {
    parse_ts(text).unwrap()
}

fn range(from: &str, to: &str, calendar: &VenueCalendar) -> Range {
    Range::parse(Some(from), Some(to), calendar, at("2026-07-01T12:00:00Z")).unwrap()
}

fn cut_all(calendar: &VenueCalendar, from: &str, to: &str, by: By) -> Vec<Bucket> {
    cut(
        calendar,
        range(from, to, calendar),
        by,
        HoursOfDay::ALL,
        10_000,
        10_000,
    )
    .unwrap()
}

#[test]
fn dates_include_both_ends_and_instants_are_half_open() {
    let madrid = calendar("Europe/Madrid", 0);
    let dates = range("2026-03-01", "2026-03-02", &madrid);
    assert_eq!(
        dates,
        Range {
            start: at("2026-02-28T23:00:00Z"),
            end: at("2026-03-02T23:00:00Z")
        }
    );
    let instants = range("2026-03-01T10:00:00Z", "2026-03-01T12:00:00Z", &madrid);
    assert_eq!((instants.end - instants.start) / HOUR_MS, 2);
    let hours = cut(&madrid, instants, By::Hour, HoursOfDay::ALL, 10, 10).unwrap();
    let starts: Vec<_> = hours.iter().map(|bucket| format_rfc3339(bucket.start)).collect();
    assert_eq!(starts, ["2026-03-01T10:00:00.000Z", "2026-03-01T11:00:00.000Z"]);
}

#[test]
fn a_plus_sign_that_became_a_space_is_read_as_it_was_meant() {
    let utc = calendar("UTC", 0);
    let meant = range("2026-03-01T10:00:00+01:00", "2026-03-01T12:00:00+01:00", &utc);
    assert_eq!(
        range("2026-03-01T10:00:00 01:00", "2026-03-01T12:00:00 01:00", &utc),
        meant
    );
}

#[test]
fn what_is_left_out_is_today() {
    let madrid = calendar("Europe/Madrid", 0);
    let now = at("2026-06-30T22:30:00Z"); // 00:30 of July 1st in Madrid
    let today = Range {
        start: at("2026-06-30T22:00:00Z"),
        end: at("2026-07-01T22:00:00Z"),
    };
    assert_eq!(Range::parse(None, None, &madrid, now).unwrap(), today);
    let since = Range::parse(Some("2026-06-29"), None, &madrid, now).unwrap();
    assert_eq!((since.start, since.end), (at("2026-06-28T22:00:00Z"), today.end));
    let until = Range::parse(None, Some("2026-06-29"), &madrid, now).unwrap();
    assert_eq!(
        (until.start, until.end),
        (at("2026-06-28T22:00:00Z"), at("2026-06-29T22:00:00Z"))
    );
}

#[test]
fn days_on_which_clocks_change_have_23_and_25_hours() {
    let madrid = calendar("Europe/Madrid", 0);
    let spring = cut_all(&madrid, "2026-03-29", "2026-03-29", By::Hour);
    let autumn = cut_all(&madrid, "2026-10-25", "2026-10-25", By::Hour);
    assert_eq!((spring.len(), autumn.len()), (23, 25));
    for hours in [&spring, &autumn] {
        assert!(hours.windows(2).all(|pair| pair[0].end == pair[1].start), "dense");
        assert!(hours.iter().all(|bucket| bucket.length_ms == HOUR_MS));
    }
    // 02:00 comes twice, once at each offset.
    assert_eq!(
        (autumn[2].offset_ms / HOUR_MS, autumn[3].offset_ms / HOUR_MS),
        (2, 1)
    );
    let days = cut_all(&madrid, "2026-10-24", "2026-10-26", By::Day);
    let lengths: Vec<_> = days.iter().map(|day| day.length_ms / HOUR_MS).collect();
    assert_eq!(lengths, [24, 25, 24]);
}

#[test]
fn a_half_hour_clock_change_makes_a_short_hour() {
    // Lord Howe sets its clocks back by 30 minutes at 02:00 on 2026-04-05: 01:30 to 02:00 comes twice.
    let hours = cut_all(
        &calendar("Australia/Lord_Howe", 0),
        "2026-04-05",
        "2026-04-05",
        By::Hour,
    );
    assert_eq!(
        hours.iter().map(|bucket| bucket.length_ms).sum::<i64>(),
        24 * HOUR_MS + HOUR_MS / 2
    );
    assert_eq!(
        hours
            .iter()
            .filter(|bucket| bucket.length_ms == HOUR_MS / 2)
            .count(),
        1
    );
}

#[test]
fn weeks_and_months_are_local_and_sum_up_to_the_total() {
    let madrid = calendar("Europe/Madrid", 4);
    // 2026-03-01 is a Sunday.
    let weeks = cut_all(&madrid, "2026-03-01", "2026-03-31", By::Week);
    let days_of_week: Vec<_> = weeks.iter().map(|week| week.pieces.len()).collect();
    assert_eq!(days_of_week, [1, 7, 7, 7, 7, 2]);
    let months = cut_all(&madrid, "2026-01-30", "2026-03-02", By::Month);
    assert_eq!(
        months.iter().map(|month| month.pieces.len()).collect::<Vec<_>>(),
        [2, 28, 2]
    );
    let total = cut_all(&madrid, "2026-03-01", "2026-03-31", By::Total);
    assert_eq!(total.len(), 1);
    assert_eq!(
        total[0].length_ms,
        weeks.iter().map(|week| week.length_ms).sum::<i64>()
    );
    assert_eq!(total[0].length_ms, (31 * 24 - 1) * HOUR_MS, "March lost an hour");
}

#[test]
fn iso_weeks_run_over_the_end_of_the_year() {
    let weeks = cut_all(&calendar("UTC", 0), "2026-12-28", "2027-01-04", By::Week);
    assert_eq!(
        weeks.iter().map(|week| week.pieces.len()).collect::<Vec<_>>(),
        [7, 1]
    );
}

#[test]
fn hours_of_the_day_cut_longer_buckets_into_hours() {
    let madrid = calendar("Europe/Madrid", 0);
    let hours = HoursOfDay::parse("1-4").unwrap();
    let dates = range("2026-10-24", "2026-10-25", &madrid);
    let days = cut(&madrid, dates, By::Day, hours, 10, 10).unwrap();
    // On the 25th 02:00 comes twice.
    let lengths: Vec<_> = days.iter().map(|day| day.length_ms / HOUR_MS).collect();
    assert_eq!(lengths, [3, 4]);
    assert!(
        days.iter()
            .flat_map(|day| &day.pieces)
            .all(|piece| piece.grain == Grain::Hour)
    );
}

#[test]
fn a_range_that_ends_inside_a_day_has_days_and_hours() {
    let utc = calendar("UTC", 0);
    let instants = range("2026-03-01T22:00:00Z", "2026-03-03T01:00:00Z", &utc);
    let total = cut(&utc, instants, By::Total, HoursOfDay::ALL, 10, 10).unwrap();
    let grains: Vec<_> = total[0].pieces.iter().map(|piece| piece.grain).collect();
    assert_eq!(grains, [Grain::Hour, Grain::Hour, Grain::Day, Grain::Hour]);
}

#[test]
fn nonsense_is_refused_with_what_to_do() {
    let utc = calendar("UTC", 0);
    for (from, to) in [
        ("2026-03-02", "2026-03-01"),
        ("2026-02-30", "2026-03-01"),
        ("yesterday", "2026-03-01"),
        ("", "2026-03-01"),
        ("1969-01-01", "2026-01-01"),
        ("2026-03-01", "9999-01-01"),
        ("-5", "2026-01-01"),
        ("2026-03-01T00:00:00Z", "2026-03-01T00:00:00Z"),
    ] {
        assert!(
            Range::parse(Some(from), Some(to), &utc, 0).is_err(),
            "{from} {to}"
        );
    }
    let decade = range("2016-01-01", "2025-12-31", &utc);
    let refused = cut(&utc, decade, By::Hour, HoursOfDay::ALL, 10_000, 100_000).unwrap_err();
    assert!(refused.detail().contains("10000"), "{}", refused.detail());
    assert!(cut(&utc, decade, By::Day, HoursOfDay::ALL, 10_000, 3_653).is_ok());
    assert!(cut(&utc, decade, By::Day, HoursOfDay::ALL, 10_000, 3_652).is_err());
    assert!(
        cut(
            &utc,
            decade,
            By::Hour,
            HoursOfDay::parse("3").unwrap(),
            3_000,
            100_000
        )
        .is_err()
    );
}
