use async_trait::async_trait;
use dwell_model::event::Kind;
use dwell_storage::api::{Appended, QuarantineEncoding, QuarantineState, Role};
use dwell_storage::error::{ErrorKind, Result as StorageResult};

use super::*;
use crate::testing::{NOW, World, holds, key, principal, receipt, venue};

fn message(number: u128, body: impl Into<Bytes>) -> Message {
    Message {
        principal: principal(Role::Gateway, None),
        receipt: receipt(number),
        venue: None,
        format: Format::Ndjson,
        bytes: body.into(),
        source: "http",
        dry_run: false,
    }
}

fn position(venue: &str, track: &str, ts: i64) -> String {
    format!(r#"{{"venue":"{venue}","sensor":"s1","track":"{track}","ts":{ts},"x":1,"y":2}}"#)
}

#[tokio::test]
async fn what_is_accepted_is_in_the_log_a_record_per_venue_and_kind() {
    let world = World::new().await;
    let reading = format!(
        r#"{{"venue":"v1","sensor":"m","kind":"reading","metric":"t","value":1,"unit":"C","ts":{NOW}}}"#
    );
    let body = [
        position("v1", "a", NOW),
        reading,
        position("v2", "b", NOW),
        position("v1", "c", NOW - 1),
        "?".into(),
    ]
    .join("\n");
    let verdict = world.intake().take(message(7, body)).await.unwrap();
    assert_eq!((verdict.receipt, verdict.accepted), (receipt(7), 4));
    assert_eq!(
        verdict
            .refused
            .iter()
            .map(|r| (r.place.index, r.code))
            .collect::<Vec<_>>(),
        [(4, Code::JsonSyntax)]
    );
    let records: Vec<_> = world
        .logged()
        .await
        .into_iter()
        .map(|record| {
            (
                record.venue,
                record.events.kind,
                record.events.len(),
                record.receipt,
                record.received_at,
            )
        })
        .collect();
    assert_eq!(
        records,
        [
            (key("v1"), Kind::Position, 2, receipt(7), NOW),
            (key("v1"), Kind::Reading, 1, receipt(7), NOW),
            (key("v2"), Kind::Position, 1, receipt(7), NOW),
        ]
    );
}

#[tokio::test]
async fn a_venue_made_a_moment_ago_is_known() {
    let world = World::new().await;
    let intake = world.intake();
    let body = position("v3", "a", NOW);
    let refused = intake.take(message(1, body.clone())).await.unwrap();
    assert_eq!(
        (refused.accepted, refused.refused[0].code),
        (0, Code::UnknownVenue)
    );
    world.make_venue("v3").await;
    assert_eq!(intake.take(message(2, body)).await.unwrap().accepted, 1);
}

#[tokio::test]
async fn a_gateway_posts_to_its_own_venues_only() {
    let world = World::new().await;
    let body = format!("{}\n{}", position("v1", "a", NOW), position("v2", "b", NOW));
    let mine = Message {
        principal: principal(Role::Gateway, Some(&["v2"])),
        ..message(1, body)
    };
    let verdict = world.intake().take(mine).await.unwrap();
    assert_eq!(
        (
            verdict.accepted,
            verdict.refused[0].place.index,
            verdict.refused[0].code
        ),
        (1, 0, Code::VenueNotAllowed)
    );
}

#[tokio::test]
async fn a_dry_run_decides_and_stores_nothing() {
    let world = World::new().await;
    let presence = format!(r#"{{"venue":"v1","sensor":"s","kind":"presence","device":"d","ts":{NOW}}}"#);
    let body = [position("v1", "a", NOW), presence, "nonsense".into()].join("\n");
    let dry = Message {
        dry_run: true,
        ..message(1, body)
    };
    let verdict = world.intake().take(dry).await.unwrap();
    assert_eq!((verdict.accepted, verdict.refused.len()), (2, 1));
    let broken = Message {
        dry_run: true,
        format: Format::Json,
        ..message(2, "[")
    };
    assert!(world.intake().take(broken).await.is_err());
    assert!(world.logged().await.is_empty() && world.quarantined().await.is_empty());
}

#[tokio::test]
async fn nothing_in_it_is_an_error_and_so_is_what_cannot_be_read_as_a_whole() {
    let world = World::new().await;
    let take = async |format, body: &'static str| {
        world
            .intake()
            .take(Message {
                format,
                ..message(1, body)
            })
            .await
            .unwrap_err()
            .to_string()
    };
    for (format, body) in [
        (Format::Ndjson, ""),
        (Format::Ndjson, "\n \n"),
        (Format::Json, "[]"),
        (Format::Csv, "ts,x\n"),
    ] {
        assert_eq!(
            take(format, body).await,
            "there is no event in the body",
            "{body:?}"
        );
    }
    let error = take(Format::Json, r#"[{"device":"aa:bb:cc:dd:ee:ff"},"#).await;
    assert!(error.contains("not valid JSON"), "{error}");
    // Its beginning is kept, sealed, and a retry adds nothing.
    take(Format::Json, r#"[{"device":"aa:bb:cc:dd:ee:ff"},"#).await;
    let entries = world.quarantined().await;
    assert_eq!(entries.len(), 1);
    assert_eq!(
        (entries[0].encoding, entries[0].code.as_str()),
        (QuarantineEncoding::Encrypted, "json_syntax")
    );
    assert!(!holds(&entries[0].bytes, "aa:bb"));
}

#[tokio::test]
async fn no_device_identifier_reaches_the_disk() {
    let world = World::new().await;
    let good = |device: &str| {
        format!(r#"{{"venue":"v1","sensor":"s","kind":"presence","ts":{NOW},"device":"{device}"}}"#)
    };
    let bodies = [
        (Format::Ndjson, good("A0:B1:C2:00:00:01")),
        // Refused in every way there is, each with an identifier of its own.
        (Format::Ndjson, good("A0:B1:C2:00:00:02").replace("v1", "v9")),
        (
            Format::Ndjson,
            good("A0:B1:C2:00:00:03").replace("\"presence\"", "\"presense\""),
        ),
        (
            Format::Ndjson,
            good("A0:B1:C2:00:00:04").replace("\"kind\":\"presence\",", ""),
        ),
        (Format::Ndjson, good("A0:B1:C2:00:00:05").replace('}', "")),
        (
            Format::Ndjson,
            good("A0:B1:C2:00:00:06").replace('}', r#","x":1e9}"#),
        ),
        (
            Format::Ndjson,
            good("A0:B1:C2:00:00:07").replace('}', r#","mac":"A0:B1:C2:00:00:07"}"#),
        ),
        (
            Format::Ndjson,
            good("A0:B1:C2:00:00:08").replace(&NOW.to_string(), &(NOW - 30 * DAY_MS).to_string()),
        ),
        (
            Format::Ndjson,
            good("A0:B1:C2:00:00:09").replace(&NOW.to_string(), &(NOW - 100 * DAY_MS).to_string()),
        ),
        (
            Format::Ndjson,
            good("A0:B1:C2:00:00:10").replace(&NOW.to_string(), &(NOW + DAY_MS).to_string()),
        ),
        (
            Format::Ndjson,
            good("A0:B1:C2:00:00:11").replace(r#""sensor":"s""#, r#""sensor":"""#),
        ),
        (Format::Ndjson, r#"{"A0:B1:C2:00:00:12":1}"#.to_owned()),
        (Format::Json, format!("[{},", good("A0:B1:C2:00:00:13"))),
        (
            Format::Csv,
            format!(
                "kind,venue,sensor,ts,device,x\npresence,v1,s,{NOW},A0:B1:C2:00:00:14,1e9\npresence,v1,s,{NOW},A0:B1:C2:00:00:15\n"
            ),
        ),
        (Format::Csv, "A0:B1:C2:00:00:16,1\n2,3\n".to_owned()),
    ];
    let intake = world.intake();
    for (number, (format, body)) in bodies.into_iter().enumerate() {
        let _ = intake
            .take(Message {
                format,
                ..message(number as u128, body)
            })
            .await;
    }
    let records = world.logged().await;
    assert_eq!(records.len(), 1);
    assert!(records[0].events.key(0).starts_with("p:"));
    // One is good; the row of cells that is too short is one more than there are bodies.
    assert_eq!(world.quarantined().await.len(), 15);
    let disk = world.bytes_on_disk();
    assert!(
        holds(&disk, "presence_key_destroyed"),
        "the quarantine is on disk"
    );
    for spelling in ["A0:B1:C2", "a0b1c2", "a0:b1:c2"] {
        assert!(!holds(&disk, spelling), "{spelling} is on disk");
    }
}

#[tokio::test]
async fn where_only_a_value_is_wrong_the_kept_bytes_hold_the_pseudonym() {
    let world = World::new().await;
    let intake = world.intake();
    let presence = |x: &str| {
        format!(
            r#"{{"venue":"v1","sensor":"s","kind":"presence","ts":{NOW},"device":"AABBCC001122","x":{x}}}"#
        )
    };
    intake
        .take(message(1, format!("{}\n{}", presence("1"), presence("1e9"))))
        .await
        .unwrap();
    let taken = world.logged().await[0].events.key(0).to_owned();
    let entry = world.quarantined().await.remove(0);
    assert_eq!(entry.encoding, QuarantineEncoding::Plain);
    assert_eq!(
        String::from_utf8(entry.bytes).unwrap(),
        presence("1e9").replace("AABBCC001122", &taken)
    );
    assert_eq!(
        (entry.venue, entry.index, entry.state),
        (Some(venue("v1")), 1, QuarantineState::Open)
    );
}

/// A log that takes nothing.
#[derive(Debug)]
struct FullLog;

#[async_trait]
impl EventLogWriter for FullLog {
    async fn append(&self, _: Vec<LogRecord>) -> StorageResult<Vec<Appended>> {
        Err(StorageError::new(ErrorKind::Busy, "full"))
    }
}

#[tokio::test]
async fn when_the_log_fails_nothing_is_acknowledged_and_nothing_kept() {
    let world = World::new().await;
    let stores = IntakeStores {
        log: Arc::new(FullLog),
        registry: Arc::clone(&world.stores.registry) as _,
        quarantine: Arc::clone(&world.stores.quarantine) as _,
        pseudonym_keys: Arc::clone(&world.stores.pseudonym_keys) as _,
    };
    let intake = Intake::new(IntakeConfig::default(), stores, world.clock.shared());
    let body = format!("{}\nnonsense", position("v1", "a", NOW));
    let error = intake.take(message(1, body)).await.unwrap_err();
    assert!(matches!(error, IntakeError::Storage(error) if error.kind() == ErrorKind::Busy));
    assert!(world.quarantined().await.is_empty());
}
