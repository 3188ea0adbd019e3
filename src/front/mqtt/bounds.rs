//! The bounds of a connection that no setting changes.

/// Publishes of a client that may be without an ack; its *receive maximum*. 3.1.1 knows none: there no more is read.
pub(super) const RECEIVE_MAX: usize = 64;
/// The highest topic alias that a client may use.
pub(super) const ALIAS_MAX: usize = 16;
/// Messages to a client that may be without an ack, whatever it takes: each is remembered.
pub(super) const SEND_MAX: usize = 256;
/// Subscriptions of a client. Each is looked at for each message.
pub(super) const SUBSCRIPTIONS_MAX: usize = 1_000;
/// Kafka topics that a client's subscriptions read. Of each it has a place.
pub(super) const TOPICS_MAX: usize = 128;
/// Shared subscriptions of a client. Each is a reader of the log.
pub(super) const SHARED_MAX: usize = 64;
/// Replays of a client. Each is a cursor of its own.
pub(super) const REPLAYS_MAX: usize = 8;
/// No further messages are put to what a client has not taken while that is longer.
pub(super) const UNSENT_BYTES_MAX: usize = 64 << 10;
/// Looks at retained messages that are taken one after the other, before others have their turn.
pub(super) const LOOKS_AT_ONCE: usize = 64;
/// A client's id stands in each of its records.
pub(super) const CLIENT_ID_BYTES_MAX: usize = 1_024;
/// The longest packet of somebody who is no client yet.
pub(super) const GREETING_BYTES_MAX: usize = 64 << 10;
