//! The greeting: CONNECT is judged, the client logs in and takes its place, and CONNACK says what it may do (§3.1, §3.2).
//! Callers: `connection`, with the first packet. Invariant: nothing is published or read for a client that was not let in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use zeroize::Zeroizing;

use super::bounds::{ALIAS_MAX, CLIENT_ID_BYTES_MAX, RECEIVE_MAX};
use super::clients::Entered;
use super::ending::NotConnected;
use super::errors::{self, Never, NotStored};
use super::frame::Frame;
use super::packet::{Connack, Connect, Fault, Version, Will, connack, decode_connect, version_of};
use super::publishing;
use super::record::{Message, Says};
use super::routes::To;
use super::session::{self, Session};
use super::sharing::Part;
use super::state::Front;
use crate::broker::Refusal;
use crate::broker::access::{Caller, Door, Principal, Protocol, right};
use crate::broker::credentials::LoginKind;
use crate::broker::sessions::{KeptWill, SessionKey, SessionState};
use crate::front::listener::Transport;

/// A client that was let in.
pub(super) struct Client {
    pub(super) version: Version,
    /// The broker, as it may use it.
    pub(super) door: Arc<Door>,
    /// Its place among the clients.
    pub(super) entered: Entered,
    /// How long it may be silent; None for ever.
    pub(super) silence_max: Option<Duration>,
    /// Publishes to it that may be without an ack.
    pub(super) receive_maximum: u16,
    /// The longest packet that it takes.
    pub(super) packet_bytes_max: usize,
    /// Whether acks may say why in words.
    pub(super) wants_reasons: bool,
    /// What of it outlives its connection.
    pub(super) session: Arc<Session>,
}

impl Client {
    /// What it calls itself, or was called.
    pub(super) fn id(&self) -> &str {
        self.door.caller().client_id.as_deref().unwrap_or_default()
    }
}

/// What was there of a client's session.
pub(super) struct Resumed {
    /// All of it, if it goes on.
    pub(super) state: Option<SessionState>,
    /// Its parts in shared subscriptions, so that these go on until it has them again.
    pub(super) parts: Vec<Part>,
}

/// Judges the first packet. Its answer is appended to `out`: nothing is, where the protocol has none.
pub(super) async fn greet(
    front: &Arc<Front>,
    frame: &Frame,
    (transport, peer): (&Transport, SocketAddr),
    out: &mut BytesMut,
) -> Result<(Client, Resumed), NotConnected> {
    let greeted = async {
        let connect = decode_connect(frame.first, &frame.body)?;
        let admitted = admit(front, frame, &connect, (transport, peer)).await?;
        Ok((connect, admitted))
    };
    match greeted.await {
        Ok((connect, (client, resumed))) => {
            welcome(front, &connect, (&client, resumed.state.is_some()), out);
            Ok((client, resumed))
        }
        Err(why) => {
            refuse(front, frame, &why, out);
            Err(why)
        }
    }
}

fn refuse(front: &Front, frame: &Frame, why: &NotConnected, out: &mut BytesMut) {
    // Who does not begin with a CONNECT is told nothing (§4.13).
    if frame.first != 0x10 {
        return;
    }
    let version = match (version_of(&frame.body), why) {
        (Some(version), _) => version,
        (None, NotConnected::Fault(Fault::Version { is_older: false })) => Version::V5,
        (None, NotConnected::Fault(Fault::Version { is_older: true })) => Version::V311,
        (None, _) => return,
    };
    let Some(code) = errors::of_connect(version, why) else {
        return;
    };
    front.stats.not_connected(code);
    let reason = why.to_string();
    let says = Connack {
        reason_string: Some(&reason),
        ..Connack::default()
    };
    let mut answer = BytesMut::new();
    connack(&mut answer, version, code, false, &says);
    // Who says how much he takes gets no more, and the code before the words (§3.2.2.3.9).
    let read = decode_connect(frame.first, &frame.body).ok();
    let bytes_max = read.and_then(|connect| connect.properties.packet_bytes_max);
    let is_too_long = bytes_max.is_some_and(|most| answer.len() > most as usize);
    if is_too_long {
        answer.clear();
        connack(&mut answer, version, code, false, &Connack::default());
    }
    out.extend_from_slice(&answer);
}

fn welcome(
    front: &Front,
    connect: &Connect<'_>,
    (client, is_resumed): (&Client, bool),
    out: &mut BytesMut,
) {
    let asked = &connect.properties;
    let longest = front.settings.keep_alive_max_seconds;
    let is_assigned = connect.client_id.is_empty();
    let says = Connack {
        session_expiry: asked
            .session_expiry
            .filter(|asked| *asked != client.session.expiry_seconds)
            .map(|_| client.session.expiry_seconds),
        receive_maximum: Some(RECEIVE_MAX as u16),
        packet_bytes_max: u32::try_from(front.settings.packet_bytes_max).ok(),
        topic_alias_maximum: Some(ALIAS_MAX as u16),
        assigned_client_id: is_assigned.then(|| client.id()),
        server_keep_alive: (!(1..=longest).contains(&connect.keep_alive)).then_some(longest),
        reason_string: None,
    };
    connack(out, connect.version, 0, is_resumed, &says);
}

