//! The load generator of the AMQP case: a client of AMQP 1.0 over the codec of the crate `amqp`, the same for every broker of a
//! run. A connection has a session and a link; what is sent goes out as bytes that are made once.

pub mod client;
pub mod links;
