//! Writes values in their shortest encoding, behind what is there already.
//! Callers: everything that encodes. Invariant: what is written decodes to what was handed in.

use bytes::{BufMut as _, BytesMut};

use crate::value::{Array, List, Map, Value};

/// Writes null.
pub fn put_null(out: &mut BytesMut) {
    out.put_u8(0x40);
}

/// Writes a boolean.
pub fn put_bool(out: &mut BytesMut, value: bool) {
    out.put_u8(if value { 0x41 } else { 0x42 });
}

/// Writes a uint.
pub fn put_uint(out: &mut BytesMut, value: u32) {
    match u8::try_from(value) {
        Ok(0) => out.put_u8(0x43),
        Ok(small) => out.put_slice(&[0x52, small]),
        Err(_) => {
            out.put_u8(0x70);
            out.put_u32(value);
        }
    }
}

/// Writes a ulong.
pub fn put_ulong(out: &mut BytesMut, value: u64) {
    match u8::try_from(value) {
        Ok(0) => out.put_u8(0x44),
        Ok(small) => out.put_slice(&[0x53, small]),
        Err(_) => {
            out.put_u8(0x80);
            out.put_u64(value);
        }
    }
}

fn put_variable(out: &mut BytesMut, [narrow, wide]: [u8; 2], bytes: &[u8]) {
    match u8::try_from(bytes.len()) {
        Ok(length) => out.put_slice(&[narrow, length]),
        Err(_) => {
            out.put_u8(wide);
            out.put_u32(length(bytes.len()));
        }
    }
    out.put_slice(bytes);
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("what is encoded is far below 4 GiB")
}

/// Writes a binary.
pub fn put_binary(out: &mut BytesMut, bytes: &[u8]) {
    put_variable(out, [0xa0, 0xb0], bytes);
}

/// Writes a string.
pub fn put_string(out: &mut BytesMut, text: &str) {
    put_variable(out, [0xa1, 0xb1], text.as_bytes());
}

/// Writes a symbol.
pub fn put_symbol(out: &mut BytesMut, text: &str) {
    debug_assert!(text.is_ascii());
    put_variable(out, [0xa3, 0xb3], text.as_bytes());
}

/// Writes what stands before a described value.
pub fn put_descriptor(out: &mut BytesMut, code: u64) {
    out.put_u8(0);
    put_ulong(out, code);
}

/// Writes a list whose values `fill` writes; it gives their count.
pub fn put_list(out: &mut BytesMut, fill: impl FnOnce(&mut BytesMut) -> u32) {
    // Most lists are short: they are written as if, and moved if not.
    let start = out.len();
    out.put_slice(&[0xc0, 0, 0]);
    let count = fill(out);
    let bytes = out.len() - start - 3;
    if count == 0 && bytes == 0 {
        out.truncate(start);
        out.put_u8(0x45);
        return;
    }
    match (u8::try_from(bytes + 1), u8::try_from(count)) {
        (Ok(length), Ok(count)) => out[start + 1..start + 3].copy_from_slice(&[length, count]),
        _ => {
            out.put_bytes(0, 6);
            out.copy_within(start + 3..start + 3 + bytes, start + 9);
            out[start] = 0xd0;
            out[start + 1..start + 5].copy_from_slice(&length(bytes + 4).to_be_bytes());
            out[start + 5..start + 9].copy_from_slice(&count.to_be_bytes());
        }
    }
}

fn put_compound(out: &mut BytesMut, [narrow, wide]: [u8; 2], count: u32, parts: [&[u8]; 2]) {
    let bytes = parts[0].len() + parts[1].len();
    match (u8::try_from(bytes + 1), u8::try_from(count)) {
        (Ok(length), Ok(count)) => out.put_slice(&[narrow, length, count]),
        _ => {
            out.put_u8(wide);
            out.put_u32(length(bytes + 4));
            out.put_u32(count);
        }
    }
    out.put_slice(parts[0]);
    out.put_slice(parts[1]);
}

