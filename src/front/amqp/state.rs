//! What all connections of this front share: the broker, settings, memory, counters.
//! Callers: `serve`, which makes one and has it served; each connection; the metrics.

use std::sync::Arc;
use std::time::Duration;

use super::bounds::held_bytes_max;
use super::containers::Containers;
use super::owners::Owners;
use super::settings::Settings;
use super::stats::Stats;
use super::subscriptions::Uses;
use crate::broker::Broker;
use crate::front::budget::Budget;
use crate::front::places::{Patience, Places};
use crate::front::websocket::OpenWeb;
use crate::front::{self, Limits};

/// How long connections stay while others wait for a place. Those that have opened stay.
const PATIENCE: Patience = Patience {
    silent: Duration::from_secs(1),
    idle: Duration::from_secs(1),
    busy: None,
};
/// What deliveries that are being received or stored hold in memory, beside some KiB of each connection.
const RECEIVED_BYTES_MAX: usize = 64 << 20;

/// What all connections share.
pub struct Front {
    pub(super) broker: Broker,
    pub(super) shared: front::Settings,
    pub(super) settings: Settings,
    pub(super) places: Arc<Places>,
    pub(super) stats: Stats,
    /// Container ids that are one connection's alone.
    pub(super) containers: Arc<Containers>,
    /// Who reads which partition for which consumer group.
    pub(super) owners: Arc<Owners>,
    /// Subscriptions that have consumers.
    pub(super) subscriptions: Arc<Uses>,
    /// Memory of deliveries that are being received or stored.
    pub(super) received: Arc<Budget>,
    /// Connections by WebSocket.
    pub(super) web: Arc<OpenWeb>,
}

impl Front {
    /// A front of this broker, which serves nobody yet: so many connections at a time.
    pub fn new(
        broker: Broker,
        shared: front::Settings,
        settings: Settings,
        connections_max: usize,
    ) -> Arc<Front> {
        let limits = Limits {
            connections_max: connections_max.min(settings.connections_max).max(16),
            per_address_max: usize::MAX,
        };
        let places = Places::new(limits, PATIENCE);
        let quotas = broker.clone();
        places.set_rate(Box::new(move |address| quotas.quotas().connect(address)));
        let one_max = held_bytes_max(settings.frame_bytes_max) + 4 * settings.message_bytes_max;
        Arc::new(Front {
            broker,
            shared,
            places,
            stats: Stats::default(),
            containers: Arc::default(),
            owners: Arc::default(),
            subscriptions: Arc::default(),
            web: OpenWeb::new(),
            received: Budget::new(RECEIVED_BYTES_MAX.max(2 * one_max), one_max),
            settings,
        })
    }
}
