//! Logins over the wire: what passes before them, how they fail, and what is kept of them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use model::sasl::{Client, Plain, ScramMechanism};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wire::messages::alter_user_scram_credentials::{
    AlterUserScramCredentialsRequest, ScramCredentialDeletion, ScramCredentialUpsertion,
};
use wire::messages::api_versions::ApiVersionsRequest;
use wire::messages::describe_user_scram_credentials::{
    DescribeUserScramCredentialsRequest, UserName,
};
use wire::messages::metadata::MetadataRequest;
use wire::messages::sasl_authenticate::{SaslAuthenticateRequest, SaslAuthenticateResponse};
use wire::messages::sasl_handshake::SaslHandshakeRequest;

use crate::binary::{Running, serve};
use crate::raw::Raw;

const NONE: i16 = 0;
const DUPLICATE_RESOURCE: i16 = 92;
const RESOURCE_NOT_FOUND: i16 = 91;
const UNACCEPTABLE_CREDENTIAL: i16 = 93;
const UNSUPPORTED_SASL_MECHANISM: i16 = 33;
const ILLEGAL_SASL_STATE: i16 = 34;
const SASL_AUTHENTICATION_FAILED: i16 = 58;
/// The one listener asks for a login.
const ASKING: &str = "listener.security.protocol.map=PLAINTEXT:SASL_PLAINTEXT";
const PASSWORD: &str = "correct horse battery";

/// A server that knows alice, and this directory of files.
fn serve_sasl(data: &Path, settings: &[&str]) -> Command {
    let users = data.join("users");
    std::fs::write(&users, format!("alice:{PASSWORD}\n")).expect("a file");
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&users, mode).expect("its owner's file");
    let mut command = serve(&data.join("store"));
    command.args(["-X", ASKING]);
    command.args([
        "-X",
        "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
    ]);
    command.args(["-X", &format!("sasl.users.file={}", users.display())]);
    for setting in settings {
        command.args(["-X", setting]);
    }
    command
}

async fn connect(running: &Running) -> Raw {
    Raw::connect(running.kafka.parse().expect("an address")).await
}

async fn choose(raw: &mut Raw, mechanism: &str) -> (i16, Vec<String>) {
    let mechanism = mechanism.to_owned();
    let answer = raw.call(1, &SaslHandshakeRequest { mechanism }).await;
    (answer.error_code, answer.mechanisms)
}

async fn say(raw: &mut Raw, message: &[u8]) -> SaslAuthenticateResponse {
    let auth_bytes = Bytes::copy_from_slice(message);
    raw.call(2, &SaslAuthenticateRequest { auth_bytes }).await
}

async fn scram(
    raw: &mut Raw,
    mechanism: ScramMechanism,
    user: &str,
    password: &str,
) -> SaslAuthenticateResponse {
    assert_eq!(choose(raw, mechanism.name()).await.0, NONE);
    let client = Client::new(mechanism, user, password.as_bytes(), "nonce");
    let first = say(raw, client.first().as_bytes()).await;
    assert_eq!(first.error_code, NONE, "an unknown user is not told yet");
    let (last, check) = client
        .finish(&first.auth_bytes)
        .expect("a server's message");
    let answer = say(raw, last.as_bytes()).await;
    if answer.error_code == NONE {
        check
            .check(&answer.auth_bytes)
            .expect("the server knows the password");
    }
    answer
}

async fn is_served(raw: &mut Raw) -> bool {
    let answer = raw.call(12, &MetadataRequest::default()).await;
    !answer.brokers.is_empty()
}

#[tokio::test]
async fn who_logs_in_is_served_and_nobody_else_is() {
    let data = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_sasl(data.path(), &[]));
    for mechanism in ScramMechanism::ALL {
        let mut raw = connect(&running).await;
        let versions = ApiVersionsRequest {
            client_software_name: "it".into(),
            client_software_version: "1".into(),
        };
        assert_eq!(raw.call(3, &versions).await.error_code, NONE);
        assert_eq!(
            scram(&mut raw, mechanism, "alice", PASSWORD)
                .await
                .error_code,
            NONE
        );
        assert!(is_served(&mut raw).await);
        assert_eq!(choose(&mut raw, "PLAIN").await.0, ILLEGAL_SASL_STATE);
        assert!(is_served(&mut raw).await);
    }
    let mut raw = connect(&running).await;
    assert_eq!(choose(&mut raw, "PLAIN").await.0, NONE);
    let answer = say(&mut raw, &Plain::message("alice", PASSWORD.as_bytes())).await;
    assert_eq!((answer.error_code, answer.session_lifetime_ms), (NONE, 0));
    assert!(is_served(&mut raw).await);
    let mut raw = connect(&running).await;
    raw.send(12, &MetadataRequest::default()).await;
    assert!(raw.is_closed().await, "it was not answered");
    let metrics = running.get("/metrics").1;
    for line in [
        "alluvium_logins_total{mechanism=\"PLAIN\",result=\"succeeded\"} 1",
        "alluvium_logins_total{mechanism=\"SCRAM-SHA-512\",result=\"succeeded\"} 1",
        "alluvium_logins_total{mechanism=\"SCRAM-SHA-256\",result=\"failed\"} 0",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
}

