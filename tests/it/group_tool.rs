//! `alluvium group`, against a broker.

use client::admin::{Admin, Committed, NewTopic};
use client::{
    Client, ClientConfig, GroupConfig, GroupConsumer, Producer, ProducerConfig, ProducerRecord,
};
use model::{Offset, PartitionId, Timestamp, TopicName, TopicPartition};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::binary::{Said, tool};
use crate::server::Server;

const HOUR_MS: i64 = 3_600_000;

/// A broker with the topic `readings` of two partitions: ten records in the first, an hour apart, the last one an hour old.
struct Fixture {
    server: Server,
    client: Client,
}

impl Fixture {
    async fn new() -> Fixture {
        let server = Server::start().await;
        let client = Client::connect(ClientConfig::new(&server.address.to_string()))
            .await
            .expect("a client");
        let topic = NewTopic {
            name: "readings".into(),
            partitions: Some(2),
            ..NewTopic::default()
        };
        Admin::new(&client)
            .create_topic(topic)
            .await
            .expect("a topic");
        let producer = Producer::new(&client, ProducerConfig::default()).expect("a producer");
        for hours in (1..=10).rev() {
            let record = ProducerRecord::new(topic_name(), format!("{hours}"))
                .partition(PartitionId::new(0))
                .timestamp(Timestamp::from_millis(now_ms() - hours * HOUR_MS));
            let sent = producer.send(record).await.expect("sent");
            drop(sent);
        }
        producer.close().await.expect("delivered");
        Fixture { server, client }
    }

    async fn commit(&self, group: &str, partition: u32, offset: u64) {
        let committed = Committed {
            offset: Offset::new(offset),
            metadata: "note".into(),
        };
        Admin::new(&self.client)
            .commit(group, &[(at(partition), committed)])
            .await
            .expect("committed");
    }

    async fn committed(&self, group: &str, partition: u32) -> Option<u64> {
        let committed = Admin::new(&self.client)
            .committed(group, None)
            .await
            .expect("an answer");
        committed
            .get(&at(partition))
            .map(|committed| committed.offset.get())
    }

    async fn group(&self, args: &[&str]) -> Said {
        let mut all = vec![
            "group".to_owned(),
            "-b".to_owned(),
            self.server.address.to_string(),
        ];
        all.extend(args.iter().map(|arg| (*arg).to_owned()));
        let run = move || tool(&all.iter().map(String::as_str).collect::<Vec<_>>());
        tokio::task::spawn_blocking(run).await.expect("it ran")
    }
}

fn topic_name() -> TopicName {
    TopicName::parse("readings").expect("a name")
}

fn at(partition: u32) -> TopicPartition {
    TopicPartition::new(topic_name(), PartitionId::new(partition))
}

fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    i64::try_from(since.as_millis()).expect("this age")
}

