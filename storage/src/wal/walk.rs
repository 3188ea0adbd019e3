//! Walks the WAL's frames in order, over all its files, and tells damage from a torn tail.
//!
//! Callers: recovery, and the offline verification. Reads only.
//! A frame that cannot be read is the torn tail, which nobody was promised, unless a later frame says that it was durable.
//! A start goes on behind the last frame that it could read: where the sequence of a discarded frame comes again in a later
//! file, the discarded one does not count.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use uuid::Uuid;

use super::format::{FILE_UNIT_BYTES, Frame, FrameHead};
use super::reader::{read_frame, scan};
use crate::checkpoint::WalPosition;
use crate::io::DiskFile;

/// A file of the WAL.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its number.
    pub sequence: u64,
    /// To read it.
    pub file: Arc<dyn DiskFile>,
    /// Its length.
    pub bytes: u64,
}

/// What the walk comes to, in order.
#[derive(Debug)]
pub enum Event {
    /// A frame that counts. If it is not intact, a later frame knows that it was durable.
    Frame {
        /// Which of the sources holds it.
        source: usize,
        /// Where it begins.
        position: u64,
        /// What it holds.
        frame: Frame,
    },
    /// Frames that were durable cannot be read, nor be told what they held.
    Lost(Lost),
}

/// Frames that were durable and cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The WAL file in which, or before which, they stood.
    pub file: u64,
    /// Where in it.
    pub position: u64,
    /// Their numbers; empty if not even that is known.
    pub frames: Range<u64>,
    /// What was found.
    pub reason: &'static str,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Lost {
            file,
            position,
            frames,
            reason,
        } = self;
        write!(f, "WAL file {file}, position {position}: {reason}")?;
        if !frames.is_empty() {
            write!(f, " (frames {}..{})", frames.start, frames.end)?;
        }
        Ok(())
    }
}

/// The end of the WAL that was being written when the store stopped. Nobody was promised it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The WAL file.
    pub file: u64,
    /// Where the last whole frame ends.
    pub position: u64,
    /// How many later frames were found whole and dropped with it.
    pub frames: usize,
}

/// Where the walk of one file ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileEnd {
    /// Whether it holds a frame that counts, or one that cannot be read.
    pub used: bool,
    /// Where the last of them ends.
    pub position: u64,
    /// Whether frames that do not count lie behind.
    pub has_rest: bool,
}

/// What a walk came to in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walked {
    /// One for each source.
    pub ends: Vec<FileEnd>,
    /// The number of the next frame.
    pub next_frame: u64,
    /// What was dropped at the end.
    pub torn: Option<TornTail>,
    /// A frame that a later release wrote. The walk went no further, and what it says of the end means nothing.
    pub newer: Option<NewerFrame>,
}

/// A whole frame of a version that is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewerFrame {
    /// The WAL file.
    pub file: u64,
    /// Where in it.
    pub position: u64,
    /// Its version.
    pub version: u16,
}

/// Walks `sources`, which rise by sequence and hold no file before `from`. Errors are the disk's, but for sectors that
/// cannot be read.
pub fn walk(
    sources: &[Source],
    store: Uuid,
    from: WalPosition,
    visit: &mut dyn FnMut(Event),
) -> io::Result<Walked> {
    let mut walk = Walk {
        sources,
        store,
        expected: from.frame,
        torn: None,
        newer: Cell::new(None),
        visit,
    };
    walk.begin(from)?;
    let mut ends = Vec::with_capacity(sources.len());
    for (index, source) in sources.iter().enumerate() {
        let position = if source.sequence == from.file {
            from.position
        } else {
            0
        };
        ends.push(walk.file(index, position)?);
        if walk.newer.get().is_some() {
            break;
        }
    }
    Ok(Walked {
        ends,
        next_frame: walk.expected,
        torn: walk.torn,
        newer: walk.newer.get(),
    })
}

/// Whether the disk says that the block at a position cannot be read.
fn is_unreadable(file: &Arc<dyn DiskFile>, position: u64) -> io::Result<bool> {
    match file.read_at(position, &mut [0; 4096]) {
        Ok(_) => Ok(false),
        Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(true),
        Err(error) => Err(error),
    }
}

struct Walk<'a> {
    sources: &'a [Source],
    store: Uuid,
    /// The number that the next frame must have.
    expected: u64,
    /// Where the walk could not go on, until a later file shows that nothing was lost there.
    torn: Option<TornTail>,
    /// A frame of a later release's, wherever it was come upon.
    newer: Cell<Option<NewerFrame>>,
    visit: &'a mut dyn FnMut(Event),
}

