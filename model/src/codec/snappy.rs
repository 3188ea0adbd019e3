//! Snappy, raw and in xerial's framing.
//!
//! ```text
//! xerial: 82 "SNAPPY" 00 | version i32 BE | compatible version i32 BE | { block bytes i32 BE | raw snappy block }*
//! ```
//! Kafka's Java client and kafka-python write it so, with blocks of up to 32 KiB; librdkafka writes one raw block. A
//! header may come again between blocks, where streams were joined.

use super::{Codec, CodecError, DecompressLimit};

const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEADER: [u8; 16] = [
    0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1,
];
const XERIAL_BLOCK_BYTES: usize = 32 << 10;
/// A block cannot grow more than this: three bytes of input copy 64 bytes at most.
const EXPANSION_MAX: usize = 22;

pub(super) fn compress(input: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
    let mut encoder = snap::raw::Encoder::new();
    out.extend_from_slice(&XERIAL_HEADER);
    for block in input.chunks(XERIAL_BLOCK_BYTES) {
        let start = out.len();
        out.resize(start + 4 + snap::raw::max_compress_len(block.len()), 0);
        let bytes = encoder
            .compress(block, &mut out[start + 4..])
            .map_err(|error| CodecError::compress(Codec::Snappy, error))?;
        let framed =
            u32::try_from(bytes).map_err(|error| CodecError::compress(Codec::Snappy, error))?;
        out[start..start + 4].copy_from_slice(&framed.to_be_bytes());
        out.truncate(start + 4 + bytes);
    }
    Ok(())
}

pub(super) fn decompress(input: &[u8], limit: DecompressLimit) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::new();
    if !input.starts_with(&XERIAL_MAGIC) {
        append_block(input, &mut out, limit)?;
        return Ok(out);
    }
    let mut rest = input;
    while !rest.is_empty() {
        if rest.starts_with(&XERIAL_MAGIC) {
            rest = rest
                .get(XERIAL_HEADER.len()..)
                .ok_or_else(|| cut("header"))?;
            continue;
        }
        let (length, after) = rest
            .split_first_chunk::<4>()
            .ok_or_else(|| cut("block length"))?;
        let bytes = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let block = after.get(..bytes).ok_or_else(|| cut("block"))?;
        append_block(block, &mut out, limit)?;
        rest = &after[bytes..];
    }
    Ok(out)
}

fn append_block(block: &[u8], out: &mut Vec<u8>, limit: DecompressLimit) -> Result<(), CodecError> {
    let malformed = |error| CodecError::malformed(Codec::Snappy, error);
    let bytes = snap::raw::decompress_len(block).map_err(malformed)?;
    if bytes > limit.get() - out.len().min(limit.get()) {
        return Err(CodecError::TooLarge { limit: limit.get() });
    }
    if bytes > block.len().saturating_mul(EXPANSION_MAX) {
        return Err(CodecError::malformed(
            Codec::Snappy,
            "claims more than its bytes can hold",
        ));
    }
    let start = out.len();
    out.resize(start + bytes, 0);
    let written = snap::raw::Decoder::new()
        .decompress(block, &mut out[start..])
        .map_err(malformed)?;
    out.truncate(start + written);
    Ok(())
}

fn cut(what: &str) -> CodecError {
    CodecError::malformed(Codec::Snappy, format_args!("{what} cut short"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raw_block_is_read_as_well() {
        let input = b"raw raw raw raw raw raw raw raw".repeat(2000);
        let raw = snap::raw::Encoder::new().compress_vec(&input).unwrap();
        assert!(decompress(&raw, DecompressLimit::default()).unwrap() == input);
    }

    #[test]
    fn what_is_written_carries_the_header_that_java_expects() {
        let mut out = Vec::new();
        compress(&[9; 70_000], &mut out).unwrap();
        assert_eq!(out[..16], XERIAL_HEADER);
        let first = u32::from_be_bytes([out[16], out[17], out[18], out[19]]) as usize;
        assert_eq!(
            snap::raw::decompress_len(&out[20..20 + first]).unwrap(),
            XERIAL_BLOCK_BYTES
        );
    }

    #[test]
    fn a_claimed_length_is_not_believed() {
        // 0xfffffff0 bytes claimed by a block of six.
        let input = [0xf0, 0xff, 0xff, 0xff, 0x0f, 0];
        let error = decompress(&input, DecompressLimit::bytes(usize::MAX)).unwrap_err();
        assert!(matches!(error, CodecError::Malformed { .. }), "{error}");
    }
}
