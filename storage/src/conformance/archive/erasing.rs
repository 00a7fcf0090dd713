//! Whom the ledger of erasures names.

use super::*;

/// Forgets a track of the shop up to a time.
async fn forget(archive: &dyn Archive, id: &str, track: &str, until: i64) {
    let ledger = archive.erasures();
    let key = ledger.key().await.unwrap();
    let erasure = NewErasure {
        id: id.to_owned(),
        venue: shop(),
        requested_at: until - 1,
        subjects: vec![ErasedSubject {
            class: SubjectClass::Track,
            name: key.hash(SubjectClass::Track, &shop(), track),
            sensor: None,
            from: i64::MIN,
            until,
        }],
    };
    ledger.append(erasure).await.unwrap();
}

async fn tracks(archive: &dyn Archive, day: &ArchivedDay) -> Vec<(String, i64)> {
    let mut reader = archive
        .open(&shop(), day, Projection::EventsAndDeliveries)
        .await
        .unwrap();
    dwell_runtime::tasks::blocking("read a day", move || {
        let mut tracks = Vec::new();
        while let Some(chunk) = reader.next_chunk().unwrap() {
            tracks.extend(
                (0..chunk.events.len()).map(|row| (chunk.events.key(row).to_owned(), chunk.events.ts[row])),
            );
        }
        tracks
    })
    .await
    .unwrap()
}

pub(super) async fn whom_the_ledger_names_is_left_out_of_every_rewrite(under_test: ArchiveUnderTest) {
    let (archive, other) = (&*under_test.archive, &*under_test.other);
    let mut rows = DeliveredRows::new(Kind::Position);
    for (n, (track, ts)) in [("gone", 0), ("stays", 0), ("gone", 5), ("gone", 900)]
        .into_iter()
        .enumerate()
    {
        let event = position("s", track, DAY_START + ts, 1.0, 2.0);
        rows.append(&DeliveredRows::delivered_once(
            event,
            delivery(DAY_START, n as u128),
        ));
        // Delivered once more: superseded.
        let again = position("s", track, DAY_START + ts, 1.0, 2.0);
        rows.append(&DeliveredRows::delivered_once(
            again,
            delivery(DAY_START + 7, n as u128),
        ));
    }
    let before = put(archive, rows.clone()).await;
    assert_eq!((before.events[0].rows, before.superseded[0].rows), (4, 4));
    // Somebody else says so: the next rewrite hears of it, without any new row.
    forget(other, "one", "gone", DAY_START + 100).await;
    let after = put(archive, DeliveredRows::new(Kind::Position)).await;
    let expected = [
        ("gone".to_owned(), DAY_START + 900),
        ("stays".to_owned(), DAY_START),
    ];
    assert_eq!(tracks(archive, &after).await, expected);
    assert_eq!(after.superseded[0].rows, 2);
    // What comes again stays out.
    let again = rewrite(archive, rows, 2).await;
    assert_eq!(again, Rewrite::Unchanged(after.clone()));
    // The replaced files go at once; what is part of the archive stays.
    let purged = archive
        .purge_day(&shop(), Kind::Position, day(DAY))
        .await
        .unwrap();
    assert_eq!(purged.files, 2);
    assert_eq!(
        archive
            .purge_day(&shop(), Kind::Position, day(DAY))
            .await
            .unwrap(),
        PurgedFiles::default()
    );
    archive.verify(&shop(), &after).await.unwrap();
    assert!(
        archive.verify(&shop(), &before).await.is_err(),
        "its files are gone"
    );
}

pub(super) async fn a_day_of_which_an_erasure_leaves_nothing_is_empty(under_test: ArchiveUnderTest) {
    let archive = &*under_test.archive;
    let event = || position("s", "gone", DAY_START, 1.0, 2.0);
    let mut rows = DeliveredRows::delivered_once(event(), delivery(DAY_START, 1));
    rows.append(&DeliveredRows::delivered_once(event(), delivery(DAY_START, 2)));
    put(archive, rows).await;
    forget(archive, "one", "gone", DAY_START + 1).await;
    let after = put(archive, DeliveredRows::new(Kind::Position)).await;
    assert_eq!(after, ArchivedDay::default());
    assert_eq!(archive.days(&shop()).await.unwrap(), vec![]);
}
