//! WebSocket (RFC 6455) as a client speaks it, by hand.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpStream;

/// The request that RFC 6455 has as its example (section 1.2), and its answer.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPTED: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Asks for WebSocket at a path with these further headers; the answer's head.
pub async fn upgrade(address: &str, path: &str, headers: &[&str]) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let mut request = format!(
        "GET /{path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n"
    );
    for header in headers {
        request.push_str(&format!("{header}\r\n"));
    }
    request.push_str("\r\n");
    let sent = stream.write_all(request.as_bytes()).await;
    sent.expect("it is taken");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a head"));
    }
    (stream, String::from_utf8(head).expect("text"))
}

/// A frame as a client sends it, masked.
pub fn frame(first: u8, bytes: &[u8]) -> Vec<u8> {
    let mask = [7, 77, 177, 17];
    let mut frame = vec![first, 0x80 | u8::try_from(bytes.len()).expect("short")];
    frame.extend(mask);
    let masked = bytes.iter().zip(mask.iter().cycle());
    frame.extend(masked.map(|(byte, mask)| byte ^ mask));
    frame
}

/// The next frame of a server: its first byte and what is in it. None at the end.
pub async fn next_frame(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<(u8, Vec<u8>)> {
    let first = stream.read_u8().await.ok()?;
    let length = match stream.read_u8().await.ok()? {
        126 => usize::from(stream.read_u16().await.ok()?),
        127 => usize::try_from(stream.read_u64().await.ok()?).expect("a length"),
        length => usize::from(length),
    };
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await.ok()?;
    Some((first, bytes))
}

/// A connection by WebSocket as a stream, at the path that is called as its protocol. What is written goes out in frames of three bytes, so that a packet spans several, and in
/// messages of several frames.
pub async fn web_socket(address: &str, protocol: &str) -> DuplexStream {
    let wanted = format!("Sec-WebSocket-Protocol: other, {protocol}");
    let (stream, head) = upgrade(address, protocol, &[&wanted]).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let head = head.to_ascii_lowercase();
    let chosen = format!("sec-websocket-protocol: {protocol}\r\n");
    assert!(head.contains(&chosen), "{head}");
    assert!(head.contains(&ACCEPTED.to_ascii_lowercase()), "{head}");
    let (near, far) = tokio::io::duplex(1 << 20);
    let (mut from_test, mut to_test) = tokio::io::split(far);
    let (mut from_server, mut to_server) = stream.into_split();
    tokio::spawn(async move {
        let mut bytes = [0; 4096];
        let mut is_begun = false;
        while let Ok(count @ 1..) = from_test.read(&mut bytes).await {
            for piece in bytes[..count].chunks(3) {
                // Begun as binary, not at its end; gone on with, at its end.
                let first = if is_begun { 0x80 } else { 0x02 };
                is_begun = !is_begun;
                let sent = to_server.write_all(&frame(first, piece)).await;
                if sent.is_err() {
                    return;
                }
            }
            if is_begun {
                // An empty end.
                is_begun = false;
                let _ = to_server.write_all(&frame(0x80, &[])).await;
            }
        }
    });
    tokio::spawn(async move {
        while let Some((first, bytes)) = next_frame(&mut from_server).await {
            match first {
                0x82 => drop(to_test.write_all(&bytes).await),
                0x88 => break,
                other => panic!("{other:#x}"),
            }
        }
        let _ = to_test.shutdown().await;
    });
    near
}
