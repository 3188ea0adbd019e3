//! The settings of the HTTP front.

use std::fmt;

use super::guard::{is_host, is_origin};
use crate::front::listener::joined;
use crate::setting::{Kind, Setting, address, number, size};

/// What the front is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `http.listen`: where it listens.
    pub listen: Vec<HttpListen>,
    /// `http.connections.max`: connections at a time.
    pub connections_max: usize,
    /// `http.cors.allow.origins`: pages of other origins that may use the API.
    pub allow_origins: Vec<String>,
    /// `http.hosts`: names by which the server may be called.
    pub hosts: Vec<String>,
    /// `metrics.series.max`: series of one metric.
    pub metrics_series_max: usize,
    /// `http.files.bytes`: what Parquet files may take that were made for readers.
    pub files_bytes: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            listen: Vec::new(),
            connections_max: 4_096,
            allow_origins: Vec::new(),
            hosts: Vec::new(),
            metrics_series_max: 10_000,
            files_bytes: 1 << 30,
        }
    }
}

/// An address that HTTP is served on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpListen {
    /// `host:port`.
    pub address: String,
    /// Whether connections are encrypted.
    pub is_encrypted: bool,
}

impl fmt::Display for HttpListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_encrypted { ENCRYPTED } else { "" };
        write!(f, "{scheme}{}", self.address)
    }
}

/// What stands before an address that is encrypted.
const ENCRYPTED: &str = "https://";

fn listens(value: &str) -> Result<Vec<HttpListen>, String> {
    let entries = value.split(',').map(str::trim).filter(|it| !it.is_empty());
    let all: Result<Vec<HttpListen>, String> = entries
        .map(|entry| {
            let encrypted = entry.strip_prefix(ENCRYPTED);
            let plain = entry.strip_prefix("http://").unwrap_or(entry);
            let address = address(encrypted.unwrap_or(plain))?;
            if address.contains('/') {
                return Err(format!("{entry} must be host:port or https://host:port"));
            }
            Ok(HttpListen {
                address,
                is_encrypted: encrypted.is_some(),
            })
        })
        .collect();
    match all? {
        all if all.is_empty() => Err("must be host:port".to_owned()),
        all => Ok(all),
    }
}

/// All of them, by name.
pub const SETTINGS: &[Setting<Settings>] = &[
    Setting {
        name: "http.connections.max",
        kind: Kind::Int,
        default: "4096",
        is_live: false,
        doc: "HTTP connections at a time at most, as far as the limit of open files allows; 16 or more. Half of them may \
              follow records at a time, and requests of a quarter of them are answered at a time, so that there is room \
              for those who ask for health and metrics.",
        get: |it| it.connections_max.to_string(),
        set: |it, value| {
            it.connections_max = size(value, 16..=1_000_000)?;
            Ok(())
        },
    },
    Setting {
        name: "http.cors.allow.origins",
        kind: Kind::List,
        default: "",
        is_live: false,
        doc: "Origins of pages that may use the HTTP API from a browser beside this server's own, such as \
              `https://console.example:8443`, with commas between them; `*` is all. Pages of other origins are refused.",
        get: |it| it.allow_origins.join(","),
        set: |it, value| {
            it.allow_origins = named(
                value,
                is_origin,
                "must be origins, as in https://console.example:8443, or *",
            )?;
            Ok(())
        },
    },
    Setting {
        name: "http.hosts",
        kind: Kind::List,
        default: "",
        is_live: false,
        doc: "Names by which HTTP clients may call this server (the header `Host`, without a port), with commas between \
              them; `*` is all. Addresses and localhost are always known. Without names, a server that \
              listens on loopback knows no others, and one that listens elsewhere takes every name.",
        get: |it| it.hosts.join(","),
        set: |it, value| {
            it.hosts = named(value, is_host, "must be host names without ports, or *")?;
            Ok(())
        },
    },
    Setting {
        name: "http.listen",
        kind: Kind::List,
        default: "127.0.0.1:8080",
        is_live: false,
        doc: "Where HTTP listens, `host:port`, with commas between several; port 0 picks one. `https://host:port` is encrypted \
              (ssl.keystore.location).",
        get: |it| joined(&it.listen),
        set: |it, value| {
            it.listen = listens(value)?;
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

/// A list with commas, each of which must be as it is to be.
fn named(value: &str, is_good: fn(&str) -> bool, must: &str) -> Result<Vec<String>, String> {
    let all = value
        .split(',')
        .map(str::trim)
        .filter(|one| !one.is_empty());
    let all: Vec<String> = all.map(str::to_owned).collect();
    match all.iter().all(|one| is_good(one)) {
        true => Ok(all),
        false => Err(must.to_owned()),
    }
}
