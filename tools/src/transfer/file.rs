//! The file that `export` writes and `import` reads: a topic's batches as they are stored, with what makes it a topic.
//!
//! Little-endian. The first part is the envelope of the store's own small files around JSON.
//! ```text
//! | logtopic 8 | version 4 = 1 | body bytes 4 | crc32 4 | JSON: topic, settings, partitions with start and end, exported_ms |
//! then parts, the last one of kind 1
//! | bytes 4 | crc32 4 | kind 1 | partition 4 | body, so many bytes |
//! ```
//! Kind 0: whole record batches of a partition, byte for byte, in the order of offsets. Kind 1: the end, JSON: batches, records,
//! bytes. The checksum (IEEE) covers kind, partition and body. A file without its end is unfinished: an export goes on behind its last
//! whole part, an import refuses it. Callers: `export`, `import`. Invariant: nothing is allocated by a length that was not
//! checked.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use bytes::Bytes;
use flate2::Crc;
use model::PartitionId;
use serde::{Deserialize, Serialize};
use storage::fields::{ENVELOPE_HEADER_BYTES, FormatError, envelope, open_envelope};

pub(super) const MAGIC: &[u8; 8] = b"logtopic";
pub(super) const VERSION: u32 = 1;
const PART_HEAD_BYTES: usize = 13;
/// No part is longer.
const PART_BYTES_MAX: u32 = 256 << 20;
const HEADER_BYTES_MAX: u32 = 16 << 20;
const KIND_BATCHES: u8 = 0;
const KIND_END: u8 = 1;

/// Whose records a file has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    pub topic: String,
    /// What was set for the topic.
    pub settings: BTreeMap<String, String>,
    pub partitions: Vec<PartitionRange>,
    pub exported_ms: i64,
}

/// What a file has of a partition: the batches that hold these offsets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PartitionRange {
    pub partition: u32,
    pub start: u64,
    pub end: u64,
}

/// What is in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Totals {
    pub batches: u64,
    pub records: u64,
    pub bytes: u64,
}

/// Why a file cannot be read on.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransferError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is no file of `alluvium export`: {0}")]
    Header(#[from] FormatError),
    #[error("its head cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    #[error("byte {position}: {reason}")]
    Damaged { position: u64, reason: String },
    #[error(
        "it is unfinished: it ends at byte {position}, without the part that says that it is whole"
    )]
    Unfinished { position: u64 },
}

/// A part of a file.
#[derive(Debug)]
pub(super) enum Part {
    Batches {
        partition: PartitionId,
        batches: Bytes,
    },
    End(Totals),
}

/// Reads a file from its front.
#[derive(Debug)]
pub(super) struct Reader {
    file: BufReader<File>,
    position: u64,
}

impl Reader {
    pub fn open(path: &Path) -> Result<(Reader, Header), TransferError> {
        let mut file = BufReader::new(File::open(path)?);
        let mut head = vec![0; ENVELOPE_HEADER_BYTES];
        let read = read_up_to(&mut file, &mut head)?;
        head.truncate(read);
        let body_bytes = head
            .get(12..16)
            .and_then(|bytes| bytes.first_chunk().copied());
        let body_bytes = body_bytes.map_or(0, u32::from_le_bytes);
        if body_bytes <= HEADER_BYTES_MAX && head.starts_with(MAGIC) {
            let from = head.len();
            head.resize(from + body_bytes as usize, 0);
            let read = read_up_to(&mut file, &mut head[from..])?;
            head.truncate(from + read);
        }
        let opened = open_envelope(MAGIC, VERSION, &head)?;
        let header = serde_json::from_slice(opened.body)?;
        let position = head.len() as u64;
        Ok((Reader { file, position }, header))
    }

    /// Where the next part begins.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next part. The one that ends the file is the last one.
    pub fn next(&mut self) -> Result<Part, TransferError> {
        let position = self.position;
        let damaged = |reason: &str| TransferError::Damaged {
            position,
            reason: reason.to_owned(),
        };
        let mut head = [0; PART_HEAD_BYTES];
        if read_up_to(&mut self.file, &mut head)? < head.len() {
            return Err(TransferError::Unfinished { position });
        }
        let number = |at: usize| {
            let bytes = head[at..].first_chunk().copied();
            u32::from_le_bytes(bytes.expect("a head has its numbers"))
        };
        let (bytes, stored, kind, partition) = (number(0), number(4), head[8], number(9));
        if bytes > PART_BYTES_MAX || kind > KIND_END {
            return Err(damaged("no part of a file begins so"));
        }
        let mut body = Vec::new();
        (&mut self.file).take(bytes.into()).read_to_end(&mut body)?;
        if body.len() < bytes as usize {
            return Err(TransferError::Unfinished { position });
        }
        if checksum(&head[8..], &body) != stored {
            return Err(damaged("the checksum does not match"));
        }
        self.position += (PART_HEAD_BYTES + body.len()) as u64;
        if kind == KIND_END {
            let mut one = [0];
            if self.file.read(&mut one)? > 0 {
                return Err(damaged("something follows the end"));
            }
            return Ok(Part::End(serde_json::from_slice(&body)?));
        }
        Ok(Part::Batches {
            partition: PartitionId::new(partition),
            batches: body.into(),
        })
    }
}

