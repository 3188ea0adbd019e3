//! Walks over a segment whose batches a thread of its own reads and checks while those before them are looked at.
//!
//! Callers: the rewrite, and the scan of what is rewritten next: to read from memory, and to compute checksums, takes as long as to
//! judge records.
//! Invariants: batches are shown in order, and none behind one that could not be read; a piece waits, one is looked at and one is read,
//! which is all the memory that it takes; who looks at batches waits for no more than the rest of a piece, and for the pace.

use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, scope};

use bytes::Bytes;
use model::batch::BatchHeader;

use super::RewriteParts;
use super::error::RewriteError;
use super::keeper::{KeepError, PIECE_BYTES_MAX, Pace};
use super::source::{Batches, Found, Pages, open_segment, shown};
use crate::components::Threads;
use crate::log::LogCell;
use crate::segment::SegmentId;

/// A shorter segment is not worth a thread.
const BYTES_MIN: u64 = 4 << 20;
/// Batches of a piece at most: small ones take more memory than their bytes.
const BATCHES_MAX: usize = 1024;

/// Batches that were read, and how the walk ended if it did.
struct Piece {
    found: Vec<Found>,
    ended: Option<Result<(), RewriteError>>,
}

/// Like [`super::scan`] of a segment that is rewritten next.
pub(crate) fn scan_beforehand(
    parts: &RewriteParts,
    log: &Arc<LogCell>,
    segment: SegmentId,
    pages: Pages,
    pace: &dyn Pace,
    each: &mut dyn FnMut(&BatchHeader, &Bytes) -> Result<(), KeepError>,
) -> Result<(), RewriteError> {
    let batches = open_segment(parts, log, segment, pages)?;
    walk(batches, parts.threads, pace, &mut |found| {
        shown(segment, each(&found.header, &found.bytes))
    })
}

/// Shows each batch of a segment to `each`, until that breaks off.
pub(super) fn walk(
    batches: Batches,
    threads: Threads,
    pace: &dyn Pace,
    each: &mut dyn FnMut(&Found) -> Result<ControlFlow<()>, RewriteError>,
) -> Result<(), RewriteError> {
    let has_thread = threads == Threads::Own && batches.bytes_left() >= BYTES_MIN;
    let batches = &Mutex::new(batches);
    let lock = || batches.lock().expect("nobody who has it panics");
    if has_thread {
        let walked = scope(|scope| {
            let (send, pieces) = sync_channel(1);
            let read = move || read_all(&mut lock(), pace, &send);
            let thread = Builder::new().name("segment-reader".to_owned());
            // Without one more thread it goes on as without this help.
            let thread = thread.spawn_scoped(scope, read);
            thread.is_ok().then(|| show(pieces, each))
        });
        if let Some(walked) = walked {
            return walked;
        }
    }
    let mut batches = lock();
    while let Some(found) = batches.next_batch(pace)? {
        if each(&found)?.is_break() {
            break;
        }
    }
    Ok(())
}

/// Reads to the end, or until nobody wants more.
fn read_all(batches: &mut Batches, pace: &dyn Pace, pieces: &SyncSender<Piece>) {
    loop {
        let piece = next_piece(batches, pace);
        let has_ended = piece.ended.is_some();
        if pieces.send(piece).is_err() || has_ended {
            return;
        }
    }
}

fn next_piece(batches: &mut Batches, pace: &dyn Pace) -> Piece {
    let (mut found, mut bytes) = (Vec::new(), 0);
    let ended = loop {
        match batches.next_batch(pace) {
            Ok(Some(batch)) => {
                bytes += batch.bytes.len();
                found.push(batch);
                if bytes >= PIECE_BYTES_MAX || found.len() == BATCHES_MAX {
                    break None;
                }
            }
            Ok(None) => break Some(Ok(())),
            Err(error) => break Some(Err(error)),
        }
    };
    Piece { found, ended }
}

fn show(
    pieces: Receiver<Piece>,
    each: &mut dyn FnMut(&Found) -> Result<ControlFlow<()>, RewriteError>,
) -> Result<(), RewriteError> {
    for piece in pieces {
        for found in piece.found {
            if each(&found)?.is_break() {
                return Ok(());
            }
        }
        if let Some(ended) = piece.ended {
            return ended;
        }
    }
    unreachable!("who reads says how that has ended")
}
