//! Fixed-width little-endian fields and the envelope around our own small files.
//! Callers: every format of this crate but the record batch, which is Kafka's and big-endian.
//!
//! ```text
//!  0        8         12           16        20
//!  | magic  | version | body bytes | crc32   | body ... |
//!  |   8    |    4    |     4      |    4    |    N     |
//! ```
//! The checksum (CRC-32, IEEE) covers the first 16 bytes and the body. Nothing is allocated by a length that was read: a
//! length is checked against the bytes there are.

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Another kind of file, or no file of ours.
    #[error("magic is {found:02x?}, wanted {wanted:02x?}")]
    Magic {
        /// The bytes that were there.
        found: Vec<u8>,
        /// The bytes that belong there.
        wanted: [u8; 8],
    },
    /// Written by a later release.
    #[error("version {found}, this build reads up to {known}")]
    Version {
        /// The version that was there.
        found: u32,
        /// The latest version known.
        known: u32,
    },
    /// The bytes end early.
    #[error("cut short: {have} of {need} bytes")]
    Truncated {
        /// How many there are.
        have: usize,
        /// How many there should be.
        need: usize,
    },
    /// Bytes that nobody wrote follow.
    #[error("{bytes} bytes too many")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// The checksum does not match.
    #[error("crc mismatch: stored {stored:08x}, computed {computed:08x}")]
    Checksum {
        /// What the file says.
        stored: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// A field that contradicts another or lies outside its range.
    #[error("impossible {field}: {value}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What it says.
        value: i128,
    },
}

/// Bytes before the body of an [`envelope`].
pub const ENVELOPE_HEADER_BYTES: usize = 20;

/// Wraps a body.
pub fn envelope(magic: &[u8; 8], version: u32, body: &[u8]) -> Vec<u8> {
    let body_bytes = u32::try_from(body.len()).expect("small files stay below 4 GiB");
    let mut bytes = Vec::with_capacity(ENVELOPE_HEADER_BYTES + body.len());
    bytes.extend_from_slice(magic);
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.extend_from_slice(&body_bytes.to_le_bytes());
    let checksum = envelope_checksum(&bytes, body);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// How long the envelope is whose first bytes these are, as it says itself: not checked.
pub fn envelope_bytes(head: &[u8; ENVELOPE_HEADER_BYTES]) -> usize {
    let body = head[12..16].try_into().expect("four bytes");
    ENVELOPE_HEADER_BYTES.saturating_add(u32::from_le_bytes(body) as usize)
}

/// Checks an envelope that starts at the front of `bytes`, and returns its version and body. What follows the body is
/// returned too: files that are overwritten in place may be longer than what they hold.
pub fn open_envelope<'a>(
    magic: &[u8; 8],
    known_version: u32,
    bytes: &'a [u8],
) -> Result<Envelope<'a>, FormatError> {
    if bytes.get(..8) != Some(magic) {
        let found = bytes[..bytes.len().min(8)].to_vec();
        return Err(FormatError::Magic {
            found,
            wanted: *magic,
        });
    }
    let mut fields = Fields::new(&bytes[8..]);
    let version = fields.u32()?;
    let body_bytes = fields.u32()? as usize;
    let stored = fields.u32()?;
    let have = fields.rest().len();
    if have < body_bytes {
        return Err(FormatError::Truncated {
            have,
            need: body_bytes,
        });
    }
    let (body, trailing) = fields.rest().split_at(body_bytes);
    let computed = envelope_checksum(&bytes[..16], body);
    if stored != computed {
        return Err(FormatError::Checksum { stored, computed });
    }
    if version == 0 || version > known_version {
        return Err(FormatError::Version {
            found: version,
            known: known_version,
        });
    }
    Ok(Envelope {
        version,
        body,
        trailing,
    })
}

/// What [`open_envelope`] found.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// The format's version.
    pub version: u32,
    /// The body, whole and checked.
    pub body: &'a [u8],
    /// What follows it.
    pub trailing: &'a [u8],
}

