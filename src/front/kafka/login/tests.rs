//! Logins step by step, over a broker that knows one user.

use model::sasl::Client;
use zeroize::Zeroizing;

use super::*;
use crate::broker::access::{Protocol, right};
use crate::broker::credentials::FirstUser;
use crate::broker::credentials::jwt::signer::Signer;
use crate::broker::scratch::Scratch;
use crate::front::listener::SecurityProtocol;
use crate::metrics::{Families, Family, Value};

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

async fn with_alice() -> Scratch {
    let broker = Scratch::new();
    let alice = FirstUser {
        name: "alice".to_owned(),
        password: Zeroizing::new(b"secret".to_vec()),
    };
    broker.add_first_users(vec![alice]).await.unwrap();
    broker
}

fn settings(session_ms: u64) -> SaslSettings {
    SaslSettings {
        mechanisms: SaslMechanism::ALL.to_vec(),
        failed_delay: Duration::ZERO,
        session_max: Some(Duration::from_millis(session_ms)).filter(|it| !it.is_zero()),
        ..SaslSettings::default()
    }
}

/// A connection by a listener of this protocol.
fn by(protocol: SecurityProtocol) -> Transport {
    let mut transport = Transport::plain();
    let mut endpoint = (*transport.listener).clone();
    endpoint.protocol = protocol;
    transport.listener = Arc::new(endpoint);
    transport
}

/// By one that asks for a login.
fn asking() -> Transport {
    by(SecurityProtocol::SaslPlaintext)
}

async fn scram(
    login: &Login,
    broker: &Broker,
    mechanism: ScramMechanism,
    user: &str,
    password: &[u8],
) -> Result<Answered, Refused> {
    login.choose(mechanism.name(), 1).await?;
    let client = Client::new(mechanism, user, password, "nonce");
    let first = login.take(broker, client.first().as_bytes()).await?;
    let (last, check) = client.finish(&first.token).unwrap();
    let answered = login.take(broker, last.as_bytes()).await?;
    check.check(&answered.token).unwrap();
    Ok(answered)
}

#[tokio::test]
async fn who_logs_in_is_known_and_may_ask_for_anything() {
    let broker = with_alice().await;
    for mechanism in ScramMechanism::ALL {
        let login = Login::new(&settings(0), HERE, asking());
        assert!(login.admits(Some(ApiKey::ApiVersions)).is_ok());
        assert!(login.admits(Some(ApiKey::Metadata)).is_err());
        assert!(login.admits(None).is_err());
        assert_eq!(login.request_bytes_max(), Some(64 * 1024));
        let done = scram(&login, &broker, mechanism, "alice", b"secret").await;
        assert_eq!(done.unwrap().session, None);
        assert!(login.admits(Some(ApiKey::Metadata)).is_ok());
        assert_eq!(login.request_bytes_max(), None);
        assert_eq!(login.principal().to_string(), "User:alice");
        // Logging in once more is not foreseen, and does no harm.
        let again = login.choose("PLAIN", 1).await;
        assert!(matches!(again, Err(Refused::State(_))));
        let stray = login.take(&broker, b"").await;
        assert!(matches!(stray, Err(Refused::State(_))));
        assert!(!login.has_failed());
    }
}

