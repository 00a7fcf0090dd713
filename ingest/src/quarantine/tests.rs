use bytes::Bytes;
use dwell_model::event::Kind;
use dwell_model::time::DAY_MS;
use dwell_storage::api::Role;

use super::*;
use crate::decode::DecodeRules;
use crate::intake::{Intake, IntakeConfig, Message};
use crate::testing::{NOW, World, principal, receipt, tenant};

async fn post(intake: &Intake, number: u128, format: Format, body: impl Into<Bytes>) -> usize {
    let message = Message {
        principal: principal(Role::Gateway, None),
        receipt: receipt(number),
        venue: None,
        format,
        bytes: body.into(),
        source: "http",
        dry_run: false,
    };
    intake.take(message).await.unwrap().refused.len()
}

fn crossing(venue: &str, ts: i64) -> String {
    format!(
        r#"{{"venue":"{venue}","sensor":"s","kind":"crossing","line":"door","direction":"in","ts":{ts}}}"#
    )
}

#[tokio::test]
async fn a_retry_adds_nothing_not_even_in_the_next_hour() {
    let world = World::new().await;
    let intake = world.intake();
    // The clock stands at a full hour; the first delivery comes a second before it.
    world.clock.set_ms(NOW - 1_000);
    assert_eq!(post(&intake, 1, Format::Ndjson, "one\ntwo").await, 2);
    world.clock.set_ms(NOW + 1_000);
    post(&intake, 1, Format::Ndjson, "one\ntwo").await;
    assert_eq!(world.quarantined().await.len(), 2);
    post(&intake, 2, Format::Ndjson, "one\ntwo").await;
    let entries = world.quarantined().await;
    assert_eq!(entries.len(), 4);
    assert!(
        entries.is_sorted_by_key(|entry| entry.received_at),
        "ids sort by time"
    );
    assert_eq!(
        entries.iter().map(|entry| entry.index).collect::<Vec<_>>(),
        [0, 1, 0, 1]
    );
}

#[tokio::test]
async fn limits_bind_for_a_message_a_tenant_and_an_entry() {
    let world = World::new().await;
    let limits = QuarantineLimits {
        message_entries_max: 3,
        entry_bytes_max: 300,
        bounds: QuarantineBounds::of_tenant(5),
    };
    let intake = world.intake_with(IntakeConfig {
        quarantine: limits,
        ..IntakeConfig::default()
    });
    assert_eq!(post(&intake, 1, Format::Ndjson, "a\nb\nc\nd").await, 4);
    assert_eq!(world.quarantined().await.len(), 3);
    post(&intake, 2, Format::Ndjson, "a\nb\nc\nd").await;
    assert_eq!(world.quarantined().await.len(), 5);
    let world = World::new().await;
    let intake = world.intake_with(IntakeConfig {
        quarantine: limits,
        ..IntakeConfig::default()
    });
    let long = crossing("v1", NOW).replace("door", &"d".repeat(1_000));
    post(&intake, 3, Format::Ndjson, long).await;
    let entry = world.quarantined().await.remove(0);
    assert_eq!((entry.code.as_str(), entry.bytes.len()), ("invalid_name", 300));
}

#[tokio::test]
async fn what_can_be_taken_now_is_taken_with_the_receipt_that_first_brought_it() {
    let world = World::new().await;
    let intake = world.intake();
    let body = [
        crossing("v3", NOW),
        crossing("v3", NOW),
        crossing("v3", NOW + 1),
        "nonsense".to_owned(),
    ]
    .join("\n");
    assert_eq!(post(&intake, 9, Format::Ndjson, body.clone()).await, 4);
    let entries = world.quarantined().await;
    let before = intake
        .replayer()
        .replay(&tenant(), &entries, &DecodeRules::default(), None)
        .await
        .unwrap();
    assert!(
        before
            .iter()
            .all(|replayed| matches!(replayed, Replayed::Refused { .. })),
        "{before:?}"
    );
    world.make_venue("v3").await;
    world.clock.advance(std::time::Duration::from_secs(2));
    // In any order, as a listing gives them.
    let newest_first: Vec<_> = entries.iter().rev().cloned().collect();
    let replayed = intake
        .replayer()
        .replay(&tenant(), &newest_first, &DecodeRules::default(), None)
        .await
        .unwrap();
    assert!(matches!(
        replayed[0],
        Replayed::Refused {
            code: "json_syntax",
            ..
        }
    ));
    assert_eq!(replayed[1..], [Replayed::Taken, Replayed::Taken, Replayed::Taken]);
    let keys = |records: &[dwell_storage::api::LoggedRecord]| {
        let mut keys: Vec<_> = records
            .iter()
            .flat_map(|record| {
                (0..record.events.len()).map(|row| (record.events.ts[row], record.events.key(row).to_owned()))
            })
            .collect();
        keys.sort();
        keys
    };
    let records = world.logged().await;
    assert!(
        records
            .iter()
            .all(|record| record.receipt == receipt(9) && record.events.kind == Kind::Crossing)
    );
    let of_replay = keys(&records);
    assert_eq!(of_replay.len(), 3);
    // The sender's own retry brings the same three identities, equal crossings included.
    assert_eq!(post(&intake, 9, Format::Ndjson, body).await, 1);
    assert_eq!(keys(&world.logged().await[records.len()..]), of_replay);
    let states: Vec<_> = world
        .quarantined()
        .await
        .iter()
        .map(|entry| entry.state)
        .collect();
    assert_eq!(
        states,
        [
            QuarantineState::Replayed,
            QuarantineState::Replayed,
            QuarantineState::Replayed,
            QuarantineState::Open
        ]
    );
    let again = intake
        .replayer()
        .replay(
            &tenant(),
            &world.quarantined().await,
            &DecodeRules::default(),
            None,
        )
        .await
        .unwrap();
    assert_eq!(
        again[..3],
        [Replayed::NotOpen, Replayed::NotOpen, Replayed::NotOpen]
    );
}

