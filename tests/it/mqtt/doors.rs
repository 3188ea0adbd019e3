//! The ways in: encrypted, by WebSocket on the HTTP port, several at once, and the port that nobody asked for.

use std::process::Stdio;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpStream;

use super::wire::{Connect, Mqtt};
use super::{serve_mqtt, until};
use crate::binary::{Running, alluvium};
use crate::tls::{Authority, Place};

/// The request that RFC 6455 has as its example (section 1.2), and its answer.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPTED: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Asks for WebSocket with these further headers; the answer's head.
async fn upgrade(address: &str, headers: &[&str]) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let mut request = format!(
        "GET /mqtt HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
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
fn frame(first: u8, bytes: &[u8]) -> Vec<u8> {
    let mask = [7, 77, 177, 17];
    let mut frame = vec![first, 0x80 | u8::try_from(bytes.len()).expect("short")];
    frame.extend(mask);
    let masked = bytes.iter().zip(mask.iter().cycle());
    frame.extend(masked.map(|(byte, mask)| byte ^ mask));
    frame
}

/// The next frame of a server: its first byte and what is in it. None at the end.
async fn next_frame(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<(u8, Vec<u8>)> {
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

/// A connection by WebSocket as a stream. What is written goes out in frames of three bytes, so that a packet spans several, and in
/// messages of several frames.
async fn web_socket(address: &str) -> DuplexStream {
    let (stream, head) = upgrade(address, &["Sec-WebSocket-Protocol: other, mqtt"]).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let head = head.to_ascii_lowercase();
    assert!(head.contains("sec-websocket-protocol: mqtt\r\n"), "{head}");
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

#[tokio::test]
async fn mqtt_is_spoken_over_websocket_on_the_http_port() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let mut web = Mqtt::over(web_socket(&running.http).await);
    let answer = web.greet(&Connect::of(5, "page")).await.expect("an answer");
    assert_eq!(answer[..2], [0, 0]);
    assert_eq!(web.subscribe(&[("site/#", 1)], &[]).await, [1]);
    let mut pump = Mqtt::connect(running.other("MQTT"), 4, "pump").await;
    let long = "x".repeat(100_000);
    for payload in ["short", &long] {
        assert_eq!(pump.publish(1, "site/1", payload.as_bytes()).await, 0);
        let message = web.message().await;
        assert!(message.payload == payload.as_bytes());
        web.ack(0x40, message.packet_id).await;
    }
    let publish = web.publish_packet((1, 2), "site/2", &[], b"from a page");
    web.send(&publish).await;
    // Its ack and the message that it gets of itself come in either order.
    for _ in 0..2 {
        match web.packet_or_message().await {
            Ok(message) => assert_eq!(message.payload, b"from a page"),
            Err(ack) => assert_eq!(ack, (0x40, vec![0, 2])),
        }
    }
    // The server's end is told to it, too.
    running.end(rustix::process::Signal::TERM);
    assert_eq!(web.ended().await, Some(0x8b));
}

#[tokio::test]
async fn what_is_no_mqtt_over_websocket_is_turned_away() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    for (headers, status) in [
        (&[][..], "400"),
        (&["Sec-WebSocket-Protocol: mqttv3.1, chat"][..], "400"),
        (
            &[
                "Sec-WebSocket-Protocol: mqtt",
                "Origin: https://elsewhere.example",
            ][..],
            "403",
        ),
    ] {
        let (_, head) = upgrade(&running.http, headers).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    }
    // Text is no MQTT (V5 section 6.0).
    let (mut stream, head) = upgrade(&running.http, &["Sec-WebSocket-Protocol: mqtt"]).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let sent = stream.write_all(&frame(0x81, b"hello")).await;
    sent.expect("it is taken");
    while next_frame(&mut stream).await.is_some() {}
    // Without the front there is nothing at its path.
    drop(running);
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut crate::binary::serve(directory.path()));
    let (_, head) = upgrade(&running.http, &["Sec-WebSocket-Protocol: mqtt"]).await;
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
}

#[tokio::test]
async fn a_client_is_who_its_certificate_says_on_any_encrypted_listener() {
    let (place, authority) = (Place::new(), Authority::new("authority"));
    place.put("server.pem", &authority.server().both(), 0o600);
    place.put("ca.pem", &authority.certificate, 0o644);
    for name in ["pump", "stranger"] {
        let certified = authority.certify(name, &[]).both();
        place.put(&format!("{name}.pem"), &certified, 0o600);
    }
    let mut command = place.serve(
        "PLAINTEXT://127.0.0.1:0",
        &[
            "ssl.client.auth=requested",
            &format!("ssl.truststore.location={}", place.path("ca.pem").display()),
            "ssl.principal.mapping.rules=RULE:^CN=([a-z]+),.*$/$1/",
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users=User:pump",
            "mqtt.listen=127.0.0.1:0,mqtts://127.0.0.1:0,mqtts://localhost:0",
        ],
    );
    let running = Running::start(&mut command);
    let all = running.others("MQTTS");
    assert_eq!(all.len(), 2, "each listens");
    for (address, keystore, code) in [
        (&all[0], Some("pump.pem"), 0),
        (&all[1], Some("pump.pem"), 0),
        (&all[0], Some("stranger.pem"), 0x87),
        (&all[1], None, 0x87),
    ] {
        let stream = TcpStream::connect(address.as_str())
            .await
            .expect("it listens");
        let tls = place.tls("ca.pem", keystore);
        let stream = tls.connect(stream, "localhost:1").await;
        let mut mqtt = Mqtt::over(stream.expect("a handshake"));
        let answer = mqtt.greet(&Connect::of(5, "x")).await.expect("an answer");
        assert_eq!(answer[..2], [0, 0]);
        assert_eq!(mqtt.publish(1, "site/1", b"a").await, code, "{keystore:?}");
    }
    // Who comes unencrypted is nobody.
    let mut plain = Mqtt::connect(running.other("MQTT"), 5, "plain").await;
    assert_eq!(plain.publish(1, "site/1", b"a").await, 0x87);
}

#[tokio::test]
async fn a_default_port_that_is_taken_is_a_warning_and_one_that_was_asked_for_an_error() {
    // Another test may have it for a while.
    let mut taken = None;
    until(async || {
        taken = tokio::net::TcpListener::bind("127.0.0.1:1883").await.ok();
        taken.is_some()
    })
    .await;
    let start = || {
        let mut command = alluvium();
        command.args(["serve", "--kafka", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
        command
    };
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("log");
    let out = std::fs::File::create(&log).expect("a file");
    let data = directory.path().join("data");
    let mut command = start();
    let running = Running::start_logged(command.arg("--data").arg(&data), Stdio::from(out));
    assert!(running.others("MQTT").is_empty());
    until(async || {
        let said = std::fs::read_to_string(&log).expect("a log");
        said.contains("MQTT is not served")
    })
    .await;
    let (_, head) = upgrade(&running.http, &["Sec-WebSocket-Protocol: mqtt"]).await;
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    drop(running);
    let refused = start()
        .args(["--mqtt", "127.0.0.1:1883", "--data"])
        .arg(directory.path().join("other"))
        .output()
        .expect("it runs");
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("127.0.0.1:1883"), "{said}");
    drop(taken);
}
