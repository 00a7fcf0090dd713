//! What [`Sessions`] promises.

use std::sync::Arc;

use dwell_model::session::{Session, Subject, ZoneVisit};
use dwell_model::time::TsMs;

use super::run_cases;
use super::samples::{DAY_START, Dice, day, shop, strangers};
use crate::api::{SessionCursor, Sessions, StoredSession};

/// Runs all cases, each on a fresh store that `make` gives.
pub async fn suite<M, F>(make: M)
where
    M: Fn() -> F,
    F: Future<Output = Arc<dyn Sessions>>,
{
    run_cases!(
        "sessions",
        make,
        [
            what_was_written_is_listed_by_start_and_id,
            pages_follow_each_other_without_gap_or_overlap,
            one_session_is_found_by_its_id,
            writing_again_replaces,
            generations_days_and_venues_are_kept_apart,
            deleting_removes_one_generation_and_may_be_repeated,
            erasing_removes_some_sessions_of_one_generation,
        ]
    );
}

fn session(id: &str, start: TsMs, points: u64) -> StoredSession {
    let visit = |enter, zone| ZoneVisit {
        enter: start + enter,
        exit: start + enter + 900,
        zone,
    };
    let session = Session {
        subject: Subject {
            track: format!("track-{id}"),
            sensor: points.is_multiple_of(2).then(|| "Süd 2".to_owned()),
        },
        start,
        end: start + 5_000,
        points,
        path_um: u64::MAX - points,
        continued_in: points.is_multiple_of(3),
        continued_out: points % 3 == 1,
        visits: (0..points % 4)
            .map(|n| visit(n as i64 * 1_000, u16::MAX - n as u16))
            .collect(),
    };
    StoredSession {
        id: id.to_owned(),
        session,
    }
}

/// Sessions in an order that is not theirs, some of the same start.
fn some_sessions() -> Vec<StoredSession> {
    let mut sessions: Vec<_> = (0..25_u64)
        .map(|n| {
            session(
                &format!("id-{:02}", n * 7 % 25),
                DAY_START + n as i64 / 4 * 100,
                n,
            )
        })
        .collect();
    Dice::new(3).shuffle(&mut sessions);
    sessions
}

fn sorted(mut sessions: Vec<StoredSession>) -> Vec<StoredSession> {
    sessions.sort_by(|a, b| (a.session.start, &a.id).cmp(&(b.session.start, &b.id)));
    sessions
}

async fn what_was_written_is_listed_by_start_and_id(store: Arc<dyn Sessions>) {
    let d = day("2026-03-29");
    assert_eq!(store.list(&shop(), d, 1, None, 100).await.unwrap(), []);
    store.write(&shop(), d, 1, some_sessions()).await.unwrap();
    assert_eq!(
        store.list(&shop(), d, 1, None, 100).await.unwrap(),
        sorted(some_sessions())
    );
    store.write(&shop(), d, 2, vec![]).await.unwrap();
    assert_eq!(store.list(&shop(), d, 2, None, 100).await.unwrap(), []);
}

async fn pages_follow_each_other_without_gap_or_overlap(store: Arc<dyn Sessions>) {
    let d = day("2026-03-29");
    store.write(&shop(), d, 1, some_sessions()).await.unwrap();
    for limit in [1, 3, 24, 25, 26] {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = store.list(&shop(), d, 1, after.as_ref(), limit).await.unwrap();
            assert!(page.len() <= limit);
            let Some(last) = page.last() else { break };
            after = Some(SessionCursor {
                start: last.session.start,
                id: last.id.clone(),
            });
            all.extend(page);
        }
        assert_eq!(all, sorted(some_sessions()), "pages of {limit}");
    }
    // A cursor need not name a session that is there.
    let between = SessionCursor {
        start: DAY_START,
        id: "zzz".to_owned(),
    };
    let page = store.list(&shop(), d, 1, Some(&between), 1).await.unwrap();
    let next = sorted(some_sessions())
        .into_iter()
        .find(|s| s.session.start > DAY_START);
    assert_eq!(page.first(), next.as_ref());
    assert_eq!(store.list(&shop(), d, 1, None, 0).await.unwrap(), []);
}