#[tokio::test]
async fn rows_of_csv_are_kept_with_their_header_and_can_be_replayed() {
    let world = World::new().await;
    let intake = world.intake();
    let body = format!("venue,sensor,track,ts,x,y\nv1,s,a,{NOW},1,2\nv3,s,b,{NOW},\"3\",4\n");
    assert_eq!(post(&intake, 1, Format::Csv, body).await, 1);
    let entries = world.quarantined().await;
    assert_eq!(
        String::from_utf8_lossy(&entries[0].bytes),
        format!("venue,sensor,track,ts,x,y\nv3,s,b,{NOW},\"3\",4")
    );
    world.make_venue("v3").await;
    world.clock.advance(std::time::Duration::from_secs(2));
    let replayed = intake
        .replayer()
        .replay(&tenant(), &entries, &DecodeRules::default(), None)
        .await
        .unwrap();
    assert_eq!(replayed, [Replayed::Taken]);
    let record = world.logged().await.pop().unwrap();
    assert_eq!((record.events.key(0), record.events.f32s(0)[0]), ("b", 3.0));
}

#[tokio::test]
async fn presence_is_replayed_under_the_pseudonym_that_it_would_have_had() {
    let world = World::new().await;
    let intake = world.intake();
    let presence = |venue: &str, x: &str| {
        format!(
            r#"{{"venue":"{venue}","sensor":"s","kind":"presence","ts":{NOW},"device":"AABBCC001122","x":{x}}}"#
        )
    };
    // Sealed: the venue, and with it the day's key, is not known.
    post(&intake, 1, Format::Ndjson, presence("v3", "1")).await;
    let sealed = world.quarantined().await;
    assert_eq!(sealed[0].encoding, QuarantineEncoding::Encrypted);
    world.make_venue("v3").await;
    world.clock.advance(std::time::Duration::from_secs(2));
    post(&intake, 2, Format::Ndjson, presence("v3", "2")).await;
    let replayed = intake
        .replayer()
        .replay(&tenant(), &sealed, &DecodeRules::default(), None)
        .await
        .unwrap();
    assert_eq!(replayed, [Replayed::Taken]);
    let records = world.logged().await;
    assert_eq!(records[0].events.key(0), records[1].events.key(0));
}

