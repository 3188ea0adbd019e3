//! What the binary tells of itself: help, completions, manual pages, and its configuration.

use serde_json::json;

use crate::binary::{Running, Said, alluvium, serve, tool};
use crate::server::Server;

#[test]
fn help_names_every_command_and_shows_examples() {
    let help = tool(&["--help"]);
    let page = include_str!("../../docs/command-line.md");
    assert_eq!(help.code, Some(0));
    for command in [
        "serve",
        "topic",
        "broker",
        "produce",
        "consume",
        "replay",
        "export",
        "import",
        "group",
        "context",
        "log",
        "retention",
        "compact",
        "bench",
        "doctor",
        "demo",
        "config",
        "completions",
        "man",
    ] {
        let listed = |line: &str| line.trim_start().starts_with(&format!("{command} "));
        assert!(help.stdout.lines().any(listed), "{command}");
        assert!(page.contains(&format!("`{command}`")), "{command}");
        assert_eq!(tool(&[command, "--help"]).code, Some(0), "{command}");
    }
    for command in [
        &["serve"][..],
        &["topic", "create"],
        &["topic", "list"],
        &["topic", "describe"],
        &["topic", "alter"],
        &["topic", "add-partitions"],
        &["topic", "delete-records"],
        &["topic", "delete"],
        &["topic", "settings"],
        &["broker", "describe"],
        &["broker", "alter"],
        &["produce"],
        &["consume"],
        &["group"],
        &["context"],
        &["log"],
        &["retention"],
        &["retention", "plan"],
        &["retention", "explain"],
        &["retention", "run"],
        &["retention", "status"],
        &["retention", "cancel"],
        &["compact"],
        &["compact", "run"],
        &["bench"],
        &["doctor"],
        &["demo"],
        &["completions"],
        &["man"],
    ] {
        let help = tool(&[command, &["--help"]].concat()).stdout;
        assert!(help.contains("\nExamples:\n"), "{command:?}: {help}");
        let own = format!("alluvium {} ", command[0]);
        let examples = help.split("\nExamples:\n").nth(1).unwrap_or_default();
        assert!(examples.contains(&own), "{command:?}: {help}");
    }
}

#[test]
fn wrong_usage_has_its_exit_code() {
    for args in [
        &[][..],
        &["topics"],
        &["topic"],
        &["topic", "create"],
        &["produce", "a", "--acks", "2"],
        &["completions", "cmd"],
        &["man", "nothing"],
    ] {
        assert_eq!(tool(args).code, Some(2), "{args:?}");
    }
}

