//! What the summaries of a log say together: a view of fewer points than there were records, which knows all of them.
//!
//! Callers: the tools; later whoever serves such a view. Reads files that never change, so that it may look while a server runs; a
//! segment that goes meanwhile is not told of.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use model::LogId;

use crate::io::Disk;
use crate::manifest;
use crate::segment::summary::{Stats, Summary, WindowKey, read_summary};

/// What is known of a window over all segments of a log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SummedWindow {
    /// How many records were in it that could be read.
    pub records: u64,
    /// For each value: of how many records, and what.
    pub values: BTreeMap<String, (u64, Stats)>,
}

/// All windows of a log that was thinned, in the order of keys, beginnings and lengths; with `window_ms`, those whose lengths go
/// into it are merged into windows of that length. Blocks.
pub fn summed_windows(
    disk: &dyn Disk,
    directory: &Path,
    log: LogId,
    window_ms: Option<i64>,
) -> io::Result<BTreeMap<WindowKey, SummedWindow>> {
    let mut windows: BTreeMap<WindowKey, SummedWindow> = BTreeMap::new();
    let loaded = manifest::load(disk, directory, log)?;
    let sealed = loaded
        .manifest
        .iter()
        .flat_map(|manifest| manifest.sealed());
    for (entry, _) in sealed {
        let Some(mut summary) = read_summary(disk, directory, log, entry.id)? else {
            continue;
        };
        while let Some(section) = summary.next_section()? {
            add(&mut windows, section, window_ms);
        }
    }
    Ok(windows)
}

fn add(windows: &mut BTreeMap<WindowKey, SummedWindow>, section: Summary, window_ms: Option<i64>) {
    for window in section.windows {
        let mut at = window.at;
        if let Some(longer) = window_ms.filter(|longer| longer % at.window_ms == 0) {
            at.start = at.start.saturating_sub(at.start.rem_euclid(longer));
            at.window_ms = longer;
        }
        let summed = windows.entry(at).or_default();
        summed.records = summed.records.saturating_add(window.count);
        for (name, stats) in section.values.iter().zip(&window.stats) {
            let none = || (0, Stats::NONE);
            let (records, merged) = summed.values.entry(name.clone()).or_insert_with(none);
            *records = records.saturating_add(window.count);
            merged.merge(stats);
        }
    }
}
