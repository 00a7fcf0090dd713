use proptest::prelude::*;

use super::*;
use crate::layout::{Layout, Zone};

fn zone(id: String, corners: Vec<[f64; 2]>, floor: Option<&str>) -> Zone {
    Zone {
        id,
        name: None,
        polygon: Polygon::new(corners).expect("a polygon"),
        floor: floor.map(str::to_owned),
        layer: "default".into(),
        engaged_after_ms: 10_000,
        tags: vec![],
    }
}

fn layout(polygons: Vec<Vec<[f64; 2]>>) -> Layout {
    let zones = polygons
        .into_iter()
        .enumerate()
        .map(|(i, corners)| zone(format!("{i:04}"), corners, None));
    Layout {
        zones: zones.collect(),
        ..Layout::empty()
    }
}

#[test]
fn a_rectangle_is_half_open() {
    let square = Polygon::new(vec![[1.0, 1.0], [2.0, 1.0], [2.0, 2.0], [1.0, 2.0]]).unwrap();
    for (x, y, inside) in [
        (1.0, 1.0, true),
        (1.5, 1.5, true),
        (2.0, 1.5, false),
        (1.5, 2.0, false),
        (1.0, 2.0, false),
        (0.99, 1.5, false),
    ] {
        assert_eq!(square.contains(x, y), inside, "({x}, {y})");
    }
    // Listed the other way round it is the same square.
    let reversed = Polygon::new(square.corners().iter().rev().copied().collect()).unwrap();
    assert!(reversed.contains(1.0, 1.0) && !reversed.contains(2.0, 2.0));
}

#[test]
fn what_is_no_polygon_is_refused() {
    assert_eq!(
        Polygon::new(vec![[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]),
        Err(PolygonError::TooFew(2))
    );
    assert!(matches!(
        Polygon::new(vec![[0.0, 0.0], [f64::NAN, 0.0], [1.0, 1.0]]),
        Err(PolygonError::Coordinate { .. })
    ));
    assert!(matches!(
        Polygon::new(vec![[0.0, 0.0]; 513]),
        Err(PolygonError::TooMany(513))
    ));
}

#[test]
fn zones_of_a_floor_take_only_its_events() {
    let square = vec![[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0]];
    let zones = vec![
        zone("any".into(), square.clone(), None),
        zone("first".into(), square.clone(), Some("1")),
        zone("second".into(), square, Some("2")),
    ];
    let index = ZoneIndex::build(&Layout {
        zones,
        ..Layout::empty()
    });
    for (floor, word) in [
        (None, 0b001),
        (Some("1"), 0b011),
        (Some("2"), 0b101),
        (Some("3"), 0b001),
    ] {
        assert_eq!(index.word_at(1.0, 1.0, floor), word, "{floor:?}");
    }
}

/// Corners on and off the grid, edges through corners of cells, flat and steep ones.
fn corner() -> impl Strategy<Value = [f64; 2]> {
    let on_grid = (-8_i32..24).prop_map(|n| f64::from(n) / 2.0);
    let off_grid = (-400_i32..1_200).prop_map(|n| f64::from(n) / 100.0);
    let odd = -4.0..12.0_f64;
    let one = prop_oneof![on_grid, off_grid, odd];
    (one.clone(), one).prop_map(|(x, y)| [x, y])
}

fn point() -> impl Strategy<Value = (f32, f32)> {
    let on_grid = (-10_i32..28).prop_map(|n| n as f32 / 2.0);
    let centimetres = (-500_i32..1_400).prop_map(|n| (f64::from(n) / 100.0) as f32);
    let far = prop_oneof![Just(-1.0e6_f32), Just(9_999_999.0), Just(-0.0), Just(1.0e-30)];
    let one = prop_oneof![4 => on_grid, 8 => centimetres, 1 => far];
    (one.clone(), one)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_index_answers_as_the_rule_does(
        polygons in prop::collection::vec(prop::collection::vec(corner(), 3..9), 1..6),
        points in prop::collection::vec(point(), 1..200),
    ) {
        let polygons: Vec<_> = polygons.into_iter().filter(|p| Polygon::new(p.clone()).is_ok()).collect();
        let layout = layout(polygons);
        let index = ZoneIndex::build(&layout);
        for (x, y) in points {
            for (i, zone) in layout.zones.iter().enumerate() {
                let got = index.word_at(x, y, None) >> i & 1 == 1;
                prop_assert_eq!(got, zone.polygon.contains(x, y), "zone {} at ({}, {})", i, x, y);
            }
            // Points on corners and edges themselves.
            for zone in &layout.zones {
                let [cx, cy] = zone.polygon.corners()[0];
                let (x, y) = (cx as f32, cy as f32);
                for (i, other) in layout.zones.iter().enumerate() {
                    prop_assert_eq!(index.word_at(x, y, None) >> i & 1 == 1, other.polygon.contains(x, y));
                }
            }
        }
    }

    #[test]
    fn more_than_64_zones_answer_alike(points in prop::collection::vec(point(), 1..60)) {
        let square = |i: i32| {
            let (x, y) = (f64::from(i % 12) - 2.3, f64::from(i / 12) - 1.7);
            vec![[x, y], [x + 1.9, y + 0.2], [x + 1.7, y + 1.4], [x - 0.1, y + 1.1]]
        };
        let layout = layout((0..130).map(square).collect());
        let index = ZoneIndex::build(&layout);
        prop_assert!(!index.is_one_word());
        let mut zones = ZoneSet::empty(130);
        for (x, y) in points {
            index.zones_at(x, y, None, &mut zones);
            let expected: Vec<usize> =
                (0..130).filter(|&i| layout.zones[i].polygon.contains(x, y)).collect();
            prop_assert_eq!(zones.iter().collect::<Vec<_>>(), expected);
        }
    }
}
