//! Credentials as records of the state log `credentials`; `docs/formats.md` describes them.
//! Callers: the broker; the fuzz target. Invariant: what is read is what some writer wrote, or refused.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::credential::{Credential, ScramMechanism};
use super::token::ApiToken;
use crate::hex::{from_hex, to_hex};
use crate::state_log::{
    CREDENTIALS_VERSION, DECOY_KEY, SCRAM_KEY_HEAD, StateLogKind, TOKEN_KEY_HEAD,
};

/// The longest name of a user.
const USER_BYTES_MAX: usize = 255;
/// How long the secret of decoys is.
const DECOY_BYTES: usize = 32;

/// A record.
#[derive(Clone, PartialEq, Eq)]
pub enum CredentialRecord {
    /// What a user shows who they are with.
    Scram {
        /// The user's name.
        user: String,
        /// It.
        credential: Credential,
    },
    /// A user has none of this mechanism any more.
    Removed {
        /// The user's name.
        user: String,
        /// The mechanism.
        mechanism: ScramMechanism,
    },
    /// What a program shows instead.
    Token(ApiToken),
    /// There is no token of this id any more.
    TokenRemoved(String),
    /// What users that do not exist are made up from: a secret, so that nobody can tell them.
    Decoy(Zeroizing<Vec<u8>>),
}

impl fmt::Debug for CredentialRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CredentialRecord::Scram { user, credential } => {
                write!(f, "Scram({user:?}, {credential:?})")
            }
            CredentialRecord::Removed { user, mechanism } => {
                write!(f, "Removed({user:?}, {mechanism:?})")
            }
            CredentialRecord::Token(token) => write!(f, "{token:?}"),
            CredentialRecord::TokenRemoved(id) => write!(f, "TokenRemoved({id})"),
            CredentialRecord::Decoy(_) => f.write_str("Decoy"),
        }
    }
}

/// Why a record is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("record {key:?} of the credentials: {reason}")]
pub struct UnknownCredential {
    key: String,
    reason: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// First, in every value: see [`crate::state_log::METADATA_VALUE_HEAD`].
    version: u32,
    iterations: u32,
    salt_hex: String,
    stored_key_hex: String,
    server_key_hex: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptToken {
    /// First, as above.
    version: u32,
    user: String,
    about: String,
    created_ms: i64,
    expires_ms: Option<i64>,
    hash_hex: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptDecoy {
    /// First, as above.
    version: u32,
    secret_hex: String,
}

/// Refuses what cannot be a user's name: it stands in messages, rules and log lines.
pub fn check_user_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("a user's name is not empty");
    }
    if name.len() > USER_BYTES_MAX {
        return Err("a user's name has at most 255 bytes");
    }
    if name.chars().any(char::is_control) {
        return Err("a user's name has no control characters");
    }
    Ok(())
}

impl CredentialRecord {
    /// Its key and its value; no value is the key's end.
    pub fn encode(&self) -> (Vec<u8>, Option<Vec<u8>>) {
        let version = CREDENTIALS_VERSION;
        let key = |mechanism: ScramMechanism, user: &str| {
            format!("{SCRAM_KEY_HEAD}{}/{user}", mechanism.name()).into_bytes()
        };
        match self {
            CredentialRecord::Scram { user, credential } => {
                let kept = Kept {
                    version,
                    iterations: credential.iterations(),
                    salt_hex: to_hex(credential.salt()),
                    stored_key_hex: to_hex(credential.stored_key()),
                    server_key_hex: to_hex(credential.server_key()),
                };
                let value = serde_json::to_vec(&kept).expect("plain fields are JSON");
                (key(credential.mechanism(), user), Some(value))
            }
            CredentialRecord::Removed { user, mechanism } => (key(*mechanism, user), None),
            CredentialRecord::Token(token) => {
                let kept = KeptToken {
                    version,
                    user: token.user.clone(),
                    about: token.about.clone(),
                    created_ms: token.created_ms,
                    expires_ms: token.expires_ms,
                    hash_hex: to_hex(token.hash),
                };
                let value = serde_json::to_vec(&kept).expect("plain fields are JSON");
                (token_key(&token.id), Some(value))
            }
            CredentialRecord::TokenRemoved(id) => (token_key(id), None),
            CredentialRecord::Decoy(secret) => {
                let secret_hex = to_hex(secret.as_slice());
                let kept = KeptDecoy {
                    version,
                    secret_hex,
                };
                let value = serde_json::to_vec(&kept).expect("plain fields are JSON");
                (DECOY_KEY.as_bytes().to_vec(), Some(value))
            }
        }
    }

