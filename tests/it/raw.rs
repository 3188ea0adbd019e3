//! A Kafka client that does nothing by itself: one connection, one request at a time, in the version that the test says.

use std::net::SocketAddr;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wire::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use wire::{Message, Reader, Request, RequestHeader, Uuid, decode_response_header, frame};

/// A connection.
pub struct Raw {
    stream: TcpStream,
    correlation_id: i32,
}

impl Raw {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Raw {
        let stream = TcpStream::connect(address)
            .await
            .expect("the broker listens");
        stream.set_nodelay(true).expect("a TCP socket");
        Raw {
            stream,
            correlation_id: 0,
        }
    }

    /// Sends a request without waiting.
    pub async fn send<R: Request>(&mut self, version: i16, request: &R) {
        self.correlation_id += 1;
        let header = RequestHeader {
            key: R::KEY,
            version,
            correlation_id: self.correlation_id,
            client_id: Some("raw".into()),
        };
        let pieces = frame::request(&header, request).expect("the version has these fields");
        self.stream
            .write_all(&pieces.concat())
            .await
            .expect("the broker reads");
    }

    /// The answer to the last request that was sent.
    pub async fn receive<R: Request>(&mut self, version: i16) -> R::Response {
        let length = self.stream.read_u32().await.expect("the broker answers");
        let mut body = vec![0; length as usize];
        self.stream
            .read_exact(&mut body)
            .await
            .expect("a whole frame");
        let mut reader = Reader::new(Bytes::from(body));
        let correlation_id =
            decode_response_header(&mut reader, R::KEY, version).expect("a header");
        assert_eq!(correlation_id, self.correlation_id);
        let response =
            R::Response::decode(&mut reader, version).expect("a response of this version");
        assert_eq!(reader.remaining(), 0, "bytes are left over");
        response
    }

    /// Whether an answer has come, or the connection has ended.
    pub fn has_answer(&self) -> bool {
        use futures_util::FutureExt as _;
        self.stream.peek(&mut [0]).now_or_never().is_some()
    }

    /// Sends a request and waits for its answer.
    pub async fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.send(version, request).await;
        self.receive::<R>(version).await
    }

    /// Makes a topic; its id.
    pub async fn create_topic(&mut self, name: &str, partitions: i32) -> Uuid {
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: name.into(),
                num_partitions: partitions,
                replication_factor: 1,
                ..CreatableTopic::default()
            }],
            ..CreateTopicsRequest::default()
        };
        let answer = self.call(7, &request).await;
        assert_eq!(answer.topics[0].error_code, 0);
        answer.topics[0].topic_id
    }

    /// Whether the broker closes the connection, without another answer.
    pub async fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        // A reset is an end too.
        let _ = self.stream.read_to_end(&mut rest).await;
        rest.is_empty()
    }

    /// Sends a message without a header, and gives what comes back so.
    pub async fn exchange_bare(&mut self, message: &[u8]) -> Vec<u8> {
        let bytes = u32::try_from(message.len()).expect("a short message");
        let frame = [&bytes.to_be_bytes(), message].concat();
        self.stream
            .write_all(&frame)
            .await
            .expect("the broker reads");
        let length = self.stream.read_u32().await.expect("the broker answers");
        let mut answer = vec![0; length as usize];
        self.stream
            .read_exact(&mut answer)
            .await
            .expect("a whole frame");
        answer
    }
}
