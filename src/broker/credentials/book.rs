//! The credentials that are known, and where they are kept.
//! Callers: `credentials` and `login`. Invariant: a credential is in the book exactly if its record is in the state log
//! `credentials`.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock, RwLockReadGuard};

use bytes::Bytes;
use model::sasl::{
    ApiToken, Credential, CredentialRecord, ScramMechanism, Unacceptable, UnknownCredential,
};
use model::state_log::StateLogKind;
use storage::{Clock, Purpose, Storage};
use zeroize::Zeroizing;

use super::jwt::{JwksError, Jwt, JwtConfig};
use super::logins::Logins;
use super::random::random;
use crate::broker::state_log::{Change, StateLog, StateLogError, StateRecord};
use crate::broker::{Refusal, state_refusal};

/// Credentials that there may be.
pub const CREDENTIALS_MAX: usize = 100_000;
impl StateRecord for CredentialRecord {
    const LOG: StateLogKind = StateLogKind::Credentials;
    type Unknown = UnknownCredential;

    fn encode(&self) -> Change {
        let (key, value) = CredentialRecord::encode(self);
        (Bytes::from(key), value.map(Bytes::from))
    }

    fn decode(key: &[u8], value: &[u8]) -> Result<CredentialRecord, UnknownCredential> {
        CredentialRecord::decode(key, value)
    }
}

/// Why a credential is not changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CredentialError {
    /// The store does not take it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It is no name of a user.
    #[error("{0}")]
    User(&'static str),
    /// It is not safe, or none.
    #[error(transparent)]
    Unacceptable(#[from] Unacceptable),
    /// There are as many as there may be.
    #[error("there are {CREDENTIALS_MAX} credentials, and no more may be")]
    TooMany,
    /// The user is there.
    #[error("there is a user {0:?} with a password")]
    Exists(String),
    /// The user is not there.
    #[error("there is no user {0:?}")]
    NoUser(String),
    /// The user has no such token.
    #[error("there is no such token {0:?}")]
    NoToken(String),
    /// It cannot be said of a token.
    #[error("{0}")]
    About(&'static str),
    /// A token that nobody could use.
    #[error("the token would have ended already")]
    Expired,
    /// There is none to remove.
    #[error("Attempt to delete a user credential that does not exist")]
    Unknown,
}

/// Why the credentials cannot be read at a start.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] StateLogError),
    /// A record is not understood.
    #[error(transparent)]
    Unknown(#[from] UnknownCredential),
    /// The keys of tokens cannot be read.
    #[error("the keys of sasl.oauthbearer.jwks.endpoint.url: {0}")]
    Jwks(#[from] JwksError),
}

/// A user's credentials, by mechanism.
pub(super) type OfUser = BTreeMap<ScramMechanism, Arc<Credential>>;

#[derive(Default)]
pub(super) struct Book {
    pub(super) users: BTreeMap<Arc<str>, OfUser>,
    /// API tokens, by their ids.
    pub(super) tokens: BTreeMap<String, Arc<ApiToken>>,
    pub(super) count: usize,
    /// Whether the decoys' secret is durable.
    pub(super) has_decoy: bool,
}

/// All credentials.
pub(in crate::broker) struct Credentials {
    log: StateLog<CredentialRecord>,
    book: RwLock<Book>,
    decoy: Zeroizing<Vec<u8>>,
    /// Changes run one at a time.
    pub(super) changes: tokio::sync::Mutex<()>,
    pub(super) logins: Logins,
    pub(super) jwt: Jwt,
}

impl Credentials {
    /// Reads the log. Blocks on the disk.
    pub(in crate::broker) fn open(
        storage: &Storage,
        clock: Arc<dyn Clock>,
        failures_per_minute_max: u32,
        jwt: &JwtConfig,
    ) -> Result<Credentials, CredentialsError> {
        let jwt = Jwt::open(jwt)?;
        let (log, records) = StateLog::open(storage, clock)?;
        let mut book = Book::default();
        let mut decoy = random::<32>();
        for record in records {
            match record? {
                CredentialRecord::Decoy(secret) => {
                    decoy = secret;
                    book.has_decoy = true;
                }
                record => book.apply(&record),
            }
        }
        Ok(Credentials {
            log,
            book: RwLock::new(book),
            decoy,
            changes: tokio::sync::Mutex::default(),
            logins: Logins::new(failures_per_minute_max, storage.steady_clock()),
            jwt,
        })
    }

    /// The user of this name, if there is one, by a password or a token.
    pub(super) fn name_of(&self, user: &str) -> Option<Arc<str>> {
        let book = self.read();
        book.users.get_key_value(user).map(|(name, _)| name.clone())
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Book> {
        self.book
            .read()
            .expect("nothing panics while it holds the book")
    }

    /// The credential of a user, or what it would be made up from, and whether it is real.
    pub(super) fn of(&self, mechanism: ScramMechanism, user: &str) -> (Arc<Credential>, bool) {
        let found = self.read().find(mechanism, user);
        // Computed in any case: it must not take longer to learn that a user is not there.
        let decoy = Credential::decoy(mechanism, &self.decoy, user);
        let is_known = found.is_some();
        (found.unwrap_or_else(|| Arc::new(decoy)), is_known)
    }

    /// Writes records, all or none, and puts them in force. Called under the turn of changes.
    pub(super) async fn write(
        &self,
        mut records: Vec<CredentialRecord>,
    ) -> Result<(), CredentialError> {
        let has_decoy = self.read().has_decoy;
        if !has_decoy {
            records.push(CredentialRecord::Decoy(self.decoy.clone()));
        }
        for record in &records {
            let written = self.log.write(record, Purpose::State).await;
            written.map_err(|error| CredentialError::Refused(state_refusal(error)))?;
            let mut book = self
                .book
                .write()
                .expect("nothing panics while it holds the book");
            book.apply(record);
        }
        Ok(())
    }
}

impl Book {
    pub(super) fn find(&self, mechanism: ScramMechanism, user: &str) -> Option<Arc<Credential>> {
        self.users.get(user)?.get(&mechanism).cloned()
    }

    fn apply(&mut self, record: &CredentialRecord) {
        match record {
            CredentialRecord::Scram { user, credential } => {
                let of_user = self.users.entry(user.as_str().into()).or_default();
                let credential = Arc::new(credential.clone());
                let before = of_user.insert(credential.mechanism(), credential);
                self.count += usize::from(before.is_none());
            }
            CredentialRecord::Removed { user, mechanism } => {
                let Some(of_user) = self.users.get_mut(user.as_str()) else {
                    return;
                };
                self.count -= usize::from(of_user.remove(mechanism).is_some());
                if of_user.is_empty() {
                    self.users.remove(user.as_str());
                }
            }
            CredentialRecord::Token(token) => {
                let before = self
                    .tokens
                    .insert(token.id.clone(), Arc::new(token.clone()));
                self.count += usize::from(before.is_none());
            }
            CredentialRecord::TokenRemoved(id) => {
                self.count -= usize::from(self.tokens.remove(id).is_some());
            }
            CredentialRecord::Decoy(_) => self.has_decoy = true,
        }
    }
}
