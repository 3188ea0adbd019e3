use super::*;

fn overrides(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .collect()
}

fn config(pairs: &[(&str, &str)]) -> Result<TopicConfig, ConfigError> {
    TopicConfig::from_overrides(&overrides(pairs), &Defaults::default())
}

#[test]
fn the_table_is_ordered_unique_and_its_defaults_pass_its_own_checks() {
    for pair in SETTINGS.windows(2) {
        assert!(pair[0].name < pair[1].name, "{}", pair[1].name);
    }
    for setting in SETTINGS {
        assert_eq!(
            setting.check(setting.default).as_deref(),
            Ok(setting.default),
            "{}",
            setting.name
        );
        assert!(setting.doc.ends_with('.'), "{}", setting.name);
        let fits = matches!(
            (setting.kind, setting.values),
            (Kind::Boolean, Values::Boolean)
                | (Kind::Int | Kind::Long, Values::Integer { .. })
                | (Kind::Double, Values::Real { .. })
                | (Kind::String, Values::OneOf(_) | Values::ThinTiers)
                | (
                    Kind::List,
                    Values::ListOf(_) | Values::Replicas | Values::Names
                )
        );
        assert!(fits, "{}", setting.name);
    }
}

/// Kafka 4.3's `LogConfig.configNames()`, without its internal test setting.
#[test]
fn every_topic_setting_of_kafka_is_in_the_table() {
    let kafka = "segment.bytes segment.ms segment.jitter.ms segment.index.bytes flush.messages flush.ms retention.bytes \
        retention.ms max.message.bytes index.interval.bytes file.delete.delay.ms delete.retention.ms min.compaction.lag.ms \
        max.compaction.lag.ms min.cleanable.dirty.ratio cleanup.policy unclean.leader.election.enable min.insync.replicas \
        compression.type compression.gzip.level compression.lz4.level compression.zstd.level preallocate \
        message.timestamp.type message.timestamp.before.max.ms message.timestamp.after.max.ms \
        leader.replication.throttled.replicas follower.replication.throttled.replicas remote.storage.enable \
        local.retention.ms local.retention.bytes remote.log.copy.disable remote.log.delete.on.disable";
    let mut names: Vec<&str> = kafka
        .split_whitespace()
        .chain([
            "durability",
            "errors.deadletterqueue.group.enable",
            "key.index.enable",
            "retention.hold.bytes",
            "retention.hold.groups",
            "retention.hold.ms",
            "thin.tiers",
        ])
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        SETTINGS
            .iter()
            .map(|setting| setting.name)
            .collect::<Vec<_>>()
    );
}

#[test]
fn defaults_are_kafkas() {
    let config = config(&[]).unwrap();
    assert_eq!(config.retention_ms, Some(7 * 24 * 3600 * 1000));
    assert_eq!(config.retention_bytes, None);
    assert_eq!(config.segment_bytes, 1 << 30);
    assert_eq!(config.max_message_bytes, 1_048_588);
    assert_eq!(config.message_timestamp_before_max_ms, None);
    assert_eq!(config.compression_type, CompressionType::Producer);
    assert_eq!(config.durability, Durability::Fsync);
    assert_eq!(config.min_insync_replicas, 1);
}

#[test]
fn accepted_values_reach_their_typed_fields() {
    let config = config(&[
        ("retention.ms", "-1"),
        ("retention.bytes", " 1000 "),
        ("compression.type", "zstd"),
        ("compression.zstd.level", "-7"),
        ("message.timestamp.type", "LogAppendTime"),
        ("message.timestamp.after.max.ms", "5"),
        ("min.insync.replicas", "2"),
        ("durability", "os"),
        ("preallocate", "TRUE"),
    ])
    .unwrap();
    assert_eq!(config.retention_ms, None);
    assert_eq!(config.retention_bytes, Some(1000));
    let zstd = Compression {
        codec: Codec::Zstd,
        level: Some(-7),
    };
    assert_eq!(config.compression_type, CompressionType::Fixed(zstd));
    assert_eq!(
        config.message_timestamp_type,
        MessageTimestampType::LogAppendTime
    );
    assert_eq!(config.message_timestamp_after_max_ms, Some(5));
    assert_eq!(config.min_insync_replicas, 2);
    assert_eq!(config.durability, Durability::Os);
}

