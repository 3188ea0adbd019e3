//! Reads frames back: for recovery and for the offline tools. Never writes.

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
    file.read_exact_at(position, &mut head_and_table)?;
    if !check_head(&head_and_table) {
        return Ok(None);
    }
    let Some(entries) = parse_table(&head, &head_and_table) else {
        return Ok(None);
    };
    let mut batches =
        vec![0; usize::try_from(head.batch_bytes).expect("bounded by the file's length")];
    file.read_exact_at(position + head.table_end(), &mut batches)?;
    let intact = crc32fast::hash(&batches) == head.batch_crc;
    let batches_position = position + head.table_end();
    Ok(Some(Frame {
        head,
        entries,
        batches: Bytes::from(batches),
        batches_position,
        intact,
    }))
}

/// Reads a frame's head without looking at its table or batches.
fn read_head(
    file: &dyn DiskFile,
    store: Uuid,
    file_sequence: u64,
    position: u64,
) -> io::Result<Option<FrameHead>> {
    let mut bytes = [0; FRAME_HEAD_BYTES];
    if file.read_at(position, &mut bytes)? < FRAME_HEAD_BYTES {
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
                file.read_exact_at(at, &mut bytes)?;
                check_head(&bytes).then_some(head)
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
