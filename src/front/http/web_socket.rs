//! `GET /mqtt` and `GET /amqp`: the connection goes over to WebSocket, and to the front that takes it.
//!
//! Callers: `http::routes`. Invariants: only who names the subprotocol is let over; pages of other origins are turned away before,
//! as everywhere (`guard`). Who it is is asked by the front that takes the connection.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Extension, FromRequestParts, State};
use axum::http::request::Parts;
use axum::response::Response;

use super::amqp_path::{AMQP, AMQP_PATH};
use super::connection::OfConnection;
use super::errors;
use super::routes::{Operation, Routes};
use super::state::Front;
use crate::front::listener::Transport;
use crate::front::websocket::WebStream;

/// What the library reads and writes at a time: each connection has such buffers.
const BUFFER_BYTES: usize = 4 << 10;

pub(super) fn routes() -> Routes {
    let mqtt = refusing(Operation::new("mqttWebSocket", "mqtt", "MQTT over WebSocket"))
        .details(
            "An upgrade to WebSocket with the subprotocol mqtt. From there on both sides speak MQTT in binary frames; where a frame \
             ends means nothing. The client logs in by its CONNECT.",
        )
        .answers(101, "the connection speaks MQTT from here on", Vec::new());
    let amqp = refusing(Operation::new("amqpWebSocket", AMQP, "AMQP over WebSocket"))
        .details(
            "An upgrade to WebSocket with the subprotocol amqp. From there on both sides speak AMQP 1.0 in binary frames; where a \
             frame ends means nothing. The client logs in by SASL. Such a request for / is taken as one for this path.",
        )
        .answers(101, "the connection speaks AMQP from here on", Vec::new());
    Routes::new()
        .get("/mqtt", to_mqtt, mqtt)
        .get(AMQP_PATH, to_amqp, amqp)
}

fn refusing(operation: Operation) -> Operation {
    operation
        .refuses(400, "no_web_socket, no_subprotocol")
        .refuses(404, "not_found")
}

async fn to_mqtt(State(front): State<Arc<Front>>, crossing: Crossing) -> Response {
    let not_here = "MQTT is not served here (mqtt.listen)";
    crossing.to(front, "mqtt", not_here)
}

async fn to_amqp(State(front): State<Arc<Front>>, crossing: Crossing) -> Response {
    let not_here = "AMQP is not served here (amqp.listen)";
    crossing.to(front, AMQP, not_here)
}

/// A request to go over.
struct Crossing {
    peer: Option<SocketAddr>,
    transport: Option<Transport>,
    connection: Option<OfConnection>,
    asked: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
}

impl FromRequestParts<Arc<Front>> for Crossing {
    type Rejection = Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        front: &Arc<Front>,
    ) -> Result<Crossing, Infallible> {
        Ok(Crossing {
            peer: of_connection(parts, front).await,
            transport: of_connection(parts, front).await,
            connection: of_connection(parts, front).await,
            asked: WebSocketUpgrade::from_request_parts(parts, front).await,
        })
    }
}

/// What the server has put to each request of a connection.
async fn of_connection<T>(parts: &mut Parts, front: &Arc<Front>) -> Option<T>
where
    T: Clone + Send + Sync + 'static,
{
    let found = Extension::<T>::from_request_parts(parts, front).await;
    found.ok().map(|Extension(found)| found)
}

impl Crossing {
    fn to(self, front: Arc<Front>, protocol: &'static str, not_here: &str) -> Response {
        let mut takers = front.others.web_sockets.iter();
        let Some(taker) = takers.position(|taker| taker.protocol == protocol) else {
            return errors::not_offered(not_here);
        };
        let Crossing {
            peer: Some(peer),
            transport: Some(transport),
            connection: Some(connection),
            asked,
        } = self
        else {
            return errors::no_web_socket("the connection cannot go over");
        };
        let asked = match asked {
            Ok(asked) => asked.protocols([protocol]),
            Err(why) => return errors::no_web_socket(&why.to_string()),
        };
        if asked.selected_protocol().is_none() {
            return errors::no_subprotocol(protocol);
        }
        let frame_bytes_max = front.others.web_sockets[taker].frame_bytes_max;
        asked
            .read_buffer_size(BUFFER_BYTES)
            .write_buffer_size(BUFFER_BYTES)
            .max_frame_size(frame_bytes_max)
            .max_message_size(frame_bytes_max)
            .on_upgrade(move |socket| async move {
                // It makes no room for requests.
                let _stay = connection.stay();
                let serve = &front.others.web_sockets[taker].serve;
                serve(WebStream::new(socket), peer, transport).await;
            })
    }
}