#[tokio::test]
async fn a_failed_login_says_nothing_of_what_was_wrong_and_ends_the_connection() {
    let data = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_sasl(data.path(), &[]));
    let mut said = Vec::new();
    for (user, password) in [("alice", "wrong"), ("nobody", PASSWORD)] {
        let mut raw = connect(&running).await;
        let answer = scram(&mut raw, ScramMechanism::Sha256, user, password).await;
        assert_eq!(answer.error_code, SASL_AUTHENTICATION_FAILED);
        assert!(raw.is_closed().await);
        let mut raw = connect(&running).await;
        choose(&mut raw, "PLAIN").await;
        let plain = say(&mut raw, &Plain::message(user, password.as_bytes())).await;
        assert_eq!(plain.error_code, SASL_AUTHENTICATION_FAILED);
        assert!(raw.is_closed().await);
        said.push((answer.error_message, plain.error_message));
    }
    assert_eq!(said[0], said[1]);
    let mut raw = connect(&running).await;
    let (code, offered) = choose(&mut raw, "GSSAPI").await;
    assert_eq!(code, UNSUPPORTED_SASL_MECHANISM);
    assert_eq!(offered, ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]);
    assert!(raw.is_closed().await);
    let mut raw = connect(&running).await;
    let early = say(&mut raw, b"\0alice\0x").await;
    assert_eq!(early.error_code, ILLEGAL_SASL_STATE);
    assert!(raw.is_closed().await);
}

#[tokio::test]
async fn users_outlive_the_server_and_no_password_is_in_its_files() {
    let data = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_sasl(data.path(), &[]));
    drop(running);
    let store = data.path().join("store");
    std::fs::write(data.path().join("users"), "alice:another\nbob:another\n").expect("a file");
    let mut command = serve(&store);
    command.args(["-X", ASKING, "-X", "sasl.enabled.mechanisms=SCRAM-SHA-256"]);
    let users = data.path().join("users");
    command.args(["-X", &format!("sasl.users.file={}", users.display())]);
    let running = Running::start(&mut command);
    for (user, password, is_right) in [
        ("alice", PASSWORD, true),
        ("alice", "another", false),
        ("bob", "another", true),
    ] {
        let mut raw = connect(&running).await;
        let answer = scram(&mut raw, ScramMechanism::Sha256, user, password).await;
        assert_eq!(answer.error_code == NONE, is_right, "{user} {password}");
    }
    drop(running);
    let found = crate::key_search::find(&store, PASSWORD.as_bytes());
    assert_eq!(found, Vec::<String>::new());
}

#[tokio::test]
async fn messages_without_a_header_follow_version_0_and_requests_before_the_login_are_short() {
    let data = tempfile::tempdir().expect("a directory");
    let short = "sasl.server.max.receive.size=1024";
    let running = Running::start(&mut serve_sasl(data.path(), &[short]));
    let mut raw = connect(&running).await;
    let mechanism = "PLAIN".to_owned();
    let chosen = raw.call(0, &SaslHandshakeRequest { mechanism }).await;
    assert_eq!(chosen.error_code, NONE);
    let message = Plain::message("alice", PASSWORD.as_bytes());
    assert_eq!(raw.exchange_bare(&message).await, b"");
    assert!(is_served(&mut raw).await);
    let mut stream = TcpStream::connect(&running.kafka)
        .await
        .expect("it listens");
    stream
        .write_all(&1025_u32.to_be_bytes())
        .await
        .expect("it reads");
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert_eq!(rest, b"", "closed before the frame has come");
}

#[tokio::test]
async fn a_file_of_users_that_others_can_read_is_refused() {
    let data = tempfile::tempdir().expect("a directory");
    let mut command = serve_sasl(data.path(), &[]);
    let mode = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(data.path().join("users"), mode).expect("a file");
    let ended = command.output().expect("it runs");
    assert_eq!(ended.status.code(), Some(1));
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("chmod 600"), "{said}");
}

