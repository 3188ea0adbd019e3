//! Endpoint: one address that a front listens on, how it is protected, and where its clients are told to connect.
//! Callers: the fronts' settings, which name them; `serve`, which binds them; the fronts, which answer by them.
//! Source: Kafka's `listeners`, `advertised.listeners` and `listener.security.protocol.map`.

use std::fmt;
use std::str::FromStr;

/// How a listener's connections are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecurityProtocol {
    /// Not at all.
    Plaintext,
    /// By TLS.
    Ssl,
    /// Who connects is asked to authenticate.
    SaslPlaintext,
    /// Both.
    SaslSsl,
}

impl SecurityProtocol {
    /// All of them.
    pub const ALL: [SecurityProtocol; 4] = [
        SecurityProtocol::Plaintext,
        SecurityProtocol::Ssl,
        SecurityProtocol::SaslPlaintext,
        SecurityProtocol::SaslSsl,
    ];

    /// Kafka's name.
    pub fn name(self) -> &'static str {
        match self {
            SecurityProtocol::Plaintext => "PLAINTEXT",
            SecurityProtocol::Ssl => "SSL",
            SecurityProtocol::SaslPlaintext => "SASL_PLAINTEXT",
            SecurityProtocol::SaslSsl => "SASL_SSL",
        }
    }

    /// Whether its connections are TLS.
    pub fn is_encrypted(self) -> bool {
        matches!(self, SecurityProtocol::Ssl | SecurityProtocol::SaslSsl)
    }

    /// Whether its clients authenticate by SASL.
    pub fn is_sasl(self) -> bool {
        matches!(
            self,
            SecurityProtocol::SaslPlaintext | SecurityProtocol::SaslSsl
        )
    }
}

impl fmt::Display for SecurityProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for SecurityProtocol {
    type Err = String;

    fn from_str(text: &str) -> Result<SecurityProtocol, String> {
        let all = SecurityProtocol::ALL.into_iter();
        let mut found = all.filter(|protocol| protocol.name().eq_ignore_ascii_case(text));
        found.next().ok_or_else(|| {
            format!(
                "{text:?} is no security protocol: PLAINTEXT, SSL, SASL_PLAINTEXT and SASL_SSL are"
            )
        })
    }
}

/// A listener as it serves: what its connections know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name, in capitals.
    pub name: String,
    /// How its connections are protected.
    pub protocol: SecurityProtocol,
    /// The host that clients are told to connect to.
    pub advertised_host: String,
    /// And the port.
    pub advertised_port: u16,
}

/// `NAME://host:port` of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The listener's name, in capitals.
    pub name: String,
    /// The host, an IPv6 address without its brackets; empty for every address of the machine.
    pub host: String,
    /// The port; 0 picks one.
    pub port: u16,
}

impl Named {
    /// Reads a list with commas; names stand once each.
    pub fn parse_list(text: &str) -> Result<Vec<Named>, String> {
        let entries = text.split(',').map(str::trim).filter(|it| !it.is_empty());
        let mut all: Vec<Named> = Vec::new();
        for entry in entries {
            let named = Named::parse(entry)?;
            if all.iter().any(|other| other.name == named.name) {
                return Err(format!("{} is named twice", named.name));
            }
            all.push(named);
        }
        Ok(all)
    }

    fn parse(text: &str) -> Result<Named, String> {
        let wrong = || format!("{text:?} must be NAME://host:port");
        let (name, address) = text.split_once("://").ok_or_else(wrong)?;
        let name = listener_name(name)?;
        let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
        let port = port
            .parse()
            .map_err(|_| format!("{text:?} must end in a port from 0 to 65535"))?;
        let bracketed = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = bracketed.unwrap_or(host);
        let in_host = |c: char| c.is_ascii_alphanumeric() || "-%._:".contains(c);
        if !host.chars().all(in_host) {
            return Err(wrong());
        }
        Ok(Named {
            name,
            host: host.to_owned(),
            port,
        })
    }

    /// Where such a listener is bound, `host:port`.
    pub fn address(&self) -> String {
        match self.host.as_str() {
            "" => format!("0.0.0.0:{}", self.port),
            host if host.contains(':') => format!("[{host}]:{}", self.port),
            host => format!("{host}:{}", self.port),
        }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Named { name, host, port } = self;
        match host.contains(':') {
            true => write!(f, "{name}://[{host}]:{port}"),
            false => write!(f, "{name}://{host}:{port}"),
        }
    }
}

/// A listener's name in capitals, as it is compared.
pub fn listener_name(text: &str) -> Result<String, String> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    match !text.is_empty() && text.chars().all(is_good) {
        true => Ok(text.to_ascii_uppercase()),
        false => Err(format!("{text:?} cannot be a listener's name")),
    }
}

/// Things as a list with commas between them.
pub fn joined<T: fmt::Display>(all: &[T]) -> String {
    let all: Vec<String> = all.iter().map(T::to_string).collect();
    all.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_read_as_kafka_reads_them() {
        let all = Named::parse_list("plaintext://:9092, SSL://[::1]:9093,Int_1://a.example:0");
        let all = all.unwrap();
        assert_eq!(
            joined(&all),
            "PLAINTEXT://:9092,SSL://[::1]:9093,INT_1://a.example:0"
        );
        let addresses: Vec<String> = all.iter().map(Named::address).collect();
        assert_eq!(addresses, ["0.0.0.0:9092", "[::1]:9093", "a.example:0"]);
        for bad in [
            "9092",
            "a:9092",
            "A://a",
            "A://a:x",
            "A://a:70000",
            "A B://a:1",
            "://a:1",
            "A://a:1,a://b:2",
            "A://a/b:1",
        ] {
            assert!(Named::parse_list(bad).is_err(), "{bad}");
        }
    }
}
