//! `access init`: what a server needs to stand on a network, in one directory: an authority, the server's certificate, the first
//! administrator's, and settings that use them.
//!
//! Callers: the command line. Invariants: nothing that exists is written over; keys are readable by their owner alone, from their first
//! byte on.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use serde_json::json;

use crate::failure::Failure;
use crate::output::print;

pub(crate) const EXAMPLES: &str = "\
For a test set-up, or a first one: whoever has ca.key can certify anybody. Nothing that exists is written over.

Examples:
  alluvium access init access --host store.example
  alluvium serve --config access/server.toml --data data
  alluvium topic list -b store.example:9092 -X security.protocol=SSL -X ssl.truststore.location=access/ca.pem \\
    -X ssl.keystore.location=access/admin.pem";

/// For how long what is certified holds. Clients refuse certificates that hold longer.
const VALID: Duration = Duration::from_secs(825 * 24 * 3600);
/// The authority outlives them.
const AUTHORITY_VALID: Duration = Duration::from_secs(3650 * 24 * 3600);
/// A clock that is late by less takes them.
const BEFORE: Duration = Duration::from_secs(24 * 3600);

/// `access` and its commands.
#[derive(Debug, clap::Args)]
pub struct AccessArgs {
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: AccessCommand,
}

#[derive(Debug, clap::Subcommand)]
enum AccessCommand {
    /// Make an authority, the server's certificate, the first administrator's, and settings that use them.
    ///
    /// JSON: an object of directory, files, listeners, super_user.
    Init {
        /// A directory that does not exist, or is empty
        directory: PathBuf,
        /// A name or address that clients reach the server by; the first one is what they are told to connect to
        #[arg(long = "host", value_name = "NAME", default_value = "localhost")]
        hosts: Vec<String>,
        /// The administrator's name
        #[arg(long, value_name = "NAME", default_value = "admin", value_parser = user_name)]
        admin: String,
    },
}

impl AccessArgs {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let AccessCommand::Init {
            directory,
            hosts,
            admin,
        } = self.command;
        let setup = Setup::make(&directory, hosts, &admin)?;
        let files = setup.write()?;
        let value = || {
            json!({
                "directory": setup.directory, "files": files, "listeners": setup.listeners(),
                "super_user": format!("User:{admin}"),
            })
        };
        print(self.json, value, || setup.told())?;
        Ok(ExitCode::SUCCESS)
    }
}

/// A user's name that a certificate's subject and the settings hold as it is.
fn user_name(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
    match !text.is_empty() && text.len() <= 64 && text.chars().all(is_plain) {
        true => Ok(text.to_owned()),
        false => Err("must be 1 to 64 letters, digits and -_.@".to_owned()),
    }
}

/// What is made.
struct Setup {
    directory: PathBuf,
    hosts: Vec<String>,
    admin: String,
    files: Vec<File>,
}

struct File {
    name: &'static str,
    text: String,
    mode: u32,
}

const SECRET: u32 = 0o600;
const PUBLIC: u32 = 0o644;

