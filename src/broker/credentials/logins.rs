//! What logins share: who failed how often, what was verified not long ago, and how they ended.
//! Callers: `login`.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard};

use model::sasl::{SaslMechanism, ScramMechanism};
use storage::Clock;
use tokio::sync::Semaphore;

use super::attempts::Attempts;
use super::random::random;
use super::verified::Verified;
use crate::broker::access::Protocol;

/// By what somebody logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginKind {
    /// SASL's PLAIN.
    Plain,
    /// SASL's SCRAM.
    Scram(ScramMechanism),
    /// HTTP's Basic.
    Basic,
    /// User name and password in MQTT's CONNECT.
    Mqtt,
    /// SASL in AMQP, by whichever mechanism.
    Amqp,
    /// An API token.
    Token,
    /// SASL's OAUTHBEARER.
    OauthBearer,
    /// A token that somebody else signed, over HTTP.
    Jwt,
}

impl LoginKind {
    pub(super) const ALL: [LoginKind; 9] = [
        LoginKind::Plain,
        LoginKind::Scram(ScramMechanism::Sha256),
        LoginKind::Scram(ScramMechanism::Sha512),
        LoginKind::Basic,
        LoginKind::Mqtt,
        LoginKind::Amqp,
        LoginKind::Token,
        LoginKind::OauthBearer,
        LoginKind::Jwt,
    ];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            LoginKind::Plain => "PLAIN",
            LoginKind::Scram(mechanism) => mechanism.name(),
            LoginKind::Basic => "Basic",
            LoginKind::Mqtt => "MQTT",
            LoginKind::Amqp => "AMQP",
            LoginKind::Token => "token",
            LoginKind::OauthBearer => SaslMechanism::OauthBearer.name(),
            LoginKind::Jwt => "JWT",
        }
    }

    /// The protocol in which that is done.
    pub(super) fn protocol(self) -> Protocol {
        match self {
            LoginKind::Plain | LoginKind::Scram(_) | LoginKind::OauthBearer => Protocol::Kafka,
            LoginKind::Basic | LoginKind::Token | LoginKind::Jwt => Protocol::Http,
            LoginKind::Mqtt => Protocol::Mqtt,
            LoginKind::Amqp => Protocol::Amqp,
        }
    }

    fn index(self) -> usize {
        let found = Self::ALL.iter().position(|kind| *kind == self);
        found.expect("all stand in the list")
    }
}

/// That a login failed, for whichever reason: who asks is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the login failed")]
pub struct LoginFailed;

/// How logins of one kind ended, since the start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) succeeded: AtomicU64,
    pub(super) failed: AtomicU64,
    /// Of those that failed: refused unseen.
    pub(super) limited: AtomicU64,
}

/// What logins share.
pub(in crate::broker) struct Logins {
    attempts: Mutex<Attempts>,
    verified: Mutex<Verified>,
    pub(super) hashing: Semaphore,
    counts: [Counts; LoginKind::ALL.len()],
    pub(super) clock: Arc<dyn Clock>,
}

impl Logins {
    /// So many failures of one address in a minute.
    pub(super) fn new(failures_per_minute_max: u32, clock: Arc<dyn Clock>) -> Logins {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Logins {
            attempts: Mutex::new(Attempts::new(failures_per_minute_max)),
            verified: Mutex::new(Verified::new(random::<32>())),
            hashing: Semaphore::new((threads / 2).max(1)),
            counts: Default::default(),
            clock,
        }
    }

    pub(super) fn attempts(&self) -> MutexGuard<'_, Attempts> {
        self.attempts
            .lock()
            .expect("nothing panics while it holds the attempts")
    }

    pub(super) fn verified(&self) -> MutexGuard<'_, Verified> {
        self.verified
            .lock()
            .expect("nothing panics while it holds what was verified")
    }

    pub(super) fn count(&self, kind: LoginKind) -> &Counts {
        &self.counts[kind.index()]
    }
}
