//! Column mapping: how the columns of somebody else's file become the fields of Dwell's events.
//!
//! A mapping is written as `--map field=column` and `--set field=value`, or as a TOML file, or both (flags win):
//!
//! ```toml
//! delimiter = ";"                     # CSV; by default told by the header
//!
//! [columns]                           # field = "column"; in JSON a dotted path ("position.x")
//! ts = "t_local"
//! sensor = "counter"
//!
//! [constants]                         # field = value; {column} stands for the row's value of a column
//! venue = "hardbruecke"
//! kind = "crossing"
//! line = "line {counter}"
//!
//! [ts]
//! format = "%Y-%m-%dT%H:%M:%S"        # or ms, s, us, ns, rfc3339
//! zone = "Europe/Zurich"              # or "venue", "utc"; for formats without an offset
//! ambiguous = "first"                 # or second, ordered, refuse
//! shift = "-1h"                       # added to every instant: a clock that was wrong by an hour
//!
//! [scale]                             # field = factor
//! amount = 100
//!
//! [values.sensor]                     # field: value read = value taken; others stay as they are
//! "door-old" = "door-1"
//!
//! [[events]]                          # one row, several events; each inherits what stands above
//! columns = { count = "in" }
//! constants = { direction = "in" }
//! unless_zero = ["in"]                # no event where the column is 0 or empty
//!
//! [[events]]
//! columns = { count = "out" }
//! constants = { direction = "out" }
//! unless_zero = ["out"]
//! when = { status = ["ok", "late"] }  # only for rows with one of these values
//! ```
//!
//! **Local times.** A wall time that the autumn change repeats is ambiguous: `first` (the default) takes the first pass,
//! `second` the second, `refuse` refuses the row, and `ordered` takes the first pass until the file's clock goes back
//! within the repeated hour and the second from there on, which is right for files in time order. A wall time that the
//! spring change skips names no instant: the row is refused.
//!
//! **Without any of this** a column feeds the field of its name, `ts` is integer milliseconds or RFC 3339, and a column that
//! names no field is refused, as over HTTP: a misspelt one would be lost in silence. With a mapping, columns that feed
//! nothing are left out, and a field that is not mapped still comes from the column of its own name, where there is one.
//!
//! **What a mapping does not do** is to join rows: a till file with a row per item has to be summed to a row per receipt
//! before it is imported.

mod fields;
mod rows;
mod times;

use std::collections::BTreeMap;

use figment::Figment;
use figment::providers::{Format as _, Toml};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub(super) use rows::{Cells, RowError, RowMapper};
pub(crate) use times::ZoneOfVenue;

use super::error::ImportError;
use fields::FieldForm;
use times::TimeRule;

/// Most columns named in a message.
const COLUMNS_SHOWN: usize = 30;

/// A mapping as people write it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MappingSpec {
    /// Separator of a CSV file's columns; told by the header when absent.
    pub delimiter: Option<char>,
    /// Field → column.
    pub columns: BTreeMap<String, String>,
    /// Field → value, in which `{column}` stands for a column's value.
    pub constants: BTreeMap<String, Constant>,
    /// How `ts` is written.
    pub ts: TimeSpec,
    /// Field → factor by which the column's number is multiplied.
    pub scale: BTreeMap<String, f64>,
    /// Field → value read → value taken in its place. (Left out where there is none: files imported before there was
    /// such a thing are still known by their mapping.)
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, BTreeMap<String, Constant>>,
    /// Events made of one row; none written means one event.
    pub events: Vec<EventTemplate>,
}

/// How a file writes instants.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TimeSpec {
    /// `ms`, `s`, `us`, `ns` since 1970, `rfc3339`, or a format like `%Y-%m-%d %H:%M:%S`; by default ms or RFC 3339.
    pub format: Option<String>,
    /// Time zone of a format without an offset: an IANA name, `venue` or `utc`.
    pub zone: Option<String>,
    /// What a repeated wall time means: `first`, `second`, `ordered` or `refuse`.
    pub ambiguous: Option<String>,
    /// Added to every instant: a duration like `90s` or `-1h`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shift: Option<String>,
}

