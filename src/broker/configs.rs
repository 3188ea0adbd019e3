//! Settings as clients see and change them: of topics, and of the broker.
//! Callers: fronts. The settings themselves are `model::topic_config`'s table and the server's own, `server_settings`.
//! Invariants: a change that is accepted is durable and in force when it is answered, for every topic that it reaches.
//! Settings that need a restart are shown and never changed.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use model::topic_config::{self, Defaults, Kind, SETTINGS, Setting, TopicConfig};

use super::access::{Cluster, Granted, Group, right};
use super::catalog::{Owned, Topic};
use super::changes::Touched;
use super::dynamic::{DynamicSettings, unknown_of_broker};
use super::records::{BrokerSettings, Record};
use super::refusal::InvalidSetting;
use super::server_settings::ServerSetting;
use super::share::{GROUP_SETTINGS, GroupSetting, GroupSettings, ShareError};
use super::{Broker, Refusal};

/// The one topic setting whose bound is the store's.
const MAX_MESSAGE_BYTES: &str = "max.message.bytes";

/// Whose settings, with the right to see or to change them.
pub enum Resource<'a, R> {
    /// A topic's.
    Topic(Granted<Arc<Topic>, R>),
    /// This broker's own.
    Broker(Granted<Cluster, R>),
    /// Those of all brokers of the cluster; the broker's own go first.
    Cluster(Granted<Cluster, R>),
    /// How much this broker logs.
    Loggers(Granted<Cluster, R>),
    /// A group's: those of groups that share records. Other groups have none.
    Group(Granted<Group<'a>, R>),
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Set on the topic.
    Topic,
    /// Set on this broker while it ran.
    Broker,
    /// Set for all brokers while they ran.
    Cluster,
    /// Given at the start.
    Static,
    /// Nobody set it.
    Default,
    /// A level of the log.
    Logger,
    /// Set on the group.
    Group,
}

/// One setting's value in one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synonym {
    /// The name in that place.
    pub name: String,
    /// The value there.
    pub value: String,
    /// The place.
    pub origin: Origin,
}

/// One setting as it is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Where the value comes from.
    pub origin: Origin,
    /// Whether a client cannot change it.
    pub read_only: bool,
    /// Its type.
    pub kind: Kind,
    /// Every place that gives it a value, the one in force first.
    pub synonyms: Vec<Synonym>,
    /// What it means.
    pub doc: String,
}

/// One change of one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alteration {
    /// The setting's name.
    pub name: String,
    /// What to do with it.
    pub operation: Operation,
}

/// What to do with a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Give it this value.
    Set(String),
    /// Take the value away, so that the next place's is in force.
    Delete,
    /// Add to a list.
    Append(String),
    /// Remove from a list.
    Subtract(String),
}

impl Broker {
    /// The settings of a resource, those that are named, or all.
    pub fn describe_configs(
        &self,
        resource: &Resource<'_, right::DescribeConfigs>,
        names: Option<&[String]>,
    ) -> Vec<Entry> {
        let entries = match resource {
            Resource::Topic(topic) => self.describe_topic_configs(topic),
            Resource::Broker(_) => {
                let mut entries = self.describe_defaults(false);
                entries.extend(self.describe_server(false));
                entries.sort_by(|one, other| one.name.cmp(&other.name));
                entries
            }
            Resource::Cluster(_) => {
                let mut entries = self.describe_defaults(true);
                entries.extend(self.describe_server(true));
                entries
            }
            Resource::Loggers(_) => vec![log_level()],
            Resource::Group(group) => self.describe_group_configs(group.id()),
        };
        let wanted = |entry: &Entry| names.is_none_or(|names| names.contains(&entry.name));
        entries.into_iter().filter(wanted).collect()
    }

    /// The settings of a topic that was created by who asks.
    pub fn describe_new_topic(&self, topic: &Granted<Arc<Topic>, right::Create>) -> Vec<Entry> {
        self.describe_topic_configs(topic)
    }

