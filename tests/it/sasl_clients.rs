//! Our own clients where a login is asked for: the library and the commands, over SASL_SSL and to this machine.

use std::process::Command;
use std::time::Duration;

use client::{Client, ClientConfig, ErrorCode, Sasl};
use model::sasl::{SaslMechanism, ScramMechanism};
use wire::messages::metadata::MetadataRequest;

use crate::binary::{Running, Said, alluvium};
use crate::tls::{Authority, Place};

const PASSWORD: &str = "correct horse battery";
const BOTH: &str = "SASL_SSL://127.0.0.1:0,SASL_PLAINTEXT://127.0.0.1:0";

/// A server that knows alice, and asks who comes.
fn start(place: &Place, settings: &[&str]) -> Running {
    let authority = Authority::new("authority");
    place.put("server.pem", &authority.server().both(), 0o600);
    place.put("ca.pem", &authority.certificate, 0o644);
    let users = place.put("users", &format!("alice:{PASSWORD}\n"), 0o600);
    let users = format!("sasl.users.file={}", users.display());
    let mechanisms = "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512";
    let all = [&[mechanisms, &users], settings].concat();
    Running::start(&mut place.serve(BOTH, &all))
}

fn config(place: &Place, address: &str, is_encrypted: bool, sasl: Option<Sasl>) -> ClientConfig {
    let mut config = ClientConfig::new(address);
    config.tls = is_encrypted.then(|| place.tls("ca.pem", None));
    config.sasl = sasl;
    config.retry_timeout = Duration::from_secs(20);
    config
}

fn sasl(mechanism: SaslMechanism, user: &str, password: &str) -> Option<Sasl> {
    let password = password.as_bytes().to_vec().into();
    Some(Sasl::new(mechanism, user, password))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_library_logs_in_by_each_mechanism_and_says_why_it_cannot() {
    let place = Place::new();
    let running = start(&place, &[]);
    let plain = running.other("SASL_PLAINTEXT").to_owned();
    let by_password = |mechanism: &SaslMechanism| *mechanism != SaslMechanism::OauthBearer;
    for mechanism in SaslMechanism::ALL.into_iter().filter(by_password) {
        for (address, is_encrypted) in [(&running.kafka, true), (&plain, false)] {
            let login = sasl(mechanism, "alice", PASSWORD);
            let config = config(&place, address, is_encrypted, login);
            let client = Client::connect(config).await.expect("a login");
            let known = client.refresh(None).await.expect("it is served");
            assert_eq!(known.brokers.len(), 1);
        }
        let wrong = sasl(mechanism, "alice", "wrong");
        let refused = Client::connect(config(&place, &plain, false, wrong)).await;
        let error = refused.expect_err("a wrong password");
        let code = Some(ErrorCode::SaslAuthenticationFailed);
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains("alice"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_goes_on_where_logins_end() {
    let place = Place::new();
    let running = start(&place, &["connections.max.reauth.ms=1500"]);
    let mechanism = SaslMechanism::Scram(ScramMechanism::Sha512);
    let login = sasl(mechanism, "alice", PASSWORD);
    let client = Client::connect(config(&place, &running.kafka, true, login));
    let client = client.await.expect("a login");
    // Until another connection has taken the first one's place, and one that one's.
    for _ in 0..2 {
        let before = client.any().await.expect("a connection");
        for _ in 0..6_000 {
            // A machine that is busy may let a login end in between.
            let _ = client.refresh(None).await;
            if before.is_closed() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(before.is_closed());
    }
    let request = MetadataRequest::default();
    let served = client.call_any(&request, 12).await.expect("it is served");
    assert_eq!(served.brokers.len(), 1);
}

fn run(place: &Place, args: &[&str], password: Option<&str>) -> Said {
    let mut command: Command = alluvium();
    command
        .args(args)
        .env("XDG_CONFIG_HOME", place.path("config"));
    if let Some(password) = password {
        command.env("ALLUVIUM_PASSWORD", password);
    }
    Said::of(command.output().expect("it runs"))
}

#[test]
fn commands_log_in_by_a_file_the_environment_or_a_context() {
    let place = Place::new();
    let running = start(&place, &[]);
    let (kafka, http) = (running.kafka.clone(), running.http.clone());
    let file = place.put("password", &format!("{PASSWORD}\n"), 0o600);
    let location = format!("sasl.password.location={}", file.display());
    let truststore = format!("ssl.truststore.location={}", place.path("ca.pem").display());
    let login = [
        "-X",
        "security.protocol=SASL_SSL",
        "-X",
        &truststore,
        "-X",
        "sasl.username=alice",
    ];
    let list = [&["topic", "list", "--json", "-b", &kafka], &login[..]].concat();
    let by_file = run(&place, &[&list[..], &["-X", &location]].concat(), None);
    assert_eq!(by_file.json(), serde_json::json!([]), "{}", by_file.stderr);
    let plain = [&list[..], &["-X", "sasl.mechanism=PLAIN"]].concat();
    let by_variable = run(&place, &plain, Some(PASSWORD));
    assert_eq!(by_variable.code, Some(0), "{}", by_variable.stderr);
    let wrong = run(&place, &list, Some("wrong"));
    assert_eq!(wrong.code, Some(1), "{}", wrong.stderr);
    let nothing = run(&place, &list, None);
    assert_eq!(nothing.code, Some(2), "{}", nothing.stderr);
    assert!(
        nothing.stderr.contains("ALLUVIUM_PASSWORD"),
        "{}",
        nothing.stderr
    );

    // The context knows all of it but the password itself.
    let set = ["context", "set", "plant", &kafka, "--http", &http];
    let kept = [&set[..], &login, &["-X", "sasl.password=x"]].concat();
    assert_eq!(run(&place, &kept, None).code, Some(2));
    let kept = [&set[..], &login, &["-X", &location]].concat();
    assert_eq!(run(&place, &kept, None).code, Some(0));
    let named = ["topic", "create", "readings", "--context", "plant"];
    let created = run(&place, &named, None);
    assert_eq!(created.code, Some(0), "{}", created.stderr);
    assert_eq!(
        run(&place, &["context", "use", "plant"], None).code,
        Some(0)
    );
    let listed = run(&place, &["hold", "list", "--json"], None);
    assert_eq!(listed.json(), serde_json::json!([]), "{}", listed.stderr);
    let metrics = running.get("/metrics").1;
    let by_basic = "alluvium_logins_total{mechanism=\"Basic\",result=\"succeeded\"} 1";
    assert!(metrics.contains(by_basic), "HTTP shows the same user");
}
