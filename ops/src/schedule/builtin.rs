//! The schedules that an installation has when nobody has set any: what every one needs, at quiet hours.
//!
//! They are documents like all others, marked as built in, so that they are listed, paused and removed in the same way;
//! the scheduler makes them when it first sees a tenant ([`settle`]). A schedule that an operator sets takes the place of
//! the built-in ones of its kind, and one that was removed does not come back.

use std::collections::BTreeMap;

use dwell_model::time::TsMs;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{NIGHTS, Schedule};

/// What is scheduled without anybody's asking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct BuiltIn {
    /// Whether there are built-in schedules. Default true.
    #[serde(rename = "built_in")]
    pub(crate) enabled: bool,
    /// Where the nightly backup goes: `file:///…`, `s3://…`, `gs://…`, `az://…`. Without it there is no built-in backup
    /// and no drill. Default none.
    pub(crate) backup_to: Option<String>,
}

impl Default for BuiltIn {
    fn default() -> Self {
        Self {
            enabled: true,
            backup_to: None,
        }
    }
}

/// Days that the weekly verification reads back.
const SAMPLE_DAYS: u32 = 50;

impl BuiltIn {
    /// The schedules of a tenant, by name. What each comes after is told by kind: whatever schedule of that kind stands.
    fn wanted(&self, is_installation: bool) -> Vec<(&'static str, Wanted)> {
        if !self.enabled {
            return Vec::new();
        }
        let plain = |kind, cron, after| Wanted {
            kind,
            cron,
            options: Map::new(),
            after,
        };
        let mut wanted = vec![
            (
                "retention",
                plain("retention", "40 4 * * *", &[NIGHTS, "backup"][..]),
            ),
            ("vacuum", plain("vacuum", "40 5 * * 0", &["retention"])),
            (
                "verify-sample",
                Wanted {
                    options: options(json!({ "sample": SAMPLE_DAYS })),
                    ..plain("verify", "20 6 * * 6", &[NIGHTS])
                },
            ),
        ];
        if let Some(to) = self.backup_to.as_ref().filter(|_| is_installation) {
            let backup = Wanted {
                options: options(json!({ "to": to })),
                ..plain("backup", "40 3 * * *", &[NIGHTS])
            };
            let drill = Wanted {
                options: options(json!({ "from": to })),
                ..plain("drill", "20 7 * * 0", &["backup"])
            };
            wanted.extend([("backup", backup), ("drill", drill)]);
        }
        wanted
    }
}

struct Wanted {
    kind: &'static str,
    cron: &'static str,
    options: Map<String, Value>,
    /// Kinds, and the nights.
    after: &'static [&'static str],
}

fn options(options: Value) -> Map<String, Value> {
    match options {
        Value::Object(options) => options,
        _ => Map::new(),
    }
}