async fn one_session_is_found_by_its_id(store: Arc<dyn Sessions>) {
    let d = day("2026-03-29");
    store.write(&shop(), d, 1, some_sessions()).await.unwrap();
    for expected in some_sessions() {
        assert_eq!(
            store.get(&shop(), d, 1, &expected.id).await.unwrap(),
            Some(expected)
        );
    }
    for (d, generation, id) in [
        (d, 1, "id-99"),
        (d, 2, "id-01"),
        (d.next(), 1, "id-01"),
        (d, 1, ""),
    ] {
        assert_eq!(store.get(&shop(), d, generation, id).await.unwrap(), None);
    }
}

async fn writing_again_replaces(store: Arc<dyn Sessions>) {
    let d = day("2026-03-29");
    store.write(&shop(), d, 1, some_sessions()).await.unwrap();
    store.write(&shop(), d, 1, some_sessions()).await.unwrap();
    assert_eq!(store.list(&shop(), d, 1, None, 100).await.unwrap().len(), 25);
    // The same id at another start, and all others gone.
    let moved = vec![session("id-01", DAY_START + 77, 3)];
    store.write(&shop(), d, 1, moved.clone()).await.unwrap();
    assert_eq!(store.list(&shop(), d, 1, None, 100).await.unwrap(), moved);
    assert_eq!(store.get(&shop(), d, 1, "id-02").await.unwrap(), None);
}

async fn generations_days_and_venues_are_kept_apart(store: Arc<dyn Sessions>) {
    let d = day("2026-03-29");
    let mut places = vec![(shop(), d, 1), (shop(), d, 2), (shop(), d.next(), 1)];
    places.extend(strangers().into_iter().map(|stranger| (stranger, d, 1)));
    for (n, (venue, d, generation)) in places.iter().enumerate() {
        for (venue, d, generation) in &places[n..] {
            assert_eq!(store.list(venue, *d, *generation, None, 10).await.unwrap(), []);
            assert_eq!(store.get(venue, *d, *generation, "id").await.unwrap(), None);
        }
        store
            .write(venue, *d, *generation, vec![session("id", DAY_START, n as u64)])
            .await
            .unwrap();
    }
    for (n, (venue, d, generation)) in places.iter().enumerate() {
        let expected = session("id", DAY_START, n as u64);
        assert_eq!(
            store.get(venue, *d, *generation, "id").await.unwrap(),
            Some(expected)
        );
    }
}

async fn deleting_removes_one_generation_and_may_be_repeated(store: Arc<dyn Sessions>) {
    let d = day("2026-03-29");
    store.delete(&shop(), d, 1).await.unwrap();
    for generation in [1, 2] {
        store
            .write(&shop(), d, generation, some_sessions())
            .await
            .unwrap();
    }
    store.delete(&shop(), d, 1).await.unwrap();
    store.delete(&shop(), d, 1).await.unwrap();
    for stranger in strangers() {
        store.delete(&stranger, d, 2).await.unwrap();
    }
    assert_eq!(store.list(&shop(), d, 1, None, 10).await.unwrap(), []);
    assert_eq!(store.get(&shop(), d, 1, "id-01").await.unwrap(), None);
    assert_eq!(store.list(&shop(), d, 2, None, 100).await.unwrap().len(), 25);
}

async fn erasing_removes_some_sessions_of_one_generation(store: Arc<dyn Sessions>) {
    let (venue, d) = (shop(), day("2026-03-29"));
    let all: Vec<StoredSession> = (0..6)
        .map(|n| session(&format!("s{n}"), DAY_START + i64::from(n) * 1_000, 1))
        .collect();
    for generation in [3, 4] {
        store.write(&venue, d, generation, all.clone()).await.unwrap();
    }
    let cursor = |n: usize| SessionCursor {
        start: all[n].session.start,
        id: all[n].id.clone(),
    };
    for _ in 0..2 {
        store
            .erase(&venue, d, 3, vec![cursor(1), cursor(4)])
            .await
            .unwrap();
    }
    let ids = |sessions: Vec<StoredSession>| -> Vec<String> { sessions.into_iter().map(|s| s.id).collect() };
    let left = store.list(&venue, d, 3, None, 100).await.unwrap();
    assert_eq!(ids(left), ["s0", "s2", "s3", "s5"]);
    assert_eq!(store.get(&venue, d, 3, "s1").await.unwrap(), None);
    assert_eq!(store.list(&venue, d, 4, None, 100).await.unwrap().len(), 6);
    assert!(store.get(&venue, d, 4, "s1").await.unwrap().is_some());
}
