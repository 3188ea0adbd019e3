//! Memory whose address is a multiple of the disk's block, as direct writes want it.
//! Callers: the WAL's writer and the segments' writer. No unsafe: a little more is allocated, and the front skipped.

/// What positions, lengths and addresses of direct writes are multiples of.
pub const DIRECT_ALIGNMENT_BYTES: usize = 4096;

/// A growable buffer that starts at a multiple of [`DIRECT_ALIGNMENT_BYTES`].
#[derive(Debug, Default)]
pub struct AlignedBuffer {
    memory: Vec<u8>,
    skip: usize,
    len: usize,
}

impl AlignedBuffer {
    /// An empty buffer that takes `bytes` before it moves.
    pub fn with_capacity(bytes: usize) -> AlignedBuffer {
        let mut buffer = AlignedBuffer::default();
        buffer.reserve(bytes);
        buffer
    }

    /// The bytes put in so far.
    pub fn as_slice(&self) -> &[u8] {
        &self.memory[self.skip..self.skip + self.len]
    }

    /// The bytes put in so far, to change in place.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.memory[self.skip..self.skip + self.len]
    }

    /// How many bytes were put in.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was put in.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes fit before it must move.
    pub fn capacity(&self) -> usize {
        self.memory.len() - self.skip
    }

    /// Forgets the bytes, keeps the memory.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Keeps the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Appends bytes; the whole moves if they do not fit.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        let start = self.skip + self.len;
        self.memory[start..start + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Appends `byte` until the length is a multiple of [`DIRECT_ALIGNMENT_BYTES`].
    pub fn pad_to_block(&mut self, byte: u8) {
        let padding = self.len.next_multiple_of(DIRECT_ALIGNMENT_BYTES) - self.len;
        self.extend_with(byte, padding);
    }

    /// Appends `byte`, `count` times.
    pub fn extend_with(&mut self, byte: u8, count: usize) {
        self.reserve(count);
        let start = self.skip + self.len;
        self.memory[start..start + count].fill(byte);
        self.len += count;
    }

    /// Drops the first `count` bytes and moves the rest to the front.
    pub fn consume_front(&mut self, count: usize) {
        assert!(count <= self.len, "cannot take more than there is");
        let start = self.skip + count;
        self.memory
            .copy_within(start..self.skip + self.len, self.skip);
        self.len -= count;
    }

    /// Makes room for `more` bytes.
    pub fn reserve(&mut self, more: usize) {
        let wanted = self.len + more;
        if wanted <= self.capacity() && !self.memory.is_empty() {
            return;
        }
        let grown = wanted
            .max(self.len * 2)
            .next_multiple_of(DIRECT_ALIGNMENT_BYTES);
        let memory = vec![0; grown + DIRECT_ALIGNMENT_BYTES];
        let skip = memory.as_ptr().align_offset(DIRECT_ALIGNMENT_BYTES);
        assert!(
            skip < DIRECT_ALIGNMENT_BYTES,
            "a byte pointer can always be aligned"
        );
        let mut buffer = AlignedBuffer {
            memory,
            skip,
            len: self.len,
        };
        buffer.memory[skip..skip + self.len].copy_from_slice(self.as_slice());
        *self = buffer;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_at_a_block_and_stays_there_as_it_grows() {
        let mut buffer = AlignedBuffer::default();
        let mut expected = Vec::new();
        for round in 0..200u32 {
            let piece = vec![round as u8; 777];
            buffer.extend_from_slice(&piece);
            expected.extend_from_slice(&piece);
            assert_eq!(
                buffer
                    .as_slice()
                    .as_ptr()
                    .align_offset(DIRECT_ALIGNMENT_BYTES),
                0
            );
        }
        assert_eq!(buffer.as_slice(), expected);
        buffer.pad_to_block(3);
        assert_eq!(buffer.len() % DIRECT_ALIGNMENT_BYTES, 0);
        assert!(
            buffer.as_slice()[expected.len()..]
                .iter()
                .all(|byte| *byte == 3)
        );
        buffer.consume_front(700);
        assert_eq!(&buffer.as_slice()[..expected.len() - 700], &expected[700..]);
    }
}
