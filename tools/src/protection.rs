//! Protection: how a command's connections are protected and as whom it logs in, by `-X KEY=VALUE` in the names of Kafka's clients.
//!
//! Callers: `cli`, for clients of the Kafka protocol and of HTTP; `context`, which keeps such settings. Blocks on the disk, for
//! files. librdkafka's names of the same are taken, too. What is not known is refused: a setting that is misspelt must not leave a
//! connection plain. Invariant: no password is shown where a setting is printed, and none is sent over HTTP that is not encrypted,
//! but to this machine.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use client::{Sasl, Tls, TlsFiles};
use hyper::header::HeaderValue;
use model::sasl::{SaslMechanism, ScramMechanism};
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::reach::is_local;

/// The variable that says the password.
const PASSWORD_VARIABLE: &str = "ALLUVIUM_PASSWORD";
/// The setting that says it itself.
const PASSWORD: &str = "sasl.password";

/// What protects connections.
#[derive(Clone, Default)]
pub(crate) struct Protection {
    files: TlsFiles,
    is_encrypted: bool,
    has_login: bool,
    mechanism: Option<SaslMechanism>,
    user: Option<String>,
    password: Option<Zeroizing<String>>,
    password_file: Option<PathBuf>,
}

impl Protection {
    /// Reads the settings, of which the last one of a name counts.
    pub(crate) fn parse(properties: &[(String, String)]) -> Result<Protection, Failure> {
        let mut protection = Protection::default();
        for (key, value) in properties {
            let shown = if key == PASSWORD { "..." } else { value };
            protection
                .set(key, value)
                .map_err(|why| Failure::Usage(format!("-X {key}={shown}: {why}")))?;
        }
        protection
            .check()
            .map_err(|why| Failure::Usage(why.to_owned()))?;
        Ok(protection)
    }

    /// Reads settings that are to be kept in a file: no password is.
    pub(crate) fn check_kept(properties: &[(String, String)]) -> Result<(), Failure> {
        if properties.iter().any(|(key, _)| key == PASSWORD) {
            let why = "a context keeps no password: name a file of it with sasl.password.location, or set ALLUVIUM_PASSWORD";
            return Err(Failure::Usage(why.to_owned()));
        }
        Protection::parse(properties).map(|_| ())
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.files.key.is_some() && self.files.keystore.is_none() {
            return Err(
                "ssl.key.location is set, and ssl.keystore.location, the certificate, is not",
            );
        }
        if !self.is_encrypted && self.files != TlsFiles::default() {
            return Err(
                "files of certificates are given, and security.protocol is neither SSL nor SASL_SSL",
            );
        }
        let is_user =
            self.user.is_some() || self.password.is_some() || self.password_file.is_some();
        if !self.has_login && (is_user || self.mechanism.is_some()) {
            return Err(
                "a login is given, and security.protocol is neither SASL_SSL nor SASL_PLAINTEXT",
            );
        }
        if self.has_login && self.user.is_none() && !self.has_token() {
            return Err("sasl.username must say as whom to log in");
        }
        Ok(())
    }

    /// Whether the password is a token, which says itself whose it is.
    fn has_token(&self) -> bool {
        self.mechanism == Some(SaslMechanism::OauthBearer)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), &'static str> {
        let path = || (!value.is_empty()).then(|| value.into());
        match key {
            "security.protocol" => {
                (self.is_encrypted, self.has_login) = match value.to_ascii_uppercase().as_str() {
                    "PLAINTEXT" => (false, false),
                    "SSL" => (true, false),
                    "SASL_PLAINTEXT" => (false, true),
                    "SASL_SSL" => (true, true),
                    _ => return Err("must be PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"),
                }
            }
            "sasl.mechanism" | "sasl.mechanisms" => {
                let mechanism = SaslMechanism::of_name(value);
                let unknown = "must be SCRAM-SHA-256, SCRAM-SHA-512, PLAIN or OAUTHBEARER";
                self.mechanism = Some(mechanism.ok_or(unknown)?);
            }
            "sasl.username" => self.user = (!value.is_empty()).then(|| value.to_owned()),
            PASSWORD => self.password = Some(Zeroizing::new(value.to_owned())),
            "sasl.password.location" => self.password_file = path(),
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
                    "is not known: there are security.protocol, sasl.mechanism, sasl.username, sasl.password.location, \
                     ssl.truststore.location, ssl.keystore.location and ssl.key.location",
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

    /// As whom connections to brokers log in; None if they do not.
    pub(crate) fn login(&self) -> Result<Option<Sasl>, Failure> {
        let Some((user, password)) = self.user_and_password()? else {
            return Ok(None);
        };
        let default = SaslMechanism::Scram(ScramMechanism::Sha256);
        let mechanism = self.mechanism.unwrap_or(default);
        Ok(Some(Sasl::new(mechanism, user, password)))
    }

    /// What requests over HTTP show at this address; None if they show nothing.
    pub(crate) fn authorization(
        &self,
        address: &str,
        is_encrypted: bool,
    ) -> Result<Option<HeaderValue>, Failure> {
        let Some((user, password)) = self.user_and_password()? else {
            return Ok(None);
        };
        if !is_encrypted && !is_local(address) {
            let why = format!(
                "a password is not sent to {address} where others can read it: --http https://{address}"
            );
            return Err(Failure::Usage(why));
        }
        if self.has_token() {
            let text = Zeroizing::new([b"Bearer ", password.as_slice()].concat());
            let value = HeaderValue::from_bytes(&text);
            let mut value = value.map_err(|_| {
                Failure::Usage("the token has characters that no token has".to_owned())
            })?;
            value.set_sensitive(true);
            return Ok(Some(value));
        }
        if user.contains(':') {
            let why = "a user whose name has a colon cannot log in over HTTP".to_owned();
            return Err(Failure::Usage(why));
        }
        let both = Zeroizing::new([user.as_bytes(), b":", password.as_slice()].concat());
        let encoded = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(&*both));
        let text = Zeroizing::new(format!("Basic {}", *encoded));
        let mut value = HeaderValue::from_str(&text).expect("base64 is letters");
        value.set_sensitive(true);
        Ok(Some(value))
    }

