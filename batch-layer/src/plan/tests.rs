use dwell_model::exclusion::{DaySet, Ended, Scope};
use dwell_model::ids::VenueId;
use dwell_model::metrics::CounterSample;
use dwell_model::time::{HOUR_MS, slot_of};
use dwell_storage::api::MarkSource;

use super::*;
use crate::spec::What;
use crate::testing::generation;

const DEFINITIONS: u32 = 1;

fn day(text: &str) -> LocalDay {
    text.parse().unwrap()
}

fn madrid() -> Venue {
    Venue {
        id: VenueId::new("shop").unwrap(),
        name: None,
        calendar: VenueCalendar::from_names("Europe/Madrid", 0).unwrap(),
        tags: Vec::new(),
        layouts: vec![Layout::empty()],
    }
}

fn marks(position: i64) -> Marks {
    let mut marks = Marks::default();
    marks.raise(&MarkSource::log(1, 0), position);
    marks
}

/// A mark in the first slot of a day of the venue.
fn slot_on(venue: &Venue, of: LocalDay, position: i64) -> (i64, Marks) {
    (slot_of(venue.calendar.bounds(of).0), marks(position))
}

/// A final generation of a day, made of everything up to a mark.
fn computed(venue: &Venue, of: LocalDay, position: i64) -> VenueDay {
    let published = GenerationInfo {
        calendar: venue.calendar,
        layout: venue.layout_on(of).fingerprint(),
        definitions: DEFINITIONS,
        marks: marks(position),
        ..generation()
    };
    VenueDay {
        day: of,
        fence: 1,
        lease: None,
        published: Some(published),
    }
}

struct Case {
    venue: Venue,
    now: TsMs,
    slots: Vec<(i64, Marks)>,
    archived: Vec<LocalDay>,
    days: Vec<VenueDay>,
    exclusions: Vec<Exclusion>,
    spec: RunSpec,
}

impl Case {
    /// Noon of 10 March 2026, with computed days from 7 to 9 March that nothing has happened to.
    fn clean() -> Self {
        let venue = madrid();
        let days = [7, 8, 9].map(|d| day(&format!("2026-03-0{d}")));
        Self {
            now: venue.calendar.bounds(day("2026-03-10")).0 + 12 * HOUR_MS,
            slots: days.iter().map(|&d| slot_on(&venue, d, 5)).collect(),
            archived: days.to_vec(),
            days: days.iter().map(|&d| computed(&venue, d, 5)).collect(),
            exclusions: Vec::new(),
            spec: RunSpec::all_dirty(What::Recompute),
            venue,
        }
    }

    fn published(&mut self, of: &str) -> &mut GenerationInfo {
        let of = day(of);
        self.days
            .iter_mut()
            .find(|row| row.day == of)
            .unwrap()
            .published
            .as_mut()
            .unwrap()
    }

    fn plan(&self) -> Vec<PlannedDay> {
        let facts = VenueFacts {
            venue: &self.venue,
            definitions: DEFINITIONS,
            now: self.now,
            slots: &self.slots,
            archived: &self.archived,
            days: &self.days,
            exclusions: &self.exclusions,
        };
        days_to_compute(&facts, &self.spec)
    }

    /// The planned days with their causes, as text.
    fn check(&self, expected: &[(&str, &[Cause])]) {
        let planned: Vec<_> = self
            .plan()
            .into_iter()
            .map(|planned| (planned.day.to_string(), planned.causes))
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(day, causes)| (day.to_string(), causes.to_vec()))
            .collect();
        assert_eq!(planned, expected);
    }
}

#[test]
fn clean_days_are_left_alone() {
    Case::clean().check(&[]);
}

#[test]
fn a_mark_above_the_published_one_or_of_a_new_source_makes_a_day_dirty() {
    let mut case = Case::clean();
    case.slots[1].1.raise(&MarkSource::log(1, 0), 6);
    case.slots[2].1.raise(&MarkSource::job("import-1"), 1);
    case.check(&[
        ("2026-03-08", &[Cause::NewEvents]),
        ("2026-03-09", &[Cause::NewEvents]),
    ]);
}

