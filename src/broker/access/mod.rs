//! Access: the one door through which fronts reach topics, groups and the cluster.
//! A front turns what it learned of a peer into a [`Caller`] and gets a [`Door`]; a resource is obtained only through it, with
//! the right that the operation needs, and the broker's operations take what the door gave: the look-up that every handler
//! begins with is the check, and a handler without one does not compile. Which caller has which right is said in `rules`,
//! and nowhere else: `acls` answers by Kafka's access control lists, which `book` keeps.
//! Callers: fronts. What the broker does by itself (its own logs, expiry, metrics) passes no door.
//!
//! ```
//! use alluvium::broker::access::{Door, right};
//!
//! async fn delete(door: &Door, name: &str) -> Result<(), alluvium::broker::Refusal> {
//!     let topic = door.topic(name, right::Delete)?;
//!     door.broker().delete_topics(vec![topic]).await;
//!     Ok(())
//! }
//! ```
//!
//! The same with another right, or by a name that nobody has checked, is not a program:
//!
//! ```compile_fail,E0308
//! # use alluvium::broker::access::{Door, right};
//! # async fn delete(door: &Door, name: &str) -> Result<(), alluvium::broker::Refusal> {
//! let topic = door.topic(name, right::Describe)?;
//! door.broker().delete_topics(vec![topic]).await;
//! # Ok(())
//! # }
//! ```
//!
//! ```compile_fail,E0624
//! # use alluvium::broker::access::Door;
//! # async fn delete(door: &Door, name: &str) -> Result<(), alluvium::broker::Refusal> {
//! let topic = door.broker().topic(name)?;
//! # Ok(())
//! # }
//! ```

mod accounts;
mod acls;
mod book;
mod door;
mod entrance;
mod granted;
mod group;
mod groups;
mod kinds;
mod lists;
pub mod parts;
mod remembered;
pub mod right;
mod rules;
mod shares;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

pub(in crate::broker) use accounts::Accounts;
pub use acls::{Rules, Verdict, allows, allows_any};
pub(in crate::broker) use book::Access;
pub use book::{ACL_BYTES_MAX, ACLS_MAX, AccessConfig, AccessError, AclError, Authorizer};
pub use door::Door;
pub use entrance::Entrance;
pub(in crate::broker) use granted::Owner;
pub use granted::{Cluster, Granted, NewName};
pub use group::Group;
pub use kinds::{ResourceKind, Right};
pub use right::RightOn;
pub use rules::{Resource, TEMPORARY_TOPICS, is_temporary};

/// Who asks, as far as a front knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Who it is known to be.
    pub principal: Principal,
    /// Where it connects from.
    pub address: SocketAddr,
    /// What the client calls itself. It may call itself anything.
    pub client_id: Option<String>,
    /// The protocol in which it asks.
    pub protocol: Protocol,
}

/// Who has shown who they are. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Principal {
    /// Nobody: no credentials were given, or none were asked for.
    Anonymous,
    /// The user of this name.
    User(Arc<str>),
}

impl Principal {
    /// Kafka's name of who has given no credentials.
    pub const ANONYMOUS_NAME: &str = "ANONYMOUS";

    /// The name, as rules have it behind `User:`.
    pub fn name(&self) -> &str {
        match self {
            Principal::Anonymous => Principal::ANONYMOUS_NAME,
            Principal::User(name) => name,
        }
    }
}

/// The protocols in which somebody may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Kafka's.
    Kafka,
    /// HTTP.
    Http,
    /// MQTT.
    Mqtt,
    /// AMQP 1.0.
    Amqp,
}

impl Protocol {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Kafka => "kafka",
            Protocol::Http => "http",
            Protocol::Mqtt => "mqtt",
            Protocol::Amqp => "amqp",
        }
    }
}

/// As Kafka writes it, and its rules have it.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "User:{}", self.name())
    }
}

/// Who asks, as far as it is known, for the log and for whoever lists jobs.
pub(in crate::broker) fn asked_by(caller: &Caller) -> String {
    const CLIENT_ID_CHARS_MAX: usize = 100;
    let id: String = caller
        .client_id
        .iter()
        .flat_map(|id| id.chars())
        .take(CLIENT_ID_CHARS_MAX)
        .collect();
    match id.is_empty() {
        true => format!("{} from {}", caller.principal, caller.address),
        false => format!("{} from {} ({id})", caller.principal, caller.address),
    }
}
