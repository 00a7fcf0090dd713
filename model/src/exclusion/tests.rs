use proptest::prelude::*;

use super::*;
use crate::event::{RawRows, resolve};
use crate::testing::position_batch;

const MADE_AT: TsMs = 1_000_000;

fn exclusion(id: &str, scope: Scope) -> Exclusion {
    Exclusion {
        id: id.to_owned(),
        venue: VenueId::new("v").unwrap(),
        scope,
        reason: "rubbish".to_owned(),
        made_by: "key".to_owned(),
        made_at: MADE_AT,
        ended: None,
        days: DaySet::default(),
        is_searched: false,
    }
}

fn delivery(received_at: TsMs, receipt: u128) -> Delivery {
    Delivery {
        received_at,
        receipt: Receipt::from_u128(receipt),
    }
}

fn of_sensor(sensor: &str) -> Scope {
    Scope {
        sensor: Some(sensor.to_owned()),
        ..Scope::default()
    }
}

#[test]
fn a_sensor_is_covered_as_far_as_it_was_received_before() {
    let wrong = exclusion("a", of_sensor("s1"));
    assert!(wrong.covers("s1", 5, &delivery(MADE_AT - 1, 1)));
    assert!(!wrong.covers("s1", 5, &delivery(MADE_AT, 1)), "sent afterwards");
    assert!(!wrong.covers("s2", 5, &delivery(1, 1)));
}

#[test]
fn a_receipt_is_covered_whole_whenever_it_is_delivered() {
    let scope = Scope {
        receipt: Some(Receipt::from_u128(7)),
        ..Scope::default()
    };
    let wrong = exclusion("a", scope);
    assert!(wrong.covers("any", 5, &delivery(1, 7)));
    assert!(wrong.covers("any", 5, &delivery(MADE_AT * 9, 7)), "a redelivery");
    assert!(!wrong.covers("any", 5, &delivery(1, 8)));
}

#[test]
fn a_window_is_half_open() {
    let scope = Scope {
        from: Some(10),
        to: Some(20),
        ..Scope::default()
    };
    let wrong = exclusion("a", scope.clone());
    let covered: Vec<TsMs> = (8..23)
        .filter(|&ts| wrong.covers("s", ts, &delivery(1, 1)))
        .collect();
    assert_eq!(covered, (10..20).collect::<Vec<_>>());
    assert!(!scope.is_turned_round());
    for (from, to) in [(20, 20), (20, 10)] {
        let window = Scope {
            from: Some(from),
            to: Some(to),
            ..Scope::default()
        };
        assert!(window.is_turned_round());
    }
    assert!(Scope::default().is_empty() && !scope.is_empty());
}

#[test]
fn a_day_asks_only_what_may_bear_on_it() {
    let window = Scope {
        from: Some(10),
        to: Some(20),
        ..Scope::default()
    };
    let receipt = Scope {
        receipt: Some(Receipt::from_u128(7)),
        ..Scope::default()
    };
    let all = [
        exclusion("window", window),
        exclusion("sensor", of_sensor("s")),
        exclusion("receipt", receipt),
    ];
    let asked = |range: Range<TsMs>| -> Vec<String> {
        let day = DayExclusions::of(&all, &range);
        day.rules().iter().map(|rule| rule.id.clone()).collect()
    };
    assert_eq!(asked(0..10), ["sensor", "receipt"]);
    assert_eq!(asked(19..30), ["window", "sensor", "receipt"]);
    assert_eq!(asked(20..30), ["sensor", "receipt"]);
    // Long after it was made nothing of a day can have been received before.
    let later = MADE_AT + AHEAD_MS_MAX;
    assert_eq!(asked(later..later + 10), ["receipt"]);
    let mut ended = all.clone();
    for exclusion in &mut ended {
        exclusion.ended = Some(Ended {
            at: MADE_AT + 1,
            job: "undo".to_owned(),
            by: "key".to_owned(),
            reason: None,
        });
    }
    assert!(DayExclusions::of(&ended, &(0..30)).is_empty());
}

#[test]
fn the_fingerprint_stands_for_the_set() {
    let (a, b) = (exclusion("a", of_sensor("s")), exclusion("b", of_sensor("s")));
    assert_eq!(fingerprint([]), 0);
    assert_eq!(fingerprint([&a, &b]), fingerprint([&b, &a]));
    assert_ne!(fingerprint([&a]), fingerprint([&b]));
    assert_ne!(fingerprint([&a]), fingerprint([&a, &b]));
    // What it was found on, and its end, change nothing of what it means.
    let mut found = a.clone();
    found.days.insert("2026-03-01".parse().unwrap());
    found.is_searched = true;
    assert_eq!(fingerprint([&a]), fingerprint([&found]));
    // Stored with every generation: it must be the same for ever.
    assert_eq!(fingerprint([&a]), 13_707_123_639_751_904_158);
}

