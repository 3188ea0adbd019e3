//! A small HTTP client for the server's own API: one request, one JSON answer, or one that is read piece by piece.
//!
//! Callers: commands that ask for what Kafka's protocol has no request for. Each request has a connection of its own: there are
//! few of them, and a server that is stopped and started in between is met again. Errors are the server's problem documents
//! (RFC 9457), told by their code, or why there was no answer.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use client::Tls;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{HeaderMap, Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::user::user_name;

/// How long a connection may take to be there.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// How long the answer may take, beside what was asked for as waiting time.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why a request has no good answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No connection.
    #[error("cannot connect to {address} for HTTP: {source}")]
    Connect {
        /// Where to.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// A connection, and no whole answer on it.
    #[error("{address} gave no whole HTTP answer: {reason}")]
    NoAnswer {
        /// Who.
        address: String,
        /// What happened instead.
        reason: String,
    },
    /// Something answers that is not this server's API, or an older one's.
    #[error("{address} answers {status} and not as this server's API does")]
    Foreign {
        /// Who.
        address: String,
        /// How.
        status: u16,
    },
    /// The server says no.
    #[error("{}", .0.detail)]
    Problem(Problem),
}

/// What the server says when it says no.
#[derive(Debug, Deserialize)]
pub struct Problem {
    /// A name of the problem that stays.
    pub code: String,
    /// The problem in words.
    pub detail: String,
}

/// A connection, plain or encrypted.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A server's HTTP address.
#[derive(Clone, Debug)]
pub struct HttpServer {
    /// HOST:PORT
    pub address: String,
    /// What encrypts connections; None if nothing does.
    pub tls: Option<Tls>,
    /// What requests show who they are with.
    pub authorization: Option<HeaderValue>,
}

impl HttpServer {
    /// With what each request shows.
    fn request(&self) -> hyper::http::request::Builder {
        let mut request = Request::builder()
            .header(header::HOST, &self.address)
            .header(header::USER_AGENT, user_agent());
        if let Some(shown) = &self.authorization {
            request = request.header(header::AUTHORIZATION, shown);
        }
        request
    }

    /// Gets a resource.
    pub async fn get(&self, path: &str) -> Result<Value, HttpError> {
        self.ask(Method::GET, path, None).await
    }

    /// Gets a resource that is text.
    pub async fn get_text(&self, path: &str) -> Result<String, HttpError> {
        let (status, body) = self.exchange_in_time(Method::GET, path, None).await?;
        match status.is_success() {
            true => Ok(String::from_utf8_lossy(&body).into_owned()),
            // What it says then is JSON.
            false => self.read(status, &body).map(|_| String::new()),
        }
    }

    /// Gets a resource, whatever the answer's status is.
    pub async fn get_any(&self, path: &str) -> Result<Value, HttpError> {
        let (_, body) = self.exchange_in_time(Method::GET, path, None).await?;
        serde_json::from_slice(&body).map_err(|error| self.silent(error.to_string()))
    }

    /// Sends a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, HttpError> {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// Sends a JSON body that changes a resource.
    pub async fn patch(&self, path: &str, body: &Value) -> Result<Value, HttpError> {
        self.ask(Method::PATCH, path, Some(body)).await
    }

    /// Deletes, or cancels, a resource.
    pub async fn delete(&self, path: &str) -> Result<Value, HttpError> {
        self.ask(Method::DELETE, path, None).await
    }

    /// Gets a resource piece by piece, however long it is, with what stands behind it.
    pub async fn stream(&self, path: &str) -> Result<HttpStream, HttpError> {
        let stream = self.connect().await?;
        let silent = |error: hyper::Error| self.silent(error.to_string());
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.map_err(silent)?;
        let connection = tokio::spawn(connection);
        let request = self
            .request()
            .uri(path)
            // The server sends what stands behind a body to those alone who say so.
            .header(header::TE, "trailers")
            .body(Full::new(Bytes::new()))
            .map_err(|error| self.silent(error.to_string()))?;
        let answer = sender.send_request(request).await.map_err(silent)?;
        let status = answer.status();
        if !status.is_success() {
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect();
            let body = body.await.map_err(|error| self.silent(error.to_string()))?;
            let refused = self.read(status, &body.to_bytes());
            return Err(refused.err().unwrap_or_else(|| HttpError::Foreign {
                address: self.address.clone(),
                status: status.as_u16(),
            }));
        }
        Ok(HttpStream {
            server: self.clone(),
            body: answer.into_body(),
            trailers: HeaderMap::new(),
            connection,
            _sender: sender,
        })
    }

    /// Connects, and does the handshake where the server is encrypted.
    async fn connect(&self) -> Result<Box<dyn Stream>, HttpError> {
        let connecting = async {
            let stream = TcpStream::connect(&self.address).await?;
            let stream: Box<dyn Stream> = match &self.tls {
                None => Box::new(stream),
                Some(tls) => Box::new(tls.connect(stream, &self.address).await?),
            };
            Ok(stream)
        };
        match tokio::time::timeout(CONNECT_TIME, connecting).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(source)) => Err(self.unconnected(source)),
            Err(_) => Err(self.unconnected(io::ErrorKind::TimedOut.into())),
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, HttpError> {
        let (status, body) = self.exchange_in_time(method, path, body).await?;
        self.read(status, &body)
    }