#[test]
fn completions_know_the_commands_and_options() {
    for shell in ["bash", "zsh", "fish"] {
        let said = tool(&["completions", shell]);
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        for word in ["delete-records", "if-not-exists", "brokers"] {
            assert!(said.stdout.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn there_is_a_manual_page_for_each_command() {
    let directory = tempfile::tempdir().expect("a directory");
    let pages = directory.path().join("man1");
    let path = pages.to_str().expect("UTF-8");
    let said = tool(&["man", "--dir", path]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    for name in ["alluvium", "alluvium-topic-create", "alluvium-serve"] {
        let page = std::fs::read_to_string(pages.join(format!("{name}.1"))).expect("a page");
        assert!(
            page.contains(".SH NAME") && page.contains("Examples:"),
            "{name}"
        );
    }
    let one = tool(&["man", "topic", "create"]);
    let stored = std::fs::read_to_string(pages.join("alluvium-topic-create.1"));
    assert_eq!(one.stdout, stored.expect("a page"));
}

#[test]
fn the_configuration_is_told_as_json() {
    assert_eq!(
        tool(&["config", "check", "--json"]).json(),
        json!({ "good": true, "warnings": [] })
    );
    let wrong = tool(&["config", "check", "-X", "num.partition=1", "--json"]);
    assert_eq!(wrong.code, Some(2));
    let told: serde_json::Value = serde_json::from_str(&wrong.stdout).expect("JSON");
    assert_eq!(told["good"], false);
    let error = told["error"].as_str().expect("words");
    assert!(error.contains("num.partitions"), "{error}");

    let shown = tool(&["config", "show", "-X", "node.id=7", "--json"]).json();
    let expected = json!({ "key": "node.id", "value": "7", "origin": "flag" });
    assert!(shown.as_array().expect("settings").contains(&expected));
    let reference = tool(&["config", "reference", "--json"]).json();
    let keys: Vec<_> = reference
        .as_array()
        .expect("settings")
        .iter()
        .map(|setting| setting["key"].clone())
        .collect();
    let shown_keys = shown.as_array().expect("settings").iter();
    for setting in shown_keys {
        assert!(keys.contains(&setting["key"]), "{}", setting["key"]);
    }
}

/// Runs a tool with this directory for its configuration.
fn with_config(directory: &std::path::Path, args: &[&str]) -> Said {
    let mut command = alluvium();
    command.args(args).env("XDG_CONFIG_HOME", directory);
    Said::of(command.output().expect("it runs"))
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_go_to_the_context_that_is_named_or_in_use() {
    let server = Server::start().await;
    let address = server.address.to_string();
    let run = move || {
        let directory = tempfile::tempdir().expect("a directory");
        let run = |args: &[&str]| with_config(directory.path(), args);
        for args in [
            &["context", "set", "plant", &address][..],
            &["context", "set", "nobody", "127.0.0.1:1"],
            &["context", "use", "nobody"],
            &["topic", "create", "sea", "--context", "plant"],
        ] {
            let said = run(args);
            assert_eq!(said.code, Some(0), "{args:?}: {}", said.stderr);
        }
        let code = |args: &[&str]| run(args).code;
        assert_eq!(code(&["topic", "describe", "sea"]), Some(4));
        assert_eq!(code(&["topic", "describe", "sea", "-b", &address]), Some(0));
        let used = run(&["context", "use", "plant", "--json"]).json();
        let expected =
            json!({ "context": "plant", "brokers": address, "http": null, "in_use": true });
        assert_eq!(used, expected);
        assert_eq!(code(&["topic", "describe", "sea"]), Some(0));
        assert_eq!(code(&["topic", "list", "--context", "ship"]), Some(3));
        assert_eq!(code(&["context", "use", "ship"]), Some(3));
        assert_eq!(code(&["context", "set", "ship", "no:where"]), Some(2));
        let both = ["topic", "list", "--context", "plant", "-b", &address];
        assert_eq!(code(&both), Some(2));
        assert_eq!(code(&["context", "remove", "nobody"]), Some(0));
        assert_eq!(
            run(&["context", "list", "--json"]).json(),
            json!([expected])
        );
    };
    tokio::task::spawn_blocking(run).await.expect("it ran");
}

#[test]
fn what_goes_over_http_finds_its_port_by_the_context_or_beside_the_broker() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    let running = Running::start(&mut serve(&data));
    let run = |args: &[&str]| with_config(directory.path(), args);
    let (kafka, http) = (running.kafka.as_str(), running.http.as_str());
    let set = run(&["context", "set", "plant", kafka, "--http", http, "--json"]).json();
    assert_eq!(set["http"], http);
    let status = |options: &[&str]| run(&[&["retention", "status"], options].concat());
    assert_eq!(status(&["--context", "plant"]).code, Some(0));
    assert_eq!(run(&["context", "use", "plant"]).code, Some(0));
    assert_eq!(status(&[]).code, Some(0));
    // A broker that is named is not the context's.
    let beside = status(&["-b", "127.0.0.3:1"]);
    assert_eq!(beside.code, Some(4));
    assert!(
        beside.stderr.contains("127.0.0.3:8080"),
        "{}",
        beside.stderr
    );
    assert_eq!(status(&["-b", "127.0.0.3:1", "--http", http]).code, Some(0));
    assert_eq!(status(&["--http", "no:where"]).code, Some(2));
    // Set anew without it, the context is port 8080 again.
    assert_eq!(
        run(&["context", "set", "plant", "127.0.0.3:1"]).code,
        Some(0)
    );
    let beside = status(&[]);
    assert!(
        beside.stderr.contains("127.0.0.3:8080"),
        "{}",
        beside.stderr
    );
    assert_eq!(beside.code, Some(4));
}
