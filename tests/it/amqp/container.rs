//! A client's name: JMS's client id, which one connection has at a time.

use super::serve_amqp;
use super::wire::Amqp;
use crate::binary::Running;

const SOLE: &[&str] = &["sole-connection-for-container"];

/// A connection that has said its name, and what it is told first.
async fn named(running: &Running, name: &str, wanted: &[&str]) -> (Amqp, String) {
    let mut amqp = Amqp::open(running.other("AMQP")).await;
    amqp.say_open(name, wanted).await;
    assert_eq!(amqp.next().await.0, "header Amqp");
    let told = amqp.next().await.0;
    (amqp, told)
}

#[tokio::test]
async fn a_client_id_that_is_to_be_one_connections_alone_is_refused_to_another() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    let (mut first, told) = named(&running, "client", SOLE).await;
    assert_eq!(told, "open sole");
    let (mut second, told) = named(&running, "client", SOLE).await;
    assert_eq!(told, "open failed");
    let closed = second.next().await.0;
    assert_eq!(closed, "close amqp:invalid-field container-id");
    // Who does not ask for it, and who has another name, is let in.
    for (name, wanted, expected) in [("client", &[][..], "open"), ("other", SOLE, "open sole")] {
        assert_eq!(named(&running, name, wanted).await.1, expected);
    }
    // A close that is answered has given it up, and so has a connection that is lost.
    first.close().await;
    first.until("close").await;
    let (lost, told) = named(&running, "client", SOLE).await;
    assert_eq!(told, "open sole");
    drop(lost);
    assert_eq!(named(&running, "client", SOLE).await.1, "open sole");
}
