//! The broker's own settings that can change while it runs; all others need a restart.
//! Callers: `configs`, which shows and changes them. What they say is in force at once: the storage reads it anew each time.

use std::collections::BTreeMap;
use std::time::Duration;

use model::topic_config::Kind;
use storage::LiveSettings;

/// A value that one of them cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}={value}: {reason}")]
pub struct InvalidLiveSetting {
    /// The setting.
    pub name: &'static str,
    /// The value that was given.
    pub value: String,
    /// What the value must be.
    pub reason: &'static str,
}

/// One of them.
pub(super) struct LiveSetting {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) doc: &'static str,
    pub(super) default: &'static str,
    /// Its value, as it is written.
    pub(super) get: fn(&LiveSettings) -> String,
    set: fn(&mut LiveSettings, &str) -> Result<(), &'static str>,
}

/// All of them, by name.
pub(super) const LIVE: &[LiveSetting] = &[
    LiveSetting {
        name: "log.retention.check.interval.ms",
        kind: Kind::Long,
        doc: "How often retention is checked, in milliseconds.",
        default: "300000",
        get: |live| live.retention_check.as_millis().to_string(),
        set: |live, value| {
            let ms = number(value).filter(|ms| *ms >= 100);
            live.retention_check =
                Duration::from_millis(ms.ok_or("must be a whole number, 100 or more")?);
            Ok(())
        },
    },
    LiveSetting {
        name: "scrub.bytes.per.second",
        kind: Kind::Long,
        doc: "How fast sealed segments are verified in the background; 0 switches it off.",
        default: "8388608",
        get: |live| live.scrub_bytes_per_second.to_string(),
        set: |live, value| {
            live.scrub_bytes_per_second = number(value).ok_or("must be a whole number")?;
            Ok(())
        },
    },
    LiveSetting {
        name: "store.bytes.max",
        kind: Kind::Long,
        doc: "Bytes of records that all topics keep together; -1 is any number.",
        default: "-1",
        get: |live| {
            live.store_bytes_max
                .map_or_else(|| "-1".to_owned(), |bytes| bytes.to_string())
        },
        set: |live, value| {
            let bytes = number(value).filter(|bytes| *bytes >= 1 << 20);
            live.store_bytes_max = match value.trim() {
                "-1" => None,
                _ => Some(bytes.ok_or("must be 1048576 or more, or -1")?),
            };
            Ok(())
        },
    },
];

/// Kafka's long is signed.
fn number(value: &str) -> Option<u64> {
    let number: i64 = value.trim().parse().ok()?;
    u64::try_from(number).ok()
}

/// The setting with this name.
pub(super) fn find(name: &str) -> Option<&'static LiveSetting> {
    LIVE.iter().find(|setting| setting.name == name)
}

/// What is in force: what the start gave, under what was set while running, in this order.
pub(super) fn in_force<'a>(
    given: LiveSettings,
    set: impl Iterator<Item = (&'a String, &'a String)>,
) -> Result<LiveSettings, InvalidLiveSetting> {
    let mut live = given;
    for (name, value) in set {
        if let Some(setting) = find(name) {
            (setting.set)(&mut live, value).map_err(|reason| InvalidLiveSetting {
                name: setting.name,
                value: value.clone(),
                reason,
            })?;
        }
    }
    Ok(live)
}

/// Whether the value may be; in its one spelling.
pub(super) fn check(
    given: LiveSettings,
    setting: &LiveSetting,
    value: &str,
) -> Result<String, InvalidLiveSetting> {
    let set = BTreeMap::from([(setting.name.to_owned(), value.to_owned())]);
    in_force(given, set.iter()).map(|live| (setting.get)(&live))
}
