//! The fields of a JSON object as paths and raw texts, without a tree.
//!
//! Callers: the schema, the encoders, the conditions. A nested object's fields have dotted paths; an array is a leaf, and so is
//! what lies deeper than [`DEPTH_MAX`](crate::scan::DEPTH_MAX). Nothing is copied but keys with escapes, and nothing recurses deeper than that.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::scan::Scan;

/// The value as JSON text, if it is JSON.
pub fn json_text(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    Scan::new(text).is_value().then_some(text)
}

/// Shows each leaf of a JSON object, in order: its path and its raw text. False if the text is no JSON object; leaves may have been
/// shown by then.
pub fn walk<'a>(text: &'a str, path: &mut String, show: &mut dyn FnMut(&str, &'a str)) -> bool {
    Scan::new(text).leaves(path, show)
}

/// The members of a JSON object, in order: each name and its raw text.
pub fn members(text: &str) -> Result<Vec<(Cow<'_, str>, &str)>, serde_json::Error> {
    struct Members;
    impl<'de> Visitor<'de> for Members {
        type Value = Vec<(Cow<'de, str>, &'de str)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }

        fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
            let mut members = Vec::with_capacity(8);
            while let Some(Key(key)) = map.next_key::<Key<'de>>()? {
                members.push((key, map.next_value::<&'de RawValue>()?.get()));
            }
            Ok(members)
        }
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let members = deserializer.deserialize_map(Members)?;
    deserializer.end().map(|()| members)
}

/// A key, borrowed where it has no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Key<'de>, D::Error> {
        struct OfKey;
        impl<'de> Visitor<'de> for OfKey {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(OfKey)
    }
}

/// A JSON string's content; None if the raw text is no string, or one that is no text (a lone surrogate).
pub fn string_content(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str::<String>(raw).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::DEPTH_MAX;

    fn leaves(text: &str) -> (bool, Vec<(String, String)>) {
        let mut seen = Vec::new();
        let mut path = String::new();
        let is_object = walk(text, &mut path, &mut |path, raw| {
            seen.push((path.to_owned(), raw.to_owned()));
        });
        (is_object, seen)
    }

    #[test]
    fn nested_objects_have_dotted_paths_and_arrays_are_leaves() {
        let (is_object, seen) = leaves(
            r#" {"a": 1.50, "b": {"c": "x\n", "d": {"e": null}}, "f": [1, {"g": 2}], "h": {}} "#,
        );
        assert!(is_object);
        let expected = [
            ("a", "1.50"),
            ("b.c", r#""x\n""#),
            ("b.d.e", "null"),
            ("f", r#"[1, {"g": 2}]"#),
        ];
        let expected: Vec<_> = expected
            .map(|(path, raw)| (path.to_owned(), raw.to_owned()))
            .into();
        assert_eq!(seen, expected);
    }

    #[test]
    fn what_is_no_object_is_told() {
        for text in [
            "1",
            "[]",
            "\"a\"",
            "",
            "{",
            "{\"a\":1} x",
            "{\"a\":}",
            "{\"a\":{\"b\":1}",
        ] {
            assert!(!leaves(text).0, "{text}");
        }
    }

    #[test]
    fn deep_objects_end_in_a_raw_leaf() {
        let text = "{\"a\":".repeat(5_000) + "1" + &"}".repeat(5_000);
        let (is_object, seen) = leaves(&text);
        assert!(is_object);
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].0, "a.a.a.a.a.a.a.a");
        assert_eq!(seen[0].1.len(), text.len() - DEPTH_MAX * 6);
    }

    #[test]
    fn contents_of_strings() {
        assert_eq!(string_content(r#""a""#).as_deref(), Some("a"));
        assert_eq!(
            string_content(r#""a\u00e9\"""#).as_deref(),
            Some("a\u{e9}\"")
        );
        assert_eq!(string_content(r#""\ud800""#), None);
        assert_eq!(string_content("1"), None);
    }
}
