//! Record batches of Kafka's magic 2: reading, checking, stamping, rewriting, building.
//!
//! Called by the broker (check and rewrite what producers send), by storage (split, stamp), by the client (build, read).
//! Invariants: a [`Batch`] is exactly one whole batch whose length, magic, counts and checksum hold; nothing panics on any
//! input, and nothing is allocated by a count or a length that a batch claims.
//! Source: Kafka's `DefaultRecordBatch` and `DefaultRecord`.
//!
//! ```text
//! position  bytes  field (big-endian)
//!        0      8  base offset                         \
//!        8      4  length: bytes after this field       | outside the checksum
//!       12      4  partition leader epoch               |
//!       16      1  magic = 2                           /
//!       17      4  CRC-32C of everything from 21 on
//!       21      2  attributes: 0-2 codec, 3 log append time, 4 transactional, 5 control, 6 delete horizon
//!       23      4  last offset delta
//!       27      8  base timestamp (of the first record; the delete horizon if bit 6 is set)
//!       35      8  max timestamp
//!       43      8  producer id, or -1
//!       51      2  producer epoch, or -1
//!       53      4  base sequence, or -1
//!       57      4  record count
//!       61         records, compressed as a whole
//! ```

mod builder;
mod empty;
mod filter;
mod header;
mod records;
mod rewrite;

use bytes::Bytes;

/// The header that says what a record is called where its key does not: the MQTT topic that it was published to.
pub const NAME_HEADER: &str = "mqtt.topic";

pub use crate::codec::{Codec, CodecError, Compression, DecompressLimit};
pub use builder::{BatchBuilder, BuildError, HeaderRef, RecordBody};
pub use empty::without_records;
pub use filter::{Filter, Filtered, Rest};
pub use header::{Attributes, BatchHeader, TimestampType};
pub use records::{HeaderRefs, Record, RecordFrame, RecordHeader, RecordRef, Records};
pub use rewrite::{
    RecordsSummary, recompress, records_summary, with_log_append_time, with_max_timestamp,
};

use crate::{LeaderEpoch, Offset};

/// The bytes before the records.
pub const HEADER_BYTES: usize = 61;
/// The bytes before those that the length field counts.
pub const LENGTH_PREFIX_BYTES: usize = 12;
/// The only magic that is understood.
pub const MAGIC: i8 = 2;
/// The first bytes of a batch, which [`stamp`] writes: none of them is under the checksum.
pub const STAMP_BYTES: usize = 16;

pub(crate) const POSITION_LENGTH: usize = 8;
pub(crate) const POSITION_LEADER_EPOCH: usize = 12;
pub(crate) const POSITION_MAGIC: usize = 16;
pub(crate) const POSITION_CRC: usize = 17;
pub(crate) const POSITION_ATTRIBUTES: usize = 21;
pub(crate) const POSITION_MAX_TIMESTAMP: usize = 35;

const _: () = assert!(POSITION_LEADER_EPOCH + 4 == STAMP_BYTES && STAMP_BYTES == POSITION_MAGIC);
const _: () =
    assert!(POSITION_CRC + 4 == POSITION_ATTRIBUTES && POSITION_ATTRIBUTES < HEADER_BYTES);

/// What is wrong with a batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end before the batch does.
    #[error("batch cut short: {have} of {need} bytes")]
    Truncated {
        /// How many bytes there are.
        have: usize,
        /// How many there should be, as far as one can tell.
        need: usize,
    },
    /// A length field that no batch can have.
    #[error("batch length field is {length}, the least is {least}", least = HEADER_BYTES - LENGTH_PREFIX_BYTES)]
    Length {
        /// The field.
        length: i32,
    },
    /// Bytes after the batch, where exactly one was expected.
    #[error("{bytes} bytes after the end of the batch")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// A message format other than 2.
    #[error("message format {found}, only 2 is understood")]
    Magic {
        /// The magic byte.
        found: i8,
    },
    /// The checksum does not match the bytes.
    #[error(
        "batch crc mismatch: stored {stored:08x}, computed {computed:08x}, base offset {base_offset}"
    )]
    Crc {
        /// What the header says.
        stored: u32,
        /// What the bytes give.
        computed: u32,
        /// The batch's base offset.
        base_offset: i64,
    },
    /// Offsets or counts that contradict each other or lie outside their range.
    #[error(
        "batch counts are impossible: base offset {base_offset}, last offset delta {last_offset_delta}, {record_count} records"
    )]
    Count {
        /// The base offset field.
        base_offset: i64,
        /// The last offset delta field.
        last_offset_delta: i32,
        /// The record count field.
        record_count: i32,
    },
    /// A codec number that is not in use.
    #[error("unknown codec number {bits}")]
    UnknownCodec {
        /// The number.
        bits: i16,
    },
    /// The records do not decompress.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A record that is not well-formed, or records that do not match the header's count.
    #[error("malformed record {index}: {reason}")]
    Record {
        /// Which one in the batch, from 0.
        index: u32,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// One whole, checked batch. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    bytes: Bytes,
    header: BatchHeader,
}

impl Batch {
    /// Takes exactly one batch and checks length, magic, counts and CRC-32C. Records are not looked into.
    pub fn parse(bytes: Bytes) -> Result<Batch, BatchError> {
        let batch = Batch::parse_unverified(bytes)?;
        batch.verify_crc()?;
        Ok(batch)
    }

