//! Tokens that OpenSSL has signed, good ones and hostile ones, and keys as they come and go.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::check::{Shown, TOKEN_BYTES_MAX, Unfit, check};
use super::config::{JwksSource, JwtConfig};
use super::holder::Jwt;
use super::keys::{InvalidSet, Keys, SET_BYTES_MAX};

/// Made once, by OpenSSL; the private keys are nowhere.
#[derive(Deserialize)]
struct Made {
    jwks: Value,
    /// The same claims, signed by each algorithm.
    tokens: BTreeMap<String, String>,
    hostile: BTreeMap<String, String>,
    claims: BTreeMap<String, String>,
    #[serde(rename = "good claims")]
    good_claims: BTreeMap<String, String>,
}

fn made() -> Made {
    serde_json::from_str(include_str!("golden/tokens.json")).expect("as it was made")
}

/// 100 seconds after they were issued.
const NOW_MS: i64 = 1_700_000_100_000;
const EXPIRES_MS: i64 = 1_700_003_600_000;

fn config() -> JwtConfig {
    JwtConfig {
        audiences: vec!["kafka".to_owned()],
        issuer: Some("https://id.example".to_owned()),
        scopes: vec!["read".to_owned()],
        ..JwtConfig::default()
    }
}

fn keys(made: &Made) -> Keys {
    Keys::parse(made.jwks.to_string().as_bytes()).expect("a set")
}

#[test]
fn a_token_that_openssl_has_signed_lets_in_whom_it_names() {
    let made = made();
    let keys = keys(&made);
    assert_eq!((keys.count(), made.tokens.len()), (4, 9));
    let press4 = Shown {
        user: "press4".to_owned(),
        expires_ms: EXPIRES_MS,
    };
    for (algorithm, token) in &made.tokens {
        let shown = check(token.as_bytes(), &keys, &config(), NOW_MS);
        assert_eq!(shown.as_ref(), Ok(&press4), "{algorithm}");
        // Each of its characters counts.
        for at in [0, token.len() / 2, token.len() - 2] {
            let mut other = token.clone().into_bytes();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            let shown = check(&other, &keys, &config(), NOW_MS);
            assert!(shown.is_err(), "{algorithm}, changed at {at}");
        }
    }
    for (what, token) in &made.good_claims {
        let shown = check(token.as_bytes(), &keys, &config(), NOW_MS);
        assert_eq!(shown.map(|it| it.user).as_deref(), Ok("press4"), "{what}");
    }
}

#[test]
fn what_nobody_has_signed_lets_nobody_in() {
    let made = made();
    let keys = keys(&made);
    for (what, token) in &made.hostile {
        let shown = check(token.as_bytes(), &keys, &JwtConfig::default(), NOW_MS);
        let wanted = match what.as_str() {
            it if it.starts_with("alg") || it.starts_with("HS256") => Unfit::Algorithm,
            "a kid that is not there" | "a kid of another kind of key" | "a key for encryption" => {
                Unfit::UnknownKey
            }
            "two parts"
            | "four parts"
            | "crit"
            | "padding"
            | "a kid that is a number"
            | "two algorithms" => Unfit::Malformed,
            _ => Unfit::Signature,
        };
        assert_eq!(shown, Err(wanted), "{what}");
    }
    let good = &made.tokens["ES256"];
    for length in 0..good.len() {
        let shown = check(&good.as_bytes()[..length], &keys, &config(), NOW_MS);
        assert!(shown.is_err(), "the first {length} bytes of it");
    }
    let huge = "A".repeat(TOKEN_BYTES_MAX + 1);
    for bad in ["", ".", "..", "...", "a.b.c", "e30.e30.e30", &huge] {
        let shown = check(bad.as_bytes(), &keys, &config(), NOW_MS);
        assert_eq!(shown, Err(Unfit::Malformed), "{:.10}", bad);
    }
    let nobody = check(good.as_bytes(), &Keys::default(), &config(), NOW_MS);
    assert_eq!(nobody, Err(Unfit::UnknownKey));
}

