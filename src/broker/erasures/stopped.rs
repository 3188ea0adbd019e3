//! Why an erasure does not go on now, and when it is tried again.
//! Callers: `work`, which stops; `erasures`, which tries again.

use model::Timestamp;

use crate::broker::state_log::StateLogError;

/// The code of an erasure that a hold has stopped.
pub(super) const HELD: &str = "held";
/// How long one that does not go on is left alone at first, and at most, in milliseconds.
const RETRY_MS: i64 = 1_000;
const RETRY_MS_MAX: i64 = 60_000;

/// Why an erasure does not go on now. It is tried again by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// A name of the reason that stays.
    pub code: &'static str,
    /// The reason in words.
    pub detail: String,
    /// How often it was tried.
    pub tries: u32,
    /// When it is tried again, by the store's own time.
    pub(super) retry_at: Timestamp,
}

impl Stopped {
    pub(super) fn because(code: &'static str, detail: impl Into<String>) -> Stopped {
        Stopped {
            code,
            detail: detail.into(),
            tries: 1,
            retry_at: Timestamp::from_millis(0),
        }
    }

    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.retry_at <= now
    }

    /// As it is noted, `before` being why it did not go on the last time.
    pub(super) fn after(mut self, before: Option<&Stopped>, now: Timestamp) -> Stopped {
        self.tries = before.map_or(1, |before| before.tries.saturating_add(1));
        let wait = RETRY_MS << (self.tries - 1).min(10);
        self.retry_at = now.plus_millis(wait.min(RETRY_MS_MAX));
        self
    }
}

impl From<StateLogError> for Stopped {
    fn from(error: StateLogError) -> Stopped {
        match error {
            StateLogError::Append(storage::AppendError::DiskFull) => disk_full(),
            error => Stopped::because("storage", error.to_string()),
        }
    }
}

/// That the disk has no room.
pub(super) fn disk_full() -> Stopped {
    Stopped::because(
        "disk_full",
        "the disk is full: nothing was left half done, and it goes on when there is space",
    )
}
