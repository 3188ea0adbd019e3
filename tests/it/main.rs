//! The broker as its clients see it.

mod groups;
mod process;
mod raw;
mod server;
mod tidy;
