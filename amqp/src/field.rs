//! Fields of composite types: how each Rust type stands for a type of the standard.
//! Callers: the tables, by way of `composite`.

use bytes::BytesMut;

use crate::value::{Map, Value};
use crate::writer;

/// A type that a field may have. `None` of a value means that it is of another type.
pub trait Field<'a>: Sized {
    /// From a value, null included.
    fn of(value: Value<'a>) -> Option<Self>;
    /// Behind what is there.
    fn put(&self, out: &mut BytesMut);
}

/// A symbol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Symbol<'a>(pub &'a str);

/// One symbol, several, or none: a field that is marked `multiple`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Multiple<'a> {
    /// None.
    #[default]
    None,
    /// As decoded: a symbol or an array of them.
    Encoded(Value<'a>),
    /// To be encoded.
    These(&'a [&'a str]),
}

impl<'a> Multiple<'a> {
    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let (one, array, these) = match *self {
            Multiple::None => (None, None, &[][..]),
            Multiple::Encoded(Value::Array(array)) => (None, Some(array), &[][..]),
            Multiple::Encoded(value) => (value.text(), None, &[][..]),
            Multiple::These(these) => (None, None, these),
        };
        let array = array.into_iter().flat_map(|array| array.iter());
        let array = array.filter_map(|value| value.text());
        one.into_iter().chain(array).chain(these.iter().copied())
    }

    /// Whether this one is among them.
    pub fn has(&self, symbol: &str) -> bool {
        self.iter().any(|it| it == symbol)
    }
}

impl<'a> Field<'a> for Multiple<'a> {
    fn of(value: Value<'a>) -> Option<Multiple<'a>> {
        match value {
            Value::Null => Some(Multiple::None),
            Value::Symbol(_) => Some(Multiple::Encoded(value)),
            Value::Array(array) => array
                .iter()
                .all(|it| matches!(it, Value::Symbol(_)))
                .then_some(Multiple::Encoded(value)),
            _ => None,
        }
    }

    fn put(&self, out: &mut BytesMut) {
        match self {
            Multiple::None | Multiple::These([]) => writer::put_null(out),
            Multiple::Encoded(value) => writer::put_value(out, value),
            Multiple::These(these) => writer::put_symbols(out, these),
        }
    }
}

impl<'a, T: Field<'a>> Field<'a> for Option<T> {
    fn of(value: Value<'a>) -> Option<Option<T>> {
        match value {
            Value::Null => Some(None),
            value => T::of(value).map(Some),
        }
    }

    fn put(&self, out: &mut BytesMut) {
        match self {
            None => writer::put_null(out),
            Some(value) => value.put(out),
        }
    }
}

/// Types whose values are one kind of [`Value`].
macro_rules! kinds {
    ($($type:ty = $kind:ident),* $(,)?) => {
        $(impl<'a> Field<'a> for $type {
            fn of(value: Value<'a>) -> Option<$type> {
                match value {
                    Value::$kind(it) => Some(it),
                    _ => None,
                }
            }

            fn put(&self, out: &mut BytesMut) {
                writer::put_value(out, &Value::$kind(*self));
            }
        })*
    };
}

kinds!(
    bool = Boolean,
    u8 = Ubyte,
    u16 = Ushort,
    u32 = Uint,
    u64 = Ulong,
    &'a str = String,
    &'a [u8] = Binary,
    Map<'a> = Map,
);

impl<'a> Field<'a> for Symbol<'a> {
    fn of(value: Value<'a>) -> Option<Symbol<'a>> {
        match value {
            Value::Symbol(it) => Some(Symbol(it)),
            _ => None,
        }
    }

    fn put(&self, out: &mut BytesMut) {
        writer::put_symbol(out, self.0);
    }
}

/// Milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamp(pub i64);

impl<'a> Field<'a> for Timestamp {
    fn of(value: Value<'a>) -> Option<Timestamp> {
        match value {
            Value::Timestamp(it) => Some(Timestamp(it)),
            _ => None,
        }
    }

    fn put(&self, out: &mut BytesMut) {
        writer::put_value(out, &Value::Timestamp(self.0));
    }
}

/// A value of any type but null.
impl<'a> Field<'a> for Value<'a> {
    fn of(value: Value<'a>) -> Option<Value<'a>> {
        match value {
            Value::Null => None,
            value => Some(value),
        }
    }

    fn put(&self, out: &mut BytesMut) {
        writer::put_value(out, self);
    }
}
