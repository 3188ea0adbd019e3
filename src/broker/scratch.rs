//! A broker for unit tests, over a small store that goes with it.

use std::ops::Deref;

use model::LogId;
use model::batch::Batch;
use model::topic_config::TopicConfig;
use storage::cleanup::Policy;
use storage::cleanup::run::{Progress, RunOptions};
use storage::{AppendBatch, Env, LogSettings, Storage, StorageConfig};
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

    /// Appends a batch to a partition, however it may be called, and waits until it is durable.
    pub(crate) async fn append_batch(&self, log: LogId, batch: Batch) {
        let admission = self.storage.admit(batch.bytes().len()).await;
        let log = self.storage.log(log).expect("it is there");
        let appended = log.append(vec![AppendBatch::from(batch)], admission);
        let durable = appended.expect("a good batch").durable;
        durable.await.expect("a disk");
    }

    /// Has a partition's segments compacted once; they have so many bytes from now on. Gives how many records went.
    pub(crate) fn compact(&self, log: LogId, segment_bytes: u64) -> u64 {
        let settings = |compaction| LogSettings {
            compaction,
            segment_bytes,
            ..LogSettings::from(&TopicConfig::default())
        };
        let compacted = Some(TopicConfig::default().compaction);
        self.storage.set_settings(log, settings(compacted));
        let options = RunOptions {
            now: true,
            ..RunOptions::default()
        };
        let (policy, progress) = (Policy::Compaction, Progress::default());
        let ran = self.storage.run_cleanup(log, policy, options, &progress);
        // Nothing goes of itself later.
        self.storage.set_settings(log, settings(None));
        ran.expect("a run").records_removed
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
