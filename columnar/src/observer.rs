//! Looks at records one by one: what a schema learns of them, and where in a value its fields stand.
//!
//! Callers: the encoders; the broker, which looks at the beginning of a range.
//! Invariants: nothing is allocated for a row whose fields are known; a value that breaks off teaches nothing.

use std::collections::HashMap;
use std::ops::Range;

use crate::fields;
use crate::outline::{Leaf, Outlines};
use crate::scan::Plain;
use crate::schema::Schema;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// None: a tombstone.
    Nothing,
    /// A JSON object, which has fields.
    Object,
    /// Anything else: it has no fields, and is there as it is.
    Other,
}

/// A schema that learns.
#[derive(Debug)]
pub struct Observer {
    schema: Schema,
    index: HashMap<String, usize>,
    outlines: Outlines,
    path: String,
    leaves: Vec<Leaf>,
    new: Vec<(String, Range<usize>)>,
}

impl Observer {
    /// Begins with what is known.
    pub fn new(schema: Schema) -> Observer {
        let paths = schema.fields.iter().enumerate();
        let index = paths.map(|(index, field)| (field.path.clone(), index));
        Observer {
            index: index.collect(),
            schema,
            outlines: Outlines::default(),
            path: String::new(),
            leaves: Vec::new(),
            new: Vec::new(),
        }
    }

    /// What is known by now.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// What is known by now.
    pub fn into_schema(self) -> Schema {
        self.schema
    }

    /// Takes in a record.
    pub fn observe(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> Seen {
        self.observe_text(key, value).0
    }

    /// Takes in a record, and gives its value's text, if it is one.
    pub fn observe_text<'v>(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&'v [u8]>,
    ) -> (Seen, Option<&'v str>) {
        if let Some(key) = key {
            self.schema.observe_key(key);
        }
        self.leaves.clear();
        let Some(value) = value else {
            return (Seen::Nothing, None);
        };
        let Some(text) = self.schema.observe_value(value) else {
            return (Seen::Other, None);
        };
        self.new.clear();
        if !self.outlines.find_leaves(text, &mut self.leaves) {
            if !self.scan_leaves(text) {
                self.leaves.clear();
                return (Seen::Other, Some(text));
            }
            if self.new.is_empty() {
                self.outlines.learn(text, &self.leaves);
            }
        }
        for leaf in &self.leaves {
            if !leaf.plain.fits(self.schema.fields[leaf.field].kind) {
                self.schema
                    .observe_leaf(leaf.field, &text[leaf.range.clone()]);
            }
        }
        if !self.new.is_empty() {
            self.take_in_new(text);
        }
        (Seen::Object, Some(text))
    }

    fn take_in_new(&mut self, text: &str) {
        for (path, range) in std::mem::take(&mut self.new) {
            let known = self.index.get(&path).copied();
            let raw = &text[range.clone()];
            let index = match known {
                Some(index) => {
                    self.schema.observe_leaf(index, raw);
                    Some(index)
                }
                None => self.schema.observe_new(&path, raw),
            };
            if let Some(index) = index {
                self.index.insert(path, index);
                self.leaves.push(leaf_of(index, range));
            }
        }
    }

    /// The fields of the value that was taken in last, and where in it their texts stand. If one stands there twice, the last counts.
    pub fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    fn scan_leaves(&mut self, text: &str) -> bool {
        let (fields, index) = (&self.schema.fields, &self.index);
        let (leaves, new) = (&mut self.leaves, &mut self.new);
        // Most rows have the same fields in the same order.
        let mut guess = 0;
        fields::walk(text, &mut self.path, &mut |path, raw| {
            let start = raw.as_ptr().addr() - text.as_ptr().addr();
            let range = start..start + raw.len();
            let known = match fields.get(guess) {
                Some(field) if field.path == path => Some(guess),
                _ => index.get(path).copied(),
            };
            match known {
                Some(index) => {
                    guess = index + 1;
                    leaves.push(leaf_of(index, range));
                }
                None => new.push((path.to_owned(), range)),
            }
        })
    }
}

fn leaf_of(field: usize, range: Range<usize>) -> Leaf {
    Leaf {
        field,
        range,
        plain: Plain::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_breaks_off_teaches_nothing() {
        let mut observer = Observer::new(Schema::default());
        assert_eq!(observer.observe(None, Some(b"{\"a\":1,\"b\"")), Seen::Other);
        assert_eq!(observer.leaves(), []);
        assert!(observer.schema().fields.is_empty());
        assert_eq!(observer.observe(None, None), Seen::Nothing);
        assert_eq!(observer.observe(None, Some(b"17")), Seen::Other);
    }

    #[test]
    fn leaves_are_found_in_the_value() {
        let mut observer = Observer::new(Schema::default());
        let value = br#"{"a":1,"b":"x","a":3}"#;
        assert_eq!(observer.observe(None, Some(value)), Seen::Object);
        let mut texts = vec![""; 2];
        for leaf in observer.leaves() {
            texts[leaf.field] = std::str::from_utf8(&value[leaf.range.clone()]).expect("text");
        }
        assert_eq!(texts, ["3", "\"x\""]);
        let two = br#"{"b":2,"c":0}"#;
        observer.observe(None, Some(two));
        assert_eq!(observer.leaves(), [leaf_of(1, 5..6), leaf_of(2, 11..12)]);
    }
}
