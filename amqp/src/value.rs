//! Values of the type system (part 1), borrowed from the bytes that they were decoded from.
//! Callers: everything that decodes. Invariant: a list, map, array or described value was checked to its bottom before it got
//! here, so that walking through it finds no fault; what it holds is decoded as it is walked.

use crate::reader::{Cursor, Depth};

/// A value.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names of the standard")]
pub enum Value<'a> {
    Null,
    Boolean(bool),
    Ubyte(u8),
    Ushort(u16),
    Uint(u32),
    Ulong(u64),
    Byte(i8),
    Short(i16),
    Int(i32),
    Long(i64),
    Float(f32),
    Double(f64),
    /// IEEE 754 decimal32, as encoded.
    Decimal32([u8; 4]),
    Decimal64([u8; 8]),
    Decimal128([u8; 16]),
    Char(char),
    /// Milliseconds since 1970.
    Timestamp(i64),
    Uuid([u8; 16]),
    Binary(&'a [u8]),
    String(&'a str),
    Symbol(&'a str),
    List(List<'a>),
    Map(Map<'a>),
    Array(Array<'a>),
    Described(Described<'a>),
}

impl<'a> Value<'a> {
    /// The text of a string or symbol.
    pub fn text(&self) -> Option<&'a str> {
        match self {
            Value::String(text) | Value::Symbol(text) => Some(text),
            _ => None,
        }
    }

    /// Any integer.
    pub fn integer(&self) -> Option<i128> {
        Some(match *self {
            Value::Ubyte(it) => it.into(),
            Value::Ushort(it) => it.into(),
            Value::Uint(it) => it.into(),
            Value::Ulong(it) => it.into(),
            Value::Byte(it) => it.into(),
            Value::Short(it) => it.into(),
            Value::Int(it) => it.into(),
            Value::Long(it) => it.into(),
            _ => return None,
        })
    }
}

/// A list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct List<'a> {
    pub(crate) count: u32,
    pub(crate) body: &'a [u8],
}

impl<'a> List<'a> {
    /// How many values it has.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Its values.
    pub fn iter(&self) -> Values<'a> {
        Values {
            count: self.count,
            cursor: Cursor::new(self.body),
        }
    }
}

/// Values behind each other.
#[derive(Clone, Debug)]
pub struct Values<'a> {
    count: u32,
    cursor: Cursor<'a>,
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.count = self.count.checked_sub(1)?;
        self.cursor.value(Depth::CHECKED).ok()
    }
}

/// A map: keys and values in the order in which they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Map<'a> {
    pub(crate) count: u32,
    pub(crate) body: &'a [u8],
}

impl<'a> Map<'a> {
    /// How many pairs it has.
    pub fn len(&self) -> usize {
        self.count as usize / 2
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Its pairs.
    pub fn iter(&self) -> Pairs<'a> {
        Pairs(
            List {
                count: self.count,
                body: self.body,
            }
            .iter(),
        )
    }

    /// The value under a string or symbol; the first of several.
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        let found = self.iter().find(|(it, _)| it.text() == Some(key));
        found.map(|(_, value)| value)
    }
}

/// The pairs of a map.
#[derive(Clone, Debug)]
pub struct Pairs<'a>(Values<'a>);

impl<'a> Iterator for Pairs<'a> {
    type Item = (Value<'a>, Value<'a>);

    fn next(&mut self) -> Option<(Value<'a>, Value<'a>)> {
        Some((self.0.next()?, self.0.next()?))
    }
}

/// An array: values of one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Array<'a> {
    pub(crate) count: u32,
    /// What stands before the values, once for all.
    pub(crate) constructor: &'a [u8],
    pub(crate) body: &'a [u8],
}

impl<'a> Array<'a> {
    /// How many values it has.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Its values.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let mut cursor = Cursor::new(self.body);
        let constructor = self.constructor;
        (0..self.count).map_while(move |_| cursor.data(constructor, Depth::CHECKED).ok())
    }
}

/// A value of a type that its descriptor names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described<'a> {
    pub(crate) descriptor: &'a [u8],
    pub(crate) constructor: &'a [u8],
    pub(crate) data: &'a [u8],
}

impl<'a> Described<'a> {
    /// The descriptor: a ulong or a symbol in all that is in use.
    pub fn descriptor(&self) -> Value<'a> {
        let mut cursor = Cursor::new(self.descriptor);
        cursor.value(Depth::CHECKED).unwrap_or(Value::Null)
    }

    /// What it describes.
    pub fn value(&self) -> Value<'a> {
        let mut cursor = Cursor::new(self.data);
        let value = cursor.data(self.constructor, Depth::CHECKED);
        value.unwrap_or(Value::Null)
    }
}
