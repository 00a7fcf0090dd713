//! How a crate describes its metrics.

pub use metrics::Unit;

/// A metric: its name, and what is said of it to those who read it.
///
/// Names are `dwell_<part>_<what>_<unit>`, counters end in `_total`, units are seconds and bytes, never their parts.
/// Labels must have few values: kinds, results, part names; never a venue's or a request's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricDef {
    /// The full name.
    pub name: &'static str,
    /// What is counted or measured in.
    pub unit: Unit,
    /// One or more sentences for the reader of a dashboard.
    pub help: &'static str,
    /// What kind of metric it is.
    pub kind: MetricKind,
}

/// The kinds of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows while the process lives.
    Counter,
    /// The value now.
    Gauge,
    /// A distribution, in fixed buckets chosen by the name's unit.
    Histogram,
}

impl MetricDef {
    /// A counter.
    pub const fn counter(name: &'static str, unit: Unit, help: &'static str) -> Self {
        Self {
            name,
            unit,
            help,
            kind: MetricKind::Counter,
        }
    }

    /// A gauge.
    pub const fn gauge(name: &'static str, unit: Unit, help: &'static str) -> Self {
        Self {
            name,
            unit,
            help,
            kind: MetricKind::Gauge,
        }
    }

    /// A histogram.
    pub const fn histogram(name: &'static str, unit: Unit, help: &'static str) -> Self {
        Self {
            name,
            unit,
            help,
            kind: MetricKind::Histogram,
        }
    }

    /// What is wrong with the definition by the rules above, if anything; for a test in each crate that has metrics.
    pub fn problem(&self) -> Option<String> {
        let stem = self.name.strip_suffix("_total");
        let base = stem.unwrap_or(self.name);
        let rules = [
            (self.name.starts_with("dwell_"), "begins with dwell_"),
            (
                self.name
                    .bytes()
                    .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')),
                "has lower case letters, digits and underscores only",
            ),
            (
                stem.is_some() == (self.kind == MetricKind::Counter),
                "ends in _total when it is a counter, and only then",
            ),
            (
                base.ends_with("_seconds") == (self.unit == Unit::Seconds),
                "ends in _seconds when that is its unit, and only then",
            ),
            (
                base.ends_with("_bytes") == (self.unit == Unit::Bytes),
                "ends in _bytes when that is its unit, and only then",
            ),
            (
                matches!(
                    self.unit,
                    Unit::Seconds | Unit::Bytes | Unit::Count | Unit::Percent
                ),
                "is in seconds, bytes, percent or a count",
            ),
            (self.help.ends_with('.'), "has a help of whole sentences"),
        ];
        let broken = rules.iter().find(|(holds, _)| !holds);
        broken.map(|(_, rule)| format!("{}: a metric {rule}", self.name))
    }
}

/// Tells the recorder about metrics. To be called once it is installed; before, it has no effect.
pub fn describe(definitions: &[MetricDef]) {
    for MetricDef {
        name,
        unit,
        help,
        kind,
    } in definitions.iter().copied()
    {
        match kind {
            MetricKind::Counter => metrics::describe_counter!(name, unit, help),
            MetricKind::Gauge => metrics::describe_gauge!(name, unit, help),
            MetricKind::Histogram => metrics::describe_histogram!(name, unit, help),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_of_this_crate_follow_the_rules() {
        let problems: Vec<_> = crate::metrics::DEFINITIONS
            .iter()
            .filter_map(MetricDef::problem)
            .collect();
        assert!(problems.is_empty(), "{problems:?}");
    }

    #[test]
    fn each_rule_is_held() {
        let good = MetricDef::histogram("dwell_log_fsync_seconds", Unit::Seconds, "Time of an fsync.");
        assert_eq!(good.problem(), None);
        let bad = [
            MetricDef {
                name: "log_fsync_seconds",
                ..good
            },
            MetricDef {
                name: "dwell_Log_fsync_seconds",
                ..good
            },
            MetricDef {
                kind: MetricKind::Counter,
                ..good
            },
            MetricDef {
                name: "dwell_log_fsync_seconds_total",
                ..good
            },
            MetricDef {
                name: "dwell_log_fsync",
                ..good
            },
            MetricDef {
                unit: Unit::Count,
                ..good
            },
            MetricDef {
                name: "dwell_log_fsync_bytes",
                ..good
            },
            MetricDef {
                name: "dwell_log_fsync_milliseconds",
                unit: Unit::Milliseconds,
                ..good
            },
            MetricDef {
                help: "time of an fsync",
                ..good
            },
        ];
        for definition in bad {
            assert!(definition.problem().is_some(), "{definition:?}");
        }
    }
}
