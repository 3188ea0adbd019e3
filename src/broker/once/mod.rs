//! Requests that are done once, however often they are sent: each has a key of its client's, and what was answered is kept in the
//! log, in the same frame as what the request wrote.
//!
//! Callers: fronts, by way of `publish_together_once`. Invariants: a request whose records are durable is known as done after any
//! crash, and one of which nothing is durable is not. A key is remembered for `idempotency.key.retention.ms`.

mod book;
mod record;
mod ticket;

use std::sync::Arc;

use super::Broker;
use super::access::{Granted, right};
use super::catalog::Topic;
use book::Known;
pub use book::OnceRefusal;
pub use record::{Done, Fingerprint, OnceError, OnceKey, UnknownOnce};
pub(super) use ticket::Onces;
use ticket::locked;
pub use ticket::{Begun, OnceTicket};

/// The longest key.
const KEY_BYTES_MAX: usize = 255;

impl Broker {
    /// Begins a request on a topic that is to be done once. Never waits.
    pub fn begin_once(
        &self,
        topic: &Granted<Arc<Topic>, right::Write>,
        name: &str,
        fingerprint: Fingerprint,
    ) -> Result<Begun, OnceRefusal> {
        let is_valid = (1..=KEY_BYTES_MAX).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_graphic() || byte == b' ');
        if !is_valid {
            let bytes_max = KEY_BYTES_MAX;
            return Err(OnceRefusal::InvalidKey { bytes_max });
        }
        let key = OnceKey {
            topic: topic.id,
            name: name.to_owned(),
        };
        let (now, config) = (self.now(), self.config());
        let kept = i64::try_from(config.idempotency_key_retention_ms).unwrap_or(i64::MAX);
        let book = &self.shared.onces.book;
        let count_max = config.idempotency_keys_max;
        let known = locked(book).begin(&key, fingerprint, now.plus_millis(-kept), count_max)?;
        Ok(match known {
            Known::Answered(answer) => Begun::Answered(answer),
            Known::Begun(forgotten) => Begun::Now(OnceTicket {
                key,
                fingerprint,
                at: now,
                forgotten,
                book: Arc::clone(book),
                is_done: false,
            }),
        })
    }
}