#[test]
fn any_slot_of_a_day_counts() {
    let mut case = Case::clean();
    let (_, end) = case.venue.calendar.bounds(day("2026-03-08"));
    case.slots.insert(2, (slot_of(end - 1), marks(6)));
    case.check(&[("2026-03-08", &[Cause::NewEvents])]);
}

#[test]
fn days_with_events_and_no_generation_are_computed_the_first_time() {
    let mut case = Case::clean();
    case.archived.insert(0, day("2025-12-24"));
    case.slots.insert(0, slot_on(&case.venue, day("2026-01-06"), 1));
    case.check(&[
        ("2025-12-24", &[Cause::NeverComputed]),
        ("2026-01-06", &[Cause::NeverComputed]),
    ]);
}

#[test]
fn a_leased_day_that_was_never_published_and_has_no_events_is_nothing() {
    let mut case = Case::clean();
    case.days.insert(
        0,
        VenueDay {
            day: day("2026-01-01"),
            fence: 3,
            lease: None,
            published: None,
        },
    );
    case.check(&[]);
}

#[test]
fn changed_layouts_definitions_and_cuts_are_causes_of_their_own() {
    let mut case = Case::clean();
    case.published("2026-03-07").layout ^= 1;
    case.published("2026-03-08").definitions += 1;
    case.published("2026-03-09").calendar = VenueCalendar::from_names("Europe/Lisbon", 0).unwrap();
    case.check(&[
        ("2026-03-07", &[Cause::LayoutChanged]),
        ("2026-03-08", &[Cause::DefinitionsChanged]),
        ("2026-03-09", &[Cause::CutChanged]),
    ]);
}

#[test]
fn a_layout_valid_from_a_day_dirties_that_day_and_the_later_ones() {
    let mut case = Case::clean();
    let mut later = Layout::empty();
    later.valid_from = Some(day("2026-03-08"));
    later.rules.session_gap_ms = 60_000;
    case.venue.layouts.push(later);
    case.check(&[
        ("2026-03-08", &[Cause::LayoutChanged]),
        ("2026-03-09", &[Cause::LayoutChanged]),
    ]);
}

#[test]
fn an_open_day_is_computed_when_asked_and_a_provisional_one_again_once_it_has_closed() {
    let mut case = Case::clean();
    case.slots.push(slot_on(&case.venue, day("2026-03-10"), 7));
    let planned = case.plan();
    assert_eq!(planned.len(), 1);
    assert!(planned[0].open && planned[0].causes == [Cause::NeverComputed]);
    case.spec.include_open = false;
    case.check(&[]);
    let mut provisional = computed(&case.venue, day("2026-03-10"), 7);
    provisional.published.as_mut().unwrap().provisional = true;
    case.days.push(provisional);
    case.spec.include_open = true;
    case.check(&[]);
    case.now = case.venue.calendar.bounds(day("2026-03-10")).1;
    case.check(&[("2026-03-10", &[Cause::DayClosed])]);
}

#[test]
fn a_day_that_has_not_begun_is_never_planned() {
    let mut case = Case::clean();
    case.slots.push(slot_on(&case.venue, day("2026-03-11"), 7));
    case.check(&[]);
    case.spec.from = Some(day("2026-03-11"));
    case.check(&[]);
}

#[test]
fn a_changed_carry_dirties_the_next_computed_day_over_a_gap_and_no_other() {
    let carry = Carry([("a".to_owned(), CounterSample { ts: 1, value: 5 })].into());
    let mut case = Case::clean();
    case.days.remove(1);
    case.slots.remove(1);
    case.archived.remove(1);
    case.published("2026-03-07").carry = carry.clone();
    case.check(&[("2026-03-09", &[Cause::CarryChanged])]);
    case.published("2026-03-09").carry_in = carry;
    case.check(&[]);
}

#[test]
fn a_range_names_every_day_with_data_whether_dirty_or_not() {
    let mut case = Case::clean();
    case.slots[2].1 = marks(9);
    case.spec.from = Some(day("2026-03-08"));
    case.check(&[("2026-03-08", &[]), ("2026-03-09", &[Cause::NewEvents])]);
    case.spec.to = Some(day("2026-03-08"));
    case.check(&[("2026-03-08", &[])]);
}

