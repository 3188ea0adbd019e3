//! Logins step by step, over a broker that knows one user.

use model::sasl::Client;
use zeroize::Zeroizing;

use super::*;
use crate::broker::credentials::FirstUser;
use crate::broker::scratch::Scratch;
use crate::front::listener::SecurityProtocol;

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
async fn passwords_are_said_on_this_machine_or_encrypted_only() {
    let broker = with_alice().await;
    let all = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
    for (address, is_encrypted, offered) in [
        (HERE, false, &all[..]),
        (ELSEWHERE, true, &all),
        (ELSEWHERE, false, &all[1..]),
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
