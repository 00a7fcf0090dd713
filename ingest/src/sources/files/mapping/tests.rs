use dwell_model::time::VenueCalendar;

use super::*;

struct Zones;

impl ZoneOfVenue for Zones {
    fn calendar(&self, venue: &str) -> Option<VenueCalendar> {
        (venue == "zurich").then(|| VenueCalendar::from_names("Europe/Zurich", 4).unwrap())
    }
}

/// The events and errors that a mapping makes of rows of a CSV text.
fn apply(toml: &str, csv: &str) -> (Vec<serde_json::Value>, Vec<String>) {
    let mapping = MappingSpec::from_toml("test.toml", toml)
        .unwrap()
        .resolve()
        .unwrap();
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let header = reader.headers().unwrap().clone();
    let places: Vec<_> = mapping
        .columns
        .iter()
        .map(|column| header.iter().position(|name| name == column.name))
        .collect();
    let mut mapper = RowMapper::new(&mapping, &Zones);
    let (mut cells, mut lines, mut errors) = (Cells::default(), Vec::new(), Vec::new());
    for record in reader.records() {
        let record = record.unwrap();
        cells.start(places.len());
        for (column, place) in places.iter().enumerate() {
            if let Some(text) = place.and_then(|place| record.get(place)) {
                cells.set(column, text);
            }
        }
        mapper.map(&cells, &mut lines, &mut errors);
    }
    let events = String::from_utf8(lines)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    (
        events,
        errors
            .into_iter()
            .map(|error| format!("{}: {}", error.column, error.what))
            .collect(),
    )
}

fn events(toml: &str, csv: &str) -> Vec<serde_json::Value> {
    let (events, errors) = apply(toml, csv);
    assert_eq!(errors, Vec::<String>::new());
    events
}

const DOORS: &str = r#"
[columns]
ts = "t_local"
sensor = "counter"
line = "counter"
[constants]
venue = "hb"
kind = "crossing"
[ts]
format = "%Y-%m-%dT%H:%M:%S"
zone = "Europe/Zurich"
[[events]]
columns = { count = "in" }
constants = { direction = "in" }
unless_zero = ["in"]
[[events]]
columns = { count = "out" }
constants = { direction = "out" }
unless_zero = ["out"]
"#;

#[test]
fn one_row_of_a_door_counter_becomes_an_event_per_direction() {
    let csv = "t_local,counter,in,out\n2024-03-19T14:10:00,West-VBZ total,10,24\n2024-03-19T14:05:00,West-VBZ total,0,15\n";
    // 14:10 in Zurich is 13:10 UTC (winter time until 31 March).
    let event = |ts: i64, direction: &str, count: i64| {
        serde_json::json!({"kind": "crossing", "venue": "hb", "sensor": "West-VBZ total", "ts": ts,
            "line": "West-VBZ total", "direction": direction, "count": count})
    };
    assert_eq!(
        events(DOORS, csv),
        [
            event(1_710_853_800_000, "in", 10),
            event(1_710_853_800_000, "out", 24),
            event(1_710_853_500_000, "out", 15)
        ]
    );
}

#[test]
fn renamed_columns_keep_their_text_and_strangers_are_left_out() {
    let csv = "t_epoch_ms,track_id,floor,x_m,y_m,extra\n1574572522291,5dda,B1,208.86206,216.74796,9\n";
    let toml = "columns = { ts = 't_epoch_ms', track = 'track_id', x = 'x_m', y = 'y_m' }\n\
                constants = { venue = 'mall', sensor = 'phone' }";
    assert_eq!(
        events(toml, csv),
        [
            serde_json::json!({"venue": "mall", "sensor": "phone", "track": "5dda", "ts": 1_574_572_522_291_i64,
            "floor": "B1", "x": 208.86206, "y": 216.74796})
        ]
    );
}

#[test]
fn values_choose_their_template_and_patterns_join_columns() {
    let toml = r#"
        columns = { ts = "t", value = "value" }
        constants = { venue = "sdu", sensor = "room-{room}" }
        [[events]]
        constants = { kind = "count", counter = "people", mode = "state" }
        when = { metric = "occ" }
        [[events]]
        constants = { kind = "reading", metric = "{{co2}}", unit = "ppm" }
        when = { metric = ["co2", "CO2"] }
    "#;
    let csv = "t,room,metric,value\n1,7,occ,3.0\n2,7,co2,412.5\n3,7,vav,1\n,7,occ,1\n";
    assert_eq!(
        events(toml, csv),
        [
            serde_json::json!({"venue": "sdu", "sensor": "room-7", "ts": 1, "kind": "count", "counter": "people",
                "mode": "state", "value": 3}),
            serde_json::json!({"venue": "sdu", "sensor": "room-7", "ts": 2, "kind": "reading", "metric": "{co2}",
                "unit": "ppm", "value": 412.5}),
            // No time: for the decoder to refuse.
            serde_json::json!({"venue": "sdu", "sensor": "room-7", "kind": "count", "counter": "people",
                "mode": "state", "value": 1}),
        ]
    );
}