#[test]
fn an_exclusion_reads_as_it_is_stored() {
    let stored = r#"{"id":"j1","venue":"v","scope":{"sensor":"s1","receipt":null,"from":10,"to":null},
        "reason":"rubbish","made_by":"k","made_at":99,"ended":{"at":120,"job":"j2","by":"k2","reason":null}}"#;
    let read: Exclusion = serde_json::from_str(stored).unwrap();
    assert_eq!(
        (read.scope.from, read.is_in_force(), read.is_searched),
        (Some(10), false, false)
    );
    let again: Exclusion = serde_json::from_value(serde_json::to_value(&read).unwrap()).unwrap();
    assert_eq!(again, read);
}

type Row = (u8, u8, i64, i64, u8);

/// The rule as design.md §3 says it, for one delivery.
fn is_covered(scope: &Scope, sensor: u8, ts: i64, received_at: i64, receipt: u8) -> bool {
    if let Some(name) = &scope.sensor
        && *name != format!("s{sensor}")
    {
        return false;
    }
    if scope.from.is_some_and(|from| ts < from) || scope.to.is_some_and(|to| ts >= to) {
        return false;
    }
    match scope.receipt {
        Some(wanted) => wanted.to_u128() == u128::from(receipt),
        None => received_at < MADE_AT,
    }
}

fn scopes() -> impl Strategy<Value = Vec<Scope>> {
    let scope = (
        prop::option::of(0_u8..3),
        prop::option::of(0_u8..4),
        prop::option::of(0_i64..30),
        prop::option::of(0_i64..30),
    )
        .prop_map(|(sensor, receipt, from, to)| Scope {
            sensor: sensor.map(|n| format!("s{n}")),
            receipt: receipt.map(|n| Receipt::from_u128(u128::from(n))),
            from,
            to,
        });
    prop::collection::vec(scope, 0..4)
}

proptest! {
    /// Rows, deliveries and overlapping exclusions at random: a batch's rules and the winners that are left are those
    /// of the rule read literally.
    #[test]
    fn what_counts_is_what_the_rule_says_delivery_by_delivery(
        // sensor, payload, ts, time of receipt around the making, receipt
        rows in prop::collection::vec((0_u8..3, 0_u8..3, 0_i64..30, MADE_AT - 3..MADE_AT + 3, 0_u8..4), 1..40),
        scopes in scopes(),
        undone in 0_usize..5,
    ) {
        let mut all: Vec<Exclusion> = scopes
            .iter()
            .enumerate()
            .map(|(n, scope)| exclusion(&format!("e{n}"), scope.clone()))
            .collect();
        if let Some(one) = all.get_mut(undone) {
            one.ended = Some(Ended { at: MADE_AT + 9, job: "u".into(), by: "k".into(), reason: None });
        }
        let in_force: Vec<&Scope> = all.iter().filter(|one| one.is_in_force()).map(|one| &one.scope).collect();
        let covered = |&(sensor, _, ts, received_at, receipt): &Row| {
            in_force.iter().any(|scope| is_covered(scope, sensor, ts, received_at, receipt))
        };

        let mut raw = RawRows::new(EventBatch::new(crate::event::Kind::Position));
        for &(sensor, x, ts, received_at, receipt) in &rows {
            let one = position_batch(&[(&format!("s{sensor}"), "t", ts, f32::from(x), 0.0)]);
            raw.append(&RawRows::delivered_once(one, delivery(received_at, u128::from(receipt))));
        }
        let day = DayExclusions::of(&all, &(0..30));
        let on = day.on(&raw.events);
        for (at, row) in rows.iter().enumerate() {
            let delivery = &raw.deliveries(at)[0];
            prop_assert_eq!(on.covers(&raw.events, at, delivery), covered(row));
            let named: Vec<&Scope> = on.covering(&raw.events, at, delivery).map(|n| &day.rules()[n].scope).collect();
            let expected: Vec<&Scope> = in_force
                .iter()
                .copied()
                .filter(|scope| is_covered(scope, row.0, row.2, row.3, row.4))
                .collect();
            prop_assert_eq!(named, expected);
        }

        // The winners: those of the rows that are left, as if the others had never come.
        let left: Vec<Row> = rows.iter().copied().filter(|row| !covered(row)).collect();
        let mut expected: Vec<(i64, u8, u8)> = Vec::new();
        let mut identities: Vec<(i64, u8)> = left.iter().map(|row| (row.2, row.0)).collect();
        identities.sort_unstable();
        identities.dedup();
        for (ts, sensor) in identities {
            let of: Vec<&Row> = left.iter().filter(|row| (row.2, row.0) == (ts, sensor)).collect();
            let first = |x: u8| of.iter().filter(|row| row.1 == x).map(|row| row.3).min();
            let best = (0..3_u8).filter_map(|x| first(x).map(|at| (at, f32::from(x).to_bits(), x))).max();
            expected.push((ts, sensor, best.unwrap().2));
        }
        let resolution = resolve(&raw, |row, delivery| on.covers(&raw.events, row, delivery));
        let got: Vec<(i64, u8, u8)> = resolution
            .winners
            .iter()
            .map(|&row| row as usize)
            .map(|row| {
                let sensor = raw.events.sensor(row).as_bytes()[1] - b'0';
                (raw.events.ts[row], sensor, raw.events.f32s(0)[row] as u8)
            })
            .collect();
        prop_assert_eq!(got, expected);
    }
}
