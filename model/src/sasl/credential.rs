//! A SCRAM credential: what a server keeps in place of a password, and the arithmetic of RFC 5802 §3.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The fewest iterations, Kafka's and RFC 7677's bound.
pub const ITERATIONS_MIN: u32 = 4096;
/// The most, Kafka's bound: who logs in has to compute them.
pub const ITERATIONS_MAX: u32 = 16_384;
/// What is taken where nobody says how many, as by Kafka's tools: users that do not exist seem to have as many.
pub const ITERATIONS_DEFAULT: u32 = ITERATIONS_MIN;
/// The longest salt.
pub const SALT_BYTES_MAX: usize = 256;

/// The two SCRAM mechanisms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScramMechanism {
    /// SCRAM-SHA-256.
    Sha256,
    /// SCRAM-SHA-512.
    Sha512,
}

impl ScramMechanism {
    /// Both.
    pub const ALL: [ScramMechanism; 2] = [ScramMechanism::Sha256, ScramMechanism::Sha512];

    /// Its registered name.
    pub const fn name(self) -> &'static str {
        match self {
            ScramMechanism::Sha256 => "SCRAM-SHA-256",
            ScramMechanism::Sha512 => "SCRAM-SHA-512",
        }
    }

    /// The one of this name.
    pub fn of_name(name: &str) -> Option<ScramMechanism> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }

    /// Kafka's number of it.
    pub const fn code(self) -> i8 {
        match self {
            ScramMechanism::Sha256 => 1,
            ScramMechanism::Sha512 => 2,
        }
    }

    /// The one with this number.
    pub fn of_code(code: i8) -> Option<ScramMechanism> {
        Self::ALL.into_iter().find(|one| one.code() == code)
    }

    /// How long its keys are.
    pub const fn key_bytes(self) -> usize {
        match self {
            ScramMechanism::Sha256 => 32,
            ScramMechanism::Sha512 => 64,
        }
    }

    /// The keyed hash of parts, one behind the other.
    pub fn hmac(self, key: &[u8], parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
        match self {
            ScramMechanism::Sha256 => mac::<Hmac<Sha256>>(key, parts),
            ScramMechanism::Sha512 => mac::<Hmac<Sha512>>(key, parts),
        }
    }

    /// The hash.
    pub fn hash(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            ScramMechanism::Sha256 => Sha256::digest(bytes).to_vec(),
            ScramMechanism::Sha512 => Sha512::digest(bytes).to_vec(),
        }
    }

    /// `Hi`: what a password is made into. Takes milliseconds of CPU, which is the point.
    pub fn salted(self, password: &[u8], salt: &[u8], iterations: u32) -> Zeroizing<Vec<u8>> {
        let mut salted = Zeroizing::new(vec![0; self.key_bytes()]);
        match self {
            ScramMechanism::Sha256 => {
                pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, iterations, &mut salted);
            }
            ScramMechanism::Sha512 => {
                pbkdf2::pbkdf2_hmac::<Sha512>(password, salt, iterations, &mut salted);
            }
        }
        salted
    }
}

fn mac<M: Mac + hmac::digest::KeyInit>(key: &[u8], parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let mut mac = <M as Mac>::new_from_slice(key).expect("HMAC takes keys of every length");
    for part in parts {
        mac.update(part);
    }
    Zeroizing::new(mac.finalize().into_bytes().to_vec())
}

/// Why a credential is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unacceptable {
    /// Fewer iterations than are safe.
    #[error("fewer than {ITERATIONS_MIN} iterations")]
    TooFewIterations,
    /// More than a client should have to compute.
    #[error("more than {ITERATIONS_MAX} iterations")]
    TooManyIterations,
    /// A salt of no bytes, or of too many.
    #[error("a salt has 1 to {SALT_BYTES_MAX} bytes")]
    Salt,
    /// A key that is not as long as the mechanism's.
    #[error("a key of {mechanism} has {wanted} bytes")]
    Key {
        /// Which mechanism.
        mechanism: &'static str,
        /// How many there should be.
        wanted: usize,
    },
    /// A password of no bytes.
    #[error("a password is not empty")]
    EmptyPassword,
}

/// What a server keeps of a user: enough to see that somebody knows the password, not enough to log in elsewhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    mechanism: ScramMechanism,
    iterations: u32,
    salt: Vec<u8>,
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
}

