//! Connections of the generator.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::packet::{self, Packet};

/// Longer than any answer takes.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How many connections are made at the same time.
const AT_ONCE: usize = 64;
const READ_BYTES: usize = 32 << 10;

/// A connection whose client has been let in.
pub struct Connection {
    stream: TcpStream,
    incoming: BytesMut,
    /// What [`Connection::flush`] sends.
    pub outgoing: Vec<u8>,
    /// Whether the broker had a session of this client.
    pub is_resumed: bool,
}

impl Connection {
    /// Connects as this client.
    pub async fn open(address: &str, client_id: &str, is_clean: bool) -> Result<Connection> {
        Connection::over(TcpStream::connect(address).await?, client_id, is_clean).await
    }

    /// Connects from another address of loopback, of which each has as many ports as one: those that were closed a moment ago
    /// are not to be had again.
    pub async fn open_from(
        place: u8,
        address: &str,
        client_id: &str,
        is_clean: bool,
    ) -> Result<Connection> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from(([127, 0, 0, place], 0)))?;
        let stream = socket.connect(address.parse()?).await?;
        Connection::over(stream, client_id, is_clean).await
    }

    async fn over(stream: TcpStream, client_id: &str, is_clean: bool) -> Result<Connection> {
        stream.set_nodelay(true)?;
        let mut connection = Connection {
            stream,
            incoming: BytesMut::new(),
            outgoing: packet::connect(client_id, is_clean),
            is_resumed: false,
        };
        connection.flush().await?;
        connection.is_resumed = connection
            .answer(|packet| {
                let is_granted = packet.kind() == packet::CONNACK && packet.body.get(1) == Some(&0);
                ensure!(is_granted, "{client_id} was not let in: {packet:?}");
                Ok(packet.body[0] & 1 == 1)
            })
            .await?;
        Ok(connection)
    }

    /// Subscribes. What was sent before the answer is not looked at: nobody may publish meanwhile.
    pub async fn subscribe(&mut self, filter: &str, qos: u8) -> Result<()> {
        self.outgoing.extend(packet::subscribe(1, filter, qos));
        self.flush().await?;
        self.answer(|packet| {
            let is_granted = packet.kind() == packet::SUBACK && packet.body.get(2) == Some(&qos);
            ensure!(is_granted, "{filter} was not granted: {packet:?}");
            Ok(())
        })
        .await
    }

    /// The one packet that has to come.
    async fn answer<T>(&mut self, look: impl Fn(Packet<'_>) -> Result<T>) -> Result<T> {
        let mut found = None;
        while found.is_none() {
            let next = self.receive(|packet, _| {
                found = Some(look(packet)?);
                Ok(())
            });
            tokio::time::timeout(PATIENCE, next)
                .await
                .context("no answer came")??;
        }
        found.context("no answer")
    }

    /// Waits until something has come, and hands on every packet that is whole, with what is to be sent.
    pub async fn receive(
        &mut self,
        mut each: impl FnMut(Packet<'_>, &mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        self.incoming.reserve(READ_BYTES);
        let read = self.stream.read_buf(&mut self.incoming).await?;
        ensure!(read > 0, "the broker closed a connection");
        let mut used = 0;
        while let Some((packet, length)) = packet::split(&self.incoming[used..])? {
            each(packet, &mut self.outgoing)?;
            used += length;
        }
        self.incoming.advance(used);
        Ok(())
    }

    /// Sends what there is to send.
    pub async fn flush(&mut self) -> Result<()> {
        if !self.outgoing.is_empty() {
            self.stream.write_all(&self.outgoing).await?;
            self.outgoing.clear();
        }
        Ok(())
    }

    /// Says that it goes.
    pub async fn leave(mut self) -> Result<()> {
        self.outgoing.extend(packet::DISCONNECT);
        self.flush().await
    }

    /// Says that it goes, and waits until the broker has closed, which so has heard it.
    pub async fn close(mut self) -> Result<()> {
        self.outgoing.extend(packet::DISCONNECT);
        self.flush().await?;
        self.stream.shutdown().await?;
        let gone = async {
            loop {
                self.incoming.clear();
                self.incoming.reserve(READ_BYTES);
                // A broker may also end with a reset where we had something under way.
                if !matches!(self.stream.read_buf(&mut self.incoming).await, Ok(1..)) {
                    break;
                }
            }
        };
        tokio::time::timeout(PATIENCE, gone)
            .await
            .context("the broker does not close")
    }
}

/// Clients that connect all at once.
#[derive(Clone, Copy, Debug)]
pub struct Clients<'a> {
    /// Their ids are this with a number each, from 0.
    pub name: &'a str,
    /// So many.
    pub count: usize,
    /// Whether their sessions end with their connections.
    pub is_clean: bool,
    /// What each subscribes to, with QoS 1: the client's number stands for `{}` in it.
    pub filter: Option<&'a str>,
}