#[test]
fn factors_give_exact_minor_units_and_metres() {
    let toml = "scale = { amount = 100, x = 0.01 }\nconstants = { kind = 'transaction' }";
    let amounts: Vec<_> = events(toml, "amount\n0.29\n1.005e2\n-0.99\n0\n")
        .iter()
        .map(|e| e["amount"].clone())
        .collect();
    assert_eq!(amounts, [29, 10_050, -99, 0]);
    let positions = events("scale = { x = 0.01 }", "x\n266\n-1\n57\n");
    assert_eq!(
        positions
            .iter()
            .map(|e| e["x"].as_f64().unwrap())
            .collect::<Vec<_>>(),
        [2.66, -0.01, 0.57]
    );
    let (_, errors) = apply(toml, "amount\n0.005\nabc\ninf\n");
    assert_eq!(
        errors,
        [
            "amount: times 100 it is not a whole number",
            "amount: not a number",
            "amount: not a finite number"
        ]
    );
}

#[test]
fn whole_numbers_written_with_a_fraction_are_taken_and_others_named_by_column() {
    let toml = "columns = { value = 'occupancy' }\nconstants = { kind = 'status', dropped = '7' }";
    assert_eq!(events(toml, "occupancy,sent\n1,17.0\n")[0]["sent"], 17);
    let (events, errors) = apply(toml, "occupancy,sent\n1,17.5\n2,3\n");
    assert_eq!(
        (events.len(), errors),
        (1, vec!["sent: not a whole number".to_owned()])
    );
}

#[test]
fn instants_come_in_many_forms() {
    let ms = |format: &str, zone: &str, text: &str| {
        let zone = if zone.is_empty() {
            String::new()
        } else {
            format!("zone = '{zone}'")
        };
        let (events, errors) = apply(
            &format!("constants = {{ venue = 'zurich' }}\n[ts]\nformat = '{format}'\n{zone}"),
            &format!("ts\n{text}\n"),
        );
        match events.first() {
            Some(event) => Ok(event["ts"].as_i64().unwrap()),
            None => Err(errors[0].clone()),
        }
    };
    assert_eq!(ms("s", "", "1557995040"), Ok(1_557_995_040_000));
    assert_eq!(ms("s", "", "1557995040.2139"), Ok(1_557_995_040_213));
    assert_eq!(ms("us", "", "1557995040213999"), Ok(1_557_995_040_213));
    assert_eq!(ms("ns", "", "1557995040213999999"), Ok(1_557_995_040_213));
    assert_eq!(ms("ms", "", "1557995040213"), Ok(1_557_995_040_213));
    // 2019-05-16 10:24:06.577 at UTC+2.
    assert_eq!(
        ms("%Y-%m-%d %H:%M:%S%.f", "venue", "2019-05-16 10:24:06.577"),
        Ok(1_557_995_046_577)
    );
    assert_eq!(
        ms("%Y-%m-%d %H:%M:%S%.f %z", "", "2019-05-16 10:24:06.577 +0200"),
        Ok(1_557_995_046_577)
    );
    assert_eq!(
        ms("%Y-%m-%dT%H:%M:%S", "utc", "2017-01-01T11:53:26"),
        Ok(1_483_271_606_000)
    );
    assert_eq!(ms("%d.%m.%Y", "utc", "01.01.2017"), Ok(1_483_228_800_000));
    assert!(ms("s", "", "12:00").unwrap_err().contains("number of units"));
    // The hour that Zurich's clocks skipped on 31 March 2024.
    assert!(
        ms("%Y-%m-%d %H:%M", "venue", "2024-03-31 02:30")
            .unwrap_err()
            .contains("does not exist in Europe/Zurich")
    );
}

