use super::*;

fn spec(json: &str) -> Result<Venue, SpecError> {
    serde_json::from_str::<VenueSpec>(json)
        .expect("readable")
        .to_venue(None)
}

#[test]
fn a_generated_venue_is_taken_as_it_is() {
    let venue = spec(
        r#"{"id":"v001","tz":"Europe/Madrid","open":0,"close":24,"width":44.5,"height":26.0,
            "zones":[{"id":"z","polygon":[[0.5,0.0],[6.5,0.0],[6.5,4.0],[0.5,4.0]]},
                     {"id":"a","polygon":[[100,100],[101,100],[101,101]]}]}"#,
    )
    .unwrap();
    assert_eq!(venue.layouts.len(), 1);
    let layout = &venue.layouts[0];
    assert_eq!(
        layout
            .zones
            .iter()
            .map(|zone| zone.id.as_str())
            .collect::<Vec<_>>(),
        ["a", "z"]
    );
    assert_eq!(layout.rules, FoldRules::default());
    assert!(layout.opening_hours.is_some());
}

#[test]
fn what_is_wrong_is_named_with_its_field() {
    for (json, words) in [
        (r#"{"id":"a/b","tz":"Europe/Madrid"}"#, "id"),
        (r#"{"id":"v","tz":"Europe/Atlantis"}"#, "Atlantis"),
        (r#"{"id":"v","tz":"Etc/UTC","day_start":24}"#, "day start"),
        (r#"{"id":"v","tz":"Etc/UTC","day_start":"4.30"}"#, "04:00"),
        (
            r#"{"id":"v","tz":"Etc/UTC","zones":[{"id":"_venue","polygon":[[0,0],[1,0],[1,1]]}]}"#,
            "_venue",
        ),
        (
            r#"{"id":"v","tz":"Etc/UTC","zones":[{"id":"z","polygon":[[0,0],[1,0]]}]}"#,
            "zones[0].polygon",
        ),
        (
            r#"{"id":"v","tz":"Etc/UTC","zones":[{"id":"z","polygon":[[0,0],[1,0],[1,1]]},{"id":"z","polygon":[[0,0],[1,0],[1,1]]}]}"#,
            "zones[1].id",
        ),
        (r#"{"id":"v","tz":"Etc/UTC","open":9}"#, "go together"),
        (r#"{"id":"v","tz":"Etc/UTC","open":9,"close":25}"#, "close"),
        (
            r#"{"id":"v","tz":"Etc/UTC","session_gap_ms":-1}"#,
            "session_gap_ms",
        ),
        (r#"{"id":"v","tz":"Etc/UTC","width":0}"#, "width"),
        (
            r#"{"id":"v","tz":"Etc/UTC","sensors":[{"id":"s","interval_ms":0}]}"#,
            "sensors[0].interval_ms",
        ),
    ] {
        let error = spec(json).unwrap_err().to_string();
        assert!(error.contains(words), "{json}: {error}");
    }
}

#[test]
fn unknown_fields_are_refused_by_name() {
    let error = serde_json::from_str::<VenueSpec>(r#"{"id":"v","tz":"Etc/UTC","zonez":[]}"#).unwrap_err();
    assert!(error.to_string().contains("zonez"), "{error}");
}

#[test]
fn layouts_are_effective_dated() {
    let day = |text: &str| text.parse::<LocalDay>().unwrap();
    let write = |json: &str, existing: &Venue| {
        serde_json::from_str::<VenueSpec>(json)
            .unwrap()
            .to_venue(Some(existing))
            .unwrap()
    };
    let first = spec(r#"{"id":"v","tz":"Etc/UTC","width":1}"#).unwrap();
    let second = write(
        r#"{"id":"v","tz":"Etc/UTC","width":2,"valid_from":"2026-05-01"}"#,
        &first,
    );
    assert_eq!(second.layout_on(day("2026-04-30")).width_m, Some(1.0));
    assert_eq!(second.layout_on(day("2026-05-01")).width_m, Some(2.0));
    let corrected = write(r#"{"id":"v","tz":"Etc/UTC","width":3}"#, &second);
    assert_eq!(corrected.layout_on(day("2020-01-01")).width_m, Some(3.0));
    assert_eq!(corrected.layout_on(day("2026-06-01")).width_m, Some(2.0));
    let future_only = spec(r#"{"id":"v","tz":"Etc/UTC","width":2,"valid_from":"2026-05-01"}"#).unwrap();
    assert_eq!(future_only.layout_on(day("2026-04-30")).width_m, None);
}
