//! The one table of settings: the sections that the parts bring, put together over the whole configuration.
//! Callers: `config`, which sets and shows by it; the reference page; what clients see and change (`config/live.rs`).

use std::path::PathBuf;
use std::sync::LazyLock;

use super::storage;
use super::values::Config;
use crate::broker::credentials::jwt::settings as jwt;
use crate::broker::settings as broker;
use crate::front::{self, amqp, http, kafka, mqtt};
use crate::setting::{Kind, Setting, boolean};

/// One row, whichever part of the configuration it belongs to.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) default: &'static str,
    pub(super) is_live: bool,
    pub(super) doc: &'static str,
    get: Box<Get>,
    set: Box<Set>,
}

type Get = dyn Fn(&Config) -> String + Send + Sync;
type Set = dyn Fn(&mut Config, &str) -> Result<(), String> + Send + Sync;

impl Row {
    /// The value in force, as it is written.
    pub(super) fn get(&self, config: &Config) -> String {
        (self.get)(config)
    }

    /// Reads a value and puts it into the configuration; or says what a value must be.
    pub(super) fn set(&self, config: &mut Config, value: &str) -> Result<(), String> {
        (self.set)(config, value)
    }
}

/// All rows but the topic defaults, by name.
pub(super) fn rows() -> &'static [Row] {
    static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| {
        let mut rows: Vec<Row> = section(SERVER, |config| config, |config| config)
            .chain(section(
                storage::SETTINGS,
                |it| &it.storage,
                |it| &mut it.storage,
            ))
            .chain(section(
                broker::BROKER,
                |it| &it.broker,
                |it| &mut it.broker,
            ))
            .chain(section(
                broker::GROUPS,
                |it| &it.broker.groups,
                |it| &mut it.broker.groups,
            ))
            .chain(section(front::SETTINGS, |it| &it.front, |it| &mut it.front))
            .chain(section(
                front::TLS_SETTINGS,
                |it| &it.front.tls,
                |it| &mut it.front.tls,
            ))
            .chain(section(
                front::sasl::SETTINGS,
                |it| &it.front.sasl,
                |it| &mut it.front.sasl,
            ))
            .chain(section(
                jwt::SETTINGS,
                |it| &it.broker.jwt,
                |it| &mut it.broker.jwt,
            ))
            .chain(section(kafka::SETTINGS, |it| &it.kafka, |it| &mut it.kafka))
            .chain(section(http::SETTINGS, |it| &it.http, |it| &mut it.http))
            .chain(section(mqtt::SETTINGS, |it| &it.mqtt, |it| &mut it.mqtt))
            .chain(section(amqp::SETTINGS, |it| &it.amqp, |it| &mut it.amqp))
            .collect();
        rows.sort_by_key(|row| row.name);
        rows
    });
    &ROWS
}

/// The row of this name.
pub(super) fn find(name: &str) -> Option<&'static Row> {
    let rows = rows();
    let found = rows.binary_search_by_key(&name, |row| row.name);
    found.ok().map(|index| &rows[index])
}

/// A part's settings as rows over the whole.
fn section<T: 'static>(
    settings: &'static [Setting<T>],
    part: fn(&Config) -> &T,
    part_mut: fn(&mut Config) -> &mut T,
) -> impl Iterator<Item = Row> {
    settings.iter().map(move |setting| Row {
        name: setting.name,
        kind: setting.kind,
        default: setting.default,
        is_live: setting.is_live,
        doc: setting.doc,
        get: Box::new(move |config| (setting.get)(part(config))),
        set: Box::new(move |config, value| (setting.set)(part_mut(config), value)),
    })
}

/// What belongs to no part alone, by name.
pub(super) const SERVER: &[Setting<Config>] = &[
    Setting {
        name: "data.dir",
        kind: Kind::String,
        default: "data",
        is_live: false,
        doc: "The directory of the store. Its parent directory must exist. It must be empty, or hold a store.",
        get: |it| it.storage.data_dir.display().to_string(),
        set: |it, value| {
            data_dir(it, value)?;
            Ok(())
        },
    },
    Setting {
        name: "insecure",
        kind: Kind::Boolean,
        default: "false",
        is_live: false,
        doc: "Whether the server starts although others than its machine can reach it and access is not controlled \
              (authorizer.class.name): then whoever reaches it may read, write and delete everything, and every start \
              warns of it. `--insecure` is the same.",
        get: |it| it.insecure.to_string(),
        set: |it, value| {
            it.insecure = boolean(value)?;
            Ok(())
        },
    },
    Setting {
        name: "store.create.enable",
        kind: Kind::Boolean,
        default: "true",
        is_live: false,
        doc: "Whether a missing or empty data directory becomes a new store. With `false` the server does not start \
              without a store, as when a disk is not mounted.",
        get: |it| it.store_create.to_string(),
        set: |it, value| {
            it.store_create = boolean(value)?;
            Ok(())
        },
    },
    Setting {
        name: "wal.profile",
        kind: Kind::String,
        default: "standard",
        is_live: false,
        doc: "`small` is for small disks: wal.file.bytes=4194304, wal.files.min=2, wal.files.max=16, \
              append.queue.bytes=8388608, unless these are set themselves. An empty store takes 12 MiB instead of 192 \
              MiB, the write-ahead log at most 64 MiB; batches have at most 2 MiB, and sustained throughput is lower.",
        get: |it| profile_text(it.wal_is_small),
        set: |it, value| {
            it.wal_is_small = wal_profile(value)?;
            Ok(())
        },
    },
];

/// What `wal.profile=small` sets.
pub(super) const SMALL_WAL: [(&str, &str); 4] = [
    ("append.queue.bytes", "8388608"),
    ("wal.file.bytes", "4194304"),
    ("wal.files.max", "16"),
    ("wal.files.min", "2"),
];

/// Whether it is the small one.
fn wal_profile(value: &str) -> Result<bool, String> {
    match value {
        "small" => Ok(true),
        "standard" => Ok(false),
        _ => Err("must be small or standard".to_owned()),
    }
}

fn profile_text(is_small: bool) -> String {
    let name = if is_small { "small" } else { "standard" };
    name.to_owned()
}

fn data_dir(config: &mut Config, value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Err("must name a directory".to_owned());
    }
    config.storage.data_dir = PathBuf::from(value);
    config.broker.data_dir = PathBuf::from(value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_stand_once_each_and_none_is_a_topic_default() {
        assert!(rows().windows(2).all(|pair| pair[0].name < pair[1].name));
        for row in rows() {
            let default = model::topic_config::Setting::find_by_server_name(row.name);
            assert!(default.is_none(), "{}", row.name);
        }
    }

    #[test]
    fn a_row_gives_back_what_it_was_given() {
        let config = Config::defaults();
        for row in rows() {
            assert_eq!(row.get(&config), row.default, "{}", row.name);
        }
    }
}