#[test]
fn a_repeated_hour_is_the_first_pass_unless_told_otherwise() {
    // Zurich, 27 October 2024: 02:00 to 03:00 happens at 00:00Z and again at 01:00Z.
    let first_pass = 1_729_987_200_000 + 30 * 60_000;
    assert_eq!(
        VenueCalendar::from_names("Europe/Zurich", 0)
            .unwrap()
            .offset_ms(first_pass),
        7_200_000
    );
    let rows =
        "ts\n2024-10-27 02:30\n2024-10-27 02:59\n2024-10-27 02:00\n2024-10-27 02:30\n2024-10-27 03:10\n";
    let minutes = |ambiguous: &str| -> Vec<i64> {
        let toml =
            format!("[ts]\nformat = '%Y-%m-%d %H:%M'\nzone = 'Europe/Zurich'\nambiguous = '{ambiguous}'");
        events(&toml, rows)
            .iter()
            .map(|e| (e["ts"].as_i64().unwrap() - first_pass) / 60_000)
            .collect()
    };
    assert_eq!(minutes("first"), [0, 29, -30, 0, 100]);
    assert_eq!(minutes("second"), [60, 89, 30, 60, 100]);
    assert_eq!(minutes("ordered"), [0, 29, 30, 60, 100]);
    let toml = "[ts]\nformat = '%Y-%m-%d %H:%M'\nzone = 'Europe/Zurich'\nambiguous = 'refuse'";
    assert_eq!(apply(toml, rows).1.len(), 4);
}

#[test]
fn mistakes_in_a_mapping_are_named() {
    for (toml, word) in [
        ("columns = { trak = 'a' }", "\"trak\" is not a field"),
        ("colums = {}", "colums"),
        ("constants = { venue = 'a{b' }", "{column}"),
        ("scale = { track = 2 }", "track is not a number"),
        ("scale = { x = 0 }", "cannot be multiplied"),
        ("[ts]\nformat = '%Y-%m-%d'", "ts.zone is needed"),
        ("[ts]\nformat = '%Y-%m-%d'\nzone = 'Mars/Olympus'", "Mars/Olympus"),
        ("[ts]\nzone = 'utc'", "ts.zone stands beside"),
        ("[ts]\nformat = 'seconds'", "ts.format is"),
        ("[ts]\nformat = '%Q'", "not a time format"),
        ("columns = { x = 'a' }\nconstants = { x = 1 }", "both"),
        ("delimiter = 'é'", "delimiter"),
    ] {
        let error = MappingSpec::from_toml("m.toml", toml)
            .and_then(|spec| spec.resolve())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(word) && error.contains("mapping"),
            "{toml}: {error}"
        );
    }
    let error = MappingSpec::default().add_map("track").unwrap_err().to_string();
    assert!(error.contains("--map track"), "{error}");
}

#[test]
fn flags_win_over_the_file_and_plain_mappings_are_known_as_such() {
    let mut spec = MappingSpec::from_toml("m", "columns = { x = 'a', y = 'b' }").unwrap();
    spec.add_set("x=1").unwrap();
    spec.add_map("track=id=1").unwrap();
    assert_eq!(spec.columns["track"], "id=1");
    assert!(!spec.columns.contains_key("x"));
    let mapping = spec.resolve().unwrap();
    assert!(mapping.plain_fields().is_some());
    assert!(!mapping.is_identity() && !mapping.fingerprint().is_empty());
    assert!(MappingSpec::default().resolve().unwrap().fingerprint().is_empty());
    let with_delimiter = MappingSpec {
        delimiter: Some(';'),
        ..MappingSpec::default()
    };
    assert!(with_delimiter.resolve().unwrap().is_identity());
    for toml in [
        "constants = { venue = 'a{b}' }",
        "scale = { x = 2 }",
        "[ts]\nformat = 's'",
        "[[events]]\n[[events]]",
    ] {
        let mapping = MappingSpec::from_toml("m", toml).unwrap().resolve().unwrap();
        assert!(mapping.plain_fields().is_none(), "{toml}");
    }
}

#[test]
fn the_mappings_of_the_documentation_are_right() {
    let page = include_str!("../../../../../docs/importing.md");
    let blocks: Vec<&str> = page
        .split("```toml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert_eq!(blocks.len(), 4);
    for block in &blocks {
        MappingSpec::from_toml("docs", block).unwrap().resolve().unwrap();
    }
    // The door counter's page makes what the test above asks of its own mapping.
    let csv = "t_local,counter,in,out\n2024-03-19T14:05:00,West,0,15\n";
    let made = events(blocks[0], csv);
    assert_eq!(
        (made.len(), &made[0]["count"], &made[0]["direction"]),
        (1, &15.into(), &"out".into())
    );
    let receipt = events(
        blocks[3],
        "closed_at,receipt,total,store_id\n1483271606,r1,12.99,330\n",
    );
    assert_eq!(
        (&receipt[0]["amount"], &receipt[0]["venue"]),
        (&1299.into(), &"store-330".into())
    );
}
