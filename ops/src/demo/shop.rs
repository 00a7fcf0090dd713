//! A simulated shop: where its customers are at every second of a day.
//!
//! A pure function of the clock: the same second always has the same people at the same places, so a demo that is
//! stopped and started goes on where it was, and what is sent twice is the same event.

use dwell_model::time::{SECOND_MS, TsMs};

/// Arrivals are decided per stretch of this length.
const ARRIVAL_SLOT_MS: i64 = 60 * SECOND_MS;
/// Longest stay; arrivals older than this have left.
const STAY_MAX_MS: i64 = 15 * 60 * SECOND_MS;
/// Walking speed, metres per second.
const SPEED_M_S: f64 = 1.1;
/// Where the shop is entered and left.
const DOOR: (f64, f64) = (3.0, 0.4);
/// Centre of the tills.
const CHECKOUT: (f64, f64) = (18.0, 2.2);
/// Places where people stop.
const FIXTURES: [(f64, f64); 8] = [
    (4.0, 7.0),
    (6.2, 6.0),
    (11.0, 7.2),
    (13.0, 8.4),
    (18.0, 6.5),
    (5.0, 12.8),
    (16.5, 13.0),
    (11.4, 10.4),
];
/// East of this the second sensor sees people.
const SENSOR_EDGE_X: f64 = 12.0;

/// One position of one person.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sighting {
    pub(super) ts: TsMs,
    pub(super) track: String,
    pub(super) sensor: &'static str,
    pub(super) x: f32,
    pub(super) y: f32,
}

/// A customer's way: legs of walking and standing.
struct Customer {
    track: u64,
    arrives: TsMs,
    /// `(from, to, leaves from at, reaches to at, stands until)`, milliseconds after arrival.
    legs: Vec<Leg>,
}

struct Leg {
    from: (f64, f64),
    to: (f64, f64),
    start_ms: i64,
    reach_ms: i64,
    end_ms: i64,
}

/// All sightings with times in [from, to), by time.
pub(super) fn sightings(from: TsMs, to: TsMs) -> Vec<Sighting> {
    let mut all = Vec::new();
    let first_slot = (from - STAY_MAX_MS).div_euclid(ARRIVAL_SLOT_MS);
    for slot in first_slot..=to.div_euclid(ARRIVAL_SLOT_MS) {
        let Some(customer) = Customer::of_slot(slot) else {
            continue;
        };
        let mut ts = customer.arrives;
        while let Some((x, y)) = customer.place(ts) {
            if (from..to).contains(&ts) {
                let sensor = if x < SENSOR_EDGE_X { "xs-1" } else { "xs-2" };
                let (x, y) = (centimetres(x), centimetres(y));
                all.push(Sighting {
                    ts,
                    track: format!("{:08x}", customer.track >> 32),
                    sensor,
                    x,
                    y,
                });
            }
            ts += SECOND_MS;
        }
    }
    all.sort_by(|a, b| (a.ts, &a.track).cmp(&(b.ts, &b.track)));
    all
}

fn centimetres(metres: f64) -> f32 {
    ((metres * 100.0).round() / 100.0) as f32
}

impl Customer {
    /// The customer who comes in a slot, if one does: more around noon and in the evening (UTC).
    fn of_slot(slot: i64) -> Option<Self> {
        let mut dice = Dice(slot as u64);
        let hour = (slot * ARRIVAL_SLOT_MS).rem_euclid(86_400_000) as f64 / 3_600_000.0;
        let busy = |peak: f64, width: f64| (-((hour - peak) / width).powi(2)).exp();
        let chance = 0.12 + 0.5 * busy(11.5, 2.0) + 0.65 * busy(17.5, 2.2);
        if dice.unit() >= chance {
            return None;
        }
        let arrives = slot * ARRIVAL_SLOT_MS + (dice.unit() * ARRIVAL_SLOT_MS as f64) as i64;
        let stops = 1 + (dice.unit() * 5.0) as usize;
        let mut customer = Customer {
            track: dice.next(),
            arrives,
            legs: Vec::with_capacity(stops + 2),
        };
        let mut at = DOOR;
        for _ in 0..stops {
            let (x, y) = FIXTURES[(dice.unit() * FIXTURES.len() as f64) as usize % FIXTURES.len()];
            let to = (x + dice.unit() * 1.6 - 0.8, y + dice.unit() * 1.6 - 0.8);
            let stand_s = 4.0 + dice.unit().powi(2) * 90.0;
            customer.walk(&mut at, to, stand_s);
        }
        let queue = (
            CHECKOUT.0 + dice.unit() * 4.0 - 2.0,
            CHECKOUT.1 + dice.unit() * 1.6 - 0.8,
        );
        customer.walk(&mut at, queue, 15.0 + dice.unit() * 60.0);
        customer.walk(&mut at, DOOR, 0.0);
        Some(customer)
    }

    fn walk(&mut self, at: &mut (f64, f64), to: (f64, f64), stand_s: f64) {
        let start_ms = self.legs.last().map_or(0, |leg| leg.end_ms);
        let distance = (to.0 - at.0).hypot(to.1 - at.1);
        let reach_ms = start_ms + (distance / SPEED_M_S * 1000.0) as i64;
        let end_ms = reach_ms + (stand_s * 1000.0) as i64;
        self.legs.push(Leg {
            from: *at,
            to,
            start_ms,
            reach_ms,
            end_ms,
        });
        *at = to;
    }

    fn place(&self, ts: TsMs) -> Option<(f64, f64)> {
        let since = ts - self.arrives;
        if since > STAY_MAX_MS {
            return None;
        }
        let leg = self.legs.iter().find(|leg| since <= leg.end_ms)?;
        let walked = if leg.reach_ms > leg.start_ms {
            ((since - leg.start_ms) as f64 / (leg.reach_ms - leg.start_ms) as f64).clamp(0.0, 1.0)
        } else {
            1.0
        };
        let mix = |a: f64, b: f64| a + (b - a) * walked;
        Some((mix(leg.from.0, leg.to.0), mix(leg.from.1, leg.to.1)))
    }
}

/// Deterministic numbers (SplitMix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to below 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2025-10-09T17:30Z: the busy time of day.
    const EVENING: TsMs = 1_760_031_000_000;

    #[test]
    fn any_split_of_time_gives_the_same_sightings() {
        let whole = sightings(EVENING, EVENING + 600_000);
        let mut parts = sightings(EVENING, EVENING + 123_456);
        parts.extend(sightings(EVENING + 123_456, EVENING + 600_000));
        assert!(whole.len() > 400, "a busy shop: {}", whole.len());
        assert_eq!(whole, parts);
    }

    #[test]
    fn people_stay_on_the_floor_and_walk_at_a_human_pace() {
        let all = sightings(EVENING, EVENING + 1_800_000);
        for a in &all {
            assert!((0.0..24.0).contains(&a.x) && (0.0..16.0).contains(&a.y), "{a:?}");
            if let Some(b) = all
                .iter()
                .find(|b| b.track == a.track && b.ts == a.ts + SECOND_MS)
            {
                assert!((b.x - a.x).hypot(b.y - a.y) < 2.3, "{a:?} {b:?}");
            }
        }
    }
}
