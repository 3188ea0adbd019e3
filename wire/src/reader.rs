//! Reads the protocol's types from a frame.

use crate::{Bytes, Records, Uuid};

/// Why bytes are not the message that they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The frame ends too early.
    #[error("the frame ends at byte {position}: {wanted} bytes wanted, {left} left")]
    Truncated {
        /// Where reading stopped.
        position: usize,
        /// What the next value needs.
        wanted: usize,
        /// What there is.
        left: usize,
    },
    /// A length that no value can have.
    #[error("length {length} at byte {position} is not possible")]
    Length {
        /// Where the length ends.
        position: usize,
        /// The length.
        length: i64,
    },
    /// A variable-length number of more than five bytes, or beyond 32 bits.
    #[error("the variable-length number at byte {position} is too long")]
    Varint {
        /// Where reading stopped.
        position: usize,
    },
    /// Text that is not UTF-8.
    #[error("the text before byte {position} is not UTF-8")]
    Utf8 {
        /// Where the text ends.
        position: usize,
    },
    /// Null where it is not allowed.
    #[error("{field} must not be null")]
    Null {
        /// The field.
        field: &'static str,
    },
    /// A tagged field of another size than its content.
    #[error("tagged field {tag} leaves {left} bytes over")]
    TagSize {
        /// The tag.
        tag: u32,
        /// Bytes that its content did not use.
        left: usize,
    },
    /// A message that would take too much memory.
    #[error("the message holds more than {bytes_max} bytes of values")]
    TooLarge {
        /// The bound.
        bytes_max: usize,
    },
    /// A message of too many values.
    #[error("the message's lists hold more than {elements_max} elements")]
    TooMany {
        /// The bound.
        elements_max: usize,
    },
    /// A version of a message that this crate does not know.
    #[error("{message} has no version {version}")]
    Version {
        /// The message.
        message: &'static str,
        /// The version.
        version: i16,
    },
    /// A key that this crate does not know.
    #[error("unknown API key {code}")]
    Key {
        /// The key.
        code: i16,
    },
}

/// Reads from one frame. Lengths are checked against what remains before anything is allocated for them, and all
/// that is allocated is counted against a bound, so that many tiny elements cannot grow into a large memory either.
#[derive(Debug)]
pub struct Reader {
    frame: Bytes,
    position: usize,
    end: usize,
    allocation_left_bytes: usize,
    allocation_bytes_max: usize,
    elements_left: usize,
    elements_max: usize,
}

/// What decoding one frame may allocate. Records and `bytes` fields are slices of the frame and do not count.
pub const ALLOCATION_BYTES_MAX: usize = 64 << 20;

type Result<T> = std::result::Result<T, DecodeError>;

impl Reader {
    /// Reads a frame, without its length prefix.
    pub fn new(frame: Bytes) -> Reader {
        Reader::with_allocation_bound(frame, ALLOCATION_BYTES_MAX)
    }

    /// Reads a frame with another bound on what decoding may allocate.
    pub fn with_allocation_bound(frame: Bytes, bytes_max: usize) -> Reader {
        let end = frame.len();
        Reader {
            frame,
            position: 0,
            end,
            allocation_left_bytes: bytes_max,
            allocation_bytes_max: bytes_max,
            elements_left: usize::MAX,
            elements_max: usize::MAX,
        }
    }

    /// Bounds how many elements the lists of the frame may have, all together: what is done with each may take more
    /// than reading it.
    pub fn with_elements_bound(self, elements_max: usize) -> Reader {
        Reader {
            elements_left: elements_max,
            elements_max,
            ..self
        }
    }

    /// Bytes that were not read yet.
    pub fn remaining(&self) -> usize {
        self.end - self.position
    }

    /// Bytes that were read.
    pub fn position(&self) -> usize {
        self.position
    }

    /// The next bytes, as a slice of the frame.
    pub fn take(&mut self, count: usize) -> Result<Bytes> {
        self.need(count)?;
        let start = self.position;
        self.position += count;
        Ok(self.frame.slice(start..start + count))
    }

    fn need(&self, wanted: usize) -> Result<()> {
        let left = self.remaining();
        if wanted > left {
            return Err(DecodeError::Truncated {
                position: self.position,
                wanted,
                left,
            });
        }
        Ok(())
    }

