//! The state logs: logs of the store itself, in which the broker keeps what is no topic's record. Which there are, and how a
//! record in one says its version.
//! Callers: the broker, which writes and reads them; the tools, which name them; the offline verification, which says of a
//! record what a start would say.
//! Invariants: a state log's id lies in the range of [`LogId::state_number`]. A log of that range that is not here is a later
//! release's: it is named and left alone. Every later version of a record keeps the place where its version stands, so that
//! it is refused instead of misread.

use crate::LogId;
use std::ops::RangeInclusive;

/// A state log that this release knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StateLogKind {
    /// What exists: topics, settings, producer ids.
    Metadata,
    /// Consumer groups, and the offsets that they commit.
    Groups,
    /// Operators' holds: what cleanup must not remove.
    Holds,
    /// What was removed or damaged before a consumer group had read it.
    Losses,
    /// What has been seen of topics' values: their columns.
    Schemas,
    /// Requests that are done once, by their clients' keys, with their answers.
    Once,
    /// Erasures by key, and the receipts of those that are done.
    Erasures,
    /// Access control lists.
    Acls,
    /// Client quotas.
    Quotas,
    /// What users show who they are with.
    Credentials,
    /// Shared subscriptions: what of each partition is finished.
    Shares,
    /// The last message of each name that was to be kept.
    Retained,
    /// Sessions that outlive their connections.
    Sessions,
}

/// The version of keys and values of [`StateLogKind::Groups`]: the first byte of each.
pub const GROUPS_VERSION: u8 = 1;
/// The version of values of [`StateLogKind::Metadata`]: the number that they begin with, behind [`METADATA_VALUE_HEAD`].
/// A topic that is on somebody's account has version 2, everything else version 1, which earlier releases read.
pub const METADATA_VERSION: u32 = 2;
/// How every value of the metadata begins. Keys are names, and have no version.
pub const METADATA_VALUE_HEAD: &[u8] = b"{\"version\":";

/// The version of keys and values of [`StateLogKind::Shares`]: the first byte of each.
pub const SHARES_VERSION: u8 = 1;
/// The kinds of [`StateLogKind::Shares`]: the second byte of a key.
pub const SHARES_KINDS: RangeInclusive<u8> = 1..=5;

