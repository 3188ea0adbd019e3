//! The broker's service, free of any protocol's words: topics, produce, fetch, offsets, settings, groups.
//! Callers: the fronts, which translate their protocols to it. Below it: `storage` and nothing else.
//! Invariants: what is answered is durable; what is refused changed nothing. No lock is held over an await but the turn
//! of `changes`, in which changes of topics and settings are planned and appended one at a time.

pub mod access;
pub mod allowance;
pub mod audit;
mod blocking;
mod catalog;
mod changes;
pub mod cleanup;
pub mod config;
mod configs;
mod coordination;
pub mod credentials;
mod dynamic;
pub mod erasures;
mod fetch;
pub mod groups;
pub mod holds;
mod inflation;
mod lag;
mod list_offsets;
mod log_dirs;
pub mod losses;
mod metrics;
mod node;
pub mod once;
pub mod open_readers;
mod per_principal;
pub mod place;
mod produce;
mod producer_ids;
pub mod publish;
pub mod quotas;
pub mod ranges;
mod records;
mod refusal;
pub mod replay;
pub mod retained;
pub mod schemas;
#[cfg(test)]
pub(crate) mod scratch;
pub mod server_settings;
pub mod sessions;
pub mod settings;
pub mod share;
mod state_log;
mod stored;
mod topics;
mod traffic;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, RwLock};

use model::state_log::StateLogKind;
use model::topic_config::TopicConfig;
use model::{LeaderEpoch, LogId, Timestamp, TopicId, TopicName};
use storage::cleanup::removed::Noted;
use storage::{Fate, LogSettings, Storage};
use tokio::sync::watch;

pub use catalog::{Topic, TopicKey};
pub use config::{BrokerConfig, GroupConfig};
pub use configs::{Alteration, Entry, Operation, Origin, Resource, Synonym};
pub use fetch::{Fetch, FetchPartition, Fetched, Idle, Watch};
pub use lag::{GroupLag, GroupLags};
pub use list_offsets::{FoundOffset, OffsetQuery};
pub use log_dirs::{DeleteBefore, LogDir, PartitionShape, PartitionSize};
pub use node::NodeId;
pub use produce::{Acks, Appending, KnownCodecs, Produce, RecordError, RecordFault, Rejection};
pub use producer_ids::ActiveProducer;
pub use refusal::{
    InternalOperation, InvalidAssignment, InvalidPartitions, InvalidRecord,
    InvalidReplicationFactor, InvalidSetting, InvalidTimestamp, Refusal, StorageFault,
    TooManyPartitions, UnsupportedCompression,
};
pub use server_settings::ServerSettings;
pub use state_log::StateLogError;
pub use storage::{
    AppendWaits, Bounds, CompactionMetrics, Damage, Health, Metrics as StorageMetrics,
    SYNC_BUCKETS_MICROS, SequenceError, SyncDurations,
};
pub use topics::{Assignment, Layout, NewTopic, REPLICATION_FACTOR};
pub use traffic::Traffic;

pub(in crate::broker) use blocking::on_blocking_pool;
pub(in crate::broker) use refusal::{append_refusal, out_of_range, read_refusal, state_refusal};

use catalog::Catalog;
use changes::Changes;
use coordination::RuntimeTask;
use dynamic::DynamicSettings;
use groups::{Coordinator, CoordinatorTask};
use producer_ids::{Block, ProducerIds};
use records::{BrokerSettings, Record, TopicRecord, UnknownRecord};
use state_log::{Replayed, StateLog};

/// A running broker. Cheap to clone.
#[derive(Clone)]
pub struct Broker {
    shared: Arc<Shared>,
}

