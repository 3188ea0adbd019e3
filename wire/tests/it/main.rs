//! The codec against its own facts, against another implementation, and against hostile bytes.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests stand outside of test functions"
)]

extern crate alluvium_wire as wire;

mod bounds;
mod differential;
mod headers;
mod hostile;
mod sample;
#[allow(dead_code, missing_docs)]
#[path = "../../../xtask/src/wire/schema.rs"]
mod schema;

use wire::{Bytes, DecodeError, Message, Reader, Writer};

/// Which half of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// What a client sends.
    Request,
    /// What it gets.
    Response,
}

/// Decodes a message with the generated code and encodes what came out. Yields it and what was left unread.
pub fn decode_and_encode(
    key: i16,
    role: Role,
    version: i16,
    bytes: Bytes,
) -> Result<(Bytes, usize), DecodeError> {
    macro_rules! visit {
        ($(($name:ident, $request:ty, $response:ty),)*) => {
            match wire::ApiKey::from_code(key).expect("a known key") {
                $(wire::ApiKey::$name => match role {
                    Role::Request => through::<$request>(version, bytes),
                    Role::Response => through::<$response>(version, bytes),
                })*
            }
        };
    }
    wire::for_each_key!(visit)
}

fn through<M: Message + PartialEq + std::fmt::Debug>(
    version: i16,
    bytes: Bytes,
) -> Result<(Bytes, usize), DecodeError> {
    let mut reader = Reader::new(bytes);
    let message = M::decode(&mut reader, version)?;
    let mut writer = Writer::new();
    message
        .encode(&mut writer, version)
        .unwrap_or_else(|error| panic!("{}: {error}", M::NAME));
    Ok((writer.into_bytes(), reader.remaining()))
}