/// The kinds of [`StateLogKind::Groups`]: the second byte of a key.
pub const GROUPS_KINDS: RangeInclusive<u8> = 1..=4;
/// How the key of a topic in the metadata begins; its id follows.
pub const TOPIC_KEY_HEAD: &str = "topic/";
/// The version of values of [`StateLogKind::Holds`]: the number that they begin with, behind [`METADATA_VALUE_HEAD`].
///
/// Version 2 has a key; version 1, without one, is still written where there is none.
pub const HOLDS_VERSION: u32 = 2;
/// How the key of a hold begins; its id follows.
pub const HOLD_KEY_HEAD: &str = "hold/";
/// The version of values of [`StateLogKind::Losses`], likewise.
///
/// Version 2 knows readers without a group, and what compaction, thinning and the deletion of a topic took, version 3 what groups have
/// given up without dead letters; each is written for that alone, and version 1 for all else.
pub const LOSSES_VERSION: u32 = 3;
/// How the key of a loss begins; its number follows, 20 digits.
pub const LOSS_KEY_HEAD: &str = "loss/";
/// The version of values of [`StateLogKind::Schemas`], likewise.
pub const SCHEMAS_VERSION: u32 = 1;
/// How the key of a schema begins; its topic's id follows.
pub const SCHEMA_KEY_HEAD: &str = "schema/";
/// The version of values of [`StateLogKind::Once`], likewise.
pub const ONCE_VERSION: u32 = 1;
/// How the key of a request that is done once begins; its topic's id and its own key follow.
pub const ONCE_KEY_HEAD: &str = "once/";
/// The version of values of [`StateLogKind::Erasures`], likewise.
pub const ERASURES_VERSION: u32 = 1;
/// How the key of an erasure begins; its id follows.
pub const ERASURE_KEY_HEAD: &str = "erasure/";
/// How the key of what an erasure has done to a partition begins; the erasure's id, `/` and the partition, 10 digits, follow.
pub const ERASURE_PART_KEY_HEAD: &str = "erasure-part/";
/// How the key of the record begins that holds the keys which an erasure is about, until it is done; its id follows.
pub const ERASURE_WANTED_KEY_HEAD: &str = "erasure-wanted/";
/// How the key of a receipt begins; its number follows, 20 digits.
pub const RECEIPT_KEY_HEAD: &str = "receipt/";
/// The version of values of [`StateLogKind::Acls`], likewise.
pub const ACLS_VERSION: u32 = 1;
/// How the key of an access control list's rule begins; its id follows, a uuid.
pub const ACL_KEY_HEAD: &str = "acl/";
/// The version of values of [`StateLogKind::Quotas`], likewise.
pub const QUOTAS_VERSION: u32 = 1;
/// How the key of an entity's quotas begins; the entity follows, as JSON.
pub const QUOTA_KEY_HEAD: &str = "quota/";
/// The version of values of [`StateLogKind::Credentials`], likewise.
pub const CREDENTIALS_VERSION: u32 = 1;
/// How the key of a SCRAM credential begins; its mechanism, `/` and its user follow.
pub const SCRAM_KEY_HEAD: &str = "scram/";
/// How the key of an API token begins; its id follows.
pub const TOKEN_KEY_HEAD: &str = "token/";
/// The version of values of [`StateLogKind::Retained`]: the first byte of each. A message that is on somebody's account has version 3;
/// others have version 2, or, if it is not noted of which record they are, version 1, which earlier releases read.
pub const RETAINED_VERSION: u8 = 3;
/// How the key of a retained message begins; its name follows.
pub const RETAINED_KEY_HEAD: &str = "retained/";
/// The version of values of [`StateLogKind::Sessions`]: the first byte of each.
pub const SESSIONS_VERSION: u8 = 1;
/// How the key of a session begins; whose it is follows.
pub const SESSION_KEY_HEAD: &str = "session/";
/// How the key begins of an identifier that a session has received and that is not released; identifier and session follow.
pub const SESSION_RECEIVED_KEY_HEAD: &str = "session-received/";
/// How the key begins of what a session is being sent exactly once; the session follows.
pub const SESSION_SENDING_KEY_HEAD: &str = "session-sending/";
/// How the key of a session's place in the logs begins; the session follows.
pub const SESSION_CURSOR_KEY_HEAD: &str = "session-cursor/";
/// The key of the place that all sessions have reached that keep up.
pub const SESSION_MARK_KEY: &str = "session-mark";
/// The key of what users that do not exist are made up from.
pub const DECOY_KEY: &str = "decoy";
/// The key of the settings that were made while running.
pub const BROKER_SETTINGS_KEY: &str = "broker-settings";
/// The key of the producer ids that were given away.
pub const PRODUCER_IDS_KEY: &str = "producer-ids";
/// How the key of whose a block of producer ids is begins; its first id follows.
pub const PRODUCER_ID_OWNER_KEY_HEAD: &str = "producer-ids/";

/// A record that this release must not act on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownRecord {
    /// A later release's.
    #[error("a {part} of version {found}; this release reads version {known}")]
    Later {
        /// Key or value.
        part: &'static str,
        /// What stands there.
        found: u32,
        /// What this release reads.
        known: u32,
    },
    /// Nobody's: where the version has to stand there is none.
    #[error("a {part} without a version")]
    Missing {
        /// Key or value.
        part: &'static str,
    },
    /// A later release's: it is about something that this one does not know.
    #[error("a record of a kind that this release does not know")]
    Kind,
}

impl LogId {
    /// The log of the cluster's metadata.
    pub const METADATA: LogId = StateLogKind::Metadata.id();
    /// The log of consumer groups and committed offsets.
    pub const OFFSETS: LogId = StateLogKind::Groups.id();
}