/// What is to be written so that the built-in schedules of a tenant are as they should be: those that are missing, those
/// that were otherwise, and those whose place an operator's took. `known` are all of the tenant, removed ones too. Pure;
/// nothing when all is as it should be.
pub(super) fn settle(
    built_in: &BuiltIn,
    is_installation: bool,
    known: &BTreeMap<String, Schedule>,
    now: TsMs,
) -> Vec<(String, Schedule)> {
    let by_operators = |kind: &str| {
        known
            .values()
            .any(|schedule| !schedule.built_in && !schedule.removed && schedule.kind == kind)
    };
    let is_free = |name: &str| known.get(name).is_none_or(|known| known.built_in);
    let mut wanted = built_in.wanted(is_installation);
    wanted.retain(|(name, wanted)| is_free(name) && !by_operators(wanted.kind));
    let names_of = |kind: &str| -> Vec<String> {
        let own = wanted.iter().filter(|(_, wanted)| wanted.kind == kind);
        let theirs = known
            .iter()
            .filter(|(_, schedule)| !schedule.built_in && !schedule.removed && schedule.kind == kind);
        own.map(|(name, _)| (*name).to_owned())
            .chain(theirs.map(|(name, _)| name.clone()))
            .collect()
    };
    let mut changes = Vec::new();
    for (name, wanted) in &wanted {
        let before = known.get(*name);
        let stood = before.filter(|before| !before.removed);
        let schedule = Schedule {
            kind: wanted.kind.to_owned(),
            cron: wanted.cron.to_owned(),
            time_zone: "UTC".to_owned(),
            venues: None,
            options: wanted.options.clone(),
            reason: None,
            lane: None,
            after: wanted
                .after
                .iter()
                .flat_map(|kind| match *kind {
                    NIGHTS => vec![NIGHTS.to_owned()],
                    kind => names_of(kind),
                })
                .collect(),
            built_in: true,
            paused: stood.is_some_and(|stood| stood.paused),
            removed: false,
            // Nothing is missed before it was made.
            since: stood.map_or(now, |stood| stood.since),
        };
        if before != Some(&schedule) {
            changes.push(((*name).to_owned(), schedule));
        }
    }
    let is_wanted = |name: &str| wanted.iter().any(|(wanted, _)| *wanted == name);
    let gone = known
        .iter()
        .filter(|(name, known)| known.built_in && !known.removed && !is_wanted(name));
    changes.extend(gone.map(|(name, known)| {
        let removed = Schedule {
            removed: true,
            ..known.clone()
        };
        (name.clone(), removed)
    }));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_backup() -> BuiltIn {
        BuiltIn {
            enabled: true,
            backup_to: Some("file:///backups".to_owned()),
        }
    }

    /// Settles until nothing changes, and says what stands then.
    fn settled(built_in: &BuiltIn, known: &mut BTreeMap<String, Schedule>, now: TsMs) -> Vec<String> {
        for _ in 0..2 {
            known.extend(settle(built_in, true, known, now));
        }
        let again = settle(built_in, true, known, now + 1);
        assert!(again.is_empty(), "settled once and for all, but for {again:?}");
        let standing = known.iter().filter(|(_, schedule)| !schedule.removed);
        standing
            .map(|(name, schedule)| format!("{name} after {}", schedule.after.join(" ")))
            .collect()
    }

    fn own(kind: &str) -> Schedule {
        serde_json::from_value(json!({ "kind": kind, "cron": "0 1 * * *" })).unwrap()
    }

    #[test]
    fn an_installation_without_a_place_has_no_backup_and_one_with_it_has_the_chain() {
        let mut known = BTreeMap::new();
        assert_eq!(
            settled(&BuiltIn::default(), &mut known, 5),
            [
                "retention after nights",
                "vacuum after retention",
                "verify-sample after nights"
            ]
        );
        assert!(
            known
                .values()
                .all(|schedule| schedule.built_in && schedule.since == 5)
        );
        let chain = [
            "backup after nights",
            "drill after backup",
            "retention after nights backup",
            "vacuum after retention",
            "verify-sample after nights",
        ];
        assert_eq!(settled(&with_backup(), &mut known, 9), chain);
        assert_eq!(known["backup"].options["to"], "file:///backups");
        assert_eq!(known["drill"].options["from"], "file:///backups");
        assert_eq!((known["retention"].since, known["backup"].since), (5, 9));
        // A tenant that is not the installation's own has no backup of everything.
        assert!(
            settle(&with_backup(), false, &BTreeMap::new(), 0)
                .iter()
                .all(|(name, _)| name != "backup")
        );
        // The place is taken back.
        assert_eq!(settled(&BuiltIn::default(), &mut known, 11).len(), 3);
        // And given again: it counts from then on.
        assert_eq!(settled(&with_backup(), &mut known, 20), chain);
        assert_eq!(known["backup"].since, 20);
    }

    #[test]
    fn an_operators_schedule_takes_the_place_of_those_of_its_kind_and_gives_it_back() {
        let mut known = BTreeMap::new();
        settled(&with_backup(), &mut known, 1);
        known.insert("mine".to_owned(), own("backup"));
        assert_eq!(
            settled(&with_backup(), &mut known, 2),
            [
                "drill after mine",
                "mine after ",
                "retention after nights mine",
                "vacuum after retention",
                "verify-sample after nights"
            ]
        );
        // Under the very name of a built-in one, too.
        known.insert("retention".to_owned(), own("retention"));
        assert!(settled(&with_backup(), &mut known, 3).contains(&"retention after ".to_owned()));
        known.get_mut("mine").unwrap().removed = true;
        assert!(settled(&with_backup(), &mut known, 4).contains(&"backup after nights".to_owned()));
    }

    #[test]
    fn what_an_operator_paused_or_removed_stays_so() {
        let mut known = BTreeMap::new();
        settled(&BuiltIn::default(), &mut known, 1);
        known.get_mut("vacuum").unwrap().paused = true;
        // Removing makes it the operator's word.
        let verify = known.get_mut("verify-sample").unwrap();
        (verify.removed, verify.built_in) = (true, false);
        assert_eq!(
            settled(&BuiltIn::default(), &mut known, 2),
            ["retention after nights", "vacuum after retention"]
        );
        assert!(known["vacuum"].paused && !known["retention"].paused);
        let none = BuiltIn {
            enabled: false,
            backup_to: None,
        };
        assert_eq!(settled(&none, &mut known, 3), [""; 0]);
    }
}
