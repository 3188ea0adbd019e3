//! Reads values off bytes (part 1, 1.2), and checks them.
//! Callers: everything that decodes, by way of [`decode`] and [`split`]; walks through values that were checked.
//! Invariant: whatever the bytes, no panic, no allocation, a stack of [`DEPTH_MAX`] values, and time in the order of the bytes.

use crate::value::{Array, Described, List, Map, Value};

/// How deep values may be nested: lists, maps, arrays and described values in each other.
pub const DEPTH_MAX: u32 = 32;
/// How many values an array may have that take no bytes.
pub const ZERO_WIDTH_MAX: u32 = 4_096;

/// Bytes that are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They end too early.
    #[error("the bytes end within a value")]
    Short,
    /// A format code that the standard does not have.
    #[error("0x{0:02x} is no format code")]
    Code(u8),
    /// Nested too deep.
    #[error("values are nested deeper than {DEPTH_MAX}")]
    Depth,
    /// A count or a length that does not fit what is there.
    #[error("a count or a length does not fit its bytes")]
    Count,
    /// Text that is not UTF-8, a symbol that is not ASCII, a char that is none, a boolean that is neither.
    #[error("{0} has bytes that it may not have")]
    Text(&'static str),
    /// Bytes behind the last value.
    #[error("there are bytes behind the value")]
    Trailing,
    /// A field of a composite type that is missing, or of another type or value than it may be.
    #[error("{composite}'s field {field} is missing or not of its type")]
    Field {
        /// The type.
        composite: &'static str,
        /// The field.
        field: &'static str,
    },
    /// More fields than the type has.
    #[error("{0} has fewer fields")]
    Fields(&'static str),
    /// Another type than it may be here.
    #[error("there is something else where {0} should be")]
    Type(&'static str),
}

/// Decodes a value that takes all of the bytes.
pub fn decode(bytes: &[u8]) -> Result<Value<'_>, DecodeError> {
    match split(bytes)? {
        (value, []) => Ok(value),
        _ => Err(DecodeError::Trailing),
    }
}

/// Decodes the first value, and gives the bytes behind it.
pub fn split(bytes: &[u8]) -> Result<(Value<'_>, &[u8]), DecodeError> {
    let mut cursor = Cursor::new(bytes);
    let value = cursor.value(Depth::START)?;
    Ok((value, cursor.bytes))
}

/// How deep a value lies; or that it was checked before, and its bottom need not be looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Depth(Option<u32>);

impl Depth {
    pub(crate) const CHECKED: Depth = Depth(None);
    const START: Depth = Depth(Some(0));

    fn deeper(self) -> Result<Depth, DecodeError> {
        match self.0 {
            Some(depth) if depth >= DEPTH_MAX => Err(DecodeError::Depth),
            depth => Ok(Depth(depth.map(|depth| depth + 1))),
        }
    }
}

/// Where reading stands.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
}

