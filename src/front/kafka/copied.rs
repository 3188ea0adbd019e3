//! Copied: takes bytes out of the log's maps without touching them.
//! Caller: `socket`, for what is encrypted. Invariant: a page that the disk cannot give is an error here. Code that reads such a
//! page ends the process (SIGBUS); the kernel that is asked to write it to a pipe says EFAULT instead.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

/// What is taken at once: no more than a pipe holds, and a whole number of TLS's records.
const PIECE_BYTES_MAX: usize = 64 * 1024;

/// A pipe that is empty between two calls.
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

thread_local! {
    /// One for each of the runtime's workers, which fills and empties it without giving way in between.
    static PIPE: io::Result<Pipe> = Pipe::new();
}

/// The first bytes of these slices, all of them if they are few: one at least, if there is one.
pub(super) fn copied(slices: &[IoSlice<'_>]) -> io::Result<Vec<u8>> {
    PIPE.with(|pipe| match pipe {
        Ok(pipe) => pipe.copy(slices),
        Err(error) => Err(io::Error::new(
            error.kind(),
            format!("no pipe for what is encrypted: {error}"),
        )),
    })
}

impl Pipe {
    fn new() -> io::Result<Pipe> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Pipe { read, write })
    }

    fn copy(&self, slices: &[IoSlice<'_>]) -> io::Result<Vec<u8>> {
        let whole: usize = slices.iter().map(|slice| slice.len()).sum();
        let wanted = whole.min(PIECE_BYTES_MAX);
        let mut piece = Vec::with_capacity(wanted);
        while piece.len() < wanted {
            let (index, skip) = place(slices, piece.len());
            let first = &slices[index][skip..];
            let left = wanted - piece.len();
            let written = match first.len() >= left {
                true => rustix::io::write(&self.write, &first[..left]),
                false => {
                    let mut window = vec![IoSlice::new(first)];
                    window.extend(slices[index + 1..].iter().map(|slice| IoSlice::new(slice)));
                    rustix::io::writev(&self.write, &window)
                }
            };
            match written {
                Ok(written) => self.take(written, &mut piece)?,
                Err(Errno::INTR) => {}
                // What came before is good; the next call meets it again.
                Err(_) if !piece.is_empty() => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(piece)
    }

    /// Takes exactly what was written.
    fn take(&self, written: usize, piece: &mut Vec<u8>) -> io::Result<()> {
        let end = piece.len() + written;
        let mut at = piece.len();
        piece.resize(end, 0);
        while at < end {
            match rustix::io::read(&self.read, &mut piece[at..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => at += read,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Which slice holds this byte, and where in it.
fn place(slices: &[IoSlice<'_>], mut byte: usize) -> (usize, usize) {
    for (index, slice) in slices.iter().enumerate() {
        if byte < slice.len() {
            return (index, byte);
        }
        byte -= slice.len();
    }
    unreachable!("a byte that is wanted is in a slice")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_bytes_in_their_order() {
        let long: Vec<u8> = (0..200_000u32).map(|number| (number % 251) as u8).collect();
        let parts = [
            &long[..3],
            &[],
            &long[3..70_000],
            &long[70_000..70_001],
            &long[70_001..],
        ];
        let (mut got, mut left) = (Vec::new(), Vec::from(parts));
        while !left.iter().all(|part| part.is_empty()) {
            let slices: Vec<IoSlice<'_>> = left.iter().map(|part| IoSlice::new(part)).collect();
            let piece = copied(&slices).unwrap();
            assert!(!piece.is_empty() && piece.len() >= PIECE_BYTES_MAX.min(200_000 - got.len()));
            let mut taken = piece.len();
            for part in &mut left {
                let from_this = taken.min(part.len());
                *part = &part[from_this..];
                taken -= from_this;
            }
            got.extend(piece);
        }
        assert_eq!(got, long);
        assert!(copied(&[]).unwrap().is_empty());
    }
}
