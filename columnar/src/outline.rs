//! The outline of an object: what stands between its leaves. Most rows of a topic have that of a row before them, so that their names
//! are compared and not looked up, and each leaf is read once, as what it most often is.
//!
//! Caller: `observer`. Invariant: a text that fits an outline is a JSON object with these leaves, exactly as `scan` finds them (a test
//! compares them): the outline is of such an object, and only its leaves were replaced by other leaves.

use std::ops::Range;

use crate::scan::{Plain, Scan};

/// So many are known at a time: rows of several kinds take turns.
const OUTLINES_MAX: usize = 4;
/// An object with more leaves has no outline.
const LEAVES_MAX: usize = 128;
/// Nor has one with more bytes between its leaves.
const BETWEEN_BYTES_MAX: usize = 4_096;

/// A leaf of a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Leaf {
    /// The field that it is.
    pub field: usize,
    /// Where in the value its text stands.
    pub range: Range<usize>,
    /// What it is, where that was seen on the way.
    pub plain: Plain,
}

/// Outlines of the rows before, the one that fitted last first.
#[derive(Debug, Default)]
pub struct Outlines {
    known: Vec<Outline>,
}

#[derive(Debug)]
struct Outline {
    /// What stands before the leaves, one after the other, and behind the last.
    between: String,
    /// Where in it what stands before a leaf ends, and the leaf's field.
    leaves: Vec<(usize, usize)>,
}

impl Outlines {
    /// The leaves of an object that has a known outline. False if it has none: there are no leaves then.
    pub fn find_leaves(&mut self, text: &str, leaves: &mut Vec<Leaf>) -> bool {
        for at in 0..self.known.len() {
            leaves.clear();
            if self.known[at].find_leaves(text, leaves).is_some() {
                self.known[..=at].rotate_right(1);
                return true;
            }
        }
        leaves.clear();
        false
    }

    /// Takes in the outline of an object that has exactly these leaves, in order.
    pub fn learn(&mut self, text: &str, leaves: &[Leaf]) {
        let bytes: usize = leaves.iter().map(|leaf| leaf.range.len()).sum();
        if leaves.is_empty() || leaves.len() > LEAVES_MAX || text.len() - bytes > BETWEEN_BYTES_MAX
        {
            return;
        }
        let mut outline = match self.known.len() {
            OUTLINES_MAX => self.known.pop().expect("there are some"),
            _ => Outline {
                between: String::new(),
                leaves: Vec::new(),
            },
        };
        outline.set(text, leaves);
        self.known.insert(0, outline);
    }
}

impl Outline {
    fn set(&mut self, text: &str, leaves: &[Leaf]) {
        self.between.clear();
        self.leaves.clear();
        let mut at = 0;
        for leaf in leaves {
            self.between.push_str(&text[at..leaf.range.start]);
            self.leaves.push((self.between.len(), leaf.field));
            at = leaf.range.end;
        }
        self.between.push_str(&text[at..]);
    }

