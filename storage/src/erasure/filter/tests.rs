use std::collections::BTreeSet;

use dwell_model::event::{Column, Delivery};
use dwell_model::ids::Receipt;
use dwell_model::session::Subject;
use dwell_model::testing::position_batch;
use proptest::prelude::*;

use super::*;
use crate::api::{LoggedRecord, NewErasure};
use crate::conformance::samples::{shop, venue};

const KEY: [u8; 32] = [7; 32];

/// Somebody to be forgotten, in clear.
#[derive(Debug, Clone)]
struct Wanted {
    class: SubjectClass,
    name: &'static str,
    sensor: Option<&'static str>,
    from: TsMs,
    until: TsMs,
}

fn track(name: &'static str, from: TsMs, until: TsMs) -> Wanted {
    Wanted {
        class: SubjectClass::Track,
        name,
        sensor: None,
        from,
        until,
    }
}

fn filter(wanted: &[Wanted]) -> ErasureFilter {
    let key = LedgerKey::new(KEY);
    let entries: Vec<Erasure> = (1..)
        .zip(wanted)
        .map(|(number, wanted)| Erasure {
            number,
            erasure: NewErasure {
                id: format!("e{number}"),
                venue: shop(),
                requested_at: wanted.until,
                subjects: vec![ErasedSubject {
                    class: wanted.class,
                    name: key.hash(wanted.class, &shop(), wanted.name),
                    sensor: wanted.sensor.map(|s| key.hash(SubjectClass::Sensor, &shop(), s)),
                    from: wanted.from,
                    until: wanted.until,
                }],
            },
        })
        .collect();
    ErasureFilter::new(key, &entries)
}

#[test]
fn an_empty_filter_touches_nothing() {
    let filter = ErasureFilter::default();
    let batch = position_batch(&[("s", "t", 5, 1.0, 2.0)]);
    assert_eq!(filter.kept(&shop(), &batch), None);
    assert!(filter.erased(&shop(), &batch).is_empty());
    assert_eq!(filter.apply_events(&shop(), batch.clone()), batch);
    assert_eq!(filter.number(), 0);
}

#[test]
fn venues_kinds_sensors_and_times_are_told_apart() {
    let filter = filter(&[
        track("t1", 10, 20),
        Wanted {
            sensor: Some("s1"),
            ..track("t2", i64::MIN, 100)
        },
    ]);
    assert_eq!(filter.number(), 2);
    let batch = position_batch(&[
        ("s1", "t1", 9, 0.0, 0.0),
        ("s1", "t1", 10, 0.0, 0.0),
        ("s9", "t1", 19, 0.0, 0.0),
        ("s1", "t1", 20, 0.0, 0.0),
        ("s1", "t2", 5, 0.0, 0.0),
        ("s2", "t2", 5, 0.0, 0.0),
        ("t1", "s1", 15, 0.0, 0.0),
    ]);
    assert_eq!(filter.erased(&shop(), &batch), [1, 2, 4]);
    assert_eq!(filter.erased(&venue("acme", "shop2"), &batch), Vec::<u32>::new());
    // The same key as a device's names nobody: a pseudonym is no track.
    let mut presence = EventBatch::new(Kind::Presence);
    let (sensor, key) = (presence.strings.intern("s1"), presence.strings.intern("t1"));
    presence.ts.push(15);
    presence.sensor.push(sensor);
    presence.key.push(key);
    presence.revision.push(0);
    presence.payload.iter_mut().for_each(Column::push_absent);
    assert!(filter.erased(&shop(), &presence).is_empty());
}

