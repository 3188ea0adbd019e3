//! The broker as its clients see it.

mod backup_tool;
mod beside_kafka;
mod binary;
mod bounds;
mod broker_tools;
mod circles;
mod cleanup_http;
mod cleanup_tool;
mod compacted;
mod demo;
mod fetch_waits;
mod garbage;
mod group_tool;
mod groups;
#[path = "../history/mod.rs"]
mod history;
mod library;
mod linearizable;
mod log_tool;
mod metrics;
mod operations;
mod pipe_promises;
mod pipe_tool;
mod process;
mod raw;
mod server;
mod server_settings;
mod settings;
mod shell_tool;
mod state_logs;
mod stations;
mod tidy;
mod topic_names;
mod topic_tool;
mod transactions;
mod versions;
