//! The settings that all fronts share.

use std::time::Duration;

use super::listener::TlsSettings;
use super::sasl::SaslSettings;
use crate::setting::{Kind, Setting, millis, text_of_millis};

/// What all fronts are started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `connections.max.idle.ms`; also how long a peer may leave its replies unread.
    pub idle_max: Duration,
    /// What encrypts listeners.
    pub tls: TlsSettings,
    /// How clients log in.
    pub sasl: SaslSettings,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            idle_max: Duration::from_secs(10 * 60),
            tls: TlsSettings::default(),
            sasl: SaslSettings::default(),
        }
    }
}

/// All of them.
pub const SETTINGS: &[Setting<Settings>] = &[Setting {
    name: "connections.max.idle.ms",
    kind: Kind::Long,
    default: "600000",
    is_live: false,
    doc: "A connection without a request is closed after this many milliseconds, on the HTTP port too; 1000 or \
              more. So is one whose peer leaves its replies unread for as long. While all connections are taken, those \
              that are idle make room much sooner.",
    get: |it| text_of_millis(it.idle_max),
    set: |it, value| {
        it.idle_max = millis(value, 1000)?;
        Ok(())
    },
}];
