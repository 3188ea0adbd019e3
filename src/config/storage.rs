//! The store's settings: it knows none of their names itself.

use storage::StorageConfig;

use crate::setting::{Kind, SIZE_MAX, Setting, millis, number, size, text_of_millis};

/// All of them, by name.
pub(super) const SETTINGS: &[Setting<StorageConfig>] = &[
    Setting {
        name: "append.queue.bytes",
        kind: Kind::Long,
        default: "67108864",
        is_live: false,
        doc: "The most bytes that wait for the disk; beyond it producers are slowed down. 1 MiB to 4 GiB.",
        get: |it| it.append_queue_bytes.to_string(),
        set: |it, value| {
            it.append_queue_bytes = number(value, 1 << 20..=4 << 30)?;
            Ok(())
        },
    },
    Setting {
        name: "cleaner.io.max.bytes.per.second",
        kind: Kind::Long,
        default: "-1",
        is_live: true,
        doc: "How many bytes a second compaction reads and writes, both counted; -1 is any number. Whatever it is, \
              while producers append, or readers bring from the disk, compaction moves four times as much as they do at most, \
              but 64 MiB a second always may; and it works half of the time only while an append has waited for 10 ms.",
        get: |it| {
            it.cleaner_bytes_per_second
                .map_or_else(|| "-1".to_owned(), |bytes| bytes.to_string())
        },
        set: |it, value| {
            it.cleaner_bytes_per_second = match value {
                "-1" => None,
                value => Some(number(value, 1 << 10..=u64::from(u32::MAX) << 16)?),
            };
            Ok(())
        },
    },
    Setting {
        name: "cleaner.memory.bytes",
        kind: Kind::Long,
        default: "134217728",
        is_live: true,
        doc: "The memory for the keys of a partition that is being compacted, 20 bytes for a key and some room; taken for \
              as long as it lasts, and no more than its dirty records need. More keys are compacted in several passes. \
              Thinning takes as much for the records that it looks at. 1 MiB to 64 GiB.",
        get: |it| it.cleaner_memory_bytes.to_string(),
        set: |it, value| {
            it.cleaner_memory_bytes = number(value, 1 << 20..=64 << 30)?;
            Ok(())
        },
    },
    Setting {
        name: "frame.max.bytes",
        kind: Kind::Int,
        default: "4194304",
        is_live: false,
        doc: "The most bytes that one sync covers; 64 KiB to 64 MiB, and never more than a quarter of wal.file.bytes.",
        get: |it| it.frame_bytes_max.to_string(),
        set: |it, value| {
            it.frame_bytes_max = size(value, 64 << 10..=64 << 20)?;
            Ok(())
        },
    },
    Setting {
        name: "key.index.io.max.bytes.per.second",
        kind: Kind::Long,
        default: "67108864",
        is_live: true,
        doc: "How many bytes of segments a second are read to make key indexes (key.index.enable of a topic); -1 is \
              any number. While producers append, or readers bring from the disk, 1 MiB a second it is a sixteenth of that, and from \
              4 MiB on less in proportion; while an append has waited for 10 ms, that works half of the time only.",
        get: |it| {
            it.key_index_bytes_per_second
                .map_or_else(|| "-1".to_owned(), |bytes| bytes.to_string())
        },
        set: |it, value| {
            it.key_index_bytes_per_second = match value {
                "-1" => None,
                value => Some(number(value, 1 << 10..=u64::from(u32::MAX) << 16)?),
            };
            Ok(())
        },
    },
    Setting {
        name: "log.cleaner.backoff.ms",
        kind: Kind::Long,
        default: "15000",
        is_live: true,
        doc: "How often it is looked whether a partition is due for compaction or thinning, in milliseconds; 100 or more. \
              Only those are looked at of which something has settled, or whose time has come.",
        get: |it| text_of_millis(it.cleaner_check),
        set: |it, value| {
            it.cleaner_check = millis(value, 100)?;
            Ok(())
        },
    },
    Setting {
        name: "log.retention.check.interval.ms",
        kind: Kind::Long,
        default: "300000",
        is_live: true,
        doc: "How often retention is checked, in milliseconds; 100 or more.",
        get: |it| text_of_millis(it.retention_check),
        set: |it, value| {
            it.retention_check = millis(value, 100)?;
            Ok(())
        },
    },
    Setting {
        name: "producer.id.expiration.ms",
        kind: Kind::Long,
        default: "86400000",
        is_live: false,
        doc: "How long an idle idempotent producer is remembered, in milliseconds; 1000 or more.",
        get: |it| text_of_millis(it.producer_expiry),
        set: |it, value| {
            it.producer_expiry = millis(value, 1000)?;
            Ok(())
        },
    },
    Setting {
        name: "producer.ids.max",
        kind: Kind::Long,
        default: "500000",
        is_live: false,
        doc: "Idempotent producers that all partitions remember, counted in each; 1 or more. At the bound those are \
              forgotten that have been idle for 15 minutes, and if there are none, new ones are refused with \
              POLICY_VIOLATION.",
        get: |it| it.producers_max.to_string(),
        set: |it, value| {
            it.producers_max = number(value, 1..=u64::from(u32::MAX))?;
            Ok(())
        },
    },
    Setting {
        name: "producer.ids.per.partition.max",
        kind: Kind::Int,
        default: "50000",
        is_live: false,
        doc: "Idempotent producers that one partition remembers; 1 or more. The same happens at the bound.",
        get: |it| it.producers_per_log_max.to_string(),
        set: |it, value| {
            it.producers_per_log_max = size(value, 1..=SIZE_MAX)?;
            Ok(())
        },
    },
    Setting {
        name: "scrub.bytes.per.second",
        kind: Kind::Long,
        default: "8388608",
        is_live: true,
        doc: "How fast sealed segments are verified in the background; 0 switches it off.",
        get: |it| it.scrub_bytes_per_second.to_string(),
        set: |it, value| {
            it.scrub_bytes_per_second = number(value, 0..=u64::MAX)?;
            Ok(())
        },
    },
    Setting {
        name: "segments.open.max",
        kind: Kind::Int,
        default: "1024",
        is_live: false,
        doc: "Segments whose files and maps are kept open; fewer if the limit of open files allows no more. 16 or more.",
        get: |it| it.open_segments_max.to_string(),
        set: |it, value| {
            it.open_segments_max = size(value, 16..=SIZE_MAX)?;
            Ok(())
        },
    },
    Setting {
        name: "settle.age.ms",
        kind: Kind::Long,
        default: "10000",
        is_live: false,
        doc: "Records are written from the write-ahead log into segments after this many milliseconds at the latest; 10 \
              or more.",
        get: |it| text_of_millis(it.settle_age),
        set: |it, value| {
            it.settle_age = millis(value, 10)?;
            Ok(())
        },
    },
    Setting {
        name: "store.bytes.max",
        kind: Kind::Long,
        default: "-1",
        is_live: true,
        doc: "Bytes of records that all topics keep together: beyond it the segments that were written to longest ago \
              are removed, of whichever topic, as by retention, but for topics that are compacted without retention; -1 is \
              any number. Looked at every second. The write-ahead log (`wal.files.max` times `wal.file.bytes` at most) and \
              indexes come on top. Topics seal their segments at a 32nd of it at the latest. At least 1048576.",
        get: |it| {
            it.store_bytes_max
                .map_or_else(|| "-1".to_owned(), |bytes| bytes.to_string())
        },
        set: |it, value| {
            it.store_bytes_max = store_bytes_max(value)?;
            Ok(())
        },
    },
    Setting {
        name: "wal.file.bytes",
        kind: Kind::Int,
        default: "67108864",
        is_live: false,
        doc: "The length of a file of the write-ahead log: 256 KiB to 1 GiB, a multiple of 64 KiB. The largest batch is \
              half of it.",
        get: |it| it.wal_file_bytes.to_string(),
        set: |it, value| {
            it.wal_file_bytes = wal_file_bytes(value)?;
            Ok(())
        },
    },
    Setting {
        name: "wal.files.max",
        kind: Kind::Int,
        default: "64",
        is_live: false,
        doc: "Files of the write-ahead log at most: when they are used up, producers wait. 4 to 4096, and no fewer than \
              wal.files.min.",
        get: |it| it.wal_files_max.to_string(),
        set: |it, value| {
            it.wal_files_max = size(value, 4..=4096)?;
            Ok(())
        },
    },
    Setting {
        name: "wal.files.min",
        kind: Kind::Int,
        default: "8",
        is_live: false,
        doc: "Files of the write-ahead log that are kept for use again; 2 or more.",
        get: |it| it.wal_files_min.to_string(),
        set: |it, value| {
            it.wal_files_min = size(value, 2..=4096)?;
            Ok(())
        },
    },
];

fn store_bytes_max(value: &str) -> Result<Option<u64>, String> {
    if value == "-1" {
        return Ok(None);
    }
    let bytes = number(value, 1 << 20..=u64::MAX);
    bytes.map(Some).map_err(|reason| format!("{reason}, or -1"))
}

fn wal_file_bytes(value: &str) -> Result<u64, String> {
    let bytes = number(value, 256 << 10..=1 << 30)?;
    if !bytes.is_multiple_of(64 << 10) {
        return Err("must be a multiple of 64 KiB".to_owned());
    }
    Ok(bytes)
}