/// Connects all of them.
pub async fn connect_all(address: &str, clients: Clients<'_>) -> Result<Vec<Connection>> {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for index in 0..clients.count {
        let (room, address) = (room.clone(), address.to_owned());
        let client_id = format!("{}-{index}", clients.name);
        let is_clean = clients.is_clean;
        let filter = clients
            .filter
            .map(|filter| filter.replace("{}", &index.to_string()));
        tasks.spawn(async move {
            let _permit = room.acquire_owned().await?;
            let mut connection = Connection::open(&address, &client_id, is_clean).await?;
            if let Some(filter) = filter {
                connection.subscribe(&filter, 1).await?;
            }
            anyhow::Ok(connection)
        });
    }
    let mut connections = Vec::new();
    while let Some(done) = tasks.join_next().await {
        connections.push(done??);
    }
    Ok(connections)
}

/// A connection of a thread of its own, which waits in its reads.
pub struct Blocking {
    stream: std::net::TcpStream,
    incoming: BytesMut,
}

impl Blocking {
    /// Connects as this client, without a session that stays.
    pub fn open(address: &str, client_id: &str) -> Result<Blocking> {
        let stream = std::net::TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut blocking = Blocking {
            stream,
            incoming: BytesMut::new(),
        };
        blocking.send(&packet::connect(client_id, true))?;
        blocking.next(|packet| {
            let is_granted = packet.kind() == packet::CONNACK && packet.body.get(1) == Some(&0);
            ensure!(is_granted, "{client_id} was not let in: {packet:?}");
            Ok(())
        })?;
        Ok(blocking)
    }

    /// Subscribes.
    pub fn subscribe(&mut self, filter: &str, qos: u8) -> Result<()> {
        self.send(&packet::subscribe(1, filter, qos))?;
        self.next(|packet| {
            let is_granted = packet.kind() == packet::SUBACK && packet.body.get(2) == Some(&qos);
            ensure!(is_granted, "{filter} was not granted: {packet:?}");
            Ok(())
        })
    }

    /// Sends.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Waits for the next packet.
    pub fn next<T>(&mut self, look: impl FnOnce(Packet<'_>) -> Result<T>) -> Result<T> {
        let mut piece = [0; READ_BYTES];
        loop {
            if let Some((packet, length)) = packet::split(&self.incoming)? {
                let found = look(packet)?;
                self.incoming.advance(length);
                return Ok(found);
            }
            let read = self.stream.read(&mut piece)?;
            ensure!(read > 0, "the broker closed a connection");
            self.incoming.extend_from_slice(&piece[..read]);
        }
    }

    /// The same connection for a second thread: one of them reads, the other one sends.
    pub fn for_sending(&self) -> Result<Blocking> {
        Ok(Blocking {
            stream: self.stream.try_clone()?,
            incoming: BytesMut::new(),
        })
    }
}
