//! JSON schemas (2020-12, as OpenAPI 3.1 has them), put together from a few pieces.
//!
//! Callers: whoever describes a route.

use serde_json::{Map, Value, json};

/// What a JSON value looks like.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Schema(Value);

/// Any text.
pub(super) fn text() -> Schema {
    Schema(json!({ "type": "string" }))
}

/// A whole number of 64 bits.
pub(super) fn integer() -> Schema {
    Schema(json!({ "type": "integer", "format": "int64" }))
}

/// A whole number from `least` on.
pub(super) fn integer_from(least: i64) -> Schema {
    Schema(json!({ "type": "integer", "format": "int64", "minimum": least }))
}

/// A whole number of these.
pub(super) fn integer_in(range: std::ops::RangeInclusive<i64>) -> Schema {
    let (least, most) = range.into_inner();
    Schema(json!({ "type": "integer", "format": "int64", "minimum": least, "maximum": most }))
}

/// A number that need not be whole.
pub(super) fn number() -> Schema {
    Schema(json!({ "type": "number" }))
}

/// True or false.
pub(super) fn boolean() -> Schema {
    Schema(json!({ "type": "boolean" }))
}

/// One of these words.
pub(super) fn one_of(words: &[&str]) -> Schema {
    Schema(json!({ "type": "string", "enum": words }))
}

/// Whatever JSON can say.
pub(super) fn anything() -> Schema {
    Schema(json!({}))
}

/// Bytes that are no JSON.
pub(super) fn bytes() -> Schema {
    Schema(json!({ "type": "string", "format": "binary" }))
}

/// An array.
pub(super) fn list(of: Schema) -> Schema {
    Schema(json!({ "type": "array", "items": of.0 }))
}

/// An object with any names and values like this.
pub(super) fn map(of: Schema) -> Schema {
    Schema(json!({ "type": "object", "additionalProperties": of.0 }))
}

/// An object that always has these fields, and may have others.
pub(super) fn object<const N: usize>(fields: [(&str, Schema); N]) -> Schema {
    let required: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    let mut schema = json!({ "type": "object", "required": required });
    schema["properties"] = properties(fields);
    Schema(schema)
}

fn properties<const N: usize>(fields: [(&str, Schema); N]) -> Value {
    let fields = fields.into_iter();
    let fields: Map<_, _> = fields
        .map(|(name, schema)| (name.to_owned(), schema.0))
        .collect();
    Value::Object(fields)
}

impl Schema {
    /// The object may also have these fields.
    pub(super) fn optional<const N: usize>(mut self, fields: [(&str, Schema); N]) -> Schema {
        for (name, schema) in fields {
            self.0["properties"][name] = schema.0;
        }
        self
    }

    /// The object has no other fields: a body that has is refused.
    pub(super) fn closed(mut self) -> Schema {
        self.0["additionalProperties"] = false.into();
        self
    }

    /// Or null.
    pub(super) fn or_null(mut self) -> Schema {
        if let Some(words) = self.0.get_mut("enum").and_then(Value::as_array_mut) {
            words.push(Value::Null);
        }
        match self.0.get("type").cloned() {
            Some(kind) => self.0["type"] = json!([kind, "null"]),
            None => self = Schema(json!({ "anyOf": [self.0, { "type": "null" }] })),
        }
        self
    }

    /// What it means.
    pub(super) fn about(mut self, description: &str) -> Schema {
        self.0["description"] = description.into();
        self
    }

    /// A value that is often right, for those who try.
    pub(super) fn example(mut self, value: impl Into<Value>) -> Schema {
        self.0["examples"] = json!([value.into()]);
        self
    }

    /// As JSON.
    pub(super) fn value(self) -> Value {
        self.0
    }
}

/// The schema of this name, which the document holds once.
pub(super) fn named(name: &str) -> Schema {
    Schema(json!({ "$ref": format!("#/components/schemas/{name}") }))
}
