//! Where holds come from, and what is held of one log at the moment.
//!
//! Callers: the cleaner, the executors. Asking never waits for the disk.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use model::{LogId, Offset, Timestamp};

use super::holds::{Held, HeldKey, Hold, HoldWish, HoldsOf, first_on, resolve};
use super::key_places::KeyPlaces;
use super::policy::Policy;
use super::removed::{Noted, RemovalListener, Removed};
use super::view::LogView;
use crate::log::LogCell;
use crate::rewrite::KeepError;
use crate::segment::SegmentId;
use crate::wal::Wal;

/// Where holds come from. Without a source nothing is held.
#[derive(Default)]
pub(crate) struct HoldSource {
    holds: OnceLock<HoldsOf>,
    pub places: KeyPlaces,
}

impl fmt::Debug for HoldSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HoldSource")
            .field(&self.holds.get().is_some())
            .finish()
    }
}

impl HoldSource {
    /// Sets the source, once.
    pub fn set(&self, holds: HoldsOf) {
        assert!(
            self.holds.set(holds).is_ok(),
            "a store has one source of holds"
        );
    }

    /// The holds on a log; those only that hold against everything, if `absolute`.
    pub fn on(&self, view: &LogView, now: Timestamp, absolute: bool) -> Vec<Hold> {
        let wishes = self.wishes(view.log);
        let meant = wishes.iter().filter(|wish| wish.is_absolute || !absolute);
        let may_hold = |segment, key: &[u8]| self.places.may_hold(view.log, segment, key);
        meant
            .flat_map(|wish| resolve(view, wish, now, &may_hold))
            .collect()
    }

    fn wishes(&self, log: LogId) -> Vec<HoldWish> {
        let holds = self.holds.get();
        holds.map(|holds| holds(log)).unwrap_or_default()
    }

    /// The keys of a log that are held.
    pub fn keys(&self, log: LogId) -> Vec<HeldKey> {
        let wishes = self.wishes(log).into_iter();
        let keys = wishes.filter_map(|wish| match wish.held {
            Held::Key { key, appended } => Some(HeldKey { key, appended }),
            Held::Appended(_) | Held::Unread { .. } => None,
        });
        keys.collect()
    }
}

/// The holds on one log, asked anew whenever something is to go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogHolds<'r> {
    pub source: &'r HoldSource,
    /// Held shared from a look at the holds until what goes is gone.
    pub planning: &'r RwLock<()>,
    /// Gives the time by which records age.
    pub wal: &'r Wal,
    pub log: &'r LogCell,
    /// Who hears of what goes.
    pub removals: &'r RemovalListener,
}

impl<'r> LogHolds<'r> {
    /// What no policy may remove from the log now.
    pub fn present(&self) -> Vec<Hold> {
        let view = LogView::of(self.log);
        view.map_or_else(Vec::new, |view| self.source.on(&view, self.wal.now(), true))
    }

    /// Whether records of a range may go now, but those of keys that stay anyway. A hold that is added later waits until what is
    /// given is dropped.
    pub fn may_go(
        &self,
        offsets: &Range<Offset>,
        stays: &HashSet<Arc<[u8]>>,
    ) -> Result<RwLockReadGuard<'r, ()>, KeepError> {
        let guard = self.planning.read().unwrap_or_else(PoisonError::into_inner);
        let holds = self.present();
        let is_meant = |hold: &&Hold| hold.key.as_ref().is_none_or(|key| !stays.contains(key));
        match first_on(holds.iter().filter(is_meant), offsets) {
            Some(hold) => Err(KeepError::Held {
                hold: Arc::clone(&hold.name),
            }),
            None => Ok(guard),
        }
    }

    /// Tells of records that are to go with a rewrite. When this returns well it is noted for good.
    pub fn tell(
        &self,
        policy: Policy,
        offsets: &Range<Offset>,
        records: u64,
        new: SegmentId,
    ) -> Result<(), KeepError> {
        let reason = match policy {
            Policy::Compaction => {
                "later records have the same keys, or their tombstones were old enough"
            }
            _ => "a tier of thin.tiers keeps others of their windows",
        };
        let noted = self.removals.tell(&Removed {
            log: self.log.id(),
            offsets: offsets.clone(),
            records,
            appended: None,
            policy,
            reason: reason.to_owned(),
            rewritten_as: Some(new),
        });
        match noted {
            Noted::Yes => Ok(()),
            Noted::NotNow => Err(KeepError::Held {
                hold: "the loss ledger, which cannot be written now".into(),
            }),
        }
    }
}
