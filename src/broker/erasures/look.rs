//! A look, what it found, and the looks that are known.
//! Callers: `looks`. Invariants: a few run at a time, and a bounded number of results is kept.

use std::collections::VecDeque;
use std::sync::Arc;

use storage::cleanup::run::Progress;
use witness::Report;

use super::error::ErasureError;
use super::record::Part;

/// Looks that run at a time.
pub const LOOKS_MAX: usize = 4;
/// Looks that are kept.
const KEPT_MAX: usize = 32;

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookKind {
    /// What an erasure would erase, and what forbids it.
    Plan,
    /// Whether anything of the keys is left in any file.
    Verify,
}

/// A look, as it is now.
#[derive(Clone, Debug)]
pub struct Look {
    /// What it is called.
    pub id: String,
    /// What is looked for.
    pub kind: LookKind,
    /// The topic.
    pub topic: String,
    /// One partition, or all.
    pub partition: Option<u32>,
    /// How far it is.
    pub state: LookState,
    pub(super) progress: Arc<Progress>,
}

impl Look {
    /// Bytes that were read, and are to be read as far as it is known.
    pub fn bytes(&self) -> (u64, u64) {
        (self.progress.bytes_done(), self.progress.bytes_total())
    }
}

/// How far a look is.
#[derive(Clone, Debug)]
pub enum LookState {
    /// It runs.
    Running,
    /// It has ended.
    Done(LookResult),
    /// It could not be done.
    Failed(String),
}

/// What a look found.
#[derive(Clone, Debug)]
pub enum LookResult {
    /// Of [`LookKind::Plan`].
    Plan(Arc<Sighted>),
    /// Of [`LookKind::Verify`].
    Verify(Arc<Report>),
}

/// What an erasure would do.
#[derive(Clone, Debug, Default)]
pub struct Sighted {
    /// Each partition.
    pub partitions: Vec<OfPartition>,
    /// Files in the quarantine that hold the keys, in words; empty if there are none.
    pub quarantine: String,
}

/// What an erasure would do to a partition.
#[derive(Clone, Debug)]
pub struct OfPartition {
    /// Which, from where to where.
    pub part: Part,
    /// Records that have one of the keys.
    pub records: u64,
    /// Segments that would be written again.
    pub segments: u64,
    /// Segments that were read.
    pub segments_read: u64,
    /// Windows of summaries that would go.
    pub windows: u64,
    /// Batches whose records cannot be read.
    pub undecodable: u64,
    /// Segments that cannot be read, in words.
    pub unreadable: Vec<String>,
    /// The hold that forbids it.
    pub hold: Option<String>,
}

impl Sighted {
    /// Why an erasure would be refused. What is in the quarantine may be removed with it.
    pub fn refusal(&self) -> Option<String> {
        let mut holds = self.partitions.iter().filter_map(|one| {
            let hold = one.hold.as_ref()?;
            Some(format!("partition {}: {hold}", one.part.partition))
        });
        holds.next()
    }
}

/// The looks that are known.
#[derive(Default)]
pub(super) struct Looks {
    looks: VecDeque<Look>,
    next: u64,
}

impl Looks {
    pub fn cancel_all(&self) {
        for look in &self.looks {
            look.progress.cancel();
        }
    }

    pub(super) fn add(&mut self, mut look: Look) -> Result<Look, ErasureError> {
        let is_running = |look: &&Look| matches!(look.state, LookState::Running);
        if self.looks.iter().filter(is_running).count() >= LOOKS_MAX {
            return Err(ErasureError::TooMany { waiting: LOOKS_MAX });
        }
        self.next += 1;
        look.id = format!("look-{}", self.next);
        self.looks.push_back(look.clone());
        if self.looks.len() > KEPT_MAX
            && let Some(oldest) = self.looks.iter().position(|look| !is_running(&look))
        {
            self.looks.remove(oldest);
        }
        Ok(look)
    }

    pub(super) fn get(&self, id: &str) -> Result<Look, ErasureError> {
        let found = self.looks.iter().find(|look| look.id == id);
        found
            .cloned()
            .ok_or_else(|| ErasureError::Unknown(id.to_owned()))
    }

    pub(super) fn end(&mut self, id: &str, state: LookState) {
        if let Some(look) = self.looks.iter_mut().find(|look| look.id == id) {
            look.state = state;
        }
    }
}