    fn user_and_password(&self) -> Result<Option<Login<'_>>, Failure> {
        let named = self.user.as_deref();
        let of_token = self.has_token().then_some("the token");
        let Some(user) = named.or(of_token).filter(|_| self.has_login) else {
            return Ok(None);
        };
        let variable = || std::env::var(PASSWORD_VARIABLE).ok().map(Zeroizing::new);
        let password = match (&self.password, &self.password_file) {
            (Some(password), _) => Zeroizing::new(password.as_bytes().to_vec()),
            (None, Some(path)) => read_password(path).map_err(|why| {
                Failure::Usage(format!("sasl.password.location={}: {why}", path.display()))
            })?,
            (None, None) => match variable() {
                Some(password) => Zeroizing::new(password.as_bytes().to_vec()),
                None => {
                    let why = format!(
                        "no password of {user} is given: name a file of it with -X sasl.password.location=FILE, or set {PASSWORD_VARIABLE}"
                    );
                    return Err(Failure::Usage(why));
                }
            },
        };
        if password.is_empty() {
            return Err(Failure::Usage(format!("the password of {user} is empty")));
        }
        Ok(Some((user, password)))
    }
}

/// A user's name and password.
type Login<'a> = (&'a str, Zeroizing<Vec<u8>>);

/// One of them, as `-X` takes it.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// A file of one password; the end of its line is none of it.
fn read_password(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let about = fs::metadata(path).map_err(|error| error.to_string())?;
    if about.mode() & 0o007 != 0 {
        return Err("everybody on this machine can read it: chmod 600".to_owned());
    }
    let read = fs::read(path).map_err(|error| error.to_string())?;
    let mut password = Zeroizing::new(read);
    for end in [b'\n', b'\r'] {
        if password.last() == Some(&end) {
            password.pop();
        }
    }
    Ok(password)
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
            vec![("sasl.username", "alice")],
            vec![("sasl.mechanism", "PLAIN"), ("security.protocol", "SSL")],
            vec![("security.protocol", "SASL_SSL")],
            vec![
                ("security.protocol", "SASL_SSL"),
                ("sasl.username", "alice"),
                ("sasl.mechanism", "GSSAPI"),
            ],
        ] {
            assert!(parse(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_password_comes_of_a_file_that_others_cannot_read_and_goes_where_they_cannot_either() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        let put = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        put("open sesame\n", 0o600);
        let location = path.display().to_string();
        let login = parse(&[
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.username", "Aladdin"),
            ("sasl.password.location", &location),
        ]);
        let login = login.unwrap();
        assert!(login.login().unwrap().is_some());
        // RFC 7617's own example.
        let basic = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";
        for (address, is_encrypted) in [("127.0.0.1:1", false), ("store.example:1", true)] {
            let shown = login.authorization(address, is_encrypted).unwrap();
            assert_eq!(shown.unwrap(), basic);
        }
        assert!(login.authorization("store.example:1", false).is_err());
        put("open sesame", 0o604);
        assert!(login.login().is_err());
        put("\n", 0o600);
        assert!(login.login().is_err());
        let none = parse(&[]).unwrap();
        assert!(none.authorization("a:1", false).unwrap().is_none());
    }

    #[test]
    fn no_password_is_printed_or_kept() {
        let all = [
            ("security.protocol", "SASL_SSL"),
            ("sasl.password", "secret"),
        ];
        let error = parse(&all).err().expect("no user").to_string();
        assert!(!error.contains("secret"), "{error}");
        let kept = all.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert!(Protection::check_kept(&kept).is_err());
        assert!(Protection::check_kept(&[]).is_ok());
    }
}
