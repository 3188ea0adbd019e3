//! Writes the protocol's types, as a list of pieces.

use crate::{Bytes, Records, Uuid};
use bytes::{BufMut, BytesMut};

/// Why a message cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A field is set that the version does not have.
    #[error("{message}.{field} is set, but version {version} has no such field")]
    Absent {
        /// The struct.
        message: &'static str,
        /// The field.
        field: &'static str,
        /// The version.
        version: i16,
    },
    /// Null in a version that does not allow it.
    #[error("{0} must not be null in this version")]
    Null(&'static str),
    /// A value that is longer than its length field can say.
    #[error("a value of {length} bytes or elements does not fit its length field")]
    TooLong {
        /// Its length.
        length: usize,
    },
    /// A version of a message that this crate does not know.
    #[error("{message} has no version {version}")]
    Version {
        /// The message.
        message: &'static str,
        /// The version.
        version: i16,
    },
}

impl EncodeError {
    pub(crate) fn absent(message: &'static str, field: &'static str, version: i16) -> EncodeError {
        EncodeError::Absent {
            message,
            field,
            version,
        }
    }
}

/// Collects a message. Plain values gather in a buffer; records are kept as the slices that they are, so that a
/// vectored write can send them from where they lie.
#[derive(Debug, Default)]
pub struct Writer {
    pieces: Vec<Bytes>,
    pieces_bytes: usize,
    buffer: BytesMut,
    errors: Vec<(i16, u32)>,
}

type Result<T> = std::result::Result<T, EncodeError>;

impl Writer {
    /// An empty writer.
    pub fn new() -> Writer {
        Writer::default()
    }

    /// Bytes written so far, in all pieces.
    pub fn len(&self) -> usize {
        self.pieces_bytes + self.buffer.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An error code, which is counted unless it is 0.
    pub fn error_code(&mut self, code: i16) {
        self.i16(code);
        if code == 0 {
            return;
        }
        match self.errors.iter_mut().find(|(known, _)| *known == code) {
            Some((_, count)) => *count += 1,
            None => self.errors.push((code, 1)),
        }
    }

    /// The error codes that were written, but for 0, and how often each.
    pub fn errors(&self) -> &[(i16, u32)] {
        &self.errors
    }

    /// The pieces, in order. None of them is empty.
    pub fn into_pieces(mut self) -> Vec<Bytes> {
        self.close_buffer();
        self.pieces
    }

    /// All in one piece. This copies records.
    pub fn into_bytes(self) -> Bytes {
        Records::from_slices(self.into_pieces()).into_bytes()
    }

    fn close_buffer(&mut self) {
        if !self.buffer.is_empty() {
            self.push_piece(|buffer| buffer.split().freeze());
        }
    }

    fn push_piece(&mut self, piece: impl FnOnce(&mut BytesMut) -> Bytes) {
        let piece = piece(&mut self.buffer);
        self.pieces_bytes += piece.len();
        self.pieces.push(piece);
    }

    /// Appends what needs no length.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.buffer.put_slice(bytes);
    }

    /// One byte.
    pub fn bool(&mut self, value: bool) {
        self.buffer.put_u8(u8::from(value));
    }

    /// One byte.
    pub fn i8(&mut self, value: i8) {
        self.buffer.put_i8(value);
    }

    /// Two bytes.
    pub fn i16(&mut self, value: i16) {
        self.buffer.put_i16(value);
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) {
        self.buffer.put_u16(value);
    }

    /// Four bytes.
    pub fn i32(&mut self, value: i32) {
        self.buffer.put_i32(value);
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) {
        self.buffer.put_u32(value);
    }

    /// Eight bytes.
    pub fn i64(&mut self, value: i64) {
        self.buffer.put_i64(value);
    }

    /// Eight bytes.
    pub fn f64(&mut self, value: f64) {
        self.buffer.put_f64(value);
    }

    /// Sixteen bytes.
    pub fn uuid(&mut self, value: Uuid) {
        self.buffer.put_slice(value.as_bytes());
    }

