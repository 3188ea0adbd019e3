//! The table of settings as clients of the running server see and change it.

use crate::broker::server_settings::{ServerSetting, ServerSettings, SetValues};
use crate::setting::Kind;

use super::{Config, table};

impl Config {
    /// The settings of a server that is started with this configuration. `put_in_force` is called with the configuration as
    /// changes while it runs make it, and takes from it what is live.
    pub fn server_settings(
        &self,
        put_in_force: impl Fn(&Config) + Send + Sync + 'static,
    ) -> ServerSettings {
        let rows = table::rows().iter().map(|row| ServerSetting {
            name: row.name,
            kind: row.kind,
            doc: row.doc,
            default: row.default,
            given: row.get(self),
            is_live: row.is_live,
        });
        let settings = rows.chain(self.for_clients_only()).collect();
        let given = self.clone();
        let put_in_force = move |values: &SetValues<'_>| put_in_force(&given.with(values));
        ServerSettings::new(settings, check, Box::new(put_in_force))
    }

    /// Names of Kafka's that its clients look for: other names of settings, and what holds on one node.
    fn for_clients_only(&self) -> [ServerSetting; 4] {
        let fixed = |name, kind, doc, default, given| ServerSetting {
            name,
            kind,
            doc,
            default,
            given,
            is_live: false,
        };
        let id = "This broker's id (node.id).";
        let replicas = "Replicas of a topic: this broker is alone.";
        let delete = "Whether topics may be deleted.";
        let data = self.broker.data_dir.display().to_string();
        let node = self.broker.node_id.to_string();
        [
            fixed("broker.id", Kind::Int, id, "1", node),
            fixed(
                "default.replication.factor",
                Kind::Int,
                replicas,
                "1",
                "1".into(),
            ),
            fixed(
                "delete.topic.enable",
                Kind::Boolean,
                delete,
                "true",
                "true".into(),
            ),
            fixed(
                "log.dirs",
                Kind::String,
                "Where the store is (data.dir).",
                "data",
                data,
            ),
        ]
    }

    /// This configuration with what was set while the server runs.
    fn with(&self, values: &SetValues<'_>) -> Config {
        let mut config = self.clone();
        for (name, value) in values {
            let row = table::find(name).expect("what was checked is in the table");
            row.set(&mut config, value)
                .expect("a value that was checked is taken");
        }
        config
    }
}

fn check(name: &str, value: &str) -> Result<String, String> {
    let row = table::find(name).ok_or("there is no such setting")?;
    let mut config = Config::defaults();
    row.set(&mut config, value)?;
    Ok(row.get(&config))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn what_is_set_goes_over_what_the_start_gave_and_back() {
        let mut start = Config::defaults();
        start.storage.scrub_bytes_per_second = 5;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let settings = start.server_settings({
            let seen = seen.clone();
            move |config| {
                let live = (config.storage.scrub_bytes_per_second, config.kafka.limits);
                seen.lock().unwrap().push((live.0, live.1.connections_max));
            }
        });
        let values = [("scrub.bytes.per.second", "7"), ("max.connections", "3")];
        settings.put_in_force(&values.into_iter().collect());
        settings.put_in_force(&SetValues::new());
        assert_eq!(*seen.lock().unwrap(), [(7, 3), (5, 50_000)]);
    }

    #[test]
    fn a_value_is_checked_by_the_row_that_the_start_uses() {
        let spelled = check("store.bytes.max", "05000000");
        assert_eq!(spelled.as_deref(), Ok("5000000"));
        let refused = check("max.connections", "0").unwrap_err();
        assert!(refused.contains("must be 1"), "{refused}");
    }
}
