//! The load generator of the MQTT cases: a client of MQTT 3.1.1 by hand, the same for every broker of a run. 3.1.1 because all
//! of them speak it.
//!
//! It has to leave the two cores to the broker: a task for each connection, one read for all that has come, one write for all
//! that goes out, packets that are made once and copied with another identifier.

pub mod connection;
pub mod fanout;
pub mod fleet;
pub mod one_way;
pub mod packet;
pub mod publishers;
