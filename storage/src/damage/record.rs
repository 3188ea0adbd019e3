//! The record of damage: all that is known, what of it an operator has acknowledged, and that it gets into the file.
//!
//! Lock order: `saving`, then the list. Health asks for the list and never waits for the disk.
//! Invariant: what is in the list is in the file, or `is_unsaved` is set; until then no checkpoint is stored, see
//! [`DamageRecord::save_unsaved`].

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use model::{LogId, Offset};

use super::Damage;
use super::file::{load_damage, store_damage};
use crate::acknowledged::{self, Acknowledgement};
use crate::data_dir::DataDir;
use crate::error::OpenError;
use crate::io::Clock;
use crate::log::LogCell;
use crate::wal::pool::is_full;

/// See the module.
#[derive(Debug)]
pub(crate) struct DamageRecord {
    data: Arc<DataDir>,
    clock: Arc<dyn Clock>,
    list: Mutex<Vec<Damage>>,
    acknowledged: Mutex<Vec<Acknowledgement>>,
    /// Whether the file lacks something of the list, for want of space.
    is_unsaved: AtomicBool,
    /// Held while the file is written, so that it holds no fewer than another caller wrote.
    saving: Mutex<()>,
}

impl DamageRecord {
    /// What earlier starts have found.
    pub fn load(data: Arc<DataDir>, clock: Arc<dyn Clock>) -> Result<DamageRecord, OpenError> {
        let known = load_damage(data.disk(), data.root())?;
        Ok(DamageRecord {
            data,
            clock,
            list: Mutex::new(known),
            acknowledged: Mutex::default(),
            is_unsaved: AtomicBool::new(false),
            saving: Mutex::default(),
        })
    }

    fn list(&self) -> MutexGuard<'_, Vec<Damage>> {
        self.list
            .lock()
            .expect("nothing panics while it holds the damage")
    }

    fn acknowledgements(&self) -> MutexGuard<'_, Vec<Acknowledgement>> {
        self.acknowledged
            .lock()
            .expect("nothing panics while it holds the acknowledgements")
    }

    fn saving(&self) -> MutexGuard<'_, ()> {
        self.saving
            .lock()
            .expect("nothing panics while it writes the record")
    }

    /// All that is known.
    pub fn all(&self) -> Vec<Damage> {
        self.list().clone()
    }

    pub fn count(&self) -> usize {
        self.list().len()
    }

    /// Whether some of it is of this log, or of one that nobody can name.
    pub fn may_concern(&self, log: LogId) -> bool {
        let concerns = |damage: &Damage| damage.log.is_none_or(|damaged| damaged == log);
        self.list().iter().any(concerns)
    }

    /// Whether just this range of a log is known, for whatever reason.
    pub fn knows(&self, log: LogId, range: &Range<Offset>) -> bool {
        let is_it = |known: &Damage| known.log == Some(log) && known.range == *range;
        self.list().iter().any(is_it)
    }

    /// Adds to the list alone: a start stores all that it has found at once, see [`DamageRecord::save_found`]. False if it is
    /// there already.
    pub fn add(&self, found: Damage) -> bool {
        let mut list = self.list();
        if list.contains(&found) {
            return false;
        }
        list.push(found);
        true
    }

    /// Stores what a start has found. Where there is no space for it readers know of it all the same, and the settler tries
    /// again.
    pub fn save_found(&self) -> Result<(), OpenError> {
        let _one_at_a_time = self.saving();
        match self.store() {
            Err(OpenError::Io { source, .. }) if is_full(&source) => {
                tracing::error!(error = %source, "damage could not be put on record yet");
                self.is_unsaved.store(true, Ordering::Release);
                Ok(())
            }
            stored => {
                self.is_unsaved.store(false, Ordering::Release);
                stored
            }
        }
    }

    /// Puts damage on record, in the file too. True if it was there already.
    pub fn note(&self, found: Damage) -> bool {
        let _one_at_a_time = self.saving();
        if !self.add(found.clone()) {
            return true;
        }
        tracing::error!(log = ?found.log.map(|log| log.to_string()), range = ?found.range, reason = found.reason, "acknowledged records are damaged");
        if let Err(error) = self.store() {
            tracing::error!(%error, "damage could not be put on record");
            self.is_unsaved.store(true, Ordering::Release);
        }
        false
    }

    /// Acknowledged records of a log turn out to be damaged: readers are told, and it is put on record. False if it was there,
    /// or if the log does not hold them any more.
    pub fn note_lost(&self, log: &LogCell, range: Range<Offset>, reason: String) -> bool {
        if !log.mark_damaged(range.clone()) {
            return false;
        }
        let log = Some(log.id());
        !self.note(Damage { log, range, reason })
    }

    /// Puts damage on record that could not be before. Until then no checkpoint is stored: one that begins behind what is
    /// damaged in the write-ahead log would be all that is known of it.
    pub fn save_unsaved(&self) -> Result<(), OpenError> {
        if !self.is_unsaved.load(Ordering::Acquire) {
            return Ok(());
        }
        let _one_at_a_time = self.saving();
        self.store()?;
        self.is_unsaved.store(false, Ordering::Release);
        Ok(())
    }

    /// Writes the file. The caller holds `saving`.
    fn store(&self) -> Result<(), OpenError> {
        let (disk, root) = (self.data.disk(), self.data.root());
        store_damage(disk, root, &self.all(), self.clock.now())
    }

    /// Whether an operator has acknowledged it.
    pub fn is_acknowledged(&self, damage: &Damage) -> bool {
        self.acknowledgements()
            .iter()
            .any(|line| line.covers(damage))
    }

    /// Reads what operators have acknowledged, if there is damage at all.
    pub fn read_acknowledgements(&self) {
        if self.count() == 0 {
            return;
        }
        let found = match acknowledged::load(self.data.disk(), self.data.root()) {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, "acknowledgements of damage cannot be read");
                return;
            }
        };
        let mut known = self.acknowledgements();
        for line in found.iter().filter(|line| !known.contains(line)) {
            let Acknowledgement {
                log,
                from,
                to,
                by,
                note,
                ..
            } = line;
            tracing::info!(log, from, to, by, note, "damage was acknowledged");
        }
        *known = found;
    }
}