#[test]
fn a_crossing_is_its_tracks_whatever_its_key_is_made_of() {
    let mut batch = EventBatch::new(Kind::Crossing);
    for (key, of) in [
        ("door\u{1f}in\u{1f}t7", Some("7")),
        ("door\u{1f}in\u{1f}s4", Some("7")),
        ("door\u{1f}in\u{1f}o1", None),
    ] {
        let (sensor, key) = (batch.strings.intern("s"), batch.strings.intern(key));
        batch.ts.push(15);
        batch.sensor.push(sensor);
        batch.key.push(key);
        batch.revision.push(0);
        let of = of.map_or(NO_TEXT, |of| batch.strings.intern(of));
        for (field, column) in batch.payload.iter_mut().enumerate() {
            match column {
                Column::Text(ids) if field == field::crossing::TRACK => ids.push(of),
                column => column.push_absent(),
            }
        }
    }
    let filter = filter(&[track("7", 0, 100)]);
    assert_eq!(filter.erased(&shop(), &batch), [0, 1]);
    assert!(filter.names_text(&shop(), "door\u{1f}in\u{1f}t7"));
    assert!(filter.names_text(&shop(), "7"));
    assert!(
        !filter.names_text(&shop(), "door\u{1f}in\u{1f}s7"),
        "a sequence number is nobody"
    );
    assert!(!filter.names_text(&shop(), "t7"));
}

#[test]
fn what_is_left_of_a_batch_has_no_trace_of_the_others() {
    let filter = filter(&[track("gone", 0, 100)]);
    let batch = position_batch(&[("s", "gone", 5, 1.0, 2.0), ("s", "stays", 6, 3.0, 4.0)]);
    let by = Delivery {
        received_at: 9,
        receipt: Receipt::from_u128(1),
    };
    let raw = filter.apply_raw(&shop(), RawRows::delivered_once(batch.clone(), by));
    raw.check().unwrap();
    assert_eq!(
        (raw.len(), raw.events.key(0), raw.deliveries(0)),
        (1, "stays", &[by][..])
    );
    assert_eq!(raw.events.strings.iter().collect::<Vec<_>>(), ["s", "stays"]);
    let delivered = DeliveredRows::delivered_once(batch.clone(), by);
    let (left, mark) = filter.apply_delivered(&shop(), delivered, 1);
    left.check().unwrap();
    assert_eq!(
        (left.len(), mark),
        (1, 0),
        "what stood from row 1 on stands from row 0 on"
    );
    let record = |events| LoggedRecord {
        position: 3,
        received_at: 9,
        venue: shop(),
        receipt: Receipt::from_u128(1),
        events,
    };
    let chunk = LogChunk {
        records: vec![
            record(batch),
            record(position_batch(&[("s", "gone", 5, 1.0, 2.0)])),
        ],
        next: 5,
    };
    let left = filter.apply_chunk(chunk);
    assert_eq!(
        (left.records.len(), left.records[0].events.len(), left.next),
        (1, 1, 5)
    );
}

