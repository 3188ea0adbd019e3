//! The settings of the broker and of its consumer groups.

use std::path::PathBuf;
use std::time::Duration;

use model::acl::{USER_HEAD, WILDCARD};

use super::access::Authorizer;
use super::config::{BrokerConfig, GroupConfig};
use crate::setting::{Kind, SIZE_MAX, Setting, boolean, millis, number, size, text_of_millis};

/// The broker's own, by name.
pub const BROKER: &[Setting<BrokerConfig>] = &[
    Setting {
        name: "allow.everyone.if.no.acl.found",
        kind: Kind::Boolean,
        default: "false",
        is_live: false,
        doc: "Whether everybody may use a resource that no rule is about, where access is controlled.",
        get: |it| it.access.everyone_if_none.to_string(),
        set: |it, value| {
            it.access.everyone_if_none = boolean(value)?;
            Ok(())
        },
    },
    Setting {
        name: "audit.file",
        kind: Kind::String,
        default: "",
        is_live: false,
        doc: "A file that the audit log is appended to, a JSON object a line; empty for none. It may be renamed at any time, and is \
              made anew. It is not synced; the topic is.",
        get: |it| {
            let file = it.audit.file.as_ref();
            file.map_or_else(String::new, |file| file.display().to_string())
        },
        set: |it, value| {
            it.audit.file = Some(PathBuf::from(value)).filter(|_| !value.is_empty());
            Ok(())
        },
    },
    Setting {
        name: "audit.file.max.bytes",
        kind: Kind::Long,
        default: "104857600",
        is_live: false,
        doc: "How long that file becomes. Then it is renamed, with .1 at its end, and replaces the one that was renamed before. 0 \
              for without end, where something else renames it.",
        get: |it| it.audit.file_bytes_max.unwrap_or_default().to_string(),
        set: |it, value| {
            let bytes = number(value, 0..=u64::MAX)?;
            it.audit.file_bytes_max = Some(bytes).filter(|bytes| *bytes > 0);
            Ok(())
        },
    },
    Setting {
        name: "audit.topic.enable",
        kind: Kind::Boolean,
        default: "false",
        is_live: false,
        doc: "Whether the audit log is kept in the topic __audit_log, which is made when there is something to be told, and which \
              nobody writes to but the server.",
        get: |it| it.audit.has_topic.to_string(),
        set: |it, value| {
            it.audit.has_topic = boolean(value)?;
            Ok(())
        },
    },
    Setting {
        name: "authorizer.class.name",
        kind: Kind::String,
        default: "",
        is_live: false,
        doc: "Whether access is controlled, by access control lists: \
              `org.apache.kafka.metadata.authorizer.StandardAuthorizer`, Kafka's name for what is built in here; empty for no \
              control.",
        get: |it| match it.access.authorizer {
            Authorizer::None => String::new(),
            Authorizer::Standard => STANDARD_AUTHORIZER.to_owned(),
        },
        set: |it, value| {
            it.access.authorizer = authorizer(value)?;
            Ok(())
        },
    },
    Setting {
        name: "auto.create.topics.enable",
        kind: Kind::Boolean,
        default: "true",
        is_live: false,
        doc: "Whether a topic that a client asks for is created.",
        get: |it| it.auto_create_topics.to_string(),
        set: |it, value| {
            it.auto_create_topics = boolean(value)?;
            Ok(())
        },
    },
    Setting {
        name: "broker.rack",
        kind: Kind::String,
        default: "",
        is_live: false,
        doc: "The rack of this broker that clients are told; empty for none.",
        get: |it| it.rack.clone().unwrap_or_default(),
        set: |it, value| {
            it.rack = Some(value.to_owned()).filter(|rack| !rack.is_empty());
            Ok(())
        },
    },
    Setting {
        name: "failed.logins.per.ip.max",
        kind: Kind::Int,
        default: "100",
        is_live: false,
        doc: "Logins that may fail in a minute from one address, IPv6 by its first 64 bits; beyond it every login from there \
              fails without a look at its password, until some seconds have passed. 1 or more.",
        get: |it| it.failed_logins_max.to_string(),
        set: |it, value| {
            it.failed_logins_max =
                u32::try_from(size(value, 1..=SIZE_MAX)?).map_err(|it| it.to_string())?;
            Ok(())
        },
    },
    Setting {
        name: "fetch.max.bytes",
        kind: Kind::Int,
        default: "57671680",
        is_live: false,
        doc: "The most bytes in the answer to a fetch. A first batch that is larger is returned whole. 1024 or more.",
        get: |it| it.fetch_bytes_max.to_string(),
        set: |it, value| {
            it.fetch_bytes_max = size(value, 1024..=SIZE_MAX)?;
            Ok(())
        },
    },
    Setting {
        name: "node.id",
        kind: Kind::Int,
        default: "1",
        is_live: false,
        doc: "This broker's id; 0 or more.",
        get: |it| it.node_id.to_string(),
        set: |it, value| {
            it.node_id = node_id(value)?;
            Ok(())
        },
    },
    Setting {
        name: "num.partitions",
        kind: Kind::Int,
        default: "1",
        is_live: false,
        doc: "Partitions of a topic that is created without a count; 1 to 10000.",
        get: |it| it.default_partitions.to_string(),
        set: |it, value| {
            it.default_partitions = partitions(value)?;
            Ok(())
        },
    },
    Setting {
        name: "partitions.max",
        kind: Kind::Int,
        default: "200000",
        is_live: false,
        doc: "Partitions of all topics at most, and so topics too, as each has one; what would be more is refused with \
              POLICY_VIOLATION. An idle one takes some kilobytes of memory. 1 to 10000000.",
        get: |it| it.partitions_max.to_string(),
        set: |it, value| {
            it.partitions_max = number(value, 1..=10_000_000)?;
            Ok(())
        },
    },
    Setting {
        name: "partitions.per.principal.max",
        kind: Kind::Int,
        default: "50000",
        is_live: false,
        doc: "Partitions of one principal's topics at most, where access is controlled: a topic is on the account of who made it, \
              whoever adds partitions. What would be more is refused with POLICY_VIOLATION. 1 to 10000000.",
        get: |it| it.partitions_of_one_max.to_string(),
        set: |it, value| {
            it.partitions_of_one_max = number(value, 1..=10_000_000)?;
            Ok(())
        },
    },
    Setting {
        name: "producer.ids.per.principal.max",
        kind: Kind::Long,
        default: "100000",
        is_live: false,
        doc: "Idempotent producers of one principal that all partitions remember, counted in each, where access is controlled: a \
              producer is on the account of who was given its id. At the bound those are forgotten that have been idle for 15 \
              minutes, and if there are none, new ones are refused with POLICY_VIOLATION. 1 or more.",
        get: |it| it.producers_of_one_max.to_string(),
        set: |it, value| {
            it.producers_of_one_max = number(value, 1..=u64::from(u32::MAX))?;
            Ok(())
        },
    },
    Setting {
        name: "topic.settings.bytes.per.principal.max",
        kind: Kind::Long,
        default: "16777216",
        is_live: false,
        doc: "Bytes of the names and values of the own settings of all topics of one principal, where access is controlled; more is \
              refused with INVALID_CONFIG. 64 KiB or more.",
        get: |it| it.settings_bytes_of_one_max.to_string(),
        set: |it, value| {
            it.settings_bytes_of_one_max = number(value, 64 << 10..=u64::MAX)?;
            Ok(())
        },
    },
    Setting {
        name: "idempotency.keys.max",
        kind: Kind::Int,
        default: "100000",
        is_live: false,
        doc: "Keys of requests that are done once (`Idempotency-Key`) that are remembered at most; new ones are refused with 429 \
              until the time of others is over. 1 to 1000000.",
        get: |it| it.idempotency_keys_max.to_string(),
        set: |it, value| {
            it.idempotency_keys_max = size(value, 1..=1_000_000)?;
            Ok(())
        },
    },
    Setting {
        name: "idempotency.key.retention.ms",
        kind: Kind::Long,
        default: "86400000",
        is_live: false,
        doc: "How long such a key is remembered: a request that comes again within this time writes nothing twice. 1000 to \
              31536000000.",
        get: |it| it.idempotency_key_retention_ms.to_string(),
        set: |it, value| {
            it.idempotency_key_retention_ms = number(value, 1_000..=31_536_000_000)?;
            Ok(())
        },
    },
    Setting {
        name: "super.users",
        kind: Kind::String,
        default: "",
        is_live: false,
        doc: "Who may do everything where access is controlled, whatever the rules say: `User:` and a name each, separated by \
              semicolons.",
        get: |it| {
            let users = it.access.super_users.iter();
            let users: Vec<String> = users.map(|name| format!("{USER_HEAD}{name}")).collect();
            users.join(";")
        },
        set: |it, value| {
            it.access.super_users = super_users(value)?;
            Ok(())
        },
    },
    Setting {
        name: "quota.window.num",
        kind: Kind::Int,
        default: "11",
        is_live: false,
        doc: "Samples over which the use of client quotas is measured, the one that is begun included; 1 to 1000.",
        get: |it| it.quotas.samples.to_string(),
        set: |it, value| {
            let samples = number(value, 1..=1000)?;
            it.quotas.samples = u32::try_from(samples).map_err(|error| error.to_string())?;
            Ok(())
        },
    },
    Setting {
        name: "quota.window.size.seconds",
        kind: Kind::Int,
        default: "1",
        is_live: false,
        doc: "How long each of these samples is, in seconds; 1 to 3600.",
        get: |it| (it.quotas.sample_ms / 1000).to_string(),
        set: |it, value| {
            it.quotas.sample_ms = number(value, 1..=3600)? * 1000;
            Ok(())
        },
    },
    Setting {
        name: "topic.settings.max.bytes",
        kind: Kind::Int,
        default: "65536",
        is_live: false,
        doc: "Bytes of the names and values of a topic's own settings, and of those that are set on the running broker; \
              more is refused with INVALID_CONFIG. 1024 to 16 MiB.",
        get: |it| it.settings_bytes_max.to_string(),
        set: |it, value| {
            it.settings_bytes_max = size(value, 1024..=16 << 20)?;
            Ok(())
        },
    },
    Setting {
        name: "validate.records",
        kind: Kind::Boolean,
        default: "false",
        is_live: false,
        doc: "Whether every batch is decompressed and each of its records checked. For producers that are not trusted.",
        get: |it| it.validate_records.to_string(),
        set: |it, value| {
            it.validate_records = boolean(value)?;
            Ok(())
        },
    },
];