impl Setup {
    fn make(directory: &Path, mut hosts: Vec<String>, admin: &str) -> Result<Setup> {
        let directory = std::path::absolute(directory)?;
        let found = match fs::read_dir(&directory) {
            Ok(mut entries) => entries.next().is_some(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(error) => return Err(error).with_context(|| directory.display().to_string()),
        };
        if found {
            let shown = directory.display();
            bail!(Failure::Usage(format!(
                "{shown} is not empty: nothing is written over"
            )));
        }
        if hosts.iter().any(String::is_empty) {
            bail!(Failure::Usage("a host has a name".to_owned()));
        }
        // The machine itself reaches it too.
        for own in ["localhost", "127.0.0.1", "::1"] {
            if !hosts.iter().any(|host| host == own) {
                hosts.push(own.to_owned());
            }
        }
        let mut setup = Setup {
            directory,
            hosts,
            admin: admin.to_owned(),
            files: Vec::new(),
        };
        setup.certify()?;
        setup.files.push(File {
            name: "server.toml",
            text: setup.settings(),
            mode: PUBLIC,
        });
        Ok(setup)
    }

    /// The authority, and what it certifies.
    fn certify(&mut self) -> Result<()> {
        let mut params = params_of("Alluvium test authority", &[], AUTHORITY_VALID)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let authority = params.self_signed(&key)?.pem();
        self.put("ca.pem", authority, PUBLIC);
        self.put("ca.key", key.serialize_pem(), SECRET);
        let issuer = Issuer::new(params, key);
        let usages = [
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let [for_server, for_client] = usages;
        let (hosts, admin) = (self.hosts.clone(), self.admin.clone());
        for (file, name, hosts, usage) in [
            ("server.pem", hosts[0].as_str(), &hosts[..], for_server),
            ("admin.pem", admin.as_str(), &[][..], for_client),
        ] {
            let mut params = params_of(name, hosts, VALID)?;
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![usage];
            let key = KeyPair::generate()?;
            let certificate = params.signed_by(&key, &issuer)?.pem();
            self.put(
                file,
                format!("{certificate}{}", key.serialize_pem()),
                SECRET,
            );
        }
        Ok(())
    }

    fn put(&mut self, name: &'static str, text: String, mode: u32) {
        self.files.push(File { name, text, mode });
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// Where the server listens: on loopback where that is all that it is called.
    fn address(&self) -> &'static str {
        let is_own = |host: &String| {
            host == "localhost" || host.parse().is_ok_and(|it: IpAddr| it.is_loopback())
        };
        match self.hosts.iter().all(is_own) {
            true => "127.0.0.1",
            false => "0.0.0.0",
        }
    }

    /// The first host, as an address has it.
    fn host(&self) -> String {
        let host = &self.hosts[0];
        match host.contains(':') {
            true => format!("[{host}]"),
            false => host.clone(),
        }
    }

    /// Names by which HTTP clients call it, beside those that are always known.
    fn names(&self) -> String {
        let is_name = |host: &&String| *host != "localhost" && host.parse::<IpAddr>().is_err();
        let names: Vec<&str> = self
            .hosts
            .iter()
            .filter(is_name)
            .map(String::as_str)
            .collect();
        names.join(",")
    }

    fn listeners(&self) -> String {
        format!("SSL://{}:9092", self.address())
    }

    fn settings(&self) -> String {
        let quoted = |text: String| toml::Value::String(text).to_string();
        let rows = [
            ("listeners", self.listeners()),
            (
                "advertised.listeners",
                format!("SSL://{}:9092", self.host()),
            ),
            ("http.listen", format!("https://{}:8080", self.address())),
            ("http.hosts", self.names()),
            ("ssl.keystore.location", self.path("server.pem")),
            ("ssl.truststore.location", self.path("ca.pem")),
            ("ssl.client.auth", "requested".to_owned()),
            (
                "ssl.principal.mapping.rules",
                "RULE:^CN=([^,]+)$/$1/,DEFAULT".to_owned(),
            ),
            ("authorizer.class.name", AUTHORIZER.to_owned()),
            ("super.users", format!("User:{}", self.admin)),
            ("audit.topic.enable", "true".to_owned()),
        ];
        let mut text = String::from(
            "# Written by `alluvium access init`. Who shows a certificate of ca.pem is the user that it names; who shows none is\n\
             # anonymous, and may do nothing until a rule says so.\n",
        );
        for (key, value) in rows.into_iter().filter(|(_, value)| !value.is_empty()) {
            text += &format!("{key:?} = {}\n", quoted(value));
        }
        text
    }

    fn write(&self) -> Result<Vec<String>> {
        let mut directory = fs::DirBuilder::new();
        directory.mode(0o700).recursive(true);
        let shown = || self.directory.display().to_string();
        directory.create(&self.directory).with_context(shown)?;
        for File { name, text, mode } in &self.files {
            let path = self.directory.join(name);
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(*mode);
            let write = || -> std::io::Result<()> {
                let mut file = options.open(&path)?;
                file.write_all(text.as_bytes())?;
                file.sync_all()
            };
            write().with_context(|| path.display().to_string())?;
        }
        Ok(self.files.iter().map(|file| file.name.to_owned()).collect())
    }

    fn told(&self) -> String {
        let (directory, host) = (self.directory.display(), self.host());
        let (trust, admin) = (self.path("ca.pem"), self.path("admin.pem"));
        format!(
            "made in {directory}: ca.pem and ca.key (the authority), server.pem, admin.pem (User:{}), server.toml\n\n\
             alluvium serve --config {} --data data\n\
             alluvium topic list -b {host}:9092 -X security.protocol=SSL -X ssl.truststore.location={trust} \
             -X ssl.keystore.location={admin}\n",
            self.admin,
            self.path("server.toml"),
        )
    }
}

const AUTHORIZER: &str = "org.apache.kafka.metadata.authorizer.StandardAuthorizer";

fn params_of(name: &str, hosts: &[String], valid: Duration) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(hosts.to_vec())
        .map_err(|error| Failure::Usage(format!("{}: {error}", hosts.join(", "))))?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let now = rcgen::date_time_ymd(1970, 1, 1) + since;
    params.not_before = now - BEFORE;
    params.not_after = now + valid;
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_listens_on_loopback_unless_others_reach_it() {
        let setup = |hosts: &[&str]| {
            let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
            let made = Setup::make(Path::new("/nonexistent/access"), hosts, "admin");
            made.expect("nothing is there")
        };
        assert_eq!(setup(&["localhost"]).address(), "127.0.0.1");
        assert_eq!(setup(&["::1"]).address(), "127.0.0.1");
        let other = setup(&["store.example", "10.0.0.7"]);
        assert_eq!(other.address(), "0.0.0.0");
        assert!(other.settings().contains("SSL://store.example:9092"));
        assert_eq!(setup(&["fd00::1"]).host(), "[fd00::1]");
    }

    #[test]
    fn names_that_a_subject_would_split_are_refused() {
        assert!(user_name("ops-1@plant").is_ok());
        for bad in ["", "a,b", "a=b", "a b", "ä", &"a".repeat(65)] {
            assert!(user_name(bad).is_err(), "{bad}");
        }
    }
}
