//! The fields that events have on the wire, with the form in which JSON holds them.

/// Form of a field's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldForm {
    /// Text.
    Text,
    /// An integer; a decimal number without a fraction is taken as one.
    Integer,
    /// A number.
    Float,
    /// An integer in counts, any number in readings.
    CountOrFloat,
    /// True or false; 1 and 0 are taken too.
    Truth,
    /// An instant.
    Time,
    /// JSON within the cell.
    Json,
}

/// All fields of all kinds, those of every event first. A test holds the list against the model.
pub(super) const ALL: &[(&str, FieldForm)] = &[
    ("kind", FieldForm::Text),
    ("venue", FieldForm::Text),
    ("sensor", FieldForm::Text),
    ("ts", FieldForm::Time),
    ("revision", FieldForm::Integer),
    ("track", FieldForm::Text),
    ("x", FieldForm::Float),
    ("y", FieldForm::Float),
    ("floor", FieldForm::Text),
    ("line", FieldForm::Text),
    ("direction", FieldForm::Text),
    ("count", FieldForm::Integer),
    ("seq", FieldForm::Integer),
    ("counter", FieldForm::Text),
    ("value", FieldForm::CountOrFloat),
    ("mode", FieldForm::Text),
    ("device", FieldForm::Text),
    ("rssi", FieldForm::Integer),
    ("number", FieldForm::Text),
    ("amount", FieldForm::Integer),
    ("currency", FieldForm::Text),
    ("void", FieldForm::Truth),
    ("items", FieldForm::Json),
    ("metric", FieldForm::Text),
    ("unit", FieldForm::Text),
    ("state", FieldForm::Text),
    ("sent", FieldForm::Integer),
    ("dropped", FieldForm::Integer),
    ("sequence", FieldForm::Integer),
    ("clock_offset_ms", FieldForm::Integer),
];

/// A field by its name; the error lists those that there are.
pub(super) fn lookup(name: &str) -> Result<(&'static str, FieldForm), String> {
    ALL.iter()
        .find(|(known, _)| *known == name)
        .copied()
        .ok_or_else(|| {
            let known: Vec<&str> = ALL.iter().map(|(known, _)| *known).collect();
            format!(
                "mapping: {name:?} is not a field of any event; there are {}",
                known.join(", ")
            )
        })
}

#[cfg(test)]
mod tests {
    use dwell_model::event::{FieldType, Kind};

    use super::*;

    #[test]
    fn every_field_of_every_kind_can_be_mapped() {
        for kind in Kind::ALL {
            // `key` is made of other fields, `weak` is found out.
            for name in [kind.key_name()].into_iter().filter(|name| *name != "key") {
                assert_eq!(lookup(name).unwrap().1, FieldForm::Text, "{kind} {name}");
            }
            for field in kind.fields().iter().filter(|field| field.name != "weak") {
                let (_, form) = lookup(field.name).unwrap();
                let fits = match field.ty {
                    FieldType::F32 | FieldType::F64 => {
                        matches!(form, FieldForm::Float | FieldForm::CountOrFloat)
                    }
                    FieldType::I64 => {
                        matches!(
                            form,
                            FieldForm::Integer | FieldForm::Truth | FieldForm::CountOrFloat
                        )
                    }
                    FieldType::Text => matches!(form, FieldForm::Text | FieldForm::Json),
                };
                assert!(fits, "{kind} {} {form:?}", field.name);
            }
        }
        assert!(lookup("trak").unwrap_err().contains("track"));
    }
}