/// One of the events that a row becomes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventTemplate {
    /// Field → column, besides those of the whole mapping.
    pub columns: BTreeMap<String, String>,
    /// Field → value, besides those of the whole mapping.
    pub constants: BTreeMap<String, Constant>,
    /// No event where one of these columns is empty or zero.
    pub unless_zero: Vec<String>,
    /// Column → values of which it must have one.
    pub when: BTreeMap<String, OneOrMany>,
}

/// A constant: text, number or truth value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
#[allow(missing_docs)]
pub enum Constant {
    Truth(bool),
    Integer(i64),
    Number(f64),
    Text(String),
}

/// A value, or a list of values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
#[allow(missing_docs)]
pub enum OneOrMany {
    One(Constant),
    Many(Vec<Constant>),
}

impl MappingSpec {
    /// Reads a mapping file's text; `name` is the file's, for messages.
    pub fn from_toml(name: &str, text: &str) -> Result<Self, ImportError> {
        Figment::from(Toml::string(text)).extract().map_err(|error| {
            let reasons: Vec<String> = error.into_iter().map(|reason| describe(&reason)).collect();
            ImportError::Options(format!("mapping {name}: {}", reasons.join("; ")))
        })
    }

    /// Adds a `--map field=column`.
    pub fn add_map(&mut self, argument: &str) -> Result<(), ImportError> {
        let (field, column) = split_argument("--map", argument)?;
        self.constants.remove(field);
        self.columns.insert(field.to_owned(), column.to_owned());
        Ok(())
    }

    /// Adds a `--set field=value`.
    pub fn add_set(&mut self, argument: &str) -> Result<(), ImportError> {
        let (field, value) = split_argument("--set", argument)?;
        self.columns.remove(field);
        self.constants
            .insert(field.to_owned(), Constant::Text(value.to_owned()));
        Ok(())
    }

    /// Checks the mapping and gets it ready.
    pub(super) fn resolve(&self) -> Result<Mapping, ImportError> {
        Mapping::resolve(self)
    }
}

fn describe(reason: &figment::Error) -> String {
    let place = reason.path.join(".");
    if place.is_empty() {
        reason.kind.to_string()
    } else {
        format!("{place}: {}", reason.kind)
    }
}

fn split_argument<'a>(flag: &str, argument: &'a str) -> Result<(&'a str, &'a str), ImportError> {
    match argument.split_once('=') {
        Some((field, value)) if !field.trim().is_empty() => Ok((field.trim(), value)),
        _ => Err(ImportError::Options(format!(
            "{flag} {argument}: field=… is expected, for example {flag} track=id"
        ))),
    }
}

impl Constant {
    fn text(&self) -> String {
        match self {
            Constant::Truth(value) => value.to_string(),
            Constant::Integer(value) => value.to_string(),
            Constant::Number(value) => value.to_string(),
            Constant::Text(value) => value.clone(),
        }
    }
}

/// Where a field's value comes from.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Source {
    /// A column of this number in [`Mapping::columns`].
    Column(usize),
    /// A fixed text.
    Fixed(String),
    /// Text and columns joined.
    Pattern(Vec<Piece>),
}

/// A piece of a pattern.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    Text(String),
    Column(usize),
}

/// How one field is made.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FieldRule {
    /// Name in the event.
    pub(super) name: &'static str,
    form: FieldForm,
    /// Where its value comes from.
    pub(super) source: Source,
    scale: Option<f64>,
    /// Value read → value taken.
    values: BTreeMap<String, String>,
}

/// How one event is made of a row.
#[derive(Debug, Clone, PartialEq)]
struct EventRule {
    fields: Vec<FieldRule>,
    unless_zero: Vec<usize>,
    when: Vec<(usize, Vec<String>)>,
}

/// A checked mapping.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mapping {
    /// Separator of CSV columns, where it was given.
    pub(super) delimiter: Option<u8>,
    /// All columns that are looked at; the numbers elsewhere are places in this list. Those that stand for a field of the
    /// same name without having been asked for are optional.
    pub(super) columns: Vec<ColumnRef>,
    events: Vec<EventRule>,
    time: TimeRule,
    spec: MappingSpec,
}