#[test]
fn what_is_not_enforced_is_refused_with_its_reason() {
    for (key, value, reason) in [
        ("cleanup.policy", "Compact", "list of compact, delete, thin"),
        ("thin.tiers", "7d:1m", "tier 1: expected"),
        ("cleanup.policy", "none", "list of compact, delete, thin"),
        ("cleanup.policy", "compact,", "empty"),
        ("cleanup.policy", ",", "empty"),
        ("cleanup.policy", "compact,,delete", "empty"),
        ("max.compaction.lag.ms", "0", "from 1"),
        ("min.compaction.lag.ms", "-1", "from 0"),
        ("delete.retention.ms", "-1", "from 0"),
        ("min.cleanable.dirty.ratio", "1.1", "from 0 to 1"),
        ("remote.storage.enable", "true", "remote"),
        ("local.retention.ms", "5", "remote"),
        ("compression.lz4.level", "10", "one level"),
        ("compression.gzip.level", "0", "from 1"),
        ("compression.type", "brotli", "one of"),
        ("retention.ms", "-2", "from -1"),
        ("retention.ms", "", "whole number"),
        ("segment.bytes", "4095", "from 4096"),
        ("segment.bytes", "2147483648", "2147483647"),
        ("max.message.bytes", "1e6", "whole number"),
        ("min.cleanable.dirty.ratio", "NaN", "number"),
        ("preallocate", "yes", "true or false"),
        ("leader.replication.throttled.replicas", "1", "pairs"),
        ("no.such.setting", "1", "unknown"),
    ] {
        let error = config(&[(key, value)]).unwrap_err();
        assert_eq!((error.key.as_str(), error.value.as_str()), (key, value));
        assert!(error.reason.contains(reason), "{error}");
    }
}

/// As Kafka 4.3.1 takes and describes these values.
#[test]
fn a_cleanup_policy_is_any_list_of_policies_and_an_empty_one_removes_nothing() {
    let policy = |delete, compact| CleanupPolicy {
        delete,
        compact,
        thin: false,
    };
    for (value, stored, expected) in [
        ("delete", "delete", policy(true, false)),
        ("compact", "compact", policy(false, true)),
        ("compact,delete", "compact,delete", policy(true, true)),
        ("delete, compact", "delete,compact", policy(true, true)),
        ("compact,compact", "compact", policy(false, true)),
        (
            "delete,delete,compact",
            "delete,compact",
            policy(true, true),
        ),
        ("", "", policy(false, false)),
        (" ", "", policy(false, false)),
    ] {
        let overrides = overrides(&[("cleanup.policy", value)]);
        assert_eq!(normalize(&overrides).unwrap()["cleanup.policy"], stored);
        assert_eq!(
            config(&[("cleanup.policy", value)]).unwrap().cleanup_policy,
            expected,
            "{value:?}"
        );
    }
}

#[test]
fn thinning_needs_tiers_and_goes_with_every_other_policy() {
    let tiers = "7d:1m:first+last";
    for policies in ["thin", "thin,delete", "compact,thin"] {
        let config = config(&[("cleanup.policy", policies), ("thin.tiers", tiers)]).unwrap();
        assert!(config.cleanup_policy.thin, "{policies}");
        assert_eq!(config.thin_tiers.to_string(), tiers);
    }
    let waiting = config(&[("thin.tiers", " 7d:60s:first + last ")]).unwrap();
    assert_eq!(waiting.thin_tiers.to_string(), tiers);
    let as_default = Defaults::default().set("log.cleanup.policy", "delete,thin");
    assert!(as_default.unwrap_err().reason.contains("thin.tiers"));
    let error = config(&[("cleanup.policy", "thin")]).unwrap_err();
    assert_eq!(error.key, "thin.tiers");
}

