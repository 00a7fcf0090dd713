//! What a failpoint is set to do, and how that is written.

use std::collections::VecDeque;
use std::fmt;

use crate::limits::HumanDuration;

/// Why a failpoint's setting could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failpoint setting {text:?}: {reason}")]
pub struct PlanError {
    text: String,
    reason: String,
}

/// The steps that are left; the first is the next to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    steps: VecDeque<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    /// How many times before the next step; without it, for ever.
    times: Option<u64>,
    action: Action,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Off,
    Error(String),
    Pause(HumanDuration),
    Panic,
    Kill,
}

impl Plan {
    /// Reads `name=steps;name=steps`.
    pub(super) fn parse_many(text: &str) -> Result<Vec<(String, Self)>, PlanError> {
        let settings = text
            .split(';')
            .map(str::trim)
            .filter(|setting| !setting.is_empty());
        settings
            .map(|setting| match setting.split_once('=') {
                Some((name, steps)) => Ok((name.trim().to_owned(), Self::parse(name.trim(), steps)?)),
                None => Err(PlanError {
                    text: setting.to_owned(),
                    reason: "is not name=steps".to_owned(),
                }),
            })
            .collect()
    }

    /// Reads the steps of one point.
    pub(super) fn parse(name: &str, text: &str) -> Result<Self, PlanError> {
        let error = |reason: String| PlanError {
            text: format!("{name}={text}"),
            reason,
        };
        if name.is_empty() {
            return Err(error("the failpoint has no name".to_owned()));
        }
        let steps = text
            .split("->")
            .map(|step| Step::parse(step.trim()).map_err(&error));
        let steps: VecDeque<Step> = steps.collect::<Result<_, _>>()?;
        let endless = steps.iter().position(|step| step.times.is_none());
        if endless.is_some_and(|index| index + 1 < steps.len()) {
            return Err(error(
                "a step before the last needs a count, such as 2*off".to_owned(),
            ));
        }
        Ok(Self { steps })
    }

    /// The action for the next hit.
    pub(super) fn next(&mut self) -> Action {
        loop {
            let Some(step) = self.steps.front_mut() else {
                return Action::Off;
            };
            match &mut step.times {
                None => return step.action.clone(),
                Some(0) => {
                    self.steps.pop_front();
                }
                Some(times) => {
                    *times -= 1;
                    return step.action.clone();
                }
            }
        }
    }
}

impl Step {
    fn parse(text: &str) -> Result<Self, String> {
        // A star behind a colon belongs to an error's message.
        let is_counted = text.split(':').next().is_some_and(|head| head.contains('*'));
        let (times, action) = match text.split_once('*').filter(|_| is_counted) {
            None => (None, text),
            Some((times, action)) => {
                let parsed = times
                    .trim()
                    .parse()
                    .map_err(|_| format!("{times:?} is not a count"))?;
                (Some(parsed), action.trim())
            }
        };
        Ok(Self {
            times,
            action: Action::parse(action)?,
        })
    }
}

impl Action {
    fn parse(text: &str) -> Result<Self, String> {
        let (word, argument) = match text.split_once(':') {
            Some((word, argument)) => (word.trim(), Some(argument.trim())),
            None => (text, None),
        };
        match (word, argument) {
            ("off", None) => Ok(Self::Off),
            ("error", message) => Ok(Self::Error(message.unwrap_or("failure").to_owned())),
            ("pause", Some(duration)) => match duration.parse() {
                Ok(duration) => Ok(Self::Pause(duration)),
                Err(error) => Err(error.to_string()),
            },
            ("panic", None) => Ok(Self::Panic),
            ("kill", None) => Ok(Self::Kill),
            _ => Err(format!(
                "{text:?} is none of off, error, error:message, pause:500ms, panic, kill"
            )),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.steps.iter().enumerate() {
            if index > 0 {
                formatter.write_str("->")?;
            }
            if let Some(times) = step.times {
                write!(formatter, "{times}*")?;
            }
            match &step.action {
                Action::Off => formatter.write_str("off")?,
                Action::Error(message) => write!(formatter, "error:{message}")?,
                Action::Pause(duration) => write!(formatter, "pause:{duration}")?,
                Action::Panic => formatter.write_str("panic")?,
                Action::Kill => formatter.write_str("kill")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actions(steps: &str, count: usize) -> Vec<Action> {
        let mut plan = Plan::parse("point", steps).unwrap();
        (0..count).map(|_| plan.next()).collect()
    }

    #[test]
    fn steps_are_done_in_order_as_often_as_they_say() {
        let error = |message: &str| Action::Error(message.to_owned());
        assert_eq!(actions("kill", 2), [Action::Kill, Action::Kill]);
        assert_eq!(
            actions("2*off->kill", 4),
            [Action::Off, Action::Off, Action::Kill, Action::Kill]
        );
        assert_eq!(
            actions(" 1*error : disk full -> 0*kill -> 2*pause:1s500ms -> panic", 4),
            [
                error("disk full"),
                Action::Pause(HumanDuration::millis(1_500)),
                Action::Pause(HumanDuration::millis(1_500)),
                Action::Panic,
            ]
        );
        assert_eq!(
            actions("1*error", 3),
            [error("failure"), Action::Off, Action::Off]
        );
        assert_eq!(actions("error:2*2=4", 1), [error("2*2=4")]);
    }

    #[test]
    fn several_points_are_set_in_one_line() {
        let plans = Plan::parse_many("raw_writer.after_rows=kill; log.fsync = 3*off->error ;;").unwrap();
        let names: Vec<_> = plans
            .iter()
            .map(|(name, plan)| format!("{name}={plan}"))
            .collect();
        assert_eq!(
            names,
            ["raw_writer.after_rows=kill", "log.fsync=3*off->error:failure"]
        );
        assert_eq!(Plan::parse_many("").unwrap(), []);
    }

    #[test]
    fn settings_that_cannot_be_meant_are_refused_with_a_reason() {
        for text in [
            "kill",
            "=kill",
            "a=",
            "a=kil",
            "a=off->kill",
            "a=x*kill",
            "a=-1*kill",
            "a=pause",
            "a=pause:5",
        ] {
            assert!(Plan::parse_many(text).is_err(), "{text}");
        }
        assert_eq!(
            Plan::parse("a", "die").unwrap_err().to_string(),
            "failpoint setting \"a=die\": \"die\" is none of off, error, error:message, pause:500ms, panic, kill"
        );
    }
}
