//! The settings of a group that shares records: a table, by Kafka's names.
//! Callers: the coordinator, which keeps what was set; `Broker`, which shows and changes it. Each takes effect with the next request.

use std::time::Duration;

use model::TopicName;
use model::topic_config::Kind;

use super::partition::{Limits, RUNS_MAX};
use crate::broker::sessions::SHARED;

/// The group of all queues. Consumers of Kafka's share groups may join it.
pub const QUEUES: &str = "queue";
/// What the ids of subscriptions begin with that outlive their consumers.
pub const KEPT_SUBSCRIPTIONS: &str = "sub:";
/// What the ids of subscriptions begin with that end with their last consumer.
pub const VOLATILE_SUBSCRIPTIONS: &str = "sub~";
/// The setting that names a group's dead letter topic.
pub const DEAD_LETTER_TOPIC: &str = "errors.deadletterqueue.topic.name";
const COPY_RECORD: &str = "errors.deadletterqueue.copy.record.enable";

/// Where a group begins in a partition that it has not read yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// With the next record.
    Latest,
    /// With the first that there is.
    Earliest,
    /// With the first that is not older.
    Age(Duration),
}

/// A group's settings as they are in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupSettings {
    /// See [`Reset`].
    pub reset: Reset,
    /// How long records are held.
    pub lock: Duration,
    /// How often members are to be heard of.
    pub heartbeat: Duration,
    /// After how long unheard they are members no more.
    pub session: Duration,
    /// What bounds deliveries.
    pub limits: Limits,
    /// Whether holding on is allowed.
    pub renews: bool,
    /// Whether dead letters have what the records have, beside the reason.
    pub copies_dead: bool,
}

/// A row of the table.
pub struct GroupSetting {
    /// Kafka's name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// The value where none is set; see [`GroupSetting::default_of`].
    pub default: &'static str,
    /// What it means.
    pub doc: &'static str,
    apply: fn(&str, &mut GroupSettings) -> Option<()>,
}

/// A value that a setting cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Invalid value {value} for configuration {name}")]
pub struct InvalidGroupSetting {
    /// The setting.
    pub name: &'static str,
    /// The value.
    pub value: String,
}

/// All of them, in the order of names.
pub static GROUP_SETTINGS: &[GroupSetting] = &[
    GroupSetting {
        name: COPY_RECORD,
        kind: Kind::Boolean,
        default: "false",
        doc: "Whether a dead letter has key, value and headers of the record, or only the headers that say which it was and why. The default is true for the group queue, and for subscriptions of AMQP and MQTT clients.",
        apply: |value, settings| {
            settings.copies_dead = value.parse().ok()?;
            Some(())
        },
    },
    GroupSetting {
        name: DEAD_LETTER_TOPIC,
        kind: Kind::String,
        default: "",
        doc: "The topic that gets a dead letter for each record that is rejected, or was delivered as often as it may be. It must have errors.deadletterqueue.group.enable=true. Empty: none; such records are archived, counted as dropped, and stand in the loss ledger.",
        apply: |value, _| {
            let is_taken = value.is_empty() || TopicName::parse(value).is_ok();
            // Kafka's: topics of the broker's own take none.
            (is_taken && !value.starts_with("__")).then_some(())
        },
    },
    GroupSetting {
        name: "share.auto.offset.reset",
        kind: Kind::String,
        default: "latest",
        doc: "Where a share group begins in a partition that it has not read: latest, earliest, or by_duration: and an age in the form of ISO 8601.",
        apply: |value, settings| {
            settings.reset = reset_of(value)?;
            Some(())
        },
    },
    GroupSetting {
        name: "share.delivery.count.limit",
        kind: Kind::Int,
        default: "5",
        doc: "So often a record is delivered to a share group at most. After that it is given up. 2 to 25.",
        apply: |value, settings| {
            settings.limits.deliveries_max = within(value, 2..=25)?;
            Some(())
        },
    },
    GroupSetting {
        name: "share.heartbeat.interval.ms",
        kind: Kind::Int,
        default: "5000",
        doc: "How often members of a share group are told to be heard of. 1000 to 60000.",
        apply: |value, settings| {
            settings.heartbeat = Duration::from_millis(within(value, 1_000..=60_000)?);
            Some(())
        },
    },
    GroupSetting {
        name: "share.isolation.level",
        kind: Kind::String,
        default: "read_uncommitted",
        doc: "Whether records of transactions that are open or aborted are left out. There are no transactions, so that both values give the same.",
        apply: |value, _| matches!(value, "read_uncommitted" | "read_committed").then_some(()),
    },
    GroupSetting {
        name: "share.partition.max.record.locks",
        kind: Kind::Int,
        default: "2000",
        doc: "So many records of a partition are held by members of a share group at most. 100 to 10000.",
        apply: |value, settings| {
            settings.limits.held_max = within(value, 100..=10_000)?;
            Some(())
        },
    },
    GroupSetting {
        name: "share.record.lock.duration.ms",
        kind: Kind::Int,
        default: "30000",
        doc: "How long a member of a share group holds a record. Who has not settled it by then loses it to others. 1000 to 3600000.",
        apply: |value, settings| {
            settings.lock = Duration::from_millis(within(value, 1_000..=3_600_000)?);
            Some(())
        },
    },
    GroupSetting {
        name: "share.renew.acknowledge.enable",
        kind: Kind::Boolean,
        default: "true",
        doc: "Whether members of a share group may hold records on.",
        apply: |value, settings| {
            settings.renews = value.parse().ok()?;
            Some(())
        },
    },
    GroupSetting {
        name: "share.session.timeout.ms",
        kind: Kind::Int,
        default: "45000",
        doc: "After how long unheard somebody is no member of a share group any more. 1000 to 3600000.",
        apply: |value, settings| {
            settings.session = Duration::from_millis(within(value, 1_000..=3_600_000)?);
            Some(())
        },
    },
];