    fn describe_group_configs(&self, group: &str) -> Vec<Entry> {
        let values: BTreeMap<String, String> = self.shares().values(group).into_iter().collect();
        let entry = |setting: &GroupSetting| {
            let place = |value: &str, origin| Synonym {
                name: setting.name.to_owned(),
                value: value.to_owned(),
                origin,
            };
            let own = values.get(setting.name);
            let own = own.map(|value| place(value, Origin::Group));
            let default = place(setting.default_of(group), Origin::Default);
            let synonyms: Vec<Synonym> = own.into_iter().chain([default]).collect();
            Entry {
                name: setting.name.to_owned(),
                value: synonyms[0].value.clone(),
                origin: synonyms[0].origin,
                read_only: false,
                kind: setting.kind,
                synonyms,
                doc: setting.doc.to_owned(),
            }
        };
        GROUP_SETTINGS.iter().map(entry).collect()
    }

    /// Puts settings of a group in force.
    async fn change_group(
        &self,
        (group, maker): (&str, Option<&str>),
        validate_only: bool,
        change: impl FnOnce(Values<'_>) -> Result<BTreeMap<String, String>, Refusal>,
    ) -> Result<(), Refusal> {
        // One change of any group's settings at a time: each is made of what is in force.
        let _turn = self.shared.changes.alone().await;
        let own: BTreeMap<String, String> = self.shares().values(group).into_iter().collect();
        let defaults = self.topic_defaults();
        let changed = change(Values {
            own: &own,
            defaults: &defaults,
            row: |_| None,
        })?;
        for name in changed.keys() {
            if GroupSetting::find(name).is_none() {
                return Err(InvalidSetting::Unknown { name: name.clone() }.into());
            }
        }
        let values: Vec<(String, String)> = changed.into_iter().collect();
        let settings = GroupSettings::of(group, &values).map_err(InvalidSetting::from)?;
        if validate_only {
            return Ok(());
        }
        let configured = { self.shares() }
            .configure((group, maker), values, settings)
            .await;
        configured.map_err(|error| match error {
            ShareError::NotAvailable => Refusal::DiskFull,
            error => InvalidSetting::Group(error).into(),
        })
    }

    fn describe_topic_configs(&self, topic: &Topic) -> Vec<Entry> {
        SETTINGS
            .iter()
            .map(|setting| {
                let own = topic.overrides.get(setting.name).map(|value| Synonym {
                    name: setting.name.into(),
                    value: value.clone(),
                    origin: Origin::Topic,
                });
                let synonyms = own.into_iter().chain(self.synonyms(setting)).collect();
                entry(setting, setting.name, synonyms)
            })
            .collect()
    }

    /// The topic defaults of this broker, or only those made for the cluster.
    fn describe_defaults(&self, cluster_only: bool) -> Vec<Entry> {
        SETTINGS
            .iter()
            .filter(|setting| !setting.server_name.is_empty())
            .filter_map(|setting| {
                let mut synonyms = self.synonyms(setting);
                if cluster_only {
                    synonyms.retain(|synonym| synonym.origin == Origin::Cluster);
                }
                (!synonyms.is_empty()).then(|| entry(setting, setting.server_name, synonyms))
            })
            .collect()
    }

    /// The server's own settings, or only those made for the cluster.
    fn describe_server(&self, cluster_only: bool) -> Vec<Entry> {
        let dynamic = self
            .shared
            .dynamic
            .read()
            .expect("no change of settings panics half-way");
        let entry = |setting| {
            let mut synonyms = server_synonyms(setting, &dynamic.settings);
            synonyms.retain(|synonym| !cluster_only || synonym.origin == Origin::Cluster);
            let first = synonyms.first()?.clone();
            Some(Entry {
                name: first.name,
                value: first.value,
                origin: first.origin,
                read_only: !setting.is_live,
                kind: setting.kind,
                synonyms,
                doc: setting.doc.to_owned(),
            })
        };
        self.shared.server.iter().filter_map(entry).collect()
    }

    /// Every place but the topic that gives a setting a value, the one in force first.
    fn synonyms(&self, setting: &'static Setting) -> Vec<Synonym> {
        let dynamic = self
            .shared
            .dynamic
            .read()
            .expect("no change of settings panics half-way");
        let name = if setting.server_name.is_empty() {
            setting.name
        } else {
            setting.server_name
        };
        let place = |value: Option<&str>, origin| {
            value.map(|value| Synonym {
                name: name.to_owned(),
                value: value.to_owned(),
                origin,
            })
        };
        [
            place(
                dynamic.settings.broker.get(name).map(String::as_str),
                Origin::Broker,
            ),
            place(
                dynamic.settings.cluster.get(name).map(String::as_str),
                Origin::Cluster,
            ),
            place(
                self.config().topic_defaults.get(setting.name),
                Origin::Static,
            ),
            place(Some(setting.default), Origin::Default),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Applies changes to a resource's settings, all or none. `validate_only` changes nothing.
    pub async fn alter_configs(
        &self,
        resource: &Resource<'_, right::AlterConfigs>,
        alterations: Vec<Alteration>,
        validate_only: bool,
    ) -> Result<(), Refusal> {
        self.change_configs(resource, validate_only, |before| {
            altered(before, alterations)
        })
        .await
    }

    /// Replaces all of a resource's settings.
    pub async fn replace_configs(
        &self,
        resource: &Resource<'_, right::AlterConfigs>,
        settings: BTreeMap<String, String>,
        validate_only: bool,
    ) -> Result<(), Refusal> {
        self.change_configs(resource, validate_only, |_| Ok(settings))
            .await
    }

    async fn change_configs(
        &self,
        resource: &Resource<'_, right::AlterConfigs>,
        validate_only: bool,
        change: impl FnOnce(Values<'_>) -> Result<BTreeMap<String, String>, Refusal>,
    ) -> Result<(), Refusal> {
        match resource {
            Resource::Loggers(_) => Err(InvalidSetting::LogLevel.into()),
            Resource::Group(group) => {
                let group = (group.id(), group.maker());
                self.change_group(group, validate_only, change).await
            }
            Resource::Topic(topic) => {
                let turn = self.shared.changes.turn([Touched::Topic(topic.id)]).await;
                let topic = self.current(topic)?;
                let defaults = self.topic_defaults();
                let overrides = change(Values {
                    own: &topic.overrides,
                    defaults: &defaults,
                    row: Setting::find,
                })?;
                let overrides = normalized(&overrides)?;
                self.topic_config(&overrides)?;
                self.check_batch_bytes(&overrides)?;
                let before = Owned::of(topic.partition_count(), &topic.overrides);
                let more = Owned::of(topic.partition_count(), &overrides).beyond(before);
                self.take_room(&mut self.room(), topic.owner.as_ref(), more)?;
                if !validate_only {
                    self.replace_overrides(turn, &topic, overrides).await?;
                }
                Ok(())
            }
            Resource::Broker(_) | Resource::Cluster(_) => {
                // They are defaults of every topic: held until they are in force.
                let _turn = self.shared.changes.alone().await;
                let mut settings = self
                    .shared
                    .dynamic
                    .read()
                    .expect("no change of settings panics half-way")
                    .settings
                    .clone();
                let part = match resource {
                    Resource::Cluster(_) => &mut settings.cluster,
                    _ => &mut settings.broker,
                };
                let defaults = self.topic_defaults();
                let changed = change(Values {
                    own: part,
                    defaults: &defaults,
                    row: Setting::find_by_server_name,
                })?;
                *part = changed
                    .into_iter()
                    .map(|(name, value)| self.dynamic_value(name, &value))
                    .collect::<Result<_, _>>()?;
                self.check_settings_bytes(part)?;
                self.change_defaults(settings, validate_only).await
            }
        }
    }

    /// Checks a broker setting that is to change while the broker runs.
    fn dynamic_value(&self, name: String, value: &str) -> Result<(String, String), Refusal> {
        let server = &self.shared.server;
        match server.find(&name) {
            Some(setting) if setting.is_live => {
                let checked = server.check(setting, value);
                return Ok((name, checked.map_err(InvalidSetting::from)?));
            }
            Some(_) => return Err(Refusal::SettingNeedsRestart { name }),
            None => {}
        }
        let setting =
            Setting::find_by_server_name(&name).ok_or_else(|| unknown_of_broker(&name))?;
        let value = setting.check(value).map_err(InvalidSetting::from)?;
        self.check_batch(setting.name, &value)?;
        Ok((name, value))
    }

    /// Whether these settings of a topic are not too many, and the store takes the batches that they allow.
    pub(super) fn check_batch_bytes(
        &self,
        overrides: &BTreeMap<String, String>,
    ) -> Result<(), Refusal> {
        self.check_settings_bytes(overrides)?;
        overrides
            .iter()
            .try_for_each(|(name, value)| self.check_batch(name, value))
    }

    /// Refuses settings that are longer than what is kept for one resource.
    fn check_settings_bytes(&self, settings: &BTreeMap<String, String>) -> Result<(), Refusal> {
        let bytes_max = self.config().settings_bytes_max;
        let sizes = settings
            .iter()
            .map(|(name, value)| name.len() + value.len());
        let bytes: usize = sizes.sum();
        if bytes <= bytes_max {
            return Ok(());
        }
        Err(InvalidSetting::TooLong { bytes, bytes_max }.into())
    }

    /// Refuses a `max.message.bytes` that the store could not keep.
    fn check_batch(&self, name: &str, value: &str) -> Result<(), Refusal> {
        let bytes_max = self.shared.storage.batch_bytes_max();
        let bytes: Option<u64> = value
            .trim()
            .parse()
            .ok()
            .filter(|_| name == MAX_MESSAGE_BYTES);
        match bytes {
            Some(bytes) if bytes > bytes_max => Err(InvalidSetting::BatchesTooLarge {
                name: MAX_MESSAGE_BYTES,
                bytes,
                bytes_max,
            }
            .into()),
            _ => Ok(()),
        }
    }

    /// Puts new topic defaults in force. The caller has the turn alone.
    async fn change_defaults(
        &self,
        settings: BrokerSettings,
        validate_only: bool,
    ) -> Result<(), Refusal> {
        let server = &self.shared.server;
        let dynamic = DynamicSettings::new(self.config(), server, settings.clone())?;
        let topics = self.topics();
        for topic in &topics {
            TopicConfig::from_overrides(&topic.overrides, &dynamic.defaults).map_err(|error| {
                InvalidSetting::TopicContradicts {
                    topic: topic.name.clone(),
                    error,
                }
            })?;
        }
        if validate_only {
            return Ok(());
        }
        self.shared
            .metadata
            .write(
                &Record::BrokerSettings(settings),
                storage::Purpose::Settings,
            )
            .await
            .map_err(super::state_refusal)?;
        server.put_in_force(&dynamic.of_server(server));
        *self
            .shared
            .dynamic
            .write()
            .expect("no change of settings panics half-way") = dynamic;
        topics.iter().try_for_each(|topic| self.refresh(topic))
    }

    /// What topics without settings of their own use now.
    pub(super) fn topic_defaults(&self) -> Arc<Defaults> {
        self.shared
            .dynamic
            .read()
            .expect("no change of settings panics half-way")
            .defaults
            .clone()
    }

    /// The typed settings of a topic with these overrides.
    pub(super) fn topic_config(
        &self,
        overrides: &BTreeMap<String, String>,
    ) -> Result<TopicConfig, Refusal> {
        let config = TopicConfig::from_overrides(overrides, &self.topic_defaults());
        config.map_err(|error| InvalidSetting::from(error).into())
    }
}

/// Overrides with each value in its one spelling.
pub(super) fn normalized(
    overrides: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Refusal> {
    topic_config::normalize(overrides).map_err(|error| InvalidSetting::from(error).into())
}

/// A resource's own values, and what is in force where it has none.
struct Values<'a> {
    own: &'a BTreeMap<String, String>,
    defaults: &'a Defaults,
    row: fn(&str) -> Option<&'static Setting>,
}

fn altered(
    before: Values<'_>,
    alterations: Vec<Alteration>,
) -> Result<BTreeMap<String, String>, Refusal> {
    let mut after = before.own.clone();
    let mut seen = HashSet::new();
    for Alteration { name, operation } in alterations {
        if !seen.insert(name.clone()) {
            return Err(Refusal::SettingAlteredTwice { name });
        }
        match operation {
            Operation::Set(value) => {
                after.insert(name, value);
            }
            Operation::Delete => {
                after.remove(&name);
            }
            Operation::Append(items) => {
                let value = list(&before, &name)?;
                after.insert(name, topic_config::list_append(&value, &items));
            }
            Operation::Subtract(items) => {
                let value = list(&before, &name)?;
                after.insert(name, topic_config::list_subtract(&value, &items));
            }
        }
    }
    Ok(after)
}

/// The list in force under a name.
fn list(before: &Values<'_>, name: &str) -> Result<String, Refusal> {
    let named = || name.to_owned();
    let setting = (before.row)(name).ok_or_else(|| InvalidSetting::Unknown { name: named() })?;
    if setting.kind != Kind::List {
        return Err(InvalidSetting::NotList { name: named() }.into());
    }
    let value = before
        .own
        .get(name)
        .map(String::as_str)
        .or_else(|| before.defaults.get(setting.name));
    Ok(value.unwrap_or(setting.default).to_owned())
}

fn entry(setting: &'static Setting, name: &str, synonyms: Vec<Synonym>) -> Entry {
    let first = synonyms.first().expect("the default is always a synonym");
    Entry {
        name: name.to_owned(),
        value: first.value.clone(),
        origin: first.origin,
        read_only: false,
        kind: setting.kind,
        doc: match setting.holds {
            topic_config::Holds::Enforced => setting.doc.to_owned(),
            topic_config::Holds::HoldsTrivially(reason) => {
                format!("{} No effect here: {reason}.", setting.doc)
            }
            topic_config::Holds::Refused(reason) => {
                format!("{} Only the default is accepted: {reason}.", setting.doc)
            }
        },
        synonyms,
    }
}

/// The one logger that there is, under the name that Kafka gives to the one above all others.
fn log_level() -> Entry {
    Entry {
        name: "root".to_owned(),
        value: tracing::level_filters::LevelFilter::current()
            .to_string()
            .to_uppercase(),
        origin: Origin::Logger,
        read_only: true,
        kind: Kind::String,
        synonyms: Vec::new(),
        doc: "The most detailed level that any part of the broker logs. ALLUVIUM_LOG sets it at the start."
            .to_owned(),
    }
}

/// Every place that gives a setting of the server a value, the one in force first.
fn server_synonyms(setting: &ServerSetting, set: &BrokerSettings) -> Vec<Synonym> {
    let place = |value: Option<&str>, origin| {
        value.map(|value| Synonym {
            name: setting.name.to_owned(),
            value: value.to_owned(),
            origin,
        })
    };
    let given = Some(setting.given.as_str()).filter(|given| *given != setting.default);
    let places = [
        place(
            set.broker.get(setting.name).map(String::as_str),
            Origin::Broker,
        ),
        place(
            set.cluster.get(setting.name).map(String::as_str),
            Origin::Cluster,
        ),
        place(given, Origin::Static),
        // What only a start can change has one value, wherever it comes from.
        place(
            Some(setting.default).filter(|_| setting.is_live || given.is_none()),
            Origin::Default,
        ),
    ];
    places.into_iter().flatten().collect()
}