/// A column that a mapping looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ColumnRef {
    /// Its name.
    pub(super) name: String,
    /// Whether the mapping names it, so that a file without it is a mistake.
    pub(super) required: bool,
}

impl Mapping {
    fn resolve(spec: &MappingSpec) -> Result<Self, ImportError> {
        let mut builder = Builder { columns: Vec::new() };
        let delimiter = match spec.delimiter {
            None => None,
            Some(c) if c.is_ascii() && !matches!(c, '"' | '\n' | '\r') => Some(c as u8),
            Some(c) => {
                return refuse(format!(
                    "delimiter {c:?} cannot separate columns; give one ASCII character"
                ));
            }
        };
        for (field, factor) in &spec.scale {
            let (_, form) = fields::lookup(field).map_err(ImportError::Options)?;
            if !matches!(
                form,
                FieldForm::Integer | FieldForm::Float | FieldForm::CountOrFloat
            ) {
                return refuse(format!("scale: {field} is not a number"));
            }
            if !factor.is_finite() || *factor == 0.0 {
                return refuse(format!("scale: {field} cannot be multiplied by {factor}"));
            }
        }
        for field in spec.values.keys() {
            fields::lookup(field).map_err(ImportError::Options)?;
        }
        let one = [EventTemplate::default()];
        let templates = if spec.events.is_empty() {
            &one[..]
        } else {
            &spec.events[..]
        };
        let mut events = Vec::with_capacity(templates.len());
        for template in templates {
            events.push(builder.event(spec, template)?);
        }
        let time = TimeRule::resolve(&spec.ts).map_err(ImportError::Options)?;
        Ok(Self {
            delimiter,
            columns: builder.columns,
            events,
            time,
            spec: spec.clone(),
        })
    }

    /// Whether nothing is mapped: fields come from the columns of their names.
    pub(super) fn is_identity(&self) -> bool {
        self.spec
            == MappingSpec {
                delimiter: self.spec.delimiter,
                ..MappingSpec::default()
            }
    }

    /// The field rules when one row is one event, made by renaming columns and setting constants alone: then columnar
    /// files need no text in between.
    pub(super) fn plain_fields(&self) -> Option<&[FieldRule]> {
        let [event] = self.events.as_slice() else {
            return None;
        };
        let plain = event.unless_zero.is_empty()
            && event.when.is_empty()
            && self.time == TimeRule::default()
            && event.fields.iter().all(|field| {
                field.scale.is_none()
                    && field.values.is_empty()
                    && !matches!(field.source, Source::Pattern(_))
            });
        plain.then_some(event.fields.as_slice())
    }

    /// Checks the columns of a file against the mapping; says what is wrong.
    pub(super) fn check_columns(&self, names: &[&str]) -> Result<(), String> {
        let listed = |names: Vec<&str>| {
            names
                .into_iter()
                .take(COLUMNS_SHOWN)
                .collect::<Vec<_>>()
                .join(", ")
        };
        if self.is_identity() {
            let is_known = |name: &str| name == "collected_at" || fields::lookup(name).is_ok();
            let unknown: Vec<&str> = names.iter().copied().filter(|name| !is_known(name)).collect();
            if !unknown.is_empty() {
                return Err(format!(
                    "unknown columns: {}; map those that matter with --map field=column",
                    listed(unknown)
                ));
            }
            return Ok(());
        }
        let missing = self
            .columns
            .iter()
            .filter(|column| column.required && !names.contains(&column.name.as_str()));
        let missing: Vec<&str> = missing.map(|column| column.name.as_str()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(format!(
            "the mapping names columns that are not there: {}; there are {}",
            listed(missing),
            listed(names.to_vec())
        ))
    }

    /// Bytes that tell this mapping from others; empty for none, so that a file without a mapping is known by its content.
    pub(super) fn fingerprint(&self) -> Vec<u8> {
        if self.is_identity() {
            return Vec::new();
        }
        // Ordered maps of texts: the same mapping always gives the same JSON, and it cannot fail.
        let json = serde_json::to_vec(&self.spec).unwrap_or_default();
        Sha256::digest(&json).to_vec()
    }
}

fn refuse<T>(what: String) -> Result<T, ImportError> {
    Err(ImportError::Options(format!("mapping: {what}")))
}

struct Builder {
    columns: Vec<ColumnRef>,
}

impl Builder {
    fn column(&mut self, name: &str, required: bool) -> usize {
        if let Some(i) = self.columns.iter().position(|column| column.name == name) {
            self.columns[i].required |= required;
            return i;
        }
        self.columns.push(ColumnRef {
            name: name.to_owned(),
            required,
        });
        self.columns.len() - 1
    }

