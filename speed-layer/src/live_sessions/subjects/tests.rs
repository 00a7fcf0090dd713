//! The queues of subjects against a plain sort of all events.

use std::collections::BTreeMap;

use dwell_model::event::EventBatch;
use dwell_model::layout::Layout;
use dwell_model::session::{Session, fold_day};
use dwell_model::testing::position_batch;
use dwell_model::time::DayCut;
use proptest::prelude::*;

use super::*;
use crate::live_sessions::EventHasher;
use crate::testing::{ZONES, venue_spec};

#[derive(Debug, Default, PartialEq)]
struct Gathered {
    sessions: Vec<Session>,
    stayed_ms: i64,
}

impl SessionSink for Gathered {
    fn session(&mut self, session: Session) {
        self.sessions.push(session);
    }

    fn stay(&mut self, _: &PositionEvent<'_>, duration_ms: i64, _: bool) {
        self.stayed_ms += duration_ms;
    }
}

impl Gathered {
    fn sorted(mut self) -> Self {
        self.sessions
            .sort_by(|a, b| (&a.subject, a.start).cmp(&(&b.subject, b.start)));
        self
    }
}

fn cut_and_layout() -> (DayCut, Layout) {
    let venue = venue_spec("Europe/Madrid", ZONES);
    let day = "2026-03-10".parse().unwrap();
    (venue.calendar.cut(day), venue.layout_on(day).clone())
}

/// (sensor, track, seconds of the day, x)
type Row = (u8, u8, i64, u8);

fn batch(cut: &DayCut, rows: &[Row]) -> EventBatch {
    let sensors = ["s1", "s2", "own", "S"];
    let named: Vec<_> = rows
        .iter()
        .map(|&(s, t, at, x)| {
            (
                sensors[s as usize % 4],
                format!("t{t}"),
                cut.start + at * 1_000,
                f32::from(x),
                2.0,
            )
        })
        .collect();
    let borrowed: Vec<_> = named.iter().map(|r| (r.0, r.1.as_str(), r.2, r.3, r.4)).collect();
    position_batch(&borrowed)
}

struct Feed {
    subjects: Subjects,
    context: FoldContext,
    hasher: EventHasher,
}

impl Feed {
    fn new() -> (Self, DayCut) {
        let (cut, layout) = cut_and_layout();
        let context = FoldContext::new(&cut, &layout);
        (
            Self {
                subjects: Subjects::default(),
                context,
                hasher: EventHasher::default(),
            },
            cut,
        )
    }

    fn accept(&mut self, batch: &EventBatch) -> Vec<Accepted> {
        self.hasher.prepare(batch);
        self.subjects.begin_batch(batch);
        let hash = |row: usize| self.hasher.text(batch.key[row]);
        (0..batch.len())
            .map(|row| self.subjects.accept(&self.context, batch, row, hash(row)))
            .collect()
    }
}

proptest! {
    /// Whatever comes within the window, in whatever order and batches, gives the sessions of the sorted events;
    /// so does every look in between, of what had come until then.
    #[test]
    fn any_order_within_the_window_gives_the_sessions_of_the_sorted_events(
        rows in prop::collection::btree_map((0_u8..4, 0_u8..3, 0_i64..400), 0_u8..11, 1..120),
        window in 1_i64..60,
        seed in any::<u64>(),
        batch_len in 1_usize..9,
    ) {
        let (mut feed, cut) = Feed::new();
        let mut arrivals: Vec<Row> = rows.into_iter().map(|((s, t, at), x)| (s, t, at, x)).collect();
        let mut dice = crate::testing::Dice(seed);
        // Each event is overtaken by at most `window` seconds of others.
        let mut due: Vec<(i64, Row)> = arrivals.iter().map(|row| (row.2 + dice.below(window as u64) as i64, *row)).collect();
        due.sort_by_key(|(at, _)| *at);
        arrivals = due.iter().map(|(_, row)| *row).collect();

        let mut settled = Gathered::default();
        let mut seen: Vec<Row> = Vec::new();
        for chunk in arrivals.chunks(batch_len) {
            let accepted = feed.accept(&batch(&cut, chunk));
            prop_assert!(accepted.iter().all(|accepted| *accepted == Accepted::Waiting));
            seen.extend(chunk);
            let latest = seen.iter().map(|row| row.2).max().unwrap();
            feed.subjects.settle(&feed.context, cut.start + (latest - window) * 1_000, &mut settled);
            let mut shown = Gathered { sessions: settled.sessions.clone(), stayed_ms: settled.stayed_ms };
            feed.subjects.provisional(&feed.context, &mut shown);
            prop_assert_eq!(shown.sorted(), expected(&feed.context, &cut, &seen));
        }
        feed.subjects.finish(&feed.context, &mut settled);
        prop_assert!(feed.subjects.is_empty() && feed.subjects.waiting() == 0);
        prop_assert_eq!(settled.sorted(), expected(&feed.context, &cut, &seen));
    }
}

