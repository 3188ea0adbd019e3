//! Foreign bytes as links have them read, without a connection, a topic and a disk.
//!
//! Caller: the fuzzer. Invariant: nothing is read here that a link would read otherwise.

use amqp::message::Message;

use super::selected;
use super::selector::Selector;

/// What a selector says of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It is selected.
    True,
    /// It is not.
    False,
    /// It is not, and would not be by the opposite.
    Unknown,
}

/// What a selector of this text says of the message of this payload. None: either is none.
pub fn select(text: &str, payload: &[u8]) -> Option<Said> {
    let selector = Selector::parse(text).ok().flatten()?;
    let message = Message::of(payload).ok()?;
    Some(match selected::truth(&selector, message) {
        Some(true) => Said::True,
        Some(false) => Said::False,
        None => Said::Unknown,
    })
}
