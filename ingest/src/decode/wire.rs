//! An event as its format gave it: a value per field, nothing decided yet.

use dwell_model::event::Kind;

use super::{FieldNames, FieldSet, Target, Value, WireField};
use crate::refusal::{Code, Problem};

/// Longest field name that is repeated in a message, in characters.
const NAME_SHOWN_MAX: usize = 64;

/// The fields of one event. Values borrow from the bytes that were decoded.
#[derive(Debug, Clone)]
pub struct WireEvent<'a> {
    seen: FieldSet,
    values: [Value<'a>; WireField::COUNT],
    problem: Option<Problem>,
    device_at: Option<(u32, u32)>,
}

impl Default for WireEvent<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> WireEvent<'a> {
    /// An event without fields.
    pub fn new() -> Self {
        Self {
            seen: FieldSet::default(),
            values: [const { Value::Absent }; WireField::COUNT],
            problem: None,
            device_at: None,
        }
    }

    /// Forgets everything, so that the next event can be read into the same place.
    pub fn clear(&mut self) {
        for field in self.seen.iter() {
            self.values[field as usize] = Value::Absent;
        }
        self.seen = FieldSet::default();
        self.problem = None;
        self.device_at = None;
    }

    /// Sets a field. A field that stands twice is a problem of the event, absent values included.
    pub fn set(&mut self, field: WireField, value: Value<'a>) {
        if self.seen.insert(field) {
            self.values[field as usize] = value;
        } else {
            self.note(Code::DuplicateField, || {
                format!("the field {:?} stands twice", field.name())
            });
        }
    }

    /// Sets a field where it is absent: for defaults of a message.
    pub fn set_default(&mut self, field: WireField, value: Value<'a>) {
        if self.values[field as usize].is_absent() {
            self.seen.insert(field);
            self.values[field as usize] = value;
        }
    }

    /// The value of a field.
    pub fn get(&self, field: WireField) -> &Value<'a> {
        &self.values[field as usize]
    }

    /// The fields that have a value.
    pub fn present(&self) -> FieldSet {
        let mut present = FieldSet::default();
        for field in self.seen.iter().filter(|&field| !self.get(field).is_absent()) {
            present.insert(field);
        }
        present
    }

    /// A field with a value that does not belong to a set, if there is one.
    pub fn first_outside(&self, set: FieldSet) -> Option<WireField> {
        // Nearly always there is none; then the values are not looked at.
        self.seen.first_outside(set)?;
        self.present().first_outside(set)
    }

    /// The kind; `position` when the event does not say.
    pub fn kind(&self) -> Result<Kind, Problem> {
        match self.get(WireField::Kind).text(WireField::Kind)? {
            None => Ok(Kind::Position),
            Some(name) => name.parse().map_err(|_| {
                let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
                Problem::new(
                    Code::UnknownKind,
                    format!("kind must be one of {}", known.join(", ")),
                )
            }),
        }
    }

    /// What is wrong with the event's form, if anything.
    pub fn problem(&self) -> Option<&Problem> {
        self.problem.as_ref()
    }

    /// Records what is wrong with the event's form; the first problem is kept.
    pub fn refuse(&mut self, problem: Problem) {
        if self.problem.is_none() {
            self.problem = Some(problem);
        }
    }

    /// Says where the text of `device` stands among the event's bytes.
    pub fn set_device_place(&mut self, start: u32, len: u32) {
        self.device_at = Some((start, len));
    }

    /// Where the text of `device` stands among the event's bytes: first byte and length.
    pub fn device_place(&self) -> Option<(u32, u32)> {
        self.device_at
    }

    /// What a name stands for; notes a problem when it is not known.
    pub(super) fn resolve(&mut self, names: &FieldNames, name: &str) -> Option<Target> {
        let target = names.resolve(name);
        if target.is_none() {
            self.note(Code::UnknownField, || {
                format!("the field {:?} is not known", shown(name))
            });
        }
        target
    }

    fn note(&mut self, code: Code, message: impl FnOnce() -> String) {
        if self.problem.is_none() {
            self.problem = Some(Problem::new(code, message()));
        }
    }
}

/// A name as far as a message repeats it.
pub(super) fn shown(name: &str) -> String {
    name.chars().take(NAME_SHOWN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_stands_twice_is_a_problem_even_when_equal() {
        let mut event = WireEvent::new();
        event.set(WireField::X, Value::Number("1"));
        assert!(event.problem().is_none());
        event.set(WireField::X, Value::Number("1"));
        assert_eq!(event.problem().unwrap().code, Code::DuplicateField);
    }

    #[test]
    fn nothing_of_an_event_is_left_for_the_next_one() {
        let mut event = WireEvent::new();
        event.set(WireField::Device, Value::Text("aa".to_owned().into()));
        event.set(WireField::Device, Value::Number("1"));
        event.set_device_place(3, 4);
        event.clear();
        assert_eq!(
            (event.problem(), event.device_place(), event.present()),
            (None, None, FieldSet::default())
        );
        assert!(WireField::ALL.iter().all(|field| event.get(*field).is_absent()));
        event.set(WireField::Device, Value::Absent);
        assert!(event.problem().is_none());
    }

    #[test]
    fn absent_values_of_other_kinds_are_no_strangers() {
        let mut event = WireEvent::new();
        event.set(WireField::Track, Value::Text("t".into()));
        event.set(WireField::Device, Value::Absent);
        let position = FieldSet::of_kind(Kind::Position);
        assert_eq!(event.first_outside(position), None);
        event.set(WireField::Rssi, Value::Number("-60"));
        assert_eq!(event.first_outside(position), Some(WireField::Rssi));
    }

    #[test]
    fn defaults_fill_what_is_absent_only() {
        let mut event = WireEvent::new();
        event.set(WireField::Sensor, Value::Text("own".into()));
        event.set(WireField::Unit, Value::Absent);
        event.set_default(WireField::Sensor, Value::Text("default".into()));
        event.set_default(WireField::Unit, Value::Text("kWh".into()));
        assert_eq!(event.get(WireField::Sensor), &Value::Text("own".into()));
        assert_eq!(event.get(WireField::Unit), &Value::Text("kWh".into()));
        assert!(event.problem().is_none());
    }
}