/// Writes a value.
pub fn put_value(out: &mut BytesMut, value: &Value<'_>) {
    match *value {
        Value::Null => put_null(out),
        Value::Boolean(it) => put_bool(out, it),
        Value::Ubyte(it) => out.put_slice(&[0x50, it]),
        Value::Ushort(it) => put_fixed(out, 0x60, it.to_be_bytes()),
        Value::Uint(it) => put_uint(out, it),
        Value::Ulong(it) => put_ulong(out, it),
        Value::Byte(it) => put_fixed(out, 0x51, it.to_be_bytes()),
        Value::Short(it) => put_fixed(out, 0x61, it.to_be_bytes()),
        Value::Int(it) => match i8::try_from(it) {
            Ok(small) => put_fixed(out, 0x54, small.to_be_bytes()),
            Err(_) => put_fixed(out, 0x71, it.to_be_bytes()),
        },
        Value::Long(it) => match i8::try_from(it) {
            Ok(small) => put_fixed(out, 0x55, small.to_be_bytes()),
            Err(_) => put_fixed(out, 0x81, it.to_be_bytes()),
        },
        Value::Float(it) => put_fixed(out, 0x72, it.to_be_bytes()),
        Value::Double(it) => put_fixed(out, 0x82, it.to_be_bytes()),
        Value::Decimal32(it) => put_fixed(out, 0x74, it),
        Value::Decimal64(it) => put_fixed(out, 0x84, it),
        Value::Decimal128(it) => put_fixed(out, 0x94, it),
        Value::Char(it) => put_fixed(out, 0x73, u32::from(it).to_be_bytes()),
        Value::Timestamp(it) => put_fixed(out, 0x83, it.to_be_bytes()),
        Value::Uuid(it) => put_fixed(out, 0x98, it),
        Value::Binary(it) => put_binary(out, it),
        Value::String(it) => put_string(out, it),
        Value::Symbol(it) => put_symbol(out, it),
        Value::List(List { count: 0, .. }) => out.put_u8(0x45),
        Value::List(List { count, body }) => put_compound(out, [0xc0, 0xd0], count, [body, &[]]),
        Value::Map(Map { count, body }) => put_compound(out, [0xc1, 0xd1], count, [body, &[]]),
        Value::Array(Array {
            count,
            constructor,
            body,
        }) => put_compound(out, [0xe0, 0xf0], count, [constructor, body]),
        Value::Described(it) => {
            out.put_u8(0);
            for part in [it.descriptor, it.constructor, it.data] {
                out.put_slice(part);
            }
        }
    }
}

fn put_fixed<const N: usize>(out: &mut BytesMut, code: u8, bytes: [u8; N]) {
    out.put_u8(code);
    out.put_slice(&bytes);
}

/// Writes an array of symbols.
pub fn put_symbols(out: &mut BytesMut, symbols: &[&str]) {
    let mut body = BytesMut::new();
    for text in symbols {
        body.put_u32(length(text.len()));
        body.put_slice(text.as_bytes());
    }
    put_compound(out, [0xe0, 0xf0], length(symbols.len()), [&[0xb3], &body]);
}

/// An array of strings that is being made.
#[derive(Clone, Debug, Default)]
pub struct Strings {
    count: u32,
    body: BytesMut,
}

impl Strings {
    /// An empty one.
    pub fn new() -> Strings {
        Strings::default()
    }

    /// Adds a string.
    pub fn push(&mut self, text: &str) {
        self.count += 1;
        self.body.put_u32(length(text.len()));
        self.body.put_slice(text.as_bytes());
    }

    /// The array.
    pub fn as_value(&self) -> Value<'_> {
        Value::Array(Array {
            count: self.count,
            constructor: &[0xb1],
            body: &self.body,
        })
    }
}

/// A map that is being made.
#[derive(Clone, Debug, Default)]
pub struct MapBuf {
    count: u32,
    body: BytesMut,
}

impl MapBuf {
    /// An empty one.
    pub fn new() -> MapBuf {
        MapBuf::default()
    }

    /// Adds a pair.
    pub fn put(&mut self, key: &Value<'_>, value: &Value<'_>) {
        self.count += 2;
        put_value(&mut self.body, key);
        put_value(&mut self.body, value);
    }

    /// Adds all pairs of another whose keys are wanted.
    pub fn extend(&mut self, of: Map<'_>, wanted: impl Fn(&Value<'_>) -> bool) {
        for (key, value) in of.iter().filter(|(key, _)| wanted(key)) {
            self.put(&key, &value);
        }
    }

    /// Adds a pair whose key is a symbol.
    pub fn put_symbol(&mut self, key: &str, value: &Value<'_>) {
        self.put(&Value::Symbol(key), value);
    }

    /// The map.
    pub fn as_map(&self) -> Map<'_> {
        Map {
            count: self.count,
            body: &self.body,
        }
    }
}
