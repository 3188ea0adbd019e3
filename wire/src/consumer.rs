//! What consumers put into JoinGroup and SyncGroup: subscription and assignment, each behind a version of two bytes.
//! A reader takes newer versions than it knows as the newest that it knows: what was added stands at the end.

use crate::messages::consumer_protocol::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription,
};
use crate::{Bytes, DecodeError, EncodeError, Message, Reader, Writer};

/// Writes a subscription.
pub fn encode_subscription(
    value: &ConsumerProtocolSubscription,
    version: i16,
) -> Result<Bytes, EncodeError> {
    encode(value, version)
}

/// Reads a subscription.
pub fn decode_subscription(bytes: Bytes) -> Result<ConsumerProtocolSubscription, DecodeError> {
    decode(bytes)
}

/// Writes an assignment.
pub fn encode_assignment(
    value: &ConsumerProtocolAssignment,
    version: i16,
) -> Result<Bytes, EncodeError> {
    encode(value, version)
}

/// Reads an assignment. No bytes at all are an empty assignment.
pub fn decode_assignment(bytes: Bytes) -> Result<ConsumerProtocolAssignment, DecodeError> {
    if bytes.is_empty() {
        return Ok(ConsumerProtocolAssignment::default());
    }
    decode(bytes)
}

fn encode<M: Message>(value: &M, version: i16) -> Result<Bytes, EncodeError> {
    let mut writer = Writer::new();
    writer.i16(version);
    value.encode(&mut writer, version)?;
    Ok(writer.into_bytes())
}

fn decode<M: Message>(bytes: Bytes) -> Result<M, DecodeError> {
    let mut reader = Reader::new(bytes);
    let version = reader.i16()?;
    M::decode(&mut reader, version.min(M::VERSIONS.1))
}
