//! TLS: takes a connection's handshake, and says who is at its other end.
//! Callers: the listener, for each connection of an encrypted endpoint; `serve`, which makes one of the settings and lets it
//! watch its files. Invariants: new files are in use for the next handshake, and no connection notices; files that cannot be
//! used change nothing. Sessions are resumed only under the files by which they began.

use std::io;
use std::sync::{Arc, Mutex};

use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::endpoint::SecurityProtocol;
use super::handshakes::{Handshakes, Slot};
use super::pem::{Pem, TlsError};
use super::principal::PrincipalRules;
use super::stop::stopped;
use super::subject;
use super::tls_settings::{ClientAuth, TlsSettings};
use crate::watched::{LOOK, Looked, Watched};

/// What handshakes are made with.
#[derive(Debug, Clone)]
struct Configs {
    /// Where a certificate says who the client is: `ssl.client.auth` is heeded.
    asking: Arc<ServerConfig>,
    /// Where a login does: no certificate is asked for.
    silent: Arc<ServerConfig>,
}

/// What makes connections encrypted.
#[derive(Debug)]
pub struct Tls {
    settings: TlsSettings,
    /// What the next handshake is made with.
    configs: Mutex<Configs>,
    /// The files from which that was read.
    files: Mutex<Watched>,
    handshakes: Arc<Handshakes>,
}

impl Tls {
    /// Reads the files. Blocks on the disk.
    pub fn open(settings: &TlsSettings) -> Result<Arc<Tls>, TlsError> {
        let files = files(settings);
        let configs = server_configs(settings)?;
        Ok(Arc::new(Tls {
            settings: settings.clone(),
            configs: Mutex::new(configs),
            files: Mutex::new(files),
            handshakes: Arc::default(),
        }))
    }

    /// Reads files again that have changed, until `shutdown` turns true.
    pub async fn watch(self: Arc<Tls>, mut shutdown: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                () = stopped(&mut shutdown) => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let tls = self.clone();
            if let Err(error) = tokio::task::spawn_blocking(move || tls.look()).await {
                tracing::error!(%error, "the look at the files of certificates failed");
            }
        }
    }

    /// Reads the files again if one has changed, or could not be used.
    fn look(&self) {
        let mut files = self.files.lock().expect("nothing panics while it looks");
        match files.look(|| server_configs(&self.settings)) {
            Looked::Same => {}
            Looked::New(configs) => {
                *self.configs.lock().expect("nothing panics that holds it") = configs;
                tracing::info!("the certificates have changed: new connections get the new ones");
            }
            Looked::Failed { error, is_news } if is_news => tracing::error!(
                %error,
                "the certificates have changed and cannot be used; the last good ones stay in use"
            ),
            Looked::Failed { .. } => {}
        }
    }

    /// A handshake begins. Another may have to go for it.
    pub(super) fn begin(&self, peer: std::net::IpAddr) -> Slot {
        self.handshakes.begin(peer)
    }

    /// Does the handshake. On a listener whose clients log in nobody is asked for a certificate, whatever
    /// `ssl.client.auth` says, as Kafka has it.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
        protocol: SecurityProtocol,
    ) -> Result<Secured, HandshakeError> {
        let configs = self
            .configs
            .lock()
            .expect("nothing panics that holds it")
            .clone();
        let config = match protocol.is_sasl() {
            true => configs.silent,
            false => configs.asking,
        };
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        let (_, session) = stream.get_ref();
        let principal = match session.peer_certificates().and_then(<[_]>::first) {
            Some(certificate) => Some(name_of(certificate, &self.settings.principal_rules)?),
            None => None,
        };
        Ok(Secured {
            stream: Box::new(stream),
            principal,
        })
    }
}

/// A connection whose handshake is done.
pub(super) struct Secured {
    pub(super) stream: Box<TlsStream<TcpStream>>,
    /// The name of whoever showed a certificate.
    pub(super) principal: Option<Arc<str>>,
}

/// Why a handshake has failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    /// By TLS, or with the connection.
    #[error(transparent)]
    Failed(#[from] io::Error),
    /// The certificate has no subject that can be read.
    #[error("the client's certificate has no subject that can be read")]
    NoSubject,
    /// None of `ssl.principal.mapping.rules` is for this one.
    #[error("no rule of ssl.principal.mapping.rules applies to {0}")]
    NoRule(String),
}

fn name_of(certificate: &[u8], rules: &PrincipalRules) -> Result<Arc<str>, HandshakeError> {
    let subject = subject::of_certificate(certificate).ok_or(HandshakeError::NoSubject)?;
    match rules.name(&subject) {
        Some(name) => Ok(Arc::from(name)),
        None => Err(HandshakeError::NoRule(subject)),
    }
}

fn files(settings: &TlsSettings) -> Watched {
    let TlsSettings {
        keystore,
        key,
        truststore,
        ..
    } = settings;
    Watched::new([keystore, key, truststore].into_iter().flatten().cloned())
}

fn server_configs(settings: &TlsSettings) -> Result<Configs, TlsError> {
    let Some(keystore) = &settings.keystore else {
        let reason = "a listener is encrypted, and ssl.keystore.location does not say with which certificate";
        return Err(TlsError::Settings(reason.to_owned()));
    };
    let keystore = Pem::read(keystore)?;
    let chain = keystore.certificates()?;
    let key_file = match &settings.key {
        Some(path) => Pem::read(path)?,
        None => keystore,
    };
    let key = key_file.key()?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = versions(settings);
    let of = |verifier: Arc<dyn ClientCertVerifier>| {
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&versions)
            .map_err(|error| TlsError::Settings(error.to_string()))?;
        let config = builder
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(|error| key_file.unusable(why_unusable(&error)))?;
        Ok::<_, TlsError>(Arc::new(config))
    };
    Ok(Configs {
        asking: of(client_verifier(settings, &provider)?)?,
        silent: of(WebPkiClientVerifier::no_client_auth())?,
    })
}

fn why_unusable(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            "its private key is not that of the certificate".to_owned()
        }
        other => format!("its private key or certificate cannot be used: {other}"),
    }
}

/// The newest first.
fn versions(settings: &TlsSettings) -> Vec<&'static SupportedProtocolVersion> {
    let all = [
        (settings.versions.tls13, &version::TLS13),
        (settings.versions.tls12, &version::TLS12),
    ];
    all.into_iter().filter(|it| it.0).map(|it| it.1).collect()
}

fn client_verifier(
    settings: &TlsSettings,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    if settings.client_auth == ClientAuth::None {
        return Ok(WebPkiClientVerifier::no_client_auth());
    }
    let Some(truststore) = &settings.truststore else {
        let reason = "ssl.client.auth asks clients for certificates, and ssl.truststore.location does not say whose are good";
        return Err(TlsError::Settings(reason.to_owned()));
    };
    let truststore = Pem::read(truststore)?;
    let mut roots = RootCertStore::empty();
    for certificate in truststore.certificates()? {
        roots.add(certificate).map_err(|error| {
            truststore.unusable(format!("a certificate in it is no good: {error}"))
        })?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let builder = match settings.client_auth {
        ClientAuth::Required => builder,
        ClientAuth::None | ClientAuth::Requested => builder.allow_unauthenticated(),
    };
    builder
        .build()
        .map_err(|error| truststore.unusable(error.to_string()))
}