impl Walk<'_> {
    /// The file where the replay begins was there when the checkpoint was stored, and as long as it says.
    fn begin(&mut self, from: WalPosition) -> io::Result<()> {
        if from.file == 0 {
            return Ok(());
        }
        let first = self
            .sources
            .iter()
            .find(|source| source.sequence == from.file);
        let reason = match first {
            Some(first) if first.bytes >= from.position => return Ok(()),
            Some(_) => "the file is shorter than the checkpoint knows it",
            None => "the file is missing",
        };
        let behind = usize::from(first.is_some());
        let next = self
            .first_head(behind)?
            .map_or(from.frame, |head| head.sequence.max(from.frame));
        self.lose(from.file, from.position, from.frame..next, reason);
        self.expected = next;
        Ok(())
    }

    fn lose(&mut self, file: u64, position: u64, frames: Range<u64>, reason: &'static str) {
        (self.visit)(Event::Lost(Lost {
            file,
            position,
            frames,
            reason,
        }));
    }

    fn file(&mut self, index: usize, from: u64) -> io::Result<FileEnd> {
        let source = &self.sources[index];
        let mut end = FileEnd {
            used: false,
            position: from,
            has_rest: false,
        };
        if !source.bytes.is_multiple_of(FILE_UNIT_BYTES) || source.bytes == 0 {
            let next = self.expected..self.expected;
            self.lose(source.sequence, source.bytes, next, "the file was cut");
        }
        let mut was_cut = false;
        // A start that went on with these numbers in a later file had discarded them here.
        let discarded = self
            .first_head(index + 1)?
            .map_or(u64::MAX, |head| head.sequence);
        while end.position < source.bytes {
            let position = end.position;
            let frame = read_frame(&*source.file, self.store, source.sequence, position)?;
            match frame {
                Some(frame)
                    if frame.head.sequence < discarded
                        && self.counts(index, &frame, position)? =>
                {
                    let units_differ = frame.head.file_bytes() != source.bytes;
                    if units_differ && !std::mem::replace(&mut was_cut, true) {
                        let next = frame.head.sequence + 1;
                        self.lose(
                            source.sequence,
                            source.bytes,
                            next..next,
                            "the file was cut",
                        );
                    }
                    end.position += frame.head.padded_bytes();
                    end.used = true;
                    self.torn = None;
                    self.expected = frame.head.sequence + 1;
                    (self.visit)(Event::Frame {
                        source: index,
                        position,
                        frame,
                    });
                }
                _ => match self.resume_after(index, position)? {
                    // A later frame was built when this one was durable: what lies between is damaged, not torn.
                    Some((at, next)) => {
                        let frames = self.expected..next;
                        let reason = "frames cannot be read, before frames that were written later";
                        self.lose(source.sequence, position, frames, reason);
                        end.position = at;
                        self.expected = next;
                    }
                    None => {
                        let rest = self.heads(index, position)?;
                        if is_unreadable(&source.file, position)? {
                            let frames = self.expected..self.expected;
                            self.lose(source.sequence, position, frames, "the disk cannot read it");
                            (end.used, end.has_rest) = (true, true);
                        } else if !rest.is_empty() {
                            end.has_rest = true;
                            self.torn = Some(TornTail {
                                file: source.sequence,
                                position,
                                frames: rest.len(),
                            });
                        }
                        break;
                    }
                },
            }
        }
        Ok(end)
    }

    fn heads(&self, index: usize, from: u64) -> io::Result<Vec<(u64, FrameHead)>> {
        let source = &self.sources[index];
        let found = scan(&*source.file, self.store, source.sequence, from)?;
        if let Some((position, version)) = found.newer {
            self.newer.set(Some(NewerFrame {
                file: source.sequence,
                position,
                version,
            }));
        }
        Ok(found.heads)
    }

    /// The first frame's head in the files from `index` on.
    fn first_head(&self, index: usize) -> io::Result<Option<FrameHead>> {
        for index in index..self.sources.len() {
            if let Some((_, head)) = self.heads(index, 0)?.first() {
                return Ok(Some(*head));
            }
        }
        Ok(None)
    }

    /// Whether this is the next frame, and either whole or known by a later frame to have been durable.
    fn counts(&self, index: usize, frame: &Frame, position: u64) -> io::Result<bool> {
        if frame.head.sequence != self.expected {
            return Ok(false);
        }
        Ok(frame.intact || self.was_durable(index, frame, position)?)
    }

    fn was_durable(&self, index: usize, frame: &Frame, position: u64) -> io::Result<bool> {
        let sequence = frame.head.sequence;
        let knows = |heads: &[(u64, FrameHead)]| {
            heads
                .iter()
                .any(|(_, head)| head.durable_sequence > sequence)
        };
        if knows(&self.heads(index, position + frame.head.padded_bytes())?) {
            return Ok(true);
        }
        for later in index + 1..self.sources.len() {
            if knows(&self.heads(later, 0)?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The next frame after an unreadable place, if some frame behind it in this file knows that the place was durable.
    fn resume_after(&self, index: usize, position: u64) -> io::Result<Option<(u64, u64)>> {
        let mut later = self
            .heads(index, position)?
            .into_iter()
            .filter(|(_, head)| head.sequence > self.expected)
            .peekable();
        let Some((at, next)) = later.peek().map(|(at, head)| (*at, head.sequence)) else {
            return Ok(None);
        };
        let promised = later.any(|(_, head)| head.durable_sequence > self.expected);
        Ok(promised.then_some((at, next)))
    }
}