    async fn exchange_in_time(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Bytes), HttpError> {
        let stream = self.connect().await?;
        match tokio::time::timeout(ANSWER_TIME, self.exchange(stream, method, path, body)).await {
            Ok(answer) => answer,
            Err(_) => Err(self.silent(format!("nothing came for {} s", ANSWER_TIME.as_secs()))),
        }
    }

    async fn exchange(
        &self,
        stream: Box<dyn Stream>,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Bytes), HttpError> {
        let silent = |error: hyper::Error| self.silent(error.to_string());
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.map_err(silent)?;
        let mut request = self
            .request()
            .method(method)
            .uri(path)
            .header(header::ACCEPT, "application/json, */*;q=0.5");
        let text = body.map(Value::to_string).unwrap_or_default();
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Full::new(Bytes::from(text)))
            .map_err(|error| self.silent(error.to_string()))?;
        // The connection ends with the answer, or with the wait for it.
        let answered = async {
            let (head, body) = sender
                .send_request(request)
                .await
                .map_err(silent)?
                .into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| self.silent(error.to_string()))?;
            Ok((head.status, body.to_bytes()))
        };
        tokio::pin!(answered, connection);
        tokio::select! {
            answer = &mut answered => answer,
            // It may have ended with the whole answer delivered.
            _ = &mut connection => answered.await,
        }
    }

    fn read(&self, status: StatusCode, body: &[u8]) -> Result<Value, HttpError> {
        let foreign = || HttpError::Foreign {
            address: self.address.clone(),
            status: status.as_u16(),
        };
        if status.is_success() {
            return serde_json::from_slice(body).map_err(|_| foreign());
        }
        let problem: Problem = serde_json::from_slice(body).map_err(|_| foreign())?;
        // Such a path is not known there: the server is an older one.
        match problem.code == "not_found" {
            true => Err(foreign()),
            false => Err(HttpError::Problem(problem)),
        }
    }

    fn unconnected(&self, source: io::Error) -> HttpError {
        HttpError::Connect {
            address: self.address.clone(),
            source,
        }
    }

    fn silent(&self, reason: String) -> HttpError {
        HttpError::NoAnswer {
            address: self.address.clone(),
            reason,
        }
    }
}

/// An answer that is read piece by piece.
#[derive(Debug)]
pub struct HttpStream {
    server: HttpServer,
    body: Incoming,
    trailers: HeaderMap,
    connection: tokio::task::JoinHandle<hyper::Result<()>>,
    /// The connection lives as long as this does.
    _sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
}

impl HttpStream {
    /// The next piece; None at the end of a whole answer. One that breaks off is an error.
    pub async fn next(&mut self) -> Result<Option<Bytes>, HttpError> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| {
                let reason = format!("it broke off: {error}");
                self.server.silent(reason)
            })?;
            match frame.into_data() {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(frame) => self
                    .trailers
                    .extend(frame.into_trailers().unwrap_or_default()),
            }
        }
        Ok(None)
    }

    /// What stands behind the answer under a name, once it was read to its end.
    pub fn trailer(&self, name: &str) -> Option<&str> {
        self.trailers.get(name)?.to_str().ok()
    }
}

impl Drop for HttpStream {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// What the server logs of who asked: the user of this machine, which nobody has checked.
fn user_agent() -> String {
    let mut user = user_name();
    // What a header may hold.
    user.retain(|c| c.is_ascii_graphic());
    format!("alluvium/{} ({user})", env!("CARGO_PKG_VERSION"))
}

/// `name=value` pairs as the part of an address behind `?`.
pub fn query(pairs: &[(&str, String)]) -> String {
    let pairs = pairs
        .iter()
        .map(|(name, value)| format!("{name}={}", escaped(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// Every byte that is not plain as `%XX` (RFC 3986 §2.3).
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> HttpServer {
        HttpServer {
            address: "a:1".to_owned(),
            tls: None,
            authorization: None,
        }
    }

    #[test]
    fn what_is_not_plain_is_escaped() {
        let pairs = [("topic", "a b&c=ü".to_owned()), ("now", "true".to_owned())];
        assert_eq!(query(&pairs), "topic=a%20b%26c%3D%C3%BC&now=true");
    }

    #[test]
    fn a_problem_is_told_by_its_code_and_what_is_none_is_foreign() {
        let problem = br#"{"type":"about:blank","status":404,"code":"unknown_topic","detail":"no such topic"}"#;
        match server().read(StatusCode::NOT_FOUND, problem) {
            Err(HttpError::Problem(problem)) => assert_eq!(problem.code, "unknown_topic"),
            other => panic!("{other:?}"),
        }
        let old = br#"{"status":404,"code":"not_found","detail":"nothing is served here"}"#;
        for (status, body) in [
            (StatusCode::NOT_FOUND, old.as_slice()),
            (StatusCode::BAD_GATEWAY, b"<html>"),
            (StatusCode::OK, b"<html>"),
        ] {
            let read = server().read(status, body);
            assert!(matches!(read, Err(HttpError::Foreign { .. })), "{read:?}");
        }
    }
}