fn expected(context: &FoldContext, cut: &DayCut, rows: &[Row]) -> Gathered {
    let batch = batch(cut, rows);
    let mut order: Vec<u32> = (0..batch.len() as u32).collect();
    order.sort_by_key(|&row| {
        let row = row as usize;
        (
            batch.key(row).to_owned(),
            batch.ts[row],
            batch.sensor(row).to_owned(),
        )
    });
    let mut gathered = Gathered::default();
    fold_day(context, &batch, &order, &mut gathered);
    gathered.sorted()
}

#[test]
fn an_event_behind_what_its_subject_has_settled_is_too_late_and_others_are_not() {
    let (mut feed, cut) = Feed::new();
    let mut sink = Gathered::default();
    feed.accept(&batch(&cut, &[(0, 1, 100, 1), (0, 1, 110, 2), (0, 2, 112, 3)]));
    feed.subjects
        .settle(&feed.context, cut.start + 111_000, &mut sink);
    let late = [(0, 1, 105, 1), (0, 2, 104, 1), (0, 3, 50, 1), (0, 1, 111, 9)];
    let waiting = Accepted::Waiting;
    assert_eq!(
        feed.accept(&batch(&cut, &late)),
        [Accepted::TooLate, waiting, waiting, waiting]
    );
}

#[test]
fn at_one_instant_sensors_come_in_the_order_of_their_bytes() {
    let (mut feed, cut) = Feed::new();
    let mut sink = Gathered::default();
    // "S" < "s1" < "s2": capitals come first.
    feed.accept(&batch(&cut, &[(0, 1, 100, 1)]));
    feed.subjects
        .settle(&feed.context, cut.start + 101_000, &mut sink);
    let accepted = feed.accept(&batch(&cut, &[(3, 1, 100, 1), (1, 1, 100, 1)]));
    assert_eq!(accepted, [Accepted::TooLate, Accepted::Waiting]);
}

#[test]
fn an_event_that_could_extend_a_closed_session_is_too_late_even_where_a_new_one_has_begun() {
    let (mut feed, cut) = Feed::new();
    let mut sink = Gathered::default();
    feed.accept(&batch(&cut, &[(0, 1, 100, 1)]));
    feed.subjects
        .settle(&feed.context, cut.start + 131_000, &mut sink);
    assert_eq!(
        sink.sessions.len(),
        1,
        "nothing at or after 131 s can extend a session that ended at 100 s"
    );
    assert!(feed.subjects.is_empty());
    let accepted = feed.accept(&batch(&cut, &[(0, 1, 200, 1), (0, 1, 130, 1), (0, 1, 131, 1)]));
    assert_eq!(
        accepted,
        [Accepted::Waiting, Accepted::TooLate, Accepted::Waiting]
    );
}

#[test]
fn beyond_the_bound_those_heard_of_longest_ago_are_closed() {
    let (mut feed, cut) = Feed::new();
    let mut sink = Gathered::default();
    let rows: Vec<Row> = (0..10)
        .map(|track| (0, track, 100 + i64::from(track), 1))
        .collect();
    feed.accept(&batch(&cut, &rows));
    feed.subjects
        .settle(&feed.context, cut.start + 120_000, &mut sink);
    assert_eq!(feed.subjects.cut(&feed.context, 4, &mut sink), 6);
    let closed: BTreeMap<String, i64> = sink
        .sessions
        .iter()
        .map(|s| (s.subject.track.clone(), s.end - cut.start))
        .collect();
    assert_eq!(closed.into_values().max(), Some(105_000));
    assert_eq!(feed.subjects.cut(&feed.context, 4, &mut sink), 0);
}

#[test]
fn whoever_was_not_heard_of_for_the_session_gap_is_not_present() {
    let (mut feed, cut) = Feed::new();
    feed.accept(&batch(&cut, &[(0, 1, 100, 1), (0, 2, 90, 7)]));
    feed.subjects.provisional(&feed.context, &mut Gathered::default());
    let present = |feed: &Feed, second: i64| {
        let now = cut.start + second * 1_000;
        let mut zones: Vec<Vec<usize>> = feed
            .subjects
            .present(&feed.context, now)
            .map(|(_, zones)| zones.iter().collect())
            .collect();
        zones.sort();
        zones
    };
    // Zones by id: island 0, left 1, right 2. At (7, 2) the island's edge from (7.4, 1.5) to (3, 5.2) lies at x = 6.8.
    assert_eq!(present(&feed, 120), [vec![1], vec![2]]);
    assert_eq!(present(&feed, 121), [vec![1]], "90 s is more than 30 s ago");
    assert_eq!(present(&feed, 131), Vec::<Vec<usize>>::new());
}
