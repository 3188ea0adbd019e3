//! Hand-made clients of AMQP 1.0 over the codec of the crate `amqp`: they can do what a well-made library would not let them do.
//!
//! `said` is what such clients say, without I/O; `peer` is a client with one session that waits for its answers; `conversations` are
//! frames to be changed and lied about. The load generator of the benchmark (`bench/amqp/client.rs`) does its own I/O, and says the same.
//! Callers: the exam and the benchmark; this module knows neither.

pub mod conversations;
pub mod peer;
pub mod said;
