//! The book of access control lists: kept in a state log, and in the form in which they are asked.
//! Callers: fronts, through [`Broker`]'s operations below; `rules`, for every question.
//! Invariants: a rule is in force exactly if its record is in the state log `acls`; it is durable before whoever made it hears of
//! it. A rule is there once, however often it is made.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, RwLock, RwLockReadGuard};

use bytes::Bytes;
use model::acl::{Acl, AclFilter, InvalidAcl, Operation, ResourceType, UnknownAcl};
use model::state_log::{ACL_KEY_HEAD, StateLogKind};
use storage::{Clock, Purpose, Storage};
use uuid::Uuid;

use super::acls::{Rules, Verdict, allows};
use super::{Cluster, Granted, Principal, right};
use crate::broker::state_log::{Change, StateLog, StateLogError, StateRecord};
use crate::broker::{Broker, Refusal, state_refusal};

/// Rules that there may be.
pub const ACLS_MAX: usize = 200_000;
/// Bytes of all their names.
pub const ACL_BYTES_MAX: usize = 128 << 20;

/// How access is controlled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessConfig {
    /// `authorizer.class.name`: whether it is.
    pub authorizer: Authorizer,
    /// `super.users`, by name: who may do everything.
    pub super_users: Vec<String>,
    /// `allow.everyone.if.no.acl.found`.
    pub everyone_if_none: bool,
}

/// What decides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Authorizer {
    /// Nothing: everybody may do everything.
    #[default]
    None,
    /// The rules.
    Standard,
}