    /// Like [`Batch::parse`], without computing the checksum: for bytes that were verified before.
    pub fn parse_unverified(bytes: Bytes) -> Result<Batch, BatchError> {
        let header = BatchHeader::parse(&bytes)?;
        let need = header.total_bytes();
        if bytes.len() < need {
            return Err(BatchError::Truncated {
                have: bytes.len(),
                need,
            });
        }
        if bytes.len() > need {
            return Err(BatchError::Trailing {
                bytes: bytes.len() - need,
            });
        }
        Ok(Batch { bytes, header })
    }

    /// Computes the checksum and compares.
    pub fn verify_crc(&self) -> Result<(), BatchError> {
        let computed = crc32c(&self.bytes[POSITION_ATTRIBUTES..]);
        if computed == self.header.crc {
            return Ok(());
        }
        Err(BatchError::Crc {
            stored: self.header.crc,
            computed,
            base_offset: self.header.base_offset,
        })
    }

    /// The header's fields.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The whole batch as it stands on disk and on the wire.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The whole batch as it stands on disk and on the wire.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// The records as they stand in the batch, still compressed.
    pub fn compressed_records(&self) -> Bytes {
        self.bytes.slice(HEADER_BYTES..)
    }

    /// The records, decompressed to at most `limit` bytes. Each one is checked as it is reached.
    pub fn records(&self, limit: DecompressLimit) -> Result<Records, BatchError> {
        let codec = self.header.codec()?;
        let payload = crate::codec::decompress(codec, &self.compressed_records(), limit)?;
        Ok(Records::new(&self.header, payload))
    }
}

/// Cuts consecutive batches apart. After the first error nothing more comes.
/// A cut last batch, as a fetch response may end with, is the error `Truncated`.
pub fn split(bytes: Bytes) -> Split {
    Split {
        rest: bytes,
        verify: true,
    }
}

/// Like [`split`], without computing checksums.
pub fn split_unverified(bytes: Bytes) -> Split {
    Split {
        rest: bytes,
        verify: false,
    }
}

/// Iterator of [`split`].
#[derive(Clone, Debug)]
pub struct Split {
    rest: Bytes,
    verify: bool,
}

impl Split {
    /// What has not been cut off yet.
    pub fn rest(&self) -> &Bytes {
        &self.rest
    }

    fn next_batch(&mut self) -> Result<Batch, BatchError> {
        let header = BatchHeader::parse(&self.rest)?;
        let need = header.total_bytes();
        if self.rest.len() < need {
            return Err(BatchError::Truncated {
                have: self.rest.len(),
                need,
            });
        }
        let batch = Batch {
            bytes: self.rest.split_to(need),
            header,
        };
        if self.verify {
            batch.verify_crc()?;
        }
        Ok(batch)
    }
}

impl Iterator for Split {
    type Item = Result<Batch, BatchError>;

    fn next(&mut self) -> Option<Result<Batch, BatchError>> {
        if self.rest.is_empty() {
            return None;
        }
        let result = self.next_batch();
        if result.is_err() {
            self.rest = Bytes::new();
        }
        Some(result)
    }
}

/// How long the batch is that begins here, all of it, told by its first twelve bytes. None if there are fewer, or if the
/// length field is one that no batch has.
pub fn peek_len(bytes: &[u8]) -> Option<usize> {
    let length = bytes
        .get(POSITION_LENGTH..LENGTH_PREFIX_BYTES)?
        .first_chunk::<4>()?;
    let length = usize::try_from(i32::from_be_bytes(*length)).ok()?;
    (length >= HEADER_BYTES - LENGTH_PREFIX_BYTES).then_some(length + LENGTH_PREFIX_BYTES)
}

/// Writes base offset and leader epoch over a batch's first bytes. The length between them stays, and so does the
/// checksum, which covers none of these.
pub fn stamp(head: &mut [u8; STAMP_BYTES], base: Offset, epoch: LeaderEpoch) {
    head[..POSITION_LENGTH].copy_from_slice(&base.to_wire().to_be_bytes());
    head[POSITION_LEADER_EPOCH..].copy_from_slice(&epoch.to_wire().to_be_bytes());
}

/// A batch's first bytes with base offset and leader epoch put in: `[stamped_head][&bytes[STAMP_BYTES..]]` is the
/// stamped batch, without a copy of the records.
pub fn stamped_head(batch: &Batch, base: Offset, epoch: LeaderEpoch) -> [u8; STAMP_BYTES] {
    let mut head = *batch
        .bytes
        .first_chunk::<STAMP_BYTES>()
        .expect("a parsed batch has a whole header");
    stamp(&mut head, base, epoch);
    head
}

/// CRC-32C of a batch's bytes from position 21 on, for a batch that is not in memory as a whole.
#[derive(Clone, Debug)]
pub struct BodyChecksum(crc_fast::Digest);

impl Default for BodyChecksum {
    fn default() -> BodyChecksum {
        BodyChecksum(crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi))
    }
}

impl BodyChecksum {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all bytes that were taken, as [`BatchHeader::crc`] holds it.
    pub fn value(&self) -> u32 {
        u32::try_from(self.0.finalize()).expect("a CRC-32 has 32 bits")
    }
}

/// CRC-32C (Castagnoli), as record batches carry it.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}
