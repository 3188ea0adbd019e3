//! A broker for unit tests, over a small store that goes with it.

use std::ops::Deref;

use storage::{Env, Storage, StorageConfig};
use tempfile::TempDir;

use super::access::{AccessConfig, Authorizer, Caller, Door, Principal, Protocol};
use super::server_settings::ServerSettings;
use super::{Broker, BrokerConfig};

/// The broker, until it is dropped.
pub(crate) struct Scratch {
    broker: Broker,
    storage: Storage,
    _directory: TempDir,
}

impl Scratch {
    /// An empty one with default settings. Nobody runs its groups yet.
    pub(crate) fn new() -> Scratch {
        Scratch::with(BrokerConfig::default())
    }

    /// An empty one in which access is controlled, and `root` may do everything.
    pub(crate) fn with_access_control() -> Scratch {
        Scratch::with(BrokerConfig {
            access: AccessConfig {
                authorizer: Authorizer::Standard,
                super_users: vec!["root".to_owned()],
                everyone_if_none: false,
            },
            ..BrokerConfig::default()
        })
    }

    /// A door of that broker for a user.
    pub(crate) fn door_of_user(&self, name: &str, protocol: Protocol) -> Door {
        self.door(Caller {
            principal: Principal::User(name.into()),
            address: ([127, 0, 0, 1], 1).into(),
            client_id: None,
            protocol,
        })
    }

    /// An empty one with these settings.
    pub(crate) fn with(broker: BrokerConfig) -> Scratch {
        let directory = tempfile::tempdir().expect("a directory");
        let mut config = StorageConfig::new(directory.path());
        config.wal_file_bytes = 1 << 20;
        config.wal_files_min = 2;
        let (storage, _) = Storage::open(config, Env::real()).expect("a store");
        let broker = Broker::open(broker, ServerSettings::default(), |_| None, storage.clone());
        Scratch {
            broker: broker.expect("an empty store"),
            storage,
            _directory: directory,
        }
    }
}

impl Deref for Scratch {
    type Target = Broker;

    fn deref(&self) -> &Broker {
        &self.broker
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.storage.shutdown();
    }
}
