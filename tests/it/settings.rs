//! Topic settings as clients meet them, and as the compatibility page lists them.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use model::topic_config::{Holds, SETTINGS};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use wire::messages::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use wire::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult,
};
use wire::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};

use crate::raw::Raw;
use crate::server::Server;

const NONE: i16 = 0;
const INVALID_CONFIG: i16 = 40;
const INVALID_REQUEST: i16 = 42;
const TOPIC: i8 = 2;
const BROKER: i8 = 4;

async fn create(raw: &mut Raw, name: &str, setting: &str, value: &str) -> (i16, String) {
    let topic = CreatableTopic {
        name: name.into(),
        num_partitions: 1,
        replication_factor: 1,
        configs: vec![CreatableTopicConfig {
            name: setting.into(),
            value: Some(value.into()),
        }],
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest {
        topics: vec![topic],
        timeout_ms: 5_000,
        ..CreateTopicsRequest::default()
    };
    let created = raw.call(7, &request).await.topics.remove(0);
    (
        created.error_code,
        created.error_message.unwrap_or_default(),
    )
}

async fn set(raw: &mut Raw, resource: (i8, &str), setting: &str, value: &str) -> i16 {
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: resource.0,
            resource_name: resource.1.into(),
            configs: vec![AlterableConfig {
                name: setting.into(),
                config_operation: 0,
                value: Some(value.into()),
            }],
        }],
        ..IncrementalAlterConfigsRequest::default()
    };
    raw.call(1, &request).await.responses[0].error_code
}

#[tokio::test]
async fn a_setting_that_only_has_its_default_says_why() {
    let server = Server::with_wal_files_of(4 << 20).await;
    let mut raw = Raw::connect(server.address).await;
    for setting in SETTINGS {
        let default = create(&mut raw, setting.name, setting.name, setting.default).await;
        assert_eq!(default.0, NONE, "{}: {}", setting.name, default.1);
    }
    for (name, value, reason) in [
        ("cleanup.policy", "shred", "list of"),
        (
            "remote.storage.enable",
            "true",
            "there is no remote storage",
        ),
        ("local.retention.ms", "1000", "there is no remote storage"),
        ("compression.lz4.level", "12", "one level"),
        ("retention.ms", "-2", "-2"),
        ("no.such.setting", "1", "no.such.setting"),
    ] {
        let (code, message) = create(&mut raw, "refused", name, value).await;
        assert_eq!(code, INVALID_CONFIG, "{name}");
        assert!(message.contains(reason), "{name}: {message}");
    }
}

#[tokio::test]
async fn batches_that_the_store_could_not_keep_are_not_promised() {
    let server = Server::with_wal_files_of(1 << 20).await;
    let mut raw = Raw::connect(server.address).await;
    let fits = ("max.message.bytes", "500000");
    let too_large = ("max.message.bytes", "600000");
    assert_eq!(create(&mut raw, "t", fits.0, fits.1).await.0, NONE);
    let (code, message) = create(&mut raw, "u", too_large.0, too_large.1).await;
    assert_eq!(code, INVALID_CONFIG);
    assert!(message.contains("wal.file.bytes"), "{message}");
    let topic = (TOPIC, "t");
    assert_eq!(set(&mut raw, topic, fits.0, fits.1).await, NONE);
    assert_eq!(
        set(&mut raw, topic, too_large.0, too_large.1).await,
        INVALID_CONFIG
    );
    let broker = (BROKER, "");
    assert_eq!(
        set(&mut raw, broker, "message.max.bytes", fits.1).await,
        NONE
    );
    assert_eq!(
        set(&mut raw, broker, "message.max.bytes", too_large.1).await,
        INVALID_CONFIG
    );
}

#[test]
fn the_compatibility_page_lists_every_topic_setting() {
    let mut table = String::from("| setting | default | how |\n|---|---|---|\n");
    for setting in SETTINGS {
        let how = match setting.holds {
            Holds::Enforced => "enforced".to_string(),
            Holds::HoldsTrivially(reason) => format!("holds: {reason}"),
            Holds::Refused(reason) => format!("default only: {reason}"),
        };
        let default = match setting.default {
            "" => String::new(),
            value => format!("`{value}`"),
        };
        writeln!(table, "| `{}` | {default} | {how} |", setting.name).expect("a string grows");
    }
    let page = include_str!("../../docs/COMPATIBILITY.md");
    let wanted = format!("<!-- topic settings -->\n\n{table}\n");
    assert!(page.contains(&wanted), "the page must say:\n{wanted}");
}

