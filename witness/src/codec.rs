//! The codecs of record batches, by other people's crates alone.

use std::io::{self, Read};

/// No batch is decompressed to more than this: more than the engine takes for readable.
const BYTES_MAX: u64 = 256 << 20;

const XERIAL: &[u8] = b"\x82SNAPPY\0";

/// What a batch's records are before they are compressed by the codec of this number.
pub fn decompress(codec: u8, bytes: &[u8]) -> io::Result<Vec<u8>> {
    match codec {
        0 => Ok(bytes.to_vec()),
        1 => whole(flate2::read::MultiGzDecoder::new(bytes)),
        2 => snappy(bytes),
        3 => lz4(bytes),
        4 => whole(zstd::stream::read::Decoder::new(bytes)?),
        other => Err(io::Error::other(format!("codec {other} is not known"))),
    }
}

fn whole(from: impl Read) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    from.take(BYTES_MAX + 1).read_to_end(&mut out)?;
    match out.len() as u64 > BYTES_MAX {
        true => Err(too_long()),
        false => Ok(out),
    }
}

fn too_long() -> io::Error {
    io::Error::other("it is longer than 256 MiB")
}

/// One raw block, or xerial's framing of several.
fn snappy(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let block = |block: &[u8]| {
        let length = snap::raw::decompress_len(block).map_err(io::Error::other)?;
        if length as u64 > BYTES_MAX {
            return Err(too_long());
        }
        snap::raw::Decoder::new()
            .decompress_vec(block)
            .map_err(io::Error::other)
    };
    if !bytes.starts_with(XERIAL) {
        return block(bytes);
    }
    let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let (mut out, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        if rest.starts_with(XERIAL) {
            rest = rest.get(16..).ok_or_else(cut)?;
            continue;
        }
        let (length, after) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(io::Error::other)?;
        out.extend(block(after.get(..length).ok_or_else(cut)?)?);
        if out.len() as u64 > BYTES_MAX {
            return Err(too_long());
        }
        rest = &after[length..];
    }
    Ok(out)
}

/// Frames, one after the other.
fn lz4(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let mut decoder = lz4_flex::frame::FrameDecoder::new(&mut rest);
        let left = BYTES_MAX + 1 - out.len() as u64;
        let read = decoder.by_ref().take(left).read_to_end(&mut out)?;
        if out.len() as u64 > BYTES_MAX {
            return Err(too_long());
        }
        if read == 0 {
            break;
        }
    }
    Ok(out)
}
