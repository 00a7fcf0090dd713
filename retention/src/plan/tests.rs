use dwell_model::event::Checksum;
use dwell_model::ids::{TenantId, VenueId, VenueKey};
use dwell_model::time::DAY_MS;
use proptest::prelude::*;

use super::*;
use crate::facts::{LegalHold, OldGeneration, Published};

const DAY_END: TsMs = 1_700_000_000_000;
const OLD_ENOUGH: TsMs = DAY_END + 90 * DAY_MS;

fn venue() -> VenueKey {
    VenueKey::new(TenantId::new("acme").unwrap(), VenueId::new("shop").unwrap())
}

fn sum(rows: u64, sum: u128) -> Checksum {
    Checksum { rows, sum }
}

/// A day of which everything may go at [`OLD_ENOUGH`].
fn proven_day() -> DayFacts {
    DayFacts {
        venue: venue(),
        day: "2023-11-14".parse().unwrap(),
        day_end: DAY_END,
        raw_rows: BTreeMap::from([(Kind::Position, 10)]),
        sessions: 3,
        old_generations: vec![],
        last_mark_at: Some(DAY_END - 5),
        published: Some(Published {
            generation: 7,
            provisional: false,
            dirty: false,
        }),
        archive: ArchiveProof::Verified {
            at: OLD_ENOUGH - 9,
            raw: sum(10, 99),
            found: sum(10, 99),
        },
        legal_holds: vec![],
    }
}

fn raw(day: &DayPlan) -> &Verdict {
    &day.raw[&Kind::Position]
}

fn raw_reasons(facts: DayFacts, now: TsMs) -> Vec<KeepReason> {
    match raw(&plan(&Policy::default(), now, &[facts]).days[0]).clone() {
        Verdict::Keep { reasons, .. } => reasons,
        other => panic!("nothing keeps it: {other:?}"),
    }
}

#[test]
fn a_proven_day_goes_when_it_is_90_days_old_and_not_a_millisecond_before() {
    let made = plan(&Policy::default(), OLD_ENOUGH, &[proven_day()]);
    assert_eq!(
        made.days[0].raw[&Kind::Position],
        Verdict::Delete {
            rows: 10,
            written_before: OLD_ENOUGH - 9
        }
    );
    assert_eq!(
        made.days[0].sessions,
        Verdict::Delete {
            rows: 3,
            written_before: OLD_ENOUGH - 9
        }
    );
    assert_eq!(
        made.totals,
        Totals {
            days_to_delete: 1,
            raw_rows: 10,
            sessions: 3,
            ..Totals::default()
        }
    );
    assert_eq!(
        raw_reasons(proven_day(), OLD_ENOUGH - 1),
        [KeepReason::TooYoung { until: OLD_ENOUGH }]
    );
}

#[test]
fn the_age_counts_from_the_last_mark_when_that_is_later_than_the_day() {
    let mut touched = proven_day();
    touched.last_mark_at = Some(DAY_END + 4 * DAY_MS);
    assert_eq!(
        raw_reasons(touched, OLD_ENOUGH),
        [KeepReason::TooYoung {
            until: OLD_ENOUGH + 4 * DAY_MS
        }]
    );
}

#[test]
fn each_doubt_keeps_the_day_and_is_named() {
    type Change = fn(&mut DayFacts);
    let cases: [(&str, Change, KeepReason); 7] = [
        (
            "never computed",
            |day| day.published = None,
            KeepReason::NotPublished,
        ),
        (
            "provisional",
            |day| day.published.as_mut().unwrap().provisional = true,
            KeepReason::Provisional { generation: 7 },
        ),
        (
            "dirty",
            |day| day.published.as_mut().unwrap().dirty = true,
            KeepReason::Dirty { generation: 7 },
        ),
        (
            "not archived",
            |day| day.archive = ArchiveProof::Missing,
            KeepReason::NotArchived,
        ),
        (
            "not to be read",
            |day| {
                day.archive = ArchiveProof::Unreadable {
                    what: "a.parquet is damaged".into(),
                };
            },
            KeepReason::ArchiveUnreadable {
                what: "a.parquet is damaged".into(),
            },
        ),
        (
            "a row is missing",
            |day| {
                day.archive = ArchiveProof::Verified {
                    at: OLD_ENOUGH,
                    raw: sum(10, 99),
                    found: sum(9, 90),
                };
            },
            KeepReason::ArchiveDiffers {
                raw_rows: 10,
                found_rows: 9,
            },
        ),
        (
            "as many rows, but others",
            |day| {
                day.archive = ArchiveProof::Verified {
                    at: OLD_ENOUGH,
                    raw: sum(10, 99),
                    found: sum(10, 98),
                };
            },
            KeepReason::ArchiveDiffers {
                raw_rows: 10,
                found_rows: 10,
            },
        ),
    ];
    for (name, change, expected) in cases {
        let mut day = proven_day();
        change(&mut day);
        assert_eq!(raw_reasons(day, OLD_ENOUGH), [expected], "{name}");
    }
}

