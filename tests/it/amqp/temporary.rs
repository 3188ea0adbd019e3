//! Temporary nodes: made for a link, received from by the connection that made them, and gone with it.

use ::amqp::Multiple;
use ::amqp::message::Message;
use ::amqp::terminus::{Source, Target};
use rustix::process::Signal;

use super::wire::{Amqp, source, target};
use super::{ROW, row, send, serve_amqp};
use crate::binary::Running;

/// What is asked for as a temporary node.
fn dynamic() -> Target<'static> {
    Target {
        dynamic: true,
        capabilities: Multiple::These(&["temporary-queue"]),
        ..target(None)
    }
}

fn queue(address: &str) -> Source<'_> {
    Source {
        capabilities: Multiple::These(&["temporary-queue"]),
        ..source(address, None)
    }
}

/// A message with the address that answers go to.
fn request(reply_to: &str) -> Vec<u8> {
    let mut payload = vec![0x00, 0x53, 0x73, 0xc0, 0, 5, 0x40, 0x40, 0x40, 0x40, 0xa1];
    payload.push(u8::try_from(reply_to.len()).expect("short"));
    payload.extend_from_slice(reply_to.as_bytes());
    payload[4] = u8::try_from(payload.len() - 5).expect("short");
    [&payload[..], ROW].concat()
}

#[tokio::test]
async fn an_answer_comes_back_by_a_temporary_queue() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut client = Amqp::connect(running.other("AMQP")).await;
    let node = client.sender_to(0, dynamic()).await;
    assert!(node.starts_with("amqp.temporary."), "{node}");
    client.receiver(1, queue(&node)).await;
    client.until("attach 1").await;
    client.credit(1, 0, 9, false).await;
    send(&mut client, 2, "service", 0, &[&request(&node)]).await;
    let mut server = Amqp::connect(running.other("AMQP")).await;
    server.receiver(0, source("service", None)).await;
    server.until("attach 0").await;
    server.credit(0, 0, 9, false).await;
    let (words, payload) = server.next().await;
    assert!(words.starts_with("transfer"), "{words}");
    let message = Message::of(&payload).expect("a message");
    let reply_to = message.properties.and_then(|it| it.0.reply_to);
    let reply_to = reply_to
        .and_then(|it| it.text().map(str::to_owned))
        .expect("an address");
    send(&mut server, 1, &reply_to, 0, &[&row(42)]).await;
    assert_eq!(client.delivery().await, (0, 42, 0));
    // It is its maker's, and no topic to anybody else.
    server.receiver(2, queue(&node)).await;
    assert_eq!(
        server.until("detach").await,
        "detach 2 amqp:unauthorized-access"
    );
    let (status, body) = running.ask("GET /api/v1/topics", "", "");
    assert!(status == 200 && !body.contains("amqp.temporary"), "{body}");
    let (status, _) = running.ask(&format!("GET /api/v1/topics/{node}"), "", "");
    assert_eq!(status, 404);
    // With its link it goes, and a sender to it is told.
    client.detach(0, true).await;
    assert_eq!(
        client.until("detach").await,
        "detach 1 amqp:resource-deleted"
    );
    server.transfer(1, 1, &row(43)).await;
    let said = server.until("disposition").await;
    assert!(said.starts_with("disposition 1..1 rejected"), "{said}");
}

#[tokio::test]
async fn temporary_nodes_are_gone_with_their_connection_and_at_a_start() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut client = Amqp::connect(running.other("AMQP")).await;
    // A receiver may have one made, too.
    let dynamic_source = Source {
        dynamic: true,
        address: None,
        ..source("", None)
    };
    let node = client.receiver_from(0, dynamic_source).await;
    // What comes before the acknowledgement would be passed over.
    send(&mut client, 1, &node, 0, &[&row(1)]).await;
    client.credit(0, 0, 9, false).await;
    assert_eq!(client.delivery().await, (0, 1, 0));
    running.end(Signal::KILL);
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut client = Amqp::connect(running.other("AMQP")).await;
    client.sender(0, Some(&node)).await;
    assert_eq!(client.until("detach").await, "detach 0 amqp:not-found");
    // No use makes one, and there are no more than there may be.
    for handle in 1..101 {
        client.sender_to(handle, dynamic()).await;
    }
    client.say_sender_to(101, dynamic()).await;
    assert_eq!(
        client.until("detach").await,
        "detach 101 amqp:resource-limit-exceeded"
    );
    let mut policy = ::amqp::MapBuf::new();
    let no_messages = ::amqp::reader::decode(b"\x00\x53\x2d\x45").expect("a value");
    policy.put_symbol("lifetime-policy", &no_messages);
    let lasting = Target {
        dynamic_node_properties: Some(policy.as_map()),
        ..dynamic()
    };
    client.say_sender_to(102, lasting).await;
    assert_eq!(
        client.until("detach").await,
        "detach 102 amqp:not-implemented"
    );
}
