//! Protection: how a command's connections are protected, by `-X KEY=VALUE` in the names of Kafka's clients.
//!
//! Callers: `cli`, for clients of the Kafka protocol and of HTTP. Blocks on the disk, for files of certificates. librdkafka's
//! names of the same are taken, too. What is not known is refused: a setting that is misspelt must not leave a connection plain.

use client::{Tls, TlsFiles};

use crate::failure::Failure;

/// What protects connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Protection {
    files: TlsFiles,
    is_encrypted: bool,
}

impl Protection {
    /// Reads the settings, of which the last one of a name counts.
    pub(crate) fn parse(properties: &[(String, String)]) -> Result<Protection, Failure> {
        let mut protection = Protection::default();
        for (key, value) in properties {
            protection
                .set(key, value)
                .map_err(|why| Failure::Usage(format!("-X {key}={value}: {why}")))?;
        }
        if protection.files.key.is_some() && protection.files.keystore.is_none() {
            let why = "ssl.key.location is set, and ssl.keystore.location, the certificate, is not";
            return Err(Failure::Usage(why.to_owned()));
        }
        if !protection.is_encrypted && protection.files != TlsFiles::default() {
            let why = "files of certificates are given, and security.protocol is not SSL";
            return Err(Failure::Usage(why.to_owned()));
        }
        Ok(protection)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), &'static str> {
        let path = || (!value.is_empty()).then(|| value.into());
        match key {
            "security.protocol" => {
                self.is_encrypted = match value.to_ascii_uppercase().as_str() {
                    "PLAINTEXT" => false,
                    "SSL" => true,
                    _ => return Err("must be PLAINTEXT or SSL"),
                }
            }
            "ssl.truststore.location" | "ssl.ca.location" => self.files.truststore = path(),
            "ssl.keystore.location" | "ssl.certificate.location" => self.files.keystore = path(),
            "ssl.key.location" => self.files.key = path(),
            "ssl.truststore.type" | "ssl.keystore.type" if value == "PEM" => {}
            "ssl.truststore.type" | "ssl.keystore.type" => return Err("must be PEM"),
            "ssl.endpoint.identification.algorithm" if value == "https" => {}
            "ssl.endpoint.identification.algorithm" => {
                return Err("must be https: a server that nobody has checked could be anybody");
            }
            _ => {
                return Err(
                    "is not known: there are security.protocol, ssl.truststore.location, ssl.keystore.location and \
                     ssl.key.location",
                );
            }
        }
        Ok(())
    }

    /// What encrypts connections to brokers; None if nothing does.
    pub(crate) fn of_kafka(&self) -> Result<Option<Tls>, Failure> {
        self.is_encrypted.then(|| self.tls()).transpose()
    }

    /// What encrypts connections to HTTPS.
    pub(crate) fn tls(&self) -> Result<Tls, Failure> {
        Tls::open(&self.files).map_err(|error| Failure::Usage(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(all: &[(&str, &str)]) -> Result<Protection, Failure> {
        let all: Vec<(String, String)> = all
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        Protection::parse(&all)
    }

    #[test]
    fn names_of_both_families_of_clients_mean_the_same() {
        let java = parse(&[
            ("security.protocol", "SSL"),
            ("ssl.truststore.location", "ca.pem"),
            ("ssl.truststore.type", "PEM"),
            ("ssl.keystore.location", "me.pem"),
        ]);
        let librdkafka = parse(&[
            ("security.protocol", "ssl"),
            ("ssl.ca.location", "ca.pem"),
            ("ssl.certificate.location", "me.pem"),
        ]);
        let (java, librdkafka) = (java.unwrap(), librdkafka.unwrap());
        assert!(java.is_encrypted && librdkafka.is_encrypted);
        assert_eq!(java.files, librdkafka.files);
        assert!(parse(&[]).unwrap().of_kafka().unwrap().is_none());
    }

    #[test]
    fn what_would_leave_a_connection_less_protected_than_was_asked_for_is_refused() {
        for bad in [
            vec![("security.protocl", "SSL")],
            vec![("security.protocol", "TLS")],
            vec![("ssl.ca.location", "ca.pem")],
            vec![("security.protocol", "SSL"), ("ssl.key.location", "k.pem")],
            vec![("ssl.endpoint.identification.algorithm", "")],
            vec![("ssl.truststore.type", "JKS")],
        ] {
            assert!(parse(&bad).is_err(), "{bad:?}");
        }
    }
}
