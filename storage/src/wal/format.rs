//! The write-ahead log's frame, byte by byte. `docs/formats.md` draws it.
//!
//! A WAL file is a row of frames from position 0, each padded with zeros to [`FRAME_ALIGNMENT_BYTES`], so that a durable
//! sector is never written again. A frame is what the committer synced at once.
//!
//! ```text
//! 0  magic "WALF"            4
//! 4  version u16             2
//! 6  file length u16         2   of the file it was written into, in units of 64 KiB: a file that was cut is noticed
//! 8  store uuid             16
//! 24 file sequence u64       8   must equal the file's name: a recycled file's old frames never replay
//! 32 frame sequence u64      8   one more than the frame before
//! 40 durable sequence u64    8   every frame below this number was durable when this one was built
//! 48 append time i64         8   the broker's clock, milliseconds
//! 56 leader epoch u32        4
//! 60 entry count u32         4
//! 64 batch bytes u64         8   the batches' total length, after the table
//! 72 batch crc u32           4   CRC-32 (IEEE) of the batches
//! 76 head crc u32            4   CRC-32 (IEEE) of bytes 0..76 and of the entry table
//! 80 entry table            40 each: topic uuid 16, partition u32, kind u32, offset u64, bytes u32, offsets u32
//! .. batches, verbatim
//! ```
//! All integers are little-endian. Head and table have a checksum of their own, so that a damaged batch can still be named.

use bytes::Bytes;
use model::{LeaderEpoch, LogId, Offset, PartitionId, Timestamp, TopicId};
use uuid::Uuid;

/// The first bytes of a frame.
pub const FRAME_MAGIC: [u8; 4] = *b"WALF";
/// The version written here; another one is refused.
pub const FRAME_VERSION: u16 = 1;
/// Bytes before the entry table.
pub const FRAME_HEAD_BYTES: usize = 80;
/// Bytes of one entry of the table.
pub const FRAME_ENTRY_BYTES: usize = 40;
/// Frames begin at multiples of this.
pub const FRAME_ALIGNMENT_BYTES: u64 = 4096;
/// A WAL file's length is a multiple of this.
pub const FILE_UNIT_BYTES: u64 = 64 << 10;
/// More entries than this are never put into one frame.
pub const FRAME_ENTRIES_MAX: usize = 16_384;

/// What an entry of a frame says about its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A record batch, appended at the base offset.
    Batch,
    /// The log starts at the offset now: what lies before was deleted on request or by retention.
    StartRaised,
}

/// One entry of a frame's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameEntry {
    /// The log.
    pub log: LogId,
    /// What happened to it.
    pub kind: EntryKind,
    /// The batch's base offset, or the new start.
    pub offset: Offset,
    /// The batch's length; 0 for other kinds.
    pub bytes: u32,
    /// How many offsets the batch takes; 0 for other kinds. So that a batch that cannot be read is still known to its end.
    pub offsets: u32,
}

impl FrameEntry {
    /// The offset after the batch's last one; the new start for other kinds.
    pub fn end_offset(&self) -> Offset {
        self.offset.plus(self.offsets.into())
    }
}

/// A frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// The store that wrote it.
    pub store: Uuid,
    /// The file it was written into.
    pub file_sequence: u64,
    /// That file's length, in units of [`FILE_UNIT_BYTES`].
    pub file_units: u16,
    /// Its number.
    pub sequence: u64,
    /// Every frame below this number was durable when this one was built.
    pub durable_sequence: u64,
    /// When, by the broker's clock.
    pub append_time: Timestamp,
    /// The leader epoch that its batches were stamped with.
    pub leader_epoch: LeaderEpoch,
    /// How many entries the table has.
    pub entry_count: u32,
    /// The batches' total length.
    pub batch_bytes: u64,
    /// The batches' checksum.
    pub batch_crc: u32,
}

impl FrameHead {
    /// Bytes of head, table and batches, without the padding.
    pub fn plain_bytes(&self) -> u64 {
        self.table_end() + self.batch_bytes
    }

    /// Where the batches begin, counted from the frame's start.
    pub fn table_end(&self) -> u64 {
        (FRAME_HEAD_BYTES + self.entry_count as usize * FRAME_ENTRY_BYTES) as u64
    }

    /// The length of the file that it was written into.
    pub fn file_bytes(&self) -> u64 {
        u64::from(self.file_units) * FILE_UNIT_BYTES
    }

    /// Bytes that the frame takes in the file.
    pub fn padded_bytes(&self) -> u64 {
        self.plain_bytes().next_multiple_of(FRAME_ALIGNMENT_BYTES)
    }

