//! Files of the write-ahead log: `choices u8 | durable u8 | { frame bytes u16 | frame }*`. Each frame is put at the next aligned position, of one file
//! or of two; then come the walk that recovery does, each frame by itself, and the offline dump.

use std::path::Path;

use model::batch::Codec;
use model::{LeaderEpoch, LogId, Offset, Timestamp};
use storage::Disk;
use storage::checkpoint::WalPosition;
use storage::inspect::dump_wal;
use storage::io::{OpenHow, SimDisk, write_new_file};
use storage::wal::format::{
    EntryKind, FILE_UNIT_BYTES, FRAME_ALIGNMENT_BYTES, FRAME_ENTRY_BYTES, FRAME_HEAD_BYTES,
    FrameEntry, FrameHead, check_head, encode_head, parse_table,
};
use storage::wal::pool::file_name;
use storage::wal::reader::{first_store, read_frame, scan_heads};
use storage::wal::walk::{Event, Source, walk};
use uuid::Uuid;

use crate::Input;
use crate::input::put_chunk;
use crate::targets::batches::built;

const MEND: u8 = 1;
const TWO_FILES: u8 = 2;
const FILES_BYTES_MAX: usize = 2 << 20;
const STORE: Uuid = Uuid::from_u128(0x5151);

/// See the module.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (choices, from) = (input.u8(), input.u8());
    let files = files(choices, input);
    let disk = SimDisk::new(1);
    let directory = Path::new("/");
    let mut sources = Vec::new();
    for (sequence, contents) in (0u64..).zip(&files) {
        let path = directory.join(file_name(sequence));
        write_new_file(&disk, &path, contents).expect("an empty disk");
        let file = disk.open(&path, OpenHow::Read).expect("just written");
        sources.push(Source {
            sequence,
            file,
            bytes: contents.len() as u64,
        });
    }
    let store = first_store(&*sources[0].file, 0).expect("a disk without faults");
    for (source, contents) in sources.iter().zip(&files) {
        read_each(source, contents, store.unwrap_or(STORE));
        let path = directory.join(file_name(source.sequence));
        let mut frames = 0;
        let summary = dump_wal(&disk, &path, &mut |_| frames += 1).expect("a disk without faults");
        assert!(summary.frames + summary.unreadable == frames);
        assert!(summary.used_bytes <= summary.bytes.next_multiple_of(FRAME_ALIGNMENT_BYTES));
    }
    let from = match from {
        0 => WalPosition::BEGINNING,
        _ => WalPosition {
            file: 0,
            position: u64::from(from & 3) * FRAME_ALIGNMENT_BYTES,
            frame: u64::from(from >> 2),
        },
    };
    let known_durable = durable_end(&sources, store.unwrap_or(STORE));
    let mut last = from.frame;
    let walked = walk(&sources, store.unwrap_or(STORE), from, &mut |event| {
        if let Event::Frame { frame, .. } = event {
            assert!(frame.head.sequence >= last, "frames come in order");
            last = frame.head.sequence;
            assert!(frame.parts().count() == frame.entries.len());
            // A frame is replayed whole, unless a later one knows that it was durable: then each damaged batch is named.
            assert!(frame.intact || frame.head.sequence < known_durable);
        }
    })
    .expect("a disk without faults");
    assert_eq!(walked.ends.len(), sources.len());
    assert!(walked.next_frame >= last);
}

/// The frame up to which some frame knows all to have been durable.
fn durable_end(sources: &[Source], store: Uuid) -> u64 {
    let heads = sources.iter().flat_map(|source| {
        scan_heads(&*source.file, store, source.sequence, 0).expect("a disk without faults")
    });
    heads
        .map(|(_, head)| head.durable_sequence)
        .max()
        .unwrap_or(0)
}

fn read_each(source: &Source, contents: &[u8], store: Uuid) {
    let heads =
        scan_heads(&*source.file, store, source.sequence, 0).expect("a disk without faults");
    for (position, head) in heads {
        let frame = read_frame(&*source.file, store, source.sequence, position)
            .expect("a disk without faults");
        let Some(frame) = frame else { continue };
        assert_eq!(frame.head, head);
        let parts: u64 = frame.parts().map(|(_, _, bytes)| bytes.len() as u64).sum();
        assert_eq!(parts, head.batch_bytes, "the parts are the whole");
        let mut again = Vec::new();
        encode_head(&frame.head, &frame.entries, &mut again);
        assert!(check_head(&again));
        let start = usize::try_from(position).expect("within the file");
        assert_eq!(
            contents[start..][..again.len()],
            again,
            "head and table come back"
        );
        assert_eq!(parse_table(&head, &again), Some(frame.entries));
    }
}

