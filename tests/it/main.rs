//! The broker as its clients see it.

mod binary;
mod group_tool;
mod groups;
mod process;
mod raw;
mod server;
mod tidy;
mod versions;
