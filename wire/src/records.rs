//! The `records` type of the protocol.

use crate::Bytes;
use bytes::BytesMut;

/// Record batches inside a message: slices of somebody else's memory, in order. The codec never touches them.
/// Equality compares the bytes, however they are cut.
#[derive(Clone, Debug, Default)]
pub struct Records {
    slices: Vec<Bytes>,
}

impl Records {
    /// No bytes. On the wire this is a zero length, not null.
    pub const EMPTY: Records = Records { slices: Vec::new() };

    /// Records that stand in several places.
    pub fn from_slices(slices: Vec<Bytes>) -> Records {
        Records { slices }
    }

    /// The slices in order.
    pub fn slices(&self) -> &[Bytes] {
        &self.slices
    }

    /// Bytes in all slices.
    pub fn len(&self) -> usize {
        self.slices.iter().map(Bytes::len).sum()
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.slices.iter().all(Bytes::is_empty)
    }

    /// All bytes in one piece. What was decoded is one piece already and is not copied.
    pub fn into_bytes(mut self) -> Bytes {
        match self.slices.len() {
            0 => Bytes::new(),
            1 => self.slices.swap_remove(0),
            _ => {
                let mut all = BytesMut::with_capacity(self.len());
                self.slices
                    .iter()
                    .for_each(|slice| all.extend_from_slice(slice));
                all.freeze()
            }
        }
    }
}

impl From<Bytes> for Records {
    fn from(bytes: Bytes) -> Records {
        Records {
            slices: vec![bytes],
        }
    }
}

impl PartialEq for Records {
    fn eq(&self, other: &Records) -> bool {
        self.len() == other.len()
            && self
                .slices
                .iter()
                .flatten()
                .eq(other.slices.iter().flatten())
    }
}