    /// Reads the head's fields. None if this is no frame of this version, or if its counts cannot be.
    /// The head's checksum covers the table too and is checked by [`check_head`].
    pub fn parse(bytes: &[u8]) -> Option<FrameHead> {
        let head = bytes.first_chunk::<FRAME_HEAD_BYTES>()?;
        if head[..4] != FRAME_MAGIC || u16_at(head, 4) != FRAME_VERSION {
            return None;
        }
        let frame = FrameHead {
            store: Uuid::from_bytes(*head[8..24].first_chunk::<16>()?),
            file_units: u16_at(head, 6),
            file_sequence: u64_at(head, 24),
            sequence: u64_at(head, 32),
            durable_sequence: u64_at(head, 40),
            append_time: Timestamp::from_millis(u64_at(head, 48).cast_signed()),
            leader_epoch: LeaderEpoch::from_wire(u32_at(head, 56).cast_signed())?,
            entry_count: u32_at(head, 60),
            batch_bytes: u64_at(head, 64),
            batch_crc: u32_at(head, 72),
        };
        let possible = frame.entry_count as usize <= FRAME_ENTRIES_MAX
            && frame.batch_bytes <= u64::from(u32::MAX);
        possible.then_some(frame)
    }
}

/// The version of a frame that this store wrote into this file, and its table's length, if the version is not known.
pub fn unknown_version(
    bytes: &[u8],
    store: Option<Uuid>,
    file_sequence: u64,
) -> Option<(u16, usize)> {
    let head = bytes.first_chunk::<FRAME_HEAD_BYTES>()?;
    let version = u16_at(head, 4);
    let is_ours = store.is_none_or(|store| head[8..24] == *store.as_bytes());
    let count = u32_at(head, 60) as usize;
    let is_newer = head[..4] == FRAME_MAGIC
        && version != FRAME_VERSION
        && is_ours
        && u64_at(head, 24) == file_sequence
        && count <= FRAME_ENTRIES_MAX;
    is_newer.then_some((version, count * FRAME_ENTRY_BYTES))
}

/// Writes head and table of a frame into `out`. The caller appends the batches.
pub fn encode_head(frame: &FrameHead, entries: &[FrameEntry], out: &mut Vec<u8>) {
    assert!(
        entries.len() == frame.entry_count as usize,
        "the head counts the table"
    );
    out.clear();
    out.extend_from_slice(&FRAME_MAGIC);
    out.extend_from_slice(&FRAME_VERSION.to_le_bytes());
    out.extend_from_slice(&frame.file_units.to_le_bytes());
    out.extend_from_slice(frame.store.as_bytes());
    out.extend_from_slice(&frame.file_sequence.to_le_bytes());
    out.extend_from_slice(&frame.sequence.to_le_bytes());
    out.extend_from_slice(&frame.durable_sequence.to_le_bytes());
    out.extend_from_slice(&frame.append_time.millis().to_le_bytes());
    out.extend_from_slice(&frame.leader_epoch.get().to_le_bytes());
    out.extend_from_slice(&frame.entry_count.to_le_bytes());
    out.extend_from_slice(&frame.batch_bytes.to_le_bytes());
    out.extend_from_slice(&frame.batch_crc.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    assert!(out.len() == FRAME_HEAD_BYTES, "the head has its size");
    for entry in entries {
        out.extend_from_slice(&entry.log.topic_id.to_bytes());
        out.extend_from_slice(&entry.log.partition.get().to_le_bytes());
        let kind: u32 = match entry.kind {
            EntryKind::Batch => 1,
            EntryKind::StartRaised => 2,
        };
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(&entry.offset.get().to_le_bytes());
        out.extend_from_slice(&entry.bytes.to_le_bytes());
        out.extend_from_slice(&entry.offsets.to_le_bytes());
    }
    let crc = head_crc(out);
    out[76..80].copy_from_slice(&crc.to_le_bytes());
}

/// Whether head and table are as they were written. `bytes` holds exactly both.
pub fn check_head(bytes: &[u8]) -> bool {
    bytes.len() >= FRAME_HEAD_BYTES && u32_at(bytes, 76) == head_crc(bytes)
}

fn head_crc(head_and_table: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&head_and_table[..76]);
    crc.update(&head_and_table[FRAME_HEAD_BYTES..]);
    crc.finalize()
}

