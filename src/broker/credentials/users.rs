//! Users and API tokens as administrators see them: listed, added, changed, removed.
//! Callers: fronts. Invariants: a user is there while there is a credential or a token of that name; with a user go its tokens. A token
//! is told once, when it is made.

use std::net::IpAddr;
use std::sync::Arc;

use model::sasl::{
    ApiToken, CredentialRecord, ITERATIONS_DEFAULT, ScramMechanism, ShownToken, TOKEN_ID_BYTES,
    TOKEN_SECRET_BYTES, check_about, check_user_name,
};
use zeroize::Zeroizing;

use super::book::{CREDENTIALS_MAX, CredentialError};
use super::logins::{LoginFailed, LoginKind};
use super::of_password::of_password;
use super::random::random;
use crate::broker::Broker;
use crate::broker::access::{Caller, Cluster, Granted, asked_by, right};
use crate::broker::audit::On;

/// A user.
#[derive(Debug)]
pub struct User {
    /// The name.
    pub name: Arc<str>,
    /// By what the password is shown; none if there is no password.
    pub mechanisms: Vec<ScramMechanism>,
    /// In the order in which they were made.
    pub tokens: Vec<Arc<ApiToken>>,
}

impl Broker {
    /// All users, in the order of their names.
    pub fn users(&self, _cluster: &Granted<Cluster, right::Describe>) -> Vec<User> {
        let book = self.shared.credentials.read();
        let mut users: Vec<User> = book
            .users
            .iter()
            .map(|(name, of_user)| User {
                name: name.clone(),
                mechanisms: of_user.keys().copied().collect(),
                tokens: Vec::new(),
            })
            .collect();
        let mut tokens: Vec<Arc<ApiToken>> = book.tokens.values().cloned().collect();
        tokens.sort_by(|one, other| (one.created_ms, &one.id).cmp(&(other.created_ms, &other.id)));
        for token in tokens {
            let found = users.binary_search_by(|user| (*user.name).cmp(&token.user));
            let index = found.unwrap_or_else(|index| {
                let user = User {
                    name: token.user.as_str().into(),
                    mechanisms: Vec::new(),
                    tokens: Vec::new(),
                };
                users.insert(index, user);
                index
            });
            users[index].tokens.push(token);
        }
        users
    }

    /// Gives a user a password. `is_new` says whether one must not, or must, have been there. In force, and durable, when this returns.
    pub async fn set_password(
        &self,
        _cluster: &Granted<Cluster, right::Alter>,
        user: &str,
        password: Zeroizing<Vec<u8>>,
        is_new: bool,
        caller: &Caller,
    ) -> Result<(), CredentialError> {
        let credentials = &self.shared.credentials;
        check_user_name(user).map_err(CredentialError::User)?;
        let records = of_password(user.to_owned(), password, ITERATIONS_DEFAULT).await?;
        let _change = credentials.changes.lock().await;
        {
            let book = credentials.read();
            match (book.users.get(user), is_new) {
                (Some(_), true) => return Err(CredentialError::Exists(user.to_owned())),
                (None, false) => return Err(CredentialError::NoUser(user.to_owned())),
                (Some(_), false) | (None, true) => {}
            }
            if book.count + records.len() > CREDENTIALS_MAX {
                return Err(CredentialError::TooMany);
            }
        }
        credentials.write(records).await?;
        let by = asked_by(caller);
        tracing::info!(user, by, "a user's password was set");
        let on = On::User(user);
        self.note_change(caller, "alter_user", on, "a password was set");
        Ok(())
    }

