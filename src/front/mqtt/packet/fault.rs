//! What is wrong with a packet.

/// Why a packet is not taken. Each ends the connection; with which code is said in `errors`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Its bytes are none of such a packet.
    #[error("malformed packet: {0}")]
    Malformed(&'static str),
    /// It is well-formed, and not allowed.
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    /// The name of its topic is none.
    #[error("the topic name is empty, or has a wildcard")]
    TopicName,
    /// Its topic alias is 0.
    #[error("the topic alias is 0")]
    TopicAlias,
    /// A CONNECT of another version of the protocol.
    #[error("the protocol's version is neither 3.1.1 nor 5.0")]
    Version {
        /// Whether it is older than 5.0.
        is_older: bool,
    },
    /// A CONNECT whose client has no id, and wants a session that outlives its connection.
    #[error("a client without an id cannot have a session that is kept")]
    ClientId,
}
