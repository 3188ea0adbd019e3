//! The targets: one module each, with `run`, which panics if a promise is broken, and `seeds`, what to start from.

pub mod acls;
pub mod amqp;
pub mod arrow_body;
pub mod batches;
pub mod checkpoint;
pub mod codecs;
pub mod condition;
pub mod consumer_protocol;
pub mod erasures;
pub mod follow_position;
pub mod frames;
pub mod index;
pub mod input_format;
pub mod key_index;
pub mod losses;
pub mod manifest;
pub mod messages;
pub mod mqtt;
pub mod output_format;
pub mod produce_body;
pub mod quotas;
pub mod recovery;
pub mod retained;
pub mod rows;
pub mod sasl;
pub mod segment;
pub mod selector;
pub mod sessions;
pub mod shares;
pub mod snapshots;
pub mod summary;
pub mod thin_tiers;
pub mod time_spec;
pub mod wal;
pub mod witness;

use storage::fields::{ENVELOPE_HEADER_BYTES, envelope};

/// The file with length and checksum of its envelope made right, so that what lies behind the checksum is reached.
fn mend_envelope(magic: &[u8; 8], version: u32, bytes: &[u8]) -> Vec<u8> {
    envelope(
        magic,
        version,
        bytes.get(ENVELOPE_HEADER_BYTES..).unwrap_or_default(),
    )
}