    /// Reads one that counts.
    pub fn decode(key: &[u8], value: &[u8]) -> Result<CredentialRecord, UnknownCredential> {
        let refuse = |reason: String| UnknownCredential {
            key: String::from_utf8_lossy(key).chars().take(300).collect(),
            reason,
        };
        StateLogKind::Credentials
            .check(key, Some(value))
            .map_err(|error| refuse(error.to_string()))?;
        if key == DECOY_KEY.as_bytes() {
            let kept: KeptDecoy =
                serde_json::from_slice(value).map_err(|error| refuse(error.to_string()))?;
            let secret = from_hex(&kept.secret_hex).filter(|it| it.len() == DECOY_BYTES);
            let secret = secret.ok_or_else(|| refuse("its secret has not 32 bytes".to_owned()))?;
            return Ok(CredentialRecord::Decoy(Zeroizing::new(secret)));
        }
        if let Some(id) = key.strip_prefix(TOKEN_KEY_HEAD.as_bytes()) {
            return token(id, value).map_err(refuse);
        }
        let (mechanism, user) = mechanism_and_user(key).map_err(|it| refuse(it.to_owned()))?;
        let kept: Kept =
            serde_json::from_slice(value).map_err(|error| refuse(error.to_string()))?;
        let bytes =
            |digits: &str| from_hex(digits).ok_or_else(|| refuse("not hexadecimal".to_owned()));
        let credential = Credential::of_keys(
            mechanism,
            kept.iterations,
            bytes(&kept.salt_hex)?,
            bytes(&kept.stored_key_hex)?,
            bytes(&kept.server_key_hex)?,
        );
        let credential = credential.map_err(|error| refuse(error.to_string()))?;
        let user = user.to_owned();
        Ok(CredentialRecord::Scram { user, credential })
    }
}

fn token_key(id: &str) -> Vec<u8> {
    format!("{TOKEN_KEY_HEAD}{id}").into_bytes()
}

fn token(id: &[u8], value: &[u8]) -> Result<CredentialRecord, String> {
    let id = std::str::from_utf8(id).map_err(|_| "its key is not UTF-8")?;
    let kept: KeptToken = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    let hash = from_hex(&kept.hash_hex).and_then(|hash| hash.try_into().ok());
    let token = ApiToken {
        id: id.to_owned(),
        user: kept.user,
        about: kept.about,
        created_ms: kept.created_ms,
        expires_ms: kept.expires_ms,
        hash: hash.ok_or("its hash has not 32 bytes")?,
    };
    check_user_name(&token.user)?;
    token.check()?;
    Ok(CredentialRecord::Token(token))
}

fn mechanism_and_user(key: &[u8]) -> Result<(ScramMechanism, &str), &'static str> {
    let key = std::str::from_utf8(key).map_err(|_| "its key is not UTF-8")?;
    let rest = key.strip_prefix(SCRAM_KEY_HEAD);
    let (mechanism, user) = rest
        .and_then(|rest| rest.split_once('/'))
        .ok_or("its key has no mechanism")?;
    let mechanism = ScramMechanism::of_name(mechanism).ok_or("its mechanism is not known")?;
    check_user_name(user)?;
    Ok((mechanism, user))
}