#[test]
fn force_without_a_range_names_every_day_with_data() {
    let mut case = Case::clean();
    case.spec.force = true;
    case.check(&[("2026-03-07", &[]), ("2026-03-08", &[]), ("2026-03-09", &[])]);
}

#[test]
fn a_slot_that_two_days_share_marks_both() {
    // Nepal is 5:45 ahead of UTC, so its midnight lies five minutes into a ten-minute slot.
    let calendar = VenueCalendar::from_names("Asia/Kathmandu", 0).unwrap();
    let of = day("2026-03-08");
    let (start, end) = calendar.bounds(of);
    assert_ne!(start % SLOT_MS, 0);
    let slots: Vec<_> = (slot_of(start)..=slot_of(end - 1))
        .map(|slot| (slot, marks(slot)))
        .collect();
    let by_day = marks_by_day(&calendar, &slots);
    let days: Vec<_> = by_day.iter().map(|(day, _)| *day).collect();
    assert_eq!(days, [of.prev(), of, of.next()]);
    assert_eq!(
        by_day[0].1,
        marks(slot_of(start)),
        "the first slot reaches back into the day before"
    );
    assert_eq!(by_day[1].1, marks(slot_of(end - 1)));
    assert_eq!(by_day[2].1, marks(slot_of(end)));
}

#[test]
fn marks_by_day_agrees_with_asking_the_calendar_about_every_slot() {
    for zone in [
        "Europe/Madrid",
        "Australia/Lord_Howe",
        "Asia/Kathmandu",
        "America/St_Johns",
    ] {
        for day_start in [0, 4] {
            let calendar = VenueCalendar::from_names(zone, day_start).unwrap();
            // Some days around a change of the clocks, with gaps.
            let first = slot_of(calendar.bounds(day("2026-10-23")).0);
            let slots: Vec<_> = (first..first + 800)
                .step_by(7)
                .map(|slot| (slot, marks(slot)))
                .collect();
            let mut expected: BTreeMap<LocalDay, Marks> = BTreeMap::new();
            for (slot, of_slot) in &slots {
                for minute in 0..10 {
                    let of = calendar.day_of(slot * SLOT_MS + minute * 60_000);
                    expected.entry(of).or_default().merge(of_slot);
                }
            }
            let got = marks_by_day(&calendar, &slots);
            assert_eq!(
                got,
                expected.into_iter().collect::<Vec<_>>(),
                "{zone} {day_start}"
            );
        }
    }
}

#[test]
fn a_day_is_dirty_while_other_exclusions_have_a_part_in_it_than_its_generation_says() {
    let mut case = Case::clean();
    let made_at = case.now;
    let made = |id: &str, days: &[&str]| Exclusion {
        id: id.to_owned(),
        venue: VenueId::new("shop").unwrap(),
        scope: Scope {
            sensor: Some("cam".to_owned()),
            ..Scope::default()
        },
        reason: "rubbish".to_owned(),
        made_by: "key".to_owned(),
        made_at,
        ended: None,
        days: days.iter().map(|text| day(text)).collect::<DaySet>(),
        is_searched: true,
    };
    let (a, b) = (
        made("a", &["2026-03-07", "2026-03-08"]),
        made("b", &["2026-03-08"]),
    );
    case.exclusions = vec![a.clone(), b.clone()];
    case.check(&[
        ("2026-03-07", &[Cause::ExclusionsChanged]),
        ("2026-03-08", &[Cause::ExclusionsChanged]),
    ]);
    case.published("2026-03-07").exclusions.fingerprint = exclusion::fingerprint([&a]);
    case.published("2026-03-08").exclusions.fingerprint = exclusion::fingerprint([&a, &b]);
    case.check(&[]);
    // One is undone: the other stays.
    case.exclusions[0].ended = Some(Ended {
        at: case.now,
        job: "undo".to_owned(),
        by: "key".to_owned(),
        reason: None,
    });
    case.check(&[
        ("2026-03-07", &[Cause::ExclusionsChanged]),
        ("2026-03-08", &[Cause::ExclusionsChanged]),
    ]);
    case.published("2026-03-07").exclusions.fingerprint = 0;
    case.published("2026-03-08").exclusions.fingerprint = exclusion::fingerprint([&b]);
    case.check(&[]);
}
