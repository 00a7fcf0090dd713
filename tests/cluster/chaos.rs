//! Random faults for a while, by a seed that can be played again.

use std::time::{Duration, Instant};

use crate::shop::Shop;
use crate::stack::Stack;
use crate::walkers::Dice;

/// How long, in seconds; a minute unless `DWELL_CHAOS_SECONDS` says otherwise.
fn duration() -> Duration {
    let seconds = std::env::var("DWELL_CHAOS_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(60))
}

/// The seed; printed, so that a failure can be played again with `DWELL_CHAOS_SEED`.
fn seed() -> u64 {
    let given = std::env::var("DWELL_CHAOS_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    given.unwrap_or(20_261_121)
}

#[test]
fn random_faults_lose_nothing_and_count_nothing_twice() {
    let Some(stack) = Stack::take() else { return };
    let (seed, until) = (seed(), Instant::now() + duration());
    println!("chaos with DWELL_CHAOS_SEED={seed} for {:?}", duration());
    let mut dice = Dice(seed);
    let mut shop = Shop::open(&stack);
    shop.start_all(2);
    let roles = shop.names();
    let mut round = 0;
    while Instant::now() < until {
        round += 1;
        for batch in shop.batches(8, seed.wrapping_add(round)) {
            match dice.below(12) {
                0 | 1 => {
                    let victim = roles[dice.below(roles.len() as u64) as usize].clone();
                    println!("kill -9 {victim}");
                    shop.kill(&victim);
                    // The other one of the role goes on.
                    shop.post(&batch);
                    shop.start(&victim);
                }
                2 => {
                    let sleeper = roles[dice.below(roles.len() as u64) as usize].clone();
                    let millis = 200 + dice.below(14_000);
                    println!("{sleeper} stands still for {millis} ms");
                    shop.process(&sleeper).signal("STOP");
                    std::thread::sleep(Duration::from_millis(millis));
                    shop.process(&sleeper).signal("CONT");
                    shop.post(&batch);
                }
                3 if dice.below(3) == 0 => {
                    let servers = stack.servers();
                    let server = servers[dice.below(servers.len() as u64) as usize].clone();
                    println!("kill -9 of the server {server}");
                    stack.kill(&server);
                    std::thread::scope(|scope| {
                        scope.spawn(|| stack.start(&server));
                        shop.post(&batch);
                    });
                }
                4 if dice.below(3) == 0 => {
                    let servers = stack.servers();
                    let server = servers[dice.below(servers.len() as u64) as usize].clone();
                    println!("the server {server} stands still");
                    stack.freeze(&server);
                    std::thread::sleep(Duration::from_millis(500 + dice.below(5_000)));
                    stack.thaw(&server);
                    shop.post(&batch);
                }
                _ => {
                    shop.post(&batch);
                }
            }
        }
    }
    println!("{round} rounds; ready again after {:?}", shop.until_ready());
    shop.check();
}
