//! The time of receipt of a partition's records: the running maximum of their times of append.
//!
//! The broker gives each batch its clock's time, and a clock can go back, when it is set or another broker leads. Every
//! reader must see the same running maximum wherever it starts. What it needs is the latest time before its start; the
//! broker can only be asked for the first record not before a time. The times for which that record lies before the
//! start are all those up to the time looked for: a search by halving finds it, without reading a record.

use dwell_model::time::TsMs;

use crate::api::Position;
use crate::error::Result;

/// The latest time of append among the records before `position`, where it is later than `time`.
///
/// `first_since` tells the position of the first record whose time is not before the one given. Where clocks behave it
/// is asked once.
pub(super) fn latest_before(
    position: Position,
    time: TsMs,
    mut first_since: impl FnMut(TsMs) -> Result<Option<Position>>,
) -> Result<Option<TsMs>> {
    let mut is_reached =
        |time: TsMs| first_since(time).map(|first| first.is_some_and(|first| first < position));
    let mut low = time.saturating_add(1);
    if !is_reached(low)? {
        return Ok(None);
    }
    // Steps that double until a time is not reached, then halving in between.
    let mut step = 1;
    let mut high = low.saturating_add(step);
    while is_reached(high)? {
        low = high;
        step *= 2;
        high = low.saturating_add(step);
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        match is_reached(middle)? {
            true => low = middle,
            false => high = middle,
        }
    }
    Ok(Some(low))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::samples::Dice;

    fn ask(times: &[TsMs], time: TsMs) -> Option<Position> {
        times.iter().position(|&t| t >= time).map(|i| i as Position)
    }

    #[test]
    fn every_start_gives_the_same_running_maximum() {
        let mut dice = Dice::new(7);
        for round in 0..200 {
            let mut now = 1_774_742_400_000;
            let times: Vec<TsMs> = (0..30)
                .map(|_| {
                    now += dice.below(1_000) as TsMs;
                    // Now and then the clock goes back, a little or by hours.
                    if dice.below(6) == 0 {
                        now -= dice.below(if round % 2 == 0 { 2_000 } else { 8_000_000 }) as TsMs;
                    }
                    now
                })
                .collect();
            for start in 0..times.len() {
                let expected = times[..=start].iter().copied().max().unwrap();
                let found = latest_before(start as Position, times[start], |t| Ok(ask(&times, t))).unwrap();
                assert_eq!(found.unwrap_or(times[start]), expected);
                assert!(found.is_none_or(|found| found > times[start]));
            }
        }
    }

    #[test]
    fn a_clock_that_behaves_costs_one_question() {
        let times = [10, 10, 20, 20, 30];
        let mut asked = 0;
        let found = latest_before(3, 20, |t| {
            asked += 1;
            Ok(ask(&times, t))
        });
        assert_eq!((found.unwrap(), asked), (None, 1));
    }
}