impl Credential {
    /// Of a password. Takes milliseconds of CPU.
    pub fn of_password(
        mechanism: ScramMechanism,
        password: &[u8],
        salt: Vec<u8>,
        iterations: u32,
    ) -> Result<Credential, Unacceptable> {
        check(iterations, &salt)?;
        if password.is_empty() {
            return Err(Unacceptable::EmptyPassword);
        }
        let salted = mechanism.salted(password, &salt, iterations);
        Credential::of_salted(mechanism, &salted, salt, iterations)
    }

    /// Of a salted password, as Kafka's administrators' clients send it.
    pub fn of_salted(
        mechanism: ScramMechanism,
        salted: &[u8],
        salt: Vec<u8>,
        iterations: u32,
    ) -> Result<Credential, Unacceptable> {
        if salted.is_empty() {
            return Err(Unacceptable::EmptyPassword);
        }
        let client_key = mechanism.hmac(salted, &[b"Client Key"]);
        let stored_key = mechanism.hash(&client_key);
        let server_key = mechanism.hmac(salted, &[b"Server Key"]).to_vec();
        Credential::of_keys(mechanism, iterations, salt, stored_key, server_key)
    }

    /// Of its parts, as they were kept.
    pub fn of_keys(
        mechanism: ScramMechanism,
        iterations: u32,
        salt: Vec<u8>,
        stored_key: Vec<u8>,
        server_key: Vec<u8>,
    ) -> Result<Credential, Unacceptable> {
        check(iterations, &salt)?;
        let wanted = mechanism.key_bytes();
        if stored_key.len() != wanted || server_key.len() != wanted {
            let mechanism = mechanism.name();
            return Err(Unacceptable::Key { mechanism, wanted });
        }
        Ok(Credential {
            mechanism,
            iterations,
            salt,
            stored_key,
            server_key,
        })
    }

    /// What a user seems to have that does not exist: always the same for the same secret and name, and nobody's password fits.
    pub fn decoy(mechanism: ScramMechanism, secret: &[u8], user: &str) -> Credential {
        let part = |what: &[u8]| {
            let parts = [what, mechanism.name().as_bytes(), user.as_bytes()];
            mechanism.hmac(secret, &parts).to_vec()
        };
        let mut salt = part(b"salt");
        salt.truncate(DECOY_SALT_BYTES);
        Credential {
            mechanism,
            iterations: ITERATIONS_DEFAULT,
            salt,
            stored_key: part(b"stored key"),
            server_key: part(b"server key"),
        }
    }

    /// For which mechanism it is.
    pub fn mechanism(&self) -> ScramMechanism {
        self.mechanism
    }

    /// How often the password was hashed.
    pub fn iterations(&self) -> u32 {
        self.iterations
    }

    /// With what.
    pub fn salt(&self) -> &[u8] {
        &self.salt
    }

    /// A hash of the key that a client proves to have.
    pub fn stored_key(&self) -> &[u8] {
        &self.stored_key
    }

    /// The key with which the server proves that it knows the user.
    pub fn server_key(&self) -> &[u8] {
        &self.server_key
    }

    /// Whether it is this password's. Takes milliseconds of CPU, and as long for a wrong one.
    pub fn is_password(&self, password: &[u8]) -> bool {
        let salted = self.mechanism.salted(password, &self.salt, self.iterations);
        let client_key = self.mechanism.hmac(&salted, &[b"Client Key"]);
        let stored_key = self.mechanism.hash(&client_key);
        stored_key.ct_eq(&self.stored_key).into()
    }
}

/// As long as the salts that the broker makes.
const DECOY_SALT_BYTES: usize = 20;

fn check(iterations: u32, salt: &[u8]) -> Result<(), Unacceptable> {
    if iterations < ITERATIONS_MIN {
        return Err(Unacceptable::TooFewIterations);
    }
    if iterations > ITERATIONS_MAX {
        return Err(Unacceptable::TooManyIterations);
    }
    match (1..=SALT_BYTES_MAX).contains(&salt.len()) {
        true => Ok(()),
        false => Err(Unacceptable::Salt),
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("mechanism", &self.mechanism)
            .field("iterations", &self.iterations)
            .finish_non_exhaustive()
    }
}
