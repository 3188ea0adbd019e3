//! Takes a target's input apart: the choices that it makes first, and the bytes that are read by what is tested.
//! Callers: the targets. Invariant: an input that is too short is continued with zeros, so that every input means something.

/// What is left of an input.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All of it.
    pub fn new(bytes: &'a [u8]) -> Input<'a> {
        Input(bytes)
    }

    /// The next bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let count = self.0.len().min(N);
        bytes[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        bytes
    }

    /// A byte.
    pub fn u8(&mut self) -> u8 {
        u8::from_be_bytes(self.array())
    }

    /// A number of two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    /// A number of two bytes.
    pub fn i16(&mut self) -> i16 {
        i16::from_be_bytes(self.array())
    }

    /// A number of four bytes.
    pub fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    /// A number of four bytes.
    pub fn i32(&mut self) -> i32 {
        i32::from_be_bytes(self.array())
    }

    /// A number of eight bytes.
    pub fn i64(&mut self) -> i64 {
        i64::from_be_bytes(self.array())
    }

    /// Bytes behind their length, which has two bytes; fewer if the input ends before.
    pub fn chunk(&mut self) -> &'a [u8] {
        let bytes = usize::from(self.u16());
        let (chunk, rest) = self.0.split_at(bytes.min(self.0.len()));
        self.0 = rest;
        chunk
    }

    /// A chunk, or null: the highest bit of its length says so.
    pub fn nullable_chunk(&mut self) -> Option<&'a [u8]> {
        if self.0.first().is_some_and(|byte| byte & 0x80 != 0) {
            self.u16();
            return None;
        }
        Some(self.chunk())
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everything that is left.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// Puts a chunk as [`Input::chunk`] takes it.
///
/// # Panics
/// If it is longer than a length of two bytes can say.
pub fn put_chunk(out: &mut Vec<u8>, chunk: &[u8]) {
    let bytes = u16::try_from(chunk.len()).expect("seeds' chunks are short");
    out.extend_from_slice(&bytes.to_be_bytes());
    out.extend_from_slice(chunk);
}
