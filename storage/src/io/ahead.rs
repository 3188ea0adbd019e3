//! How far the disk was told to read.
//! Callers: what reads files in the background, which is `DiskFile::read_no_further` of them: rewrites and the scrub.

use std::ops::Range;

use super::DiskFile;

/// How far the disk was told to read a file, so that nothing is told twice. Positions only rise.
#[derive(Debug, Default)]
pub struct Ahead(u64);

impl Ahead {
    /// Has the disk begin with what lies in a range and was not told before.
    pub fn tell(&mut self, file: &dyn DiskFile, range: Range<u64>) {
        if let Some(new) = self.new_in(range) {
            file.will_read(new.start, new.end - new.start);
        }
    }

    fn new_in(&mut self, range: Range<u64>) -> Option<Range<u64>> {
        let new = self.0.max(range.start)..range.end;
        let is_new = !new.is_empty();
        is_new.then(|| {
            self.0 = new.end;
            new
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_told_twice_and_what_was_passed_over_is_not_told() {
        let mut ahead = Ahead::default();
        assert_eq!(ahead.new_in(0..4), Some(0..4));
        assert_eq!(ahead.new_in(1..4), None);
        assert_eq!(ahead.new_in(2..6), Some(4..6));
        assert_eq!(ahead.new_in(9..12), Some(9..12));
        assert_eq!(ahead.new_in(12..12), None);
    }
}