/// What stands before an array's or a compound's body.
struct Body<'a> {
    count: u32,
    body: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self
            .bytes
            .split_at_checked(count)
            .ok_or(DecodeError::Short)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.bytes.split_first_chunk().ok_or(DecodeError::Short)?;
        self.bytes = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        self.array().map(|[byte]| byte)
    }

    /// A length or count of one byte or four, as the format code says.
    fn length(&mut self, is_wide: bool) -> Result<u32, DecodeError> {
        match is_wide {
            true => self.array().map(u32::from_be_bytes),
            false => self.byte().map(u32::from),
        }
    }

    fn variable(&mut self, is_wide: bool) -> Result<&'a [u8], DecodeError> {
        let bytes = self.length(is_wide)?;
        self.take(usize::try_from(bytes).map_err(|_| DecodeError::Short)?)
    }

    fn symbol(&mut self, is_wide: bool) -> Result<&'a str, DecodeError> {
        let bytes = self.variable(is_wide)?;
        let text = std::str::from_utf8(bytes).ok().filter(|it| it.is_ascii());
        text.ok_or(DecodeError::Text("a symbol"))
    }

    /// What was read since `start`.
    fn since(&self, start: &'a [u8]) -> &'a [u8] {
        &start[..start.len() - self.bytes.len()]
    }

    /// A constructor and what it constructs.
    pub(crate) fn value(&mut self, depth: Depth) -> Result<Value<'a>, DecodeError> {
        let constructor = self.constructor()?;
        self.data(constructor, depth)
    }

    /// A format code, with the descriptors before it.
    fn constructor(&mut self) -> Result<&'a [u8], DecodeError> {
        let start = self.bytes;
        while self.byte()? == 0 {
            let descriptor = self.descriptor()?;
            if matches!(descriptor.first(), Some(0xa3 | 0xb3)) {
                Cursor::new(&descriptor[1..]).symbol(descriptor[0] == 0xb3)?;
            }
        }
        Ok(self.since(start))
    }

    /// A descriptor, whose text is not looked at: the standard reserves all that are neither ulongs nor symbols.
    fn descriptor(&mut self) -> Result<&'a [u8], DecodeError> {
        let start = self.bytes;
        match self.byte()? {
            0x44 => {}
            0x53 => drop(self.byte()?),
            0x80 => drop(self.take(8)?),
            code @ (0xa3 | 0xb3) => drop(self.variable(code == 0xb3)?),
            _ => return Err(DecodeError::Type("a descriptor")),
        }
        Ok(self.since(start))
    }

    /// What a constructor constructs.
    pub(crate) fn data(
        &mut self,
        constructor: &'a [u8],
        depth: Depth,
    ) -> Result<Value<'a>, DecodeError> {
        let (code, rest) = constructor.split_first().ok_or(DecodeError::Short)?;
        if *code != 0 {
            return self.plain(*code, depth);
        }
        let depth = depth.deeper()?;
        let mut within = Cursor::new(rest);
        let descriptor = within.descriptor()?;
        let start = self.bytes;
        self.data(within.bytes, depth)?;
        Ok(Value::Described(Described {
            descriptor,
            constructor: within.bytes,
            data: self.since(start),
        }))
    }

    fn plain(&mut self, code: u8, depth: Depth) -> Result<Value<'a>, DecodeError> {
        Ok(match code {
            0x40 => Value::Null,
            0x41 => Value::Boolean(true),
            0x42 => Value::Boolean(false),
            0x56 => match self.byte()? {
                0 => Value::Boolean(false),
                1 => Value::Boolean(true),
                _ => return Err(DecodeError::Text("a boolean")),
            },
            0x50 => Value::Ubyte(self.byte()?),
            0x60 => Value::Ushort(u16::from_be_bytes(self.array()?)),
            0x70 => Value::Uint(u32::from_be_bytes(self.array()?)),
            0x52 => Value::Uint(self.byte()?.into()),
            0x43 => Value::Uint(0),
            0x80 => Value::Ulong(u64::from_be_bytes(self.array()?)),
            0x53 => Value::Ulong(self.byte()?.into()),
            0x44 => Value::Ulong(0),
            0x51 => Value::Byte(i8::from_be_bytes(self.array()?)),
            0x61 => Value::Short(i16::from_be_bytes(self.array()?)),
            0x71 => Value::Int(i32::from_be_bytes(self.array()?)),
            0x54 => Value::Int(i8::from_be_bytes(self.array()?).into()),
            0x81 => Value::Long(i64::from_be_bytes(self.array()?)),
            0x55 => Value::Long(i8::from_be_bytes(self.array()?).into()),
            0x72 => Value::Float(f32::from_be_bytes(self.array()?)),
            0x82 => Value::Double(f64::from_be_bytes(self.array()?)),
            0x74 => Value::Decimal32(self.array()?),
            0x84 => Value::Decimal64(self.array()?),
            0x94 => Value::Decimal128(self.array()?),
            0x73 => {
                let number = u32::from_be_bytes(self.array()?);
                Value::Char(char::from_u32(number).ok_or(DecodeError::Text("a char"))?)
            }
            0x83 => Value::Timestamp(i64::from_be_bytes(self.array()?)),
            0x98 => Value::Uuid(self.array()?),
            0xa0 | 0xb0 => Value::Binary(self.variable(code == 0xb0)?),
            0xa1 | 0xb1 => Value::String(text(self.variable(code == 0xb1)?)?),
            0xa3 | 0xb3 => Value::Symbol(self.symbol(code == 0xb3)?),
            0x45 => Value::List(List::default()),
            0xc0 | 0xd0 => {
                let Body { count, body } = self.compound(code == 0xd0, depth)?;
                Value::List(List { count, body })
            }
            0xc1 | 0xd1 => {
                let Body { count, body } = self.compound(code == 0xd1, depth)?;
                if count % 2 != 0 {
                    return Err(DecodeError::Count);
                }
                Value::Map(Map { count, body })
            }
            0xe0 | 0xf0 => Value::Array(self.elements(code == 0xf0, depth)?),
            _ => return Err(DecodeError::Code(code)),
        })
    }

    /// Count and body of a list, map or array: the length in bytes includes the count.
    fn body(&mut self, is_wide: bool) -> Result<Body<'a>, DecodeError> {
        let mut within = Cursor::new(self.variable(is_wide)?);
        let count = within.length(is_wide)?;
        let body = within.bytes;
        Ok(Body { count, body })
    }

    fn compound(&mut self, is_wide: bool, depth: Depth) -> Result<Body<'a>, DecodeError> {
        let depth = depth.deeper()?;
        let found = self.body(is_wide)?;
        // Each value takes a byte at least.
        if found.count as usize > found.body.len() {
            return Err(DecodeError::Count);
        }
        if depth.0.is_some() {
            let mut within = Cursor::new(found.body);
            for _ in 0..found.count {
                within.value(depth)?;
            }
            if !within.bytes.is_empty() {
                return Err(DecodeError::Count);
            }
        }
        Ok(found)
    }

    fn elements(&mut self, is_wide: bool, depth: Depth) -> Result<Array<'a>, DecodeError> {
        let depth = depth.deeper()?;
        let Body { count, body } = self.body(is_wide)?;
        let mut within = Cursor::new(body);
        // Some encoders leave the constructor of an empty array out.
        let constructor = match (count, body) {
            (0, []) => body,
            _ => within.constructor()?,
        };
        let body = within.bytes;
        let is_zero_wide = constructor.last().is_some_and(|code| code >> 4 == 4);
        let count_max = match is_zero_wide {
            true => ZERO_WIDTH_MAX as usize,
            false => body.len(),
        };
        if count as usize > count_max {
            return Err(DecodeError::Count);
        }
        if depth.0.is_some() {
            // Of those without bytes one stands for all.
            for _ in 0..if is_zero_wide { count.min(1) } else { count } {
                within.data(constructor, depth)?;
            }
            if !within.bytes.is_empty() {
                return Err(DecodeError::Count);
            }
        }
        Ok(Array {
            count,
            constructor,
            body,
        })
    }
}

fn text(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError::Text("a string"))
}