fn assert_hours(value: &Value, hours: f64) {
    let seconds = value.as_f64().expect("seconds");
    assert!(
        (seconds - hours * 3600.0).abs() < 120.0,
        "{seconds} s are not {hours} h"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_is_told_in_records_and_in_the_age_of_the_next_one() {
    let fixture = Fixture::new().await;
    fixture.commit("dashboards", 0, 7).await;
    fixture.commit("dashboards", 1, 0).await;
    let listed = fixture.group(&["list", "--json"]).await.json();
    assert_eq!(listed[0]["group"], "dashboards");
    assert_eq!(listed[0]["state"], "Empty");
    let described = fixture
        .group(&["describe", "dashboards", "--json"])
        .await
        .json();
    let group = &described[0];
    assert_eq!(
        (&group["state"], &group["lag"]),
        (&json!("Empty"), &json!(3))
    );
    let first = &group["partitions"][0];
    assert_eq!(
        (
            &first["committed"],
            &first["end"],
            &first["lag"],
            &first["metadata"]
        ),
        (&json!(7), &json!(10), &json!(3), &json!("note"))
    );
    assert_hours(&first["lag_seconds"], 3.0);
    assert_hours(&group["lag_seconds"], 3.0);
    assert_eq!(
        group["partitions"][1]["lag_seconds"],
        json!(0.0),
        "nothing is unread there"
    );
    let all = fixture.group(&["describe", "--json"]).await.json();
    assert_eq!(
        all[0]["lag"],
        json!(3),
        "without a name all groups are described"
    );
    let page = fixture.group(&["describe", "dashboards"]).await;
    assert!(page.stdout.contains("3 records, 3h0m"), "{}", page.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_went_before_it_was_read_is_told_as_lost() {
    let fixture = Fixture::new().await;
    fixture.commit("slow", 0, 2).await;
    Admin::new(&fixture.client)
        .delete_records(&[(at(0), Some(Offset::new(6)))])
        .await
        .expect("deleted");
    let described = fixture.group(&["describe", "slow", "--json"]).await.json();
    let partition = &described[0]["partitions"][0];
    assert_eq!(
        (&partition["lost"], &partition["lag"]),
        (&json!(4), &json!(4))
    );
    assert_hours(&partition["lag_seconds"], 4.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_is_a_plan_until_it_is_executed() {
    let fixture = Fixture::new().await;
    fixture.commit("g", 0, 4).await;
    let reset = [
        "reset",
        "g",
        "--topic",
        "readings:0",
        "--to-latest",
        "--json",
    ];
    for args in [&reset[..], &[&reset[..], &["--dry-run"]].concat()] {
        let plan = fixture.group(args).await;
        assert!(plan.stderr.contains("--execute"), "{}", plan.stderr);
        let plan = plan.json();
        let one = &plan["partitions"][0];
        assert_eq!((&one["old"], &one["new"]), (&json!(4), &json!(10)));
        assert_eq!(
            (&one["records_skipped"], &plan["executed"]),
            (&json!(6), &json!(false))
        );
        assert_hours(&one["seconds_skipped"], 6.0);
        assert_eq!(fixture.committed("g", 0).await, Some(4));
    }
    let done = fixture
        .group(&[&reset[..], &["--execute"]].concat())
        .await
        .json();
    assert_eq!(done["executed"], json!(true));
    assert_eq!(fixture.committed("g", 0).await, Some(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_target_leads_where_kafkas_tool_would() {
    let fixture = Fixture::new().await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "readings,0,8\n").expect("written");
    let file = file.path().to_str().expect("UTF-8");
    for (to, expected) in [
        (&["--to-earliest"][..], 0),
        (&["--to-offset", "3"], 3),
        (&["--to-offset", "99"], 10),
        (&["--shift-by", "-2"], 3),
        (&["--to-current"], 5),
        (&["--by-duration", "PT150M"], 8),
        (&["--to-datetime", "-3h30m"], 7),
        (&["--to", "-1"], 9),
        (&["--from-file", file], 8),
    ] {
        fixture.commit("g", 0, 5).await;
        let mut args = vec!["reset", "g", "-t", "readings:0", "--execute"];
        args.extend(to);
        let said = fixture.group(&args).await;
        assert_eq!(said.code, Some(0), "{to:?}: {}", said.stderr);
        assert_eq!(fixture.committed("g", 0).await, Some(expected), "{to:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_does_not_exist_yet_can_be_given_a_start() {
    let fixture = Fixture::new().await;
    let args = [
        "reset",
        "new",
        "-t",
        "readings",
        "--to",
        "-5h30m",
        "--execute",
    ];
    let said = fixture.group(&args).await;
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert_eq!(fixture.committed("new", 0).await, Some(5));
    assert_eq!(fixture.committed("new", 1).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_with_members_is_neither_moved_nor_deleted() {
    let fixture = Fixture::new().await;
    let mut consumer = GroupConsumer::new(&fixture.client, GroupConfig::new("busy", ["readings"]));
    while consumer.assignment().is_empty() {
        consumer
            .poll(Duration::from_millis(100))
            .await
            .expect("polled");
    }
    consumer.commit_all().await.expect("committed");
    let before = fixture.committed("busy", 0).await;
    let described = fixture.group(&["describe", "busy", "--json"]).await.json();
    assert_eq!(described[0]["state"], "Stable");
    assert_eq!(described[0]["members"][0]["client_id"], "alluvium");
    assert_eq!(described[0]["partitions"].as_array().map(Vec::len), Some(2));
    for args in [
        &[
            "reset",
            "busy",
            "-t",
            "readings",
            "--to-earliest",
            "--execute",
        ][..],
        &["delete", "busy", "--yes"],
    ] {
        let said = fixture.group(args).await;
        assert_eq!(said.code, Some(1), "{}", said.stdout);
        assert!(
            said.stderr.contains("1 member") && said.stderr.contains("stop"),
            "{}",
            said.stderr
        );
    }
    assert_eq!(fixture.committed("busy", 0).await, before);
    consumer.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_asks_shows_and_deletes() {
    let fixture = Fixture::new().await;
    fixture.commit("old", 0, 4).await;
    fixture.commit("old", 1, 0).await;
    let unsure = fixture.group(&["delete", "old"]).await;
    assert_eq!(unsure.code, Some(2));
    assert!(unsure.stderr.contains("--yes"), "{}", unsure.stderr);
    let plan = fixture
        .group(&["delete", "old", "--dry-run", "--json"])
        .await
        .json();
    assert_eq!(plan[0]["deleted"], json!(false));
    assert_eq!(fixture.committed("old", 0).await, Some(4));
    let part = fixture
        .group(&["delete", "old", "-t", "readings:1", "--yes"])
        .await;
    assert_eq!(part.code, Some(0), "{}", part.stderr);
    assert_eq!(fixture.committed("old", 1).await, None);
    assert_eq!(fixture.committed("old", 0).await, Some(4));
    let whole = fixture.group(&["delete", "old", "--yes"]).await;
    assert_eq!(whole.code, Some(0), "{}", whole.stderr);
    assert_eq!(fixture.group(&["list", "--json"]).await.json(), json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_exit_code_3_and_what_cannot_be_meant_2() {
    let fixture = Fixture::new().await;
    for args in [
        &["describe", "nobody"][..],
        &["delete", "nobody", "--yes"],
        &["reset", "nobody", "--all-topics", "--to-earliest"],
        &["reset", "g", "-t", "nothing", "--to-earliest"],
        &["reset", "g", "-t", "readings:7", "--to-earliest"],
    ] {
        assert_eq!(fixture.group(args).await.code, Some(3), "{args:?}");
    }
    for args in [
        &["reset", "g", "-t", "readings"][..],
        &[
            "reset",
            "g",
            "-t",
            "readings",
            "--to-earliest",
            "--to-latest",
        ],
        &["reset", "g", "-t", "readings", "--to", "yesterday"],
        &["reset", "g", "-t", "no:number", "--to-earliest"],
    ] {
        assert_eq!(fixture.group(args).await.code, Some(2), "{args:?}");
    }
    let unreachable = tool(&["group", "list", "-b", "127.0.0.1:1"]);
    assert_eq!(unreachable.code, Some(4), "{}", unreachable.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_groups_are_reset_at_once_and_words_say_which_way() {
    let fixture = Fixture::new().await;
    fixture.commit("a", 0, 4).await;
    fixture.commit("b", 0, 6).await;
    let reset = ["reset", "a", "b", "-t", "readings:0", "--to", "5"];
    let table = fixture.group(&reset).await.stdout;
    assert!(
        table.contains("skips 1") && table.contains("re-reads 1"),
        "{table}"
    );
    let done = fixture
        .group(&[&reset[..], &["--execute", "--json"]].concat())
        .await
        .json();
    assert_eq!(
        (&done[0]["group"], &done[1]["group"]),
        (&json!("a"), &json!("b"))
    );
    for group in ["a", "b"] {
        assert_eq!(fixture.committed(group, 0).await, Some(5));
    }
    let said = fixture.group(&[&reset[..], &["--export"]].concat()).await;
    assert_eq!(said.code, Some(2), "{}", said.stderr);
}
