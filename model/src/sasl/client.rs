//! A client's side of SCRAM.
//! Callers: the client library. Invariant: a server that does not know the password cannot pass for one that does.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::credential::{ITERATIONS_MIN, SALT_BYTES_MAX, ScramMechanism};
use super::message::{Malformed, ServerFirst, base64, base64_of, escaped};

/// The most iterations that a server may ask for: beyond it, it only costs the client's time.
const ASKED_ITERATIONS_MAX: u32 = 1_000_000;
/// What stands before a client's messages: no channel binding.
const HEADER: &str = "n,,";

/// Why a client does not log in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The server's message is none.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The server did not take up the client's nonce: an answer to somebody else.
    #[error("the server's nonce does not begin with the client's")]
    Nonce,
    /// So few iterations give the password away, and so many only take time.
    #[error("the server asks for {0} iterations")]
    Iterations(u32),
    /// The server says why not.
    #[error("the server refuses: {0}")]
    Refused(String),
    /// The server does not know the password.
    #[error("the server could not show that it knows the password")]
    Server,
}

/// A login that begins.
pub struct Client {
    mechanism: ScramMechanism,
    password: Zeroizing<Vec<u8>>,
    nonce: String,
    bare: String,
}

/// What the server's last message has to be.
pub struct ServerCheck {
    signature: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("mechanism", &self.mechanism)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ServerCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCheck").finish_non_exhaustive()
    }
}

impl Client {
    /// Begins. `nonce` is printable ASCII without a comma, and new.
    pub fn new(mechanism: ScramMechanism, user: &str, password: &[u8], nonce: &str) -> Client {
        Client {
            mechanism,
            password: Zeroizing::new(password.to_vec()),
            nonce: nonce.to_owned(),
            bare: format!("n={},r={nonce}", escaped(user)),
        }
    }

    /// The first message.
    pub fn first(&self) -> String {
        format!("{HEADER}{}", self.bare)
    }

    /// The last message, by the server's first, and what the server has to answer. Takes milliseconds of CPU.
    pub fn finish(self, server_first: &[u8]) -> Result<(String, ServerCheck), LoginError> {
        let first = ServerFirst::parse(server_first)?;
        if !first.nonce.starts_with(&self.nonce) || first.nonce.len() == self.nonce.len() {
            return Err(LoginError::Nonce);
        }
        if !(ITERATIONS_MIN..=ASKED_ITERATIONS_MAX).contains(&first.iterations) {
            return Err(LoginError::Iterations(first.iterations));
        }
        if !(1..=SALT_BYTES_MAX).contains(&first.salt.len()) {
            return Err(Malformed("a salt has 1 to 256 bytes").into());
        }
        let mechanism = self.mechanism;
        let salted = mechanism.salted(&self.password, &first.salt, first.iterations);
        let client_key = mechanism.hmac(&salted, &[b"Client Key"]);
        let stored_key = mechanism.hash(&client_key);
        let without_proof = format!("c={},r={}", base64(HEADER.as_bytes()), first.nonce);
        let said = [
            self.bare.as_bytes(),
            b",",
            server_first,
            b",",
            without_proof.as_bytes(),
        ];
        let mut proof = mechanism.hmac(&stored_key, &said);
        for (byte, key) in proof.iter_mut().zip(client_key.iter()) {
            *byte ^= key;
        }
        let server_key = mechanism.hmac(&salted, &[b"Server Key"]);
        let signature = mechanism.hmac(&server_key, &said);
        let last = format!("{without_proof},p={}", base64(&proof));
        Ok((last, ServerCheck { signature }))
    }
}

impl ServerCheck {
    /// Whether the server knows the password.
    pub fn check(&self, server_final: &[u8]) -> Result<(), LoginError> {
        let text = std::str::from_utf8(server_final).map_err(|_| Malformed("not UTF-8"))?;
        if let Some(reason) = text.strip_prefix("e=") {
            return Err(LoginError::Refused(reason.chars().take(200).collect()));
        }
        let signature = text.strip_prefix("v=").ok_or(Malformed("no signature"))?;
        let signature = signature.split(',').next().unwrap_or_default();
        let signature = base64_of(signature)?;
        match bool::from(signature.ct_eq(&self.signature)) {
            true => Ok(()),
            false => Err(LoginError::Server),
        }
    }
}
