//! The sticky schema of a topic: what has been seen of its keys and of its JSON values.
//!
//! Callers: `columnar` observes with a copy; the broker keeps one a topic and merges copies into it.
//! Invariants: fields are in the order of their first appearance, are never removed, and their types only widen. Each change
//! raises the version, and a schema can be told as it was at any version, so that a file that was made by one can be made again.
//!
//! | seen | type |
//! |---|---|
//! | `true`, `false` | bool |
//! | integers of 64 bits | int |
//! | other numbers, and integers with them that a float holds exactly | float |
//! | strings, and all that do not go together | text: a string's content, the JSON text of anything else |
//! | arrays, and objects too deep to be taken apart | json: their text |
//! | `null` | none: it is in every type |

use serde::{Deserialize, Serialize};

/// Fields that a topic has at most. What more there is stays in the value.
pub const FIELDS_MAX: usize = 512;
/// The longest path of a field, in bytes.
pub const PATH_BYTES_MAX: usize = 256;
/// The largest integer that all smaller ones, too, a float holds exactly.
const EXACT_MAX: u64 = 1 << 53;
/// Integers of no more digits are exact in a float.
const PLAIN_DIGITS: usize = 15;

/// What a column of a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldType {
    /// Truth values.
    Bool,
    /// 64-bit integers.
    Int,
    /// 64-bit floats.
    Float,
    /// Texts: contents of strings, and raw JSON of anything else.
    Text,
    /// Raw JSON of arrays and deep objects.
    Json,
}

impl FieldType {
    /// As it is spelled.
    pub fn name(self) -> &'static str {
        match self {
            FieldType::Bool => "bool",
            FieldType::Int => "int",
            FieldType::Float => "float",
            FieldType::Text => "text",
            FieldType::Json => "json",
        }
    }
}

/// What one leaf of JSON is. None: `null`.
pub fn type_of(raw: &str) -> Option<FieldType> {
    Some(match raw.as_bytes().first()? {
        b'"' => FieldType::Text,
        b't' | b'f' => FieldType::Bool,
        b'n' => return None,
        b'[' | b'{' => FieldType::Json,
        _ if raw.parse::<i64>().is_ok() && raw != "-0" => FieldType::Int,
        _ if !raw.contains(['.', 'e', 'E']) && raw != "-0" => FieldType::Text,
        _ => match raw.parse::<f64>() {
            Ok(number) if number.is_finite() => FieldType::Float,
            _ => FieldType::Text,
        },
    })
}

/// Whether a leaf that is JSON is of this type at the first glance, and no integer that a float does not hold.
fn is_plainly(kind: FieldType, raw: &str) -> bool {
    let bytes = raw.as_bytes();
    let is_short = bytes.len() <= PLAIN_DIGITS;
    match (kind, bytes.first()) {
        (FieldType::Text, Some(b'"'))
        | (FieldType::Bool, Some(b't' | b'f'))
        | (FieldType::Json, Some(b'[' | b'{')) => true,
        (FieldType::Int, _) => {
            let digits = raw.strip_prefix('-').filter(|digits| *digits != "0");
            is_short
                && digits
                    .unwrap_or(raw)
                    .bytes()
                    .all(|byte| byte.is_ascii_digit())
        }
        (FieldType::Float, _) => {
            is_short && (bytes.iter()).all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'-'))
        }
        _ => false,
    }
}

/// Whether a float holds this integer exactly, and all smaller ones.
pub fn is_exact(number: i64) -> bool {
    number.unsigned_abs() <= EXACT_MAX
}

fn is_large(kind: FieldType, raw: &str) -> bool {
    kind == FieldType::Int && raw.parse().is_ok_and(|number| !is_exact(number))
}

/// A field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Its path: names with dots between.
    pub path: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: FieldType,
    /// An integer was seen that no float holds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub large: bool,
    /// The version of the schema that it came with.
    pub since: u32,
    /// The types that it had before, and up to which version, exclusive.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<(u32, FieldType)>,
}

/// Whether a record's key or value is text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// All that was seen is UTF-8.
    Text,
    /// Not all.
    Bytes,
}

/// A topic's schema.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// How often it changed.
    pub version: u32,
    /// The version since which keys are not all text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary_keys_since: Option<u32>,
    /// The version since which values are not all text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary_values_since: Option<u32>,
    /// The fields.
    pub fields: Vec<Field>,
    /// Some fields are left out, as there are too many or their paths are too long.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// Something changed since the version was raised.
    #[serde(skip)]
    open: bool,
}

impl Schema {
    /// What keys are.
    pub fn keys(&self) -> Shape {
        shape(self.binary_keys_since)
    }

    /// What values are.
    pub fn values(&self) -> Shape {
        shape(self.binary_values_since)
    }

    /// The schema as it was at this version. None if it is later than this one.
    pub fn at(&self, version: u32) -> Option<Schema> {
        if version > self.version {
            return None;
        }
        let kept = |since: &u32| *since <= version;
        let field = |field: &Field| Field {
            kind: field
                .before
                .iter()
                .find(|(until, _)| version < *until)
                .map_or(field.kind, |(_, kind)| *kind),
            ..field.clone()
        };
        let fields = self.fields.iter().filter(|field| kept(&field.since));
        Some(Schema {
            version,
            binary_keys_since: self.binary_keys_since.filter(kept),
            binary_values_since: self.binary_values_since.filter(kept),
            fields: fields.map(field).collect(),
            truncated: self.truncated,
            open: false,
        })
    }

