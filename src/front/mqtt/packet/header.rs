//! The fixed header (§2.1): a packet's type, flags and length, read before anything is allocated for it.

/// The longest packet that the protocol knows: its header, and what four bytes of a length can say.
pub const PACKET_BYTES_MAX: usize = 5 + 0x0fff_ffff;

/// A packet's fixed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Type and flags.
    pub first: u8,
    /// Bytes of the header itself.
    pub header_bytes: usize,
    /// Bytes of the whole packet, the header's included.
    pub packet_bytes: usize,
}

/// The length is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the packet's length has more than four bytes")]
pub struct HeaderError;

/// The header at the beginning of these bytes; None if it is not there whole.
pub fn header(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    let Some((first, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    let mut length = 0usize;
    for (index, byte) in rest.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let header_bytes = index + 2;
            return Ok(Some(Header {
                first: *first,
                header_bytes,
                packet_bytes: header_bytes + length,
            }));
        }
    }
    match rest.len() < 4 {
        true => Ok(None),
        false => Err(HeaderError),
    }
}