impl StateLogKind {
    /// All that this release knows.
    pub const ALL: [StateLogKind; 13] = [
        StateLogKind::Metadata,
        StateLogKind::Groups,
        StateLogKind::Holds,
        StateLogKind::Losses,
        StateLogKind::Schemas,
        StateLogKind::Once,
        StateLogKind::Erasures,
        StateLogKind::Acls,
        StateLogKind::Quotas,
        StateLogKind::Credentials,
        StateLogKind::Shares,
        StateLogKind::Retained,
        StateLogKind::Sessions,
    ];

    /// Its place in the range of ids. A number is never given to another log.
    pub const fn id(self) -> LogId {
        LogId::of_state(match self {
            StateLogKind::Metadata => 1,
            StateLogKind::Groups => 2,
            StateLogKind::Holds => 3,
            StateLogKind::Losses => 4,
            StateLogKind::Schemas => 6,
            StateLogKind::Once => 7,
            StateLogKind::Erasures => 5,
            StateLogKind::Acls => 8,
            StateLogKind::Quotas => 10,
            StateLogKind::Credentials => 9,
            StateLogKind::Shares => 14,
            StateLogKind::Retained => 11,
            StateLogKind::Sessions => 12,
        })
    }

    /// The state log with this id, if this release knows it.
    pub fn of(id: LogId) -> Option<StateLogKind> {
        Self::ALL.into_iter().find(|kind| kind.id() == id)
    }