    fn event(&mut self, spec: &MappingSpec, template: &EventTemplate) -> Result<EventRule, ImportError> {
        let mut twice = template
            .columns
            .keys()
            .filter(|name| template.constants.contains_key(*name));
        if let Some(name) = twice.next() {
            return refuse(format!("{name} is both a column and a constant of one event"));
        }
        let mut twice = spec
            .columns
            .keys()
            .filter(|name| spec.constants.contains_key(*name));
        if let Some(name) = twice.next() {
            return refuse(format!("{name} is both a column and a constant"));
        }
        let given = [&spec.columns, &template.columns]
            .into_iter()
            .flat_map(BTreeMap::keys);
        let given = given.chain(
            [&spec.constants, &template.constants]
                .into_iter()
                .flat_map(BTreeMap::keys),
        );
        for name in given {
            fields::lookup(name).map_err(ImportError::Options)?;
        }
        let mut rules = Vec::new();
        for &(name, form) in fields::ALL {
            // The template's word counts before the whole mapping's, and a column of the field's own name comes last.
            let source = if let Some(column) = template.columns.get(name) {
                Source::Column(self.column(column, true))
            } else if let Some(constant) = template.constants.get(name) {
                self.pattern(name, &constant.text())?
            } else if let Some(column) = spec.columns.get(name) {
                Source::Column(self.column(column, true))
            } else if let Some(constant) = spec.constants.get(name) {
                self.pattern(name, &constant.text())?
            } else {
                Source::Column(self.column(name, false))
            };
            rules.push(FieldRule {
                name,
                form,
                source,
                scale: spec.scale.get(name).copied(),
                values: spec
                    .values
                    .get(name)
                    .into_iter()
                    .flatten()
                    .map(|(read, taken)| (read.clone(), taken.text()))
                    .collect(),
            });
        }
        let unless_zero = template
            .unless_zero
            .iter()
            .map(|column| self.column(column, true))
            .collect();
        let when = template.when.iter().map(|(column, values)| {
            let values = match values {
                OneOrMany::One(value) => vec![value.text()],
                OneOrMany::Many(values) => values.iter().map(Constant::text).collect(),
            };
            (self.column(column, true), values)
        });
        let when = when.collect();
        Ok(EventRule {
            fields: rules,
            unless_zero,
            when,
        })
    }

    /// Reads a constant with `{column}` in it; `{{` and `}}` are braces.
    fn pattern(&mut self, field: &str, text: &str) -> Result<Source, ImportError> {
        let (mut pieces, mut plain, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let (brace, after) = rest[at..].split_at(1);
            if let Some(after) = after.strip_prefix(brace) {
                plain.push_str(brace);
                rest = after;
                continue;
            }
            let Some((column, after)) = after
                .split_once('}')
                .filter(|(column, _)| brace == "{" && !column.is_empty())
            else {
                return refuse(format!(
                    "{field} = {text:?}: write {{column}}, and {{{{ for a brace"
                ));
            };
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(Piece::Column(self.column(column, true)));
            rest = after;
        }
        plain.push_str(rest);
        if pieces.is_empty() {
            return Ok(Source::Fixed(plain));
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        match pieces.as_slice() {
            [Piece::Column(column)] => Ok(Source::Column(*column)),
            _ => Ok(Source::Pattern(pieces)),
        }
    }
}

#[cfg(test)]
mod tests;
