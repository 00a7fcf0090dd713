//! A day written in place of all that it held.

use std::collections::BTreeSet;

use dwell_model::event::Kind;

use super::super::samples::{day, describe, shop};
use super::{ArchiveUnderTest, DAY, Told, commit, join, put, row, told, winners};
use crate::api::{Committed, DeliveredRows, StagedDay};

pub(super) async fn a_replaced_day_holds_its_new_rows_and_nothing_of_before(test: ArchiveUnderTest) {
    let archive = &*test.archive;
    let replace = async |rows: DeliveredRows, fence| {
        let kind = rows.events.kind;
        let staged = archive
            .replace_day(&shop(), kind, day(DAY), fence, Box::new(rows))
            .await;
        staged.unwrap()
    };
    let kind = Kind::Position;
    let before = put(
        archive,
        join(&[row("a", 1, 1.0, 1), row("b", 2, 1.0, 1), row("b", 2, 2.0, 2)]),
    )
    .await;
    assert!(!before.superseded.is_empty());
    // A correction and a redelivery, and no row of before.
    let rows = join(&[
        row("c", 3, 1.0, 5),
        row("c", 3, 2.0, 6),
        row("d", 4, 1.0, 5),
        row("d", 4, 1.0, 5),
    ]);
    let staged = replace(rows, 2).await;
    assert_eq!(staged.replaces, before);
    assert_eq!(
        archive.day(&shop(), kind, day(DAY)).await.unwrap(),
        before,
        "nothing is visible yet"
    );
    let holds = staged.holds.clone();
    assert_eq!(commit(archive, staged.clone()).await, Committed::Yes);
    let now = archive.day(&shop(), kind, day(DAY)).await.unwrap();
    assert_eq!(now, holds);
    let texts: Vec<Told> = winners(archive, &shop(), &now).await;
    let expected: Vec<Told> = [row("c", 3, 2.0, 6), row("d", 4, 1.0, 5)]
        .iter()
        .map(|rows| (describe(&rows.events, 0), rows.delivery(0)))
        .collect();
    assert_eq!(texts, expected);
    let superseded = archive.superseded(&shop(), kind, &now).await.unwrap();
    let covered = row("c", 3, 1.0, 5);
    assert_eq!(
        told(&superseded),
        BTreeSet::from([(describe(&covered.events, 0), covered.delivery(0))])
    );
    // The same commit again, and one that was read before it.
    assert_eq!(commit(archive, staged).await, Committed::Yes);
    let stale = StagedDay {
        replaces: before,
        ..replace(row("e", 5, 1.0, 5), 3).await
    };
    assert_eq!(commit(archive, stale.clone()).await, Committed::Stale);
    archive.discard(vec![stale]).await.unwrap();
    assert_eq!(archive.day(&shop(), kind, day(DAY)).await.unwrap(), now);
    // Without rows it holds nothing, and so it is where nothing was.
    let emptied = replace(DeliveredRows::new(kind), 4).await;
    assert!(emptied.holds.is_empty());
    assert_eq!(commit(archive, emptied).await, Committed::Yes);
    assert!(archive.day(&shop(), kind, day(DAY)).await.unwrap().is_empty());
    assert_eq!(archive.days(&shop()).await.unwrap(), []);
    let nothing = replace(DeliveredRows::new(kind), 5).await;
    assert_eq!(
        (nothing.replaces.is_empty(), nothing.holds.is_empty()),
        (true, true)
    );
    assert_eq!(commit(archive, nothing).await, Committed::Yes);
}