#[test]
fn what_a_token_claims_has_to_hold() {
    let made = made();
    let keys = keys(&made);
    for (what, token) in &made.claims {
        let shown = check(token.as_bytes(), &keys, &config(), NOW_MS);
        assert!(shown.is_err(), "{what}: {shown:?}");
    }
    let of = |what: &str| check(made.claims[what].as_bytes(), &keys, &config(), NOW_MS);
    assert_eq!(of("expired"), Err(Unfit::Expired));
    assert_eq!(of("nbf in the future"), Err(Unfit::Early));
    assert_eq!(of("another issuer"), Err(Unfit::Issuer));
    assert_eq!(of("another audience"), Err(Unfit::Audience));
    assert_eq!(of("another scope"), Err(Unfit::Scope));
    // What the settings do not ask for may be anything.
    let any = JwtConfig::default();
    for what in [
        "another issuer",
        "no issuer",
        "another audience",
        "no audience",
        "another scope",
    ] {
        let shown = check(made.claims[what].as_bytes(), &keys, &any, NOW_MS);
        assert!(shown.is_ok(), "{what}");
    }
    // Another claim may be the user's name.
    let by_issuer = JwtConfig {
        sub_claim: "iss".to_owned(),
        ..config()
    };
    let shown = check(made.tokens["RS256"].as_bytes(), &keys, &by_issuer, NOW_MS);
    assert_eq!(shown.map(|it| it.user).as_deref(), Ok("https://id.example"));
    // To the millisecond.
    let at = |now_ms| check(made.tokens["RS256"].as_bytes(), &keys, &config(), now_ms).is_ok();
    assert!(at(EXPIRES_MS + 29_999) && !at(EXPIRES_MS + 30_000));
}

#[test]
fn a_set_without_a_key_of_use_is_none() {
    let of = |text: &str| Keys::parse(text.as_bytes()).expect_err("it is none");
    assert!(matches!(of(""), InvalidSet::Json(_)));
    assert!(matches!(of("[]"), InvalidSet::Json(_)));
    assert_eq!(of(r#"{"keys":[]}"#), InvalidSet::Empty);
    let only_shared = json!({"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}).to_string();
    assert_eq!(of(&only_shared), InvalidSet::Empty);
    let many = json!({"keys": vec![made().jwks["keys"][0].clone(); 101]}).to_string();
    assert_eq!(of(&many), InvalidSet::TooMany);
    assert_eq!(of(&" ".repeat(SET_BYTES_MAX + 1)), InvalidSet::TooLong);
    // A key for another algorithm checks nothing else.
    let made = made();
    let mut set = made.jwks.clone();
    set["keys"][0]["alg"] = json!("RS512");
    let keys = Keys::parse(set.to_string().as_bytes()).expect("a set");
    let may = |name: &str| check(made.tokens[name].as_bytes(), &keys, &config(), NOW_MS).is_ok();
    assert!(may("RS512") && !may("RS256") && !may("PS512"));
}

fn write(path: &Path, keys: &Value) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, keys.to_string()).expect("it is written");
    std::fs::rename(beside, path).expect("it is renamed");
}

#[tokio::test(start_paused = true)]
async fn keys_of_a_file_are_renewed_and_bad_ones_leave_those_before() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("jwks.json");
    let made = made();
    let with_file = JwtConfig {
        jwks: Some(JwksSource::File(path.clone())),
        ..config()
    };
    assert!(Jwt::open(&with_file).is_err(), "there is no file");
    let of = |index: usize| json!({"keys": [made.jwks["keys"][index]]});
    write(&path, &of(0));
    let jwt = Jwt::open(&with_file).expect("a set");
    let may = |name: &str| jwt.check(made.tokens[name].as_bytes(), NOW_MS).is_ok();
    assert!(may("RS256") && !may("ES256"));
    let (stop, stopped) = watch::channel(false);
    let changed = async {
        write(&path, &of(1));
        until(|| may("ES256")).await;
        assert!(!may("RS256"), "its key is not in the set any more");
        write(&path, &json!({"keys": "none"}));
        tokio::time::sleep(crate::watched::LOOK * 2).await;
        assert!(may("ES256"));
        stop.send_replace(true);
    };
    tokio::join!(jwt.run(stopped), changed);
}

/// An address of keys, and where whoever asks it is heard.
async fn address_of_keys() -> (TcpListener, JwksSource) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let source = JwksSource::parse(&format!("http://127.0.0.1:{port}/keys"));
    (listener, source.expect("an address"))
}

