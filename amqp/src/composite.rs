//! Composite types: lists under a descriptor, whose fields a table names in their order.
//! Callers: the tables. Fields behind the last that is set are left out, but of types that are declared `whole`; a field that has its
//! default is not written. Whole are those of which Azure's clients for Python look at fields by their numbers, whether they came or not.

use bytes::BytesMut;

use crate::reader::DecodeError;
use crate::value::{List, Value};

/// A composite type.
pub trait Composite<'a>: Sized {
    /// Its descriptor as a number.
    const CODE: u64;
    /// Its descriptor as a symbol.
    const SYMBOL: &'static str;

    /// From the list of its fields.
    fn of_fields(fields: List<'a>) -> Result<Self, DecodeError>;
    /// With its descriptor, behind what is there.
    fn put(&self, out: &mut BytesMut);

    /// Whether a descriptor is this type's.
    fn is(descriptor: &Value<'_>) -> bool {
        match descriptor {
            Value::Ulong(code) => *code == Self::CODE,
            Value::Symbol(symbol) => *symbol == Self::SYMBOL,
            _ => false,
        }
    }

    /// From a described list.
    fn of_value(value: Value<'a>) -> Result<Self, DecodeError> {
        match value {
            Value::Described(it) if Self::is(&it.descriptor()) => match it.value() {
                Value::List(fields) => Self::of_fields(fields),
                _ => Err(DecodeError::Type(Self::SYMBOL)),
            },
            _ => Err(DecodeError::Type(Self::SYMBOL)),
        }
    }
}

/// Rows `name: type`, or `name: type = default`. A type that is no `Option` and has no default is mandatory. `whole:` before the types says
/// that they are written with all their fields.
macro_rules! composite {
    (@default) => { None };
    (@default $default:expr) => { Some($default) };
    (whole: $($types:tt)*) => { composite!(@types true; $($types)*); };
    (@types $whole:literal; $($(#[$meta:meta])* $name:ident $(<$life:lifetime>)? = $code:literal $symbol:literal {
        $($(#[$of_field:meta])* $field:ident: $type:ty $(= $default:expr)?),* $(,)?
    })*) => {
        $($(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct $name $(<$life>)? {
            $($(#[$of_field])* pub $field: $type,)*
        }

        impl<'a> $crate::Composite<'a> for $name $(<$life>)? {
            const CODE: u64 = $code;
            const SYMBOL: &'static str = $symbol;

            #[allow(unused_mut, unused_variables, reason = "a type may have no fields")]
            fn of_fields(fields: $crate::List<'a>) -> Result<Self, $crate::DecodeError> {
                let mut values = fields.iter();
                let decoded = $name {
                    $($field: {
                        let value = values.next().unwrap_or($crate::Value::Null);
                        let missing = composite!(@default $($default)?);
                        let decoded = match (value, missing) {
                            ($crate::Value::Null, Some(default)) => Some(default),
                            (value, _) => <$type as $crate::Field>::of(value),
                        };
                        decoded.ok_or($crate::DecodeError::Field {
                            composite: $symbol,
                            field: stringify!($field),
                        })?
                    },)*
                };
                match values.next() {
                    None => Ok(decoded),
                    Some(_) => Err($crate::DecodeError::Fields($symbol)),
                }
            }

            #[allow(unused_mut, unused_variables, unused_assignments, reason = "a type may have no fields")]
            fn put(&self, out: &mut bytes::BytesMut) {
                $crate::writer::put_descriptor(out, $code);
                $crate::writer::put_list(out, |out| {
                    let (mut count, mut set, mut end) = (0_u32, 0_u32, out.len());
                    $(
                        count += 1;
                        let before = out.len();
                        let missing: Option<$type> = composite!(@default $($default)?);
                        match missing.as_ref() == Some(&self.$field) {
                            true => $crate::writer::put_null(out),
                            false => $crate::Field::put(&self.$field, out),
                        }
                        if $whole || out[before..] != [0x40] {
                            (set, end) = (count, out.len());
                        }
                    )*
                    out.truncate(end);
                    set
                });
            }
        }

        impl<'a> $crate::Field<'a> for $name $(<$life>)? {
            fn of(value: $crate::Value<'a>) -> Option<Self> {
                <Self as $crate::Composite>::of_value(value).ok()
            }

            fn put(&self, out: &mut bytes::BytesMut) {
                <Self as $crate::Composite>::put(self, out);
            }
        })*
    };
    ($($types:tt)*) => { composite!(@types false; $($types)*); };
}

/// Types that restrict a number or a boolean to a few values.
macro_rules! choices {
    ($($(#[$meta:meta])* $name:ident: $kind:ident { $($(#[$of_choice:meta])* $choice:ident = $value:literal),* $(,)? })*) => {
        $($(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$of_choice])* $choice,)*
        }

        impl<'a> $crate::Field<'a> for $name {
            fn of(value: $crate::Value<'a>) -> Option<$name> {
                match value {
                    $($crate::Value::$kind($value) => Some($name::$choice),)*
                    _ => None,
                }
            }

            fn put(&self, out: &mut bytes::BytesMut) {
                let value = match self {
                    $($name::$choice => $crate::Value::$kind($value),)*
                };
                $crate::writer::put_value(out, &value);
            }
        })*
    };
}

pub(crate) use {choices, composite};
