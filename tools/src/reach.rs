//! How commands reach brokers: the addresses that are typed, and what is said while nobody answers there.
//!
//! Callers: `context` for addresses, `cli` for whatever talks to a broker.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use client::config::DEFAULT_PORT;
use client::{Error, Trouble, Troubles};
use tokio::task::JoinHandle;

use crate::output::note;

/// After so long a wait it is said what is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// A failure that is older was not tried again: nobody waits for it.
const FRESH: Duration = Duration::from_secs(3);

/// What stands before an address of HTTP that is encrypted.
pub(crate) const HTTPS: &str = "https://";

/// Checks one address of HTTP, which may stand behind `http://` or `https://`; the latter stays.
pub(crate) fn http_address(text: &str, default_port: u16) -> Result<String, String> {
    match text.strip_prefix(HTTPS) {
        Some(rest) => Ok(format!("{HTTPS}{}", address(rest, default_port)?)),
        None => address(text.strip_prefix("http://").unwrap_or(text), default_port),
    }
}

/// Checks a list of addresses with commas between them, and writes the port into those that have none.
pub(crate) fn addresses(list: &str) -> Result<String, String> {
    let all: Result<Vec<String>, String> = list
        .split(',')
        .map(str::trim)
        .filter(|address| !address.is_empty())
        .map(|one| address(one, DEFAULT_PORT))
        .collect();
    let all = all?;
    match all.is_empty() {
        true => Err("no address of a broker is given: write HOST or HOST:PORT".to_owned()),
        false => Ok(all.join(",")),
    }
}

/// Checks one address, and writes `default_port` into it if it has none.
pub(crate) fn address(text: &str, default_port: u16) -> Result<String, String> {
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Ok(format!("[{text}]:{default_port}"));
    }
    let wrong = |what: &str| Err(format!("{text:?} cannot be an address: {what}"));
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_v6 = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok());
    let in_name = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    if !is_v6 && (host.is_empty() || !host.chars().all(in_name)) {
        return wrong("write HOST or HOST:PORT, without a scheme, and an IPv6 address in brackets");
    }
    match port {
        None => Ok(format!("{host}:{default_port}")),
        Some(port) => match port.parse::<u16>() {
            Ok(1..) => Ok(text.to_owned()),
            _ => wrong("a port is a number from 1 to 65535"),
        },
    }
}

/// Whether an address is of this machine.
pub(crate) fn is_local(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let ip = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

/// Says on standard error what a client waits for, once for each address. Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Watch(JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Watch {
    /// Watches the troubles of one client. Wants a runtime.
    pub(crate) fn start(troubles: Troubles) -> Watch {
        Watch(tokio::spawn(async move {
            let mut ticks = tokio::time::interval(LOOK);
            let mut told = Told::default();
            loop {
                ticks.tick().await;
                for line in told.lines(&troubles.current(), Instant::now()) {
                    note!("note: {line}");
                }
            }
        }))
    }
}

/// What was said, by what it was about; whether it is so still.
#[derive(Default)]
struct Told(BTreeMap<String, bool>);

impl Told {
    fn lines(&mut self, current: &[Trouble], now: Instant) -> Vec<String> {
        let mut lines = Vec::new();
        for trouble in current {
            let is_fresh = trouble
                .failed
                .as_ref()
                .is_none_or(|(at, _)| now.saturating_duration_since(*at) < FRESH);
            let is_long = now.saturating_duration_since(trouble.since) >= PATIENCE;
            if !is_fresh || !is_long || self.0.get(&trouble.about) == Some(&true) {
                continue;
            }
            self.0.insert(trouble.about.clone(), true);
            const ADVICE: &str = "`alluvium doctor` tells more";
            lines.push(match &trouble.failed {
                Some((_, error @ Error::Broker { .. })) => format!("{error}; trying again"),
                Some((_, error)) => format!("{error}; trying again. {ADVICE}"),
                None => format!("no answer from {} yet. {ADVICE}", trouble.about),
            });
        }
        for (about, lasts) in &mut self.0 {
            if *lasts && !current.iter().any(|trouble| trouble.about == *about) {
                *lasts = false;
                lines.push(format!("{about} answers now"));
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_lack_its_port_and_nothing_else() {
        for (typed, expected) in [
            ("localhost", "localhost:9092"),
            ("a.example:1, 10.0.0.1", "a.example:1,10.0.0.1:9092"),
            ("::1", "[::1]:9092"),
            ("[::1]", "[::1]:9092"),
            ("[::1]:80", "[::1]:80"),
        ] {
            assert_eq!(addresses(typed).as_deref(), Ok(expected), "{typed}");
        }
        for typed in [
            "",
            ",",
            "a:",
            "a:b",
            "a:0",
            "127.0.0.1:99999",
            "a:b 9",
            "http://a:80",
            "a/b",
            ":9092",
            "[::x]:1",
            "::1:x",
        ] {
            assert!(addresses(typed).is_err(), "{typed}");
        }
    }

    #[test]
    fn an_address_of_http_may_say_that_it_is_encrypted() {
        for (typed, expected) in [
            ("a", "a:8080"),
            ("http://a:1", "a:1"),
            ("https://a", "https://a:8080"),
            ("https://[::1]:8443", "https://[::1]:8443"),
        ] {
            assert_eq!(
                http_address(typed, 8080).as_deref(),
                Ok(expected),
                "{typed}"
            );
        }
        for typed in ["ftp://a", "https://", "https://a/b"] {
            assert!(http_address(typed, 8080).is_err(), "{typed}");
        }
    }

    #[test]
    fn who_is_waited_for_is_named_after_a_second_and_once() {
        let begun = Instant::now();
        let after = |millis| begun + Duration::from_millis(millis);
        let trouble = |failed| Trouble {
            about: "a:1".to_owned(),
            since: begun,
            failed,
        };
        let mut told = Told::default();
        let failed = (after(900), Error::Closed);
        assert!(told.lines(&[trouble(None)], after(999)).is_empty());
        let lines = told.lines(&[trouble(None)], after(1000));
        assert!(lines.len() == 1 && lines[0].contains("a:1"), "{lines:?}");
        assert!(
            told.lines(&[trouble(Some(failed.clone()))], after(1100))
                .is_empty()
        );
        assert_eq!(told.lines(&[], after(1200)).len(), 1);
        let lines = told.lines(&[trouble(Some(failed.clone()))], after(1300));
        assert!(lines[0].contains("closed"), "{lines:?}");
        // What nobody tries any more is nobody's trouble.
        assert!(
            Told::default()
                .lines(&[trouble(Some(failed))], after(9000))
                .is_empty()
        );
    }
}
