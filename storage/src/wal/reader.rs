//! Reads frames back: for recovery and for the offline tools. Never writes.
//! A sector that the disk cannot read (EIO) is what a damaged one is: the frame that it belongs to is not there, or not
//! intact. Other errors are the caller's.

use std::io;

use bytes::Bytes;
use uuid::Uuid;

use super::format::{
    FRAME_ALIGNMENT_BYTES, FRAME_ENTRIES_MAX, FRAME_ENTRY_BYTES, FRAME_HEAD_BYTES, Frame,
    FrameHead, check_head, parse_table,
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
    let mut batches =
        vec![0; usize::try_from(head.batch_bytes).expect("bounded by the file's length")];
    let whole = unless_unreadable(file.read_exact_at(position + head.table_end(), &mut batches))?;
    if whole.is_none() {
        read_what_can_be_read(file, position + head.table_end(), &mut batches)?;
    }
    let intact = whole.is_some() && crc32fast::hash(&batches) == head.batch_crc;
    let batches_position = position + head.table_end();
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
    let mut bytes = [0; FRAME_HEAD_BYTES];
    let read = unless_unreadable(file.read_at(position, &mut bytes))?.unwrap_or(0);
    if read < FRAME_HEAD_BYTES {
        return Ok(None);
    }
    let head = FrameHead::parse(&bytes);
    Ok(head.filter(|head| head.store == store && head.file_sequence == file_sequence))
}

/// Looks for frames with a checked head at or after `position`, in steps of the alignment: what stands behind a place
/// that cannot be read. Gives each one's position and head.
pub fn scan_heads(
    file: &dyn DiskFile,
    store: Uuid,
    file_sequence: u64,
    position: u64,
) -> io::Result<Vec<(u64, FrameHead)>> {
    let file_bytes = file.len()?;
    let mut found = Vec::new();
    let mut at = position.next_multiple_of(FRAME_ALIGNMENT_BYTES);
    while at < file_bytes {
        let head = read_head(file, store, file_sequence, at)?;
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
            None => at += FRAME_ALIGNMENT_BYTES,
        }
    }
    Ok(found)
}
