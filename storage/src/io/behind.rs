//! Writes chunks of a file one after the other, each while the next one is made.
//!
//! Caller: the writer of a rewritten segment, whose processor and disk would wait for each other otherwise.
//! Invariants: chunks are written in the order in which they are given; one at a time is on its way, so that two buffers are all the
//! memory that it takes; after an error nothing is written.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::{AlignedBuffer, DiskFile};

/// See the module.
#[derive(Debug)]
pub(crate) struct WriteBehind {
    file: Arc<dyn DiskFile>,
    /// None where there is no thread: chunks are written at once.
    writer: Option<Writer>,
    /// A chunk is on its way.
    is_busy: bool,
    /// The buffer that is not with the writer.
    spare: AlignedBuffer,
}

#[derive(Debug)]
struct Writer {
    chunks: SyncSender<(u64, AlignedBuffer)>,
    written: Receiver<io::Result<AlignedBuffer>>,
    thread: Option<JoinHandle<()>>,
}

impl WriteBehind {
    /// Writes to this file, with a thread of its own if it may have one, and one can be had.
    pub fn new(file: Arc<dyn DiskFile>, may_have_thread: bool) -> WriteBehind {
        let start = || Writer::start(Arc::clone(&file));
        let writer = may_have_thread.then(start).flatten();
        WriteBehind {
            file,
            writer,
            is_busy: false,
            spare: AlignedBuffer::default(),
        }
    }

    /// Writes a chunk at a position, and leaves an empty buffer in its place. Waits for the chunk before it.
    /// Errors: that this chunk, or the one before it, could not be written.
    pub fn write(&mut self, position: u64, chunk: &mut AlignedBuffer) -> io::Result<()> {
        self.wait()?;
        let Some(writer) = &self.writer else {
            self.file.write_at(position, chunk.as_slice())?;
            chunk.clear();
            return Ok(());
        };
        let full = std::mem::replace(chunk, std::mem::take(&mut self.spare));
        let sent = writer.chunks.send((position, full));
        sent.map_err(|_| io::Error::other("the thread that writes has ended"))?;
        self.is_busy = true;
        Ok(())
    }

    /// Waits until all chunks are in the file. It is not synced. Error: that the last one could not be written.
    pub fn wait(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.is_busy) {
            return Ok(());
        }
        let writer = self.writer.as_ref().expect("who is busy is there");
        let written = writer.written.recv();
        self.spare =
            written.map_err(|_| io::Error::other("the thread that writes has ended"))??;
        Ok(())
    }
}

impl Writer {
    fn start(file: Arc<dyn DiskFile>) -> Option<Writer> {
        let (chunks, given) = sync_channel::<(u64, AlignedBuffer)>(1);
        let (done, written) = sync_channel(1);
        let work = move || {
            for (position, mut chunk) in given {
                let outcome = file.write_at(position, chunk.as_slice());
                chunk.clear();
                let failed = outcome.is_err();
                if done.send(outcome.map(|()| chunk)).is_err() || failed {
                    break;
                }
            }
        };
        let name = "segment-writer".to_owned();
        // Without one more thread it goes on as without this help.
        let thread = std::thread::Builder::new().name(name).spawn(work).ok()?;
        Some(Writer {
            chunks,
            written,
            thread: Some(thread),
        })
    }
}

impl Drop for Writer {
    /// What is on its way is written before the file goes.
    fn drop(&mut self) {
        let (none, _) = sync_channel(0);
        drop(std::mem::replace(&mut self.chunks, none));
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes a segment panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{Disk as _, OpenHow, RealDisk};

    fn chunk(of: u8) -> AlignedBuffer {
        let mut chunk = AlignedBuffer::default();
        chunk.extend_from_slice(&[of; 5000]);
        chunk
    }

    #[test]
    fn chunks_are_in_the_file_in_their_places_with_and_without_a_thread() {
        for has_thread in [true, false] {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("f");
            let file = RealDisk.open(&path, OpenHow::CreateNew).expect("made");
            let mut behind = WriteBehind::new(Arc::clone(&file), has_thread);
            let mut expected = Vec::new();
            for of in 0..20 {
                let mut chunk = chunk(of);
                expected.extend_from_slice(chunk.as_slice());
                behind
                    .write(u64::from(of) * 5000, &mut chunk)
                    .expect("written");
                assert!(chunk.is_empty());
            }
            behind.wait().expect("written");
            assert_eq!(std::fs::read(&path).expect("read"), expected);
        }
    }

    #[test]
    fn a_chunk_that_cannot_be_written_is_told_at_the_next_call() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("f");
        std::fs::write(&path, b"x").expect("made");
        let file = RealDisk.open(&path, OpenHow::Read).expect("opened");
        for has_thread in [true, false] {
            let mut behind = WriteBehind::new(Arc::clone(&file), has_thread);
            let first = behind.write(0, &mut chunk(1));
            let told = first.and_then(|()| behind.wait());
            assert!(told.is_err(), "thread: {has_thread}");
        }
        assert_eq!(std::fs::read(&path).expect("read"), b"x");
    }
}