    /// The version that a change has: changes from the same observation have the same.
    fn next_version(&mut self) -> u32 {
        if !self.open {
            self.open = true;
            self.version = self.version.saturating_add(1);
        }
        self.version
    }

    /// Takes in that a key is there.
    pub fn observe_key(&mut self, key: &[u8]) {
        if self.binary_keys_since.is_none() && std::str::from_utf8(key).is_err() {
            self.binary_keys_since = Some(self.next_version());
        }
    }

    /// Takes in that a value is there: its text, if it is one.
    pub fn observe_value<'a>(&mut self, value: &'a [u8]) -> Option<&'a str> {
        let text = std::str::from_utf8(value).ok();
        if text.is_none() && self.binary_values_since.is_none() {
            self.binary_values_since = Some(self.next_version());
        }
        text
    }

    /// Takes in a leaf of the field at `index`, which is JSON.
    pub fn observe_leaf(&mut self, index: usize, raw: &str) {
        if is_plainly(self.fields[index].kind, raw) {
            return;
        }
        let Some(kind) = type_of(raw) else { return };
        let is_large = is_large(kind, raw);
        let field = &self.fields[index];
        let wider = widened(field, kind, is_large);
        if wider == field.kind && (!is_large || field.large) {
            return;
        }
        let version = match wider == field.kind {
            true => self.version,
            false => self.next_version(),
        };
        self.fields[index].widen(wider, is_large, version);
    }

    /// Takes in a leaf that has no field: its field from now on, if it gets one.
    pub fn observe_new(&mut self, path: &str, raw: &str) -> Option<usize> {
        let kind = type_of(raw)?;
        self.add(path, kind, is_large(kind, raw))
    }

    fn index_of(&self, path: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.path == path)
    }

    fn add(&mut self, path: &str, kind: FieldType, large: bool) -> Option<usize> {
        if self.fields.len() >= FIELDS_MAX || path.len() > PATH_BYTES_MAX || path.is_empty() {
            self.truncated = true;
            return None;
        }
        let since = self.next_version();
        self.fields.push(Field {
            path: path.to_owned(),
            kind,
            large,
            since,
            before: Vec::new(),
        });
        Some(self.fields.len() - 1)
    }

    /// Takes in what another has seen. True if something is new.
    pub fn merge(&mut self, seen: &Schema) -> bool {
        self.open = false;
        let before = (self.version, self.truncated, self.large_count());
        for field in &seen.fields {
            let Some(index) = self.index_of(&field.path) else {
                self.add(&field.path, field.kind, field.large);
                continue;
            };
            let own = &self.fields[index];
            let wider = widened(own, field.kind, field.large);
            let version = match wider == own.kind {
                true => self.version,
                false => self.next_version(),
            };
            self.fields[index].widen(wider, field.large, version);
        }
        if seen.binary_keys_since.is_some() && self.binary_keys_since.is_none() {
            self.binary_keys_since = Some(self.next_version());
        }
        if seen.binary_values_since.is_some() && self.binary_values_since.is_none() {
            self.binary_values_since = Some(self.next_version());
        }
        self.truncated |= seen.truncated;
        self.open = false;
        before != (self.version, self.truncated, self.large_count())
    }

    fn large_count(&self) -> usize {
        self.fields.iter().filter(|field| field.large).count()
    }
}

impl Field {
    fn widen(&mut self, kind: FieldType, large: bool, version: u32) {
        if kind != self.kind {
            // A type that never stood in a version is not told.
            let shown_since = self.before.last().map_or(self.since, |(until, _)| *until);
            if shown_since < version {
                self.before.push((version, self.kind));
            }
            self.kind = kind;
        }
        self.large |= large;
    }
}

/// The type that holds what a field has held and this, too.
fn widened(field: &Field, kind: FieldType, large: bool) -> FieldType {
    use FieldType::{Float, Int, Text};
    match (field.kind, kind) {
        (own, kind) if own == kind => own,
        (Int, Float) if !field.large => Float,
        (Float, Int) if !large => Float,
        _ => Text,
    }
}

fn shape(binary_since: Option<u32>) -> Shape {
    match binary_since {
        Some(_) => Shape::Bytes,
        None => Shape::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_a_type_at_the_first_glance_changes_no_field_of_it() {
        let leaves = [
            "0",
            "-0",
            "7",
            "-7",
            "999999999999999",
            "-99999999999999",
            "9007199254740993",
            "1.5",
            "-1.5",
            "1e3",
            "-0.0",
            "1e400",
            "123456789012.75",
            "true",
            "false",
            "null",
            "\"\"",
            "\"1\"",
            "[]",
            "[1,2]",
            "{}",
            "{\"a\":1}",
        ];
        let mut plain = 0;
        for kind in [
            FieldType::Bool,
            FieldType::Int,
            FieldType::Float,
            FieldType::Text,
            FieldType::Json,
        ] {
            for raw in leaves {
                if !is_plainly(kind, raw) {
                    continue;
                }
                plain += 1;
                let field = Field {
                    path: "a".to_owned(),
                    kind,
                    large: false,
                    since: 1,
                    before: Vec::new(),
                };
                let seen = type_of(raw).expect("no null is plain");
                let large = is_large(seen, raw);
                assert!(
                    widened(&field, seen, large) == kind && !large,
                    "{kind:?} {raw}"
                );
            }
        }
        assert_eq!(plain, 23, "the usual ones are");
    }
}
