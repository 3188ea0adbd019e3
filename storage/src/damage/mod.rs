//! Damage: acknowledged records that cannot be read any more.
//!
//! A start loads what is known and adds what it finds; readers, the scrub and the settler come upon more while the store is
//! open. All of it is on record in the file `DAMAGE` (`file`), and in memory for health and readers (`record`).

mod file;
mod record;

use std::ops::Range;

use model::{LogId, Offset};

pub(crate) use self::file::{DAMAGE_VERSION, load_damage, newer_damage, store_damage};
pub(crate) use self::record::DamageRecord;

/// Acknowledged records that cannot be read any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Whose; None if not even that can be told.
    pub log: Option<LogId>,
    /// Which offsets.
    pub range: Range<Offset>,
    /// What was found.
    pub reason: String,
}
