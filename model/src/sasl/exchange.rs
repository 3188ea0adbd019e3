//! A server's side of SCRAM: from a client's first message to the server's last.
//! Callers: the Kafka front. Invariant: an exchange with a decoy goes on as any other, and fails at its end.

use subtle::ConstantTimeEq;

use super::credential::Credential;
use super::message::{ClientFinal, ClientFirst, Malformed, ServerFirst, base64};

/// Why a login fails at its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WrongProof {
    /// It is no message of the exchange.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The client does not know the password, or nobody does.
    #[error("the proof is not that of the password")]
    Proof,
}

/// An exchange that has begun.
#[derive(Debug)]
pub struct Exchange {
    credential: Credential,
    /// Whether there is such a user.
    is_known: bool,
    /// The client's half.
    client_nonce: String,
    /// Both halves.
    nonce: String,
    header: String,
    client_first: String,
    server_first: String,
}

impl Exchange {
    /// Answers a client's first message. `server_nonce` is printable ASCII without a comma, and new.
    pub fn begin(
        first: ClientFirst,
        credential: Credential,
        is_known: bool,
        server_nonce: &str,
    ) -> (Exchange, String) {
        let server_first = ServerFirst {
            nonce: format!("{}{server_nonce}", first.nonce),
            salt: credential.salt().to_vec(),
            iterations: credential.iterations(),
        };
        let text = server_first.text();
        let exchange = Exchange {
            credential,
            is_known,
            client_nonce: first.nonce,
            nonce: server_first.nonce,
            header: first.header,
            client_first: first.bare,
            server_first: text.clone(),
        };
        (exchange, text)
    }

    /// Answers a client's last message, if its proof is right.
    pub fn finish(self, bytes: &[u8]) -> Result<String, WrongProof> {
        let last = ClientFinal::parse(bytes)?;
        // librdkafka before 2.6.1 says its own half twice, and with it kcat and all else that stands on it. The server's half
        // stands at the end all the same, and the proof is over what was said.
        let nonce = last.nonce.strip_prefix(&self.client_nonce);
        let is_ours = last.nonce == self.nonce || nonce == Some(&self.nonce);
        if !is_ours || last.header != self.header.as_bytes() {
            return Err(Malformed("it is another exchange's").into());
        }
        let mechanism = self.credential.mechanism();
        let said = [
            self.client_first.as_bytes(),
            b",",
            self.server_first.as_bytes(),
            b",",
            last.without_proof.as_bytes(),
        ];
        let signature = mechanism.hmac(self.credential.stored_key(), &said);
        if last.proof.len() != signature.len() {
            return Err(WrongProof::Proof);
        }
        let mut client_key = signature;
        for (byte, proof) in client_key.iter_mut().zip(&last.proof) {
            *byte ^= proof;
        }
        let stored_key = mechanism.hash(&client_key);
        let is_right = stored_key.ct_eq(self.credential.stored_key());
        if !bool::from(is_right & subtle::Choice::from(u8::from(self.is_known))) {
            return Err(WrongProof::Proof);
        }
        let signature = mechanism.hmac(self.credential.server_key(), &said);
        Ok(format!("v={}", base64(&signature)))
    }
}
