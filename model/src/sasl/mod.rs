//! SASL: the mechanisms by which somebody shows who they are, credentials, and both sides of the exchanges, as pure functions.
//!
//! Callers: the broker, which keeps credentials and answers logins; clients, which log in; the tools. Nonces and salts come from
//! whoever calls. Invariants: no credential holds a password, nor shows its keys where it is printed; whatever depends on a
//! secret is compared in constant time, and buffers with passwords are cleared when they go.
//! Sources: RFC 4616 (PLAIN), RFC 5802 and RFC 7677 (SCRAM), RFC 7628 (OAUTHBEARER), and Kafka's `ScramMechanism`.

mod bearer;
mod client;
mod credential;
mod exchange;
mod message;
mod plain;
mod record;
mod token;

pub use bearer::Bearer;
pub use client::{Client, LoginError, ServerCheck};
pub use credential::{
    Credential, ITERATIONS_DEFAULT, ITERATIONS_MAX, ITERATIONS_MIN, SALT_BYTES_MAX, ScramMechanism,
    Unacceptable,
};
pub use exchange::{Exchange, WrongProof};
pub use message::{ClientFinal, ClientFirst, Malformed, ServerFirst};
pub use plain::Plain;
pub use record::{CredentialRecord, UnknownCredential, check_user_name};
pub use token::{ApiToken, ShownToken, TOKEN_ID_BYTES, TOKEN_SECRET_BYTES, check_about};

/// The mechanisms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SaslMechanism {
    /// The password itself: only where nobody else reads it.
    Plain,
    /// Both sides show that they know the password, and neither says it.
    Scram(ScramMechanism),
    /// A token that somebody else signed: only where nobody else reads it.
    OauthBearer,
}

impl SaslMechanism {
    /// Each of them.
    pub const ALL: [SaslMechanism; 4] = [
        SaslMechanism::Plain,
        SaslMechanism::Scram(ScramMechanism::Sha256),
        SaslMechanism::Scram(ScramMechanism::Sha512),
        SaslMechanism::OauthBearer,
    ];

    /// Its registered name.
    pub const fn name(self) -> &'static str {
        match self {
            SaslMechanism::Plain => "PLAIN",
            SaslMechanism::Scram(scram) => scram.name(),
            SaslMechanism::OauthBearer => "OAUTHBEARER",
        }
    }

    /// Whether what is said lets in whoever reads it.
    pub const fn tells_secret(self) -> bool {
        match self {
            SaslMechanism::Plain | SaslMechanism::OauthBearer => true,
            SaslMechanism::Scram(_) => false,
        }
    }

    /// The one of this name.
    pub fn of_name(name: &str) -> Option<SaslMechanism> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }
}

#[cfg(test)]
mod tests;
