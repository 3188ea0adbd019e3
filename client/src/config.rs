//! Settings of a client: addresses, timeouts, backoff of retries, request limits.

use crate::{Sasl, Tls, Troubles};
use std::time::Duration;

/// The port of an address that names none: Kafka's.
pub const DEFAULT_PORT: u16 = 9092;

/// How a client reaches its cluster.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Addresses to ask first, `host:port`, or a host alone for port 9092.
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
    /// What encrypts its connections; None if nothing does.
    pub tls: Option<Tls>,
    /// As whom it logs in; None if it does not.
    pub sasl: Option<Sasl>,
    /// Where the client notes what it tries again: keep a clone to watch it.
    pub troubles: Troubles,
}

impl ClientConfig {
    /// The defaults, for a comma-separated list of `host:port`.
    pub fn new(bootstrap: &str) -> ClientConfig {
        let addresses = bootstrap
            .split(',')
            .map(str::trim)
            .filter(|a| !a.is_empty());
        ClientConfig {
            bootstrap: addresses.map(with_port).collect(),
            client_id: "alluvium".to_owned(),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            retry_timeout: Duration::from_secs(60),
            retry_backoff: Duration::from_millis(50),
            retry_backoff_max: Duration::from_secs(1),
            metadata_age_max: Duration::from_secs(300),
            response_bytes_max: 256 << 20,
            tls: None,
            sasl: None,
            troubles: Troubles::default(),
        }
    }
}

/// `host:port` of a host that may come without a port, and of an IPv6 address that may come without brackets.
fn with_port(address: &str) -> String {
    let is_bare_v6 = address.parse::<std::net::Ipv6Addr>().is_ok();
    match address.rsplit_once(':') {
        _ if is_bare_v6 => format!("[{address}]:{DEFAULT_PORT}"),
        Some((_, port)) if !port.ends_with(']') => address.to_owned(),
        _ => format!("{address}:{DEFAULT_PORT}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_port_gets_kafkas() {
        let config = ClientConfig::new("localhost, a:1,::1 ,[::1],[::1]:7,10.0.0.1");
        let wanted = [
            "localhost:9092",
            "a:1",
            "[::1]:9092",
            "[::1]:9092",
            "[::1]:7",
            "10.0.0.1:9092",
        ];
        assert_eq!(config.bootstrap, wanted);
    }
}
