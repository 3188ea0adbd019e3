//! Access control lists as they are described, made, removed and asked about.
//! Callers: fronts. Invariant: what is answered is durable and in force; each rule of a request is for itself.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use model::acl::{Acl, AclFilter, Operation, ResourceType};
use storage::Purpose;
use uuid::Uuid;

use super::acls::{Verdict, allows};
use super::book::{ACL_BYTES_MAX, ACLS_MAX, AclError, AclRecord, bytes_of};
use super::{Cluster, Granted, Principal, parts, right};
use crate::broker::{Broker, state_refusal};

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
            let checked = access.check_on();
            let checked =
                checked.and_then(|()| Ok(acl.check().and_then(|()| parts::check(&acl))?));
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
    use storage::{Env, Storage, StorageConfig};

    use super::*;
    use crate::broker::access::{AccessConfig, Authorizer, Caller, Door, Protocol};
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