fn envelope_checksum(head: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(body);
    hasher.finalize()
}

/// Reads fields one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Starts at the front.
    pub fn new(bytes: &'a [u8]) -> Fields<'a> {
        Fields { rest: bytes }
    }

    /// What was not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], FormatError> {
        if self.rest.len() < count {
            return Err(FormatError::Truncated {
                have: self.rest.len(),
                need: count,
            });
        }
        let (front, rest) = self.rest.split_at(count);
        self.rest = rest;
        Ok(front)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        Ok(self
            .bytes(N)?
            .try_into()
            .expect("bytes returns as many as asked"))
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// Two bytes, signed.
    pub fn i16(&mut self) -> Result<i16, FormatError> {
        Ok(i16::from_le_bytes(self.array()?))
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Four bytes, signed.
    pub fn i32(&mut self) -> Result<i32, FormatError> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Eight bytes, signed.
    pub fn i64(&mut self) -> Result<i64, FormatError> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// A count of things that take at least `bytes_each`, checked against the bytes there are.
    pub fn count(&mut self, bytes_each: usize) -> Result<usize, FormatError> {
        let count = self.u32()? as usize;
        let need = count.saturating_mul(bytes_each);
        if self.rest.len() < need {
            return Err(FormatError::Truncated {
                have: self.rest.len(),
                need,
            });
        }
        Ok(count)
    }

    /// A length and that many bytes.
    pub fn blob(&mut self) -> Result<&'a [u8], FormatError> {
        let count = self.count(1)?;
        self.bytes(count)
    }

    /// An offset: 8 bytes, below 2^63.
    pub fn offset(&mut self, field: &'static str) -> Result<model::Offset, FormatError> {
        let value = self.i64()?;
        model::Offset::from_wire(value).ok_or(FormatError::Field {
            field,
            value: value.into(),
        })
    }

    /// A log's id: the topic's 16 bytes and the partition.
    pub fn log_id(&mut self) -> Result<model::LogId, FormatError> {
        let topic = model::TopicId::from_bytes(self.array()?);
        Ok(model::LogId::new(
            topic,
            model::PartitionId::new(self.u32()?),
        ))
    }

    /// Fails if anything is left.
    pub fn finish(self) -> Result<(), FormatError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(FormatError::Trailing {
            bytes: self.rest.len(),
        })
    }
}

/// Appends a log's id: the topic's 16 bytes and the partition.
pub fn put_log_id(out: &mut Vec<u8>, log: model::LogId) {
    out.extend_from_slice(&log.topic_id.to_bytes());
    out.extend_from_slice(&log.partition.get().to_le_bytes());
}

/// Appends a length and the bytes.
pub fn put_blob(out: &mut Vec<u8>, bytes: &[u8]) {
    let count = u32::try_from(bytes.len()).expect("a part of a small file stays below 4 GiB");
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: &[u8; 8] = b"testfile";

    #[test]
    fn an_envelope_opens_to_what_was_put_in() {
        let bytes = envelope(MAGIC, 3, b"body");
        let opened = open_envelope(MAGIC, 3, &bytes).unwrap();
        assert_eq!(
            (opened.version, opened.body, opened.trailing),
            (3, &b"body"[..], &b""[..])
        );
    }

    #[test]
    fn an_envelope_cut_or_flipped_anywhere_is_refused() {
        let whole = envelope(MAGIC, 1, b"some body bytes");
        for len in 0..whole.len() {
            assert!(
                open_envelope(MAGIC, 1, &whole[..len]).is_err(),
                "cut to {len}"
            );
        }
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open_envelope(MAGIC, 1, &flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_later_version_is_refused_by_name() {
        let bytes = envelope(MAGIC, 2, b"");
        assert_eq!(
            open_envelope(MAGIC, 1, &bytes).unwrap_err(),
            FormatError::Version { found: 2, known: 1 }
        );
    }
}
