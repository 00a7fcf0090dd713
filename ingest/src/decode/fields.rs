//! The fields that an event may have on the wire, and which kind has which.

use dwell_model::event::Kind;
use hashbrown::HashMap;

macro_rules! wire_fields {
    ($($name:ident = $text:literal),+ $(,)?) => {
        /// A field of an event on the wire: those of all kinds together.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "each is the field of its own name, see design.md §3")]
        pub enum WireField {
            $($name),+
        }

        impl WireField {
            /// All fields, in the order of their numbers.
            pub const ALL: &[WireField] = &[$(WireField::$name),+];

            /// The name on the wire.
            pub const fn name(self) -> &'static str {
                match self { $(WireField::$name => $text),+ }
            }

            /// The field of a name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(WireField::$name),)+ _ => None }
            }
        }
    };
}

wire_fields! {
    Venue = "venue",
    Sensor = "sensor",
    Kind = "kind",
    Ts = "ts",
    Revision = "revision",
    CollectedAt = "collected_at",
    Track = "track",
    X = "x",
    Y = "y",
    Floor = "floor",
    Line = "line",
    Direction = "direction",
    Count = "count",
    Seq = "seq",
    Counter = "counter",
    Value = "value",
    Mode = "mode",
    Device = "device",
    Rssi = "rssi",
    Number = "number",
    Amount = "amount",
    Currency = "currency",
    Void = "void",
    Items = "items",
    Metric = "metric",
    Unit = "unit",
    State = "state",
    Sent = "sent",
    Dropped = "dropped",
    Sequence = "sequence",
    ClockOffsetMs = "clock_offset_ms",
}

// A set is a number of 64 bits.
const _: () = assert!(WireField::COUNT <= 64);

/// A set of fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FieldSet(u64);

impl WireField {
    /// Number of fields.
    pub const COUNT: usize = WireField::ALL.len();

    /// Whether events of a kind have the field.
    pub fn belongs_to(self, kind: Kind) -> bool {
        FieldSet::of_kind(kind).contains(self)
    }
}

impl FieldSet {
    /// The fields that every kind has.
    const COMMON: FieldSet = FieldSet::of(&[
        WireField::Venue,
        WireField::Sensor,
        WireField::Kind,
        WireField::Ts,
        WireField::Revision,
        WireField::CollectedAt,
    ]);

    /// A set of some fields.
    pub const fn of(fields: &[WireField]) -> Self {
        let mut bits = 0;
        let mut i = 0;
        while i < fields.len() {
            bits |= 1 << (fields[i] as u64);
            i += 1;
        }
        Self(bits)
    }

    /// All fields of a kind, those of every kind included.
    pub const fn of_kind(kind: Kind) -> Self {
        use dwell_model::event::Kind as Of;

        use WireField::*;
        let own = match kind {
            Of::Position => FieldSet::of(&[Track, X, Y, Floor]),
            Of::Crossing => FieldSet::of(&[Line, Direction, Count, Track, Seq]),
            Of::Count => FieldSet::of(&[Counter, Value, Mode]),
            Of::Presence => FieldSet::of(&[Device, Rssi, X, Y]),
            Of::Transaction => FieldSet::of(&[Number, Amount, Currency, Void, Items]),
            Of::Reading => FieldSet::of(&[Metric, Value, Unit]),
            Of::Status => FieldSet::of(&[State, Sent, Dropped, Sequence, ClockOffsetMs]),
        };
        Self(own.0 | FieldSet::COMMON.0)
    }

    /// Whether a field is in the set.
    pub const fn contains(self, field: WireField) -> bool {
        self.0 & (1 << (field as u64)) != 0
    }

    /// Adds a field; false when it was there.
    pub fn insert(&mut self, field: WireField) -> bool {
        let before = self.0;
        self.0 |= 1 << (field as u64);
        self.0 != before
    }

    /// The fields of the set, in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = WireField> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let field = *WireField::ALL.get(rest.trailing_zeros() as usize)?;
            rest &= rest - 1;
            Some(field)
        })
    }

    /// A field of this set that is not in the other.
    pub fn first_outside(self, other: FieldSet) -> Option<WireField> {
        let outside = self.0 & !other.0;
        if outside == 0 {
            None
        } else {
            WireField::ALL.get(outside.trailing_zeros() as usize).copied()
        }
    }
}

/// What a name on the wire stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A field.
    Field(WireField),
    /// Something that is knowingly left out.
    Ignored,
}

/// Which names are understood: those of the fields, and what a mapping adds.
///
/// Any other name makes its event (or a CSV's header) be refused as `unknown_field`: a misspelt optional field would
/// otherwise be lost in silence.
#[derive(Debug, Clone, Default)]
pub struct FieldNames {
    mapped: HashMap<String, Target>,
}

impl FieldNames {
    /// The fields' own names.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes `name` for a field (as in a column mapping). A mapping goes before the fields' own names.
    #[must_use]
    pub fn map(mut self, name: &str, field: WireField) -> Self {
        self.mapped.insert(name.to_owned(), Target::Field(field));
        self
    }

    /// Leaves out what stands under `name`.
    #[must_use]
    pub fn ignore(mut self, name: &str) -> Self {
        self.mapped.insert(name.to_owned(), Target::Ignored);
        self
    }

    /// What a name stands for; `None` when it is not known.
    pub fn resolve(&self, name: &str) -> Option<Target> {
        if !self.mapped.is_empty()
            && let Some(target) = self.mapped.get(name)
        {
            return Some(*target);
        }
        WireField::from_name(name).map(Target::Field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_payload_field_of_the_model_can_be_sent_but_the_derived_one() {
        for kind in Kind::ALL {
            for field in kind.fields().iter().filter(|field| field.name != "weak") {
                let wire = WireField::from_name(field.name).unwrap();
                assert!(wire.belongs_to(kind), "{kind} {}", field.name);
            }
            if kind.key_name() != "key" {
                assert!(
                    WireField::from_name(kind.key_name()).unwrap().belongs_to(kind),
                    "{kind}"
                );
            }
        }
        assert_eq!(WireField::from_name("weak"), None);
    }

    #[test]
    fn a_mapping_goes_before_the_own_names() {
        let names = FieldNames::new()
            .map("time", WireField::Ts)
            .ignore("comment")
            .map("x", WireField::Y);
        assert_eq!(names.resolve("time"), Some(Target::Field(WireField::Ts)));
        assert_eq!(names.resolve("ts"), Some(Target::Field(WireField::Ts)));
        assert_eq!(names.resolve("x"), Some(Target::Field(WireField::Y)));
        assert_eq!(names.resolve("comment"), Some(Target::Ignored));
        assert_eq!(names.resolve("mac"), None);
    }

    #[test]
    fn sets_tell_the_first_stranger() {
        let mut set = FieldSet::default();
        assert!(
            set.insert(WireField::Track) && set.insert(WireField::Device) && !set.insert(WireField::Track)
        );
        assert_eq!(
            set.first_outside(FieldSet::of_kind(Kind::Position)),
            Some(WireField::Device)
        );
        assert_eq!(
            FieldSet::of(&[WireField::Ts]).first_outside(FieldSet::of_kind(Kind::Status)),
            None
        );
    }
}
