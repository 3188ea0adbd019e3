//! The broker as its clients see it.

mod groups;
mod raw;
mod server;
