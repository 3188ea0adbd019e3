//! Settings of topics, brokers and groups.
//! Callers: whoever holds an [`Admin`]; the producer, for the one setting that bounds its batches.

use super::{Admin, LATEST};
use crate::error::check;
use crate::{Error, Result};
use std::time::Duration;
use wire::messages::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use wire::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};

/// What a configuration belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// A topic.
    Topic(String),
    /// A broker by id, or all brokers.
    Broker(Option<i32>),
    /// A consumer group.
    Group(String),
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Resource::Topic(name) => write!(f, "topic {name}"),
            Resource::Broker(Some(id)) => write!(f, "broker {id}"),
            Resource::Broker(None) => write!(f, "all brokers"),
            Resource::Group(name) => write!(f, "group {name}"),
        }
    }
}

impl Resource {
    fn to_wire(&self) -> (i8, String) {
        match self {
            Resource::Topic(name) => (2, name.clone()),
            Resource::Broker(id) => (4, id.map(|id| id.to_string()).unwrap_or_default()),
            Resource::Group(name) => (32, name.clone()),
        }
    }
}

/// A setting and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Kafka's name of the setting.
    pub name: String,
    /// Its value; none for one that is not shown or not set.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: ConfigSource,
    /// Whether it can only be set before the start.
    pub read_only: bool,
    /// Whether its value is not shown.
    pub sensitive: bool,
    /// What the broker says about it, if it was asked.
    pub documentation: Option<String>,
}

/// Where a setting's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// Set for this topic.
    Topic,
    /// Set for this broker while it runs.
    Broker,
    /// Set for all brokers while they run.
    DefaultBroker,
    /// From the broker's own file or command line.
    StaticBroker,
    /// Built in.
    Default,
    /// Set for this group.
    Group,
    /// Something else.
    Other(i8),
}

impl ConfigSource {
    fn from_wire(source: i8) -> ConfigSource {
        match source {
            1 => ConfigSource::Topic,
            2 => ConfigSource::Broker,
            3 => ConfigSource::DefaultBroker,
            4 => ConfigSource::StaticBroker,
            5 => ConfigSource::Default,
            8 => ConfigSource::Group,
            other => ConfigSource::Other(other),
        }
    }
}

/// A change of one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigChange {
    /// Set it.
    Set(String, String),
    /// Back to its default.
    Delete(String),
    /// Add to a list.
    Append(String, String),
    /// Take out of a list.
    Subtract(String, String),
}

impl Admin {
    /// All settings of a resource.
    pub async fn describe_configs(&self, resource: &Resource) -> Result<Vec<ConfigEntry>> {
        let (resource_type, resource_name) = resource.to_wire();
        let request = DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type,
                resource_name,
                configuration_keys: None,
            }],
            include_documentation: false,
            include_synonyms: false,
        };
        let answer = match resource {
            Resource::Broker(Some(id)) => self.call_broker(*id, &request, LATEST).await?,
            _ => self.call(&request, LATEST).await?,
        };
        let missing = || Error::Invalid(format!("the answer does not mention {resource:?}"));
        let result = answer.results.into_iter().next().ok_or_else(missing)?;
        check(
            result.error_code,
            || resource.to_string(),
            result.error_message.as_ref(),
        )?;
        let entry =
            |c: wire::messages::describe_configs::DescribeConfigsResourceResult| ConfigEntry {
                name: c.name,
                value: c.value,
                source: ConfigSource::from_wire(c.config_source),
                read_only: c.read_only,
                sensitive: c.is_sensitive,
                documentation: c.documentation,
            };
        Ok(result.configs.into_iter().map(entry).collect())
    }

    /// One setting of a resource, asked for once; none if the resource has no such setting.
    pub(crate) async fn setting(&self, resource: &Resource, name: &str) -> Result<Option<String>> {
        let (resource_type, resource_name) = resource.to_wire();
        let request = DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type,
                resource_name,
                configuration_keys: Some(vec![name.to_owned()]),
            }],
            include_documentation: false,
            include_synonyms: false,
        };
        let connection = self.client.any().await?;
        let pending = connection.start(&request, LATEST).await?;
        let answer = pending.wait(Duration::ZERO).await?;
        let Some(result) = answer.results.into_iter().next() else {
            return Ok(None);
        };
        check(
            result.error_code,
            || resource.to_string(),
            result.error_message.as_ref(),
        )?;
        let found = result
            .configs
            .into_iter()
            .find(|config| config.name == name);
        Ok(found.and_then(|config| config.value))
    }

    /// Changes settings of a resource; the others stay.
    pub async fn alter_configs(
        &self,
        resource: &Resource,
        changes: &[ConfigChange],
        validate_only: bool,
    ) -> Result<()> {
        let change = |change: &ConfigChange| {
            let (config_operation, name, value) = match change {
                ConfigChange::Set(name, value) => (0, name, Some(value)),
                ConfigChange::Delete(name) => (1, name, None),
                ConfigChange::Append(name, value) => (2, name, Some(value)),
                ConfigChange::Subtract(name, value) => (3, name, Some(value)),
            };
            AlterableConfig {
                name: name.clone(),
                config_operation,
                value: value.cloned(),
            }
        };
        let (resource_type, resource_name) = resource.to_wire();
        let configs = changes.iter().map(change).collect();
        let request = IncrementalAlterConfigsRequest {
            resources: vec![AlterConfigsResource {
                resource_type,
                resource_name,
                configs,
            }],
            validate_only,
        };
        let answer = match resource {
            Resource::Broker(Some(id)) => self.call_broker(*id, &request, LATEST).await?,
            _ => self.call(&request, LATEST).await?,
        };
        for result in &answer.responses {
            check(
                result.error_code,
                || resource.to_string(),
                result.error_message.as_ref(),
            )?;
        }
        Ok(())
    }
}
