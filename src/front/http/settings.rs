//! The settings of the HTTP front.

use crate::setting::{Kind, Setting, address, number, size};

/// What the front is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `http.listen`: where it listens, `host:port`.
    pub listen: String,
    /// `metrics.series.max`: series of one metric.
    pub metrics_series_max: usize,
    /// `http.files.bytes`: what Parquet files may take that were made for readers.
    pub files_bytes: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            listen: "127.0.0.1:8080".into(),
            metrics_series_max: 10_000,
            files_bytes: 1 << 30,
        }
    }
}

/// All of them, by name.
pub const SETTINGS: &[Setting<Settings>] = &[
    Setting {
        name: "http.listen",
        kind: Kind::String,
        default: "127.0.0.1:8080",
        is_live: false,
        doc: "Where HTTP listens, `host:port`; port 0 picks one.",
        get: |it| it.listen.clone(),
        set: |it, value| {
            it.listen = address(value)?;
            Ok(())
        },
    },
    Setting {
        name: "metrics.series.max",
        kind: Kind::Int,
        default: "10000",
        is_live: false,
        doc: "Series of one metric on `/metrics` at most, where topics, partitions or groups are its labels; the rest \
              is summed in one series. 100 to 1000000.",
        get: |it| it.metrics_series_max.to_string(),
        set: |it, value| {
            it.metrics_series_max = size(value, 100..=1_000_000)?;
            Ok(())
        },
    },
    Setting {
        name: "http.files.bytes",
        kind: Kind::Long,
        default: "1073741824",
        is_live: false,
        doc: "Bytes that Parquet files may take on the disk which were made for readers of `/api/v1/topics/{topic}/files`; \
              those that were not asked for the longest go first, and all go at a start. 0 makes none.",
        get: |it| it.files_bytes.to_string(),
        set: |it, value| {
            it.files_bytes = number(value, 0..=i64::MAX as u64)?;
            Ok(())
        },
    },
];
