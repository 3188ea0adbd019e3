//! Tokens of an identity provider, end to end: a Kafka client by OAUTHBEARER and an HTTP client by Bearer show the same ones.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use client::{Client, ClientConfig, ErrorCode, Sasl};
use model::sasl::SaslMechanism;
use rcgen::{KeyPair, PKCS_ED25519, SigningKey as _};

use crate::binary::Running;
use crate::tls::{Authority, Place};

/// Who signs tokens.
pub struct Provider {
    pair: KeyPair,
    kid: &'static str,
}

impl Provider {
    pub fn new(kid: &'static str) -> Provider {
        let pair = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
        Provider { pair, kid }
    }

    /// Its public key in a set.
    pub fn set(&self) -> String {
        let (kid, x) = (self.kid, URL_SAFE_NO_PAD.encode(self.pair.public_key_raw()));
        format!(r#"{{"keys": [{{"kty": "OKP", "crv": "Ed25519", "kid": "{kid}", "x": "{x}"}}]}}"#)
    }

    /// A token of this user for this audience, which holds for so many seconds from now on.
    pub fn token(&self, user: &str, audience: &str, seconds: i64) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = i64::try_from(now.expect("a time").as_secs()).expect("a time");
        let (issued, expires) = (now - 3600, now + seconds);
        let head = format!(r#"{{"alg": "EdDSA", "kid": "{}"}}"#, self.kid);
        let claims = format!(
            r#"{{"sub": "{user}", "aud": "{audience}", "scope": "all", "iat": {issued}, "exp": {expires}}}"#
        );
        let [head, claims] = [head, claims].map(|it| URL_SAFE_NO_PAD.encode(it));
        let signed = format!("{head}.{claims}");
        let signature = self.pair.sign(signed.as_bytes()).expect("a signature");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

async fn by_kafka(address: &str, token: &str) -> Result<(), client::Error> {
    let mut config = ClientConfig::new(address);
    let token = token.as_bytes().to_vec().into();
    config.sasl = Some(Sasl::new(SaslMechanism::OauthBearer, "", token));
    config.retry_timeout = Duration::from_secs(20);
    let client = Client::connect(config).await?;
    client.refresh(None).await.map(drop)
}

fn by_http(running: &Running, token: &str) -> u16 {
    let header = format!("Authorization: Bearer {token}\r\n");
    running.ask("GET /api/v1/topics", &header, "").0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_token_lets_in_by_kafka_and_by_http_and_a_bad_one_by_neither() {
    let place = Place::new();
    let server = Authority::new("authority").server().both();
    place.put("server.pem", &server, 0o600);
    let (first, second) = (Provider::new("1"), Provider::new("2"));
    let path = place.put("jwks.json", &first.set(), 0o644);
    let source = format!(
        "sasl.oauthbearer.jwks.endpoint.url=file://{}",
        path.display()
    );
    let settings = [
        "sasl.enabled.mechanisms=OAUTHBEARER",
        "sasl.oauthbearer.expected.audience=kafka",
        "connection.failed.authentication.delay.ms=0",
        "failed.logins.per.ip.max=100000",
        source.as_str(),
    ];
    let running = Running::start(&mut place.serve("SASL_PLAINTEXT://127.0.0.1:0", &settings));
    let both = async |token: &str| {
        (
            by_kafka(&running.kafka, token).await,
            by_http(&running, token),
        )
    };

    let (kafka, http) = both(&first.token("press4", "kafka", 600)).await;
    kafka.expect("a login by Kafka");
    assert_eq!(http, 200);
    for (what, token) in [
        ("expired", first.token("press4", "kafka", -600)),
        ("another audience", first.token("press4", "billing", 600)),
        ("an unknown key", second.token("press4", "kafka", 600)),
    ] {
        let (kafka, http) = both(&token).await;
        let code = kafka.expect_err(what).code();
        assert_eq!(code, Some(ErrorCode::SaslAuthenticationFailed), "{what}");
        assert_eq!(http, 401, "{what}");
    }

    // The provider takes another key; no server is started anew for it.
    let beside = place.put("jwks.new", &second.set(), 0o644);
    std::fs::rename(beside, &path).expect("it is renamed");
    let (old, new) = (
        first.token("press4", "kafka", 600),
        second.token("press4", "kafka", 600),
    );
    for _ in 0..600 {
        if by_http(&running, &new) == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (kafka, http) = both(&new).await;
    kafka.expect("a login by the new key");
    assert_eq!(http, 200);
    let (kafka, http) = both(&old).await;
    assert!(kafka.is_err(), "the old key is in no set any more");
    assert_eq!(http, 401);
}