    /// Removes a user, and the tokens.
    pub async fn remove_user(
        &self,
        _cluster: &Granted<Cluster, right::Alter>,
        user: &str,
        caller: &Caller,
    ) -> Result<(), CredentialError> {
        let credentials = &self.shared.credentials;
        let _change = credentials.changes.lock().await;
        let records: Vec<CredentialRecord> = {
            let book = credentials.read();
            let of_user = book.users.get(user).into_iter().flat_map(|it| it.keys());
            let passwords = of_user.map(|mechanism| CredentialRecord::Removed {
                user: user.to_owned(),
                mechanism: *mechanism,
            });
            let tokens = book.tokens.values().filter(|token| token.user == user);
            let tokens = tokens.map(|token| CredentialRecord::TokenRemoved(token.id.clone()));
            // Tokens first: what is left if the disk fails is who still has a password.
            tokens.chain(passwords).collect()
        };
        if records.is_empty() {
            return Err(CredentialError::NoUser(user.to_owned()));
        }
        credentials.write(records).await?;
        let by = asked_by(caller);
        tracing::info!(user, by, "a user was removed");
        let on = On::User(user);
        self.note_change(caller, "delete_user", on, "with all tokens");
        Ok(())
    }

    /// Makes a token that lets in as this user, who need not have a password. Gives what is kept of it, and the token itself.
    pub async fn add_token(
        &self,
        _cluster: &Granted<Cluster, right::Alter>,
        user: &str,
        about: &str,
        expires_ms: Option<i64>,
        caller: &Caller,
    ) -> Result<(ApiToken, Zeroizing<String>), CredentialError> {
        let credentials = &self.shared.credentials;
        check_user_name(user).map_err(CredentialError::User)?;
        check_about(about).map_err(CredentialError::About)?;
        let now_ms = self.now().millis();
        if expires_ms.is_some_and(|end| end <= now_ms) {
            return Err(CredentialError::Expired);
        }
        let (id, secret) = (random::<TOKEN_ID_BYTES>(), random::<TOKEN_SECRET_BYTES>());
        let id = id.first_chunk().expect("as many as were asked for");
        let secret = secret.first_chunk().expect("as many as were asked for");
        let (token, text) = ApiToken::new((id, secret), user, about, now_ms, expires_ms);
        let _change = credentials.changes.lock().await;
        if credentials.read().count >= CREDENTIALS_MAX {
            return Err(CredentialError::TooMany);
        }
        let record = CredentialRecord::Token(token.clone());
        credentials.write(vec![record]).await?;
        let (by, id) = (asked_by(caller), &token.id);
        tracing::info!(user, token = id, by, "a token was made");
        let on = On::User(user);
        self.note_change(caller, "create_token", on, &format!("token {id}"));
        Ok((token, text))
    }

    /// Revokes a token of this user. The next request that shows it is refused.
    pub async fn remove_token(
        &self,
        _cluster: &Granted<Cluster, right::Alter>,
        user: &str,
        id: &str,
        caller: &Caller,
    ) -> Result<Arc<ApiToken>, CredentialError> {
        let credentials = &self.shared.credentials;
        let _change = credentials.changes.lock().await;
        let found = credentials.read().tokens.get(id).cloned();
        let token = found
            .filter(|token| token.user == user)
            .ok_or_else(|| CredentialError::NoToken(id.to_owned()))?;
        let record = CredentialRecord::TokenRemoved(token.id.clone());
        credentials.write(vec![record]).await?;
        let by = asked_by(caller);
        tracing::info!(user, token = id, by, "a token was revoked");
        let on = On::User(user);
        self.note_change(caller, "delete_token", on, &format!("token {id}"));
        Ok(token)
    }

    /// Lets in whoever shows a token. One that is good is never too late, however often its address has failed: nobody guesses one.
    pub fn log_in_by_token(
        &self,
        shown: &[u8],
        address: IpAddr,
    ) -> Result<super::Proven, LoginFailed> {
        let credentials = &self.shared.credentials;
        let now_ms = self.now().millis();
        let good = ShownToken::parse(shown).and_then(|shown| {
            let kept = credentials.read().tokens.get(&shown.id).cloned();
            kept.filter(|kept| kept.is_shown_by(&shown, now_ms))
        });
        match good {
            Some(token) => {
                let user = token.user.as_str().into();
                Ok(self.known(LoginKind::Token, user, address))
            }
            None => {
                self.refuse_login(LoginKind::Token, address);
                Err(LoginFailed)
            }
        }
    }
}
