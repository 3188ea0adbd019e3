//! The public keys that tokens are signed with, as a JSON Web Key Set has them (RFC 7517, 7518).
//! Callers: `holder`, which reads sets; `check`. Pure. Invariants: a key checks signatures of its own kind alone, so that a public key is
//! never a secret of HMAC; symmetric keys, keys for encryption and kinds that are not known are left out.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::Deserialize;

/// The longest set.
pub(super) const SET_BYTES_MAX: usize = 1 << 20;
/// Keys in a set.
const KEYS_MAX: usize = 100;

/// By what tokens are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

impl Algorithm {
    /// The one of this name; there is no `none`, and none with a shared secret.
    pub(super) fn of_name(name: &str) -> Option<Algorithm> {
        Some(match name {
            "RS256" => Algorithm::Rs256,
            "RS384" => Algorithm::Rs384,
            "RS512" => Algorithm::Rs512,
            "PS256" => Algorithm::Ps256,
            "PS384" => Algorithm::Ps384,
            "PS512" => Algorithm::Ps512,
            "ES256" => Algorithm::Es256,
            "ES384" => Algorithm::Es384,
            "EdDSA" | "Ed25519" => Algorithm::EdDsa,
            _ => return None,
        })
    }
}

/// A set of keys.
#[derive(Debug, Default)]
pub(super) struct Keys(Vec<Key>);

/// One of them.
#[derive(Debug)]
pub(super) struct Key {
    id: Option<String>,
    /// The only one that it is for, if the set says so.
    algorithm: Option<Algorithm>,
    material: Material,
}

#[derive(Debug)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// Why a set is not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum InvalidSet {
    #[error("it is no JSON Web Key Set: {0}")]
    Json(String),
    #[error("it is longer than {} KiB", SET_BYTES_MAX >> 10)]
    TooLong,
    #[error("it has more than {KEYS_MAX} keys")]
    TooMany,
    #[error("no key in it is one that signatures can be checked with")]
    Empty,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    for_what: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Keys {
    /// Reads a set. Keys that are of no use are left out, as the RFC has it; one at least is of use.
    pub(super) fn parse(text: &[u8]) -> Result<Keys, InvalidSet> {
        if text.len() > SET_BYTES_MAX {
            return Err(InvalidSet::TooLong);
        }
        let set: Set =
            serde_json::from_slice(text).map_err(|it| InvalidSet::Json(it.to_string()))?;
        if set.keys.len() > KEYS_MAX {
            return Err(InvalidSet::TooMany);
        }
        let keys: Vec<Key> = set.keys.into_iter().filter_map(Key::of).collect();
        match keys.is_empty() {
            true => Err(InvalidSet::Empty),
            false => Ok(Keys(keys)),
        }
    }

    /// Those that may have signed a token: of its id, if it names one, and for its algorithm.
    pub(super) fn fitting(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &Key> {
        let is_meant = move |key: &&Key| id.is_none() || key.id.as_deref() == id;
        self.0
            .iter()
            .filter(is_meant)
            .filter(move |key| key.is_for(algorithm))
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }
}

impl Key {
    fn of(value: serde_json::Value) -> Option<Key> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        if jwk.for_what.as_deref().is_some_and(|it| it != "sig") {
            return None;
        }
        let verifies = |all: &Vec<String>| all.iter().any(|one| one == "verify");
        if jwk.key_ops.as_ref().is_some_and(|all| !verifies(all)) {
            return None;
        }
        let algorithm = match &jwk.alg {
            Some(name) => Some(Algorithm::of_name(name)?),
            None => None,
        };
        let bytes = |field: &Option<String>| URL_SAFE_NO_PAD.decode(field.as_deref()?).ok();
        let point = |length: usize| {
            let (x, y) = (bytes(&jwk.x)?, bytes(&jwk.y)?);
            let is_point = x.len() == length && y.len() == length;
            is_point.then(|| [&[4][..], &x, &y].concat())
        };
        let material = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => Material::Rsa {
                n: without_zeros(bytes(&jwk.n)?),
                e: without_zeros(bytes(&jwk.e)?),
            },
            ("EC", Some("P-256")) => Material::P256(point(32)?),
            ("EC", Some("P-384")) => Material::P384(point(48)?),
            ("OKP", Some("Ed25519")) => Material::Ed25519(bytes(&jwk.x)?),
            _ => return None,
        };
        Some(Key {
            id: jwk.kid,
            algorithm,
            material,
        })
    }

    fn is_for(&self, algorithm: Algorithm) -> bool {
        use Algorithm::{EdDsa, Es256, Es384, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
        let is_kind = match &self.material {
            Material::Rsa { .. } => {
                matches!(algorithm, Rs256 | Rs384 | Rs512 | Ps256 | Ps384 | Ps512)
            }
            Material::P256(_) => algorithm == Es256,
            Material::P384(_) => algorithm == Es384,
            Material::Ed25519(_) => algorithm == EdDsa,
        };
        is_kind && self.algorithm.is_none_or(|only| only == algorithm)
    }

    /// Whether it has signed this. RSA keys have 2,048 to 8,192 bits.
    pub(super) fn has_signed(&self, algorithm: Algorithm, message: &[u8], signed: &[u8]) -> bool {
        let rsa = |how| match &self.material {
            Material::Rsa { n, e } => RsaPublicKeyComponents { n, e }
                .verify(how, message, signed)
                .is_ok(),
            _ => false,
        };
        let plain = |how: &'static dyn signature::VerificationAlgorithm| match &self.material {
            Material::P256(key) | Material::P384(key) | Material::Ed25519(key) => {
                UnparsedPublicKey::new(how, key)
                    .verify(message, signed)
                    .is_ok()
            }
            Material::Rsa { .. } => false,
        };
        if !self.is_for(algorithm) {
            return false;
        }
        match algorithm {
            Algorithm::Rs256 => rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::Rs384 => rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            Algorithm::Rs512 => rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            Algorithm::Ps256 => rsa(&signature::RSA_PSS_2048_8192_SHA256),
            Algorithm::Ps384 => rsa(&signature::RSA_PSS_2048_8192_SHA384),
            Algorithm::Ps512 => rsa(&signature::RSA_PSS_2048_8192_SHA512),
            Algorithm::Es256 => plain(&signature::ECDSA_P256_SHA256_FIXED),
            Algorithm::Es384 => plain(&signature::ECDSA_P384_SHA384_FIXED),
            Algorithm::EdDsa => plain(&signature::ED25519),
        }
    }
}

fn without_zeros(mut number: Vec<u8>) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.drain(..zeros);
    number
}
