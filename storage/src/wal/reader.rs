//! Reads frames back: for recovery and for the offline tools. Never writes.
//! A sector that the disk cannot read (EIO) is what a damaged one is: the frame that it belongs to is not there, or not
//! intact. Other errors are the caller's.

use std::io;

use bytes::Bytes;
use uuid::Uuid;

use super::format::{
    FRAME_ALIGNMENT_BYTES, FRAME_ENTRIES_MAX, FRAME_ENTRY_BYTES, FRAME_HEAD_BYTES, FRAME_MAGIC,
    Frame, FrameHead, check_head, parse_table, unknown_version,
};
use crate::io::DiskFile;

/// Reads the frame at `position`, if there is one that this store wrote into this file. A frame whose batches are damaged
/// is given with `intact == false`: its table still says what it held.
pub fn read_frame(
    file: &dyn DiskFile,
    store: Uuid,
    file_sequence: u64,
    position: u64,
) -> io::Result<Option<Frame>> {
    let Some(head) = read_head(file, store, file_sequence, position)? else {
        return Ok(None);
    };
    let file_bytes = file.len()?;
    if head.plain_bytes() > file_bytes.saturating_sub(position) {
        return Ok(None);
    }
    let table_end = usize::try_from(head.table_end()).expect("bounded by the entry count");
    let mut head_and_table = vec![0; table_end];
    let readable = unless_unreadable(file.read_exact_at(position, &mut head_and_table))?;
    if readable.is_none() || !check_head(&head_and_table) {
        return Ok(None);
    }
    let Some(entries) = parse_table(&head, &head_and_table) else {
        return Ok(None);
    };
    let batches_position = position + head.table_end();
    let count = usize::try_from(head.batch_bytes).expect("bounded by the file's length");
    let whole = unless_unreadable(file.read_new(batches_position, count))?;
    let intact = whole
        .as_deref()
        .is_some_and(|batches| crc32fast::hash(batches) == head.batch_crc);
    let batches = match whole {
        Some(batches) => batches,
        None => {
            let mut batches = vec![0; count];
            read_what_can_be_read(file, batches_position, &mut batches)?;
            batches
        }
    };
    Ok(Some(Frame {
        head,
        entries,
        batches: Bytes::from(batches),
        batches_position,
        intact,
    }))
}

/// The store that wrote the first frame of a file that can be read, whichever it is.
pub fn first_store(file: &dyn DiskFile, file_sequence: u64) -> io::Result<Option<Uuid>> {
    let file_bytes = file.len()?;
    let mut at = 0;
    while at < file_bytes {
        let mut bytes = [0; FRAME_HEAD_BYTES];
        let read = unless_unreadable(file.read_at(at, &mut bytes))?.unwrap_or(0);
        let head = FrameHead::parse(&bytes).filter(|_| read == FRAME_HEAD_BYTES);
        if let Some(head) = head.filter(|head| head.file_sequence == file_sequence) {
            return Ok(Some(head.store));
        }
        at += FRAME_ALIGNMENT_BYTES;
    }
    Ok(None)
}

/// None if the disk says that a sector cannot be read.
fn unless_unreadable<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Block by block; zeros stand for what cannot be read.
fn read_what_can_be_read(file: &dyn DiskFile, position: u64, into: &mut [u8]) -> io::Result<()> {
    let mut at = position;
    let mut rest = into;
    while !rest.is_empty() {
        let to_boundary = FRAME_ALIGNMENT_BYTES - at % FRAME_ALIGNMENT_BYTES;
        let count = rest
            .len()
            .min(usize::try_from(to_boundary).expect("at most a block"));
        let (block, later) = rest.split_at_mut(count);
        if unless_unreadable(file.read_exact_at(at, block))?.is_none() {
            block.fill(0);
        }
        at += count as u64;
        rest = later;
    }
    Ok(())
}

/// Reads a frame's head without looking at its table or batches.
fn read_head(
    file: &dyn DiskFile,
    store: Uuid,
    file_sequence: u64,
    position: u64,
) -> io::Result<Option<FrameHead>> {
    let bytes = head_bytes(file, position)?;
    Ok(bytes.and_then(|bytes| head_of(&bytes, store, file_sequence)))
}

