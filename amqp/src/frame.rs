//! Frames (part 2, 2.3), and the headers that a connection begins with (2.2).
//!
//! ```text
//! size u32, of the whole frame | doff u8, where the body begins, in words of 4 bytes | type u8 | channel u16 | ... | body
//! ```
//! Callers: the endpoint. Invariant: a size is judged before anything is waited for or allocated.

use bytes::{BufMut as _, BytesMut};

/// The bytes of a frame's header.
pub const HEADER_BYTES: usize = 8;
/// Every peer takes frames of this size; SASL frames are no longer.
pub const FRAME_BYTES_MIN: usize = 512;

/// The header of a protocol, as it stands at the beginning of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// AMQP.
    Amqp,
    /// SASL, and AMQP behind it.
    Sasl,
}

impl Protocol {
    /// Its bytes.
    pub fn bytes(self) -> [u8; 8] {
        match self {
            Protocol::Amqp => *b"AMQP\x00\x01\x00\x00",
            Protocol::Sasl => *b"AMQP\x03\x01\x00\x00",
        }
    }

    /// Which one it is.
    pub fn of(bytes: [u8; 8]) -> Option<Protocol> {
        let all = [Protocol::Amqp, Protocol::Sasl];
        all.into_iter().find(|it| it.bytes() == bytes)
    }
}

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// A performative.
    Amqp,
    /// A step of a login.
    Sasl,
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The whole frame's bytes.
    pub frame_bytes: usize,
    /// Where the body begins.
    pub body_at: usize,
    /// What it holds.
    pub kind: FrameKind,
    /// The session; nothing in SASL's.
    pub channel: u16,
}

/// Bytes that begin no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// Too short for its header, or longer than allowed.
    #[error("a frame of {bytes} bytes; they have 8 to {bytes_max}")]
    Size {
        /// What it says.
        bytes: u32,
        /// What it may say.
        bytes_max: usize,
    },
    /// Its body begins within the header, or behind the frame.
    #[error("a data offset of {0}")]
    Offset(u8),
    /// Neither AMQP nor SASL.
    #[error("a frame of type {0}")]
    Type(u8),
}

/// Reads a frame's header; None if more bytes are needed for it.
pub fn header(bytes: &[u8], bytes_max: usize) -> Result<Option<FrameHeader>, FramingError> {
    let Some((size, rest)) = bytes.split_first_chunk() else {
        return Ok(None);
    };
    let size = u32::from_be_bytes(*size);
    let frame_bytes = usize::try_from(size)
        .ok()
        .filter(|bytes| (HEADER_BYTES..=bytes_max).contains(bytes))
        .ok_or(FramingError::Size {
            bytes: size,
            bytes_max,
        })?;
    let Some([offset, kind, channel @ ..]) = rest.first_chunk::<4>() else {
        return Ok(None);
    };
    let body_at = usize::from(*offset) * 4;
    if !(HEADER_BYTES..=frame_bytes).contains(&body_at) {
        return Err(FramingError::Offset(*offset));
    }
    let kind = match kind {
        0 => FrameKind::Amqp,
        1 => FrameKind::Sasl,
        other => return Err(FramingError::Type(*other)),
    };
    Ok(Some(FrameHeader {
        frame_bytes,
        body_at,
        kind,
        channel: u16::from_be_bytes(*channel),
    }))
}

/// Writes a frame whose body `fill` writes.
pub fn put(out: &mut BytesMut, kind: FrameKind, channel: u16, fill: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u32(0);
    out.put_u8(2);
    out.put_u8(match kind {
        FrameKind::Amqp => 0,
        FrameKind::Sasl => 1,
    });
    out.put_u16(channel);
    fill(out);
    let bytes = u32::try_from(out.len() - start).expect("frames are far below 4 GiB");
    out[start..start + 4].copy_from_slice(&bytes.to_be_bytes());
}