#[tokio::test]
async fn a_login_is_asked_for_where_the_listener_says_so_only() {
    for (protocol, is_asked) in [
        (SecurityProtocol::Plaintext, false),
        (SecurityProtocol::Ssl, false),
        (SecurityProtocol::SaslPlaintext, true),
        (SecurityProtocol::SaslSsl, true),
    ] {
        let login = Login::new(&settings(0), HERE, by(protocol));
        assert_eq!(login.admits(Some(ApiKey::Metadata)).is_err(), is_asked);
        let chosen = login.choose("SCRAM-SHA-256", 1).await;
        assert_eq!(chosen.is_ok(), is_asked, "{protocol}");
        assert!(!login.has_failed());
    }
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_user_look_the_same_until_the_end() {
    let broker = with_alice().await;
    let mechanism = ScramMechanism::Sha256;
    let mut words = Vec::new();
    for (user, password) in [("alice", "secrets"), ("bob", "secret")] {
        let login = Login::new(&settings(0), HERE, asking());
        let refused = scram(&login, &broker, mechanism, user, password.as_bytes()).await;
        words.push(refused.unwrap_err());
        assert!(login.has_failed());
        assert!(login.admits(Some(ApiKey::Metadata)).is_err());
        let login = Login::new(&settings(0), HERE, asking());
        login.choose("PLAIN", 1).await.unwrap();
        let message = Plain::message(user, password.as_bytes());
        words.push(login.take(&broker, &message).await.unwrap_err());
    }
    assert_eq!(words[0], words[2]);
    assert_eq!(words[1], words[3]);
    assert!(words.iter().all(|it| matches!(it, Refused::Failed(_))));
}

#[tokio::test]
async fn nobody_is_let_in_as_somebody_else_or_by_a_token() {
    let broker = with_alice().await;
    let login = Login::new(&settings(0), HERE, asking());
    login.choose("PLAIN", 1).await.unwrap();
    let refused = login.take(&broker, b"bob\0alice\0secret").await;
    assert!(matches!(refused, Err(Refused::Failed(_))));
    let login = Login::new(&settings(0), HERE, asking());
    login.choose("PLAIN", 1).await.unwrap();
    assert!(login.take(&broker, b"alice\0alice\0secret").await.is_ok());
    let mechanism = ScramMechanism::Sha256;
    for extra in [",tokenauth=true", ",x=1"] {
        let login = Login::new(&settings(0), HERE, asking());
        login.choose(mechanism.name(), 1).await.unwrap();
        let nonce = format!("nonce{extra}");
        let client = Client::new(mechanism, "alice", b"secret", &nonce);
        // The client takes the extension for a part of its nonce, and would not go on.
        let answered = login
            .take(&broker, client.first().as_bytes())
            .await
            .unwrap();
        let text = String::from_utf8(answered.token.to_vec()).unwrap();
        assert!(text.starts_with("r=nonce"));
    }
}

#[tokio::test]
async fn passwords_and_tokens_are_said_on_this_machine_or_encrypted_only() {
    let broker = with_alice().await;
    let all = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"];
    for (address, is_encrypted, offered) in [
        (HERE, false, &all[..]),
        (ELSEWHERE, true, &all),
        (ELSEWHERE, false, &all[1..3]),
    ] {
        let protocol = match is_encrypted {
            true => SecurityProtocol::SaslSsl,
            false => SecurityProtocol::SaslPlaintext,
        };
        let login = Login::new(&settings(0), address, by(protocol));
        assert_eq!(login.mechanisms(), offered);
        let chosen = login.choose("PLAIN", 1).await;
        assert_eq!(chosen.is_ok(), offered.contains(&"PLAIN"));
        assert_eq!(login.has_failed(), chosen.is_err());
    }
    let login = Login::new(&settings(0), HERE, asking());
    let refused = login.choose("GSSAPI", 1).await;
    assert_eq!(refused, Err(Refused::Mechanism("GSSAPI".to_owned())));
    let login = Login::new(&settings(0), HERE, asking());
    let early = login.take(&broker, b"\0alice\0secret").await;
    assert!(matches!(early, Err(Refused::State(_))));
    assert!(login.has_failed());
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_unless_the_same_user_logs_in_anew() {
    let broker = with_alice().await;
    let mechanism = ScramMechanism::Sha512;
    let login = Login::new(&settings(5_000), HERE, asking());
    let done = scram(&login, &broker, mechanism, "alice", b"secret").await;
    assert_eq!(done.unwrap().session, Some(Duration::from_secs(5)));
    let early = login.choose(mechanism.name(), 1).await;
    assert!(matches!(early, Err(Refused::State(_))));
    tokio::time::advance(Duration::from_millis(4_900)).await;
    assert!(login.admits(Some(ApiKey::Fetch)).is_ok());
    let done = scram(&login, &broker, mechanism, "alice", b"secret").await;
    assert!(done.is_ok());
    tokio::time::advance(Duration::from_millis(4_900)).await;
    assert!(login.admits(Some(ApiKey::Fetch)).is_ok());
    tokio::time::advance(Duration::from_millis(200)).await;
    assert!(login.admits(Some(ApiKey::Fetch)).is_err());
    assert!(login.admits(Some(ApiKey::SaslHandshake)).is_ok());
    let other = scram(&login, &broker, ScramMechanism::Sha256, "alice", b"secret").await;
    assert!(matches!(other, Err(Refused::Failed(_))));
    assert!(login.has_failed());
}

async fn bear(login: &Login, broker: &Broker, token: &str) -> Result<Answered, Refused> {
    login.choose("OAUTHBEARER", 1).await?;
    login.take(broker, &Bearer::message(token.as_bytes())).await
}

#[tokio::test(start_paused = true)]
async fn a_token_holds_until_it_ends_and_the_same_user_shows_another() {
    let signer = Signer::new();
    let broker = signer.broker();
    for (session_ms, most) in [(0, 60), (5_000, 5)] {
        let login = Login::new(&settings(session_ms), HERE, asking());
        let done = bear(&login, &broker, &signer.token("press4", 60))
            .await
            .unwrap();
        assert!(done.token.is_empty());
        let session = done.session.unwrap();
        assert!(
            (most - 2..=most).contains(&session.as_secs()),
            "{session:?}"
        );
        assert_eq!(login.principal().to_string(), "User:press4");
        assert!(login.admits(Some(ApiKey::Fetch)).is_ok());
        tokio::time::advance(Duration::from_secs(4)).await;
        let done = bear(&login, &broker, &signer.token("press4", 60)).await;
        assert!(done.is_ok(), "it is renewed: {done:?}");
        tokio::time::advance(Duration::from_secs(most)).await;
        assert!(login.admits(Some(ApiKey::Fetch)).is_err());
        let other = bear(&login, &broker, &signer.token("press5", 60)).await;
        let words = "Cannot change principals or mechanisms during re-authentication";
        assert_eq!(other, Err(Refused::Failed(words.to_owned())));
        assert!(login.has_failed());
    }
}

#[tokio::test]
async fn a_token_that_is_no_good_is_refused_as_the_rfc_and_kafka_have_it() {
    let signer = Signer::new();
    let broker = signer.broker();
    let forged = Signer::new().token("press4", 60);
    for token in ["a.b.c", &signer.token("press4", -60), &forged] {
        let login = Login::new(&settings(0), HERE, asking());
        let answered = bear(&login, &broker, token).await.unwrap();
        assert_eq!(answered.token, &b"{\"status\":\"invalid_token\"}"[..]);
        assert!(login.admits(Some(ApiKey::Fetch)).is_err());
        assert!(!login.has_failed(), "the client answers first");
        // What it says then does not matter.
        let said = match token {
            "a.b.c" => b"\x01".to_vec(),
            _ => Bearer::message(signer.token("press4", 60).as_bytes()).to_vec(),
        };
        let refused = login.take(&broker, &said).await;
        let words = "{\"status\":\"invalid_token\"}";
        assert_eq!(refused, Err(Refused::Failed(words.to_owned())));
        assert!(login.has_failed());
        assert!(login.admits(Some(ApiKey::Fetch)).is_err());
    }
    let login = Login::new(&settings(0), HERE, asking());
    login.choose("OAUTHBEARER", 1).await.unwrap();
    let refused = login.take(&broker, b"\x01").await;
    let words = "Authentication failed during authentication due to invalid credentials with SASL mechanism OAUTHBEARER";
    assert_eq!(refused, Err(Refused::Failed(words.to_owned())));
    // Nobody is let in as somebody else.
    let login = Login::new(&settings(0), HERE, asking());
    login.choose("OAUTHBEARER", 1).await.unwrap();
    let token = signer.token("press4", 60);
    let message = format!("n,a=admin,\x01auth=Bearer {token}\x01\x01");
    let refused = login.take(&broker, message.as_bytes()).await;
    let words = "Authentication failed: Client requested an authorization id (admin) that is different from the token's \
                 principal name (press4)";
    assert_eq!(refused, Err(Refused::Failed(words.to_owned())));
    assert!(login.has_failed());
}

/// How many logins of this kind succeeded and failed.
fn logins(broker: &Broker, mechanism: &str) -> (u64, u64) {
    let mut found = Vec::new();
    let mut take = |family: &Family| {
        if family.name == "alluvium_logins_total" {
            found.extend(family.samples.clone());
        }
    };
    let cluster = broker.own_door(Protocol::Kafka).cluster(right::Describe);
    let mut families = Families::new(10_000, &mut take);
    broker.add_metrics(&cluster.expect("a right"), &mut families, None);
    let value = |result: &str| {
        let labels = [mechanism.to_owned(), result.to_owned()];
        let sample = found.iter().find(|sample| sample.labels == labels);
        match sample.expect("each kind has one").value {
            Value::Whole(value) => value,
            ref other => panic!("{other:?}"),
        }
    };
    (value("succeeded"), value("failed"))
}

#[tokio::test(start_paused = true)]
async fn a_login_that_is_refused_after_all_does_not_stand_as_one_that_succeeded() {
    let signer = Signer::new();
    let broker = signer.broker();
    let login = Login::new(&settings(5_000), HERE, asking());
    let done = bear(&login, &broker, &signer.token("press4", 60)).await;
    assert!(done.is_ok());
    assert_eq!(logins(&broker, "OAUTHBEARER"), (1, 0));
    tokio::time::advance(Duration::from_secs(4)).await;
    let other = bear(&login, &broker, &signer.token("press5", 60)).await;
    assert!(matches!(other, Err(Refused::Failed(_))));
    assert_eq!(logins(&broker, "OAUTHBEARER"), (1, 1));
    let login = Login::new(&settings(0), HERE, asking());
    login.choose("OAUTHBEARER", 1).await.unwrap();
    let token = signer.token("press4", 60);
    let message = format!("n,a=admin,\x01auth=Bearer {token}\x01\x01");
    assert!(login.take(&broker, message.as_bytes()).await.is_err());
    assert_eq!(logins(&broker, "OAUTHBEARER"), (1, 2));
    // Nor do messages in which nobody is named go uncounted.
    for (mechanism, message) in [("PLAIN", "x"), ("SCRAM-SHA-256", "x"), ("OAUTHBEARER", "x")] {
        let (succeeded, failed) = logins(&broker, mechanism);
        let login = Login::new(&settings(0), HERE, asking());
        login.choose(mechanism, 1).await.unwrap();
        assert!(login.take(&broker, message.as_bytes()).await.is_err());
        assert_eq!(
            logins(&broker, mechanism),
            (succeeded, failed + 1),
            "{mechanism}"
        );
    }
}

#[tokio::test]
async fn tokens_that_are_no_good_count_against_their_address_and_good_ones_do_not() {
    let signer = Signer::new();
    let broker = signer.broker();
    for _ in 0..150 {
        let login = Login::new(&settings(0), HERE, asking());
        assert!(
            bear(&login, &broker, &signer.token("press4", 60))
                .await
                .is_ok()
        );
    }
    assert!(broker.attempt_login(LoginKind::Plain, None, HERE).is_ok());
    for _ in 0..100 {
        let login = Login::new(&settings(0), HERE, asking());
        assert!(bear(&login, &broker, "a.b.c").await.is_ok());
    }
    assert!(broker.attempt_login(LoginKind::Plain, None, HERE).is_err());
}
