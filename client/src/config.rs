//! Settings of a client.

use std::time::Duration;

/// How a client reaches its cluster.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Addresses to ask first, `host:port`.
    pub bootstrap: Vec<String>,
    /// How the client calls itself in every request.
    pub client_id: String,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// How long to wait for an answer, beside the time that the request itself may wait at the broker.
    pub request_timeout: Duration,
    /// How long to go on trying what can be tried again.
    pub retry_timeout: Duration,
    /// The pause before the second attempt; it doubles up to `retry_backoff_max`.
    pub retry_backoff: Duration,
    /// The longest pause between attempts.
    pub retry_backoff_max: Duration,
    /// After this age what is known of a topic is asked for again.
    pub metadata_age_max: Duration,
    /// The largest answer that is accepted.
    pub response_bytes_max: usize,
}

impl ClientConfig {
    /// The defaults, for a comma-separated list of `host:port`.
    pub fn new(bootstrap: &str) -> ClientConfig {
        let addresses = bootstrap
            .split(',')
            .map(str::trim)
            .filter(|a| !a.is_empty());
        ClientConfig {
            bootstrap: addresses.map(str::to_owned).collect(),
            client_id: "alluvium".to_owned(),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            retry_timeout: Duration::from_secs(60),
            retry_backoff: Duration::from_millis(50),
            retry_backoff_max: Duration::from_secs(1),
            metadata_age_max: Duration::from_secs(300),
            response_bytes_max: 256 << 20,
        }
    }
}
