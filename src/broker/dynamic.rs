//! The settings of this broker and of all brokers that were made while it ran, over those of its start.
//! Callers: `Broker::open`; `configs`, which changes them.

use std::sync::Arc;

use model::topic_config::{Defaults, Setting};

use super::Refusal;
use super::config::BrokerConfig;
use super::records::BrokerSettings;
use super::refusal::InvalidSetting;
use super::server_settings::{ServerSettings, SetValues};

/// The defaults that topics use, what of the broker's own settings may change, and where each came from.
#[derive(Debug)]
pub(super) struct DynamicSettings {
    pub(super) settings: BrokerSettings,
    pub(super) defaults: Arc<Defaults>,
}

impl DynamicSettings {
    /// Static defaults under those made for the cluster under those made for this broker.
    pub(super) fn new(
        config: &BrokerConfig,
        server: &ServerSettings,
        settings: BrokerSettings,
    ) -> Result<DynamicSettings, Refusal> {
        let mut defaults = config.topic_defaults.clone();
        for (name, value) in settings.cluster.iter().chain(&settings.broker) {
            if let Some(own) = server.find(name).filter(|own| own.is_live) {
                server.check(own, value).map_err(InvalidSetting::from)?;
                continue;
            }
            if Setting::find_by_server_name(name).is_none() {
                return Err(unknown_of_broker(name));
            }
            defaults.set(name, value).map_err(InvalidSetting::from)?;
        }
        Ok(DynamicSettings {
            settings,
            defaults: Arc::new(defaults),
        })
    }

    /// What of the server's own settings was set: those made for this broker go first.
    pub(super) fn of_server<'a>(&'a self, server: &ServerSettings) -> SetValues<'a> {
        let set = self.settings.cluster.iter().chain(&self.settings.broker);
        set.filter(|(name, _)| server.find(name).is_some())
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect()
    }
}

/// What is refused to who names a setting that the broker does not have.
pub(super) fn unknown_of_broker(name: &str) -> Refusal {
    let name = name.to_owned();
    InvalidSetting::UnknownOfBroker { name }.into()
}
