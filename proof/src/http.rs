//! A light client of the HTTP port: bodies that were made beforehand, and answers that are looked at as they come. Callers: the
//! benchmarks of HTTP, and the exam's case of it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// An answer that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(120);
/// A piece of an answer is no longer.
const PIECE_BYTES: usize = 256 << 10;

/// A connection.
pub struct Http {
    stream: TcpStream,
    answers: BufReader<TcpStream>,
    host: String,
    piece: Vec<u8>,
}

/// An answer that is no success.
#[derive(Debug, thiserror::Error)]
#[error("{status}: {body}")]
pub struct Refused {
    /// The first line.
    pub status: String,
    /// The body.
    pub body: String,
}

/// What stands before and behind a body: names in lower case.
pub type Headers = BTreeMap<String, String>;

impl Http {
    /// Connects.
    pub fn connect(address: &str) -> Result<Http> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Http {
            answers: BufReader::with_capacity(64 << 10, stream.try_clone()?),
            stream,
            host: address.to_owned(),
            piece: vec![0; PIECE_BYTES],
        })
    }

    /// Sends lines of JSON, and gives the body of the answer, which has to be of a success.
    pub fn post(&mut self, path: &str, lines: &[u8]) -> Result<String> {
        let (_, body) = self.post_with(path, "", lines)?;
        Ok(body)
    }

    /// Sends lines of JSON with further headers, each of which ends its line. Gives headers and body of the answer, which has to be
    /// of a success.
    pub fn post_with(&mut self, path: &str, more: &str, lines: &[u8]) -> Result<(Headers, String)> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/x-ndjson\r\nContent-Length: {}\r\n{more}\r\n",
            self.host,
            lines.len()
        );
        self.stream.write_all(head.as_bytes())?;
        self.stream.write_all(lines)?;
        let mut body = Vec::new();
        let headers = self.answer(&mut |piece| body.extend_from_slice(piece))?;
        Ok((headers, String::from_utf8(body)?))
    }

    /// The body of a page.
    pub fn get(&mut self, path: &str) -> Result<String> {
        let mut body = Vec::new();
        self.read(path, &mut |piece| body.extend_from_slice(piece))?;
        Ok(String::from_utf8(body)?)
    }

    /// Shows the body of an answer as it comes, and gives its headers and trailers. An answer that breaks off is an error.
    pub fn read(&mut self, path: &str, each: &mut dyn FnMut(&[u8])) -> Result<Headers> {
        self.ask(path)?;
        self.answer(each)
    }

    fn ask(&mut self, path: &str) -> Result<()> {
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nTE: trailers\r\n\r\n",
            self.host
        );
        Ok(self.stream.write_all(head.as_bytes())?)
    }

    fn answer(&mut self, each: &mut dyn FnMut(&[u8])) -> Result<Headers> {
        let status = self.line()?;
        let mut headers = self.headers()?;
        let is_good = status
            .split(' ')
            .nth(1)
            .is_some_and(|code| code.starts_with('2'));
        let mut refusal = Vec::new();
        let mut shown = |piece: &[u8]| match is_good {
            true => each(piece),
            false => refusal.extend_from_slice(piece),
        };
        match headers.get("content-length") {
            Some(length) => self.piece(length.parse()?, &mut shown)?,
            None => {
                let encoding = headers.get("transfer-encoding").map(String::as_str);
                ensure!(encoding == Some("chunked"), "an answer without a length");
                loop {
                    let line = self.line()?;
                    let size = line.split(';').next().unwrap_or_default();
                    let size = usize::from_str_radix(size, 16).context("the size of a chunk")?;
                    if size == 0 {
                        break;
                    }
                    self.piece(size, &mut shown)?;
                    self.line()?;
                }
                headers.extend(self.headers()?);
            }
        }
        if !is_good {
            let body = String::from_utf8_lossy(&refusal).into_owned();
            return Err(Refused { status, body }.into());
        }
        Ok(headers)
    }

    /// A line without its break.
    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(
            self.answers.read_line(&mut line)? > 0,
            "the connection was closed"
        );
        line.truncate(line.trim_end().len());
        Ok(line)
    }

    fn headers(&mut self) -> Result<Headers> {
        let mut headers = Headers::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(headers);
            }
            let (name, value) = line.split_once(": ").context("a header has a value")?;
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
    }

    fn piece(&mut self, bytes: usize, each: &mut dyn FnMut(&[u8])) -> Result<()> {
        let mut left = bytes;
        while left > 0 {
            let piece = &mut self.piece[..left.min(PIECE_BYTES)];
            self.answers.read_exact(piece)?;
            each(piece);
            left -= piece.len();
        }
        Ok(())
    }
}
