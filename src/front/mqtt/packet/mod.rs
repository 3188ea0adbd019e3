//! Packets: MQTT 3.1.1 and 5.0 as bytes, both ways. Pure: no connection, no broker.
//! Callers: the connections of this front, and the fuzzer. What comes in is a view over the packet's bytes, checked by all rules that
//! need no more than the packet: what passes may be relied on. What goes out is appended to a buffer.
//! Source: OASIS, MQTT 3.1.1 and MQTT 5.0, whose sections are named by `§`.

mod connect;
mod fault;
mod header;
mod incoming;
mod outgoing;
mod properties;
mod publish;
mod reader;
mod subscribe;
mod words;
mod writer;

pub use connect::{Connect, Will, version_of};
pub use fault::Fault;
pub use header::{Header, HeaderError, PACKET_BYTES_MAX, header};
pub use incoming::{Ack, AckKind, Disconnect, Incoming, decode, decode_connect};
pub use outgoing::{
    Connack, Delivery, connack, disconnect, pingresp, publish, reply, suback, unsuback,
};
pub use properties::Properties;
pub use publish::Publish;
pub use subscribe::{Filter, RetainHandling, Subscribe, Unsubscribe};
pub use words::{Qos, Version};

#[cfg(test)]
mod tests;