#[tokio::test]
async fn sealed_bytes_mean_nothing_once_their_key_is_destroyed_or_their_entry_is_another() {
    let world = World::new().await;
    let intake = world.intake();
    post(
        &intake,
        1,
        Format::Ndjson,
        crossing("v3", NOW).replace('}', r#","mac":"x"}"#),
    )
    .await;
    world.make_venue("v3").await;
    world.clock.advance(std::time::Duration::from_secs(2));
    let entries = world.quarantined().await;
    let rules = DecodeRules {
        names: crate::decode::FieldNames::new().ignore("mac"),
        ..DecodeRules::default()
    };
    let mut moved = entries.clone();
    moved[0].id.push('0');
    let mut changed = entries.clone();
    *changed[0].bytes.last_mut().unwrap() ^= 1;
    for other in [moved, changed] {
        let replayed = intake
            .replayer()
            .replay(&tenant(), &other, &rules, None)
            .await
            .unwrap();
        assert_eq!(replayed, [Replayed::Unreadable]);
    }
    // The day of the key ends at midnight UTC; seven days later it is gone.
    let midnight = (NOW / DAY_MS + 1) * DAY_MS;
    assert_eq!(
        world
            .stores
            .pseudonym_keys
            .destroy_expired(midnight + 7 * DAY_MS - 1)
            .await
            .unwrap(),
        0
    );
    assert_eq!(
        world
            .stores
            .pseudonym_keys
            .destroy_expired(midnight + 7 * DAY_MS)
            .await
            .unwrap(),
        1
    );
    let replayed = intake
        .replayer()
        .replay(&tenant(), &entries, &rules, None)
        .await
        .unwrap();
    assert_eq!(replayed, [Replayed::Unreadable]);
}

fn mapping(toml: &str) -> Mapping {
    Mapping::new(&crate::sources::files::MappingSpec::from_toml("m", toml).unwrap()).unwrap()
}

#[tokio::test]
async fn a_mapping_mends_what_was_wrong_and_is_tried_out_first() {
    let world = World::new().await;
    let intake = world.intake();
    // A vendor's names, seconds in place of milliseconds, a clock an hour ahead, an old name of a sensor.
    let seconds = NOW / 1_000 + 3_600;
    let event = |n: i64, x: &str| {
        format!(
            r#"{{"cam":"old-1","id":"t{n}","when":{},"x":{x},"y":2,"fw":"9"}}"#,
            seconds - n
        )
    };
    let body = [event(1, "100"), event(2, "200"), event(3, "\"left\"")].join("\n");
    let message = |number| Message {
        principal: principal(Role::Gateway, None),
        receipt: receipt(number),
        venue: Some(VenueId::new("v1").unwrap()),
        format: Format::Ndjson,
        bytes: Bytes::from(body.clone()),
        source: "http",
        dry_run: false,
    };
    assert_eq!(intake.take(message(5)).await.unwrap().refused.len(), 3);
    let entries = world.quarantined().await;
    let mends = mapping(
        r#"
        [columns]
        sensor = "cam"
        track = "id"
        ts = "when"
        [ts]
        format = "s"
        shift = "-1h"
        [scale]
        x = 0.01
        [values.sensor]
        "old-1" = "door"
        "#,
    );
    let rules = DecodeRules::default();
    let replayer = intake.replayer();
    let tried = replayer
        .try_out(&tenant(), &entries, &rules, Some(&mends))
        .await
        .unwrap();
    assert_eq!(tried[..2], [Replayed::Taken, Replayed::Taken]);
    assert!(
        matches!(
            tried[2],
            Replayed::Refused {
                code: "wrong_type",
                ..
            }
        ),
        "{tried:?}"
    );
    assert_eq!(world.logged().await.len(), 0, "a trial stores nothing");
    assert!(
        world
            .quarantined()
            .await
            .iter()
            .all(|entry| entry.state == QuarantineState::Open)
    );
    let without = replayer.try_out(&tenant(), &entries, &rules, None).await.unwrap();
    assert!(without.iter().all(|tried| matches!(
        tried,
        Replayed::Refused {
            code: "unknown_field",
            ..
        }
    )));

    let replayed = replayer
        .replay(&tenant(), &entries, &rules, Some(&mends))
        .await
        .unwrap();
    assert_eq!(replayed, tried);
    let records = world.logged().await;
    let mut taken: Vec<_> = records
        .iter()
        .map(|record| {
            let events = &record.events;
            assert_eq!(events.len(), 1);
            assert_eq!((record.receipt, record.venue.venue.as_str()), (receipt(5), "v1"));
            let x = events.f32s(0)[0];
            (
                events.sensor(0).to_owned(),
                events.key(0).to_owned(),
                events.ts[0],
                x,
            )
        })
        .collect();
    taken.sort_by_key(|taken| -taken.2);
    let expected = |n: i64, x: f32| ("door".to_owned(), format!("t{n}"), NOW - n * 1_000, x);
    assert_eq!(taken, [expected(1, 1.0), expected(2, 2.0)]);

    // A worker that died after the append does it again: the same events with the same receipt.
    for entry in &entries[..2] {
        world
            .stores
            .quarantine
            .set_state(&tenant(), &entry.id, QuarantineState::Open)
            .await
            .unwrap();
    }
    let again = replayer
        .replay(&tenant(), &entries[..2], &rules, Some(&mends))
        .await
        .unwrap();
    assert_eq!(again, [Replayed::Taken, Replayed::Taken]);
    let twice = world.logged().await;
    assert_eq!(twice.len(), records.len() * 2);
    for (first, second) in twice[..2].iter().zip(&twice[2..]) {
        assert_eq!((first.receipt, &first.events), (second.receipt, &second.events));
    }
}

#[tokio::test]
async fn a_mapping_that_cannot_be_is_refused_with_the_reason() {
    for (toml, says) in [
        ("[columns]\ntrak = \"id\"", "trak"),
        ("[ts]\nshift = \"soon\"", "shift"),
        ("[values.colour]\na = \"b\"", "colour"),
    ] {
        let spec = crate::sources::files::MappingSpec::from_toml("m", toml).unwrap();
        let why = Mapping::new(&spec).unwrap_err();
        assert!(why.contains(says), "{why}");
    }
}

#[tokio::test]
async fn a_look_marks_the_reason_and_opens_sealed_bytes_only_when_told() {
    let world = World::new().await;
    let intake = world.intake();
    let body = crossing("v1", NOW).replace(r#""direction":"in""#, r#""direction":"sideways""#);
    post(&intake, 1, Format::Ndjson, body).await;
    let sealed = crossing("v1", NOW).replace('}', r#","mac":"aa:bb"}"#);
    post(&intake, 2, Format::Ndjson, sealed).await;
    let mut entries = world.quarantined().await;
    entries.sort_by_key(|entry| entry.receipt);
    let (plain, sealed) = (&entries[0], &entries[1]);
    let replayer = intake.replayer();
    let marked = |look: &Look| {
        let (bytes, mark) = (look.bytes.as_ref().unwrap(), look.mark.as_ref().unwrap());
        String::from_utf8_lossy(&bytes[mark.start..mark.start + mark.len]).into_owned()
    };
    let look = replayer.look(plain, false).await.unwrap();
    assert_eq!(plain.sensor.as_deref(), Some("s"));
    assert_eq!(marked(&look), "\"sideways\"");
    assert!(
        matches!(
            look.now,
            Replayed::Refused {
                code: "unknown_word",
                ..
            }
        ),
        "{look:?}"
    );
    let closed = replayer.look(sealed, false).await.unwrap();
    assert_eq!((closed.bytes, closed.mark), (None, None));
    let opened = replayer.look(sealed, true).await.unwrap();
    assert_eq!(marked(&opened), "\"aa:bb\"");
    assert_eq!(
        sealed.sensor, None,
        "where anything may stand anywhere, no name is kept"
    );
}

#[tokio::test]
async fn whom_the_ledger_names_is_not_taken_and_goes_from_the_quarantine() {
    use dwell_storage::api::{ArchiveReader, ErasedSubject, NewErasure, SubjectClass};

    let world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    let archive = dwell_storage::archive::DeltaArchive::local(folder.path(), world.clock.shared()).unwrap();
    let ledger = ArchiveReader::erasures(&archive);
    let intake = world.intake();
    let event =
        |track: &str| format!(r#"{{"venue":"v1","sensor":"s","id":"{track}","ts":{NOW},"x":1,"y":2}}"#);
    post(
        &intake,
        1,
        Format::Ndjson,
        [event("gone"), event("stays")].join("\n"),
    )
    .await;
    let venue = VenueKey::new(tenant(), VenueId::new("v1").unwrap());
    let key = ledger.key().await.unwrap();
    let erasure = NewErasure {
        id: "job".to_owned(),
        requested_at: NOW + 1,
        subjects: vec![ErasedSubject {
            class: SubjectClass::Track,
            name: key.hash(SubjectClass::Track, &venue, "gone"),
            sensor: None,
            from: i64::MIN,
            until: NOW + 1,
        }],
        venue,
    };
    ledger.append(erasure).await.unwrap();
    let documents = Arc::clone(&world.stores.documents);
    let watch = dwell_storage::erasure::ErasureWatch::new("test", ledger, documents, world.clock.shared());
    let replayer = intake.replayer().honouring(watch);
    let entries = world.quarantined().await;
    let rules = DecodeRules::default();
    let renames = mapping("[columns]\ntrack = \"id\"");
    let expected = [Replayed::Erased, Replayed::Taken];
    let tried = replayer
        .try_out(&tenant(), &entries, &rules, Some(&renames))
        .await
        .unwrap();
    assert_eq!(tried, expected);
    assert_eq!(world.quarantined().await.len(), 2, "a trial removes nothing");
    let replayed = replayer
        .replay(&tenant(), &entries, &rules, Some(&renames))
        .await
        .unwrap();
    assert_eq!(replayed, expected);
    let records = world.logged().await;
    let tracks: Vec<_> = records.iter().map(|record| record.events.key(0)).collect();
    assert_eq!(tracks, ["stays"]);
    let left = world.quarantined().await;
    assert_eq!(left.len(), 1);
    assert_eq!(
        (&left[0].id, left[0].state),
        (&entries[1].id, QuarantineState::Replayed)
    );
}
