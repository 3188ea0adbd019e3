//! The book of access control lists: kept in a state log, and in the form in which they are asked.
//! Callers: `lists`, which changes it on request; `rules`, for every question.
//! Invariants: a rule is in force exactly if its record is in the state log `acls`; it is durable before whoever made it hears of
//! it. A rule is there once, however often it is made.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard};

use bytes::Bytes;
use model::acl::{Acl, AclFilter, InvalidAcl, UnknownAcl};
use model::state_log::{ACL_KEY_HEAD, StateLogKind};
use storage::{Clock, Storage};
use uuid::Uuid;

use super::Accounts;
use super::acls::Rules;
use crate::broker::Refusal;
use crate::broker::state_log::{Change, StateLog, StateLogError, StateRecord};

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

impl AccessConfig {
    fn is_on(&self) -> bool {
        self.authorizer == Authorizer::Standard
    }

    /// Who has an account.
    pub(in crate::broker) fn accounts(&self) -> Accounts {
        let super_users = self.super_users.iter().cloned();
        Accounts::new(self.is_on(), super_users.collect())
    }
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
    pub(super) is_on: bool,
    accounts: Accounts,
    pub(super) log: StateLog<AclRecord>,
    book: RwLock<Book>,
    /// Rises with each change of the rules, before anybody is told of it.
    version: AtomicU64,
    /// Questions that the rules were asked.
    #[cfg(test)]
    pub(super) asked: AtomicU64,
    /// Changes run one at a time.
    pub(super) changes: tokio::sync::Mutex<()>,
}

#[derive(Default)]
pub(super) struct Book {
    pub(super) ids: HashMap<Arc<Acl>, Uuid>,
    pub(super) bytes: usize,
    rules: Rules,
}

impl Book {
    pub(super) fn add(&mut self, id: Uuid, acl: Arc<Acl>) {
        if self.ids.insert(Arc::clone(&acl), id).is_none() {
            self.bytes += bytes_of(&acl);
            self.rules.add(acl);
        }
    }

    pub(super) fn remove(&mut self, acl: &Acl) {
        if self.ids.remove(acl).is_some() {
            self.bytes -= bytes_of(acl);
            self.rules.remove(acl);
        }
    }
}

pub(super) fn bytes_of(acl: &Acl) -> usize {
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
        let super_users: HashSet<String> = config.super_users.iter().cloned().collect();
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
            is_on: config.is_on(),
            accounts: config.accounts(),
            log,
            book: RwLock::new(book),
            version: AtomicU64::new(0),
            #[cfg(test)]
            asked: AtomicU64::new(0),
            changes: tokio::sync::Mutex::default(),
        })
    }

    /// Whether access is controlled.
    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Who has an account.
    pub(in crate::broker) fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// Asks the rules, all that are in force at this moment.
    pub(super) fn ask<T>(&self, question: impl FnOnce(&Rules) -> T) -> T {
        #[cfg(test)]
        self.asked.fetch_add(1, Ordering::Relaxed);
        question(&self.read().rules)
    }

    /// Which rules are in force. What was asked after this was read holds as long as it stays the same.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Book> {
        self.book
            .read()
            .expect("nothing panics while it holds the book")
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Book)) {
        let mut book = self
            .book
            .write()
            .expect("nothing panics while it holds the book");
        self.version.fetch_add(1, Ordering::Release);
        change(&mut book);
    }

    pub(super) fn check_on(&self) -> Result<(), AclError> {
        self.is_on.then_some(()).ok_or(AclError::Off)
    }

    pub(super) fn chosen(&self, filter: &AclFilter) -> Vec<Arc<Acl>> {
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