#[test]
fn a_legal_hold_keeps_everything_until_it_ends() {
    let mut held = proven_day();
    held.legal_holds.push(LegalHold {
        reason: "case 12".into(),
        until: Some(OLD_ENOUGH + 1),
    });
    held.legal_holds.push(LegalHold {
        reason: "long over".into(),
        until: Some(3),
    });
    let because = KeepReason::LegalHold {
        because: "case 12".into(),
        until: Some(OLD_ENOUGH + 1),
    };
    assert_eq!(raw_reasons(held.clone(), OLD_ENOUGH), [because]);
    assert_eq!(
        plan(&Policy::default(), OLD_ENOUGH, &[held.clone()])
            .totals
            .days_to_keep,
        1
    );
    let after = plan(&Policy::default(), OLD_ENOUGH + 1, &[held]);
    assert!(matches!(raw(&after.days[0]), Verdict::Delete { .. }));
}

#[test]
fn all_reasons_are_told_at_once() {
    let mut day = proven_day();
    day.published = None;
    day.archive = ArchiveProof::Missing;
    day.legal_holds.push(LegalHold {
        reason: "audit".into(),
        until: None,
    });
    assert_eq!(raw_reasons(day, DAY_END).len(), 4);
}

#[test]
fn a_day_that_nobody_compared_waits_for_that_and_for_nothing_else() {
    let mut day = proven_day();
    day.archive = ArchiveProof::Unverified;
    let made = plan(&Policy::default(), OLD_ENOUGH, &[day.clone()]);
    assert_eq!(raw(&made.days[0]), &Verdict::Compare { rows: 10 });
    assert_eq!(
        (
            made.totals.days_to_compare,
            made.totals.days_to_delete,
            made.totals.raw_rows
        ),
        (1, 0, 0)
    );
    assert_eq!(
        raw_reasons(day, OLD_ENOUGH - 1),
        [KeepReason::TooYoung { until: OLD_ENOUGH }]
    );
}

#[test]
fn a_kind_may_have_an_age_of_its_own() {
    let mut day = proven_day();
    day.raw_rows.insert(Kind::Presence, 4);
    day.raw_rows.insert(Kind::Reading, 5);
    let policy = Policy {
        raw_of_kind_ms: BTreeMap::from([(Kind::Presence, 7 * DAY_MS), (Kind::Reading, 365 * DAY_MS)]),
        ..Policy::default()
    };
    assert_eq!(policy.first_due_ms(), 7 * DAY_MS);
    let gone_at = |now: TsMs| -> Vec<Kind> {
        let made = plan(&policy, now, std::slice::from_ref(&day));
        let deleted =
            |(kind, verdict): (&Kind, &Verdict)| matches!(verdict, Verdict::Delete { .. }).then_some(*kind);
        made.days[0].raw.iter().filter_map(deleted).collect()
    };
    assert_eq!(gone_at(DAY_END + 7 * DAY_MS - 1), []);
    assert_eq!(gone_at(DAY_END + 7 * DAY_MS), [Kind::Presence]);
    assert_eq!(gone_at(OLD_ENOUGH), [Kind::Position, Kind::Presence]);
    assert_eq!(gone_at(DAY_END + 365 * DAY_MS).len(), 3);
}

