//! What is to be copied of a log, and when an earlier copy of a segment can be used instead. Caller: `take`.

use super::summary::SummaryFile;
use crate::checkpoint::LogEntry;
use crate::manifest::SegmentEntry;
use crate::segment::SegmentId;

/// What a checkpoint names of a log.
pub(super) struct LogPlan<'a> {
    pub entry: &'a LogEntry,
    /// Its directory's path in a data directory.
    pub path: String,
    pub sealed: Vec<SegmentEntry>,
}

impl LogPlan<'_> {
    /// The paths of a segment's file and of its index.
    pub fn paths(&self, id: SegmentId) -> (String, String) {
        let of = |name: String| format!("{}/{name}", self.path);
        (of(id.log_name()), of(id.index_name()))
    }

    pub fn bytes(&self) -> u64 {
        let active = self.entry.active.as_ref().map_or(0, |active| active.bytes);
        active + self.sealed.iter().map(bytes_of).sum::<u64>()
    }
}

/// The length of a sealed segment.
pub(super) fn bytes_of(entry: &SegmentEntry) -> u64 {
    entry.sealed.as_ref().map_or(0, |sealed| sealed.bytes)
}

/// A sealed segment's two files, as an earlier copy must have them to be used: of the same length, with the same index, which
/// has checksums over all of the segment.
pub(super) struct Wanted {
    pub paths: [String; 2],
    pub bytes: u64,
    pub index: Option<String>,
}

impl Wanted {
    /// The files, if they are what is wanted. Without an index nothing tells that a segment is the same one.
    pub fn files(&self, find: impl Fn(&str) -> Option<SummaryFile>) -> Option<Vec<SummaryFile>> {
        let [path, index_path] = &self.paths;
        let log = find(path)
            .filter(|file| file.bytes == self.bytes && file.length.is_none() && !file.damaged)?;
        let index = find(index_path)?;
        (Some(&index.sha256) == self.index.as_ref()).then(|| vec![log, index])
    }
}

/// A file's line in the summary.
pub(super) fn line(path: String, bytes: u64, sha256: String) -> SummaryFile {
    SummaryFile {
        path,
        bytes,
        sha256,
        length: None,
        batches: None,
        records: None,
        damaged: false,
    }
}
