//! Conditions on records: what `where` says.
//!
//! Callers: the HTTP front, the tools. A condition is parsed once, within bounds, and asked of each record.
//!
//! ```text
//! condition  and { "or" and }
//! and        not { "and" not }
//! not        "not" not | "(" condition ")" | test
//! test       path comparison literal | path "contains" string | "exists" "(" path ")" | path "exists"
//! comparison "=" | "==" | "!=" | "<>" | "<" | "<=" | ">" | ">="
//! literal    number | string | "true" | "false" | "null"
//! string     '…' | "…"; within it its own quote doubled, or \ before any character
//! path       name { "." name } | `…`       a column's name: temp, pos.lat, key, offset, timestamp, value.key
//! ```
//! Words are taken in any case. A test of a field that is not there is false, `!=` too; `not` turns any result around. `= null` and
//! `!= null` ask whether it is null or not there. A number and a text are never equal, and neither is before the other. Integers are
//! compared exactly. `timestamp` is compared with a time (`'2026-03-01T14:03'`, in UTC) or milliseconds. Texts are compared by
//! their bytes, so that RFC 3339 in one zone is in the order of time.

mod parse;

use std::cmp::Ordering;

use model::PartitionId;
use model::batch::RecordRef;

use crate::columns::Column;
use crate::fields::{self, string_content};
pub use parse::ConditionError;

/// The longest condition, in bytes.
pub const BYTES_MAX: usize = 4 * 1024;
/// Parentheses and `not`s within each other.
pub const DEPTH_MAX: usize = 32;
/// Tests in one condition.
pub const TESTS_MAX: usize = 64;

/// A condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    root: Node,
    /// Fields that it asks for, by their paths.
    fields: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    Test(Subject, Test),
}

/// What is asked about.
#[derive(Clone, Debug, PartialEq)]
enum Subject {
    Fixed(Column),
    /// Its index among the condition's fields.
    Field(usize),
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    Exists,
    Contains(String),
    Compare(Comparison, Literal),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Debug, PartialEq)]
enum Literal {
    Null,
    Bool(bool),
    Integer(i64),
    Number(f64),
    Text(String),
}

/// What stands there.
enum Found<'a> {
    Missing,
    Null,
    Bool(bool),
    Integer(i64),
    Number(f64),
    Text(std::borrow::Cow<'a, str>),
    /// An array, bytes, or a number that no type holds.
    Other,
}

impl Condition {
    /// Reads a condition. Errors say where.
    pub fn parse(text: &str) -> Result<Condition, ConditionError> {
        parse::parse(text)
    }

    /// Whether a record meets it.
    pub fn is_met(&self, partition: PartitionId, record: &RecordRef<'_>) -> bool {
        let mut found: Vec<Option<&str>> = vec![None; self.fields.len()];
        if !self.fields.is_empty()
            && let Some(Ok(text)) = record.value.map(std::str::from_utf8)
        {
            let mut path = String::new();
            let is_object = fields::walk(text, &mut path, &mut |path, raw| {
                if let Some(index) = self.fields.iter().position(|field| field == path) {
                    found[index] = Some(raw);
                }
            });
            if !is_object {
                found.fill(None);
            }
        }
        let look = |subject: &Subject| match subject {
            Subject::Field(index) => found[*index].map_or(Found::Missing, of_json),
            Subject::Fixed(column) => of_record(column, partition, record),
        };
        self.root.is_met(&look)
    }
}

impl Node {
    fn is_met<'a>(&self, look: &dyn Fn(&Subject) -> Found<'a>) -> bool {
        match self {
            Node::And(all) => all.iter().all(|node| node.is_met(look)),
            Node::Or(any) => any.iter().any(|node| node.is_met(look)),
            Node::Not(node) => !node.is_met(look),
            Node::Test(subject, test) => test.is_met(&look(subject)),
        }
    }
}

impl Test {
    fn is_met(&self, found: &Found<'_>) -> bool {
        match self {
            Test::Exists => !matches!(found, Found::Missing),
            Test::Contains(part) => matches!(found, Found::Text(text) if text.contains(part)),
            Test::Compare(comparison, Literal::Null) => {
                let is_null = matches!(found, Found::Missing | Found::Null);
                is_null == (*comparison == Comparison::Equal)
            }
            Test::Compare(Comparison::NotEqual, literal) => {
                let is_there = !matches!(found, Found::Missing | Found::Null);
                is_there && found.compare(literal) != Some(Ordering::Equal)
            }
            Test::Compare(comparison, literal) => found
                .compare(literal)
                .is_some_and(|order| comparison.allows(order)),
        }
    }
}

impl Comparison {
    fn allows(self, order: Ordering) -> bool {
        match self {
            Comparison::Equal => order.is_eq(),
            Comparison::NotEqual => order.is_ne(),
            Comparison::Less => order.is_lt(),
            Comparison::LessOrEqual => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::GreaterOrEqual => order.is_ge(),
        }
    }
}

impl Found<'_> {
    /// None if the two do not go together.
    fn compare(&self, literal: &Literal) -> Option<Ordering> {
        match (self, literal) {
            (Found::Bool(a), Literal::Bool(b)) => Some(a.cmp(b)),
            (Found::Integer(a), Literal::Integer(b)) => Some(a.cmp(b)),
            (Found::Integer(a), Literal::Number(b)) => compare_mixed(*a, *b),
            (Found::Number(a), Literal::Integer(b)) => compare_mixed(*b, *a).map(Ordering::reverse),
            (Found::Number(a), Literal::Number(b)) => a.partial_cmp(b),
            (Found::Text(a), Literal::Text(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
            _ => None,
        }
    }
}

/// An integer and a float, exactly.
fn compare_mixed(integer: i64, number: f64) -> Option<Ordering> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if number.is_nan() {
        return None;
    }
    if number >= LIMIT {
        return Some(Ordering::Less);
    }
    if number < -LIMIT {
        return Some(Ordering::Greater);
    }
    let floor = number.floor();
    // In range, so that it is exact.
    let order = integer.cmp(&(floor as i64));
    Some(order.then(if number > floor {
        Ordering::Less
    } else {
        Ordering::Equal
    }))
}

fn of_json(raw: &str) -> Found<'_> {
    match raw.as_bytes().first() {
        Some(b'"') => string_content(raw).map_or(Found::Other, Found::Text),
        Some(b't') => Found::Bool(true),
        Some(b'f') => Found::Bool(false),
        Some(b'n') => Found::Null,
        Some(b'[' | b'{') | None => Found::Other,
        _ => match (raw.parse(), raw.parse()) {
            (Ok(integer), _) => Found::Integer(integer),
            (_, Ok(number)) => Found::Number(number),
            _ => Found::Other,
        },
    }
}

fn of_record<'a>(column: &Column, partition: PartitionId, record: &RecordRef<'a>) -> Found<'a> {
    let bytes = |bytes: Option<&'a [u8]>| match bytes {
        None => Found::Null,
        Some(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Found::Text(text.into()),
            Err(_) => Found::Other,
        },
    };
    match column {
        Column::Partition => Found::Integer(partition.get().into()),
        Column::Offset => Found::Integer(record.offset.to_wire()),
        Column::Timestamp if record.timestamp.is_none() => Found::Null,
        Column::Timestamp => Found::Integer(record.timestamp.millis()),
        Column::Key => bytes(record.key),
        Column::Value => bytes(record.value),
        Column::Topic | Column::Headers | Column::Field(_) => Found::Other,
    }
}

#[cfg(test)]
mod tests;
