//! Takes a value out of a record's value: from JSON, from a line of cells, or from binary.
//!
//! Called by the policy for each record. Nothing here fails: what is not there, or not of the kind that is asked for, is None,
//! and its record is kept.

use std::borrow::Cow;

use model::topic_config::thin::{Condition, NumberKind, Operand, Test, ValueAt};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::number::Number;

/// What stood there.
#[derive(Clone, Debug, PartialEq)]
pub enum Found<'a> {
    /// A number.
    Number(Number),
    /// JSON's text, `true` or `false`; a cell.
    Text(Cow<'a, str>),
}

/// The value that stands there. A cell is a text, and its number is asked for with [`number`].
pub fn find<'a>(at: &ValueAt, bytes: &'a [u8]) -> Option<Found<'a>> {
    match at {
        ValueAt::Json(path) => find_json(path, bytes),
        ValueAt::Csv(column) => cell(*column, bytes).map(Found::Text),
        ValueAt::Binary { kind, position } => binary(*kind, *position, bytes).map(Found::Number),
    }
}

/// The number that stands there.
pub fn number(at: &ValueAt, bytes: &[u8]) -> Option<Number> {
    match at {
        ValueAt::Binary { kind, position } => binary(*kind, *position, bytes),
        ValueAt::Csv(column) => parse_number(&cell(*column, bytes)?),
        ValueAt::Json(path) => match find_json(path, bytes)? {
            Found::Number(number) => Some(number),
            Found::Text(_) => None,
        },
    }
}

/// Whether a condition holds. None if the value is not there, or cannot be compared so.
pub fn holds(condition: &Condition, bytes: &[u8]) -> Option<bool> {
    let wanted = match &condition.operand {
        Operand::Text(wanted) => {
            let Found::Text(text) = find(&condition.value, bytes)? else {
                return None;
            };
            return Some((text == wanted.as_str()) == (condition.test == Test::Is));
        }
        Operand::Number(wanted) => wanted,
    };
    let wanted = match wanted.to_integer() {
        Some(integer) => Number::from(integer),
        None => Number::Float(wanted.to_f64()),
    };
    let order = number(&condition.value, bytes)?.cmp(&wanted);
    Some(match condition.test {
        Test::Is => order.is_eq(),
        Test::IsNot => order.is_ne(),
        Test::Below => order.is_lt(),
        Test::Above => order.is_gt(),
        Test::AtLeast => order.is_ge(),
        Test::AtMost => order.is_le(),
    })
}

fn parse_number(text: &str) -> Option<Number> {
    let text = text.trim();
    if let Ok(integer) = text.parse::<i64>() {
        return Some(integer.into());
    }
    if let Ok(integer) = text.parse::<u64>() {
        return Some(integer.into());
    }
    // Rust reads "inf" and "nan" too, which have no order.
    text.parse().ok().and_then(Number::from_f64)
}

fn binary(kind: NumberKind, position: u32, bytes: &[u8]) -> Option<Number> {
    let from = bytes.get(usize::try_from(position).ok()?..)?;
    Some(match kind {
        NumberKind::I8 => i64::from(i8::from_le_bytes(*from.first_chunk()?)).into(),
        NumberKind::U8 => u64::from(*from.first()?).into(),
        NumberKind::I16 => i64::from(i16::from_le_bytes(*from.first_chunk()?)).into(),
        NumberKind::U16 => u64::from(u16::from_le_bytes(*from.first_chunk()?)).into(),
        NumberKind::I32 => i64::from(i32::from_le_bytes(*from.first_chunk()?)).into(),
        NumberKind::U32 => u64::from(u32::from_le_bytes(*from.first_chunk()?)).into(),
        NumberKind::I64 => i64::from_le_bytes(*from.first_chunk()?).into(),
        NumberKind::U64 => u64::from_le_bytes(*from.first_chunk()?).into(),
        NumberKind::F32 => Number::from_f64(f32::from_le_bytes(*from.first_chunk()?).into())?,
        NumberKind::F64 => Number::from_f64(f64::from_le_bytes(*from.first_chunk()?))?,
    })
}