    fn array_of<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.need(N)?;
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.frame[self.position..self.position + N]);
        self.position += N;
        Ok(bytes)
    }

    fn charge(&mut self, bytes: usize) -> Result<()> {
        match self.allocation_left_bytes.checked_sub(bytes) {
            Some(left) => {
                self.allocation_left_bytes = left;
                Ok(())
            }
            None => Err(DecodeError::TooLarge {
                bytes_max: self.allocation_bytes_max,
            }),
        }
    }

    /// One byte, 0 is false.
    pub fn bool(&mut self) -> Result<bool> {
        Ok(self.i8()? != 0)
    }

    /// One byte.
    pub fn i8(&mut self) -> Result<i8> {
        Ok(i8::from_be_bytes(self.array_of()?))
    }

    /// Two bytes.
    pub fn i16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.array_of()?))
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.array_of()?))
    }

    /// Four bytes.
    pub fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.array_of()?))
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.array_of()?))
    }

    /// Eight bytes.
    pub fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.array_of()?))
    }

    /// Eight bytes.
    pub fn f64(&mut self) -> Result<f64> {
        Ok(f64::from_be_bytes(self.array_of()?))
    }

    /// Sixteen bytes.
    pub fn uuid(&mut self) -> Result<Uuid> {
        Ok(Uuid::from_bytes(self.array_of()?))
    }

    /// A number of one to five bytes, seven bits each, the lowest first.
    pub fn uvarint(&mut self) -> Result<u32> {
        let mut value = 0u64;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array_of()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return u32::try_from(value).map_err(|_| DecodeError::Varint {
                    position: self.position,
                });
            }
        }
        Err(DecodeError::Varint {
            position: self.position,
        })
    }

    /// A length in its compact or its plain form; none for null.
    fn length(
        &mut self,
        flexible: bool,
        plain: fn(&mut Reader) -> Result<i32>,
    ) -> Result<Option<usize>> {
        let length = if flexible {
            i64::from(self.uvarint()?) - 1
        } else {
            i64::from(plain(self)?)
        };
        match length {
            -1 => Ok(None),
            // No value is longer than an i32 can say, and usize holds at least that.
            0..=0x7fff_ffff => Ok(Some(length as usize)),
            _ => Err(DecodeError::Length {
                position: self.position,
                length,
            }),
        }
    }

    /// Text; none for null.
    pub fn nullable_string(&mut self, flexible: bool) -> Result<Option<String>> {
        let Some(length) = self.length(flexible, |r| Ok(i32::from(r.i16()?)))? else {
            return Ok(None);
        };
        // Kafka's bound, also where the length itself could say more.
        if i16::try_from(length).is_err() {
            return Err(DecodeError::Length {
                position: self.position,
                length: i64::try_from(length).unwrap_or(i64::MAX),
            });
        }
        self.need(length)?;
        self.charge(length)?;
        let end = self.position + length;
        let text = std::str::from_utf8(&self.frame[self.position..end])
            .map_err(|_| DecodeError::Utf8 { position: end })?
            .to_owned();
        self.position = end;
        Ok(Some(text))
    }

    /// Text that must not be null.
    pub fn string(&mut self, flexible: bool) -> Result<String> {
        Reader::never_null(self.nullable_string(flexible)?, "text in a list")
    }

    /// Bytes, as a slice of the frame; none for null.
    pub fn nullable_bytes(&mut self, flexible: bool) -> Result<Option<Bytes>> {
        match self.length(flexible, Reader::i32)? {
            Some(length) => Ok(Some(self.take(length)?)),
            None => Ok(None),
        }
    }

    /// Bytes that must not be null.
    pub fn bytes(&mut self, flexible: bool) -> Result<Bytes> {
        Reader::never_null(self.nullable_bytes(flexible)?, "bytes in a list")
    }

    /// Record batches, as one slice of the frame; none for null.
    pub fn records(&mut self, flexible: bool) -> Result<Option<Records>> {
        Ok(self
            .nullable_bytes(flexible)?
            .map(|bytes| match bytes.is_empty() {
                true => Records::EMPTY,
                false => Records::from(bytes),
            }))
    }

    /// A list; none for null. `element_bytes_min` is the least that one element takes on the wire.
    pub fn array<T>(
        &mut self,
        flexible: bool,
        element_bytes_min: usize,
        mut read: impl FnMut(&mut Reader) -> Result<T>,
    ) -> Result<Option<Vec<T>>> {
        let Some(count) = self.length(flexible, Reader::i32)? else {
            return Ok(None);
        };
        self.need(count.saturating_mul(element_bytes_min))?;
        self.elements_left = self
            .elements_left
            .checked_sub(count)
            .ok_or(DecodeError::TooMany {
                elements_max: self.elements_max,
            })?;
        self.charge(count.saturating_mul(size_of::<T>()))?;
        let mut list = Vec::with_capacity(count);
        for _ in 0..count {
            list.push(read(self)?);
        }
        Ok(Some(list))
    }

    /// Reads tagged fields. `read` says whether it knew the tag; unknown fields are skipped.
    pub fn tags(&mut self, mut read: impl FnMut(&mut Reader, u32) -> Result<bool>) -> Result<()> {
        for _ in 0..self.uvarint()? {
            let tag = self.uvarint()?;
            let size = self.uvarint()? as usize;
            self.need(size)?;
            let end = std::mem::replace(&mut self.end, self.position + size);
            let known = read(self, tag)?;
            let field_end = std::mem::replace(&mut self.end, end);
            if known && self.position != field_end {
                return Err(DecodeError::TagSize {
                    tag,
                    left: field_end - self.position,
                });
            }
            self.position = field_end;
        }
        Ok(())
    }

    /// Skips tagged fields.
    pub fn skip_tags(&mut self) -> Result<()> {
        self.tags(|_, _| Ok(false))
    }

    /// Refuses null.
    pub fn never_null<T>(value: Option<T>, field: &'static str) -> Result<T> {
        value.ok_or(DecodeError::Null { field })
    }

    /// Refuses null in versions that do not allow it.
    pub fn null_only_if<T>(
        allowed: bool,
        value: Option<T>,
        field: &'static str,
    ) -> Result<Option<T>> {
        match value {
            None if !allowed => Err(DecodeError::Null { field }),
            value => Ok(value),
        }
    }
}
