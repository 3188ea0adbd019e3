//! Gets a set of keys from where it is.
//! Callers: `holder`. Bounded in time and length; certificates are those that the machine trusts, and no redirection is followed: who
//! answers is who was asked.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::config::JwksSource;
use super::keys::{InvalidSet, Keys, SET_BYTES_MAX};

/// How long an answer may take.
const TIME_MAX: Duration = Duration::from_secs(10);

/// The answer that has keys in it; any other is another server's refusal.
const OK: u16 = 200;

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    /// The file cannot be read.
    #[error("cannot read it: {0}")]
    Io(#[from] std::io::Error),
    /// The answer is no good.
    #[error("{0}")]
    Answer(String),
    /// There is none in time.
    #[error("no answer within {} s", TIME_MAX.as_secs())]
    Late,
    /// What is there is no set.
    #[error("{0}")]
    Set(String),
}

impl From<InvalidSet> for JwksError {
    fn from(error: InvalidSet) -> JwksError {
        JwksError::Set(error.to_string())
    }
}

/// Reads a file. Blocks on the disk.
pub(super) fn read(path: &Path) -> Result<Keys, JwksError> {
    use std::io::Read as _;
    let mut text = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(SET_BYTES_MAX as u64 + 1).read_to_end(&mut text)?;
    Ok(Keys::parse(&text)?)
}

/// Asks an address.
pub(super) async fn get(source: &JwksSource) -> Result<Keys, JwksError> {
    let JwksSource::Url {
        is_encrypted,
        host,
        port,
        path,
        ..
    } = source
    else {
        unreachable!("files are read");
    };
    let text = async {
        let stream = TcpStream::connect((host.as_str(), *port)).await?;
        if !is_encrypted {
            return ask(stream, host, *port, path).await;
        }
        let answer = |error: rustls::Error| JwksError::Answer(error.to_string());
        let connector = tokio::task::spawn_blocking(connector).await;
        let connector = connector
            .map_err(|error| JwksError::Answer(error.to_string()))?
            .map_err(answer)?;
        let name = ServerName::try_from(host.clone())
            .map_err(|error| JwksError::Answer(error.to_string()))?;
        ask(connector.connect(name, stream).await?, host, *port, path).await
    };
    let text = tokio::time::timeout(TIME_MAX, text).await;
    Ok(Keys::parse(&text.map_err(|_| JwksError::Late)??)?)
}

/// What trusts whom the machine trusts. Blocks on the disk.
fn connector() -> Result<TlsConnector, rustls::Error> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &str,
    port: u16,
    path: &str,
) -> Result<Bytes, JwksError> {
    let wrong = JwksError::Answer;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(|error| wrong(error.to_string()))?;
    let host = match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::ACCEPT, "application/json")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| wrong(error.to_string()))?;
    let answered = async {
        let answer = sender.send_request(request).await;
        let answer = answer.map_err(|error| wrong(error.to_string()))?;
        if answer.status().as_u16() != OK {
            return Err(wrong(format!("it answers {}", answer.status())));
        }
        let body = Limited::new(answer.into_body(), SET_BYTES_MAX)
            .collect()
            .await;
        Ok(body.map_err(|error| wrong(error.to_string()))?.to_bytes())
    };
    tokio::pin!(answered);
    // The connection works while somebody looks at it, and ends with the answer.
    tokio::select! {
        answer = &mut answered => answer,
        ended = connection => match ended {
            Ok(()) => answered.await,
            Err(error) => Err(wrong(error.to_string())),
        },
    }
}
