//! Where a start goes on writing: behind the last frame of the last file, or at the front of a spare one.
//!
//! Caller: `Storage::open`, once, after the replay and before the first write. Spare files are wanted, not needed: on a full
//! disk, or with every file of the pool in use, the last file is written on, because a store that is whole must start.
//! Invariant: nothing that was promised lies behind the position that is given.

use std::io;
use std::sync::Arc;

use super::format::FRAME_ALIGNMENT_BYTES;
use super::pool::{WalFile, WalPool, is_full};

/// A file with less room than this is not written on while there is a spare one.
const ROOM_BYTES: u64 = 64 << 10;
/// Bytes of zeros written at once.
const ZERO_CHUNK_BYTES: usize = 1 << 20;

/// How the last file that the replay needs ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LastEnd {
    /// Behind a whole frame, or at the front, with nothing after it.
    Clean(u64),
    /// Behind a whole frame, with the torn rest of what was never acknowledged after it.
    Torn(u64),
    /// There is no file, or one whose end cannot be read.
    #[default]
    Unusable,
}

/// Makes spare files ready, and gives the position at which the last of `files` goes on. A spare file is appended to `files`
/// if that is where it goes on. Errors: the disk's; that it is full only if no file can be written on.
pub fn resume(pool: &WalPool, files: &mut Vec<Arc<WalFile>>, end: LastEnd) -> io::Result<u64> {
    let full = prepare_spares(pool)?;
    let room = |bytes: u64| {
        let last = files.last()?;
        let at = match end {
            LastEnd::Clean(at) | LastEnd::Torn(at) => at,
            LastEnd::Unusable => return None,
        };
        let end = last.bytes.min(pool.file_bytes_limit());
        (at + bytes <= end).then_some((last, at))
    };
    if let (LastEnd::Clean(_), Some((_, at))) = (end, room(ROOM_BYTES)) {
        return Ok(at);
    }
    if let Some(spare) = pool.take() {
        files.push(spare);
        return Ok(0);
    }
    if let Some((last, at)) = room(FRAME_ALIGNMENT_BYTES) {
        if end == LastEnd::Torn(at) {
            erase(last, at)?;
        }
        return Ok(at);
    }
    if let Some(full) = full {
        return Err(full);
    }
    pool.prepare_beyond_bound()?;
    let spare = pool
        .take()
        .ok_or_else(|| io::Error::other("no file of the write-ahead log could be made"))?;
    files.push(spare);
    Ok(0)
}

/// Makes as many files ready as the pool keeps. Gives the error if the disk is too full for that.
fn prepare_spares(pool: &WalPool) -> io::Result<Option<io::Error>> {
    loop {
        match pool.prepare_one() {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(error) if is_full(&error) => {
                tracing::warn!(%error, "no room for a spare file of the write-ahead log: the store starts without it, and refuses appends when what it has is used up");
                return Ok(Some(error));
            }
            Err(error) => return Err(error),
        }
    }
}

/// Overwrites a torn rest with zeros, so that none of its frames can be read behind the next one. That takes no space. Cut
/// short, it leaves a torn rest again.
fn erase(file: &WalFile, from: u64) -> io::Result<()> {
    let zeros = vec![0; ZERO_CHUNK_BYTES];
    let mut at = from;
    while at < file.bytes {
        let bytes = usize::try_from(file.bytes - at)
            .unwrap_or(usize::MAX)
            .min(zeros.len());
        file.file.write_at(at, &zeros[..bytes])?;
        at += bytes as u64;
    }
    file.file.sync_data()
}
