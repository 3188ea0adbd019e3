//! Credentials: what users show who they are with, and logins.
//! Callers: fronts, which log users in and change credentials; `serve`, which adds the first ones.
//! Invariants: a credential is in force exactly if its record is in the state log `credentials`, and durable before whoever
//! changed it hears of it. No password is kept, on disk or in memory. A login fails in the same way, with the same work, whether the user is unknown
//! or the password is wrong (`login.rs`); an address that fails too often is refused unseen for a while (`attempts.rs`).

mod attempts;
mod book;
pub mod jwt;
mod login;
mod logins;
mod of_password;
mod random;
mod users;
mod verified;

use std::sync::Arc;

use model::sasl::{CredentialRecord, ITERATIONS_DEFAULT, ScramMechanism, check_user_name};
use zeroize::Zeroizing;

use super::Broker;
use super::access::{Caller, Cluster, Granted, asked_by, right};
use super::audit::On;
pub(super) use book::Credentials;
use book::OfUser;
pub use book::{CREDENTIALS_MAX, CredentialError, CredentialsError};
pub use login::{Attempt, Proven};
pub use logins::{LoginFailed, LoginKind};
use of_password::of_password;
pub use users::User;

/// A user that is to be there from the start.
pub struct FirstUser {
    /// The name.
    pub name: String,
    /// The password.
    pub password: Zeroizing<Vec<u8>>,
}

/// A user's name, and the mechanisms of their credentials with the iterations of each.
pub type ScramUser = (Arc<str>, Vec<(ScramMechanism, u32)>);

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
            CredentialRecord::Decoy(_)
            | CredentialRecord::Token(_)
            | CredentialRecord::TokenRemoved(_) => {
                unreachable!("nobody changes these so")
            }
        };
        credentials.write(vec![change]).await?;
        let by = asked_by(caller);
        tracing::info!(user, mechanism = mechanism.name(), by, "{what}");
        let what = format!("{what}: {}", mechanism.name());
        self.note_change(caller, "alter_user", On::User(&user), &what);
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

#[cfg(test)]
mod tests;
