//! What operators are told of MQTT's clients, and may do with them.
//! Callers: the HTTP front shows it; the MQTT front gives it. Plain values.

use std::time::Duration;

/// A client that is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::front) struct ClientShown {
    pub(in crate::front) client_id: String,
    pub(in crate::front) principal: String,
    pub(in crate::front) address: String,
    /// `3.1.1` or `5.0`.
    pub(in crate::front) version: &'static str,
    pub(in crate::front) age: Duration,
}

/// A session that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::front) struct SessionShown {
    pub(in crate::front) principal: String,
    pub(in crate::front) is_connected: bool,
    /// How long it outlives its connection.
    pub(in crate::front) expiry: Duration,
    /// How long nobody has been connected.
    pub(in crate::front) absent: Option<Duration>,
    /// Where its will goes, and how long that waits.
    pub(in crate::front) will: Option<(String, Duration)>,
    /// Filters, with the QoS of each.
    pub(in crate::front) subscriptions: Vec<(String, u8)>,
    /// Messages that it was sent and has not acknowledged, as they are kept.
    pub(in crate::front) unacknowledged: usize,
    /// Messages of QoS 2 that it published and has not released.
    pub(in crate::front) unreleased: usize,
}

/// A message that is retained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::front) struct RetainedShown {
    pub(in crate::front) topic: String,
    pub(in crate::front) bytes: usize,
    pub(in crate::front) age: Duration,
    /// How long it is of use.
    pub(in crate::front) left: Option<Duration>,
}

/// A route from topics of MQTT to a Kafka topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::front) struct RouteShown {
    pub(in crate::front) filter: String,
    pub(in crate::front) topic: String,
    pub(in crate::front) key: String,
    pub(in crate::front) partitions: u32,
    /// Whether it is the one of everything that no other takes, which nobody has set.
    pub(in crate::front) is_default: bool,
}

/// Where messages of a topic of MQTT go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::front) struct Routed {
    /// By which route, from 1; None if the topic names the Kafka topic itself.
    pub(in crate::front) route: Option<usize>,
    pub(in crate::front) topic: String,
    pub(in crate::front) key: Option<String>,
    /// None if there is no key, or the topic is not there and no route says how many partitions it gets.
    pub(in crate::front) partition: Option<u32>,
}

/// Some retained messages in the order of their topics, and behind which name it goes on.
pub(in crate::front) type RetainedPage = (Vec<RetainedShown>, Option<String>);

/// The session of a user's client id; nobody's without a user.
pub(in crate::front) type ShowSession =
    Box<dyn Fn(Option<&str>, &str) -> Option<SessionShown> + Send + Sync>;
/// The retained messages that a filter matches, behind a name. Errors: why it is no filter.
pub(in crate::front) type ListRetained =
    Box<dyn Fn(&str, Option<&str>) -> Result<RetainedPage, String> + Send + Sync>;

/// All routes, in order.
pub(in crate::front) type ListRoutes = Box<dyn Fn() -> Vec<RouteShown> + Send + Sync>;
/// Where messages of a topic go. Errors: why nobody publishes there.
pub(in crate::front) type RouteTopic = Box<dyn Fn(&str) -> Result<Routed, String> + Send + Sync>;

/// How many are connected, and the first of them by their ids.
pub(in crate::front) type ListClients =
    Box<dyn Fn(usize) -> (usize, Vec<ClientShown>) + Send + Sync>;
/// Ends the connections of a client id; how many there were.
pub(in crate::front) type EndClient = Box<dyn Fn(&str) -> usize + Send + Sync>;

/// See the module.
pub struct Administered {
    pub(in crate::front) clients: ListClients,
    pub(in crate::front) end: EndClient,
    pub(in crate::front) session: ShowSession,
    pub(in crate::front) retained: ListRetained,
    pub(in crate::front) routes: ListRoutes,
    pub(in crate::front) route: RouteTopic,
}
