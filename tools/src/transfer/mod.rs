//! `export` and `import`: whole topics or ranges of them as files of stored batches, and back into a topic; files of rows too.
//!
//! Caller: the command line. Both talk Kafka's protocol, so that either side may be another broker. The file of batches is described
//! in `file.rs`, rows are `rows.rs`.

mod export;
mod file;
mod import;
mod rows;

pub use export::{EXPORT_EXAMPLES, ExportArgs};
pub use import::{IMPORT_EXAMPLES, ImportArgs};

/// How long to wait for records before it is looked again whether all are there.
const POLL: std::time::Duration = std::time::Duration::from_millis(500);
