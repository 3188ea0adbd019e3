//! LZ4's frame format, over lz4_flex's blocks. Source: `lz4_Frame_format.md` 1.6.
//!
//! ```text
//! frame: 04 22 4d 18 | FLG u8 | BD u8 | [content bytes u64 LE] | [dictionary u32 LE] | header checksum u8
//!        | { block bytes u32 LE, high bit = stored plain | block | [block checksum u32] }* | 0 u32 | [content checksum u32]
//! ```
//! The frame is taken apart here, because a reader that stops at the end of its input accepts a cut frame. xxHash
//! checksums are not compared: a batch's CRC-32C has already covered these bytes.

use std::io::Write;

use super::{Codec, CodecError, DecompressLimit, first_capacity};

const MAGIC: u32 = 0x184d_2204;
const SKIPPABLE: std::ops::RangeInclusive<u32> = 0x184d_2a50..=0x184d_2a5f;
const PLAIN: u32 = 1 << 31;
const WINDOW_BYTES: usize = 64 << 10;
/// A block cannot grow more than this: each further byte of a match length stands for 255 bytes.
const EXPANSION_MAX: usize = 256;

const FLAG_INDEPENDENT: u8 = 1 << 5;
const FLAG_BLOCK_CHECKSUM: u8 = 1 << 4;
const FLAG_CONTENT_BYTES: u8 = 1 << 3;
const FLAG_CONTENT_CHECKSUM: u8 = 1 << 2;
const FLAG_DICTIONARY: u8 = 1;

/// Writes what Kafka's Java client writes: independent blocks of 64 KiB, no checksums (the batch has its own).
pub(super) fn compress(input: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
    let info = lz4_flex::frame::FrameInfo::new()
        .block_size(lz4_flex::frame::BlockSize::Max64KB)
        .block_mode(lz4_flex::frame::BlockMode::Independent);
    let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, out);
    encoder
        .write_all(input)
        .map_err(|error| CodecError::compress(Codec::Lz4, error))?;
    encoder
        .finish()
        .map_err(|error| CodecError::compress(Codec::Lz4, error))?;
    Ok(())
}

pub(super) fn decompress(input: &[u8], limit: DecompressLimit) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::with_capacity(first_capacity(input, limit));
    let mut rest = input;
    loop {
        append_frame(&mut rest, &mut out, limit)?;
        if rest.is_empty() {
            return Ok(out);
        }
    }
}

fn append_frame(
    rest: &mut &[u8],
    out: &mut Vec<u8>,
    limit: DecompressLimit,
) -> Result<(), CodecError> {
    let magic = take_u32(rest)?;
    if SKIPPABLE.contains(&magic) {
        let bytes = take_u32(rest)?;
        take(rest, usize::try_from(bytes).unwrap_or(usize::MAX))?;
        return Ok(());
    }
    if magic != MAGIC {
        return Err(malformed("not a frame"));
    }
    let flags = take(rest, 1)?[0];
    let descriptor = take(rest, 1)?[0];
    if flags >> 6 != 1 {
        return Err(malformed("unknown frame version"));
    }
    if flags & FLAG_DICTIONARY != 0 {
        return Err(malformed("wants a dictionary"));
    }
    let block_bytes_max = match (descriptor >> 4) & 7 {
        size @ 4..=7 => 1usize << (8 + 2 * size),
        _ => return Err(malformed("unknown block size")),
    };
    let content_bytes = if flags & FLAG_CONTENT_BYTES != 0 {
        8
    } else {
        0
    };
    take(rest, content_bytes + 1)?;

    let frame_start = out.len();
    loop {
        let header = take_u32(rest)?;
        if header == 0 {
            break;
        }
        let bytes = usize::try_from(header & !PLAIN).unwrap_or(usize::MAX);
        if bytes > block_bytes_max {
            return Err(malformed("block larger than the frame allows"));
        }
        let block = take(rest, bytes)?;
        if flags & FLAG_BLOCK_CHECKSUM != 0 {
            take(rest, 4)?;
        }
        let window_start = match flags & FLAG_INDEPENDENT {
            0 => frame_start.max(out.len().saturating_sub(WINDOW_BYTES)),
            _ => out.len(),
        };
        append_block(
            block,
            header & PLAIN != 0,
            block_bytes_max,
            window_start,
            out,
            limit,
        )?;
    }
    if flags & FLAG_CONTENT_CHECKSUM != 0 {
        take(rest, 4)?;
    }
    Ok(())
}

/// Appends one block; `window_start..` of what is already out may be referred to.
fn append_block(
    block: &[u8],
    plain: bool,
    block_bytes_max: usize,
    window_start: usize,
    out: &mut Vec<u8>,
    limit: DecompressLimit,
) -> Result<(), CodecError> {
    let start = out.len();
    let room = limit.get().saturating_sub(start);
    let too_large = CodecError::TooLarge { limit: limit.get() };
    if plain {
        if block.len() > room {
            return Err(too_large);
        }
        out.extend_from_slice(block);
        return Ok(());
    }
    let bytes_max = block_bytes_max.min(block.len().saturating_mul(EXPANSION_MAX));
    let bound = bytes_max.min(room);
    out.resize(start + bound, 0);
    let (before, target) = out.split_at_mut(start);
    let written =
        match lz4_flex::block::decompress_into_with_dict(block, target, &before[window_start..]) {
            Ok(written) => written,
            Err(lz4_flex::block::DecompressError::OutputTooSmall { .. }) if bound < bytes_max => {
                return Err(too_large);
            }
            Err(error) => return Err(CodecError::malformed(Codec::Lz4, error)),
        };
    out.truncate(start + written);
    Ok(())
}

fn take<'a>(rest: &mut &'a [u8], bytes: usize) -> Result<&'a [u8], CodecError> {
    let (taken, after) = rest
        .split_at_checked(bytes)
        .ok_or_else(|| malformed("cut short"))?;
    *rest = after;
    Ok(taken)
}

fn take_u32(rest: &mut &[u8]) -> Result<u32, CodecError> {
    let (taken, after) = rest
        .split_first_chunk::<4>()
        .ok_or_else(|| malformed("cut short"))?;
    *rest = after;
    Ok(u32::from_le_bytes(*taken))
}

fn malformed(reason: &str) -> CodecError {
    CodecError::malformed(Codec::Lz4, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

    #[test]
    fn every_kind_of_frame_is_read() {
        let input: Vec<u8> = (0..300_000u32)
            .flat_map(|i| (i / 7).to_le_bytes())
            .collect();
        for size in [
            BlockSize::Max64KB,
            BlockSize::Max256KB,
            BlockSize::Max1MB,
            BlockSize::Max4MB,
        ] {
            for mode in [BlockMode::Independent, BlockMode::Linked] {
                for checksums in [false, true] {
                    let info = FrameInfo::new()
                        .block_size(size)
                        .block_mode(mode)
                        .block_checksums(checksums)
                        .content_checksum(checksums)
                        .content_size(checksums.then_some(input.len() as u64));
                    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
                    encoder.write_all(&input).unwrap();
                    let bytes = encoder.finish().unwrap();
                    let output = decompress(&bytes, DecompressLimit::bytes(input.len())).unwrap();
                    assert!(output == input);
                    assert!(
                        decompress(&bytes[..bytes.len() - 1], DecompressLimit::default()).is_err()
                    );
                }
            }
        }
    }
}
