//! The ways in: encrypted, by WebSocket on the HTTP port, several at once, and the port that nobody asked for.

use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::wire::{Connect, Mqtt};
use super::{serve_mqtt, until};
use crate::binary::{Running, alluvium};
use crate::tls::{Authority, Place};
use crate::web_socket::{frame, next_frame, upgrade, web_socket};

#[tokio::test]
async fn mqtt_is_spoken_over_websocket_on_the_http_port() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let mut web = Mqtt::over(web_socket(&running.http, "mqtt").await);
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
        let (_, head) = upgrade(&running.http, "mqtt", headers).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    }
    // Text is no MQTT (V5 section 6.0).
    let (mut stream, head) =
        upgrade(&running.http, "mqtt", &["Sec-WebSocket-Protocol: mqtt"]).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let sent = stream.write_all(&frame(0x81, b"hello")).await;
    sent.expect("it is taken");
    while next_frame(&mut stream).await.is_some() {}
    // Without the front there is nothing at its path.
    drop(running);
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut crate::binary::serve(directory.path()));
    let (_, head) = upgrade(&running.http, "mqtt", &["Sec-WebSocket-Protocol: mqtt"]).await;
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
    let (_, head) = upgrade(&running.http, "mqtt", &["Sec-WebSocket-Protocol: mqtt"]).await;
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
