//! Processes and servers that die, freeze or cannot be reached while events are posted: nothing acknowledged is lost,
//! nothing counts twice, and the numbers are those of an independent computation.

use std::time::Duration;

use crate::proxy::Proxy;
use crate::shop::Shop;
use crate::stack::Stack;

/// Two of every role at once, without a fault.
#[test]
fn two_of_every_role_give_the_numbers_of_one() {
    let Some(stack) = Stack::take() else { return };
    let mut shop = Shop::open(&stack);
    shop.start_all(2);
    for batch in shop.batches(40, 11) {
        shop.post(&batch);
    }
    shop.until_ready();
    shop.check();
}

/// `kill -9` of each role in turn, in the middle of posting; a rebalance each time that a reader of the log goes or comes.
#[test]
fn each_role_is_killed_in_turn() {
    let Some(stack) = Stack::take() else { return };
    let mut shop = Shop::open(&stack);
    shop.start_all(2);
    let batches = shop.batches(60, 12);
    let victims = shop.names();
    for (number, batch) in batches.iter().enumerate() {
        shop.post(batch);
        if let Some(victim) = victims.get(number).filter(|_| number < victims.len()) {
            shop.kill(victim);
            shop.post(batch);
            shop.start(victim);
        }
    }
    println!("ready again after {:?}", shop.until_ready());
    shop.check();
}

/// The broker, a Cassandra node and the object store are killed and started again while events are posted.
#[test]
fn each_server_is_killed_and_started_again() {
    let Some(stack) = Stack::take() else { return };
    let mut shop = Shop::open(&stack);
    shop.start_all(1);
    let batches = shop.batches(50, 13);
    let (first, rest) = batches.split_at(batches.len() / 4);
    shop.post_all(first);
    for (part, server) in rest
        .chunks(rest.len().div_ceil(3))
        .zip(["kafka", "cassandra-1", "s3"])
    {
        stack.kill(server);
        if server == "kafka" {
            // Nothing is durable without the log: it says so, and what to do.
            let starting = std::thread::scope(|scope| {
                let starting = scope.spawn(|| {
                    std::thread::sleep(Duration::from_secs(3));
                    stack.start(server);
                });
                shop.post_all(part);
                starting.join()
            });
            starting.expect("the server starts");
        } else {
            // Events are taken all the same.
            for batch in part {
                let took = shop.post(batch);
                assert!(
                    took < Duration::from_secs(30),
                    "{server} is away: a post took {took:?}"
                );
            }
            stack.start(server);
        }
        println!("{server}: ready again after {:?}", shop.until_ready());
    }
    shop.check();
}

/// The wires to Cassandra and the object store are cut, then Kafka stands still.
#[test]
fn the_network_is_cut_while_events_are_posted() {
    let Some(stack) = Stack::take() else { return };
    let text = std::fs::read_to_string(stack.config()).expect("a configuration");
    let between = |front: &str, back: &str| {
        let from = text.find(front).expect(front) + front.len();
        text[from..].split(back).next().expect(back).to_owned()
    };
    let (tables, objects) = (
        between("cassandra://", "/"),
        between("endpoint = \"http://", "\""),
    );
    let first_node = tables.split(',').next().expect("a node").to_owned();
    let (to_tables, to_objects) = (Proxy::to(first_node), Proxy::to(objects.clone()));
    let mut shop = Shop::open_with(&stack, |config| {
        config
            .replace(
                &format!("cassandra://{tables}"),
                &format!("cassandra://{}", to_tables.address()),
            )
            .replace(
                &format!("http://{objects}"),
                &format!("http://{}", to_objects.address()),
            )
    });
    shop.start_all(1);
    let batches = shop.batches(40, 14);
    let parts: Vec<_> = batches.chunks(batches.len().div_ceil(3)).collect();
    shop.post_all(parts[0]);
    to_tables.cut();
    to_objects.cut();
    shop.post_all(parts[1]);
    std::thread::sleep(Duration::from_secs(10));
    to_tables.mend();
    to_objects.mend();
    stack.freeze("kafka");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Past its session with the controller: for a while partitions are without a leader, and clients are told so.
            std::thread::sleep(Duration::from_secs(14));
            stack.thaw("kafka");
        });
        shop.post_all(parts[2]);
    });
    println!("ready again after {:?}", shop.until_ready());
    shop.check();
}
