//! Sends three readings of a device, waits until they are durable, and reads them again from a point in time.
//!
//! `cargo run -p alluvium-client --example hello [HOST:PORT]`

use std::time::Duration;

use alluvium_client::admin::NewTopic;
use alluvium_client::consumer::Start;
use alluvium_client::{Admin, Client, ClientConfig, Consumer, ConsumerConfig, ErrorCode};
use alluvium_client::{Producer, ProducerConfig, ProducerRecord};
use model::{Timestamp, TopicName};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:9092".to_owned());
    let client = Client::connect(ClientConfig::new(&address)).await?;
    let topic = TopicName::parse("hello")?;
    let new = NewTopic {
        name: topic.to_string(),
        partitions: Some(1),
        ..NewTopic::default()
    };
    match Admin::new(&client).create_topic(new).await {
        Err(error) if error.code() != Some(ErrorCode::TopicAlreadyExists) => Err(error)?,
        _ => {}
    }

    let producer = Producer::new(&client, ProducerConfig::default())?;
    let noon = Timestamp::from_millis(1_767_268_800_000);
    for minute in 0..3 {
        let record = ProducerRecord::new(topic.clone(), format!("{{\"celsius\": 2{minute}}}"))
            .key("sensor-17")
            .timestamp(noon.plus_millis(60_000 * minute));
        let delivered = producer.send(record).await?.wait().await?;
        let offset = delivered.offset.map(|offset| offset.get());
        println!("durable in {} at offset {offset:?}", delivered.partition);
    }
    producer.close().await?;

    let mut consumer = Consumer::new(&client, ConsumerConfig::default());
    let after_noon = Start::Time(noon.plus_millis(1));
    consumer.assign_topic(&topic, after_noon).await?;
    for fetched in consumer.poll(Duration::from_secs(5)).await? {
        for record in fetched.records()? {
            let value = record.value.unwrap_or_default();
            println!("{}: {}", record.offset, String::from_utf8_lossy(&value));
        }
    }
    Ok(())
}
