//! Reads the types of §1.5 from a packet's bytes.

use super::fault::Fault;

const SHORT: Fault = Fault::Malformed("it ends too early");

/// What is left of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Over these bytes.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    /// So many bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether nothing is left; else it is too much.
    pub fn end(&self) -> Result<(), Fault> {
        match self.0 {
            [] => Ok(()),
            _ => Err(Fault::Malformed("bytes follow its end")),
        }
    }

    /// A byte.
    pub fn byte(&mut self) -> Result<u8, Fault> {
        Ok(self.take(1)?[0])
    }

    /// Two bytes.
    pub fn short(&mut self) -> Result<u16, Fault> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// Four bytes.
    pub fn long(&mut self) -> Result<u32, Fault> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// A packet identifier, which is not 0.
    pub fn packet_id(&mut self) -> Result<u16, Fault> {
        match self.short()? {
            0 => Err(Fault::Protocol("a packet identifier is 0")),
            id => Ok(id),
        }
    }

    /// A variable byte integer, in as few bytes as it takes (§1.5.5).
    pub fn variable(&mut self) -> Result<u32, Fault> {
        let mut value = 0;
        for step in 0..4 {
            let byte = self.byte()?;
            value |= u32::from(byte & 0x7f) << (7 * step);
            if byte & 0x80 == 0 {
                return match byte == 0 && step > 0 {
                    true => Err(Fault::Malformed("a length in more bytes than it takes")),
                    false => Ok(value),
                };
            }
        }
        Err(Fault::Malformed("a length of more than four bytes"))
    }

    /// Binary data.
    pub fn binary(&mut self) -> Result<&'a [u8], Fault> {
        let length = self.short()?;
        self.take(usize::from(length))
    }

    /// A string: UTF-8 without U+0000 (§1.5.4).
    pub fn text(&mut self) -> Result<&'a str, Fault> {
        let bytes = self.binary()?;
        if memchr::memchr(0, bytes).is_some() {
            return Err(Fault::Malformed("a string with U+0000"));
        }
        std::str::from_utf8(bytes).map_err(|_| Fault::Malformed("a string that is no UTF-8"))
    }
}
