//! SASL: as whom a client logs in, and the login of one connection.
//! Callers: `Connection::open`, for each connection of a client whose configuration has it.
//! Invariants: the password is shown to nobody by printing; SCRAM's server has to show that it knows the password, too.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::sasl::{Bearer, Client, Plain, SaslMechanism, ScramMechanism};
use uuid::Uuid;
use wire::messages::sasl_authenticate::SaslAuthenticateRequest;
use wire::messages::sasl_handshake::SaslHandshakeRequest;
use zeroize::Zeroizing;

use crate::error::check;
use crate::{Connection, Error, Result};

/// With version 1 the messages of the mechanism are requests of their own.
const HANDSHAKE_VERSION: i16 = 1;

/// A user, the password, and by which mechanism it is shown. Clones share it.
#[derive(Clone)]
pub struct Sasl {
    mechanism: SaslMechanism,
    user: Arc<str>,
    password: Arc<Zeroizing<Vec<u8>>>,
}

impl fmt::Debug for Sasl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sasl")
            .field("mechanism", &self.mechanism)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl Sasl {
    /// Logs in as this user. With PLAIN, whoever answers gets the password: use it on encrypted connections. With OAUTHBEARER
    /// the password is a token, which is told as well, and says who the user is.
    pub fn new(mechanism: SaslMechanism, user: &str, password: Zeroizing<Vec<u8>>) -> Sasl {
        Sasl {
            mechanism,
            user: user.into(),
            password: Arc::new(password),
        }
    }

    /// Logs a connection in. Yields how long that holds, if it ends.
    pub(crate) async fn log_in(&self, connection: &Connection) -> Result<Option<Duration>> {
        let about = || format!("the login of {} at {}", self.user, connection.address());
        let request = SaslHandshakeRequest {
            mechanism: self.mechanism.name().to_owned(),
        };
        let pending = connection.start(&request, HANDSHAKE_VERSION).await?;
        let answer = pending.wait(Duration::ZERO).await?;
        let offered = format!("it offers {}", answer.mechanisms.join(", "));
        let offered = (!answer.mechanisms.is_empty()).then_some(offered);
        check(answer.error_code, about, offered.as_ref())?;
        let session_ms = match self.mechanism {
            SaslMechanism::Plain => {
                let message = Plain::message(&self.user, &self.password);
                self.say(connection, &message).await?.1
            }
            SaslMechanism::Scram(mechanism) => self.scram(connection, mechanism).await?,
            SaslMechanism::OauthBearer => {
                let message = Bearer::message(&self.password);
                let (refusal, session_ms) = self.say(connection, &message).await?;
                if !refusal.is_empty() {
                    // It ends with an error once the client has seen that (RFC 7628, section 3.2.3).
                    self.say(connection, Bearer::SEEN).await?;
                }
                session_ms
            }
        };
        let session_ms = u64::try_from(session_ms).unwrap_or(0);
        Ok((session_ms > 0).then_some(Duration::from_millis(session_ms)))
    }

    async fn scram(&self, connection: &Connection, mechanism: ScramMechanism) -> Result<i64> {
        let failed = |error: model::sasl::LoginError| Error::Login {
            user: self.user.clone(),
            address: connection.address().to_owned(),
            source: error,
        };
        let nonce = Uuid::new_v4().simple().to_string();
        let client = Client::new(mechanism, &self.user, &self.password, &nonce);
        let (first, _) = self.say(connection, client.first().as_bytes()).await?;
        // It hashes the password for some milliseconds.
        let finished = tokio::task::spawn_blocking(move || client.finish(&first));
        let finished = finished.await.map_err(|_| Error::Closed)?;
        let (last, server) = finished.map_err(failed)?;
        let (answer, session_ms) = self.say(connection, last.as_bytes()).await?;
        server.check(&answer).map_err(failed)?;
        Ok(session_ms)
    }

    /// Says a message of the mechanism; yields the answer, and how long the login holds if it is done.
    async fn say(&self, connection: &Connection, message: &[u8]) -> Result<(Bytes, i64)> {
        let about = || format!("the login of {} at {}", self.user, connection.address());
        let auth_bytes = Bytes::copy_from_slice(message);
        let request = SaslAuthenticateRequest { auth_bytes };
        let answer = connection.call(&request).await?;
        check(answer.error_code, about, answer.error_message.as_ref())?;
        Ok((answer.auth_bytes, answer.session_lifetime_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printing_shows_no_password() {
        let password = Zeroizing::new(b"secret".to_vec());
        let sasl = Sasl::new(SaslMechanism::Plain, "alice", password);
        let printed = format!("{sasl:?}");
        assert!(printed.contains("alice") && !printed.contains("secret"));
        assert!(!printed.contains("115"), "its bytes neither");
    }
}
