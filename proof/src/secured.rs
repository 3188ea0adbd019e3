//! Secured: certificates and users for a broker with listeners that are encrypted or ask for a login.
//! Callers: `compat::session`, for clients; the exam's cases of attacks.
//! Invariant: they are made anew in a directory of the run's own, and are good for nothing else.

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The users; each has the password `PASSWORD`.
pub const USERS: &[&str] = &["admin", "alice"];
/// The password of all users.
pub const PASSWORD: &str = "correct horse battery";
/// The name in the certificate of `client.pem`.
pub const CERTIFIED: &str = "press4";

/// A directory with `ca.pem`; `server.pem`; `client.pem` (key and certificate), `client.crt`, `client.key`; and `users`.
pub struct Secured {
    directory: PathBuf,
}

impl Secured {
    /// Makes all of it in this directory.
    pub fn make(directory: &Path) -> Result<Secured> {
        fs::create_dir_all(directory)?;
        let secured = Secured {
            directory: directory.to_path_buf(),
        };
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "an authority for a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let authority = params.self_signed(&key)?.pem();
        let issuer = Issuer::new(params, key);
        let (server, server_key) = certified(&issuer, "store")?;
        let (client, client_key) = certified(&issuer, CERTIFIED)?;
        secured.put("ca.pem", &authority)?;
        secured.put("server.pem", &format!("{server_key}{server}"))?;
        secured.put("client.pem", &format!("{client_key}{client}"))?;
        secured.put("client.crt", &client)?;
        secured.put("client.key", &client_key)?;
        let users = USERS.iter().map(|user| format!("{user}:{PASSWORD}\n"));
        secured.put("users", &users.collect::<String>())?;
        Ok(secured)
    }

    /// A file of the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// What a broker is set to: its certificate, who may show one, the users and how they log in.
    pub fn settings(&self) -> Vec<(String, String)> {
        let file = |name: &str| self.path(name).display().to_string();
        let settings = [
            ("ssl.keystore.location", file("server.pem")),
            ("ssl.truststore.location", file("ca.pem")),
            ("ssl.client.auth", "requested".to_owned()),
            (
                "sasl.enabled.mechanisms",
                "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512".to_owned(),
            ),
            ("sasl.users.file", file("users")),
        ];
        settings
            .map(|(name, value)| (name.to_owned(), value))
            .to_vec()
    }

    fn put(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path(name);
        fs::write(&path, text)?;
        Ok(fs::set_permissions(path, Permissions::from_mode(0o600))?)
    }
}

/// A certificate of this name for this machine, and its key, in PEM.
fn certified(issuer: &Issuer<'static, KeyPair>, name: &str) -> Result<(String, String)> {
    let hosts = ["127.0.0.1", "localhost"].map(str::to_owned).to_vec();
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    Ok((certificate.pem(), key.serialize_pem()))
}
