//! `alluvium access init`: what it makes is what a server and its first administrator need, and nothing more is to be done.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::binary::{Running, Said, alluvium};

fn run(command: &mut Command) -> Said {
    Said::of(command.output().expect("it runs"))
}

fn init(directory: &Path, arguments: &[&str]) -> Said {
    let mut command = alluvium();
    run(command
        .args(["access", "init", "--json"])
        .arg(directory)
        .args(arguments))
}

/// `alluvium topic`, by who shows this certificate.
fn topic(server: &Running, access: &Path, keystore: Option<&str>, arguments: &[&str]) -> Said {
    let mut command = alluvium();
    command.args(["topic", "-b", &server.kafka]);
    let mut set = |key: &str, value: String| {
        command.args(["-X", &format!("{key}={value}")]);
    };
    set("security.protocol", "SSL".to_owned());
    let path = |name: &str| access.join(name).display().to_string();
    set("ssl.truststore.location", path("ca.pem"));
    if let Some(keystore) = keystore {
        set("ssl.keystore.location", path(keystore));
    }
    run(command.args(arguments))
}

#[test]
fn what_it_makes_starts_a_server_that_its_administrator_alone_may_use() {
    let directory = tempfile::tempdir().expect("a directory");
    let access = directory.path().join("access");
    let made = init(&access, &["--host", "store.example"]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let told: serde_json::Value = serde_json::from_str(&made.stdout).expect("JSON");
    assert_eq!(told["listeners"], "SSL://0.0.0.0:9092");
    assert_eq!(told["super_user"], "User:admin");
    for (name, mode) in [
        ("", 0o700),
        ("ca.pem", 0o644),
        ("ca.key", 0o600),
        ("server.pem", 0o600),
        ("admin.pem", 0o600),
        ("server.toml", 0o644),
    ] {
        let found = access.join(name).metadata().expect("it is there");
        assert_eq!(found.permissions().mode() & 0o777, mode, "{name}");
    }
    let again = init(&access, &[]);
    assert_eq!(again.code, Some(2), "{}", again.stdout);
    assert!(again.stderr.contains("not empty"), "{}", again.stderr);

    // Its settings are what a server takes, but for ports that may be taken.
    let checked = run(alluvium()
        .args(["config", "check", "--config"])
        .arg(access.join("server.toml")));
    assert_eq!(
        checked.code,
        Some(0),
        "{}{}",
        checked.stdout,
        checked.stderr
    );
    assert!(!checked.stdout.contains("warning"), "{}", checked.stdout);
    let mut serve = alluvium();
    serve
        .args(["serve", "--config"])
        .arg(access.join("server.toml"))
        .args([
            "-X",
            "listeners=SSL://127.0.0.1:0",
            "-X",
            "advertised.listeners=",
        ])
        .args(["-X", "wal.file.bytes=4194304", "-X", "wal.files.min=2"])
        .args(["--http", "https://127.0.0.1:0", "--data"])
        .arg(directory.path().join("data"));
    let server = Running::start(&mut serve);
    let created = topic(&server, &access, Some("admin.pem"), &["create", "readings"]);
    assert_eq!(created.code, Some(0), "{}", created.stderr);
    let by_nobody = topic(&server, &access, None, &["list"]);
    assert_eq!(by_nobody.code, Some(0), "{}", by_nobody.stderr);
    assert!(
        !by_nobody.stdout.contains("readings"),
        "{}",
        by_nobody.stdout
    );
    let denied = topic(&server, &access, None, &["create", "other"]);
    assert_eq!(denied.code, Some(1), "{}", denied.stdout);
    let listed = topic(&server, &access, Some("admin.pem"), &["list"]);
    assert!(listed.stdout.contains("readings"), "{}", listed.stdout);
    assert!(!listed.stdout.contains("other"), "{}", listed.stdout);
}