    /// What people call it.
    pub const fn name(self) -> &'static str {
        match self {
            StateLogKind::Metadata => "metadata",
            StateLogKind::Groups => "groups",
            StateLogKind::Holds => "holds",
            StateLogKind::Losses => "losses",
            StateLogKind::Schemas => "schemas",
            StateLogKind::Once => "once",
            StateLogKind::Erasures => "erasures",
            StateLogKind::Acls => "acls",
            StateLogKind::Quotas => "quotas",
            StateLogKind::Credentials => "credentials",
            StateLogKind::Shares => "shares",
            StateLogKind::Retained => "retained",
            StateLogKind::Sessions => "sessions",
        }
    }

    /// Whether this release reads this record, by its kind and the versions of its key and of its value, if it has one.
    pub fn check(self, key: &[u8], value: Option<&[u8]>) -> Result<(), UnknownRecord> {
        self.check_key(key)?;
        let of_topic = key.starts_with(TOPIC_KEY_HEAD.as_bytes());
        match value {
            None => Ok(()),
            Some(value) if self == StateLogKind::Metadata && !of_topic => json_of(1..=1, value),
            Some(value) => self.check_value(value),
        }
    }

    /// Whether this release reads keys of this one's version and kind.
    pub fn check_key(self, key: &[u8]) -> Result<(), UnknownRecord> {
        match self {
            StateLogKind::Metadata => {
                let is_known = key.starts_with(TOPIC_KEY_HEAD.as_bytes())
                    || key == BROKER_SETTINGS_KEY.as_bytes()
                    || key == PRODUCER_IDS_KEY.as_bytes()
                    || key.starts_with(PRODUCER_ID_OWNER_KEY_HEAD.as_bytes());
                is_known.then_some(()).ok_or(UnknownRecord::Kind)
            }
            StateLogKind::Groups => {
                check_version("key", first_byte(key), GROUPS_VERSION.into())?;
                let is_known = key.get(1).is_some_and(|kind| GROUPS_KINDS.contains(kind));
                is_known.then_some(()).ok_or(UnknownRecord::Kind)
            }
            StateLogKind::Shares => {
                check_version("key", first_byte(key), SHARES_VERSION.into())?;
                let is_known = key.get(1).is_some_and(|kind| SHARES_KINDS.contains(kind));
                is_known.then_some(()).ok_or(UnknownRecord::Kind)
            }
            StateLogKind::Holds => known_head(key, HOLD_KEY_HEAD),
            StateLogKind::Losses => known_head(key, LOSS_KEY_HEAD),
            StateLogKind::Schemas => known_head(key, SCHEMA_KEY_HEAD),
            StateLogKind::Once => known_head(key, ONCE_KEY_HEAD),
            StateLogKind::Acls => known_head(key, ACL_KEY_HEAD),
            StateLogKind::Quotas => known_head(key, QUOTA_KEY_HEAD),
            StateLogKind::Retained => known_head(key, RETAINED_KEY_HEAD),
            StateLogKind::Sessions if key == SESSION_MARK_KEY.as_bytes() => Ok(()),
            StateLogKind::Sessions => {
                let heads = [
                    SESSION_KEY_HEAD,
                    SESSION_RECEIVED_KEY_HEAD,
                    SESSION_SENDING_KEY_HEAD,
                    SESSION_CURSOR_KEY_HEAD,
                ];
                let is_known = heads.iter().any(|head| key.starts_with(head.as_bytes()));
                is_known.then_some(()).ok_or(UnknownRecord::Kind)
            }
            StateLogKind::Credentials if key == DECOY_KEY.as_bytes() => Ok(()),
            StateLogKind::Credentials => {
                let heads = [SCRAM_KEY_HEAD, TOKEN_KEY_HEAD];
                let is_known = heads.iter().any(|head| key.starts_with(head.as_bytes()));
                is_known.then_some(()).ok_or(UnknownRecord::Kind)
            }
            StateLogKind::Erasures => {
                let heads = [
                    ERASURE_KEY_HEAD,
                    ERASURE_PART_KEY_HEAD,
                    ERASURE_WANTED_KEY_HEAD,
                    RECEIPT_KEY_HEAD,
                ];
                let is_known = heads.iter().any(|head| key.starts_with(head.as_bytes()));
                is_known.then_some(()).ok_or(UnknownRecord::Kind)
            }
        }
    }

    /// Whether this release reads values of this one's version.
    pub fn check_value(self, value: &[u8]) -> Result<(), UnknownRecord> {
        match self {
            StateLogKind::Metadata => json_of(1..=METADATA_VERSION, value),
            StateLogKind::Groups => {
                check_version("value", first_byte(value), GROUPS_VERSION.into())
            }
            StateLogKind::Shares => {
                check_version("value", first_byte(value), SHARES_VERSION.into())
            }
            StateLogKind::Retained => value_of(1..=RETAINED_VERSION.into(), first_byte(value)),
            StateLogKind::Sessions => {
                check_version("value", first_byte(value), SESSIONS_VERSION.into())
            }
            StateLogKind::Holds => json_of(1..=HOLDS_VERSION, value),
            StateLogKind::Losses => json_of(1..=LOSSES_VERSION, value),
            StateLogKind::Schemas => json_of(SCHEMAS_VERSION..=SCHEMAS_VERSION, value),
            StateLogKind::Once => json_of(ONCE_VERSION..=ONCE_VERSION, value),
            StateLogKind::Credentials => json_of(CREDENTIALS_VERSION..=CREDENTIALS_VERSION, value),
            StateLogKind::Erasures => json_of(ERASURES_VERSION..=ERASURES_VERSION, value),
            StateLogKind::Acls => json_of(ACLS_VERSION..=ACLS_VERSION, value),
            StateLogKind::Quotas => json_of(QUOTAS_VERSION..=QUOTAS_VERSION, value),
        }
    }
}

/// What to call a log of the store itself: also one that this release does not know. None for a topic's log.
pub fn name_of(id: LogId) -> Option<String> {
    let number = id.state_number()?;
    Some(match StateLogKind::of(id) {
        Some(kind) => kind.name().to_owned(),
        None if id.partition.get() == 0 => format!("state log {number}"),
        None => format!("state log {number}, partition {}", id.partition),
    })
}

