//! Unsupported: says in the log which client asks for an API key or a version that is not offered.
//! Callers: `api::route`, which finds it out; `connection`, which ends by it.
//! Invariants: the same question of the same client is logged at most once a minute, and memory is bounded, however many
//! names clients call themselves: such a client tries again at once, and for ever.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;
use wire::ApiKey;

/// What is logged is not logged again for so long.
const QUIET: Duration = Duration::from_secs(60);
/// Questions that are told apart; all beyond them count as one.
const QUESTIONS_MAX: usize = 64;
/// Characters of a client's id that are kept.
const CLIENT_ID_CHARACTERS_MAX: usize = 100;

/// A request that is not served.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Unsupported {
    key: i16,
    version: i16,
    client_id: Option<String>,
}

impl Unsupported {
    /// `frame` is the whole request: where its client's id lies is the same in every header that has one.
    pub(super) fn new(key: i16, version: i16, frame: &[u8]) -> Unsupported {
        Unsupported {
            key,
            version,
            client_id: client_id(frame),
        }
    }
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match ApiKey::ALL.iter().find(|key| key.code() == self.key) {
            Some(key) => write!(f, "{} version {} is not offered", key.name(), self.version),
            None => write!(f, "API key {} is not offered", self.key),
        }
    }
}

/// The nullable text after key, version and correlation id; none if the bytes there are none.
fn client_id(frame: &[u8]) -> Option<String> {
    let rest = frame.get(8..)?;
    let bytes = usize::try_from(i16::from_be_bytes(*rest.first_chunk()?)).ok()?;
    let text = std::str::from_utf8(rest.get(2..2 + bytes)?).ok()?;
    Some(text.chars().take(CLIENT_ID_CHARACTERS_MAX).collect())
}

/// What was logged of late.
#[derive(Debug, Default)]
pub(super) struct UnsupportedLog {
    /// By question; under none, all those that found no place.
    seen: Mutex<HashMap<Option<Unsupported>, Seen>>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    logged_at: Instant,
    /// How often it was asked since, without a word in the log.
    unlogged: u64,
}

impl UnsupportedLog {
    /// Logs a request that is not served, unless it was logged within the last minute.
    pub(super) fn log(&self, asked: Unsupported, peer: SocketAddr) {
        let Some(before) = self.note(asked.clone(), Instant::now()) else {
            return;
        };
        tracing::warn!(
            client = asked.client_id.as_deref().unwrap_or(""),
            %peer,
            request = %asked,
            unlogged_before = before,
            "a client asked for what is not offered; its connection was closed"
        );
    }

    /// If it is to be logged: how often it was asked without that since the last time.
    fn note(&self, asked: Unsupported, now: Instant) -> Option<u64> {
        let mut seen = self
            .seen
            .lock()
            .expect("nothing panics while it holds what was seen");
        let is_due = |seen: &Seen| now.duration_since(seen.logged_at) >= QUIET;
        let mut question = Some(asked);
        if seen.len() >= QUESTIONS_MAX && !seen.contains_key(&question) {
            seen.retain(|_, seen| !is_due(seen));
            if seen.len() >= QUESTIONS_MAX {
                question = None;
            }
        }
        match seen.get_mut(&question) {
            Some(seen) if !is_due(seen) => {
                seen.unlogged += 1;
                None
            }
            known => {
                let before = known.map_or(0, |seen| seen.unlogged);
                let fresh = Seen {
                    logged_at: now,
                    unlogged: 0,
                };
                seen.insert(question, fresh);
                Some(before)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(key: i16, version: i16, client: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(key.to_be_bytes());
        bytes.extend(version.to_be_bytes());
        bytes.extend(7i32.to_be_bytes());
        bytes.extend(i16::try_from(client.len()).unwrap().to_be_bytes());
        bytes.extend(client.as_bytes());
        bytes
    }

    fn asked(client: &str) -> Unsupported {
        Unsupported::new(1, 0, &frame(1, 0, client))
    }

    #[test]
    fn the_clients_id_is_read_wherever_it_can_be() {
        assert_eq!(client_id(&frame(1, 0, "old")), Some("old".into()));
        assert_eq!(client_id(&frame(1, 0, "")), Some(String::new()));
        assert_eq!(client_id(&frame(1, 0, "old")[..12]), None);
        assert_eq!(client_id(&[0, 1, 0, 0, 0, 0, 0, 7, 255, 255]), None);
        assert_eq!(client_id(&[0; 8]), None);
        let long = client_id(&frame(1, 0, &"x".repeat(3000))).unwrap();
        assert_eq!(long.len(), CLIENT_ID_CHARACTERS_MAX);
    }

    #[test]
    fn a_client_that_tries_again_and_again_is_logged_once_a_minute() {
        let log = UnsupportedLog::default();
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        assert_eq!(log.note(asked("a"), at(0)), Some(0));
        for seconds in [0, 1, 30, 50, 59] {
            assert_eq!(log.note(asked("a"), at(seconds)), None);
        }
        assert_eq!(log.note(asked("b"), at(59)), Some(0));
        assert_eq!(log.note(asked("a"), at(60)), Some(5));
        assert_eq!(log.note(asked("a"), at(61)), None);
        assert_eq!(log.note(asked("b"), at(61)), None);
    }

    #[test]
    fn clients_with_ever_new_names_fill_neither_the_log_nor_the_memory() {
        let log = UnsupportedLog::default();
        let logged = |count: usize, now: Instant| {
            let names = (0..count).map(|n| asked(&format!("{n}")));
            names.filter_map(|asked| log.note(asked, now)).count()
        };
        let start = Instant::now();
        assert_eq!(logged(10_000, start), QUESTIONS_MAX + 1);
        assert!(log.seen.lock().unwrap().len() <= QUESTIONS_MAX + 1);
        assert_eq!(
            logged(1, start + QUIET),
            1,
            "a minute later there is place again"
        );
    }
}