#[test]
fn settings_of_compaction_reach_their_fields_and_their_defaults_are_kafkas() {
    let default = config(&[]).unwrap().compaction;
    assert_eq!(default.delete_retention_ms, 24 * 3600 * 1000);
    assert_eq!(default.min_cleanable_dirty_ratio.get(), 0.5);
    assert_eq!(default.min_compaction_lag_ms, 0);
    assert_eq!(default.max_compaction_lag_ms, None);
    let compaction = config(&[
        ("delete.retention.ms", "0"),
        ("min.cleanable.dirty.ratio", "1"),
        ("min.compaction.lag.ms", "10"),
        ("max.compaction.lag.ms", "10"),
    ])
    .unwrap()
    .compaction;
    assert_eq!(compaction.delete_retention_ms, 0);
    assert_eq!(compaction.min_cleanable_dirty_ratio.get(), 1.0);
    assert_eq!(compaction.min_compaction_lag_ms, 10);
    assert_eq!(compaction.max_compaction_lag_ms, Some(10));
}

#[test]
fn a_record_is_not_due_for_compaction_before_it_may_be_compacted() {
    let lags = [
        ("min.compaction.lag.ms", "10"),
        ("max.compaction.lag.ms", "9"),
    ];
    let error = config(&lags).unwrap_err();
    assert_eq!(error.key, "max.compaction.lag.ms");
    assert!(error.reason.contains("min.compaction.lag.ms=10"), "{error}");
    let mut defaults = Defaults::default();
    defaults
        .set("log.cleaner.min.compaction.lag.ms", "10")
        .unwrap();
    let own = overrides(&[("max.compaction.lag.ms", "9")]);
    assert!(TopicConfig::from_overrides(&own, &defaults).is_err());
}

/// As Kafka 4.3.1 describes them.
#[test]
fn a_ratio_is_described_as_kafka_describes_it() {
    let ratio = Setting::find("min.cleanable.dirty.ratio").unwrap();
    for (value, described) in [
        ("0.50", "0.5"),
        ("1e-3", "0.001"),
        ("0", "0.0"),
        ("1", "1.0"),
        ("0.0001", "1.0E-4"),
        ("0.00015", "1.5E-4"),
    ] {
        assert_eq!(ratio.check(value).as_deref(), Ok(described));
    }
}

#[test]
fn a_flush_interval_contradicts_leaving_flushes_to_the_system() {
    assert!(config(&[("flush.messages", "1"), ("flush.ms", "0")]).is_ok());
    let error = config(&[("flush.messages", "1"), ("durability", "os")]).unwrap_err();
    assert_eq!(error.key, "flush.messages");
}

#[test]
fn the_brokers_defaults_stand_between_the_topic_and_the_table() {
    let mut defaults = Defaults::default();
    defaults.set("log.retention.ms", "1000").unwrap();
    defaults.set("segment.bytes", "8192").unwrap();
    assert!(defaults.set("log.retention.ms", "x").is_err());
    assert!(defaults.set("log.nothing", "1").is_err());
    let overrides = overrides(&[("segment.bytes", "16384")]);
    let config = TopicConfig::from_overrides(&overrides, &defaults).unwrap();
    assert_eq!(
        (config.retention_ms, config.segment_bytes),
        (Some(1000), 16384)
    );
    let source = |name| effective(Setting::find(name).unwrap(), &overrides, &defaults);
    assert_eq!(source("segment.bytes"), ("16384", Source::Topic));
    assert_eq!(source("retention.ms"), ("1000", Source::Server));
    assert_eq!(source("segment.ms"), ("604800000", Source::Default));
}

#[test]
fn lists_are_edited_item_by_item() {
    assert_eq!(list_append("a, b", "b,c"), "a,b,c");
    assert_eq!(list_append("", "a"), "a");
    assert_eq!(list_subtract("a,b,c", "b , x"), "a,c");
}

#[test]
fn an_unknown_setting_is_refused_with_the_one_that_was_probably_meant() {
    for (name, expected) in [
        (
            "retention.mss",
            "unknown topic setting; did you mean retention.ms?",
        ),
        (
            "retention_ms",
            "unknown topic setting; did you mean retention.ms?",
        ),
        (
            "durabilty",
            "unknown topic setting; did you mean durability?",
        ),
        ("color", "unknown topic setting"),
    ] {
        let overrides = BTreeMap::from([(name.to_owned(), "1".to_owned())]);
        let error = normalize(&overrides).expect_err("there is no such setting");
        assert_eq!(error.reason, expected, "{name}");
    }
}