/// Reads the table of a frame whose head was checked. None if an entry is of a kind that is not known, or if the
/// entries' lengths do not add up.
pub fn parse_table(frame: &FrameHead, head_and_table: &[u8]) -> Option<Vec<FrameEntry>> {
    let table = &head_and_table[FRAME_HEAD_BYTES..];
    let mut entries = Vec::with_capacity(table.len() / FRAME_ENTRY_BYTES);
    let mut batch_bytes = 0;
    for row in table.chunks_exact(FRAME_ENTRY_BYTES) {
        let kind = match u32_at(row, 20) {
            1 => EntryKind::Batch,
            2 => EntryKind::StartRaised,
            _ => return None,
        };
        let topic_id = TopicId::from_bytes(*row.first_chunk::<16>()?);
        let partition = PartitionId::from_wire(u32_at(row, 16).cast_signed())?;
        let offset = Offset::from_wire(u64_at(row, 24).cast_signed())?;
        let bytes = u32_at(row, 32);
        let offsets = u32_at(row, 36);
        let holds_a_batch = kind == EntryKind::Batch;
        if (bytes > 0) != holds_a_batch || (offsets > 0) != holds_a_batch {
            return None;
        }
        offset
            .checked_plus(offsets.into())
            .filter(|end| *end < Offset::MAX)?;
        batch_bytes += u64::from(bytes);
        entries.push(FrameEntry {
            log: LogId::new(topic_id, partition),
            kind,
            offset,
            bytes,
            offsets,
        });
    }
    (batch_bytes == frame.batch_bytes && entries.len() == frame.entry_count as usize)
        .then_some(entries)
}

/// A WAL file's length as a frame's head carries it.
pub fn file_units(bytes: u64) -> u16 {
    u16::try_from(bytes / FILE_UNIT_BYTES).expect("a WAL file has at most 1 GiB")
}

/// A whole frame as it was read back.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its head.
    pub head: FrameHead,
    /// Its table.
    pub entries: Vec<FrameEntry>,
    /// Its batches, one after the other.
    pub batches: Bytes,
    /// Where the batches begin in the file.
    pub batches_position: u64,
    /// Whether the batches' checksum is right.
    pub intact: bool,
}

impl Frame {
    /// Each entry with its batch's position in the file and its bytes.
    pub fn parts(&self) -> impl Iterator<Item = (&FrameEntry, u64, Bytes)> {
        self.entries.iter().scan(0, |at, entry| {
            let start = *at;
            *at += entry.bytes as usize;
            let position = self.batches_position + start as u64;
            Some((entry, position, self.batches.slice(start..*at)))
        })
    }
}

fn u16_at(bytes: &[u8], position: usize) -> u16 {
    u16::from_le_bytes(
        *bytes[position..]
            .first_chunk::<2>()
            .expect("callers pass whole fields"),
    )
}

fn u32_at(bytes: &[u8], position: usize) -> u32 {
    u32::from_le_bytes(
        *bytes[position..]
            .first_chunk::<4>()
            .expect("callers pass whole fields"),
    )
}

fn u64_at(bytes: &[u8], position: usize) -> u64 {
    u64::from_le_bytes(
        *bytes[position..]
            .first_chunk::<8>()
            .expect("callers pass whole fields"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> (FrameHead, Vec<FrameEntry>) {
        let entries = vec![
            FrameEntry {
                log: LogId::OFFSETS,
                kind: EntryKind::Batch,
                offset: Offset::new(7),
                bytes: 61,
                offsets: 1,
            },
            FrameEntry {
                log: LogId::METADATA,
                kind: EntryKind::StartRaised,
                offset: Offset::new(9),
                bytes: 0,
                offsets: 0,
            },
        ];
        let head = FrameHead {
            store: Uuid::from_u128(0x0102),
            file_sequence: 3,
            file_units: 1024,
            sequence: 40,
            durable_sequence: 39,
            append_time: Timestamp::from_millis(-5),
            leader_epoch: LeaderEpoch::new(2),
            entry_count: 2,
            batch_bytes: 61,
            batch_crc: 77,
        };
        (head, entries)
    }

    #[test]
    fn a_head_and_its_table_come_back_as_written() {
        let (head, entries) = frame();
        let mut bytes = Vec::new();
        encode_head(&head, &entries, &mut bytes);
        assert_eq!(bytes.len() as u64, head.table_end());
        assert!(check_head(&bytes));
        assert_eq!(FrameHead::parse(&bytes), Some(head));
        assert_eq!(parse_table(&head, &bytes), Some(entries));
    }

    #[test]
    fn any_flipped_bit_of_head_or_table_is_noticed() {
        let (head, entries) = frame();
        let mut bytes = Vec::new();
        encode_head(&head, &entries, &mut bytes);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            let noticed = FrameHead::parse(&bytes).is_none() || !check_head(&bytes);
            assert!(noticed, "bit {bit} flipped unnoticed");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_cut_head_is_no_head() {
        let (head, entries) = frame();
        let mut bytes = Vec::new();
        encode_head(&head, &entries, &mut bytes);
        for len in 0..FRAME_HEAD_BYTES {
            assert_eq!(FrameHead::parse(&bytes[..len]), None);
        }
    }
}
