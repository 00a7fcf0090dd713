use proptest::prelude::*;

use super::*;
use crate::testing::position_batch;

fn delivery(received_at: i64, receipt: u128) -> Delivery {
    Delivery {
        received_at,
        receipt: Receipt::from_u128(receipt),
    }
}

/// One identity, a row per `(x, received_at)`.
fn rows(payloads: &[(f32, i64)]) -> RawRows {
    let mut all = RawRows::new(EventBatch::new(crate::event::Kind::Position));
    for &(x, received_at) in payloads {
        let one = position_batch(&[("s", "t", 1_000, x, 0.0)]);
        all.append(&RawRows::delivered_once(
            one,
            delivery(received_at, received_at as u128),
        ));
    }
    all.check().unwrap();
    all
}

fn winning_x(rows: &RawRows) -> f32 {
    let resolution = resolve(rows, |_, _| false);
    assert_eq!(resolution.winners.len(), 1);
    rows.events.f32s(0)[resolution.winners[0] as usize]
}

#[test]
fn a_correction_wins_and_a_stale_retry_of_the_older_version_changes_nothing() {
    assert_eq!(winning_x(&rows(&[(1.0, 10), (2.0, 20)])), 2.0);
    assert_eq!(winning_x(&rows(&[(1.0, 10), (2.0, 20), (1.0, 30)])), 2.0);
    assert_eq!(winning_x(&rows(&[(1.0, 30), (2.0, 20), (1.0, 10)])), 2.0);
}

#[test]
fn of_two_payloads_received_together_the_larger_bytes_win() {
    assert_eq!(winning_x(&rows(&[(1.0, 10), (2.0, 10)])), 2.0);
    // −1 has the sign bit set, so its bytes are larger, compared unsigned.
    assert_eq!(winning_x(&rows(&[(2.0, 10), (-1.0, 10)])), -1.0);
}

#[test]
fn a_higher_revision_wins_over_a_later_delivery() {
    let mut two = rows(&[(1.0, 10), (2.0, 20)]);
    two.events.revision[0] = 1;
    assert_eq!(winning_x(&two), 1.0);
}

#[test]
fn excluding_the_correction_brings_back_what_it_covered() {
    let all = rows(&[(1.0, 10), (2.0, 20), (1.0, 30)]);
    let resolution = resolve(&all, |_, delivery| delivery.received_at == 20);
    assert_eq!(all.events.f32s(0)[resolution.winners[0] as usize], 1.0);
    assert_eq!((resolution.conflicts, resolution.redeliveries), (0, 1));
    // With the first delivery of 1.0 excluded it counts from its retry, after 2.0.
    let resolution = resolve(&all, |_, delivery| delivery.received_at == 10);
    assert_eq!(all.events.f32s(0)[resolution.winners[0] as usize], 1.0);
    assert!(resolve(&all, |_, _| true).winners.is_empty());
}

#[test]
fn everything_delivered_is_either_first_or_superseded() {
    let all = rows(&[(1.0, 10), (2.0, 20), (2.0, 25), (2.0, 20)]);
    let resolution = resolve(&all, |_, _| false);
    assert_eq!(resolution.first, [delivery(20, 20)]);
    let mut superseded: Vec<_> = resolution
        .superseded
        .iter()
        .map(|(row, d)| (all.events.f32s(0)[*row as usize], d.received_at))
        .collect();
    superseded.sort_by(|a, b| a.partial_cmp(b).unwrap());
    assert_eq!(superseded, [(1.0, 10), (2.0, 25)]);
    assert_eq!((resolution.conflicts, resolution.redeliveries), (1, 1));
}

proptest! {
    /// Any order, any repetition, any split into rows: the same winners, checked against the rule read literally.
    #[test]
    fn winners_do_not_depend_on_order_or_repetition(
        events in prop::collection::vec((0_i64..3, 0_u8..2, 0_u8..3, 0_i64..6), 1..40),
        seed in any::<u64>(),
    ) {
        let build = |events: &[(i64, u8, u8, i64)]| {
            let mut all = RawRows::new(EventBatch::new(crate::event::Kind::Position));
            for &(ts, track, x, received) in events {
                let track = format!("t{track}");
                let one = position_batch(&[("s", &track, ts, f32::from(x), 0.0)]);
                all.append(&RawRows::delivered_once(one, delivery(received, received as u128)));
            }
            all
        };
        let summary = |rows: &RawRows| {
            let r = resolve(rows, |_, _| false);
            let winners: Vec<_> = r.winners.iter().zip(&r.first).map(|(&row, first)| {
                let row = row as usize;
                (rows.events.key(row).to_owned(), rows.events.ts[row], rows.events.f32s(0)[row] as u8, first.received_at)
            }).collect();
            (winners, r.conflicts, r.superseded.len())
        };
        let mut shuffled = events.clone();
        shuffled.extend_from_slice(&events[..events.len() / 2]);
        let n = shuffled.len();
        for i in 0..n {
            shuffled.swap(i, (seed.wrapping_mul(i as u64 + 7) % n as u64) as usize);
        }
        let got = summary(&build(&events));
        prop_assert_eq!(&got, &summary(&build(&shuffled)));

        let mut expected = Vec::new();
        let mut identities: Vec<_> = events.iter().map(|e| (format!("t{}", e.1), e.0)).collect();
        identities.sort();
        identities.dedup();
        for (track, ts) in identities {
            let of: Vec<_> = events.iter().filter(|e| e.0 == ts && format!("t{}", e.1) == track).collect();
            let first = |x: u8| of.iter().filter(|e| e.2 == x).map(|e| e.3).min();
            let best = (0..3_u8).filter_map(|x| first(x).map(|f| (f, f32::from(x).to_bits(), x))).max().unwrap();
            expected.push((track, ts, best.2, best.0));
        }
        prop_assert_eq!(got.0, expected);
    }
}
