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

/// How many are connected, and the first of them by their ids.
pub(in crate::front) type ListClients =
    Box<dyn Fn(usize) -> (usize, Vec<ClientShown>) + Send + Sync>;
/// Ends the connections of a client id; how many there were.
pub(in crate::front) type EndClient = Box<dyn Fn(&str) -> usize + Send + Sync>;

/// See the module.
pub struct Administered {
    pub(in crate::front) clients: ListClients,
    pub(in crate::front) end: EndClient,
}
