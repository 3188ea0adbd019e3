//! The bounds of a connection that no setting changes.

/// Sessions, and links of a session: the highest number of each.
pub(super) const NUMBER_MAX: u16 = 255;
/// Links of a connection.
pub(super) const LINKS_MAX: usize = 1_024;
/// Cursors of a connection. Each is a reader of the log.
pub(super) const CURSORS_MAX: usize = 64;
/// Consumers of queues of a connection. Each holds a block of records at most.
pub(super) const CONSUMERS_MAX: usize = 256;
/// Transfers that a session takes.
pub(super) const WINDOW: u32 = 2_048;
/// Deliveries that a sender may send before it hears of them.
pub(super) const CREDIT: u32 = 1_000;
/// Deliveries of a session that its peer has not settled.
pub(super) const UNSETTLED_MAX: usize = 8_192;
/// No further deliveries are read while those that came and are not stored hold more.
pub(super) const QUEUED_BYTES_MAX: usize = 1 << 20;
/// No further deliveries are read while so many came and are not stored: each costs more than its bytes.
pub(super) const QUEUED_MAX: usize = 4_096;
/// Temporary nodes of a connection.
pub(super) const TEMPORARIES_MAX: usize = 100;
/// Transactions of a connection that are open.
pub(super) const TRANSACTIONS_MAX: usize = 256;
/// Deliveries that are settled in a transaction.
pub(super) const PINS_MAX: usize = 64 << 10;
/// What all of them hold of messages.
pub(super) const TRANSACTION_BYTES_MAX: usize = 8 << 20;
/// What a connection holds beside messages that are not whole: what was read at once, what is queued, and what waits for its transaction.
pub(super) fn held_bytes_max(frame_bytes_max: usize) -> usize {
    QUEUED_BYTES_MAX + TRANSACTION_BYTES_MAX + 4 * frame_bytes_max
}
/// No further deliveries are put to what a peer has not taken while that is longer.
pub(super) const UNSENT_BYTES_MAX: usize = 256 << 10;
/// A client's name stands in the log.
pub(super) const CONTAINER_ID_BYTES_MAX: usize = 1_024;
/// Requests to a node that answers that a sender may send before it hears of them.
pub(super) const REQUESTS_MAX: u32 = 16;
/// No further request is answered while the answers that a peer has not taken are longer.
pub(super) const ANSWERS_BYTES_MAX: usize = 256 << 10;
/// The name of a consumer group is kept while its receiver is there.
pub(super) const GROUP_BYTES_MAX: usize = 256;
