//! Logins: what a user shows is compared with the credential, in the same time whichever part is wrong.
//! Callers: fronts. Invariants: a login stands as succeeded once a front has let somebody in by it, and not before; every attempt that is not a success counts against its address before it is looked at, so that many
//! at once are no way around the limit. Passwords are hashed by few threads at a time.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use model::sasl::{Credential, ScramMechanism};
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::logins::{LoginFailed, LoginKind};
use crate::broker::audit::LoginOutcome;
use crate::broker::{Broker, on_blocking_pool};

/// A login that is tried. It has failed, unless somebody is let in by it.
#[must_use = "what is dropped has failed"]
pub struct Attempt {
    broker: Broker,
    kind: LoginKind,
    /// Who there is of the name that was given.
    user: Option<Arc<str>>,
    address: IpAddr,
    /// Whether it counts against its address already.
    is_counted: bool,
    has_succeeded: bool,
}

impl Attempt {
    /// What was shown is good, and this user's.
    pub fn proves(self, user: Arc<str>) -> Proven {
        Proven {
            attempt: self,
            user,
            holds: None,
        }
    }
}

/// Somebody who has shown who they are. The login succeeds when they are let in; a front that refuses them all the same drops
/// this, and it has failed.
#[must_use = "what is dropped has failed"]
pub struct Proven {
    attempt: Attempt,
    user: Arc<str>,
    holds: Option<Duration>,
}

impl Proven {
    /// Who it is.
    pub fn user(&self) -> &Arc<str> {
        &self.user
    }

    /// How long that holds from now on, if it ends.
    pub fn holds(&self) -> Option<Duration> {
        self.holds
    }

    /// Lets them in: it does not count against their address.
    pub fn accept(mut self) -> Arc<str> {
        self.attempt.has_succeeded = true;
        self.user
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let logins = &self.broker.shared.credentials.logins;
        let count = logins.count(self.kind);
        let outcome = if self.has_succeeded {
            if self.is_counted {
                logins.attempts().give_back(self.address);
            }
            count.succeeded.fetch_add(1, Relaxed);
            LoginOutcome::Succeeded
        } else {
            if !self.is_counted {
                let now = logins.clock.monotonic();
                logins.attempts().take(self.address, now);
            }
            count.failed.fetch_add(1, Relaxed);
            LoginOutcome::Failed
        };
        self.broker
            .note_login(self.kind, self.user.as_deref(), self.address, outcome);
    }
}

impl Broker {
    /// The credential of a user for an exchange, and whether it is real; if not, the exchange has to fail at its end.
    pub fn scram_credential(&self, mechanism: ScramMechanism, user: &str) -> (Credential, bool) {
        let (credential, is_known) = self.shared.credentials.of(mechanism, user);
        (Credential::clone(&credential), is_known)
    }

    /// Begins to look at what somebody shows, as a user if there is a name; none may be left for the address.
    pub fn attempt_login(
        &self,
        kind: LoginKind,
        user: Option<&str>,
        address: IpAddr,
    ) -> Result<Attempt, LoginFailed> {
        let logins = &self.shared.credentials.logins;
        let user = user.and_then(|user| self.shared.credentials.name_of(user));
        if !logins.attempts().take(address, logins.clock.monotonic()) {
            let count = logins.count(kind);
            count.failed.fetch_add(1, Relaxed);
            count.limited.fetch_add(1, Relaxed);
            self.note_login(kind, user.as_deref(), address, LoginOutcome::Limited);
            return Err(LoginFailed);
        }
        let mut attempt = self.attempt_unseen(kind, user, address);
        attempt.is_counted = true;
        Ok(attempt)
    }

    /// An attempt that is no guess, and counts against its address only if it fails.
    fn attempt_unseen(&self, kind: LoginKind, user: Option<Arc<str>>, address: IpAddr) -> Attempt {
        Attempt {
            broker: self.clone(),
            kind,
            user,
            address,
            is_counted: false,
            has_succeeded: false,
        }
    }

    /// Somebody who is known is let in, unless the front refuses.
    pub(super) fn known(&self, kind: LoginKind, user: Arc<str>, address: IpAddr) -> Proven {
        let attempt = self.attempt_unseen(kind, Some(user.clone()), address);
        attempt.proves(user)
    }

    /// Refuses what shows nobody. It counts against its address.
    pub fn refuse_login(&self, kind: LoginKind, address: IpAddr) {
        drop(self.attempt_login(kind, None, address));
    }

    /// Logs a user in by the password. What succeeded not long ago costs little.
    pub async fn log_in(
        &self,
        kind: LoginKind,
        user: &str,
        password: Zeroizing<Vec<u8>>,
        address: IpAddr,
    ) -> Result<Proven, LoginFailed> {
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
            return Ok(self.known(kind, name, address));
        }
        let attempt = self.attempt_login(kind, Some(user), address)?;
        let _place = logins.hashing.acquire().await.expect("it is never closed");
        let compared = credential.clone();
        let is_password = on_blocking_pool(move || compared.is_password(&password)).await;
        if !(is_password && is_known) {
            return Err(LoginFailed);
        }
        logins.verified().insert(mark, &credential, now);
        Ok(attempt.proves(name))
    }

    /// Renews the keys of tokens until `shutdown` turns true.
    pub(in crate::broker) async fn renew_keys(&self, shutdown: watch::Receiver<bool>) {
        self.shared.credentials.jwt.run(shutdown).await;
    }

    /// Whether tokens that somebody else signed let in.
    pub fn takes_jwt(&self) -> bool {
        self.shared.credentials.jwt.is_on()
    }

    /// Lets in whoever shows a token that somebody else signed. One that is good is never too late, however often its address has
    /// failed: nobody guesses a signature.
    pub fn log_in_by_jwt(
        &self,
        kind: LoginKind,
        shown: &[u8],
        address: IpAddr,
    ) -> Result<Proven, LoginFailed> {
        let credentials = &self.shared.credentials;
        let now_ms = self.now().millis();
        match credentials.jwt.check(shown, now_ms) {
            Ok(found) => {
                // One that has expired and is taken all the same, as clocks differ, is shown anew at once.
                let left_ms = found.expires_ms.saturating_sub(now_ms).max(1);
                let holds = Duration::from_millis(u64::try_from(left_ms).unwrap_or(1));
                Ok(Proven {
                    holds: Some(holds),
                    ..self.known(kind, found.user.into(), address)
                })
            }
            Err(unfit) => {
                tracing::debug!(%address, reason = %unfit, "a token is not taken");
                self.refuse_login(kind, address);
                Err(LoginFailed)
            }
        }
    }

    /// Notes how a login ended.
    fn note_login(
        &self,
        kind: LoginKind,
        user: Option<&str>,
        address: IpAddr,
        outcome: LoginOutcome,
    ) {
        let by = (kind.name(), kind.protocol());
        self.shared.audit.login(by, user, address, outcome);
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
