//! Copies single files of a backup or a restore, and hashes what it copies. Callers: `take` and `restore`.

use std::io;
use std::path::Path;

use model::hex::to_hex;
use sha2::{Digest as _, Sha256};

use super::error::BackupError;
use crate::io::{Disk, DiskFile, OpenHow};

/// Bytes that are read and written at once.
const CHUNK_BYTES: usize = 1 << 20;
/// Around a place that cannot be read, smaller pieces are tried.
const PIECE_BYTES: usize = 4096;

/// What was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Copied {
    pub bytes: u64,
    pub sha256: String,
    /// Bytes that the source's disk could not read, for which zeros stand.
    pub unreadable: u64,
}

/// Copies the first `bytes` bytes of a file into a new one, durably but for its name. Calls `each` with the bytes of each piece.
/// A file that is in the way, of an attempt before, is replaced.
pub(super) fn copy(
    disk: &dyn Disk,
    from: &dyn DiskFile,
    to: &Path,
    bytes: u64,
    each: &mut dyn FnMut(u64),
) -> Result<Copied, BackupError> {
    let target = create(disk, to)?;
    from.read_no_further();
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    let (mut position, mut unreadable) = (0, 0);
    while position < bytes {
        let wanted =
            usize::try_from(bytes - position).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        let piece = &mut buffer[..wanted];
        let (read, lost) = read_or_zeros(from, position, piece)
            .map_err(BackupError::io("read what is copied to", to))?;
        unreadable += lost;
        if read == 0 {
            break;
        }
        from.will_read(position + read as u64, CHUNK_BYTES as u64);
        hasher.update(&piece[..read]);
        target
            .write_at(position, &piece[..read])
            .map_err(BackupError::io("write", to))?;
        position += read as u64;
        each(read as u64);
    }
    assert!(
        position <= bytes && unreadable <= position,
        "no more is copied than was asked for"
    );
    target.sync_data().map_err(BackupError::io("sync", to))?;
    Ok(Copied {
        bytes: position,
        sha256: to_hex(hasher.finalize()),
        unreadable,
    })
}

/// Writes a small file, durably but for its name.
pub(super) fn write(disk: &dyn Disk, to: &Path, contents: &[u8]) -> Result<Copied, BackupError> {
    let target = create(disk, to)?;
    target
        .write_at(0, contents)
        .and_then(|()| target.sync_data())
        .map_err(BackupError::io("write", to))?;
    Ok(Copied {
        bytes: contents.len() as u64,
        sha256: sha256_of(contents),
        unreadable: 0,
    })
}

/// Makes a new file in place of one that may be there.
pub(super) fn create(
    disk: &dyn Disk,
    path: &Path,
) -> Result<std::sync::Arc<dyn DiskFile>, BackupError> {
    match disk.open(path, OpenHow::CreateNew) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        opened => return opened.map_err(BackupError::io("create", path)),
    }
    disk.remove_file(path)
        .map_err(BackupError::io("remove", path))?;
    disk.open(path, OpenHow::CreateNew)
        .map_err(BackupError::io("create", path))
}

/// The SHA-256 of a file's first bytes, past the page cache: what the disk gives back. None if the file is shorter.
pub(super) fn hash_file(
    file: &dyn DiskFile,
    bytes: u64,
    each: &mut dyn FnMut(u64),
) -> io::Result<Option<String>> {
    file.drop_cache()?;
    file.read_no_further();
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut position = 0;
    while position < bytes {
        let wanted =
            usize::try_from(bytes - position).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        let read = file.read_at(position, &mut buffer[..wanted])?;
        if read == 0 {
            return Ok(None);
        }
        position += read as u64;
        file.will_read(position, CHUNK_BYTES as u64);
        hasher.update(&buffer[..read]);
        each(read as u64);
    }
    Ok(Some(to_hex(hasher.finalize())))
}

/// Whether a file holds zeros only, from a position to its end.
pub(super) fn is_zeros(file: &dyn DiskFile, from: u64) -> io::Result<bool> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut position = from;
    loop {
        let read = file.read_at(position, &mut buffer)?;
        if read == 0 {
            return Ok(true);
        }
        if buffer[..read].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        position += read as u64;
    }
}

/// Writes zeros up to a length, so that the file never needs space again.
pub(super) fn fill(
    file: &dyn DiskFile,
    path: &Path,
    from: u64,
    length: u64,
) -> Result<(), BackupError> {
    let zeros = vec![0; CHUNK_BYTES];
    let mut position = from;
    while position < length {
        let wanted =
            usize::try_from(length - position).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        file.write_at(position, &zeros[..wanted])
            .map_err(BackupError::io("write", path))?;
        position += wanted as u64;
    }
    file.sync_data().map_err(BackupError::io("sync", path))
}

pub(super) fn sha256_of(bytes: &[u8]) -> String {
    to_hex(Sha256::digest(bytes))
}

/// Reads what can be read. Zeros stand for what the disk cannot read, and are counted.
pub(super) fn read_or_zeros(
    file: &dyn DiskFile,
    position: u64,
    into: &mut [u8],
) -> io::Result<(usize, u64)> {
    match file.read_at(position, into) {
        Err(error) if error.raw_os_error() == Some(libc::EIO) => {}
        read => return Ok((read?, 0)),
    }
    let end = file.len()?.saturating_sub(position);
    let wanted = usize::try_from(end).map_or(into.len(), |end| end.min(into.len()));
    let mut lost = 0;
    for (index, piece) in into[..wanted].chunks_mut(PIECE_BYTES).enumerate() {
        let at = position + (index * PIECE_BYTES) as u64;
        match file.read_exact_at(at, piece) {
            Err(error) if error.raw_os_error() == Some(libc::EIO) => {
                piece.fill(0);
                lost += piece.len() as u64;
            }
            read => read?,
        }
    }
    Ok((wanted, lost))
}