/// The cell of this number, from 1, of a line of cells between commas. In quotes a cell may hold commas, and a quote is
/// written twice. None if the line has fewer cells, is no UTF-8, or its quotes are out of place.
fn cell(column: u32, bytes: &[u8]) -> Option<Cow<'_, str>> {
    let line = std::str::from_utf8(bytes)
        .ok()?
        .trim_end_matches(['\r', '\n']);
    let mut rest = line;
    for _ in 1..column {
        rest = take_cell(rest)?.1?;
    }
    Some(take_cell(rest)?.0)
}

/// The first cell, and what follows its comma, if there is one.
fn take_cell(line: &str) -> Option<(Cow<'_, str>, Option<&str>)> {
    let Some(quoted) = line.strip_prefix('"') else {
        return Some(match line.split_once(',') {
            Some((cell, rest)) => (Cow::Borrowed(cell), Some(rest)),
            None => (Cow::Borrowed(line), None),
        });
    };
    let mut from = 0;
    loop {
        let end = from + quoted[from..].find('"')?;
        let after = &quoted[end + 1..];
        if after.starts_with('"') {
            from = end + 2;
            continue;
        }
        let cell = match quoted[..end].contains('"') {
            true => Cow::Owned(quoted[..end].replace("\"\"", "\"")),
            false => Cow::Borrowed(&quoted[..end]),
        };
        return match after.strip_prefix(',') {
            Some(rest) => Some((cell, Some(rest))),
            None if after.is_empty() => Some((cell, None)),
            None => None,
        };
    }
}

fn find_json<'a>(path: &[String], bytes: &'a [u8]) -> Option<Found<'a>> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let found = Path(path).deserialize(&mut json).ok()?;
    json.end().ok()?;
    found
}

/// Walks down a path and reads what stands at its end; everything else is only checked to be JSON.
struct Path<'p>(&'p [String]);

impl<'de> DeserializeSeed<'de> for Path<'_> {
    type Value = Option<Found<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'p> Path<'p> {
    /// A value that is no object and no array: what is asked for only at the path's end.
    fn leaf<'de>(&self, found: Option<Found<'de>>) -> Option<Found<'de>> {
        found.filter(|_| self.0.is_empty())
    }
}

