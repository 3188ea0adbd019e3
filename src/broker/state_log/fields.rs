//! Fields of binary values of state logs, one after the other. Integers are big-endian; `bytes` is a u32 length and the bytes,
//! `string` the same with UTF-8.
//! Callers: the records of retained messages and of sessions.
//! Invariant: nothing is allocated by what a length claims.

use bytes::{BufMut as _, BytesMut};
use model::{Offset, Timestamp, TopicId};

/// A value that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is malformed at {0}")]
pub struct Malformed(pub &'static str);

/// What is left of a value.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed(what))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        let taken = self.take(N, what)?;
        Ok(taken.try_into().expect("so many were taken"))
    }

    /// A byte.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, Malformed> {
        Ok(u8::from_be_bytes(self.array(what)?))
    }

    /// Two bytes.
    pub fn u16(&mut self, what: &'static str) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.array(what)?))
    }

    /// A byte that says yes or no.
    pub fn flag(&mut self, what: &'static str) -> Result<bool, Malformed> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed(what)),
        }
    }

    /// An offset.
    pub fn offset(&mut self, what: &'static str) -> Result<Offset, Malformed> {
        let number = i64::from_be_bytes(self.array(what)?);
        Offset::from_wire(number).ok_or(Malformed(what))
    }

    /// A topic's id.
    pub fn topic(&mut self, what: &'static str) -> Result<TopicId, Malformed> {
        let bytes = self.array(what)?;
        Ok(TopicId::from_uuid(uuid::Uuid::from_bytes(bytes)))
    }

    /// Four bytes.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array(what)?))
    }

    /// A time, as milliseconds in eight bytes.
    pub fn time(&mut self, what: &'static str) -> Result<Timestamp, Malformed> {
        let millis = i64::from_be_bytes(self.array(what)?);
        Ok(Timestamp::from_millis(millis))
    }

    /// Bytes behind their length.
    pub fn bytes(&mut self, what: &'static str) -> Result<&'a [u8], Malformed> {
        let count = usize::try_from(self.u32(what)?).map_err(|_| Malformed(what))?;
        self.take(count, what)
    }

    /// Text behind its length.
    pub fn string(&mut self, what: &'static str) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes(what)?).map_err(|_| Malformed(what))
    }

    /// Nothing is left.
    pub fn end(self) -> Result<(), Malformed> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(Malformed("its end")),
        }
    }
}

/// Bytes behind their length.
pub fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    let count = u32::try_from(bytes.len()).expect("a record is shorter than 4 GiB");
    out.put_u32(count);
    out.put_slice(bytes);
}
