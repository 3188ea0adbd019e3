//! Writes random but valid messages straight from the facts in `wire/schema/`, without the generated code.

use crate::Role;
use crate::schema::{Field, Message, Module};
use wire::Bytes;

/// Every key's facts.
pub fn modules() -> Vec<Module> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/schema");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    paths.sort();
    let all = paths
        .iter()
        .map(|p| Module::parse(&std::fs::read_to_string(p).unwrap()).unwrap());
    all.filter(|m| m.key.is_some()).collect()
}

/// Every key, half and version that exists.
pub fn every_version() -> Vec<(i16, Role, i16, Message)> {
    let mut all = Vec::new();
    for module in modules() {
        for message in &module.messages {
            let role = if message.role == "request" {
                Role::Request
            } else {
                Role::Response
            };
            for version in message.versions.first..=message.versions.last {
                all.push((module.key.unwrap(), role, version, message.clone()));
            }
        }
    }
    all
}

/// A small generator of random numbers; the seed is in every failure's message.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 16) as usize % bound
    }
}

/// How a sample is filled.
pub struct Sample<'a> {
    pub message: &'a Message,
    pub version: i16,
    pub random: Random,
    /// Tags that nobody knows are put behind every struct.
    pub strange_tags: bool,
    /// Set every tagged field, leave no list empty, make nothing null.
    pub full: bool,
}

impl Sample<'_> {
    pub fn bytes(mut self) -> Bytes {
        let mut out = Vec::new();
        let fields = self.message.fields.clone();
        self.fields(&fields, &mut out);
        Bytes::from(out)
    }

    fn flexible(&self) -> bool {
        self.message.flexible.contains(self.version)
    }

    fn fields(&mut self, fields: &[Field], out: &mut Vec<u8>) {
        for field in fields {
            if field.tag.is_none() && field.versions.contains(self.version) {
                self.field(field, out, false);
            }
        }
        if !self.flexible() {
            return;
        }
        let mut tags: Vec<(u32, Vec<u8>)> = Vec::new();
        for field in fields {
            if let Some((number, versions)) = field.tag
                && versions.contains(self.version)
                && (self.full || self.random.below(2) == 0)
            {
                let mut content = Vec::new();
                self.field(field, &mut content, true);
                tags.push((number, content));
            }
        }
        tags.sort();
        if self.strange_tags {
            tags.push((
                9_000 + self.random.below(1 << 20) as u32,
                vec![7; self.random.below(200)],
            ));
        }
        uvarint(tags.len() as u32, out);
        for (number, content) in tags {
            uvarint(number, out);
            uvarint(content.len() as u32, out);
            out.extend(content);
        }
    }

    /// `set`: the value must differ from the field's default, as it is a tagged one that was chosen to be sent.
    fn field(&mut self, field: &Field, out: &mut Vec<u8>, set: bool) {
        let nullable = field.nullable.contains(self.version);
        let null = nullable && !set && !self.full && self.random.below(3) == 0;
        let is_struct = field.kind.starts_with(|c: char| c.is_uppercase());
        if is_struct {
            if nullable {
                out.push(if null { 0xff } else { 1 });
            }
            if !null {
                let fields = self.body(field);
                self.fields(&fields, out);
            }
            return;
        }
        if let Some(inner) = field.kind.strip_prefix("[]") {
            if null {
                return self.length(None, false, out);
            }
            let count = if set || self.full {
                1 + self.random.below(2)
            } else {
                self.random.below(3)
            };
            self.length(Some(count), false, out);
            for _ in 0..count {
                if inner.starts_with(|c: char| c.is_uppercase()) {
                    let fields = self.body(field);
                    self.fields(&fields, out);
                } else {
                    self.scalar(inner, false, set, out);
                }
            }
            return;
        }
        self.scalar(&field.kind, null, set, out);
    }

    fn body(&self, field: &Field) -> Vec<Field> {
        if !field.fields.is_empty() {
            return field.fields.clone();
        }
        let name = field.kind.trim_start_matches("[]");
        self.message
            .structs
            .iter()
            .find(|s| s.name == name)
            .unwrap()
            .fields
            .clone()
    }

    fn length(&self, length: Option<usize>, short: bool, out: &mut Vec<u8>) {
        match (self.flexible(), length) {
            (true, length) => uvarint(length.map_or(0, |l| l as u32 + 1), out),
            (false, length) if short => {
                out.extend(
                    length
                        .map_or(-1, |l| i16::try_from(l).unwrap())
                        .to_be_bytes(),
                );
            }
            (false, length) => {
                out.extend(
                    length
                        .map_or(-1, |l| i32::try_from(l).unwrap())
                        .to_be_bytes(),
                );
            }
        }
    }

    fn scalar(&mut self, kind: &str, null: bool, set: bool, out: &mut Vec<u8>) {
        // Never 0 or -1, which are defaults, where a default would not be sent.
        let number = self.random.next();
        let number = if set { (number & 0x3e) | 2 } else { number };
        let bytes = number.to_be_bytes();
        match kind {
            "bool" => out.push(if set { 1 } else { bytes[7] & 1 }),
            "int8" => out.push(bytes[7]),
            "int16" | "uint16" => out.extend(&bytes[6..]),
            "int32" | "uint32" => out.extend(&bytes[4..]),
            "int64" => out.extend(bytes),
            // No NaN: it is not equal to itself, and the sign of zero must survive.
            "float64" => out.extend((number as f64).to_be_bytes()),
            "uuid" => out.extend([bytes, bytes].concat()),
            "string" | "bytes" | "records" => {
                let short = kind == "string";
                if null {
                    return self.length(None, short, out);
                }
                let length = match self.random.below(20) {
                    0 => 300,
                    _ => usize::from(set) + self.random.below(12),
                };
                self.length(Some(length), short, out);
                out.extend((0..length).map(|_| b'a' + self.random.below(26) as u8));
            }
            other => panic!("unknown type {other}"),
        }
    }
}

fn uvarint(mut value: u32, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
