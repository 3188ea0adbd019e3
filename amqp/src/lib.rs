//! AMQP 1.0 (OASIS, parts 1 to 5): the type system, frames, performatives and messages as bytes, and an endpoint that makes
//! events of frames. No I/O and no clock: callers read, write and say what time it is.
//!
//! What holds:
//! - Nothing panics on what comes from the wire. Values are checked once, as a whole, down to a depth of [`DEPTH_MAX`]; lengths and
//!   counts are held against the bytes that are there, and decoding allocates nothing: what is decoded borrows from its frame.
//! - The composite types are tables of the facts in the standard's type definitions ([`performative`], [`terminus`], [`state`],
//!   [`message`], [`sasl`]); decoding and encoding are made from the same row.

mod composite;
pub mod condition;
pub mod endpoint;
pub mod field;
pub mod frame;
pub mod message;
pub mod performative;
pub mod reader;
pub mod sasl;
pub mod serial;
pub mod state;
pub mod terminus;
pub mod value;
pub mod writer;

pub use bytes::{Bytes, BytesMut};
pub use composite::Composite;
pub use condition::ErrorCondition;
pub use field::{Field, Multiple, Symbol};
pub use reader::{DEPTH_MAX, DecodeError, ZERO_WIDTH_MAX};
pub use value::{Array, Described, List, Map, Value};
pub use writer::{MapBuf, Strings};
