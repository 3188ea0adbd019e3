//! Guard: which pages' requests a browser may send here, and by which names this server may be called.
//!
//! Callers: `middleware`, for every request, before its route sees it. Pure but for what the settings say.
//! Invariants: a browser that sends a request for a page of another origin is refused what changes something or tells of
//! records, unless `http.cors.allow.origins` names that origin. A server that listens on loopback alone is not spoken to by a
//! name that anybody's name server could have given its address (DNS rebinding), unless `http.hosts` names it.
//! Source: <https://fetch.spec.whatwg.org/#http-cors-protocol>; that `Sec-Fetch-Site` is believed before `Origin` is compared
//! with `Host` is how Go's `net/http.CrossOriginProtection` does it: a proxy may have changed `Host`, and no page can set the other.

use std::net::{IpAddr, Ipv6Addr};

use axum::http::{HeaderMap, HeaderValue, Method, header};

/// How long a browser may remember what a preflight was answered.
const PREFLIGHT_SECONDS: &str = "600";

/// What the settings allow.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    origins: Vec<String>,
    hosts: Vec<String>,
    /// Whether names are looked at.
    checks_hosts: bool,
}

/// What a browser says of the page that it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asker {
    /// No page, or one of this server.
    Own,
    /// A page of an origin that is allowed, which gets this as `Access-Control-Allow-Origin`.
    Allowed(HeaderValue),
    /// A page of another origin.
    Other(String),
}

impl Guard {
    /// A guard by `http.cors.allow.origins` and `http.hosts`, for a server that listens on `listens`.
    pub(super) fn new(origins: &[String], hosts: &[String], listens: Option<IpAddr>) -> Guard {
        let is_private = listens.is_some_and(|address| address.to_canonical().is_loopback());
        let is_any = hosts.iter().any(|host| host == "*");
        Guard {
            origins: origins.to_vec(),
            hosts: hosts.to_vec(),
            checks_hosts: !is_any && (is_private || !hosts.is_empty()),
        }
    }

    /// Whether this server may be called so: the value of `Host`, or None if there is none, as no browser sends it.
    pub(super) fn knows_host(&self, host: Option<&str>) -> bool {
        let Some(host) = host.filter(|_| self.checks_hosts) else {
            return true;
        };
        let name = name_of(host).to_ascii_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        let is_address = name.parse::<IpAddr>().is_ok()
            || name
                .strip_prefix('[')
                .and_then(|name| name.strip_suffix(']'))
                .is_some_and(|name| name.parse::<Ipv6Addr>().is_ok());
        is_address
            || name == "localhost"
            || name.ends_with(".localhost")
            || self
                .hosts
                .iter()
                .any(|known| known.eq_ignore_ascii_case(name))
    }

    /// Whose request it is.
    pub(super) fn asker(&self, headers: &HeaderMap, host: Option<&str>) -> Asker {
        let origin = headers.get(header::ORIGIN);
        let text = origin.map(|origin| String::from_utf8_lossy(origin.as_bytes()).into_owned());
        if let (Some(origin), Some(text)) = (origin, &text) {
            if self.origins.iter().any(|allowed| allowed == "*") {
                return Asker::Allowed(HeaderValue::from_static("*"));
            }
            if self
                .origins
                .iter()
                .any(|allowed| allowed.eq_ignore_ascii_case(text))
            {
                return Asker::Allowed(origin.clone());
            }
        }
        let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
        match (site, text) {
            (Some(b"same-origin" | b"none"), _) | (None, None) => Asker::Own,
            (Some(site), None) => Asker::Other(String::from_utf8_lossy(site).into_owned()),
            (Some(_), Some(origin)) => Asker::Other(origin),
            (None, Some(origin)) if is_same(&origin, host) => Asker::Own,
            (None, Some(origin)) => Asker::Other(origin),
        }
    }
}

/// A request that asks whether another may be sent.
pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The headers of an answer to a page that may read it.
pub(super) fn allow(answer: &mut HeaderMap, origin: HeaderValue) {
    answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    let all = HeaderValue::from_static("*");
    answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, all);
    answer.append(header::VARY, HeaderValue::from_static("Origin"));
}

/// The headers of an answer to a preflight: these methods may be used, with the headers that were asked for.
pub(super) fn allow_preflight(asked: &HeaderMap, methods: HeaderValue, answer: &mut HeaderMap) {
    answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    if let Some(headers) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, headers.clone());
    }
    if asked.contains_key("access-control-request-private-network") {
        let yes = HeaderValue::from_static("true");
        answer.insert("access-control-allow-private-network", yes);
    }
    let seconds = HeaderValue::from_static(PREFLIGHT_SECONDS);
    answer.insert(header::ACCESS_CONTROL_MAX_AGE, seconds);
}

/// Whether `http.cors.allow.origins` can name this: `https://console.example:8443`, or `*`.
pub(super) fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else {
        return text == "*";
    };
    let is_scheme = !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_scheme && !authority.is_empty() && !authority.contains(['/', '?', '#', '@', ' '])
}

