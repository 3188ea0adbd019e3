//! A client that may do nothing.

use ::amqp::sasl::{SaslFrame, SaslInit};
use ::amqp::terminus::{Source, TerminusDurability};
use ::amqp::{Multiple, Symbol};

use super::serve_amqp;
use super::wire::{Amqp, source};
use crate::binary::Running;
use crate::denied::{as_root, control, held};

const REFUSED: &str = "amqp:unauthorized-access";

/// A connection of a user, with a session.
async fn connect(running: &Running, login: &[u8]) -> Amqp {
    let mut amqp = Amqp::open(running.other("AMQP")).await;
    amqp.raw(b"AMQP\x03\x01\x00\x00").await;
    amqp.until("mechanisms").await;
    let plain = SaslInit {
        mechanism: Symbol("PLAIN"),
        initial_response: Some(login),
        hostname: None,
    };
    amqp.log_in(SaslFrame::Init(plain)).await;
    assert_eq!(amqp.next().await.0, "outcome Ok");
    amqp.begin().await;
    amqp
}

#[tokio::test]
async fn of_a_client_that_may_do_nothing_nothing_is_changed_and_nothing_is_held() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = serve_amqp(&directory.path().join("data"));
    control(&mut command, directory.path());
    let running = Running::start(&mut command);
    let topic = r#"{"name":"there","partitions":1}"#;
    as_root(&running, "POST /api/v1/topics", topic);
    let before = held(&running);
    for address in ["there", "other"] {
        let mut amqp = connect(&running, b"\0alice\0a long password").await;
        amqp.sender(0, Some(address)).await;
        let told = amqp.until("detach 0").await;
        assert!(told.ends_with(REFUSED), "{address}: {told}");
        let with = |capabilities, is_durable| Source {
            capabilities: Multiple::These(capabilities),
            durable: match is_durable {
                true => TerminusDurability::UnsettledState,
                false => TerminusDurability::None,
            },
            expiry_policy: Symbol(match is_durable {
                true => "never",
                false => "link-detach",
            }),
            ..source(address, None)
        };
        for (handle, from) in [
            (1, source(address, None)),
            (2, with(&["queue"], false)),
            (3, with(&["topic"], true)),
            (4, with(&["topic", "shared"], true)),
            (5, with(&["topic", "shared"], false)),
        ] {
            amqp.receiver_of(handle, &format!("s{handle}"), Some(from))
                .await;
            let told = amqp.until(&format!("detach {handle}")).await;
            assert!(told.ends_with(REFUSED), "{address}: {told}");
        }
    }
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while held(&running) != before {
        assert!(std::time::Instant::now() < patience, "{:?}", held(&running));
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