#[test]
fn an_old_generation_goes_at_its_own_time_unless_somebody_needs_it() {
    let old = |generation, pinned| OldGeneration {
        generation,
        replaced_at: DAY_END,
        pinned,
    };
    let mut day = proven_day();
    day.raw_rows.clear();
    day.sessions = 0;
    day.published = None;
    day.archive = ArchiveProof::Missing;
    day.old_generations = vec![old(3, false), old(5, true)];
    let due = DAY_END + 400 * DAY_MS;
    let made = plan(&Policy::default(), due, &[day.clone()]);
    let kept = |reasons| GenerationPlan {
        generation: 5,
        reasons,
    };
    let gone = GenerationPlan {
        generation: 3,
        reasons: vec![],
    };
    assert_eq!(made.days[0].generations, [gone, kept(vec![KeepReason::Pinned])]);
    assert_eq!((made.totals.generations, made.totals.days_to_delete), (1, 1));
    let before = plan(&Policy::default(), due - 1, &[day.clone()]);
    assert_eq!(
        before.days[0].generations[0].reasons,
        [KeepReason::TooYoung { until: due }]
    );
    day.legal_holds.push(LegalHold {
        reason: "case 12".into(),
        until: None,
    });
    let held = plan(&Policy::default(), due, &[day]);
    assert!(held.days[0].generations.iter().all(|old| !old.reasons.is_empty()));
    assert_eq!(held.totals.days_to_keep, 1);
}

#[test]
fn a_policy_of_less_than_a_day_is_refused() {
    Policy::default().check().unwrap();
    let short = |change: fn(&mut Policy)| {
        let mut policy = Policy::default();
        change(&mut policy);
        policy.check().unwrap_err().to_string()
    };
    assert!(short(|policy| policy.raw_ms = DAY_MS - 1).contains("raw events"));
    assert!(short(|policy| policy.sessions_ms = 0).contains("sessions"));
    assert!(short(|policy| policy.generations_ms = -1).contains("old generations"));
    let kind = |policy: &mut Policy| {
        policy.raw_of_kind_ms.insert(Kind::Presence, 5);
    };
    assert!(short(kind).contains("presence"));
}

#[test]
fn an_empty_day_needs_no_reason() {
    let mut day = proven_day();
    day.raw_rows = BTreeMap::new();
    day.sessions = 0;
    let made = plan(&Policy::default(), 0, &[day]);
    assert_eq!(
        (made.days[0].raw.len(), &made.days[0].sessions),
        (0, &Verdict::Empty)
    );
    assert_eq!(made.totals, Totals::default());
}