fn files(choices: u8, mut input: Input<'_>) -> Vec<Vec<u8>> {
    let mut files = vec![Vec::new()];
    let mut bytes = 0;
    while !input.is_empty() {
        let mut frame = input.chunk().to_vec();
        let file = files.len() as u64 - 1;
        bytes += frame.len().next_multiple_of(4096);
        if bytes > FILES_BYTES_MAX {
            break;
        }
        if choices & MEND != 0 {
            mend(&mut frame, file);
        }
        let contents = files.last_mut().expect("never empty");
        contents.extend_from_slice(&frame);
        contents.resize(contents.len().next_multiple_of(4096), 0);
        if choices & TWO_FILES != 0 && files.len() == 1 {
            files.push(Vec::new());
        }
    }
    for contents in &mut files {
        contents.resize(contents.len().next_multiple_of(64 << 10), 0);
    }
    files
}

/// Makes the frame's checksums right, and its counts where there is enough of it.
fn mend(frame: &mut [u8], file: u64) {
    if frame.len() < FRAME_HEAD_BYTES {
        return;
    }
    frame[..6].copy_from_slice(b"WALF\x01\x00");
    frame[24..32].copy_from_slice(&file.to_le_bytes());
    let Some(head) = FrameHead::parse(frame) else {
        return;
    };
    let table_end = FRAME_HEAD_BYTES + head.entry_count as usize * FRAME_ENTRY_BYTES;
    if frame.len() < table_end {
        return;
    }
    let batch_bytes = usize::try_from(head.batch_bytes).unwrap_or(usize::MAX);
    if let Some(batches) = frame[table_end..].get(..batch_bytes) {
        let crc = crc32fast::hash(batches);
        frame[72..76].copy_from_slice(&crc.to_le_bytes());
    }
    let mut crc = crc32fast::Hasher::new();
    crc.update(&frame[..76]);
    crc.update(&frame[FRAME_HEAD_BYTES..table_end]);
    frame[76..80].copy_from_slice(&crc.finalize().to_le_bytes());
}

/// The golden frame, and a row of frames as the committer writes them.
pub fn seeds() -> Vec<Vec<u8>> {
    let golden = include_bytes!("../../../storage/tests/golden/wal.v1");
    let mut seeds = Vec::new();
    for choices in [0, MEND] {
        let mut seed = vec![choices, 0];
        put_chunk(&mut seed, &golden[..golden.len().min(60_000)]);
        seeds.push(seed);
    }
    for choices in [0, MEND, MEND | TWO_FILES] {
        for from in [0, 2 << 2] {
            let mut seed = vec![choices, from];
            for sequence in 1..6 {
                put_chunk(
                    &mut seed,
                    &frame(sequence, choices & TWO_FILES != 0 && sequence > 1),
                );
            }
            seeds.push(seed);
        }
    }
    seeds
}

fn frame(sequence: u64, in_second_file: bool) -> Vec<u8> {
    let batches: Vec<_> = Codec::ALL[..2].iter().map(|codec| built(*codec)).collect();
    let mut offset = sequence * 8;
    let mut entries = Vec::new();
    for batch in &batches {
        entries.push(FrameEntry {
            log: LogId::METADATA,
            kind: EntryKind::Batch,
            offset: Offset::new(offset),
            bytes: u32::try_from(batch.len()).expect("small"),
            offsets: 4,
        });
        offset += 4;
    }
    entries.push(FrameEntry {
        log: LogId::OFFSETS,
        kind: EntryKind::StartRaised,
        offset: Offset::new(sequence),
        bytes: 0,
        offsets: 0,
    });
    let payload = batches.concat();
    let head = FrameHead {
        store: STORE,
        file_sequence: in_second_file.into(),
        file_units: u16::try_from((64 << 10) / FILE_UNIT_BYTES).expect("one"),
        sequence,
        durable_sequence: sequence,
        append_time: Timestamp::from_millis(1_700_000_000_000),
        leader_epoch: LeaderEpoch::new(1),
        entry_count: u32::try_from(entries.len()).expect("three"),
        batch_bytes: payload.len() as u64,
        batch_crc: crc32fast::hash(&payload),
    };
    let mut bytes = Vec::new();
    encode_head(&head, &entries, &mut bytes);
    bytes.extend_from_slice(&payload);
    bytes
}