/// Reads what is asked, and answers it.
async fn answer(mut stream: TcpStream, status: &str, body: &str) -> std::io::Result<()> {
    let mut asked = vec![0; 1024];
    let length = stream.read(&mut asked).await.expect("a request");
    assert!(asked[..length].starts_with(b"GET /keys HTTP/1.1\r\n"));
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes()).await
}

#[tokio::test]
async fn keys_of_an_address_come_after_it_failed_and_anew_for_an_unknown_one() {
    let made = made();
    let (listener, source) = address_of_keys().await;
    let jwt = Jwt::open(&JwtConfig {
        jwks: Some(source),
        retry: Duration::from_millis(10),
        ..config()
    });
    let jwt = jwt.expect("nobody is asked yet");
    let may = |name: &str| jwt.check(made.tokens[name].as_bytes(), NOW_MS).is_ok();
    let set = made.jwks.to_string();
    let long = " ".repeat(SET_BYTES_MAX + 1);
    let answers = [
        ("500 Internal Server Error", set.as_str()),
        ("302 Found", &set),
        ("200 OK", "{}"),
        ("200 OK", &long),
        ("200 OK", &set),
    ];
    let served = async {
        for (status, body) in answers {
            let (stream, _) = listener.accept().await.expect("it asks");
            assert!(!may("RS256"));
            // Whoever finds it too long hangs up.
            let answered = answer(stream, status, body).await;
            assert!(answered.is_ok() || body.len() > SET_BYTES_MAX);
        }
        until(|| may("RS256")).await;
    };
    let (stop, stopped) = watch::channel(false);
    let all = async {
        served.await;
        stop.send_replace(true);
    };
    tokio::join!(jwt.run(stopped), all);
}

#[tokio::test]
async fn an_unknown_key_has_the_source_asked_before_it_is_due() {
    let made = made();
    let (listener, source) = address_of_keys().await;
    let jwt = Jwt::open(&JwtConfig {
        jwks: Some(source),
        refresh: Duration::from_secs(1_000_000),
        ..config()
    });
    let mut jwt = jwt.expect("nobody is asked yet");
    assert_eq!(jwt.asked_again_min, Duration::from_secs(10));
    jwt.asked_again_min = Duration::from_millis(1);
    let jwt = &jwt;
    let may = |name: &str| jwt.check(made.tokens[name].as_bytes(), NOW_MS);
    let serve = async |set: Value| {
        let (stream, _) = listener.accept().await.expect("it asks");
        let answered = answer(stream, "200 OK", &set.to_string()).await;
        answered.expect("it listens");
    };
    let (stop, stopped) = watch::channel(false);
    let all = async {
        serve(json!({"keys": [made.jwks["keys"][0]]})).await;
        until(|| may("RS256").is_ok()).await;
        // A key that is known asks for nothing, whatever else is wrong.
        assert!(may("RS256").is_ok());
        assert_eq!(may("ES256"), Err(Unfit::UnknownKey));
        serve(made.jwks.clone()).await;
        until(|| may("ES256").is_ok()).await;
        stop.send_replace(true);
    };
    tokio::join!(jwt.run(stopped), all);
}

async fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
