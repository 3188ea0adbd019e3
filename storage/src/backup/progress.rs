//! How far a backup or a restore is.

/// What was done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that were copied.
    pub copied_bytes: u64,
    /// Bytes of sealed segments that did not have to be copied.
    pub reused_bytes: u64,
    /// Bytes of all segments that are wanted; 0 before that is known.
    pub total_bytes: u64,
    /// Which pass it is, from 1.
    pub pass: u32,
    /// Whether the copy is being checked as a whole.
    pub is_checking: bool,
}

impl Progress {
    pub(super) fn copied(&mut self, bytes: u64, watch: &mut dyn FnMut(&Progress)) {
        self.copied_bytes += bytes;
        watch(self);
    }

    pub(super) fn reused(&mut self, bytes: u64, watch: &mut dyn FnMut(&Progress)) {
        self.reused_bytes += bytes;
        watch(self);
    }
}
