//! The other way in: by WebSocket on the HTTP port.

use rustix::process::Signal;

use super::serve_amqp;
use super::wire::Amqp;
use super::{row, send};
use crate::binary::{Running, serve};
use crate::produce_http::records;
use crate::web_socket::{next_frame, upgrade, web_socket};

#[tokio::test]
async fn amqp_is_spoken_over_websocket_on_the_http_port() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut amqp = Amqp::over(web_socket(&running.http, "amqp").await);
    amqp.begin().await;
    let long = [
        &[0x00, 0x53, 0x75, 0xb0, 0, 0, 0x0b, 0xb8][..],
        &[b'x'; 3_000],
    ]
    .concat();
    send(&mut amqp, 0, "events", 0, &[&row(b'a'), &long]).await;
    running.end(Signal::KILL);
    let running = Running::start(&mut serve_amqp(directory.path()));
    let stored = records(&running, "events", 0).await;
    let values: Vec<usize> = stored
        .iter()
        .map(|it| it.value.as_ref().map_or(0, |value| value.len()))
        .collect();
    assert_eq!(values, [1, 3_000], "what was accepted is on the disk");
    // The server's end is told to it, too.
    let mut amqp = Amqp::over(web_socket(&running.http, "amqp").await);
    amqp.begin().await;
    running.end(Signal::TERM);
    amqp.until("close").await;
}

#[tokio::test]
async fn amqp_over_websocket_is_let_in_without_a_path_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    const AMQP: &str = "Sec-WebSocket-Protocol: amqp";
    let (_stream, head) = upgrade(&running.http, "", &[AMQP]).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let head = head.to_ascii_lowercase();
    assert!(head.contains("sec-websocket-protocol: amqp\r\n"), "{head}");
    // It is guarded as at its path, and nobody else is led there: what is at the path is for everybody.
    for (header, status) in [
        (
            "Sec-WebSocket-Protocol: amqp\r\nOrigin: https://elsewhere.example",
            "403",
        ),
        ("Sec-WebSocket-Protocol: mqtt", "200"),
        ("Origin: https://elsewhere.example", "200"),
    ] {
        let (_, head) = upgrade(&running.http, "", &[header]).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    }
    let (status, index) = running.get("/");
    assert!(status == 200 && index.contains("/metrics"), "{index}");
}

#[tokio::test]
async fn what_is_no_amqp_over_websocket_is_turned_away() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    for (header, status) in [
        ("Sec-WebSocket-Protocol: mqtt", "400"),
        (
            "Sec-WebSocket-Protocol: amqp\r\nOrigin: https://elsewhere.example",
            "403",
        ),
    ] {
        let (_, head) = upgrade(&running.http, "amqp", &[header]).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    }
    // Whoever says nothing is not kept.
    let (mut stream, head) =
        upgrade(&running.http, "amqp", &["Sec-WebSocket-Protocol: amqp"]).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    while next_frame(&mut stream).await.is_some() {}
    drop(running);
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve(directory.path()));
    let (_, head) = upgrade(&running.http, "amqp", &["Sec-WebSocket-Protocol: amqp"]).await;
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    assert!(head.contains("problem+json"), "{head}");
}