#[test]
fn facts_and_plans_survive_json_and_unknown_fields_are_refused() {
    let facts = serde_json::to_string(&proven_day()).unwrap();
    assert_eq!(serde_json::from_str::<DayFacts>(&facts).unwrap(), proven_day());
    let made = plan(&Policy::default(), DAY_END, &[proven_day()]);
    let bytes = serde_json::to_string(&made).unwrap();
    assert!(bytes.contains("\"reason\":\"too_young\""), "{bytes}");
    let refused: Result<Policy, _> = serde_json::from_str(r#"{"raw_days":3}"#);
    assert!(refused.is_err());
    assert_eq!(serde_json::from_str::<Plan>(&bytes).unwrap(), made);
}

fn facts() -> impl Strategy<Value = DayFacts> {
    let published = prop::option::of((any::<u64>(), any::<bool>(), any::<bool>()));
    let archive = prop_oneof![
        Just(ArchiveProof::Missing),
        Just(ArchiveProof::Unverified),
        Just(ArchiveProof::Unreadable {
            what: "a.parquet".into()
        }),
        (any::<i32>(), 0_u64..3, 0_u128..2, 0_u64..3, 0_u128..2).prop_map(
            |(at, rows, s, found_rows, found)| {
                ArchiveProof::Verified {
                    at: i64::from(at),
                    raw: sum(rows, s),
                    found: sum(found_rows, found),
                }
            }
        ),
    ];
    let hold = prop::option::of(prop::option::of(-100_i64..100));
    (
        -50_i64..50,
        0_u64..3,
        0_u64..3,
        prop::option::of(-50_i64..50),
        published,
        archive,
        hold,
    )
        .prop_map(
            |(day_end, raw_rows, sessions, last_mark_at, published, archive, hold)| DayFacts {
                day_end,
                raw_rows: BTreeMap::from([(Kind::Position, raw_rows)]),
                sessions,
                last_mark_at,
                published: published.map(|(generation, provisional, dirty)| Published {
                    generation,
                    provisional,
                    dirty,
                }),
                archive,
                legal_holds: hold
                    .map(|until| LegalHold {
                        reason: "hold".into(),
                        until,
                    })
                    .into_iter()
                    .collect(),
                ..proven_day()
            },
        )
}

/// Whether rows may go, written down a second time, as a chain of refusals.
fn may_go(facts: &DayFacts, keep_ms: i64, now: TsMs) -> bool {
    for hold in &facts.legal_holds {
        match hold.until {
            None => return false,
            Some(until) if now < until => return false,
            Some(_) => {}
        }
    }
    let young_by_day = now - facts.day_end < keep_ms;
    let young_by_mark = facts.last_mark_at.is_some_and(|mark| now - mark < keep_ms);
    if young_by_day || young_by_mark {
        return false;
    }
    let clean = matches!(
        facts.published,
        Some(Published {
            provisional: false,
            dirty: false,
            ..
        })
    );
    clean
        && !matches!(
            facts.archive,
            ArchiveProof::Missing | ArchiveProof::Unreadable { .. }
        )
        && !matches!(&facts.archive, ArchiveProof::Verified { raw, found, .. } if raw != found)
}

proptest! {
    #[test]
    fn rows_go_exactly_when_no_rule_forbids_it(
        days in prop::collection::vec(facts(), 0..8), now in -100_i64..200, raw_ms in 0_i64..40, sessions_ms in 0_i64..40,
    ) {
        let policy = Policy { raw_ms, sessions_ms, ..Policy::default() };
        let made = plan(&policy, now, &days);
        prop_assert_eq!(made.days.len(), days.len());
        for (facts, decided) in days.iter().zip(&made.days) {
            for (rows, keep_ms, verdict) in
                [(facts.raw_rows[&Kind::Position], raw_ms, raw(decided)), (facts.sessions, sessions_ms, &decided.sessions)]
            {
                match verdict {
                    Verdict::Empty => prop_assert_eq!(rows, 0),
                    Verdict::Delete { rows: told, .. } | Verdict::Compare { rows: told } => {
                        prop_assert!(rows > 0 && *told == rows && may_go(facts, keep_ms, now));
                        let is_proven = matches!(facts.archive, ArchiveProof::Verified { .. });
                        prop_assert_eq!(matches!(verdict, Verdict::Delete { .. }), is_proven);
                    }
                    Verdict::Keep { rows: told, reasons } => {
                        prop_assert!(rows > 0 && *told == rows && !may_go(facts, keep_ms, now));
                        prop_assert!(!reasons.is_empty());
                    }
                }
            }
        }
    }

    #[test]
    fn waiting_never_forbids_what_was_allowed(day in facts(), now in -100_i64..200, later in 0_i64..500) {
        let policy = Policy { raw_ms: 20, sessions_ms: 20, ..Policy::default() };
        let before = plan(&policy, now, std::slice::from_ref(&day)).days.remove(0).raw;
        if matches!(before[&Kind::Position], Verdict::Delete { .. }) {
            prop_assert_eq!(plan(&policy, now + later, &[day]).days.remove(0).raw, before);
        }
    }

    #[test]
    fn a_day_is_decided_by_itself(days in prop::collection::vec(facts(), 1..6), now in -100_i64..200) {
        let policy = Policy { raw_ms: 20, sessions_ms: 5, ..Policy::default() };
        let together = plan(&policy, now, &days).days;
        let alone: Vec<_> =
            days.iter().map(|day| plan(&policy, now, std::slice::from_ref(day)).days.remove(0)).collect();
        prop_assert_eq!(together, alone);
    }

    #[test]
    fn the_longest_age_there_is_keeps_for_ever(day in facts()) {
        let policy = Policy { raw_ms: i64::MAX, sessions_ms: i64::MAX, ..Policy::default() };
        let made = plan(&policy, i64::MAX / 2, &[day]);
        prop_assert_eq!(made.totals.days_to_delete, 0);
    }
}
