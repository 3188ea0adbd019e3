//! Zstandard, one shot: the output buffer is the window, so that a frame's claimed window size allocates nothing.

use std::cell::RefCell;

use zstd::zstd_safe::{CCtx, CParameter, DCtx, get_error_name};

use super::{Codec, CodecError, DecompressLimit, first_capacity};

/// `ZSTD_error_dstSize_tooSmall` of `zstd_errors.h`, as the functions return it.
const OUTPUT_TOO_SMALL: usize = 0usize.wrapping_sub(70);

thread_local! {
    /// Making a context costs more than compressing a small batch with it.
    static COMPRESSOR: RefCell<CCtx<'static>> = RefCell::new(CCtx::create());
    static DECOMPRESSOR: RefCell<DCtx<'static>> = RefCell::new(DCtx::create());
}

pub(super) fn compress(
    level: Option<i32>,
    input: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    let failed = |code| CodecError::compress(Codec::Zstd, get_error_name(code));
    let start = out.len();
    out.resize(start + zstd::zstd_safe::compress_bound(input.len()), 0);
    let written = COMPRESSOR.with_borrow_mut(|context| {
        let level = level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL);
        context
            .set_parameter(CParameter::CompressionLevel(level))
            .map_err(failed)?;
        context.compress2(&mut out[start..], input).map_err(failed)
    })?;
    out.truncate(start + written);
    Ok(())
}

/// Tries with a buffer that follows the input, and with twice as much as long as it is too small.
pub(super) fn decompress(input: &[u8], limit: DecompressLimit) -> Result<Vec<u8>, CodecError> {
    let mut capacity = first_capacity(input, limit);
    loop {
        let mut out = Vec::with_capacity(capacity);
        match DECOMPRESSOR.with_borrow_mut(|context| context.decompress(&mut out, input)) {
            Ok(_) if out.len() > limit.get() => {
                return Err(CodecError::TooLarge { limit: limit.get() });
            }
            Ok(_) => return Ok(out),
            Err(OUTPUT_TOO_SMALL) if capacity >= limit.get() => {
                return Err(CodecError::TooLarge { limit: limit.get() });
            }
            Err(OUTPUT_TOO_SMALL) => capacity = capacity.saturating_mul(4).min(limit.get()),
            Err(code) => return Err(CodecError::malformed(Codec::Zstd, get_error_name(code))),
        }
    }
}