/// What Kafka's tools send to set a password: salted by them.
fn upsertion(user: &str, mechanism: ScramMechanism, iterations: i32) -> ScramCredentialUpsertion {
    let salt = b"a salt of the tool";
    let rounds = u32::try_from(iterations).expect("a count");
    let salted = mechanism.salted(PASSWORD.as_bytes(), salt, rounds);
    ScramCredentialUpsertion {
        name: user.to_owned(),
        mechanism: mechanism.code(),
        iterations,
        salt: Bytes::from_static(salt),
        salted_password: Bytes::copy_from_slice(&salted),
    }
}

async fn alter(
    raw: &mut Raw,
    deletions: &[(&str, ScramMechanism)],
    upsertions: Vec<ScramCredentialUpsertion>,
) -> Vec<(String, i16)> {
    let deletion = |(name, mechanism): &(&str, ScramMechanism)| ScramCredentialDeletion {
        name: (*name).to_owned(),
        mechanism: mechanism.code(),
    };
    let request = AlterUserScramCredentialsRequest {
        deletions: deletions.iter().map(deletion).collect(),
        upsertions,
    };
    let answer = raw.call(0, &request).await;
    let results = answer.results.into_iter();
    results.map(|it| (it.user, it.error_code)).collect()
}

#[tokio::test]
async fn an_administrator_sets_and_removes_credentials_and_they_hold_at_once() {
    const SHA256: ScramMechanism = ScramMechanism::Sha256;
    const SHA512: ScramMechanism = ScramMechanism::Sha512;
    let data = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_sasl(data.path(), &[]));
    let mut admin = connect(&running).await;
    assert_eq!(
        scram(&mut admin, SHA256, "alice", PASSWORD)
            .await
            .error_code,
        NONE
    );
    let one = |user: &str, code| vec![(user.to_owned(), code)];
    let set = vec![upsertion("bob", SHA512, 8192)];
    assert_eq!(alter(&mut admin, &[], set).await, one("bob", NONE));
    let mut raw = connect(&running).await;
    assert_eq!(
        scram(&mut raw, SHA512, "bob", PASSWORD).await.error_code,
        NONE
    );
    for (upsertions, code) in [
        (
            vec![upsertion("bob", SHA256, 4095)],
            UNACCEPTABLE_CREDENTIAL,
        ),
        (
            vec![upsertion("bob", SHA256, 16_385)],
            UNACCEPTABLE_CREDENTIAL,
        ),
        (
            vec![
                upsertion("bob", SHA256, 4096),
                upsertion("bob", SHA256, 4096),
            ],
            DUPLICATE_RESOURCE,
        ),
    ] {
        assert_eq!(alter(&mut admin, &[], upsertions).await, one("bob", code));
    }
    let unnamed = vec![upsertion("", SHA256, 4096)];
    assert_eq!(
        alter(&mut admin, &[], unnamed).await,
        one("", UNACCEPTABLE_CREDENTIAL)
    );
    let mut unknown = upsertion("bob", SHA256, 4096);
    unknown.mechanism = 3;
    let answer = alter(&mut admin, &[], vec![unknown]).await;
    assert_eq!(answer, one("bob", UNSUPPORTED_SASL_MECHANISM));
    let missing = alter(&mut admin, &[("bob", SHA256)], Vec::new()).await;
    assert_eq!(missing, one("bob", RESOURCE_NOT_FOUND));
    let all = admin
        .call(0, &DescribeUserScramCredentialsRequest::default())
        .await;
    let described = all.results.iter().map(|it| {
        let infos = it.credential_infos.iter();
        let infos: Vec<_> = infos.map(|it| (it.mechanism, it.iterations)).collect();
        (it.user.as_str(), infos)
    });
    let described: Vec<_> = described.collect();
    let expected = [
        ("alice", vec![(1, 4096), (2, 4096)]),
        ("bob", vec![(2, 8192)]),
    ];
    assert_eq!(described, expected);
    let named = |names: &[&str]| DescribeUserScramCredentialsRequest {
        users: Some(
            names
                .iter()
                .map(|it| UserName {
                    name: (*it).to_owned(),
                })
                .collect(),
        ),
    };
    let some = admin
        .call(0, &named(&["bob", "carol", "alice", "alice"]))
        .await;
    let codes: Vec<_> = some
        .results
        .iter()
        .map(|it| (it.user.as_str(), it.error_code))
        .collect();
    assert_eq!(
        codes,
        [
            ("alice", DUPLICATE_RESOURCE),
            ("bob", NONE),
            ("carol", RESOURCE_NOT_FOUND)
        ]
    );
    let removed = alter(&mut admin, &[("bob", SHA512)], Vec::new()).await;
    assert_eq!(removed, one("bob", NONE));
    let mut raw = connect(&running).await;
    let refused = scram(&mut raw, SHA512, "bob", PASSWORD).await;
    assert_eq!(refused.error_code, SASL_AUTHENTICATION_FAILED);
}