#[tokio::test]
async fn what_the_broker_does_in_the_background_can_be_changed_while_it_runs_and_stays() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    let broker = (BROKER, "1");
    assert_eq!(set(&mut raw, broker, "store.bytes.max", "5000000").await, 0);
    assert_eq!(
        server.broker.storage_live().store_bytes_max,
        Some(5_000_000)
    );
    assert_eq!(
        set(&mut raw, broker, "scrub.bytes.per.second", "0").await,
        0
    );
    assert_eq!(server.broker.storage_live().scrub_bytes_per_second, 0);
    assert_ne!(set(&mut raw, broker, "store.bytes.max", "5").await, 0);
    assert_ne!(
        set(&mut raw, broker, "num.partitions", "5").await,
        0,
        "it needs a restart"
    );
    assert_eq!(
        server.broker.storage_live().store_bytes_max,
        Some(5_000_000)
    );
    drop(raw);
    let server = server.cut().await;
    assert_eq!(
        server.broker.storage_live().store_bytes_max,
        Some(5_000_000),
        "after a start too"
    );
}

async fn described(raw: &mut Raw, resource: (i8, &str)) -> Vec<DescribeConfigsResourceResult> {
    let request = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: resource.0,
            resource_name: resource.1.into(),
            configuration_keys: None,
        }],
        include_documentation: true,
        ..DescribeConfigsRequest::default()
    };
    raw.call(3, &request).await.results.remove(0).configs
}

#[tokio::test]
async fn clients_see_every_setting_of_the_server_and_change_those_that_are_live() {
    // Whose batches may be as large as by default.
    let server = Server::with_wal_files_of(8 << 20).await;
    let mut raw = Raw::connect(server.address).await;
    let shown = described(&mut raw, (BROKER, "1")).await;
    for (name, _, doc) in alluvium::config::settings() {
        let found = shown.iter().find(|shown| shown.name == name);
        let found = found.unwrap_or_else(|| panic!("{name} is not shown"));
        assert_eq!(found.documentation.as_deref(), Some(&*doc), "{name}");
        // What needs a restart says so, by Kafka's code, whatever the value.
        let value = found.value.clone().unwrap_or_default();
        let wanted = if found.read_only {
            INVALID_REQUEST
        } else {
            NONE
        };
        let code = set(&mut raw, (BROKER, "1"), name, &value).await;
        assert_eq!(code, wanted, "{name}={value}");
    }
    let read_only = |name: &str| shown.iter().any(|one| one.name == name && one.read_only);
    assert!(read_only("wal.files.max") && read_only("log.dirs"));
    assert!(!read_only("max.connections") && !read_only("store.bytes.max"));
    let unknown = set(&mut raw, (BROKER, "1"), "no.such.setting", "1").await;
    assert_eq!(unknown, INVALID_CONFIG);
}

#[tokio::test]
async fn limits_of_connections_change_at_once_and_stay() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.address).await;
    let mut silent = TcpStream::connect(server.address).await.expect("accepted");
    let broker = (BROKER, "1");
    let is_open = async || {
        let mut another = TcpStream::connect(server.address).await.expect("accepted");
        let read = tokio::time::timeout(Duration::from_millis(300), another.read_u8()).await;
        // Nothing is sent before it is asked for; what is closed ends.
        read.is_err()
    };
    assert!(is_open().await);
    let per_address = "max.connections.per.ip";
    assert_eq!(set(&mut raw, broker, per_address, "2").await, NONE);
    // The one before may be open a moment longer at the server.
    let deadline = Instant::now() + Duration::from_secs(30);
    while is_open().await {
        assert!(
            Instant::now() < deadline,
            "a third connection of one address"
        );
    }
    assert_eq!(set(&mut raw, broker, per_address, "50").await, NONE);
    assert!(is_open().await, "raised again");
    assert_eq!(set(&mut raw, broker, "max.connections", "1").await, NONE);
    let ended = tokio::time::timeout(Duration::from_secs(60), silent.read_u8()).await;
    assert!(
        matches!(ended, Ok(Err(_))),
        "it stays beside the one that may be open"
    );
    let server = server.cut().await;
    let mut raw = Raw::connect(server.address).await;
    let shown = described(&mut raw, broker).await;
    let value = |name: &str| {
        shown
            .iter()
            .find(|one| one.name == name)
            .unwrap()
            .value
            .clone()
    };
    assert_eq!(value("max.connections").as_deref(), Some("1"));
    assert_eq!(value(per_address).as_deref(), Some("50"));
}
