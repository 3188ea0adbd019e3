//! Signs tokens, for tests: a key that is made for the moment, and its set.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::config::{JwksSource, JwtConfig};
use crate::broker::BrokerConfig;
use crate::broker::scratch::Scratch;

/// Who signs tokens for the audience `kafka`.
pub(crate) struct Signer {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    directory: TempDir,
}

impl Signer {
    pub(crate) fn new() -> Signer {
        let random = SystemRandom::new();
        let how = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let made = EcdsaKeyPair::generate_pkcs8(how, &random).expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(how, made.as_ref(), &random).expect("its own key");
        let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
        let [x, y] = [x, y].map(|it| URL_SAFE_NO_PAD.encode(it));
        let set = json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "1", "x": x, "y": y}]});
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("jwks.json");
        std::fs::write(path, set.to_string()).expect("it is written");
        Signer {
            pair,
            random,
            directory,
        }
    }

    /// A broker that takes its tokens.
    pub(crate) fn broker(&self) -> Scratch {
        Scratch::with(BrokerConfig {
            jwt: JwtConfig {
                jwks: Some(JwksSource::File(self.directory.path().join("jwks.json"))),
                audiences: vec!["kafka".to_owned()],
                ..JwtConfig::default()
            },
            ..BrokerConfig::default()
        })
    }

    /// A token of this user that holds for so many seconds from now on.
    pub(crate) fn token(&self, user: &str, seconds: i64) -> String {
        let now = jiff::Timestamp::now().as_second();
        self.sign(&json!({
            "sub": user, "aud": "kafka", "scope": "all", "iat": now - 100, "exp": now + seconds,
        }))
    }

    fn sign(&self, claims: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let head = encode(&json!({"alg": "ES256", "kid": "1"}));
        let signed = format!("{head}.{}", encode(claims));
        let signature = self
            .pair
            .sign(&self.random, signed.as_bytes())
            .expect("a signature");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}
