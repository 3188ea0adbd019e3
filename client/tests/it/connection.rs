//! Connections: pipelining, timeouts, versions, and what those learn who wait when one ends.

use crate::fake::{Fake, Fault, TOPIC};
use client::{Client, ClientConfig, Connection, Error};
use std::time::Duration;
use wire::ApiKey;
use wire::messages::fetch::FetchRequest;
use wire::messages::metadata::MetadataRequest;

#[tokio::test]
async fn many_requests_are_under_way_at_once_and_each_gets_its_own_answer() {
    let fake = Fake::start(3).await;
    let connection = Connection::open(&fake.address, &fake.config())
        .await
        .unwrap();
    let mut pending = Vec::new();
    for n in 0..200 {
        let topics = if n % 2 == 0 { None } else { Some(Vec::new()) };
        let request = MetadataRequest {
            topics,
            ..Default::default()
        };
        pending.push(connection.start(&request, 12).await.unwrap());
    }
    for (n, pending) in pending.into_iter().enumerate() {
        let answer = pending.wait(Duration::ZERO).await.unwrap();
        assert_eq!(answer.topics.len(), usize::from(n % 2 == 0));
    }
}

#[tokio::test]
async fn everyone_who_waits_learns_that_the_connection_ended() {
    let fake = Fake::start(1).await;
    fake.state()
        .faults
        .extend([Fault::Answer, Fault::DropBefore]);
    let connection = Connection::open(&fake.address, &fake.config())
        .await
        .unwrap();
    let mut pending = Vec::new();
    for _ in 0..5 {
        pending.push(
            connection
                .start(&FetchRequest::default(), 12)
                .await
                .unwrap(),
        );
    }
    let mut answered = 0;
    for pending in pending {
        match pending.wait(Duration::ZERO).await {
            Ok(_) => answered += 1,
            Err(error) => assert!(
                error.is_retriable() && matches!(error, Error::Disconnected { .. }),
                "{error}"
            ),
        }
    }
    assert_eq!(answered, 1);
    assert!(connection.is_closed());
    let late = connection.call(&MetadataRequest::default()).await;
    assert!(matches!(late, Err(Error::Disconnected { .. })));
}

#[tokio::test]
async fn an_answer_that_does_not_come_in_time_ends_the_connection() {
    let fake = Fake::start(1).await;
    fake.state().faults.push_back(Fault::Silence);
    let config = ClientConfig {
        request_timeout: Duration::from_millis(100),
        ..fake.config()
    };
    let connection = Connection::open(&fake.address, &config).await.unwrap();
    let error = connection.call(&FetchRequest::default()).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    assert!(connection.is_closed());
}

#[tokio::test]
async fn a_broker_with_older_api_versions_is_asked_again_in_version_0() {
    let fake = Fake::start(1).await;
    fake.state().api_versions_max = 2;
    let connection = Connection::open(&fake.address, &fake.config())
        .await
        .unwrap();
    let asked: Vec<(ApiKey, i16)> = fake.state().requests.clone();
    assert_eq!(asked, [(ApiKey::ApiVersions, 4), (ApiKey::ApiVersions, 0)]);
    assert_eq!(
        connection.version_for::<MetadataRequest>(i16::MAX).unwrap(),
        13
    );
    assert_eq!(connection.version_for::<MetadataRequest>(5).unwrap(), 5);
    let none = connection.version_for::<FetchRequest>(3).unwrap_err();
    assert!(matches!(none, Error::NoCommonVersion { .. }), "{none}");
}

#[tokio::test]
async fn a_client_comes_back_after_its_connection_ended() {
    let fake = Fake::start(1).await;
    fake.state().faults.push_back(Fault::DropBefore);
    let client = fake.client().await;
    let broker = client.leader(TOPIC, 0).await.unwrap();
    let lost = client
        .call_broker(broker, &FetchRequest::default(), 12, Duration::ZERO)
        .await;
    assert!(lost.is_err());
    client
        .call_broker(broker, &FetchRequest::default(), 12, Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(
        client
            .topic_anew(TOPIC, false)
            .await
            .unwrap()
            .partitions
            .len(),
        1
    );
}

#[tokio::test]
async fn nobody_at_the_address_is_an_error_at_once() {
    let port = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let error = Client::connect(ClientConfig::new(&format!("127.0.0.1:{port}")))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error}");
    assert!(matches!(
        Client::connect(ClientConfig::new(" , ")).await,
        Err(Error::Invalid(_))
    ));
}