    fn find_leaves(&self, text: &str, leaves: &mut Vec<Leaf>) -> Option<()> {
        let mut scan = Scan::new(text);
        let mut from = 0;
        for (until, field) in &self.leaves {
            scan.word(&self.between[from..*until])?;
            from = *until;
            let start = scan.at();
            let plain = scan.leaf()?;
            let range = start..scan.at();
            leaves.push(Leaf {
                field: *field,
                range,
                plain,
            });
        }
        (scan.rest() == &self.between[from..]).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The leaves of an object as they are found without an outline; each path is a field of its own.
    fn scanned(text: &str, paths: &mut Vec<String>) -> Option<Vec<Leaf>> {
        let mut found = Vec::new();
        let is_object = Scan::new(text).leaves(&mut String::new(), &mut |path, raw| {
            let known = paths.iter().position(|it| it == path);
            let field = known.unwrap_or_else(|| {
                paths.push(path.to_owned());
                paths.len() - 1
            });
            let start = raw.as_ptr().addr() - text.as_ptr().addr();
            found.push(Leaf {
                field,
                range: start..start + raw.len(),
                plain: Plain::No,
            });
        });
        is_object.then_some(found)
    }

    fn value() -> impl Strategy<Value = String> {
        let values = [
            "1",
            "-0",
            "0",
            "01",
            "-12",
            "1.50",
            "1.",
            "-.5",
            "1e5",
            "1.5E-3",
            "123456789012345",
            "1234567890123456",
            "-12345678901234",
            "0.12345678901234",
            "0.1234567890123",
            "null",
            "nul",
            "true",
            "false",
            "\"\"",
            "\"a\"",
            "\"a\\n\"",
            "\"\\ud800\"",
            "\"a",
            "[1,{}]",
            "[",
            "{}",
            "{\"a\":1}",
            "{\"b\":{\"c\":2}}",
            "",
            " 1",
            "1 ",
        ];
        prop::sample::select(values.map(str::to_owned).to_vec())
    }

    fn object() -> impl Strategy<Value = String> {
        let member = (
            prop::sample::select(vec!["\"a\":", "\"b\": ", "\"c\\u00e9\":", "\"n\":{\"x\":"]),
            value(),
        );
        let ends = prop::sample::select(vec!["}", " } ", "}}", "}x", ""]);
        (prop::collection::vec(member, 0..4), ends).prop_map(|(members, end)| {
            let mut text = "{".to_owned();
            for (at, (name, value)) in members.iter().enumerate() {
                let comma = if at > 0 { "," } else { "" };
                let close = if name.ends_with("\"x\":") { "}" } else { "" };
                text.push_str(&format!("{comma}{name}{value}{close}"));
            }
            text + end
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn leaves_by_an_outline_are_those_that_are_there(texts in prop::collection::vec(object(), 1..12)) {
            let (mut outlines, mut paths) = (Outlines::default(), Vec::new());
            for text in texts {
                let expected = scanned(&text, &mut paths);
                let mut found = Vec::new();
                if outlines.find_leaves(&text, &mut found) {
                    let expected = expected.expect("what fits an outline is an object");
                    let places = |leaves: &[Leaf]| leaves.iter().map(|leaf| (leaf.field, leaf.range.clone())).collect::<Vec<_>>();
                    prop_assert_eq!(places(&found), places(&expected), "{}", text);
                } else if let Some(expected) = expected {
                    outlines.learn(&text, &expected);
                    prop_assert!(outlines.known.len() <= OUTLINES_MAX);
                }
            }
        }
    }

    #[test]
    fn a_row_like_one_of_the_last_has_leaves_that_are_plain() {
        let (mut outlines, mut paths) = (Outlines::default(), Vec::new());
        let shapes = [
            "{\"a\":1,\"b\":{\"c\":\"x\"}}",
            "{ \"a\" : 1 }",
            "{\"d\":1}",
            "{\"b\":{\"c\":\"x\"},\"a\":1}",
        ];
        for text in shapes {
            let leaves = scanned(text, &mut paths).expect("an object");
            outlines.learn(text, &leaves);
        }
        let plain = |leaves: &[Leaf]| leaves.iter().map(|leaf| leaf.plain).collect::<Vec<_>>();
        let mut found = Vec::new();
        for (text, expected) in [
            ("{ \"a\" : -0.5 }", vec![Plain::Float(-0.5)]),
            (
                "{\"a\":null,\"b\":{\"c\":true}}",
                vec![Plain::Null, Plain::Bool(true)],
            ),
            (
                "{\"b\":{\"c\":\"\"},\"a\":-17}",
                vec![Plain::Text, Plain::Int(-17)],
            ),
            ("{\"d\":-0}", vec![Plain::No]),
            ("{\"d\":1234567890123456}", vec![Plain::No]),
            ("{\"d\":\"\\n\"}", vec![Plain::No]),
            ("{\"d\":[1]}", vec![Plain::No]),
        ] {
            assert!(outlines.find_leaves(text, &mut found), "{text}");
            assert_eq!(plain(&found), expected, "{text}");
        }
        // An object has leaves of its own.
        assert!(!outlines.find_leaves("{\"d\":{\"e\":1}}", &mut found));
        assert!(found.is_empty());
        // A fifth takes the place of the one that fitted longest ago.
        let text = "{\"e\":1}";
        let leaves = scanned(text, &mut paths).expect("an object");
        outlines.learn(text, &leaves);
        assert!(!outlines.find_leaves("{ \"a\" : 1 }", &mut found));
        assert!(outlines.find_leaves("{\"a\":1,\"b\":{\"c\":1}}", &mut found));
    }
}