struct Shared {
    config: BrokerConfig,
    server: ServerSettings,
    storage: Storage,
    metadata: StateLog<Record>,
    catalog: Catalog,
    dynamic: RwLock<DynamicSettings>,
    producer_ids: ProducerIds,
    groups: Coordinator,
    shares: share::Shares,
    /// Until `run` takes them.
    tasks: Mutex<Option<Tasks>>,
    /// Changes of topics and settings that are under way.
    changes: Changes,
    bounds_of_one: per_principal::BoundsOfOne,
    inflation: inflation::Inflation,
    /// What bounds those who replay and follow.
    readers: replay::Readers,
    lag_times: lag::LagTimes,
    cleanup: cleanup::Cleanup,
    holds: holds::Holds,
    losses: losses::Losses,
    open_readers: Arc<open_readers::OpenReaders>,
    schemas: schemas::Schemas,
    onces: once::Onces,
    retained: retained::RetainedMessages,
    sessions: sessions::Sessions,
    /// What is published and not appended yet.
    lanes: publish::Lanes,
    erasures: erasures::Erasures,
    access: access::Access,
    audit: audit::Audit,
    quotas: quotas::Quotas,
    credentials: credentials::Credentials,
    /// Batches that were refused.
    refused: AtomicU64,
}

/// The coordinators' own work.
struct Tasks {
    groups: CoordinatorTask,
    producer_ids: RuntimeTask<Block>,
    shares: share::SharesTask,
}

