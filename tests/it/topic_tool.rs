//! `alluvium topic`, against a broker.

use serde_json::{Value, json};

use crate::binary::{Said, on_broker, tool};
use crate::server::Server;

/// Runs `alluvium topic` on this broker.
async fn topic(server: &Server, args: &[&str]) -> Said {
    on_broker(server, &[&["topic"], args].concat(), "").await
}

/// Records with the numbers from 1 on, in one partition.
async fn fill(server: &Server, name: &str, partition: &str, count: usize) {
    let lines: String = (1..=count).map(|number| format!("{number}\n")).collect();
    let said = on_broker(server, &["produce", name, "-p", partition], &lines).await;
    assert_eq!(said.code, Some(0), "{}", said.stderr);
}

async fn starts(server: &Server, name: &str) -> Vec<u64> {
    let described = topic(server, &["describe", name, "--json"]).await.json();
    let partitions = described[0]["partitions"].as_array().expect("partitions");
    let start = |partition: &Value| partition["start_offset"].as_u64().expect("an offset");
    partitions.iter().map(start).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_created_listed_described_and_deleted() {
    let server = Server::start().await;
    let created = ["create", "sea", "-p", "2", "-c", "retention.ms=3600000"];
    let said = topic(&server, &created).await;
    assert_eq!(
        (said.code, said.stdout.as_str()),
        (Some(0), "created sea with 2 partitions\n"),
        "{}",
        said.stderr
    );
    fill(&server, "sea", "1", 3).await;

    let listed = topic(&server, &["list", "--long", "--json"]).await.json();
    let expected = json!({ "topic": "sea", "partitions": 2, "internal": false, "records": 3 });
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(&listed[0][key], value, "{key}");
    }
    assert!(listed[0]["bytes"].as_u64().expect("bytes") > 0);
    assert_eq!(
        topic(&server, &["list", "x*", "--json"]).await.json(),
        json!([])
    );
    let table = topic(&server, &["list", "s*"]).await.stdout;
    assert_eq!(table, "TOPIC  PARTITIONS\nsea             2\n");

    let described = topic(&server, &["describe", "sea", "--json"]).await.json();
    let sea = &described[0];
    assert_eq!(sea["partitions"][1]["end_offset"], 3);
    assert_eq!(
        sea["settings"]["retention.ms"],
        json!({ "value": "3600000", "source": "topic" })
    );
    assert_eq!(sea["settings"]["durability"]["source"], "default");
    let text = topic(&server, &["describe", "sea"]).await.stdout;
    assert!(
        text.starts_with("topic sea: 2 partitions, 3 records"),
        "{text}"
    );
    assert!(text.contains("retention.ms") && !text.contains("durability"));

    let unsure = topic(&server, &["delete", "sea"]).await;
    assert_eq!(unsure.code, Some(2));
    assert!(unsure.stderr.contains("--yes"), "{}", unsure.stderr);
    let plan = topic(&server, &["delete", "sea", "--dry-run", "--json"]).await;
    assert_eq!(
        (&plan.json()[0]["records"], &plan.json()[0]["deleted"]),
        (&json!(3), &json!(false))
    );
    let deleted = topic(&server, &["delete", "sea", "--yes", "--json"]).await;
    assert_eq!(deleted.json()[0]["deleted"], true);
    assert_eq!(topic(&server, &["describe", "sea"]).await.code, Some(3));
    assert_eq!(topic(&server, &["delete", "sea", "-y"]).await.code, Some(3));
    let gone = topic(&server, &["delete", "sea", "-y", "--if-exists"]).await;
    assert_eq!(gone.code, Some(0), "{}", gone.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn creation_says_what_is_wrong() {
    let server = Server::start().await;
    assert_eq!(topic(&server, &["create", "a"]).await.code, Some(0));
    for (args, code, word) in [
        (&["a"][..], 1, "--if-not-exists"),
        (&["b", "b"], 2, "named twice"),
        (&["b/c"], 2, "letters, digits"),
        (&["b", "-p", "0"], 2, "--partitions"),
        (&["b", "-c", "retention.ms"], 2, "KEY=VALUE"),
        (&["b", "-c", "retention.ms=x"], 1, "whole number"),
        (
            &["b", "-c", "retention.m=5"],
            1,
            "did you mean retention.ms?",
        ),
        (&["b", "-c", "cleanup.policy=shred"], 1, "list of"),
    ] {
        let said = topic(&server, &[&["create"], args].concat()).await;
        assert_eq!(said.code, Some(code), "{args:?}: {}", said.stderr);
        assert!(said.stderr.contains(word), "{args:?}: {}", said.stderr);
    }
    let checked = topic(&server, &["create", "b", "--dry-run", "--json"]).await;
    assert_eq!(checked.json()[0]["created"], false);
    let again = topic(&server, &["create", "a", "--if-not-exists"]).await;
    assert_eq!(again.stdout, "a was there already\n");
    let listed = topic(&server, &["list"]).await.stdout;
    assert_eq!(listed, "TOPIC  PARTITIONS\na               1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_change_together_or_not_at_all() {
    let server = Server::start().await;
    topic(&server, &["create", "a", "-c", "retention.ms=5000000"]).await;
    let retention = async || {
        let described = topic(&server, &["describe", "a", "--json"]).await.json();
        described[0]["settings"]["retention.ms"].clone()
    };
    let own = |value: &str| json!({ "value": value, "source": "topic" });

    let half_wrong = [
        "alter",
        "a",
        "-s",
        "retention.ms=6000000",
        "-s",
        "durability=maybe",
    ];
    let said = topic(&server, &half_wrong).await;
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("durability"), "{}", said.stderr);
    assert_eq!(retention().await, own("5000000"));

    let less = ["alter", "a", "-s", "retention.ms=4000000"];
    let unsure = topic(&server, &less).await;
    assert_eq!(unsure.code, Some(2));
    assert!(unsure.stderr.contains("--yes"), "{}", unsure.stderr);
    let plan = topic(&server, &[&less[..], &["--dry-run", "--json"]].concat()).await;
    let change = json!({ "setting": "retention.ms", "old": "5000000", "new": "4000000" });
    let expected = json!({ "topic": "a", "applied": false, "changes": [change] });
    assert_eq!(plan.json(), expected);
    assert_eq!(retention().await, own("5000000"));

    let said = topic(&server, &[&less[..], &["--yes"]].concat()).await;
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert_eq!(retention().await, own("4000000"));
    let same = topic(&server, &less).await;
    assert!(same.stdout.contains("nothing changes"), "{}", same.stdout);

    let unset = topic(&server, &["alter", "a", "-u", "retention.ms", "-y"]).await;
    assert_eq!(unset.code, Some(0), "{}", unset.stderr);
    assert_eq!(retention().await["source"], "default");
    assert_eq!(topic(&server, &["alter", "a"]).await.code, Some(2));
    let twice = ["alter", "a", "-u", "retention.ms", "-s", "retention.ms=1"];
    assert_eq!(topic(&server, &twice).await.code, Some(2));
    assert_eq!(
        topic(&server, &["alter", "b", "-u", "x"]).await.code,
        Some(3)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_added_and_never_taken() {
    let server = Server::start().await;
    topic(&server, &["create", "a", "-p", "2"]).await;
    let checked = ["add-partitions", "a", "--more", "3", "--dry-run", "--json"];
    let expected = json!({ "topic": "a", "old": 2, "new": 5, "applied": false });
    assert_eq!(topic(&server, &checked).await.json(), expected);
    let said = topic(&server, &["add-partitions", "a", "--to", "4"]).await;
    assert_eq!(said.stdout, "a has 4 partitions instead of 2\n");
    assert_eq!(starts(&server, "a").await.len(), 4);
    for (args, code) in [
        (&["a", "--to", "4"][..], 2),
        (&["a", "--to", "1"], 2),
        (&["a"], 2),
        (&["b", "--to", "4"], 3),
    ] {
        let said = topic(&server, &[&["add-partitions"], args].concat()).await;
        assert_eq!(said.code, Some(code), "{args:?}: {}", said.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_deleted_before_an_offset_or_a_time() {
    let server = Server::start().await;
    topic(&server, &["create", "a", "-p", "2"]).await;
    fill(&server, "a", "0", 10).await;
    // Ten records, a second apart from 2026-03-01 on.
    let timed: String = (0..10)
        .map(|second| format!("{} x\n", 1_772_323_200_000_u64 + second * 1000))
        .collect();
    let produce = ["produce", "a", "-p", "1", "-f", "%d %v\\n"];
    let said = on_broker(&server, &produce, &timed).await;
    assert_eq!(said.code, Some(0), "{}", said.stderr);

    let delete = async |args: &[&str]| topic(&server, &[&["delete-records"], args].concat()).await;
    let at = "2026-03-01T00:00:03.5Z";
    let plan = delete(&["a", "--before", at, "--dry-run", "--json"]).await;
    let step = |partition: u64, new: u64| json!({ "partition": partition, "old_start": 0, "new_start": new, "records": new });
    let expected =
        json!({ "topic": "a", "deleted": false, "partitions": [step(0, 0), step(1, 4)] });
    assert_eq!(plan.json(), expected);
    assert_eq!(starts(&server, "a").await, [0, 0]);

    let unsure = delete(&["a", "--before", at]).await;
    assert_eq!(unsure.code, Some(2));
    assert!(unsure.stderr.contains("4 records"), "{}", unsure.stderr);
    let said = delete(&["a", "--before", at, "--yes"]).await;
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert_eq!(starts(&server, "a").await, [0, 4]);
    assert_eq!(delete(&["a:0", "--before", "-3", "-y"]).await.code, Some(0));
    assert_eq!(starts(&server, "a").await, [7, 4]);
    assert_eq!(
        delete(&["a", "--before", "latest", "-y"]).await.code,
        Some(0)
    );
    assert_eq!(starts(&server, "a").await, [10, 10]);

    for (args, code) in [
        (&["a", "--before", "11", "-y"][..], 2),
        (&["a", "--before", "soon", "-y"], 2),
        (&["a:2", "--before", "1", "-y"], 3),
        (&["b", "--before", "1", "-y"], 3),
    ] {
        let said = delete(args).await;
        assert_eq!(said.code, Some(code), "{args:?}: {}", said.stderr);
    }
}

#[test]
fn settings_are_explained_without_a_broker() {
    let said = tool(&["topic", "settings", "-b", "127.0.0.1:1"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(said.stdout.contains("retention.ms"));
    let one = tool(&["topic", "settings", "durability", "--json"]).json();
    assert_eq!(
        (&one[0]["setting"], &one[0]["holds"]),
        (&json!("durability"), &json!("enforced"))
    );
    assert_eq!(tool(&["topic", "settings", "nothing"]).code, Some(3));
}

#[test]
fn an_unreachable_broker_is_told_with_what_to_do() {
    let said = tool(&["topic", "list", "-b", "127.0.0.1:1"]);
    assert_eq!(said.code, Some(4));
    assert!(said.stderr.contains("alluvium serve"), "{}", said.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_setting_cannot_be_put_back() {
    let server = Server::start().await;
    fill(&server, "sea", "0", 1).await;
    let said = topic(&server, &["alter", "sea", "--unset", "retention.m"]).await;
    assert_eq!(said.code, Some(2), "{}", said.stderr);
    assert!(
        said.stderr.contains("did you mean retention.ms?"),
        "{}",
        said.stderr
    );
    let said = topic(&server, &["alter", "sea", "--unset", "retention.ms"]).await;
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    for args in [&["alter", "sea"][..], &["add-partitions", "sea"]] {
        let said = topic(&server, args).await;
        assert_eq!(said.code, Some(2), "{}", said.stderr);
        let both = said.stderr.contains("--unset") || said.stderr.contains("--more");
        assert!(both, "{}", said.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_deleted_by_a_pattern_and_a_misspelt_one_is_suggested() {
    let server = Server::start().await;
    for name in ["test-1", "test-2", "sea"] {
        fill(&server, name, "0", 1).await;
    }
    let said = topic(&server, &["describe", "see"]).await;
    assert_eq!(said.code, Some(3));
    assert!(
        said.stderr.contains("there is no topic see"),
        "{}",
        said.stderr
    );
    assert!(
        said.stderr.contains("did you mean `sea`?"),
        "{}",
        said.stderr
    );
    let planned = topic(&server, &["delete", "test-*", "--dry-run", "--json"])
        .await
        .json();
    assert_eq!(
        (&planned[0]["topic"], &planned[1]["topic"]),
        (&json!("test-1"), &json!("test-2"))
    );
    let said = topic(&server, &["delete", "test-*", "--yes"]).await;
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let left = topic(&server, &["list", "--json"]).await.json();
    assert_eq!(
        (left.as_array().map(Vec::len), &left[0]["topic"]),
        (Some(1), &json!("sea"))
    );
    assert_eq!(
        topic(&server, &["delete", "test-*", "--yes"]).await.code,
        Some(3)
    );
    let said = topic(&server, &["delete", "test-*", "--yes", "--if-exists"]).await;
    assert_eq!(said.code, Some(0), "{}", said.stderr);
}
