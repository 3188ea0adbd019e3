//! A search for bytes in all files of a directory, as plain as can be: the files as they are, and whatever in them can be taken for
//! a compressed record batch, at every position, decompressed. It shares no code with the store or with its witness.

use std::io::Read as _;
use std::path::{Path, PathBuf};

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
    let Some(first) = needle.first() else {
        return false;
    };
    let starts = bytes.iter().enumerate().filter(|(_, byte)| *byte == first);
    starts
        .into_iter()
        .any(|(at, _)| bytes[at..].starts_with(needle))
}

/// What may be compressed batches: position, codec, and what follows the head.
fn batches(bytes: &[u8]) -> impl Iterator<Item = (usize, u8, &[u8])> {
    let number =
        |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four")) as usize;
    (0..bytes.len().saturating_sub(61)).filter_map(move |at| {
        let (magic, codec) = (bytes[at + 16], bytes[at + 22] & 7);
        let length = (magic == 2 && (1..=4).contains(&codec)).then(|| number(at + 8))?;
        let end = at.checked_add(12)?.checked_add(length)?;
        (length > 49 && end <= bytes.len()).then(|| (at, codec, &bytes[at + 61..end]))
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
