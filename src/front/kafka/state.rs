//! What all connections of this front share: the broker, settings, memory, counters.
//! Callers: `serve`, which makes one and has it served (`kafka::Front::serve`); each connection; the metrics.

use std::sync::Arc;

use tokio::time::Instant;

use super::frame;
use super::sessions::Sessions;
use super::settings::Settings;
use super::share_sessions::ShareSessions;
use super::stats::Stats;
use super::unsupported::UnsupportedLog;
use crate::broker::Broker;
use crate::front;
use crate::front::budget::Budget;
use crate::front::peers::Peers;
use crate::front::places::Places;

/// What all connections share.
pub struct Front {
    pub(super) broker: Broker,
    pub(super) shared: front::Settings,
    pub(super) settings: Settings,
    pub(super) places: Arc<Places>,
    /// Who is connected.
    pub(super) peers: Arc<Peers>,
    pub(super) stats: Arc<Stats>,
    pub(super) unsupported: UnsupportedLog,
    /// Memory of requests that are being received or worked on.
    pub(super) requests: Arc<Budget>,
    /// Memory of answers.
    pub(super) answers: Arc<Budget>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) share_sessions: Arc<ShareSessions>,
}

impl Front {
    /// A front of this broker, which serves nobody yet. `places` say how many connections there may be.
    pub fn new(
        broker: Broker,
        shared: front::Settings,
        settings: Settings,
        places: Arc<Places>,
    ) -> Arc<Front> {
        let requests = Budget::new(
            settings.queued_request_bytes_max,
            settings.request_bytes_max + frame::LENGTH_BYTES,
        );
        let answers = Budget::new(
            settings.queued_response_bytes_max,
            settings.response_bytes_max,
        );
        let quotas = broker.clone();
        places.set_rate(Box::new(move |address| quotas.quotas().connect(address)));
        let sessions: Arc<Sessions> = Arc::default();
        let known = Arc::downgrade(&sessions);
        broker.set_fetching(Arc::new(move |topic, log| {
            let sessions = known.upgrade();
            let reading =
                sessions.map(|sessions| sessions.reading(topic, log.partition, Instant::now()));
            reading.unwrap_or_default()
        }));
        Arc::new(Front {
            broker,
            shared,
            settings,
            places,
            peers: Arc::default(),
            stats: Arc::default(),
            unsupported: UnsupportedLog::default(),
            requests,
            answers,
            sessions,
            share_sessions: Arc::default(),
        })
    }

    /// Who is connected.
    pub fn peers(&self) -> &Arc<Peers> {
        &self.peers
    }
}
