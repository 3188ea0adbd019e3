//! Frames: a length of four bytes, then header and message.

use crate::{Bytes, EncodeError, Request, RequestHeader, Response, Writer, encode_response_header};
use bytes::{Buf, BytesMut};

/// Bytes of the length in front of a frame.
pub const PREFIX_BYTES: usize = 4;

/// A frame whose length nobody accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {length} bytes is outside 0..={bytes_max}")]
pub struct FrameTooLarge {
    /// The length that was announced.
    pub length: i32,
    /// The largest that is accepted.
    pub bytes_max: usize,
}

/// Checks an announced length against the bound (`socket.request.max.bytes`), before anything is allocated for it.
pub fn check_length(prefix: [u8; PREFIX_BYTES], bytes_max: usize) -> Result<usize, FrameTooLarge> {
    let length = i32::from_be_bytes(prefix);
    match usize::try_from(length) {
        Ok(bytes) if bytes <= bytes_max => Ok(bytes),
        _ => Err(FrameTooLarge { length, bytes_max }),
    }
}

/// Takes the first whole frame off a buffer, without its prefix; none if more bytes have to come first.
/// The buffer is not grown here.
pub fn split(buffer: &mut BytesMut, bytes_max: usize) -> Result<Option<Bytes>, FrameTooLarge> {
    let Some(prefix) = buffer.first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    let length = check_length(*prefix, bytes_max)?;
    if buffer.len() - PREFIX_BYTES < length {
        return Ok(None);
    }
    buffer.advance(PREFIX_BYTES);
    Ok(Some(buffer.split_to(length).freeze()))
}

/// A whole request, length in front, as pieces for a vectored write.
pub fn request<R: Request>(header: &RequestHeader, message: &R) -> Result<Vec<Bytes>, EncodeError> {
    framed(|writer| {
        header.encode(writer)?;
        message.encode(writer, header.version)
    })
}

/// A whole response, length in front, as pieces for a vectored write. Records in it are not copied.
pub fn response<R: Response>(
    correlation_id: i32,
    version: i16,
    message: &R,
) -> Result<Vec<Bytes>, EncodeError> {
    Ok(response_and_errors(correlation_id, version, message)?.0)
}

/// Error codes, but for 0, and how often each of them stands in a message.
pub type ErrorCounts = Vec<(i16, u32)>;

/// A whole response, and the error codes in it.
pub fn response_and_errors<R: Response>(
    correlation_id: i32,
    version: i16,
    message: &R,
) -> Result<(Vec<Bytes>, ErrorCounts), EncodeError> {
    let writer = written(|writer| {
        encode_response_header(writer, R::KEY, version, correlation_id);
        message.encode(writer, version)
    })?;
    let errors = writer.errors().to_vec();
    Ok((writer.into_pieces(), errors))
}

fn framed(
    write: impl FnOnce(&mut Writer) -> Result<(), EncodeError>,
) -> Result<Vec<Bytes>, EncodeError> {
    Ok(written(write)?.into_pieces())
}

fn written(
    write: impl FnOnce(&mut Writer) -> Result<(), EncodeError>,
) -> Result<Writer, EncodeError> {
    let mut writer = Writer::new();
    writer.i32(0);
    write(&mut writer)?;
    let length = writer.len() - PREFIX_BYTES;
    writer.patch_start(i32::try_from(length).map_err(|_| EncodeError::TooLong { length })?);
    Ok(writer)
}

/// Bytes that a buffer lacks until its first frame is whole, as far as can be told. The length is not checked here.
pub fn missing(buffer: &[u8]) -> usize {
    match buffer.first_chunk::<PREFIX_BYTES>() {
        Some(prefix) => {
            let length = usize::try_from(i32::from_be_bytes(*prefix)).unwrap_or(0);
            (PREFIX_BYTES + length).saturating_sub(buffer.len())
        }
        None => PREFIX_BYTES - buffer.len(),
    }
}
