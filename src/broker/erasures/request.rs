//! What is asked for.
//! Callers: `erasures` and `looks`, which check it first.

use bytes::Bytes;
use model::PartitionId;

use super::error::ErasureError;

/// Keys of one erasure.
pub const KEYS_MAX: usize = 100;
/// The longest reason.
pub const REASON_BYTES_MAX: usize = 1_000;

/// An erasure that is to be done.
#[derive(Clone, Debug, Default)]
pub struct NewErasure {
    /// One partition, or all.
    pub partition: Option<PartitionId>,
    /// The keys.
    pub keys: Vec<Bytes>,
    /// Why.
    pub reason: Option<String>,
    /// Whether files in the quarantine that hold the keys are removed.
    pub removes_quarantined: bool,
}

/// Refuses what cannot be.
pub(super) fn check(new: &NewErasure) -> Result<(), ErasureError> {
    let invalid = |reason: &str| Err(ErasureError::Invalid(reason.to_owned()));
    if new.keys.is_empty() {
        return invalid("an erasure needs a key");
    }
    if new.keys.len() > KEYS_MAX {
        return invalid("an erasure takes 100 keys at most");
    }
    if new
        .reason
        .as_ref()
        .is_some_and(|reason| reason.len() > REASON_BYTES_MAX)
    {
        return invalid("the reason is longer than 1,000 bytes");
    }
    Ok(())
}
