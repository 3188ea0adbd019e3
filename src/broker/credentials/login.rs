//! Logins: what a user shows is compared with the credential, in the same time whichever part is wrong.
//! Callers: fronts. Invariants: every attempt that is not a success counts against its address before it is looked at, so that many
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

/// A login that is tried. It has failed, unless it is said to have succeeded.
pub struct Attempt {
    broker: Broker,
    kind: LoginKind,
    /// Who there is of the name that was given.
    user: Option<Arc<str>>,
    address: IpAddr,
    has_succeeded: bool,
}

impl Attempt {
    /// It does not count against its address.
    pub fn succeeded(mut self) {
        self.has_succeeded = true;
    }
}

/// Who has shown a token that somebody else signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BySignature {
    /// The user that it names.
    pub user: Arc<str>,
    /// How long it holds from now on.
    pub holds: Duration,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let logins = &self.broker.shared.credentials.logins;
        let count = logins.count(self.kind);
        let outcome = if self.has_succeeded {
            logins.attempts().give_back(self.address);
            count.succeeded.fetch_add(1, Relaxed);
            LoginOutcome::Succeeded
        } else {
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
        Ok(Attempt {
            broker: self.clone(),
            kind,
            user,
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
            self.note_login(kind, Some(&name), address, LoginOutcome::Succeeded);
            return Ok(name);
        }
        let attempt = self.attempt_login(kind, Some(user), address)?;
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
    ) -> Result<BySignature, LoginFailed> {
        let credentials = &self.shared.credentials;
        let now_ms = self.now().millis();
        match credentials.jwt.check(shown, now_ms) {
            Ok(found) => {
                credentials
                    .logins
                    .count(kind)
                    .succeeded
                    .fetch_add(1, Relaxed);
                self.note_login(kind, Some(&found.user), address, LoginOutcome::Succeeded);
                // One that has expired and is taken all the same, as clocks differ, is shown anew at once.
                let left_ms = found.expires_ms.saturating_sub(now_ms).max(1);
                Ok(BySignature {
                    user: found.user.into(),
                    holds: Duration::from_millis(u64::try_from(left_ms).unwrap_or(1)),
                })
            }
            Err(unfit) => {
                tracing::debug!(%address, reason = %unfit, "a token is not taken");
                // It fails, and counts against the address.
                drop(self.attempt_login(kind, None, address));
                Err(LoginFailed)
            }
        }
    }

    /// Notes how a login ended.
    pub(super) fn note_login(
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
