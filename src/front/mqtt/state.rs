//! What all connections of this front share: the broker, settings, memory, counters.
//! Callers: `serve`, which makes one and has it served; each connection; the metrics.

use std::sync::Arc;

use super::clients::Clients;
use super::live::Lives;
use super::settings::Settings;
use super::sharing::Sharing;
use super::stats::Stats;
use crate::broker::Broker;
use crate::front::budget::Budget;
use crate::front::places::{Patience, Places};
use crate::front::websocket::OpenWeb;
use crate::front::{self, Limits};

use std::time::Duration;

use tokio::sync::SetOnce;

/// How long connections stay while others wait for a place. Those that are clients stay.
const PATIENCE: Patience = Patience {
    silent: Duration::from_secs(1),
    idle: Duration::from_secs(1),
    busy: None,
};
/// What packets that are being received hold in memory, beside some KiB of each connection.
const RECEIVED_BYTES_MAX: usize = 64 << 20;

/// What all connections share.
pub struct Front {
    pub(super) broker: Broker,
    pub(super) shared: front::Settings,
    pub(super) settings: Settings,
    pub(super) places: Arc<Places>,
    pub(super) clients: Arc<Clients>,
    pub(super) stats: Arc<Stats>,
    /// What comes, for those who keep up.
    pub(super) lives: Arc<Lives>,
    /// Set when kept sessions are where the routes want them: before that nobody is served.
    pub(super) is_ready: SetOnce<()>,
    /// Which subscriptions are shared.
    pub(super) sharing: Sharing,
    /// How many are open of those that came by the HTTP port.
    pub(super) web: Arc<OpenWeb>,
    /// Memory of packets that are being received or stored.
    pub(super) received: Arc<Budget>,
}

impl Front {
    /// A front of this broker, which serves nobody yet: so many connections at a time.
    pub fn new(
        broker: Broker,
        shared: front::Settings,
        settings: Settings,
        connections_max: usize,
    ) -> Arc<Front> {
        let connections_max = connections_max.min(settings.connections_max).max(16);
        let limits = Limits {
            connections_max,
            per_address_max: usize::MAX,
        };
        let places = Places::new(limits, PATIENCE);
        let quotas = broker.clone();
        places.set_rate(Box::new(move |address| quotas.quotas().connect(address)));
        let packet_bytes_max = settings.packet_bytes_max;
        let (count, bytes) = settings.sessions_allowed();
        broker.allow_sessions(count, bytes);
        broker.allow_retained(settings.retained_allowed());
        let stats = Arc::<Stats>::default();
        Arc::new(Front {
            lives: Lives::new(broker.clone(), settings.routes.clone(), Arc::clone(&stats)),
            is_ready: SetOnce::new(),
            sharing: Sharing::new(broker.clone()),
            broker,
            shared,
            places,
            clients: Clients::new(connections_max - connections_max / 16),
            stats,
            web: OpenWeb::new(),
            received: Budget::new(
                RECEIVED_BYTES_MAX.max(2 * packet_bytes_max),
                packet_bytes_max,
            ),
            settings,
        })
    }
}
