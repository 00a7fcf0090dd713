//! Reading one JSON object as an event, in one pass, without allocating (texts with escapes apart).
//!
//! `serde_json` walks the object; each value is taken as its raw text, so that numbers keep their digits and the
//! problem of one value does not hide where the next event begins.

use std::borrow::Cow;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{FieldNames, Target, Value, WireEvent, WireField};
use crate::refusal::{Code, Problem};

/// Reads the JSON value at the beginning of `text` into a cleared event; returns the number of bytes read.
///
/// An error means that the text is no JSON, and that nothing is known of what follows. Whatever is JSON but no good
/// event is an event with a [problem](WireEvent::problem).
pub(super) fn read_event<'a>(
    text: &'a str,
    names: &FieldNames,
    event: &mut WireEvent<'a>,
) -> Result<usize, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_str(text);
    event.clear();
    EventSeed {
        names,
        event,
        base: text.as_ptr() as usize,
    }
    .deserialize(&mut json)?;
    // A stream made of the deserializer knows where it stands.
    Ok(json.into_iter::<IgnoredAny>().byte_offset())
}

struct EventSeed<'e, 'a> {
    names: &'e FieldNames,
    event: &'e mut WireEvent<'a>,
    /// Address of the event's first byte, to tell where the device's text stands.
    base: usize,
}

impl EventSeed<'_, '_> {
    fn no_object(self, found: &str) {
        self.event.refuse(Problem::new(
            Code::NotAnObject,
            format!("an event must be a JSON object, not {found}"),
        ));
    }
}

impl<'a> DeserializeSeed<'a> for EventSeed<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for EventSeed<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an event")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(target) = map.next_key_seed(NameSeed {
            names: self.names,
            event: self.event,
        })? {
            let raw = map.next_value::<&'a RawValue>()?.get();
            let Some(Target::Field(field)) = target else {
                continue;
            };
            if field == WireField::Device {
                let start = raw.as_ptr() as usize - self.base;
                self.event.set_device_place(start as u32, raw.len() as u32);
            }
            match value_of(raw) {
                Ok(value) => self.event.set(field, value),
                Err(problem) => self.event.refuse(problem),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut list: A) -> Result<(), A::Error> {
        self.no_object("a list");
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.no_object("a truth value");
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        self.no_object("a number");
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        self.no_object("a number");
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.no_object("a number");
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        self.no_object("a text");
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.no_object("null");
        Ok(())
    }
}

struct NameSeed<'e, 'a> {
    names: &'e FieldNames,
    event: &'e mut WireEvent<'a>,
}

impl<'a> DeserializeSeed<'a> for NameSeed<'_, 'a> {
    type Value = Option<Target>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Option<Target>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'a> for NameSeed<'_, 'a> {
    type Value = Option<Target>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Option<Target>, E> {
        Ok(self.event.resolve(self.names, name))
    }
}

/// A value of its raw text, which is known to be JSON.
fn value_of(raw: &str) -> Result<Value<'_>, Problem> {
    Ok(match raw.as_bytes().first() {
        Some(b'"') => {
            let inner = &raw[1..raw.len() - 1];
            if inner.contains('\\') {
                let text = serde_json::from_str::<String>(raw).map_err(|_| {
                    Problem::new(Code::JsonSyntax, "a text has an escape that is no character")
                })?;
                Value::Text(Cow::Owned(text))
            } else {
                Value::Text(Cow::Borrowed(inner))
            }
        }
        Some(b'{' | b'[') => Value::Json(raw),
        Some(b't') => Value::Bool(true),
        Some(b'f') => Value::Bool(false),
        Some(b'n') | None => Value::Absent,
        Some(_) => Value::Number(raw),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (WireEvent<'_>, usize) {
        let mut event = WireEvent::new();
        let read = read_event(text, &FieldNames::new(), &mut event).unwrap();
        (event, read)
    }

    #[test]
    fn values_keep_their_text_and_borrow_it() {
        let text = r#"{"ts":1645780665470,"x":1.50e0,"track":"a","floor":null,"void":false,"items":[{"sku":"x"}]} rest"#;
        let (event, len) = read(text);
        assert_eq!(event.problem(), None);
        assert_eq!(len, text.len() - " rest".len());
        assert_eq!(event.get(WireField::Ts), &Value::Number("1645780665470"));
        assert_eq!(event.get(WireField::X), &Value::Number("1.50e0"));
        assert_eq!(event.get(WireField::Floor), &Value::Absent);
        assert_eq!(event.get(WireField::Void), &Value::Bool(false));
        assert_eq!(event.get(WireField::Items), &Value::Json(r#"[{"sku":"x"}]"#));
        assert!(matches!(
            event.get(WireField::Track),
            Value::Text(Cow::Borrowed("a"))
        ));
    }

    #[test]
    fn escapes_are_resolved() {
        let (event, _) = read(r#"{"tr\u0061ck":"K\u00fcche \"1\"\n","device":"x"}"#);
        assert_eq!(event.get(WireField::Track), &Value::Text("Küche \"1\"\n".into()));
        let (event, _) = read(r#"{"track":"\ud800"}"#);
        assert_eq!(event.problem().unwrap().code, Code::JsonSyntax);
    }

    #[test]
    fn the_device_is_found_among_the_bytes() {
        let text = r#"{"ts":1, "device" : "aa:bb" ,"sensor":"s"}"#;
        let (event, _) = read(text);
        let (start, len) = event.device_place().unwrap();
        assert_eq!(&text[start as usize..(start + len) as usize], r#""aa:bb""#);
    }

    #[test]
    fn what_is_json_but_no_event_is_a_problem_and_does_not_hide_what_follows() {
        for (text, code) in [
            ("[1,[2,{}]]", Code::NotAnObject),
            ("17", Code::NotAnObject),
            ("-1.5", Code::NotAnObject),
            ("\"text\"", Code::NotAnObject),
            ("null", Code::NotAnObject),
            ("true", Code::NotAnObject),
            (r#"{"mac":"x"}"#, Code::UnknownField),
            (r#"{"ts":1,"ts":1}"#, Code::DuplicateField),
        ] {
            let with_next = format!("{text} ,{{}}");
            let (event, len) = read(&with_next);
            assert_eq!(event.problem().unwrap().code, code, "{text}");
            assert_eq!(len, text.len());
        }
        let deep = format!("{{\"x\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let (event, len) = read(&deep);
        assert_eq!(len, deep.len());
        assert!(event.get(WireField::X).float(WireField::X).is_err());
    }

    #[test]
    fn what_is_no_json_is_an_error() {
        let top = "[".repeat(100_000);
        for text in [
            "",
            "{",
            r#"{"x":}"#,
            r#"{"x":01}"#,
            r#"{"x":1,}"#,
            r#"{"x":NaN}"#,
            "{'x':1}",
            r#"{"x":"a}"#,
            &top,
        ] {
            assert!(
                read_event(text, &FieldNames::new(), &mut WireEvent::new()).is_err(),
                "{}",
                &text[..text.len().min(20)]
            );
        }
    }
}
