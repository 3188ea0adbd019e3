//! Credentials: what users show who they are with, and logins.
//! Callers: fronts, which log users in and change credentials; `serve`, which adds the first ones.
//! Invariants: a credential is in force exactly if its record is in the state log `credentials`, and durable before whoever
//! changed it hears of it. No password is kept, on disk or in memory. A login fails in the same way, with the same work, whether the user is unknown
//! or the password is wrong (`login.rs`); an address that fails too often is refused unseen for a while (`attempts.rs`).

mod attempts;
mod login;
mod verified;

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock, RwLockReadGuard};

use bytes::Bytes;
use model::sasl::{
    Credential, CredentialRecord, ITERATIONS_DEFAULT, ScramMechanism, Unacceptable,
    UnknownCredential, check_user_name,
};
use model::state_log::StateLogKind;
use storage::{Clock, Purpose, Storage};
use zeroize::Zeroizing;

use super::access::{Caller, Cluster, Granted, right};
use super::cleanup::asked_by;
use super::state_log::{Change, StateLog, StateLogError, StateRecord};
use super::{Broker, Refusal, on_blocking_pool};
pub use login::{Attempt, LoginFailed, LoginKind};

/// Credentials that there may be.
pub const CREDENTIALS_MAX: usize = 100_000;
/// The length of the salts that are made here.
const SALT_BYTES: usize = 20;

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
}

/// A user that is to be there from the start.
pub struct FirstUser {
    /// The name.
    pub name: String,
    /// The password.
    pub password: Zeroizing<Vec<u8>>,
}

/// A user's name, and the mechanisms of their credentials with the iterations of each.
pub type ScramUser = (Arc<str>, Vec<(ScramMechanism, u32)>);

/// A user's credentials, by mechanism.
type OfUser = BTreeMap<ScramMechanism, Arc<Credential>>;

#[derive(Default)]
struct Book {
    users: BTreeMap<Arc<str>, OfUser>,
    count: usize,
    /// Whether the decoys' secret is durable.
    has_decoy: bool,
}

/// All credentials.
pub(super) struct Credentials {
    log: StateLog<CredentialRecord>,
    book: RwLock<Book>,
    decoy: Zeroizing<Vec<u8>>,
    /// Changes run one at a time.
    changes: tokio::sync::Mutex<()>,
    logins: login::Logins,
}

impl Credentials {
    /// Reads the log. Blocks on the disk.
    pub(super) fn open(
        storage: &Storage,
        clock: Arc<dyn Clock>,
        failures_per_minute_max: u32,
    ) -> Result<Credentials, CredentialsError> {
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
            logins: login::Logins::new(failures_per_minute_max, storage.steady_clock()),
        })
    }

    fn read(&self) -> RwLockReadGuard<'_, Book> {
        self.book
            .read()
            .expect("nothing panics while it holds the book")
    }

    /// The credential of a user, or what it would be made up from, and whether it is real.
    fn of(&self, mechanism: ScramMechanism, user: &str) -> (Arc<Credential>, bool) {
        let found = self.read().find(mechanism, user);
        // Computed in any case: it must not take longer to learn that a user is not there.
        let decoy = Credential::decoy(mechanism, &self.decoy, user);
        let is_known = found.is_some();
        (found.unwrap_or_else(|| Arc::new(decoy)), is_known)
    }

    /// Writes records, all or none, and puts them in force. Called under the turn of changes.
    async fn write(&self, mut records: Vec<CredentialRecord>) -> Result<(), CredentialError> {
        let has_decoy = self.read().has_decoy;
        if !has_decoy {
            records.push(CredentialRecord::Decoy(self.decoy.clone()));
        }
        for record in &records {
            let written = self.log.write(record, Purpose::State).await;
            written.map_err(|error| CredentialError::Refused(super::state_refusal(error)))?;
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
    fn find(&self, mechanism: ScramMechanism, user: &str) -> Option<Arc<Credential>> {
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
            CredentialRecord::Decoy(_) => self.has_decoy = true,
        }
    }
}

impl Broker {
    /// Users in the order of their names, with the mechanisms and iterations of their credentials.
    pub fn scram_users(&self, _cluster: &Granted<Cluster, right::Describe>) -> Vec<ScramUser> {
        let book = self.shared.credentials.read();
        let of = |credentials: &OfUser| {
            let all = credentials.iter();
            all.map(|(mechanism, it)| (*mechanism, it.iterations()))
                .collect()
        };
        let users = book.users.iter();
        users.map(|(user, it)| (user.clone(), of(it))).collect()
    }

    /// Sets or removes a credential. It is in force, and durable, when this returns.
    pub async fn change_credential(
        &self,
        _cluster: &Granted<Cluster, right::Alter>,
        change: CredentialRecord,
        caller: &Caller,
    ) -> Result<(), CredentialError> {
        let credentials = &self.shared.credentials;
        let _change = credentials.changes.lock().await;
        let (user, mechanism, what) = match &change {
            CredentialRecord::Scram { user, credential } => {
                check_user_name(user).map_err(CredentialError::User)?;
                let mechanism = credential.mechanism();
                let book = credentials.read();
                let is_new = book.find(mechanism, user).is_none();
                if is_new && book.count >= CREDENTIALS_MAX {
                    return Err(CredentialError::TooMany);
                }
                (user.clone(), mechanism, "a credential was set")
            }
            CredentialRecord::Removed { user, mechanism } => {
                let found = credentials.read().find(*mechanism, user);
                found.ok_or(CredentialError::Unknown)?;
                (user.clone(), *mechanism, "a credential was removed")
            }
            CredentialRecord::Decoy(_) => {
                unreachable!("nobody changes what users are made up from")
            }
        };
        credentials.write(vec![change]).await?;
        let by = asked_by(caller);
        tracing::info!(user, mechanism = mechanism.name(), by, "{what}");
        Ok(())
    }

    /// Adds users, with a credential of each mechanism, that do not exist yet. Gives how many those are.
    pub async fn add_first_users(&self, users: Vec<FirstUser>) -> Result<usize, CredentialError> {
        let credentials = &self.shared.credentials;
        let _change = credentials.changes.lock().await;
        let mut added = 0;
        for user in users {
            check_user_name(&user.name).map_err(CredentialError::User)?;
            {
                let book = credentials.read();
                if book.users.contains_key(user.name.as_str()) {
                    continue;
                }
                if book.count + ScramMechanism::ALL.len() > CREDENTIALS_MAX {
                    return Err(CredentialError::TooMany);
                }
            }
            let name = user.name;
            let records = of_password(name.clone(), user.password, ITERATIONS_DEFAULT).await?;
            credentials.write(records).await?;
            tracing::info!(user = name, "a user was added");
            added += 1;
        }
        Ok(added)
    }
}

/// A credential of each mechanism for a password.
async fn of_password(
    user: String,
    password: Zeroizing<Vec<u8>>,
    iterations: u32,
) -> Result<Vec<CredentialRecord>, Unacceptable> {
    on_blocking_pool(move || {
        let of = |mechanism| {
            let salt = random::<SALT_BYTES>().to_vec();
            Ok(CredentialRecord::Scram {
                user: user.clone(),
                credential: Credential::of_password(mechanism, &password, salt, iterations)?,
            })
        };
        ScramMechanism::ALL.into_iter().map(of).collect()
    })
    .await
}

/// Bytes that nobody can guess.
fn random<const BYTES: usize>() -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(vec![0; BYTES]);
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

#[cfg(test)]
mod tests;
