//! A file as a window that moves over it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

const WINDOW_BYTES: usize = 1 << 20;

pub struct Source<'r> {
    file: File,
    pub len: u64,
    window: Vec<u8>,
    start: u64,
    read_to: u64,
    read: &'r mut dyn FnMut(u64) -> bool,
}

impl<'r> Source<'r> {
    pub fn open(path: &Path, read: &'r mut dyn FnMut(u64) -> bool) -> io::Result<Source<'r>> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Source {
            file,
            len,
            window: Vec::new(),
            start: 0,
            read_to: 0,
            read,
        })
    }

    /// So many bytes from a position on, or what there is.
    pub fn at(&mut self, position: u64, count: usize) -> io::Result<&[u8]> {
        let end = self.start + self.window.len() as u64;
        let left = usize::try_from(self.len.saturating_sub(position)).unwrap_or(usize::MAX);
        let count = count.min(left);
        if position < self.start || position + count as u64 > end {
            self.fill(position, count.max(WINDOW_BYTES).min(left))?;
        }
        let from = usize::try_from(position - self.start).unwrap_or(usize::MAX);
        let from = from.min(self.window.len());
        let to = (from + count).min(self.window.len());
        Ok(&self.window[from..to])
    }

    fn fill(&mut self, position: u64, count: usize) -> io::Result<()> {
        self.window.resize(count, 0);
        self.start = position;
        let mut filled = 0;
        while filled < count {
            match self
                .file
                .read_at(&mut self.window[filled..], position + filled as u64)
            {
                Ok(0) => break,
                Ok(more) => filled += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // It was cut meanwhile.
        self.window.truncate(filled);
        if filled < count {
            self.len = position + filled as u64;
        }
        let end = position + filled as u64;
        let news = end.saturating_sub(self.read_to.max(position));
        self.read_to = self.read_to.max(end);
        match (self.read)(news) {
            true => Ok(()),
            false => Err(io::ErrorKind::Interrupted.into()),
        }
    }
}