fn read_up_to(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read(&mut buffer[read..]) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

fn checksum(head: &[u8], body: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(head);
    crc.update(body);
    crc.sum()
}

/// Writes a file, part by part.
#[derive(Debug)]
pub(super) struct Writer {
    file: BufWriter<File>,
    pub totals: Totals,
}

impl Writer {
    /// A new file.
    pub fn create(path: &Path, header: &Header) -> Result<Writer, TransferError> {
        let mut file = BufWriter::new(File::create_new(path)?);
        file.write_all(&envelope(MAGIC, VERSION, &serde_json::to_vec(header)?))?;
        Ok(Writer {
            file,
            totals: Totals::default(),
        })
    }

    /// Goes on behind what is whole of an unfinished one.
    pub fn go_on(path: &Path, whole_bytes: u64, totals: Totals) -> Result<Writer, TransferError> {
        let file = File::options().append(true).open(path)?;
        file.set_len(whole_bytes)?;
        Ok(Writer {
            file: BufWriter::new(file),
            totals,
        })
    }

    /// Whole batches of a partition.
    pub fn batches(&mut self, partition: PartitionId, batches: &[u8]) -> io::Result<()> {
        self.part(KIND_BATCHES, partition.get(), batches)
    }

    fn part(&mut self, kind: u8, partition: u32, body: &[u8]) -> io::Result<()> {
        let bytes = u32::try_from(body.len())
            .ok()
            .filter(|bytes| *bytes <= PART_BYTES_MAX);
        let bytes = bytes.ok_or_else(|| io::Error::other("a batch is too large for the file"))?;
        let mut head = Vec::with_capacity(PART_HEAD_BYTES);
        head.extend_from_slice(&bytes.to_le_bytes());
        head.extend_from_slice(&[0; 4]);
        head.push(kind);
        head.extend_from_slice(&partition.to_le_bytes());
        let checksum = checksum(&head[8..], body);
        head[4..8].copy_from_slice(&checksum.to_le_bytes());
        self.file.write_all(&head)?;
        self.file.write_all(body)
    }

    /// The end: the file is whole, and on the disk.
    pub fn finish(mut self) -> Result<Totals, TransferError> {
        let totals = self.totals;
        self.part(KIND_END, 0, &serde_json::to_vec(&totals)?)?;
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        Ok(totals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            topic: "fleet".to_owned(),
            settings: BTreeMap::from([("retention.ms".to_owned(), "-1".to_owned())]),
            partitions: vec![PartitionRange {
                partition: 3,
                start: 7,
                end: 900,
            }],
            exported_ms: 1_700_000_000_000,
        }
    }

    fn read(path: &Path) -> Result<(Header, Vec<u8>, Totals), TransferError> {
        let (mut reader, header) = Reader::open(path)?;
        let mut all = Vec::new();
        loop {
            match reader.next()? {
                Part::Batches { partition, batches } => {
                    assert_eq!(partition, PartitionId::new(3));
                    all.extend_from_slice(&batches);
                }
                Part::End(totals) => return Ok((header, all, totals)),
            }
        }
    }

    #[test]
    fn what_is_written_comes_back_and_a_file_cut_or_flipped_anywhere_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let mut writer = Writer::create(&path, &header()).unwrap();
        writer
            .batches(PartitionId::new(3), b"some batches")
            .unwrap();
        drop(writer);
        let whole = std::fs::metadata(&path).unwrap().len();
        assert!(
            matches!(read(&path), Err(TransferError::Unfinished { position }) if position == whole)
        );
        // What is half written behind it is cut off.
        let mut unfinished = File::options().append(true).open(&path).unwrap();
        unfinished.write_all(b"half").unwrap();
        let totals = Totals {
            batches: 2,
            records: 5,
            bytes: 16,
        };
        let mut writer = Writer::go_on(&path, whole, totals).unwrap();
        writer.batches(PartitionId::new(3), b"more").unwrap();
        assert_eq!(writer.finish().unwrap(), totals);
        let (found, batches, of_file) = read(&path).unwrap();
        assert_eq!(
            (found, batches.as_slice(), of_file),
            (header(), &b"some batchesmore"[..], totals)
        );

        let bytes = std::fs::read(&path).unwrap();
        for end in 0..bytes.len() {
            std::fs::write(&path, &bytes[..end]).unwrap();
            assert!(read(&path).is_err(), "cut to {end}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &flipped).unwrap();
            assert!(read(&path).is_err(), "bit {bit}");
        }
        std::fs::write(&path, [&bytes[..], b"x"].concat()).unwrap();
        assert!(read(&path).is_err());
    }
}
