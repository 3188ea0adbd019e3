//! Logins: what a user shows is compared with the credential, in the same time whichever part is wrong.
//! Callers: fronts. Invariants: every attempt that is not a success counts against its address before it is looked at, so that many
//! at once are no way around the limit. Passwords are hashed by few threads at a time.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

use model::sasl::{Credential, ScramMechanism};
use storage::Clock;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::attempts::Attempts;
use super::random;
use super::verified::Verified;
use crate::broker::{Broker, on_blocking_pool};

/// By what somebody logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginKind {
    /// SASL's PLAIN.
    Plain,
    /// SASL's SCRAM.
    Scram(ScramMechanism),
}

impl LoginKind {
    const ALL: [LoginKind; 3] = [
        LoginKind::Plain,
        LoginKind::Scram(ScramMechanism::Sha256),
        LoginKind::Scram(ScramMechanism::Sha512),
    ];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            LoginKind::Plain => "PLAIN",
            LoginKind::Scram(mechanism) => mechanism.name(),
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
struct Counts {
    succeeded: AtomicU64,
    failed: AtomicU64,
    /// Of those that failed: refused unseen.
    limited: AtomicU64,
}

/// What logins share.
pub(super) struct Logins {
    attempts: Mutex<Attempts>,
    verified: Mutex<Verified>,
    hashing: Semaphore,
    counts: [Counts; LoginKind::ALL.len()],
    clock: Arc<dyn Clock>,
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

    fn attempts(&self) -> MutexGuard<'_, Attempts> {
        self.attempts
            .lock()
            .expect("nothing panics while it holds the attempts")
    }

    fn verified(&self) -> MutexGuard<'_, Verified> {
        self.verified
            .lock()
            .expect("nothing panics while it holds what was verified")
    }

    fn count(&self, kind: LoginKind) -> &Counts {
        &self.counts[kind.index()]
    }
}

/// A login that is tried. It has failed, unless it is said to have succeeded.
pub struct Attempt {
    broker: Broker,
    kind: LoginKind,
    address: IpAddr,
    has_succeeded: bool,
}

impl Attempt {
    /// It does not count against its address.
    pub fn succeeded(mut self) {
        self.has_succeeded = true;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let logins = &self.broker.shared.credentials.logins;
        let count = logins.count(self.kind);
        if self.has_succeeded {
            logins.attempts().give_back(self.address);
            count.succeeded.fetch_add(1, Relaxed);
        } else {
            count.failed.fetch_add(1, Relaxed);
        }
    }
}

impl Broker {
    /// The credential of a user for an exchange, and whether it is real; if not, the exchange has to fail at its end.
    pub fn scram_credential(&self, mechanism: ScramMechanism, user: &str) -> (Credential, bool) {
        let (credential, is_known) = self.shared.credentials.of(mechanism, user);
        (Credential::clone(&credential), is_known)
    }

    /// Begins to look at what somebody shows; none may be left for the address.
    pub fn attempt_login(&self, kind: LoginKind, address: IpAddr) -> Result<Attempt, LoginFailed> {
        let logins = &self.shared.credentials.logins;
        if !logins.attempts().take(address, logins.clock.monotonic()) {
            let count = logins.count(kind);
            count.failed.fetch_add(1, Relaxed);
            count.limited.fetch_add(1, Relaxed);
            return Err(LoginFailed);
        }
        Ok(Attempt {
            broker: self.clone(),
            kind,
            address,
            has_succeeded: false,
        })
    }

    /// Logs a user in by the password. What succeeded not long ago costs little.
    pub async fn log_in(
        &self,
        kind: LoginKind,
        user: &str,
        password: Zeroizing<Vec<u8>>,
        address: IpAddr,
    ) -> Result<Arc<str>, LoginFailed> {
        let credentials = &self.shared.credentials;
        let logins = &credentials.logins;
        let (mechanism, name) = {
            let book = credentials.read();
            let found = book.users.get_key_value(user);
            let mechanism = found.and_then(|(_, of_user)| of_user.keys().next().copied());
            let name = found.map_or_else(|| Arc::from(user), |(name, _)| name.clone());
            (mechanism.unwrap_or(ScramMechanism::Sha256), name)
        };
        let (credential, is_known) = credentials.of(mechanism, user);
        let mark = logins.verified().mark(user, &password);
        let now = logins.clock.monotonic();
        if is_known && logins.verified().has(&mark, &credential, now) {
            logins.count(kind).succeeded.fetch_add(1, Relaxed);
            return Ok(name);
        }
        let attempt = self.attempt_login(kind, address)?;
        let _place = logins.hashing.acquire().await.expect("it is never closed");
        let compared = credential.clone();
        let is_password = on_blocking_pool(move || compared.is_password(&password)).await;
        if !(is_password && is_known) {
            return Err(LoginFailed);
        }
        attempt.succeeded();
        logins.verified().insert(mark, &credential, now);
        Ok(name)
    }

    /// Adds how logins ended.
    pub(in crate::broker) fn add_logins(&self, families: &mut crate::metrics::Families<'_>) {
        use crate::metrics::{Family, Kind};
        let logins = &self.shared.credentials.logins;
        let mut family = Family::new(
            Kind::Counter,
            "alluvium_logins_total",
            "Logins by how they ended; limited are those that failed unseen, as their address has failed too often.",
            &["mechanism", "result"],
        );
        for kind in LoginKind::ALL {
            let count = logins.count(kind);
            let limited = count.limited.load(Relaxed);
            let seen = count.failed.load(Relaxed).saturating_sub(limited);
            family.sample(&[kind.name(), "succeeded"], count.succeeded.load(Relaxed));
            family.sample(&[kind.name(), "failed"], seen);
            family.sample(&[kind.name(), "limited"], limited);
        }
        families.add(family);
    }
}