/// Why rules are not told or changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AclError {
    /// Access is not controlled.
    #[error("access is not controlled here: authorizer.class.name is not set")]
    Off,
    /// No rule.
    #[error(transparent)]
    Invalid(#[from] InvalidAcl),
    /// There are as many as there may be.
    #[error("there are {ACLS_MAX} rules, or {} MiB of them, and no more may be", ACL_BYTES_MAX >> 20)]
    TooMany,
    /// It cannot be written.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// A record of the state log `acls`.
pub(in crate::broker) enum AclRecord {
    Made(Uuid, Arc<Acl>),
    Removed(Uuid),
}

/// Why a record is not understood.
#[derive(Debug, thiserror::Error)]
#[error("record {key:?}: {reason}")]
pub struct UnknownAclRecord {
    key: String,
    reason: String,
}

impl StateRecord for AclRecord {
    const LOG: StateLogKind = StateLogKind::Acls;
    type Unknown = UnknownAclRecord;

    fn encode(&self) -> Change {
        let (id, value) = match self {
            AclRecord::Made(id, acl) => (id, Some(acl.encode())),
            AclRecord::Removed(id) => (id, None),
        };
        let key = format!("{ACL_KEY_HEAD}{id}");
        (Bytes::from(key), value.map(Bytes::from))
    }

    fn decode(key: &[u8], value: &[u8]) -> Result<AclRecord, UnknownAclRecord> {
        let refuse = |reason: String| UnknownAclRecord {
            key: String::from_utf8_lossy(key).into_owned(),
            reason,
        };
        StateLogKind::Acls
            .check_key(key)
            .map_err(|error| refuse(error.to_string()))?;
        let id = std::str::from_utf8(&key[ACL_KEY_HEAD.len()..]).ok();
        let id = id.and_then(|id| id.parse().ok());
        let id = id.ok_or_else(|| refuse("its key has no id".to_owned()))?;
        let acl = Acl::decode(value).map_err(|UnknownAcl(reason)| refuse(reason))?;
        Ok(AclRecord::Made(id, Arc::new(acl)))
    }
}

/// Why the rules cannot be read at a start.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] StateLogError),
    /// A record is not understood.
    #[error(transparent)]
    Unknown(#[from] UnknownAclRecord),
}

/// All rules, and where they are kept.
pub(in crate::broker) struct Access {
    is_on: bool,
    log: StateLog<AclRecord>,
    book: RwLock<Book>,
    /// Changes run one at a time.
    changes: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Book {
    ids: HashMap<Arc<Acl>, Uuid>,
    bytes: usize,
    rules: Rules,
}

impl Book {
    fn add(&mut self, id: Uuid, acl: Arc<Acl>) {
        if self.ids.insert(Arc::clone(&acl), id).is_none() {
            self.bytes += bytes_of(&acl);
            self.rules.add(acl);
        }
    }

    fn remove(&mut self, acl: &Acl) {
        if self.ids.remove(acl).is_some() {
            self.bytes -= bytes_of(acl);
            self.rules.remove(acl);
        }
    }
}

fn bytes_of(acl: &Acl) -> usize {
    acl.name.len() + acl.principal.len() + acl.host.len()
}

impl Access {
    /// Reads the log. Blocks on the disk.
    pub(in crate::broker) fn open(
        storage: &Storage,
        clock: Arc<dyn Clock>,
        config: &AccessConfig,
    ) -> Result<Access, AccessError> {
        let (log, records) = StateLog::open(storage, clock)?;
        let super_users = config.super_users.iter().cloned().collect();
        let mut book = Book {
            rules: Rules::new(super_users, config.everyone_if_none),
            ..Book::default()
        };
        for record in records {
            if let AclRecord::Made(id, acl) = record? {
                book.add(id, acl);
            }
        }
        Ok(Access {
            is_on: config.authorizer == Authorizer::Standard,
            log,
            book: RwLock::new(book),
            changes: tokio::sync::Mutex::default(),
        })
    }

    /// Whether access is controlled.
    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Asks the rules, all that are in force at this moment.
    pub(super) fn ask<T>(&self, question: impl FnOnce(&Rules) -> T) -> T {
        question(&self.read().rules)
    }

    fn read(&self) -> RwLockReadGuard<'_, Book> {
        self.book
            .read()
            .expect("nothing panics while it holds the book")
    }

    fn change(&self, change: impl FnOnce(&mut Book)) {
        let mut book = self
            .book
            .write()
            .expect("nothing panics while it holds the book");
        change(&mut book);
    }

    fn check_on(&self) -> Result<(), AclError> {
        self.is_on.then_some(()).ok_or(AclError::Off)
    }

    fn chosen(&self, filter: &AclFilter) -> Vec<Arc<Acl>> {
        let book = self.read();
        let mut chosen: Vec<Arc<Acl>> = book
            .ids
            .keys()
            .filter(|acl| filter.matches(acl))
            .cloned()
            .collect();
        drop(book);
        chosen.sort_unstable();
        chosen
    }
}

impl Broker {
    /// Whether access is controlled; nothing is told or changed of rules where it is not.
    pub fn controls_access(&self) -> Result<(), AclError> {
        self.shared.access.check_on()
    }

    /// The rules that a filter chooses, in order.
    pub fn acls(
        &self,
        _cluster: &Granted<Cluster, right::Describe>,
        filter: &AclFilter,
    ) -> Result<Vec<Arc<Acl>>, AclError> {
        let access = &self.shared.access;
        access.check_on()?;
        Ok(access.chosen(filter))
    }

    /// Makes rules, each for itself. They are in force when this returns.
    pub async fn create_acls(
        &self,
        _cluster: &Granted<Cluster, right::Alter>,
        acls: Vec<Acl>,
    ) -> Vec<Result<Arc<Acl>, AclError>> {
        let access = &self.shared.access;
        let _change = access.changes.lock().await;
        let mut room = {
            let book = access.read();
            (
                ACLS_MAX.saturating_sub(book.ids.len()),
                ACL_BYTES_MAX.saturating_sub(book.bytes),
            )
        };
        let mut made: HashMap<Arc<Acl>, Result<(), AclError>> = HashMap::new();
        let mut new = Vec::new();
        let mut results = Vec::with_capacity(acls.len());
        for acl in acls {
            let checked = access.check_on().and_then(|()| Ok(acl.check()?));
            let acl = Arc::new(acl);
            let is_there = made.contains_key(&acl) || access.read().ids.contains_key(&acl);
            let bytes = bytes_of(&acl);
            let result = match checked {
                Ok(()) if is_there => Ok(acl),
                Ok(()) if room.0 == 0 || room.1 < bytes => Err(AclError::TooMany),
                Ok(()) => {
                    room = (room.0 - 1, room.1 - bytes);
                    made.insert(Arc::clone(&acl), Ok(()));
                    new.push(AclRecord::Made(Uuid::new_v4(), Arc::clone(&acl)));
                    Ok(acl)
                }
                Err(error) => Err(error),
            };
            results.push(result);
        }
        let written = access.log.write_each(new.iter(), Purpose::State).await;
        access.change(|book| {
            for (record, written) in new.iter().zip(written) {
                if let AclRecord::Made(id, acl) = record {
                    match written {
                        Ok(()) => book.add(*id, Arc::clone(acl)),
                        Err(error) => {
                            let refused = Err(state_refusal(error).into());
                            made.insert(Arc::clone(acl), refused);
                        }
                    }
                }
            }
        });
        let told = |result: Result<Arc<Acl>, AclError>| {
            let acl = result?;
            made.get(&acl).cloned().unwrap_or(Ok(()))?;
            Ok(acl)
        };
        results.into_iter().map(told).collect()
    }

    /// Removes all rules that the filters choose; those of each filter, each with whether it is gone. They are not in force any
    /// more when this returns.
    pub async fn delete_acls(
        &self,
        _cluster: &Granted<Cluster, right::Alter>,
        filters: &[AclFilter],
    ) -> Result<Vec<Vec<(Arc<Acl>, Result<(), AclError>)>>, AclError> {
        let access = &self.shared.access;
        access.check_on()?;
        let _change = access.changes.lock().await;
        let chosen: Vec<Vec<Arc<Acl>>> = filters.iter().map(|it| access.chosen(it)).collect();
        let all: HashSet<Arc<Acl>> = chosen.iter().flatten().cloned().collect();
        let all: Vec<Arc<Acl>> = all.into_iter().collect();
        let records: Vec<AclRecord> = {
            let book = access.read();
            let removed = |acl: &Arc<Acl>| AclRecord::Removed(book.ids[acl]);
            all.iter().map(removed).collect()
        };
        let written = access.log.write_each(records.iter(), Purpose::State).await;
        let mut failed: HashMap<Arc<Acl>, AclError> = HashMap::new();
        access.change(|book| {
            for (acl, written) in all.into_iter().zip(written) {
                match written {
                    Ok(()) => book.remove(&acl),
                    Err(error) => {
                        failed.insert(acl, state_refusal(error).into());
                    }
                }
            }
        });
        let told = |acl: Arc<Acl>| {
            let result = failed.get(&acl).cloned().map_or(Ok(()), Err);
            (acl, result)
        };
        let chosen = chosen.into_iter();
        Ok(chosen
            .map(|acls| acls.into_iter().map(told).collect())
            .collect())
    }

    /// Whether a principal may do something to a resource from an address, and by which rule.
    pub fn check_access(
        &self,
        _cluster: &Granted<Cluster, right::Describe>,
        principal: &Principal,
        host: IpAddr,
        operation: Operation,
        resource: (ResourceType, &str),
    ) -> Verdict {
        let access = &self.shared.access;
        match access.is_on {
            false => Verdict::Off,
            true => access.ask(|rules| allows(rules, principal, host, operation, resource)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use model::acl::{CLUSTER_NAME, PatternFilter, PatternType, Permission};
    use storage::{Env, StorageConfig};

    use super::*;
    use crate::broker::access::{Caller, Door, Protocol};
    use crate::broker::{BrokerConfig, ServerSettings};

    /// A broker over this directory, until it is stopped.
    fn start(directory: &Path, authorizer: Authorizer) -> (Broker, Storage) {
        let mut config = StorageConfig::new(directory);
        config.wal_file_bytes = 1 << 20;
        config.wal_files_min = 2;
        let (storage, _) = Storage::open(config, Env::real()).expect("a store");
        let config = BrokerConfig {
            access: AccessConfig {
                authorizer,
                super_users: vec!["root".to_owned()],
                everyone_if_none: false,
            },
            ..BrokerConfig::default()
        };
        let settings = ServerSettings::default();
        let broker = Broker::open(config, settings, |_| None, storage.clone());
        (broker.expect("a broker"), storage)
    }

    fn stop(broker: Broker, storage: Storage) {
        drop(broker);
        storage.shutdown();
    }

    fn door(broker: &Broker) -> Door {
        broker.door(Caller {
            principal: Principal::User("root".into()),
            address: ([127, 0, 0, 1], 1).into(),
            client_id: None,
            protocol: Protocol::Kafka,
        })
    }

    fn rule(number: usize) -> Acl {
        Acl {
            resource_type: ResourceType::Topic,
            name: format!("topic-{number}"),
            pattern: PatternType::ALL[number % 2],
            principal: format!("User:user-{}", number % 3),
            host: "*".to_owned(),
            operation: Operation::Read,
            permission: Permission::Allow,
        }
    }

    fn told(broker: &Broker, filter: &AclFilter) -> Vec<Acl> {
        let door = door(broker);
        let cluster = door.cluster(right::Describe).expect("a super user");
        let acls = broker.acls(&cluster, filter).expect("it is on");
        acls.iter().map(|acl| (**acl).clone()).collect()
    }

    #[tokio::test]
    async fn rules_are_there_once_and_outlive_a_restart_and_so_do_removals() {
        let directory = tempfile::tempdir().expect("a directory");
        let (broker, storage) = start(directory.path(), Authorizer::Standard);
        let all: Vec<Acl> = (0..100).map(rule).collect();
        let twice = [all.clone(), all.clone()].concat();
        let made = |broker: Broker, acls: Vec<Acl>| async move {
            let door = door(&broker);
            let cluster = door.cluster(right::Alter).expect("a super user");
            let made = broker.create_acls(&cluster, acls).await;
            made.into_iter().filter(Result::is_ok).count()
        };
        assert_eq!(made(broker.clone(), twice).await, 200);
        assert_eq!(made(broker.clone(), all.clone()).await, 100);
        let bad = Acl {
            host: "db.example".to_owned(),
            ..rule(1)
        };
        assert_eq!(made(broker.clone(), vec![bad, rule(2)]).await, 1);
        let mut sorted = all.clone();
        sorted.sort();
        assert_eq!(told(&broker, &AclFilter::default()), sorted);
        stop(broker, storage);

        let (broker, storage) = start(directory.path(), Authorizer::Standard);
        assert_eq!(told(&broker, &AclFilter::default()), sorted);
        let of_one = AclFilter {
            principal: Some("User:user-0".to_owned()),
            ..AclFilter::default()
        };
        let of_topic = AclFilter {
            name: Some("topic-3".to_owned()),
            pattern: PatternFilter::Match,
            ..AclFilter::default()
        };
        let opened = door(&broker);
        let cluster = opened.cluster(right::Alter).expect("a super user");
        let gone = broker.delete_acls(&cluster, &[of_one, of_topic]).await;
        let gone: Vec<usize> = gone.expect("it is on").iter().map(Vec::len).collect();
        // Both filters choose the rule on topic-3.
        assert_eq!(gone, [34, 1]);
        sorted.retain(|acl| acl.principal != "User:user-0");
        assert_eq!(told(&broker, &AclFilter::default()), sorted);
        drop(opened);
        stop(broker, storage);

        let (broker, storage) = start(directory.path(), Authorizer::Standard);
        assert_eq!(told(&broker, &AclFilter::default()), sorted);
        stop(broker, storage);
    }

    #[tokio::test]
    async fn where_access_is_not_controlled_rules_are_neither_told_nor_made() {
        let directory = tempfile::tempdir().expect("a directory");
        let (broker, storage) = start(directory.path(), Authorizer::None);
        let opened = door(&broker);
        let describe = opened.cluster(right::Describe).expect("everybody may");
        let alter = opened.cluster(right::Alter).expect("everybody may");
        let all = AclFilter::default();
        assert!(matches!(broker.acls(&describe, &all), Err(AclError::Off)));
        let made = broker.create_acls(&alter, vec![rule(0)]).await;
        assert!(matches!(made[0], Err(AclError::Off)));
        let removed = broker.delete_acls(&alter, &[all]).await;
        assert!(matches!(removed, Err(AclError::Off)));
        let nobody = Principal::Anonymous;
        let cluster = (ResourceType::Cluster, CLUSTER_NAME);
        let host = [10, 0, 0, 1].into();
        let asked = broker.check_access(&describe, &nobody, host, Operation::Alter, cluster);
        assert_eq!(asked, Verdict::Off);
        drop(opened);
        stop(broker, storage);
    }
}
