//! Tokens that somebody else signed (JWT, RFC 7519): who they are of, and until when.
//! Callers: logins; `Broker::run`, which has the keys renewed. Invariants: a token counts only if a key of the set has signed it by the
//! algorithm that is the key's, and all that the settings ask of its claims holds; there is no other way in. Keys are what
//! the file or the address gave last: what cannot be read leaves those before it in force.
//! Sources: RFC 7515 (JWS), 7517 (JWK), 7518 (algorithms), 7519, 8725 (what goes wrong), and Kafka's `DefaultJwtValidator`.

mod check;
mod config;
mod fetch;
mod holder;
mod keys;
pub mod settings;
#[cfg(test)]
pub(crate) mod signer;
#[cfg(test)]
mod tests;

pub use config::{JwksSource, JwtConfig};
pub use holder::{JwksError, Jwt};
