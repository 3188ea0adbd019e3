//! What is asked of tokens, and where the keys are.
//! Callers: the broker's configuration, and all of this folder.

use std::path::PathBuf;
use std::time::Duration;

/// What tokens have to be, to let somebody in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtConfig {
    /// `sasl.oauthbearer.jwks.endpoint.url`: where the keys are; None takes no token.
    pub jwks: Option<JwksSource>,
    /// `sasl.oauthbearer.jwks.endpoint.refresh.ms`.
    pub refresh: Duration,
    /// `sasl.oauthbearer.jwks.endpoint.retry.backoff.ms`: the wait after a first failure.
    pub retry: Duration,
    /// `sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms`.
    pub retry_max: Duration,
    /// `sasl.oauthbearer.expected.audience`: one of these; empty for any.
    pub audiences: Vec<String>,
    /// `sasl.oauthbearer.expected.issuer`; None for any.
    pub issuer: Option<String>,
    /// `sasl.oauthbearer.scope.claim.name`.
    pub scope_claim: String,
    /// `sasl.oauthbearer.expected.scope`: all of these.
    pub scopes: Vec<String>,
    /// `sasl.oauthbearer.sub.claim.name`.
    pub sub_claim: String,
    /// `sasl.oauthbearer.clock.skew.seconds`.
    pub skew: Duration,
}

/// Where the keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwksSource {
    /// A file.
    File(PathBuf),
    /// An address of HTTPS, or of HTTP on this machine.
    Url {
        /// Whether it is HTTPS.
        is_encrypted: bool,
        /// Its host.
        host: String,
        /// Its port.
        port: u16,
        /// What is asked for.
        path: String,
        /// As it was written.
        text: String,
    },
}

impl Default for JwtConfig {
    fn default() -> JwtConfig {
        JwtConfig {
            jwks: None,
            refresh: Duration::from_secs(60 * 60),
            retry: Duration::from_millis(100),
            retry_max: Duration::from_secs(10),
            audiences: Vec::new(),
            issuer: None,
            scope_claim: "scope".to_owned(),
            scopes: Vec::new(),
            sub_claim: "sub".to_owned(),
            skew: Duration::from_secs(30),
        }
    }
}

impl JwksSource {
    /// Reads an address: `file:///path`, `https://…`, or `http://` of this machine.
    pub fn parse(text: &str) -> Result<JwksSource, String> {
        const WANTED: &str = "must be file:///path, https://host/path, or http://localhost/path";
        if let Some(path) = text.strip_prefix("file://") {
            return match path.starts_with('/') {
                true => Ok(JwksSource::File(PathBuf::from(path))),
                false => Err(WANTED.to_owned()),
            };
        }
        let uri: hyper::Uri = text.parse().map_err(|_| WANTED.to_owned())?;
        let is_encrypted = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(WANTED.to_owned()),
        };
        let authority = uri.authority().ok_or(WANTED)?;
        if authority.as_str().contains('@') {
            return Err("must have no user and no password in it".to_owned());
        }
        let host = authority.host();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let is_here = match bare.parse::<std::net::IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => bare == "localhost",
        };
        if !is_encrypted && !is_here {
            return Err(
                "must be https:// where others are on the way: they could give their own keys"
                    .to_owned(),
            );
        }
        let path = uri.path_and_query().map_or("/", |it| it.as_str());
        Ok(JwksSource::Url {
            is_encrypted,
            host: bare.to_owned(),
            port: authority
                .port_u16()
                .unwrap_or(if is_encrypted { 443 } else { 80 }),
            path: path.to_owned(),
            text: text.to_owned(),
        })
    }

    /// As it was written.
    pub fn text(&self) -> String {
        match self {
            JwksSource::File(path) => format!("file://{}", path.display()),
            JwksSource::Url { text, .. } => text.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_where_nobody_changes_them_on_the_way() {
        for good in [
            "file:///etc/jwks.json",
            "https://id.example/keys?v=1",
            "https://id.example:8443/",
            "http://localhost:8080/jwks",
            "http://127.0.0.1/jwks",
            "http://[::1]:9/jwks",
        ] {
            let source = JwksSource::parse(good).expect(good);
            assert_eq!(source.text(), good);
        }
        for bad in [
            "",
            "/etc/jwks.json",
            "file://etc/jwks.json",
            "http://id.example/keys",
            "http://localhost.example/keys",
            "https://a:b@id.example/keys",
            "ftp://id.example/keys",
            "https:///keys",
        ] {
            assert!(JwksSource::parse(bad).is_err(), "{bad}");
        }
        let JwksSource::Url {
            host, port, path, ..
        } = JwksSource::parse("https://id.example/keys?v=1").expect("it is one")
        else {
            panic!("no file");
        };
        assert_eq!(
            (host.as_str(), port, path.as_str()),
            ("id.example", 443, "/keys?v=1")
        );
    }
}