/// Why a broker does not start. Nothing was deleted because of it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The metadata log cannot be read.
    #[error(transparent)]
    StateLog(#[from] StateLogError),
    /// The metadata says something that this version does not understand.
    #[error(transparent)]
    Record(#[from] UnknownRecord),
    /// The groups' log says something that this version does not understand.
    #[error("consumer groups: {0}")]
    Groups(#[from] groups::GroupsError),
    /// The shared subscriptions' log says something that this version does not understand.
    #[error("shared subscriptions: {0}")]
    Shares(#[from] share::SharesError),
    /// The holds say something that this version does not understand.
    #[error("holds: {0}")]
    Holds(#[from] holds::HoldsError),
    /// The loss ledger says something that this version does not understand.
    #[error("loss ledger: {0}")]
    Losses(#[from] losses::LossesError),
    /// The schemas say something that this version does not understand.
    #[error("schemas: {0}")]
    Schemas(#[from] schemas::SchemasError),
    /// The requests that were done once say something that this version does not understand.
    #[error("requests that are done once: {0}")]
    Once(#[from] once::OnceError),
    /// The retained messages say something that this version does not understand.
    #[error("retained messages: {0}")]
    Retained(#[from] retained::RetainedError),
    /// The sessions say something that this version does not understand.
    #[error("sessions: {0}")]
    Sessions(#[from] sessions::SessionsError),
    /// The access control lists say something that this version does not understand.
    #[error("access control lists: {0}")]
    Access(#[from] access::AccessError),
    /// The erasures say something that this version does not understand.
    #[error("erasures: {0}")]
    Erasures(#[from] erasures::ErasuresError),
    /// The client quotas say something that this version does not understand.
    #[error("client quotas: {0}")]
    Quotas(#[from] quotas::QuotasError),
    /// The credentials say something that this version does not understand.
    #[error("credentials: {0}")]
    Credentials(#[from] credentials::CredentialsError),
    /// Settings or topics that the metadata holds are refused.
    #[error("the metadata cannot be put in force: {0}")]
    Refused(#[from] Refusal),
    /// The storage could not be tidied up.
    #[error(transparent)]
    Storage(#[from] storage::OpenError),
}

/// What the cluster's metadata says at the start.
#[derive(Default)]
struct Known {
    topics: HashMap<TopicId, TopicRecord>,
    /// Topics that were removed not long ago: their files may outlive a kill.
    deleted: HashSet<TopicId>,
    settings: BrokerSettings,
    next_producer_id: i64,
    producer_id_owners: Vec<(i64, access::Owner)>,
}

impl Known {
    fn read(entries: Replayed<Record>) -> Result<Known, UnknownRecord> {
        let removed = entries.removed().iter();
        let mut known = Known {
            deleted: removed
                .filter_map(|key| records::removed_topic(key))
                .collect(),
            ..Known::default()
        };
        for record in entries {
            match record? {
                Record::Topic(topic) => {
                    known.topics.insert(topic.id, topic);
                }
                Record::BrokerSettings(found) => known.settings = found,
                Record::ProducerIds { next } => known.next_producer_id = next,
                Record::ProducerIdOwner { begin, owner } => {
                    let owner = owner.expect("a removal does not count");
                    known.producer_id_owners.push((begin, owner));
                }
                Record::TopicRemoved(_) => unreachable!("a removal does not count"),
            }
        }
        Ok(known)
    }
}

impl Broker {
    /// Reads the metadata, attaches every topic's logs, and lets settling and cleanup begin. Blocks on the disk. Over a
    /// store from [`Storage::recover`] nothing is written before all of its state is understood. `subscribed_topics` reads what
    /// members of consumer groups subscribe to, in the format of the front that they come through.
    pub fn open(
        config: BrokerConfig,
        server: ServerSettings,
        subscribed_topics: groups::SubscribedTopics,
        storage: Storage,
    ) -> Result<Broker, OpenError> {
        name_unknown_state(&storage);
        let (metadata, entries) = StateLog::open(&storage, storage.clock())?;
        let Known {
            topics,
            deleted,
            settings,
            next_producer_id,
            producer_id_owners,
        } = Known::read(entries)?;
        let known: HashSet<LogId> = topics
            .values()
            .flat_map(|topic| {
                (0..topic.partitions)
                    .map(|partition| LogId::new(topic.id, model::PartitionId::new(partition)))
            })
            .collect();
        let dynamic = DynamicSettings::new(&config, &server, settings)?;
        server.put_in_force(&dynamic.of_server(&server));
        let dynamic = RwLock::new(dynamic);
        let (log, records) = StateLog::open(&storage, storage.clock())?;
        let (groups, groups_task) = Coordinator::open(
            config.groups_in_force(),
            subscribed_topics,
            log,
            records,
            storage.steady_clock(),
        )?;
        let owners = producer_ids::Owners::new(
            storage.steady_clock(),
            config.producers_of_one_max,
            producer_id_owners,
        );
        let owners = Arc::new(owners);
        if config.access.authorizer != access::Authorizer::None {
            let accounts = Arc::clone(&owners) as Arc<dyn storage::ProducerAccounts>;
            storage.keep_producer_accounts(accounts, config.producers_of_one_max);
        }
        let (producer_ids, producer_ids_task) = ProducerIds::new(
            next_producer_id,
            owners,
            metadata.clone(),
            storage.steady_clock(),
        );
        let (log, records) = StateLog::open(&storage, storage.clock())?;
        let find = |place: share::Place| {
            let log = storage.log(LogId::new(place.topic, place.partition))?;
            Some(share::FoundPlace {
                end: log.bounds().durable_end,
                maker: topics.get(&place.topic)?.owner.clone(),
            })
        };
        let ledger = Arc::clone(groups.ledger());
        let (shares, shares_task) =
            share::Shares::open(log, records, storage.steady_clock(), ledger, find)?;
        let holds = holds::Holds::open(&storage, storage.clock())?;
        let losses = losses::Losses::open(&storage, storage.clock())?;
        let schemas = schemas::Schemas::open(&storage, storage.clock())?;
        let onces = once::Onces::open(&storage, storage.clock())?;
        let retained = retained::RetainedMessages::open(&storage, storage.clock())?;
        let accounts = config.access.accounts();
        let sessions = sessions::Sessions::open(&storage, storage.clock(), accounts)?;
        let erasures = erasures::Erasures::open(&storage, storage.clock())?;
        let access = access::Access::open(&storage, storage.clock(), &config.access)?;
        let audit = audit::Audit::new(config.audit.clone(), storage.clock());
        let quotas = quotas::Quotas::open(&storage, storage.clock(), config.quotas)?;
        let credentials = credentials::Credentials::open(
            &storage,
            storage.clock(),
            config.failed_logins_max,
            &config.jwt,
        )?;
        let tasks = Tasks {
            groups: groups_task,
            producer_ids: producer_ids_task,
            shares: shares_task,
        };
        let shared = Shared {
            config,
            server,
            metadata,
            catalog: Catalog::default(),
            dynamic,
            producer_ids,
            groups,
            shares,
            tasks: Mutex::new(Some(tasks)),
            changes: Changes::default(),
            bounds_of_one: per_principal::BoundsOfOne::default(),
            inflation: inflation::Inflation::new(),
            readers: replay::Readers::new(),
            lag_times: lag::LagTimes::default(),
            cleanup: cleanup::Cleanup::new(storage.leader_epoch().get()),
            holds,
            losses,
            open_readers: Arc::default(),
            schemas,
            onces,
            retained,
            sessions,
            lanes: publish::Lanes::new(storage.batch_bytes_max()),
            erasures,
            access,
            audit,
            quotas,
            credentials,
            refused: AtomicU64::new(0),
            storage,
        };
        let broker = Broker {
            shared: Arc::new(shared),
        };
        for topic in topics.into_values() {
            broker.attach(topic)?;
        }
        let fate = |log: LogId| match log.topic_id {
            _ if known.contains(&log) => Fate::Kept,
            topic if deleted.contains(&topic) => Fate::Deleted,
            _ => Fate::Unknown,
        };
        broker.take_back_losses(|_| true);
        broker.watch_cleanup();
        broker.shared.storage.finish_open_by(&fate)?;
        Ok(broker)
    }

    /// The store's cleaner asks what is held, and tells what it removes. It does not keep the broker alive.
    fn watch_cleanup(&self) {
        let shared = Arc::downgrade(&self.shared);
        let broker = move || {
            Some(Broker {
                shared: shared.upgrade()?,
            })
        };
        let asked = broker.clone();
        let holds = move |log| {
            asked()
                .map(|broker| broker.hold_wishes(log))
                .unwrap_or_default()
        };
        self.storage().set_holds(Arc::new(holds));
        self.storage().on_removed(Arc::new(move |removed| {
            let broker = broker();
            broker.map_or(Noted::Yes, |broker| broker.note_removed(removed))
        }));
    }

    /// Does the coordinators' own work until `shutdown` turns true: answers leave, sessions end, offsets expire; and runs the
    /// cleanups that are asked for. Without it no group makes progress, and nobody gets a producer id. Stop the fronts first, so that what they have begun is still
    /// answered.
    pub async fn run(&self, shutdown: watch::Receiver<bool>) {
        let tasks = self.shared.tasks.lock();
        let Some(tasks) = tasks.expect("nothing panics under this lock").take() else {
            return;
        };
        let current = |name: &TopicName| self.topic(name.as_str()).ok().map(|topic| topic.id);
        let tidy_up = async {
            if let Err(error) = self.groups().forget_other_topics(current).await {
                tracing::warn!(%error, "offsets of deleted topics are left over");
            }
            let is_there = |topic| self.topic_by_id(topic).is_ok();
            if let Err(error) = self.shares().tidy_up(is_there).await {
                tracing::warn!(%error, "shared partitions of deleted topics are left over");
            }
            self.forget_other_schemas().await;
        };
        let groups = tasks.groups.run(shutdown.clone());
        let producer_ids = tasks.producer_ids.run(shutdown.clone());
        let shares = tasks.shares.run(shutdown.clone());
        let dead_letters = self.write_dead_letters(shutdown.clone());
        let losses = self.keep_losses(shutdown.clone());
        let cleanup = self.run_cleanup(shutdown.clone());
        let erasures = self.run_erasures(shutdown.clone());
        let keys = self.renew_keys(shutdown.clone());
        let audit = self.write_audit(shutdown.clone());
        let retained = self.expire_retained(shutdown.clone());
        let sessions = self.mark_sessions(shutdown);
        tokio::join!(
            groups,
            producer_ids,
            shares,
            dead_letters,
            tidy_up,
            losses,
            cleanup,
            erasures,
            keys,
            audit,
            retained,
            sessions
        );
    }

    /// Consumer groups and their committed offsets.
    fn groups(&self) -> &Coordinator {
        &self.shared.groups
    }

    /// Groups that share records. Fronts come to them by the door.
    fn shares(&self) -> &share::Shares {
        &self.shared.shares
    }

    /// What it was started with.
    pub fn config(&self) -> &BrokerConfig {
        &self.shared.config
    }

    /// The store below. Fronts ask the broker instead.
    pub(crate) fn storage(&self) -> &Storage {
        &self.shared.storage
    }

    /// How the store is: whether appends are refused, and what is damaged.
    pub fn health(&self) -> Health {
        self.storage().health()
    }

    /// How long appends wait for the disk now. Never waits for it.
    fn append_waits(&self) -> AppendWaits {
        self.storage().append_waits()
    }

    /// How long syncs of the write-ahead log took since the start.
    fn sync_durations(&self) -> SyncDurations {
        self.storage().sync_durations()
    }

    /// Batches that were refused since the start, whatever the reason.
    fn refused_appends(&self) -> u64 {
        self.shared.refused.load(Relaxed)
    }

    /// The store's settings that may change while it runs, as they are now.
    pub fn storage_live(&self) -> storage::LiveSettings {
        self.storage().live()
    }

    /// What the store counts.
    fn storage_metrics(&self) -> StorageMetrics {
        self.storage().metrics()
    }

    /// What compaction has done, and how it is.
    fn compaction_metrics(&self) -> CompactionMetrics {
        self.storage().compaction_metrics()
    }

    /// The cluster's id: the store's, in the form that Kafka's clients know (22 characters of URL-safe base64).
    pub fn cluster_id(&self) -> String {
        base64_url(self.shared.storage.store_id().as_bytes())
    }

    /// The store's own id.
    pub fn store_id(&self) -> uuid::Uuid {
        self.shared.storage.store_id()
    }

    /// The leader epoch of every partition: it rises at every start.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.shared.storage.leader_epoch()
    }

    /// The wall clock.
    pub fn now(&self) -> Timestamp {
        self.shared.storage.clock().now()
    }

    /// Compares the epoch that a client believes in with the running one.
    fn check_epoch(&self, known: Option<LeaderEpoch>) -> Result<(), Refusal> {
        match known {
            Some(known) if known < self.leader_epoch() => Err(Refusal::FencedLeaderEpoch),
            Some(known) if known > self.leader_epoch() => Err(Refusal::UnknownLeaderEpoch),
            _ => Ok(()),
        }
    }

    /// Puts changed defaults in force for a topic.
    fn refresh(&self, topic: &Topic) -> Result<(), Refusal> {
        self.attach(TopicRecord::of(topic)).map(drop)
    }
}

/// 16 bytes as 22 characters of base64 for URLs, without padding (RFC 4648 §5).
fn base64_url(bytes: &[u8; 16]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let number = u128::from_be_bytes(*bytes);
    let digit = |index: u32| {
        let shift = 128 - 6 * (i64::from(index) + 1);
        let bits = if shift >= 0 {
            number >> shift
        } else {
            number << -shift
        };
        char::from(ALPHABET[(bits & 63) as usize])
    };
    (0..22).map(digit).collect()
}

/// Warns of state logs that a later release has left: they are kept as they are, and not read.
fn name_unknown_state(storage: &Storage) {
    for log in storage.state_logs() {
        if StateLogKind::of(log).is_none()
            && let Some(name) = model::state_log::name_of(log)
        {
            tracing::warn!(%log, name, "the store holds a state log that this release does not know: it is left alone, and what it says is not heeded");
        }
    }
}

/// How many bytes of members one group may have, where the store takes batches of this length.
pub fn group_bytes_max(batch_bytes_max: u64) -> usize {
    groups::group_bytes_max(state_log::record_bytes_max(batch_bytes_max))
}

/// The settings of a topic that the engine acts on.
fn log_settings(config: &TopicConfig) -> LogSettings {
    LogSettings::from(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_ids_are_22_characters_of_base64_for_urls() {
        assert_eq!(base64_url(&[0; 16]), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(base64_url(&[0xff; 16]), "_____________________w");
    }
}