async fn admit(
    front: &Arc<Front>,
    frame: &Frame,
    connect: &Connect<'_>,
    (transport, peer): (&Transport, SocketAddr),
) -> Result<(Client, Resumed), NotConnected> {
    let properties = &connect.properties;
    if properties.authentication_method.is_some() {
        return Err(NotConnected::Method);
    }
    if connect.client_id.len() > CLIENT_ID_BYTES_MAX {
        let bytes_max = CLIENT_ID_BYTES_MAX;
        return Err(NotConnected::LongId { bytes_max });
    }
    let principal = principal(front, connect, (transport, peer)).await?;
    let id: Arc<str> = match connect.client_id {
        "" => uuid::Uuid::new_v4().simple().to_string().into(),
        id => id.into(),
    };
    let door = Arc::new(front.broker.door(Caller {
        principal: principal.clone(),
        address: peer,
        client_id: Some(id.to_string()),
        protocol: Protocol::Mqtt,
    }));
    let will = match &connect.will {
        Some(will) => Some(will_of((front, &door), &frame.body, will, &id).await?),
        None => None,
    };
    let key = Arc::new(SessionKey {
        owner: principal,
        client_id: id,
    });
    let entered = front
        .clients
        .enter(Arc::clone(&key), (peer, connect.version));
    let entered = entered.ok_or(NotConnected::TooMany)?;
    // Whoever had it may take long to end, and somebody may come meanwhile who takes it over from this one.
    let held = tokio::select! {
        held = front.broker.hold_session(key) => held,
        _ = entered.ended() => return Err(NotConnected::Ended),
    };
    let taken = session::take_over(front, connect, held, will).await?;
    let (session, state, parts) = taken;
    let longest = front.settings.keep_alive_max_seconds;
    let seconds = match (connect.version, connect.keep_alive) {
        (Version::V5, seconds) if !(1..=longest).contains(&seconds) => longest,
        (_, seconds) => seconds,
    };
    let silence_max = Duration::from_millis(u64::from(seconds) * 1_500);
    let packet_bytes_max = properties.packet_bytes_max.unwrap_or(u32::MAX);
    let client = Client {
        version: connect.version,
        door,
        entered,
        silence_max: Some(silence_max).filter(|_| seconds > 0),
        receive_maximum: properties.receive_maximum.unwrap_or(u16::MAX),
        packet_bytes_max: usize::try_from(packet_bytes_max).unwrap_or(usize::MAX),
        wants_reasons: properties.request_problem.unwrap_or(true),
        session: Arc::new(session),
    };
    Ok((client, Resumed { state, parts }))
}

/// Who it is: by what it shows, which is checked whether access is controlled or not, or else by its connection.
async fn principal(
    front: &Front,
    connect: &Connect<'_>,
    (transport, peer): (&Transport, SocketAddr),
) -> Result<Principal, NotConnected> {
    if connect.user.is_none() && connect.password.is_none() {
        return Ok(transport.principal());
    }
    if !transport.is_private(peer.ip()) {
        return Err(NotConnected::Exposed);
    }
    let logged_in = match (connect.user, connect.password) {
        (Some(user), Some(password)) => {
            let password = Zeroizing::new(password.to_vec());
            let broker = &front.broker;
            let logged_in = broker.log_in(LoginKind::Mqtt, user, password, peer.ip());
            logged_in.await.ok()
        }
        _ => {
            front.broker.refuse_login(LoginKind::Mqtt, peer.ip());
            None
        }
    };
    match logged_in {
        Some(proven) => Ok(Principal::User(proven.accept())),
        None => {
            // A failure is answered late, as in every protocol.
            tokio::time::sleep(front.shared.sasl.failed_delay).await;
            Err(NotConnected::Login)
        }
    }
}

/// Whether the client may publish a will there. The topic of a route is made when it is needed; one that the will names itself is made now,
/// as the client may.
async fn check_will(front: &Front, door: &Door, topic: &str) -> Result<(), NotConnected> {
    match front.settings.routes.to(topic) {
        None => Err(NotConnected::WillTopic),
        Some(To::Route { route, .. }) => match door.part(&route.topic, topic, right::Write) {
            Err(Refusal::Denied { .. }) => Err(NotConnected::WillDenied),
            _ => Ok(()),
        },
        Some(to) => match publishing::writable(front, door, (&to, topic)).await {
            Ok(_) => Ok(()),
            Err(NotStored::Never(Never::Denied)) => Err(NotConnected::WillDenied),
            Err(NotStored::Never(_)) => Err(NotConnected::WillTopic),
            Err(NotStored::End(_)) => Err(NotConnected::StoreFailed),
        },
    }
}

/// The will as it is kept.
async fn will_of(
    (front, door): (&Front, &Door),
    packet: &Bytes,
    will: &Will<'_>,
    client_id: &str,
) -> Result<KeptWill, NotConnected> {
    check_will(front, door, will.topic).await?;
    let topic = packet.slice_ref(will.topic.as_bytes());
    let says = Says {
        qos: will.qos,
        retain: will.retain,
        client_id: &Bytes::copy_from_slice(client_id.as_bytes()),
        properties: &will.properties,
    };
    let message = Message::of(packet, topic, will.payload, says).copied();
    Ok(KeptWill {
        delay_seconds: will.properties.will_delay.unwrap_or(0),
        topic: will.topic.to_owned(),
        payload: message.value,
        retain: message.retain,
        expiry_seconds: message.expiry,
        headers: message.headers,
    })
}
