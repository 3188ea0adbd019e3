//! Checks JSON and finds one field in it, without building anything of the rest.
//!
//! Source: RFC 8259, and RFC 6901 for pointers. A field that stands twice counts as it stands last, as most readers have it.

use std::fmt;

use serde::Deserialize as _;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::fault::RowFault;

/// How deep values may lie in each other: what the readers of this world take without a word.
pub(super) const DEPTH_MAX: usize = 100;
/// The longest pointer, in steps.
const STEPS_MAX: usize = 16;

/// Where a field stands in a JSON value.
#[derive(Debug, Clone)]
pub(super) struct Pointer {
    text: String,
    steps: Vec<String>,
}

impl Pointer {
    /// Reads `/a/b`.
    pub fn parse(text: &str) -> Result<Pointer, String> {
        let Some(path) = text.strip_prefix('/') else {
            return Err(format!(
                "field {text:?} must begin with a slash, as /device or /meta/device"
            ));
        };
        let steps: Vec<String> = path
            .split('/')
            .map(|step| step.replace("~1", "/").replace("~0", "~"))
            .collect();
        if steps.len() > STEPS_MAX {
            return Err(format!("field {text:?} has more than {STEPS_MAX} steps"));
        }
        let text = text.to_owned();
        Ok(Pointer { text, steps })
    }

    /// The name of a column, where there are only such.
    pub fn column(&self) -> &str {
        match self.steps.as_slice() {
            [only] => only,
            _ => &self.text,
        }
    }

    /// Finds the field, and checks all of the value on the way.
    pub fn find<'a>(&self, json: &'a str) -> Result<Option<&'a RawValue>, RowFault> {
        check_depth(json)?;
        let mut reader = serde_json::Deserializer::from_str(json);
        let found = Seek(&self.steps).deserialize(&mut reader);
        let found = found.and_then(|found| reader.end().map(|()| found));
        found.map_err(invalid)
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Checks that the text is one JSON value.
pub(super) fn check(json: &str) -> Result<(), RowFault> {
    check_depth(json)?;
    serde_json::from_str::<IgnoredAny>(json)
        .map(drop)
        .map_err(invalid)
}

fn invalid(error: serde_json::Error) -> RowFault {
    RowFault::Json(format!("column {}: {}", error.column(), reason(&error)))
}

/// What serde_json says, without the place, which is another line's here.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

fn check_depth(json: &str) -> Result<(), RowFault> {
    let opens = |byte: &&u8| matches!(byte, b'[' | b'{');
    if json.as_bytes().iter().filter(opens).count() <= DEPTH_MAX {
        return Ok(());
    }
    let (mut depth, mut in_text, mut escaped) = (0usize, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => depth += 1,
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            let depth_max = DEPTH_MAX;
            return Err(RowFault::TooDeep { depth_max });
        }
    }
    Ok(())
}

/// Goes down one step after the other.
struct Seek<'p>(&'p [String]);

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        match self.0 {
            [] => <&RawValue>::deserialize(from).map(Some),
            _ => from.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (head, rest) = self.0.split_first().expect("a step is left");
        let mut found = None;
        while let Some(is_it) = map.next_key_seed(NameIs(head))? {
            if is_it {
                found = map.next_value_seed(Seek(rest))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let (head, rest) = self.0.split_first().expect("a step is left");
        let mut found = None;
        let wanted = head.parse::<usize>().ok();
        for index in 0.. {
            if wanted == Some(index) {
                let Some(item) = items.next_element_seed(Seek(rest))? else {
                    break;
                };
                found = item;
            } else if items.next_element::<IgnoredAny>()?.is_none() {
                break;
            }
        }
        Ok(found)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// Whether a field's name is this one.
struct NameIs<'p>(&'p str);

impl<'de> DeserializeSeed<'de> for NameIs<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<bool, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for NameIs<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(pointer: &str, json: &str) -> String {
        let pointer = Pointer::parse(pointer).expect("a pointer");
        match pointer.find(json) {
            Ok(Some(raw)) => raw.get().to_owned(),
            Ok(None) => "nothing".to_owned(),
            Err(fault) => fault.code().to_owned(),
        }
    }

    #[test]
    fn a_field_is_found_as_it_stands_there() {
        let json =
            r#" {"a":{"b":[1,{"c":1.50e1}],"b~":0,"x/y":"\u00e4"},"d":null,"a ":true,"a2":1} "#;
        for (pointer, wanted) in [
            ("/a/b/1/c", "1.50e1"),
            ("/a/b/0", "1"),
            ("/a/b/7", "nothing"),
            ("/a/b/x", "nothing"),
            ("/a/b~0", "0"),
            ("/a/x~1y", r#""\u00e4""#),
            ("/d", "null"),
            ("/d/e", "nothing"),
            ("/a2/e", "nothing"),
            ("/nosuch", "nothing"),
        ] {
            assert_eq!(found(pointer, json), wanted, "{pointer}");
        }
        assert_eq!(found("/a", r#"{"a":1,"a":2}"#), "2");
        assert_eq!(found("/a", r#"{"a":1} x"#), "invalid_json");
        assert_eq!(found("/a", r#"{"a":1,"b":tru}"#), "invalid_json");
        assert!(Pointer::parse("a").is_err());
    }

    #[test]
    fn what_is_too_deep_is_refused_and_brackets_in_texts_do_not_count() {
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(check(&deep(DEPTH_MAX)).is_ok());
        for depth in [DEPTH_MAX + 1, 100_000] {
            let fault = check(&deep(depth)).expect_err("too deep");
            assert_eq!(fault.code(), "too_deep");
        }
        let text = format!("\"{}\\\"{}\"", "[".repeat(200), "{".repeat(200));
        assert!(check(&text).is_ok());
    }

    proptest! {
        #[test]
        fn a_text_is_json_exactly_if_it_can_be_read_as_json(text in r#"[\[\]{}",:0-9a-z\\ .eE+-]{0,12}"#) {
            let wanted = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            // Numbers that no double holds are JSON all the same.
            prop_assume!(wanted || !text.contains(['e', 'E']));
            prop_assert_eq!(check(&text).is_ok(), wanted);
        }
    }
}