#[test]
fn sessions_and_refused_lines_are_matched_by_whom_they_name() {
    let filter = filter(&[track("t9", 0, 100)]);
    let session = |track: &str, start, end| Session {
        subject: Subject::of_track(track),
        start,
        end,
        points: 1,
        path_um: 0,
        continued_in: false,
        continued_out: false,
        visits: Vec::new(),
    };
    assert_eq!(filter.whose(&shop(), &session("t9", 50, 200)), Whose::Theirs);
    assert_eq!(filter.whose(&shop(), &session("t9", 100, 200)), Whose::Others);
    assert_eq!(filter.whose(&shop(), &session("t8", 50, 60)), Whose::Others);
    let names = |bytes: &str, received_at| filter.names_bytes(&shop(), bytes.as_bytes(), received_at);
    assert!(names(r#"{"track":"t9","ts":50,"x":"oops"}"#, 10_000_000_000));
    assert!(
        !names(r#"{"track":"t9","ts":100,"x":"oops"}"#, 50),
        "somebody else's"
    );
    assert!(!names(r#"{"track":"t99","ts":50}"#, 50));
    assert!(names("v1,s1,t9,not a time", 50));
    assert!(names(r#"{"objects":[{"id":"t9"}]"#, 50), "cut off in the middle");
    assert!(
        !names("v1,s1,t9,not a time", 10_000_000_000),
        "received long after"
    );
}

#[test]
fn a_session_that_does_not_tell_is_perhaps_of_somebody_to_be_forgotten() {
    let session = |sensor: Option<&str>, start, end| Session {
        subject: Subject {
            sensor: sensor.map(Into::into),
            ..Subject::of_track("t9")
        },
        start,
        end,
        points: 2,
        path_um: 0,
        continued_in: false,
        continued_out: false,
        visits: Vec::new(),
    };
    let of_times = filter(&[track("t9", 10, 20)]);
    assert!(of_times.is_narrow(&shop()));
    for (start, end, whose) in [
        (0, 9, Whose::Others),
        (0, 10, Whose::Theirs),
        (12, 13, Whose::Theirs),
        (19, 30, Whose::Theirs),
        (20, 30, Whose::Others),
        // The only one of which neither end tells.
        (9, 20, Whose::PerhapsTheirs),
    ] {
        assert_eq!(
            of_times.whose(&shop(), &session(None, start, end)),
            whose,
            "{start}..={end}"
        );
    }
    let of_sensor = filter(&[Wanted {
        sensor: Some("s1"),
        ..track("t9", i64::MIN, 100)
    }]);
    assert!(of_sensor.is_narrow(&shop()));
    for (sensor, end, whose) in [
        (Some("s1"), 50, Whose::Theirs),
        (Some("s2"), 50, Whose::Others),
        (None, 50, Whose::PerhapsTheirs),
        (None, 500, Whose::PerhapsTheirs),
    ] {
        assert_eq!(
            of_sensor.whose(&shop(), &session(sensor, 40, end)),
            whose,
            "{sensor:?} {end}"
        );
    }
    assert_eq!(of_sensor.whose(&shop(), &session(None, 100, 500)), Whose::Others);
    assert!(!filter(&[track("t9", i64::MIN, 20)]).is_narrow(&shop()));
}

proptest! {
    /// The filter says of every row what a look at the names in clear says.
    #[test]
    fn hashed_names_match_as_names_in_clear_do(
        wanted in prop::collection::vec(
            (0_usize..4, prop::option::of(0_usize..3), 0_i64..60, 0_i64..60), 0..5),
        rows in prop::collection::vec((0_usize..4, 0_usize..3, 0_i64..60), 0..40),
    ) {
        const TRACKS: [&str; 4] = ["1", "11", "t", "ü"];
        const SENSORS: [&str; 3] = ["s", "s1", "1"];
        let wanted: Vec<Wanted> = wanted
            .into_iter()
            .map(|(name, sensor, from, length)| Wanted {
                sensor: sensor.map(|sensor| SENSORS[sensor]),
                ..track(TRACKS[name], from, from + length)
            })
            .collect();
        let named: Vec<_> = rows
            .iter()
            .map(|&(track, sensor, ts)| (SENSORS[sensor], TRACKS[track], ts, 0.0, 0.0))
            .collect();
        let expected: BTreeSet<u32> = (0..)
            .zip(&named)
            .filter(|(_, (sensor, track, ts, ..))| {
                wanted.iter().any(|wanted| {
                    wanted.name == *track
                        && wanted.sensor.is_none_or(|only| only == *sensor)
                        && wanted.from <= *ts
                        && *ts < wanted.until
                })
            })
            .map(|(row, _)| row)
            .collect();
        let (filter, batch) = (filter(&wanted), position_batch(&named));
        let erased = filter.erased(&shop(), &batch);
        prop_assert_eq!(&expected, &erased.iter().copied().collect());
        let kept = filter.kept(&shop(), &batch).map_or(named.len(), |kept| kept.len());
        prop_assert_eq!(kept + erased.len(), named.len());
    }
}
