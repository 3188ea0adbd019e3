//! The file `STORE`: who the store is, in two copies, so that one bad sector does not orphan the data.
//!
//! Callers: a start, once, and the offline verification.

use std::io;
use std::path::Path;

use uuid::Uuid;

use crate::error::OpenError;
use crate::fields::{FormatError, envelope, open_envelope};
use crate::io::{Disk, read_file, write_new_file};

pub(crate) const STORE_MAGIC: &[u8; 8] = b"logstore";
pub(crate) const STORE_VERSION: u32 = 1;
/// Each of the two copies of the store's identity has a block of its own.
pub(crate) const STORE_COPY_BYTES: usize = 4096;

/// Marks a directory into which a backup is being restored. It goes when all of it is durable and checked.
pub(crate) const RESTORING_FILE: &str = "RESTORING";

/// Why a directory cannot be opened into which a backup is being restored, or was until something stopped it.
pub(crate) fn is_being_restored(disk: &dyn Disk, directory: &Path) -> io::Result<Option<String>> {
    let marker = directory.join(RESTORING_FILE);
    Ok(disk.exists(&marker)?.then(|| {
        "a backup is being restored into this directory, and that has not come to its end: run the same `restore` again, which \
         goes on where it was"
            .to_owned()
    }))
}

/// Who the store is: `STORE`, with two copies inside, so that one bad sector does not orphan the data.
pub(crate) fn open_store_file(
    disk: &dyn Disk,
    directory: &Path,
) -> Result<(Uuid, bool), OpenError> {
    let path = directory.join("STORE");
    if !disk
        .exists(&path)
        .map_err(OpenError::io("look for", &path))?
    {
        let missing =
            store_is_missing(disk, directory).map_err(OpenError::io("list", directory))?;
        if let Some(reason) = missing {
            return Err(OpenError::Format { path, reason });
        }
        let store = Uuid::new_v4();
        let temporary = directory.join("STORE.new");
        if disk
            .exists(&temporary)
            .map_err(OpenError::io("look for", &temporary))?
        {
            disk.remove_file(&temporary)
                .map_err(OpenError::io("remove", &temporary))?;
        }
        write_new_file(disk, &temporary, &encode_store(store))
            .map_err(OpenError::io("write", &temporary))?;
        disk.rename(&temporary, &path)
            .map_err(OpenError::io("create", &path))?;
        disk.sync_dir(directory)
            .map_err(OpenError::io("sync", directory))?;
        return Ok((store, true));
    }
    let bytes = read_file(disk, &path, 1 << 20).map_err(OpenError::io("read", &path))?;
    match decode_store(&bytes) {
        Ok(store) => Ok((store, false)),
        Err(error) => Err(OpenError::Format {
            path,
            reason: store_trouble(&error),
        }),
    }
}

/// The bytes of `STORE`.
pub(crate) fn encode_store(store: Uuid) -> Vec<u8> {
    let mut copy = envelope(STORE_MAGIC, STORE_VERSION, store.as_bytes());
    copy.resize(STORE_COPY_BYTES, 0);
    copy.repeat(2)
}

/// Reads the store's identity from whichever copy is whole.
pub fn decode_store(bytes: &[u8]) -> Result<Uuid, FormatError> {
    let mut trouble = FormatError::Truncated {
        have: bytes.len(),
        need: STORE_COPY_BYTES,
    };
    for copy in bytes.chunks(STORE_COPY_BYTES) {
        match open_envelope(STORE_MAGIC, STORE_VERSION, copy) {
            Ok(opened) => match <[u8; 16]>::try_from(opened.body) {
                Ok(uuid) => return Ok(Uuid::from_bytes(uuid)),
                Err(_) => {
                    trouble = FormatError::Field {
                        field: "length of the store's id",
                        value: opened.body.len() as i128,
                    };
                }
            },
            Err(error) => trouble = error,
        }
    }
    Err(trouble)
}

/// What to do about a missing `STORE`; None if the directory is none of a store's yet.
pub(crate) fn store_is_missing(disk: &dyn Disk, directory: &Path) -> io::Result<Option<String>> {
    let wal = directory.join("wal");
    let is_store = disk.exists(&wal)? && !disk.list(&wal)?.is_empty();
    Ok(is_store.then(|| {
        "it is missing, though the directory holds a write-ahead log. It does not change after the store is created: put the \
         one from any copy of this data directory in its place"
            .to_owned()
    }))
}

/// What is wrong with `STORE`, and what to do about it.
pub(crate) fn store_trouble(error: &FormatError) -> String {
    format!(
        "neither of its two copies can be read ({error}). Without it the store does not open. It does not change after the \
         store is created: put the one from any copy of this data directory in its place"
    )
}

/// Why a store without a checkpoint does not start, and what to do.
pub(crate) fn no_checkpoint(trouble: &[String]) -> String {
    format!(
        "no checkpoint can be read, though partitions have settled ({}). Restore the data directory from a copy: a checkpoint \
         alone is of use only with the write-ahead log of the same moment",
        trouble.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &[u8] = include_bytes!("../../tests/golden/store.v1");

    #[test]
    fn store_v1() {
        let store = Uuid::from_bytes(*b"golden store id ");
        assert_eq!(encode_store(store), GOLDEN);
        assert_eq!(decode_store(GOLDEN), Ok(store));
    }

    #[test]
    fn a_store_is_known_from_either_copy_and_never_from_a_damaged_one() {
        let store = decode_store(GOLDEN).unwrap();
        for bit in 0..36 * 8 {
            let mut bytes = GOLDEN.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                decode_store(&bytes),
                Ok(store),
                "bit {bit} of the first copy"
            );
            bytes[STORE_COPY_BYTES + bit / 8] ^= 1 << (bit % 8);
            assert!(decode_store(&bytes).is_err(), "bit {bit} of both copies");
        }
        for len in 0..STORE_COPY_BYTES + 36 {
            let whole = decode_store(&GOLDEN[..len]);
            assert_eq!(whole.is_ok(), len >= 36, "cut at {len}");
        }
    }
}
