//! Three Cassandra nodes with three copies of everything: one may die.

use crate::shop::Shop;
use crate::stack::Stack;

#[test]
fn one_of_three_nodes_dies_and_comes_back() {
    let Some(stack) = Stack::of_three_nodes() else {
        return;
    };
    let mut shop = Shop::open(&stack);
    for role in ["ingest", "raw-writer", "speed", "batch", "serve"] {
        shop.start(role);
    }
    let batches = shop.batches(24, 31);
    let third = batches.len() / 3;
    shop.post_all(&batches[..third]);
    stack.kill("cassandra-3");
    shop.post_all(&batches[third..2 * third]);
    println!("with two of three nodes, ready after {:?}", shop.until_ready());
    // Reads, writes and conditional writes go on at QUORUM.
    shop.check();
    stack.start("cassandra-3");
    stack.repair(3);
    // Every row that was written without the third node must be there when the second one is missing.
    stack.kill("cassandra-2");
    shop.post_all(&batches[2 * third..]);
    println!("with two others of three, ready after {:?}", shop.until_ready());
    shop.check();
}