/// Whether `http.hosts` can name this: a name without a port, or `*`.
pub(super) fn is_host(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    text == "*" || (!text.is_empty() && text.bytes().all(is_part))
}

/// A host without its port.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|byte| byte.is_ascii_digit()) && !is_bare_v6(host) =>
        {
            name
        }
        _ => host,
    }
}

fn is_bare_v6(host: &str) -> bool {
    host.parse::<Ipv6Addr>().is_ok()
}

/// Whether a page of this origin has come from where the request goes.
fn is_same(origin: &str, host: Option<&str>) -> bool {
    let (Some((scheme, authority)), Some(host)) = (origin.split_once("://"), host) else {
        return false;
    };
    let port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let bare = |authority: &str| {
        let lower = authority.to_ascii_lowercase();
        lower.strip_suffix(port).map(str::to_owned).unwrap_or(lower)
    };
    bare(authority) == bare(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(origins: &[&str], hosts: &[&str], listens: &str) -> Guard {
        let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        let listens = listens.parse().expect("an address");
        Guard::new(&owned(origins), &owned(hosts), Some(listens))
    }

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        let all = all.iter();
        all.map(|(name, value)| {
            let value = HeaderValue::from_str(value).expect("a value");
            (axum::http::HeaderName::from_static(name), value)
        })
        .collect()
    }

    #[test]
    fn on_loopback_only_names_that_no_name_server_gives_are_known() {
        let loopback = guard(&[], &[], "127.0.0.1");
        for known in [
            "localhost",
            "LocalHost:8080",
            "127.0.0.1:8080",
            "[::1]:8080",
            "[::1]",
            "a.localhost",
            "localhost.",
            "10.0.0.1",
        ] {
            assert!(loopback.knows_host(Some(known)), "{known}");
        }
        for unknown in [
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
            "[::1",
            "::1]:80",
        ] {
            assert!(!loopback.knows_host(Some(unknown)), "{unknown}");
        }
        assert!(loopback.knows_host(None));
        let named = guard(&[], &["Broker.example"], "0.0.0.0");
        assert!(
            named.knows_host(Some("broker.example:80")) && !named.knows_host(Some("evil.example"))
        );
        assert!(guard(&[], &[], "0.0.0.0").knows_host(Some("evil.example")));
        assert!(guard(&[], &["*"], "127.0.0.1").knows_host(Some("evil.example")));
    }

    #[test]
    fn pages_of_other_origins_are_told_from_this_servers_and_from_no_pages() {
        let asker = |all: &[(&'static str, &str)]| {
            guard(&["https://good.example"], &[], "127.0.0.1")
                .asker(&headers(all), Some("localhost:8080"))
        };
        let other = |origin: &str| Asker::Other(origin.to_owned());
        assert_eq!(asker(&[]), Asker::Own);
        assert_eq!(asker(&[("origin", "http://localhost:8080")]), Asker::Own);
        assert_eq!(asker(&[("sec-fetch-site", "none")]), Asker::Own);
        // A proxy that has changed Host.
        let proxied = [
            ("sec-fetch-site", "same-origin"),
            ("origin", "https://broker.example"),
        ];
        assert_eq!(asker(&proxied), Asker::Own);
        for origin in [
            "http://localhost:8081",
            "http://localhost",
            "http://evil.example",
            "null",
            "https://good.example:444",
            "",
        ] {
            assert_eq!(asker(&[("origin", origin)]), other(origin), "{origin}");
            let both = [("origin", origin), ("sec-fetch-site", "cross-site")];
            assert_eq!(asker(&both), other(origin), "{origin}");
        }
        assert_eq!(
            asker(&[("sec-fetch-site", "cross-site")]),
            other("cross-site")
        );
        assert_eq!(
            asker(&[("sec-fetch-site", "same-site")]),
            other("same-site")
        );
        let allowed = HeaderValue::from_static("https://good.example");
        let both = [
            ("origin", "https://good.example"),
            ("sec-fetch-site", "cross-site"),
        ];
        assert_eq!(asker(&both), Asker::Allowed(allowed));
    }

    #[test]
    fn default_ports_are_no_difference() {
        assert!(is_same("http://a.example", Some("a.example:80")));
        assert!(is_same("https://a.example:443", Some("A.example")));
        assert!(!is_same("https://a.example", Some("a.example:80")));
        assert!(!is_same("file://", Some("a.example")));
        assert!(!is_same("http://a.example", None));
    }

    #[test]
    fn settings_name_origins_and_hosts_and_nothing_else() {
        for good in ["*", "http://localhost:3000", "https://a.example"] {
            assert!(is_origin(good), "{good}");
        }
        for bad in [
            "",
            "null",
            "a.example",
            "https://a.example/",
            "https://",
            "://a",
        ] {
            assert!(!is_origin(bad), "{bad}");
        }
        assert!(is_host("*") && is_host("broker.example") && is_host("alluvium"));
        assert!(!is_host("") && !is_host("broker.example:8080") && !is_host("http://a"));
    }
}