/// Kafka's own authorizer.
const STANDARD_AUTHORIZER: &str = "org.apache.kafka.metadata.authorizer.StandardAuthorizer";

fn authorizer(value: &str) -> Result<Authorizer, String> {
    match value {
        "" => Ok(Authorizer::None),
        STANDARD_AUTHORIZER => Ok(Authorizer::Standard),
        _ => Err(format!("must be empty or {STANDARD_AUTHORIZER}")),
    }
}

fn super_users(value: &str) -> Result<Vec<String>, String> {
    let users = value.split(';').map(str::trim);
    let named = users.filter(|user| !user.is_empty()).map(|user| {
        let name = user
            .strip_prefix(USER_HEAD)
            .filter(|name| !name.is_empty() && *name != WILDCARD);
        let name = name.ok_or_else(|| format!("{user:?} must be User: and a name"))?;
        Ok(name.to_owned())
    });
    named.collect()
}

/// Those of consumer groups and their offsets, by name.
pub const GROUPS: &[Setting<GroupConfig>] = &[
    Setting {
        name: "group.initial.rebalance.delay.ms",
        kind: Kind::Int,
        default: "3000",
        is_live: false,
        doc: "How many milliseconds a new group waits for more members.",
        get: |it| text_of_millis(it.initial_rebalance_delay),
        set: |it, value| {
            it.initial_rebalance_delay = millis(value, 0)?;
            Ok(())
        },
    },
    Setting {
        name: "group.max.bytes",
        kind: Kind::Int,
        default: "8388608",
        is_live: false,
        doc: "The longest a group's members may be together, with their subscriptions and assignments, in bytes: they \
              are stored as one record. A join or an assignment beyond it is refused. 4096 or more, and no more than \
              about a quarter of wal.file.bytes.",
        get: |it| it.bytes_max.to_string(),
        set: |it, value| {
            it.bytes_max = size(value, 4096..=SIZE_MAX)?;
            Ok(())
        },
    },
    Setting {
        name: "group.max.session.timeout.ms",
        kind: Kind::Int,
        default: "1800000",
        is_live: false,
        doc: "The longest session timeout of a member, in milliseconds.",
        get: |it| text_of_millis(it.session_timeout_max),
        set: |it, value| {
            it.session_timeout_max = millis(value, 1)?;
            Ok(())
        },
    },
    Setting {
        name: "group.max.size",
        kind: Kind::Int,
        default: "2147483647",
        is_live: false,
        doc: "Members of a group at most; 1 or more.",
        get: |it| it.size_max.to_string(),
        set: |it, value| {
            it.size_max = size(value, 1..=SIZE_MAX)?;
            Ok(())
        },
    },
    Setting {
        name: "group.min.session.timeout.ms",
        kind: Kind::Int,
        default: "6000",
        is_live: false,
        doc: "The shortest session timeout of a member, in milliseconds.",
        get: |it| text_of_millis(it.session_timeout_min),
        set: |it, value| {
            it.session_timeout_min = millis(value, 1)?;
            Ok(())
        },
    },
    Setting {
        name: "groups.bytes.max",
        kind: Kind::Long,
        default: "134217728",
        is_live: false,
        doc: "Bytes of all groups' names, members, subscriptions and assignments at most; what would go beyond it is \
              refused. 1 MiB or more.",
        get: |it| it.groups_bytes_max.to_string(),
        set: |it, value| {
            it.groups_bytes_max = number(value, 1 << 20..=u64::MAX)?;
            Ok(())
        },
    },
    Setting {
        name: "groups.max",
        kind: Kind::Long,
        default: "100000",
        is_live: false,
        doc: "Groups at most, those that share records among them; further ones are refused. 1 or more.",
        get: |it| it.groups_max.to_string(),
        set: |it, value| {
            it.groups_max = number(value, 1..=u64::MAX)?;
            Ok(())
        },
    },
    Setting {
        name: "groups.members.max",
        kind: Kind::Long,
        default: "100000",
        is_live: false,
        doc: "Members of all groups at most, with those that are about to join; further ones are refused. 1 or more.",
        get: |it| it.members_max.to_string(),
        set: |it, value| {
            it.members_max = number(value, 1..=u64::MAX)?;
            Ok(())
        },
    },
    Setting {
        name: "groups.per.principal.max",
        kind: Kind::Long,
        default: "10000",
        is_live: false,
        doc: "Groups of one principal at most, those that share records among them, where access is controlled: a group is on \
              the account of who made it. Further ones are refused. 1 or more.",
        get: |it| it.held_of_one_max.groups.to_string(),
        set: |it, value| {
            it.held_of_one_max.groups = number(value, 1..=u64::MAX)?;
            Ok(())
        },
    },
    Setting {
        name: "groups.members.per.principal.max",
        kind: Kind::Long,
        default: "20000",
        is_live: false,
        doc: "Members of one principal's groups at most, whoever they are; further ones are refused. 1 or more.",
        get: |it| it.held_of_one_max.members.to_string(),
        set: |it, value| {
            it.held_of_one_max.members = number(value, 1..=u64::MAX)?;
            Ok(())
        },
    },
    Setting {
        name: "groups.bytes.per.principal.max",
        kind: Kind::Long,
        default: "33554432",
        is_live: false,
        doc: "Bytes of the names, members, subscriptions and assignments of one principal's groups at most; what would go \
              beyond it is refused. 1 MiB or more.",
        get: |it| it.held_of_one_max.member_bytes.to_string(),
        set: |it, value| {
            it.held_of_one_max.member_bytes = number(value, 1 << 20..=u64::MAX)?;
            Ok(())
        },
    },
    Setting {
        name: "offsets.per.principal.max",
        kind: Kind::Long,
        default: "200000",
        is_live: false,
        doc: "Committed offsets of one principal's groups at most, and partitions that they share; a commit beyond it is \
              refused. 1 or more.",
        get: |it| it.held_of_one_max.offsets.to_string(),
        set: |it, value| {
            it.held_of_one_max.offsets = number(value, 1..=u64::MAX)?;
            Ok(())
        },
    },
    Setting {
        name: "offsets.bytes.per.principal.max",
        kind: Kind::Long,
        default: "67108864",
        is_live: false,
        doc: "Bytes that the committed offsets of one principal's groups take in memory at most, and what is known of the records \
              of shared partitions; a commit beyond it is refused, and records are not given out that would add to it. 1 MiB or \
              more.",
        get: |it| it.held_of_one_max.offset_bytes.to_string(),
        set: |it, value| {
            it.held_of_one_max.offset_bytes = number(value, 1 << 20..=u64::MAX)?;
            Ok(())
        },
    },
    Setting {
        name: "offset.metadata.max.bytes",
        kind: Kind::Int,
        default: "4096",
        is_live: false,
        doc: "The longest text beside a committed offset, in characters (UTF-16 code units), as Kafka counts it.",
        get: |it| it.offset_metadata_chars_max.to_string(),
        set: |it, value| {
            it.offset_metadata_chars_max = size(value, 0..=SIZE_MAX)?;
            Ok(())
        },
    },
    Setting {
        name: "offsets.bytes.max",
        kind: Kind::Long,
        default: "268435456",
        is_live: false,
        doc: "Bytes that the committed offsets of all groups take in memory at most, with the text beside them, and what is known \
              of the records of shared partitions; a commit beyond it is refused, and records are not given out that would add \
              to it. 1 MiB or more.",
        get: |it| it.offsets_bytes_max.to_string(),
        set: |it, value| {
            it.offsets_bytes_max = number(value, 1 << 20..=u64::MAX)?;
            Ok(())
        },
    },
    Setting {
        name: "offsets.max",
        kind: Kind::Long,
        default: "1000000",
        is_live: false,
        doc: "Committed offsets of all groups at most, and partitions that groups share; a commit beyond it is refused. 1 or \
              more.",
        get: |it| it.offsets_max.to_string(),
        set: |it, value| {
            it.offsets_max = number(value, 1..=u64::MAX)?;
            Ok(())
        },
    },
    Setting {
        name: "offsets.retention.check.interval.ms",
        kind: Kind::Long,
        default: "600000",
        is_live: false,
        doc: "How often expired offsets are removed, in milliseconds; 100 or more.",
        get: |it| text_of_millis(it.offsets_retention_check),
        set: |it, value| {
            it.offsets_retention_check = millis(value, 100)?;
            Ok(())
        },
    },
    Setting {
        name: "offsets.retention.minutes",
        kind: Kind::Int,
        default: "10080",
        is_live: false,
        doc: "How long an empty group keeps its offsets, in minutes; 1 or more.",
        get: |it| (it.offsets_retention.as_secs() / 60).to_string(),
        set: |it, value| {
            it.offsets_retention = minutes(value)?;
            Ok(())
        },
    },
];

fn node_id(value: &str) -> Result<i32, String> {
    let id = number(value, 0..=SIZE_MAX)?;
    i32::try_from(id).map_err(|error| error.to_string())
}

fn partitions(value: &str) -> Result<u32, String> {
    let count = number(value, 1..=10_000)?;
    u32::try_from(count).map_err(|error| error.to_string())
}

fn minutes(value: &str) -> Result<Duration, String> {
    let minutes = number(value, 1..=u64::from(u32::MAX))?;
    Ok(Duration::from_secs(minutes * 60))
}