fn head_bytes(file: &dyn DiskFile, position: u64) -> io::Result<Option<[u8; FRAME_HEAD_BYTES]>> {
    let mut bytes = [0; FRAME_HEAD_BYTES];
    let read = unless_unreadable(file.read_at(position, &mut bytes))?;
    Ok((read == Some(FRAME_HEAD_BYTES)).then_some(bytes))
}

fn head_of(bytes: &[u8], store: Uuid, file_sequence: u64) -> Option<FrameHead> {
    FrameHead::parse(bytes)
        .filter(|head| head.store == store && head.file_sequence == file_sequence)
}

/// The version of the frame at `position`, if it is whole and of a version that is not known. Every version keeps the
/// places of magic, version, store, file sequence and entry count, the table's length, and what the head's checksum covers.
/// Without `store`, any store's frame is taken.
pub fn newer_at(
    file: &dyn DiskFile,
    store: Option<Uuid>,
    file_sequence: u64,
    position: u64,
) -> io::Result<Option<u16>> {
    let mut bytes = vec![0; FRAME_HEAD_BYTES];
    let read = unless_unreadable(file.read_at(position, &mut bytes))?.unwrap_or(0);
    let Some((version, table_bytes)) = unknown_version(&bytes[..read], store, file_sequence) else {
        return Ok(None);
    };
    bytes.resize(FRAME_HEAD_BYTES + table_bytes, 0);
    let read = unless_unreadable(file.read_at(position, &mut bytes))?;
    Ok((read == Some(bytes.len()) && check_head(&bytes)).then_some(version))
}

/// Looks for frames with a checked head at or after `position`, in steps of the alignment: what stands behind a place
/// that cannot be read. Gives each one's position and head.
pub fn scan_heads(
    file: &dyn DiskFile,
    store: Uuid,
    file_sequence: u64,
    position: u64,
) -> io::Result<Vec<(u64, FrameHead)>> {
    Ok(scan(file, store, file_sequence, position)?.heads)
}

/// What a scan has found.
#[derive(Debug, Default)]
pub struct Scan {
    /// Frames with a checked head, each with its position.
    pub heads: Vec<(u64, FrameHead)>,
    /// Position and version of the first whole frame of a version that is not known.
    pub newer: Option<(u64, u16)>,
}

/// Like [`scan_heads`], and tells of frames that a later release wrote.
pub fn scan(
    file: &dyn DiskFile,
    store: Uuid,
    file_sequence: u64,
    position: u64,
) -> io::Result<Scan> {
    let file_bytes = file.len()?;
    let mut found = Vec::new();
    let mut newer = None;
    let mut at = position.next_multiple_of(FRAME_ALIGNMENT_BYTES);
    while at < file_bytes {
        let begin = head_bytes(file, at)?;
        let head = begin.and_then(|begin| head_of(&begin, store, file_sequence));
        let checked = match head {
            Some(head) if head.plain_bytes() <= file_bytes - at => {
                let mut bytes = vec![
                    0;
                    FRAME_HEAD_BYTES
                        + (head.entry_count as usize).min(FRAME_ENTRIES_MAX)
                            * FRAME_ENTRY_BYTES
                ];
                let readable = unless_unreadable(file.read_exact_at(at, &mut bytes))?;
                (readable.is_some() && check_head(&bytes)).then_some(head)
            }
            _ => None,
        };
        match checked {
            Some(head) => {
                found.push((at, head));
                at += head.padded_bytes();
            }
            None => {
                if newer.is_none()
                    && begin.is_some_and(|begin| begin[..4] == FRAME_MAGIC)
                    && let Some(version) = newer_at(file, Some(store), file_sequence, at)?
                {
                    newer = Some((at, version));
                }
                at += FRAME_ALIGNMENT_BYTES;
            }
        }
    }
    Ok(Scan {
        heads: found,
        newer,
    })
}
