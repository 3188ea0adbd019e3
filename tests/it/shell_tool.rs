//! What the binary tells of itself: help, completions, manual pages, and its configuration.

use serde_json::json;

use crate::binary::tool;

#[test]
fn help_names_every_command_and_shows_examples() {
    let help = tool(&["--help"]);
    let page = include_str!("../../docs/command-line.md");
    assert_eq!(help.code, Some(0));
    for command in [
        "serve",
        "topic",
        "produce",
        "consume",
        "group",
        "log",
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
        &["produce"],
        &["consume"],
        &["group"],
        &["log"],
        &["bench"],
        &["doctor"],
        &["demo"],
        &["completions"],
        &["man"],
    ] {
        let help = tool(&[command, &["--help"]].concat()).stdout;
        assert!(help.contains("\nExamples:\n"), "{command:?}: {help}");
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
        json!({ "good": true })
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