    /// A number of one to five bytes, seven bits each, the lowest first.
    pub fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.buffer.put_u8(value.to_be_bytes()[3] | 0x80);
            value >>= 7;
        }
        self.buffer.put_u8(value.to_be_bytes()[3]);
    }

    fn compact_length(&mut self, length: Option<usize>) -> Result<()> {
        let plus_one = match length {
            Some(length) => {
                i32::try_from(length)
                    .map_err(|_| EncodeError::TooLong { length })?
                    .unsigned_abs()
                    + 1
            }
            None => 0,
        };
        self.uvarint(plus_one);
        Ok(())
    }

    fn length(&mut self, length: Option<usize>, flexible: bool) -> Result<()> {
        if flexible {
            return self.compact_length(length);
        }
        let plain = match length {
            Some(length) => i32::try_from(length).map_err(|_| EncodeError::TooLong { length })?,
            None => -1,
        };
        self.i32(plain);
        Ok(())
    }

    /// Text, or null.
    pub fn string(&mut self, value: Option<&String>, flexible: bool) -> Result<()> {
        self.text(value.map(String::as_str), flexible)
    }

    /// Text, or null.
    pub fn text(&mut self, value: Option<&str>, flexible: bool) -> Result<()> {
        // Kafka's bound, also where the length itself could say more.
        let length = match value {
            Some(text) => i16::try_from(text.len())
                .map_err(|_| EncodeError::TooLong { length: text.len() })?,
            None => -1,
        };
        if flexible {
            self.compact_length(value.map(str::len))?;
        } else {
            self.i16(length);
        }
        self.raw(value.unwrap_or_default().as_bytes());
        Ok(())
    }

    /// Bytes, or null.
    pub fn bytes(&mut self, value: Option<&Bytes>, flexible: bool) -> Result<()> {
        self.length(value.map(Bytes::len), flexible)?;
        if let Some(bytes) = value {
            self.raw(bytes);
        }
        Ok(())
    }

    /// Record batches, or null. They are not copied.
    pub fn records(&mut self, value: Option<&Records>, flexible: bool) -> Result<()> {
        self.length(value.map(Records::len), flexible)?;
        for slice in value.map(Records::slices).unwrap_or_default() {
            if !slice.is_empty() {
                self.close_buffer();
                self.push_piece(|_| slice.clone());
            }
        }
        Ok(())
    }

    /// A list, or null.
    pub fn array<T>(
        &mut self,
        value: Option<&Vec<T>>,
        flexible: bool,
        mut write: impl FnMut(&mut Writer, &T) -> Result<()>,
    ) -> Result<()> {
        self.length(value.map(Vec::len), flexible)?;
        for element in value.into_iter().flatten() {
            write(self, element)?;
        }
        Ok(())
    }

    /// The end of a struct that has no tagged field to say.
    pub fn no_tags(&mut self) {
        self.uvarint(0);
    }

    /// One tagged field. The caller wrote their number, and calls in ascending order.
    pub fn tag(&mut self, tag: u32, write: impl FnOnce(&mut Writer) -> Result<()>) -> Result<()> {
        let mut content = Writer::new();
        write(&mut content)?;
        let length = content.len();
        self.uvarint(tag);
        self.uvarint(u32::try_from(length).map_err(|_| EncodeError::TooLong { length })?);
        for piece in content.into_pieces() {
            self.raw(&piece);
        }
        Ok(())
    }

    /// Refuses null in versions that do not allow it.
    pub fn null_only_if<'a, T>(
        allowed: bool,
        value: Option<&'a T>,
        field: &'static str,
    ) -> Result<Option<&'a T>> {
        match value {
            None if !allowed => Err(EncodeError::Null(field)),
            value => Ok(value),
        }
    }

    /// Overwrites four bytes at the very start: the frame's length, once it is known.
    pub(crate) fn patch_start(&mut self, value: i32) {
        let bytes = value.to_be_bytes();
        match self.pieces.first_mut() {
            None => self.buffer[..4].copy_from_slice(&bytes),
            Some(first) => {
                // The first piece was closed by us a moment ago; if nobody else holds it this does not copy.
                let mut head = BytesMut::from(std::mem::take(first));
                head[..4].copy_from_slice(&bytes);
                *first = head.freeze();
            }
        }
    }
}
