//! `GET /mqtt`: the connection goes over to WebSocket, and to the front that takes it.
//!
//! Callers: `http::routes`. Invariants: only who names the subprotocol is let over; pages of other origins are turned away before,
//! as everywhere (`guard`). Who it is is asked by the front that takes the connection.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Extension, State};
use axum::response::Response;

use super::connection::OfConnection;
use super::errors;
use super::routes::{Operation, Routes};
use super::state::Front;
use crate::front::listener::Transport;
use crate::front::websocket::WebStream;

/// What the library reads and writes at a time: each connection has such buffers.
const BUFFER_BYTES: usize = 4 << 10;

pub(super) fn routes() -> Routes {
    let about = Operation::new("mqttWebSocket", "mqtt", "MQTT over WebSocket")
        .details(
            "An upgrade to WebSocket with the subprotocol mqtt. From there on both sides speak MQTT in binary frames; where a frame \
             ends means nothing. The client logs in by its CONNECT.",
        )
        .answers(101, "the connection speaks MQTT from here on", Vec::new())
        .refuses(400, "no_web_socket, no_subprotocol")
        .refuses(404, "not_found");
    Routes::new().get("/mqtt", upgrade, about)
}

async fn upgrade(
    State(front): State<Arc<Front>>,
    Extension(peer): Extension<SocketAddr>,
    transport: Option<Extension<Transport>>,
    connection: Option<Extension<OfConnection>>,
    asked: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let Some(taker) = &front.others.web_sockets else {
        return errors::not_offered("MQTT is not served here (mqtt.listen)");
    };
    let (Some(Extension(transport)), Some(Extension(connection))) = (transport, connection) else {
        return errors::no_web_socket("the connection cannot go over");
    };
    let asked = match asked {
        Ok(asked) => asked.protocols([taker.protocol]),
        Err(why) => return errors::no_web_socket(&why.to_string()),
    };
    if asked.selected_protocol().is_none() {
        return errors::no_subprotocol(taker.protocol);
    }
    let front = Arc::clone(&front);
    asked
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_frame_size(taker.frame_bytes_max)
        .max_message_size(taker.frame_bytes_max)
        .on_upgrade(move |socket| async move {
            // It makes no room for requests.
            let _stay = connection.stay();
            if let Some(taker) = &front.others.web_sockets {
                (taker.serve)(WebStream::new(socket), peer, transport).await;
            }
        })
}