impl<'de> Visitor<'de> for Path<'_> {
    type Value = Option<Found<'de>>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        let text = if value { "true" } else { "false" };
        Ok(self.leaf(Some(Found::Text(text.into()))))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(self.leaf(Some(Found::Number(value.into()))))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        Ok(self.leaf(Some(Found::Number(value.into()))))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        Ok(self.leaf(Number::from_f64(value).map(Found::Number)))
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(self.leaf(Some(Found::Text(value.into()))))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        Ok(self.leaf(Some(Found::Text(value.to_owned().into()))))
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let wanted = self.0.first().map(|name| (name, &self.0[1..]));
        let mut found = None;
        let mut index = 0usize;
        loop {
            match wanted {
                Some((name, rest)) if *name == index.to_string() => {
                    match items.next_element_seed(Path(rest))? {
                        Some(item) => found = item,
                        None => return Ok(found),
                    }
                }
                _ => {
                    if items.next_element::<IgnoredAny>()?.is_none() {
                        return Ok(found);
                    }
                }
            }
            index += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let wanted = self.0.first().map(|name| (name, &self.0[1..]));
        let mut found = None;
        while let Some(field) = fields.next_key::<Cow<'_, str>>()? {
            match wanted {
                // Of a name that comes twice the last value counts, as everywhere.
                Some((name, rest)) if field == name.as_str() => {
                    found = fields.next_value_seed(Path(rest))?;
                }
                _ => {
                    fields.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use model::topic_config::thin::{Selector, ThinTiers};

    use super::*;

    fn at(value: &str) -> ValueAt {
        let tiers: ThinTiers = format!("1d:1m:min({value})").parse().expect("valid");
        tiers.tiers()[0].keep[0]
            .value()
            .expect("it has one")
            .clone()
    }

    fn check(value: &str, bytes: &[u8], expected: Option<f64>) {
        let found = number(&at(value), bytes).map(Number::to_f64);
        assert_eq!(
            found,
            expected,
            "{value} of {:?}",
            String::from_utf8_lossy(bytes)
        );
    }

    #[test]
    fn json_is_walked_by_names_and_by_places_in_arrays() {
        let json = br#" {"t":21.5,"n":null,"s":"7","deep":{"a b":[1,{"x":-3}]},"t2":1,"big":18446744073709551615} "#;
        check("json/t", json, Some(21.5));
        check("json/deep/a%20b/0", json, Some(1.0));
        check("json/deep/a%20b/1/x", json, Some(-3.0));
        for value in [
            "json/n",
            "json/s",
            "json/deep",
            "json/none",
            "json/t/0",
            "json/deep/a%20b/2",
            "json",
        ] {
            check(value, json, None);
        }
        check("json", b"-4e2", Some(-400.0));
        check("json/a", br#"{"a":1,"a":2}"#, Some(2.0));
        assert_eq!(number(&at("json/big"), json), Some(Number::from(u64::MAX)));
    }

    #[test]
    fn what_is_not_whole_json_has_no_value() {
        for text in [
            &b"{\"a\":1"[..],
            b"{\"a\":1}}",
            b"",
            b"{\"a\":1,}",
            b"{a:1}",
            b"\xff",
        ] {
            check("json/a", text, None);
        }
    }

    #[test]
    fn cells_stand_between_commas_in_quotes_or_not() {
        check("csv1", b"1,2.5,-3", Some(1.0));
        check("csv3", b"1,2.5, -3 \r\n", Some(-3.0));
        check("csv2", br#""a, ""b""",2.5"#, Some(2.5));
        check("csv2", br#"x,"4","#, Some(4.0));
        for (value, line) in [
            ("csv4", "1,2,3"),
            ("csv2", "1,,3"),
            ("csv2", "1,x"),
            ("csv2", "1,inf"),
            ("csv2", "\"1,2"),
        ] {
            check(value, line.as_bytes(), None);
        }
        assert_eq!(cell(1, br#""a, ""b""",2.5"#).as_deref(), Some("a, \"b\""));
    }

    #[test]
    fn binary_numbers_are_little_endian_at_their_position() {
        let bytes = [0xfe, 0xff, 1, 0, 0, 0, 0, 0, 0x80, 0x7f];
        check("i8@0", &bytes, Some(-2.0));
        check("u8@0", &bytes, Some(254.0));
        check("i16@0", &bytes, Some(-2.0));
        check("u16@1", &bytes, Some(511.0));
        check("u32@2", &bytes, Some(1.0));
        check("i32@1", &bytes, Some(511.0));
        check("u64@1", &bytes, Some(9_223_372_036_854_776_319.0));
        check("i64@1", &bytes, Some(-9_223_372_036_854_775_297.0));
        check("f32@0", &1.5f32.to_le_bytes(), Some(1.5));
        check("f64@0", &(-0.5f64).to_le_bytes(), Some(-0.5));
        check("f32@6", &bytes, None);
        check("u64@3", &bytes, None);
        check("u8@10", &bytes, None);
    }

    #[test]
    fn conditions_compare_numbers_and_texts_and_hold_for_nothing_else() {
        let json = br#"{"t":5,"s":"ok","b":true,"n":null}"#;
        for (condition, expected) in [
            ("json/t above 4.5", Some(true)),
            ("json/t below 5", Some(false)),
            ("json/t at-most 5", Some(true)),
            ("json/t at-least 5.001", Some(false)),
            ("json/t is 5.0", Some(true)),
            ("json/t is-not 5", Some(false)),
            ("json/s is \"ok\"", Some(true)),
            ("json/s is-not \"ok\"", Some(false)),
            ("json/b is \"true\"", Some(true)),
            ("json/s is 5", None),
            ("json/t is \"5\"", None),
            ("json/n is \"null\"", None),
            ("json/none is-not 5", None),
        ] {
            let tiers: ThinTiers = format!("1d:1m:if({condition})").parse().expect("valid");
            let Selector::If(parsed) = &tiers.tiers()[0].keep[0] else {
                panic!("a condition was written");
            };
            assert_eq!(holds(parsed, json), expected, "{condition}");
        }
    }
}