fn within<T: std::str::FromStr + PartialOrd>(
    value: &str,
    range: std::ops::RangeInclusive<T>,
) -> Option<T> {
    value.parse().ok().filter(|value| range.contains(value))
}

fn reset_of(value: &str) -> Option<Reset> {
    match value {
        "latest" => return Some(Reset::Latest),
        "earliest" => return Some(Reset::Earliest),
        _ => {}
    }
    let span: jiff::Span = value.strip_prefix("by_duration:")?.parse().ok()?;
    let days = jiff::SpanRelativeTo::days_are_24_hours();
    let age = Duration::try_from(span.to_duration(days).ok()?).ok()?;
    Some(Reset::Age(age))
}

impl GroupSetting {
    /// The row of this name.
    pub fn find(name: &str) -> Option<&'static GroupSetting> {
        GROUP_SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// The value where none is set for this group.
    pub fn default_of(&self, group: &str) -> &'static str {
        match self.name == COPY_RECORD && is_of_messages(group) {
            true => "true",
            false => self.default,
        }
    }

    fn put(&self, value: &str, settings: &mut GroupSettings) -> Result<(), InvalidGroupSetting> {
        let done = (self.apply)(value, settings);
        done.ok_or_else(|| InvalidGroupSetting {
            name: self.name,
            value: value.to_owned(),
        })
    }
}

/// Whether its consumers speak of messages: a message without its body is of no use to them.
fn is_of_messages(group: &str) -> bool {
    group == QUEUES
        || group.starts_with(KEPT_SUBSCRIPTIONS)
        || group.starts_with(VOLATILE_SUBSCRIPTIONS)
        || group.starts_with(SHARED)
}

impl GroupSettings {
    /// Those of a group for which nothing is set.
    pub fn defaults(group: &str) -> GroupSettings {
        let mut settings = GroupSettings {
            reset: Reset::Latest,
            lock: Duration::ZERO,
            heartbeat: Duration::ZERO,
            session: Duration::ZERO,
            limits: Limits {
                deliveries_max: 0,
                held_max: 0,
                runs_max: RUNS_MAX,
            },
            renews: false,
            copies_dead: false,
        };
        for row in GROUP_SETTINGS {
            row.put(row.default_of(group), &mut settings)
                .expect("defaults are values");
        }
        settings
    }

    /// The group's defaults, with these values over them. Names that this release does not know are passed over.
    pub fn of(
        group: &str,
        values: &[(String, String)],
    ) -> Result<GroupSettings, InvalidGroupSetting> {
        let mut settings = GroupSettings::defaults(group);
        for (name, value) in values {
            if let Some(row) = GroupSetting::find(name) {
                row.put(value, &mut settings)?;
            }
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_take_effect_and_others_are_refused() {
        let of = |name: &str, value: &str| GroupSettings::of("g", &[(name.into(), value.into())]);
        let day = Duration::from_secs(24 * 60 * 60);
        for (value, reset) in [
            ("earliest", Reset::Earliest),
            ("by_duration:P1D", Reset::Age(day)),
            ("by_duration:PT24H", Reset::Age(day)),
        ] {
            assert_eq!(
                of("share.auto.offset.reset", value).map(|it| it.reset),
                Ok(reset)
            );
        }
        let lock = of("share.record.lock.duration.ms", "2000").map(|it| it.lock);
        assert_eq!(lock, Ok(Duration::from_secs(2)));
        let count = of("share.delivery.count.limit", "7").map(|it| it.limits.deliveries_max);
        assert_eq!(count, Ok(7));
        for (name, value) in [
            ("share.auto.offset.reset", "none"),
            ("share.auto.offset.reset", "by_duration:-PT1H"),
            ("share.auto.offset.reset", "by_duration:P1M"),
            ("share.record.lock.duration.ms", "1"),
            ("share.isolation.level", "serializable"),
            ("share.renew.acknowledge.enable", "yes"),
            ("share.partition.max.record.locks", "99"),
            ("errors.deadletterqueue.topic.name", "no topic"),
            ("errors.deadletterqueue.topic.name", "__consumer_offsets"),
            ("errors.deadletterqueue.copy.record.enable", "1"),
        ] {
            assert!(of(name, value).is_err(), "{name}={value}");
        }
        let names: Vec<_> = GROUP_SETTINGS.iter().map(|row| row.name).collect();
        assert!(names.is_sorted());
        let dead = of("errors.deadletterqueue.topic.name", "dlq.g").expect("a topic");
        assert!(!dead.copies_dead);
        assert!(GroupSettings::defaults(QUEUES).copies_dead);
        assert!(GroupSettings::defaults("sub:c:n").copies_dead);
        assert!(GroupSettings::defaults("$share/n/f").copies_dead);
        let default = GroupSettings::defaults("g");
        assert_eq!(
            (default.lock, default.limits),
            (Duration::from_secs(30), Limits::default())
        );
    }
}
