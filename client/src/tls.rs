//! TLS: the files and the trust by which a client's connections are encrypted.
//! Callers: `Connection::open`, for each connection of a client whose configuration has it; whoever speaks another protocol to
//! the same server. Invariant: a server is believed only if its certificate leads to an authority that is trusted and names the
//! host that was asked for.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// An encrypted connection to a server.
pub type TlsStream = tokio_rustls::client::TlsStream<TcpStream>;

/// Files in PEM. Without any, the authorities of this machine are trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authorities that are trusted, instead of this machine's.
    pub truststore: Option<PathBuf>,
    /// The client's certificate, those that lead to its authority, and its key unless that has a file of its own.
    pub keystore: Option<PathBuf>,
    /// The client's key.
    pub key: Option<PathBuf>,
}

/// What encrypts connections. Clones share it.
#[derive(Clone)]
pub struct Tls(Arc<ClientConfig>);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsFilesError {
    /// One of them.
    #[error("{}: {reason}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// This machine has no authorities.
    #[error("this machine trusts no authorities ({0}): name a file of them")]
    NoAuthorities(String),
}

impl Tls {
    /// Reads the files. Blocks on the disk.
    pub fn open(files: &TlsFiles) -> Result<Tls, TlsFilesError> {
        let roots = match &files.truststore {
            Some(path) => roots_of(path)?,
            None => roots_of_machine()?,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has ciphers of both versions")
            .with_root_certificates(roots);
        let config = match &files.keystore {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let key_path = files.key.as_deref().unwrap_or(path);
                let chain = certificates(path)?;
                let key = PrivateKeyDer::from_pem_file(key_path);
                let key = key.map_err(|error| {
                    unusable(
                        key_path,
                        match error {
                            pem::Error::NoItemsFound => {
                                "holds no private key in PEM that is not encrypted".to_owned()
                            }
                            error => said(error),
                        },
                    )
                })?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| unusable(key_path, error.to_string()))?
            }
        };
        Ok(Tls(Arc::new(config)))
    }

    /// Does the handshake with the server of this address, `host:port`, over a connection to it.
    pub async fn connect(&self, stream: TcpStream, address: &str) -> io::Result<TlsStream> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let connector = TlsConnector::from(self.0.clone());
        connector.connect(name, stream).await
    }
}

/// Whether TLS itself refuses to go on: the certificate of the other side, or what it says of ours. It will again.
pub(crate) fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}

fn roots_of(path: &Path) -> Result<RootCertStore, TlsFilesError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| unusable(path, format!("a certificate in it is no good: {error}")))?;
    }
    Ok(roots)
}

fn roots_of_machine() -> Result<RootCertStore, TlsFilesError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Machines have old ones among them that cannot be used, and nobody misses.
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first();
        let why = why.map_or_else(|| "none was found".to_owned(), ToString::to_string);
        return Err(TlsFilesError::NoAuthorities(why));
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFilesError> {
    let all = CertificateDer::pem_file_iter(path).map_err(|error| unusable(path, said(error)))?;
    let all: Result<Vec<_>, pem::Error> = all.collect();
    let all = all.map_err(|error| unusable(path, said(error)))?;
    match all.is_empty() {
        true => Err(unusable(path, "holds no certificate in PEM".to_owned())),
        false => Ok(all),
    }
}

fn said(error: pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        error => format!("is no good PEM: {error}"),
    }
}

fn unusable(path: &Path, reason: String) -> TlsFilesError {
    let path = path.to_owned();
    TlsFilesError::File { path, reason }
}