fn check_version(part: &'static str, found: Option<u32>, known: u32) -> Result<(), UnknownRecord> {
    match found {
        Some(found) if found == known => Ok(()),
        Some(found) => Err(UnknownRecord::Later { part, found, known }),
        None => Err(UnknownRecord::Missing { part }),
    }
}

/// Whether the number that a JSON value begins with is one of the versions that this release reads.
fn json_of(known: RangeInclusive<u32>, value: &[u8]) -> Result<(), UnknownRecord> {
    value_of(known, number_behind(METADATA_VALUE_HEAD, value))
}

/// Whether a value's version is one that this release reads.
fn value_of(known: RangeInclusive<u32>, found: Option<u32>) -> Result<(), UnknownRecord> {
    let expected = found.filter(|found| known.contains(found));
    check_version("value", found, expected.unwrap_or(*known.end()))
}

fn known_head(key: &[u8], head: &str) -> Result<(), UnknownRecord> {
    let is_known = key.starts_with(head.as_bytes());
    is_known.then_some(()).ok_or(UnknownRecord::Kind)
}

fn first_byte(bytes: &[u8]) -> Option<u32> {
    bytes.first().map(|byte| u32::from(*byte))
}

/// The decimal number that follows `head` at the beginning of `value`. One above u32 is u32's largest.
fn number_behind(head: &[u8], value: &[u8]) -> Option<u32> {
    let rest = value.strip_prefix(head)?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let text = std::str::from_utf8(&rest[..digits]).ok()?;
    (digits > 0).then(|| text.parse().unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PartitionId, TopicId};

    #[test]
    fn each_state_log_has_an_id_of_its_own_in_the_reserved_range() {
        for kind in StateLogKind::ALL {
            assert!(kind.id().is_reserved());
            assert_eq!(StateLogKind::of(kind.id()), Some(kind));
        }
        assert_eq!(
            LogId::METADATA.topic_id.to_string(),
            "00000000-0000-0000-0000-000000000001"
        );
        assert_eq!(
            LogId::OFFSETS.topic_id.to_string(),
            "00000000-0000-0000-0000-000000000002"
        );
    }

    #[test]
    fn a_log_of_a_later_release_is_named_and_no_topics_log_is() {
        assert_eq!(name_of(LogId::METADATA).as_deref(), Some("metadata"));
        assert_eq!(
            name_of(LogId::of_state(99)).as_deref(),
            Some("state log 99")
        );
        let shard = LogId::new(LogId::OFFSETS.topic_id, PartitionId::new(3));
        assert_eq!(name_of(shard).as_deref(), Some("state log 2, partition 3"));
        let topic = LogId::new(TopicId::random(), PartitionId::new(0));
        assert_eq!(name_of(topic), None);
    }

    #[test]
    fn a_version_is_known_or_refused_in_key_and_value() {
        let metadata =
            |value: &str| StateLogKind::Metadata.check(b"producer-ids", Some(value.as_bytes()));
        assert_eq!(metadata("{\"version\":1,\"next\":5}"), Ok(()));
        let later = |found| UnknownRecord::Later {
            part: "value",
            found,
            known: 1,
        };
        assert_eq!(metadata("{\"version\":12}"), Err(later(12)));
        assert_eq!(metadata("{\"version\":99999999999}"), Err(later(u32::MAX)));
        for value in [
            "",
            "{}",
            "{\"version\":\"1\"}",
            "{\"next\":1,\"version\":1}",
        ] {
            let missing = Err(UnknownRecord::Missing { part: "value" });
            assert_eq!(metadata(value), missing, "{value}");
        }
        let groups = |key: &[u8], value: &[u8]| StateLogKind::Groups.check(key, Some(value));
        assert_eq!(groups(&[1, 3], &[1, 0]), Ok(()));
        assert_eq!(groups(&[1, 3], &[2, 0]), Err(later(2)));
        assert!(groups(&[2, 3], &[1, 0]).is_err());
        assert!(groups(&[], &[1]).is_err());
        assert!(groups(&[1], &[]).is_err());
        assert_eq!(StateLogKind::Groups.check(&[1, 2], None), Ok(()));
        assert!(StateLogKind::Groups.check(&[2], None).is_err());
    }

    #[test]
    fn a_record_about_something_else_is_refused() {
        for kind in [0, 5, 255] {
            let checked = StateLogKind::Groups.check_key(&[1, kind]);
            assert_eq!(checked, Err(UnknownRecord::Kind), "{kind}");
        }
        for (kind, is_known) in [(0, false), (1, true), (5, true), (6, false)] {
            let checked = StateLogKind::Shares.check_key(&[1, kind]);
            assert_eq!(checked.is_ok(), is_known, "{kind}");
        }
        for (key, is_known) in [("producer-ids/1000", true), ("producer-idz", false)] {
            let checked = StateLogKind::Metadata.check_key(key.as_bytes());
            assert_eq!(checked.is_ok(), is_known, "{key}");
        }
        for kind in GROUPS_KINDS {
            assert_eq!(StateLogKind::Groups.check_key(&[1, kind]), Ok(()));
        }
        for (kind, known, version) in [
            (StateLogKind::Holds, b"hold/1a2b".as_slice(), 2),
            (StateLogKind::Losses, b"loss/00000000000000000001", 3),
            (
                StateLogKind::Schemas,
                b"schema/00000000-0000-4000-8000-000000000001",
                1,
            ),
            (
                StateLogKind::Once,
                b"once/00000000-0000-0000-0000-00000000002a/k",
                1,
            ),
            (
                StateLogKind::Acls,
                b"acl/00000000-0000-4000-8000-000000000001",
                1,
            ),
            (StateLogKind::Quotas, b"quota/{\"user\":null}", 1),
            (StateLogKind::Credentials, b"scram/SCRAM-SHA-256/alice", 1),
            (StateLogKind::Credentials, b"decoy", 1),
            (StateLogKind::Credentials, b"token/0123456789abcdef", 1),
            (StateLogKind::Erasures, b"erasure/1a2b", 1),
            (StateLogKind::Erasures, b"erasure-part/1a2b/0000000003", 1),
            (StateLogKind::Erasures, b"erasure-wanted/1a2b", 1),
            (StateLogKind::Erasures, b"receipt/00000000000000000001", 1),
        ] {
            let check = |found| {
                let value = format!("{{\"version\":{found}}}");
                kind.check(known, Some(value.as_bytes()))
            };
            assert!((1..=version).all(|found| check(found).is_ok()));
            assert!(check(0).is_err() && check(version + 1).is_err());
            assert_eq!(kind.check_key(b"topic/1"), Err(UnknownRecord::Kind));
        }
        let retained = |value: &[u8]| StateLogKind::Retained.check(b"retained/a", Some(value));
        assert_eq!(retained(&[1, 0]), Ok(()));
        assert!(
            retained(&[1]).is_ok()
                && retained(&[2]).is_ok()
                && retained(&[3]).is_ok()
                && retained(&[4]).is_err()
                && retained(&[]).is_err()
        );
        for key in [
            "session/",
            "session-received/",
            "session-sending/",
            "session-cursor/",
            "session-mark",
        ] {
            let sessions = |value: &[u8]| StateLogKind::Sessions.check(key.as_bytes(), Some(value));
            assert_eq!(sessions(&[1, 0]), Ok(()));
            assert!(sessions(&[2]).is_err() && sessions(&[]).is_err());
        }
        let metadata = |key: &[u8]| StateLogKind::Metadata.check_key(key);
        assert_eq!(metadata(b"topic/01234567"), Ok(()));
        assert_eq!(metadata(b"broker-settings"), Ok(()));
        for key in [b"".as_slice(), b"topic", b"user/alice", b"producer-ids2"] {
            assert_eq!(metadata(key), Err(UnknownRecord::Kind));
        }
    }
}
