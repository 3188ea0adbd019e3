//! The server's own settings as clients see and change them: the broker keeps what is set while it runs, and whoever starts
//! the server brings the table, as most settings belong to fronts and to the store.
//! Callers: `configs`; whoever starts a broker.
//! Invariant: what is put in force was checked, all of it together.

use std::collections::BTreeMap;
use std::fmt;

use crate::setting::Kind;

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSetting {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// What it means.
    pub doc: &'static str,
    /// Its value where nobody sets it.
    pub default: &'static str,
    /// Its value as the start gave it.
    pub given: String,
    /// Whether it may change while the server runs; all others need a restart.
    pub is_live: bool,
}

/// A value that a setting cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}={value}: {reason}")]
pub struct InvalidServerSetting {
    /// The setting.
    pub name: &'static str,
    /// The value that was given.
    pub value: String,
    /// What the value must be.
    pub reason: String,
}

/// Values that were set while the server runs, by name.
pub type SetValues<'a> = BTreeMap<&'a str, &'a str>;

/// The table, and how values are checked and put in force.
pub struct ServerSettings {
    settings: Vec<ServerSetting>,
    check: Check,
    put_in_force: PutInForce,
}

/// Reads a value of the setting; gives back its one spelling, or says what it must be.
pub type Check = fn(&str, &str) -> Result<String, String>;

/// Puts the start's settings in force, with these set over them.
pub type PutInForce = Box<dyn Fn(&SetValues<'_>) + Send + Sync>;

impl ServerSettings {
    /// From the table. `check` is asked about live settings only, and `put_in_force` gets values that it took.
    pub fn new(
        mut settings: Vec<ServerSetting>,
        check: Check,
        put_in_force: PutInForce,
    ) -> ServerSettings {
        settings.sort_by_key(|setting| setting.name);
        ServerSettings {
            settings,
            check,
            put_in_force,
        }
    }

    /// All of them, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = &ServerSetting> {
        self.settings.iter()
    }

    /// The setting of this name.
    pub(super) fn find(&self, name: &str) -> Option<&ServerSetting> {
        let found = self
            .settings
            .binary_search_by_key(&name, |setting| setting.name);
        found.ok().map(|index| &self.settings[index])
    }

    /// Whether a live setting may have the value; in its one spelling.
    pub(super) fn check(
        &self,
        setting: &ServerSetting,
        value: &str,
    ) -> Result<String, InvalidServerSetting> {
        assert!(setting.is_live, "{} needs a restart", setting.name);
        (self.check)(setting.name, value.trim()).map_err(|reason| InvalidServerSetting {
            name: setting.name,
            value: value.to_owned(),
            reason,
        })
    }

    /// Puts in force what the start gave, with these over it.
    pub(crate) fn put_in_force(&self, values: &SetValues<'_>) {
        (self.put_in_force)(values);
    }
}

/// No settings, so that nothing of a server can be seen or changed: for a broker without one.
impl Default for ServerSettings {
    fn default() -> ServerSettings {
        let unknown: Check = |_, _| Err("there is no such setting".to_owned());
        ServerSettings::new(Vec::new(), unknown, Box::new(|_| ()))
    }
}

impl fmt::Debug for ServerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.settings).finish()
    }
}
