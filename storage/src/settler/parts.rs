//! What the settler works with.

use std::io;
use std::path::Path;
use std::sync::Arc;

use model::LogId;

use crate::cleanup::due::CompactionDue;
use crate::config::Live;
use crate::damage::DamageRecord;
use crate::data_dir::DataDir;
use crate::demand::Demand;
use crate::log::DirtyLogs;
use crate::metrics::Counters;
use crate::producers::ProducerLimits;
use crate::registry::Registry;
use crate::segment::{SegmentFiles, SegmentId};
use crate::signals::Signals;
use crate::wal::Wal;

use super::changes::Changes;

/// See the module.
#[derive(Debug)]
pub(crate) struct SettlerParts {
    /// Where the tail lies, and whose files are given back.
    pub wal: Arc<Wal>,
    /// Where the tail goes.
    pub files: Arc<SegmentFiles>,
    pub registry: Arc<Registry>,
    /// What others ask of manifests.
    pub changes: Arc<Changes>,
    pub dirty: Arc<DirtyLogs>,
    /// Is told which logs may be due for compaction.
    pub due: Arc<CompactionDue>,
    pub damage: Arc<DamageRecord>,
    pub producers: Arc<ProducerLimits>,
    pub live: Arc<Live>,
    pub signals: Arc<Signals>,
    pub counters: Arc<Counters>,
    /// What producers and readers ask of the disk.
    pub demand: Arc<Demand>,
}

impl SettlerParts {
    pub fn data(&self) -> &DataDir {
        &self.files.data
    }

    /// Removes a file that nothing needs any more.
    pub fn remove_quietly(&self, path: &Path) {
        match self.data().disk().remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "a file that is no longer needed could not be removed");
            }
            _ => {}
        }
    }

    /// Removes all files of a segment that nothing needs any more. What is derived from it goes first.
    pub fn remove_segment(&self, directory: &Path, id: SegmentId) {
        for path in id.paths(directory) {
            self.remove_quietly(&path);
        }
    }

    /// Removes the files of a deleted log.
    pub fn remove_directory(&self, log: LogId) {
        self.files.cache.forget_log(log);
        self.files.key_indexes.forget_log(log);
        let (disk, directory) = (self.data().disk(), self.data().of_log(log));
        let Ok(entries) = disk.list(&directory) else {
            return;
        };
        // The manifests first: what is left of a removal that is cut short names no file that is gone.
        let (manifests, others): (Vec<_>, Vec<_>) = entries
            .into_iter()
            .partition(|entry| entry.name.starts_with("manifest."));
        for entry in manifests.into_iter().chain(others) {
            self.remove_quietly(&directory.join(entry.name));
        }
        if let Err(error) = disk.remove_dir(&directory) {
            tracing::warn!(path = %directory.display(), %error, "a deleted partition's directory could not be removed");
        }
    }
}
