//! Which days are to be built anew, why, and when.
//!
//! A wish waits a little, so that the events that come with the first late one share its rebuild; and a day that was
//! just built rests, so that a stream of late events cannot keep it being built for ever.

use std::collections::BTreeMap;
use std::time::Duration;

use dwell_model::time::LocalDay;

use crate::config::Config;

/// Longest time between two rebuilds of a day.
const REST_MAX: Duration = Duration::from_secs(45);

/// Why a day is to be built anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Nothing is known of it yet.
    Unknown,
    /// An event came after its time was settled.
    Late,
    /// An event came again with another payload.
    Correction,
    /// Another layout is in force.
    Layout,
    /// Somebody asked for it.
    Request,
    /// Raw holds now what the log had lost.
    Gap,
    /// Other exclusions are in force.
    Exclusion,
}

/// The wishes of a venue.
#[derive(Debug, Default)]
pub(super) struct RebuildWishes {
    wanted: BTreeMap<LocalDay, Wish>,
    /// The day that is being built.
    building: Option<LocalDay>,
    /// Until when a day that was built is not built again.
    rests_until: BTreeMap<LocalDay, Duration>,
}

#[derive(Debug, Clone, Copy)]
struct Wish {
    reason: Reason,
    since: Duration,
}

impl Reason {
    /// The reason as a word, for metrics and logs.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Reason::Unknown => "unknown",
            Reason::Late => "late",
            Reason::Correction => "correction",
            Reason::Layout => "layout",
            Reason::Request => "request",
            Reason::Gap => "gap",
            Reason::Exclusion => "exclusion",
        }
    }
}

impl Reason {
    /// Whether it came from outside of the log that is followed, so that what the log brings does not answer it.
    fn is_asked(self) -> bool {
        matches!(self, Reason::Request | Reason::Gap)
    }
}

impl RebuildWishes {
    /// Wishes for a day; an earlier wish stands, but what events ask for gives way to what is asked for from outside.
    pub(super) fn want(&mut self, day: LocalDay, reason: Reason, monotonic: Duration) {
        let wish = self.wanted.entry(day).or_insert(Wish {
            reason,
            since: monotonic,
        });
        if reason.is_asked() {
            wish.reason = reason;
        }
    }

    /// Whether a day will come from a rebuild.
    pub(super) fn is_awaited(&self, day: LocalDay) -> bool {
        self.wanted.contains_key(&day) || self.building == Some(day)
    }

    /// The days that are wished for.
    pub(super) fn days(&self) -> impl Iterator<Item = LocalDay> + '_ {
        self.wanted.keys().copied()
    }

    /// The wish that is due and waits longest; none while a day is being built.
    pub(super) fn due(&self, config: &Config, monotonic: Duration) -> Option<(LocalDay, Reason)> {
        if self.building.is_some() {
            return None;
        }
        let is_due = |day: &LocalDay, wish: &Wish| {
            let wait = match wish.reason {
                Reason::Unknown => Duration::ZERO,
                _ => config.rebuild_after.as_duration(),
            };
            let rests_until = self.rests_until.get(day).copied().unwrap_or_default();
            monotonic >= rests_until.max(wish.since + wait)
        };
        let due = self.wanted.iter().filter(|(day, wish)| is_due(day, wish));
        due.min_by_key(|(_, wish)| wish.since)
            .map(|(day, wish)| (*day, wish.reason))
    }

    /// A day is being built: what happens from here on is a wish of its own.
    pub(super) fn begin(&mut self, day: LocalDay) {
        self.wanted.remove(&day);
        self.building = Some(day);
    }

    /// The building of a day has ended. A large day rests as long as that took, so that it takes half of the time at
    /// most.
    pub(super) fn end(&mut self, day: LocalDay, took: Duration, config: &Config, monotonic: Duration) {
        self.building = None;
        let rest = took.min(REST_MAX).max(config.rebuild_pause.as_duration());
        self.rests_until.insert(day, monotonic + rest);
    }

    /// A day was built: what events asked for meanwhile is either in it, or comes once more with what it takes again.
    pub(super) fn forget_events(&mut self, day: LocalDay) {
        if self.wanted.get(&day).is_some_and(|wish| !wish.reason.is_asked()) {
            self.wanted.remove(&day);
        }
    }

    /// A day needs no rebuild any more.
    pub(super) fn forget(&mut self, day: LocalDay) {
        self.wanted.remove(&day);
    }

    /// Keeps only some days.
    pub(super) fn retain(&mut self, is_kept: impl Fn(LocalDay) -> bool) {
        self.wanted.retain(|day, _| is_kept(*day));
        self.rests_until.retain(|day, _| is_kept(*day));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_wish_waits_for_companions_and_a_built_day_rests() {
        let (config, mut wishes) = (Config::default(), RebuildWishes::default());
        let day = "2026-03-10".parse().unwrap();
        wishes.want(day, Reason::Late, seconds(100));
        wishes.want(day, Reason::Correction, seconds(101));
        assert_eq!(wishes.due(&config, seconds(101)), None);
        assert_eq!(wishes.due(&config, seconds(102)), Some((day, Reason::Late)));
        wishes.begin(day);
        assert!(wishes.is_awaited(day));
        wishes.want(day, Reason::Late, seconds(103));
        assert_eq!(wishes.due(&config, seconds(110)), None, "one at a time");
        wishes.end(day, seconds(1), &config, seconds(110));
        assert_eq!(wishes.due(&config, seconds(119)), None);
        assert_eq!(wishes.due(&config, seconds(120)), Some((day, Reason::Late)));
        wishes.begin(day);
        wishes.end(day, seconds(30), &config, seconds(150));
        wishes.want(day, Reason::Late, seconds(150));
        assert_eq!(
            wishes.due(&config, seconds(179)),
            None,
            "what took 30 s rests for 30 s"
        );
        assert_eq!(wishes.due(&config, seconds(180)), Some((day, Reason::Late)));
    }

    #[test]
    fn a_request_that_comes_while_a_day_is_built_is_not_taken_for_done() {
        let (config, mut wishes) = (Config::default(), RebuildWishes::default());
        let day = "2026-03-10".parse().unwrap();
        wishes.want(day, Reason::Late, seconds(1));
        wishes.begin(day);
        wishes.want(day, Reason::Late, seconds(4));
        wishes.want(day, Reason::Request, seconds(5));
        wishes.end(day, seconds(1), &config, seconds(6));
        wishes.forget_events(day);
        assert_eq!(wishes.due(&config, seconds(60)), Some((day, Reason::Request)));
        wishes.begin(day);
        wishes.want(day, Reason::Correction, seconds(61));
        wishes.end(day, seconds(1), &config, seconds(62));
        wishes.forget_events(day);
        assert!(!wishes.is_awaited(day));
    }

    #[test]
    fn an_unknown_day_is_built_at_once_and_the_longest_waiting_first() {
        let (config, mut wishes) = (Config::default(), RebuildWishes::default());
        let (a, b) = ("2026-03-09".parse().unwrap(), "2026-03-10".parse().unwrap());
        wishes.want(b, Reason::Unknown, seconds(5));
        wishes.want(a, Reason::Unknown, seconds(6));
        assert_eq!(wishes.due(&config, seconds(6)), Some((b, Reason::Unknown)));
        wishes.forget(b);
        assert_eq!(wishes.due(&config, seconds(6)), Some((a, Reason::Unknown)));
        wishes.retain(|day| day != a);
        assert!(!wishes.is_awaited(a));
    }
}
