//! A search for bytes in all files of a directory, as plain as can be: the files as they are, and whatever in them can be taken for
//! a compressed record batch or a zstd frame, at every position, decompressed. It shares no code with the store or with its witness.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use memchr::{memchr_iter, memmem};

/// Where some bytes were found: the file, and how.
pub fn find(directory: &Path, needle: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for path in files(directory) {
        // A file may go away meanwhile.
        let Ok(bytes) = std::fs::read(&path) else {
            continue;
        };
        if holds(&bytes, needle) {
            found.push(format!("{}: as it is", path.display()));
        }
        for (position, plain) in frames(&bytes) {
            if holds(&plain, needle) {
                found.push(format!("{}: in a frame at {position}", path.display()));
            }
        }
        for (position, codec, packed) in batches(&bytes) {
            if unpack(codec, packed).is_some_and(|plain| holds(&plain, needle)) {
                found.push(format!(
                    "{}: in a batch at {position} (codec {codec})",
                    path.display()
                ));
            }
        }
    }
    found
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(files(&path)),
            path => found.push(path),
        }
    }
    found
}

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    memmem::find(bytes, needle).is_some()
}

/// What may be compressed batches: position, codec, and what follows the head.
fn batches(bytes: &[u8]) -> impl Iterator<Item = (usize, u8, &[u8])> {
    let number =
        |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four")) as usize;
    // Byte 16 of a batch is 2.
    memchr_iter(2, bytes).filter_map(move |mark| {
        let at = mark.checked_sub(16)?;
        let packed_at = at + 61;
        let codec = bytes.get(at + 22)? & 7;
        let length = (1..=4).contains(&codec).then(|| number(at + 8))?;
        let end = at.checked_add(12)?.checked_add(length)?;
        let packed = (length > 49).then(|| bytes.get(packed_at..end))??;
        Some((at, codec, packed))
    })
}

/// What may be a zstd frame by itself, as the pages of Parquet files are: position, and what it holds as far as it can be read.
fn frames(bytes: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> {
    const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
    let starts: Vec<usize> = memmem::find_iter(bytes, &MAGIC).collect();
    starts.into_iter().filter_map(|at| {
        let mut plain = Vec::new();
        let frame = zstd::stream::read::Decoder::new(&bytes[at..]).ok()?;
        // What breaks off is searched up to there.
        let _ = frame.single_frame().read_to_end(&mut plain);
        Some((at, plain))
    })
}

fn unpack(codec: u8, packed: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    match codec {
        1 => flate2::read::GzDecoder::new(packed)
            .read_to_end(&mut plain)
            .ok()?,
        2 if packed.starts_with(b"\x82SNAPPY\0") => {
            let mut rest = packed.get(16..)?;
            while let Some((length, after)) = rest.split_first_chunk::<4>() {
                let block = after.get(..u32::from_be_bytes(*length) as usize)?;
                plain.extend(snap::raw::Decoder::new().decompress_vec(block).ok()?);
                rest = &after[block.len()..];
            }
            plain.len()
        }
        2 => {
            plain = snap::raw::Decoder::new().decompress_vec(packed).ok()?;
            plain.len()
        }
        3 => lz4_flex::frame::FrameDecoder::new(packed)
            .read_to_end(&mut plain)
            .ok()?,
        _ => zstd::stream::read::Decoder::new(packed)
            .ok()?
            .read_to_end(&mut plain)
            .ok()?,
    };
    Some(plain)
}
