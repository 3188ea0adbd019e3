//! rumqttc against a broker, by MQTT 3.1.1 and 5, and rskafka for the records that its messages became.

use rskafka::client::ClientBuilder;
use rskafka::client::partition::{OffsetAt, UnknownTopicHandling};
use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Outcome = Result<(), Failure>;

const COUNT: usize = 200;
const PATIENCE: Duration = Duration::from_secs(40);

/// Asks the matrix runner (proof/src/compat/session.rs), and gives what follows its ok; anything else is an error.
fn ask(request: &str) -> Result<String, Failure> {
    println!("@{request}");
    std::io::stdout().flush()?;
    let mut reply = String::new();
    std::io::stdin().lock().read_line(&mut reply)?;
    match reply.trim().strip_prefix("ok") {
        Some(rest) => Ok(rest.trim().to_owned()),
        None => Err(format!("{request}: {reply}").into()),
    }
}

async fn until(condition: impl Fn() -> bool, what: &str) -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        if Instant::now() > deadline {
            return Err(format!("not in time: {what}").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn same(what: &str, got: &[String], wanted: &[String]) -> Outcome {
    match got == wanted {
        true => Ok(()),
        false => Err(format!(
            "{what}: {} values, for {}: {got:?}",
            got.len(),
            wanted.len()
        )
        .into()),
    }
}

fn numbers(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|number| number.to_string()).collect()
}

/// The values without repeats, by their numbers.
fn each(mut values: Vec<String>) -> Vec<String> {
    values.sort_by_key(|value| value.parse::<usize>().unwrap_or(usize::MAX));
    values.dedup();
    values
}

/// What a client got, and how many of its messages are at their end.
#[derive(Default)]
struct Seen {
    got: Mutex<Vec<(String, String)>>,
    done: AtomicUsize,
}

impl Seen {
    fn of(&self, topic: &str) -> Vec<String> {
        let got = self
            .got
            .lock()
            .expect("nothing panics while it holds messages");
        let of_topic = got.iter().filter(|(of, _)| of == topic);
        of_topic.map(|(_, value)| value.clone()).collect()
    }
}

/// A client's loop, which connects again by itself; it ends when this is dropped.
struct Looped(JoinHandle<()>);

impl Drop for Looped {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The two versions have types of their own that are called alike.
macro_rules! version {
    ($module:ident, $number:literal, [$($using:tt)*], $keep:expr) => {
        mod $module {
            use super::*;
            $($using)*

            pub fn connect(host: &str, id: &str, is_kept: bool) -> (AsyncClient, Arc<Seen>, Looped) {
                let (name, port) = host.rsplit_once(':').expect("host and port");
                let mut options = MqttOptions::new(id, name, port.parse().expect("a port"));
                options.set_keep_alive(Duration::from_secs(30));
                let keep: fn(&mut MqttOptions, bool) = $keep;
                keep(&mut options, is_kept);
                let (client, mut events) = AsyncClient::new(options, 2 * COUNT);
                let seen = Arc::<Seen>::default();
                let noted = Arc::clone(&seen);
                let looped = tokio::spawn(async move {
                    loop {
                        match events.poll().await {
                            Ok(Event::Incoming(Packet::Publish(message))) => {
                                let topic = String::from_utf8_lossy(message.topic.as_ref()).into_owned();
                                let value = String::from_utf8_lossy(&message.payload).into_owned();
                                let mut got = noted.got.lock().expect("nothing panics here");
                                // It gives a message again that was sent again, and says so.
                                let one = (topic, value);
                                if !(message.dup && got.contains(&one)) {
                                    got.push(one);
                                }
                            }
                            Ok(Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_))) => {
                                noted.done.fetch_add(1, SeqCst);
                            }
                            Ok(_) => {}
                            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                        }
                    }
                });
                (client, seen, Looped(looped))
            }

            fn qos(number: usize) -> QoS {
                [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][number]
            }

            async fn publish(
                client: &AsyncClient,
                topic: &str,
                number: usize,
                values: Vec<String>,
            ) -> Outcome {
                for value in values {
                    client.publish(topic, qos(number), false, value.into_bytes()).await?;
                }
                Ok(())
            }

            async fn subscribe(client: &AsyncClient, filter: &str, number: usize) -> Outcome {
                client.subscribe(filter, qos(number)).await?;
                // Nothing tells of its answer but the loop: what is published next is behind it.
                tokio::time::sleep(Duration::from_millis(300)).await;
                Ok(())
            }

            pub async fn there_and_back(kafka: &str, host: &str) -> Outcome {
                for number in 0..3 {
                    let topic = format!("rumqttc/{}/{number}", $number);
                    let (reader, got, _reads) = connect(host, "rumqttc-r", false);
                    subscribe(&reader, &format!("rumqttc/{}/+", $number), number).await?;
                    let (writer, _, _writes) = connect(host, "rumqttc-w", false);
                    publish(&writer, &topic, number, numbers(0, COUNT)).await?;
                    until(|| got.of(&topic).len() >= COUNT, &topic).await?;
                    same(&topic, &got.of(&topic), &numbers(0, COUNT))?;
                    same("records", &stored(kafka, "mqtt", &topic).await?, &numbers(0, COUNT))?;
                }
                Ok(())
            }

            /// With QoS 1: of QoS 2 it forgets over a connection's end which identifiers it has, and closes the next one for the PUBREL
            /// that it is owed (§4.4).
            pub async fn kill(kafka: &str, host: &str) -> Outcome {
                let topic = format!("rumqttc/kill/{}", $number);
                let (reader, got, _reads) = connect(host, &format!("r-{topic}"), true);
                subscribe(&reader, &topic, 1).await?;
                let (writer, sent, _writes) = connect(host, &format!("w-{topic}"), true);
                publish(&writer, &topic, 1, numbers(0, 100)).await?;
                until(|| got.of(&topic).len() >= 100, "what is before the kill").await?;
                publish(&writer, &topic, 1, numbers(100, 140)).await?;
                // Both come back by themselves.
                tokio::task::spawn_blocking(|| ask("restart kill")).await??;
                publish(&writer, &topic, 1, numbers(140, COUNT)).await?;
                until(|| sent.done.load(SeqCst) >= COUNT, "the end of all messages").await?;
                until(|| each(got.of(&topic)).len() >= COUNT, "what is behind the kill").await?;
                same(&topic, &each(got.of(&topic)), &numbers(0, COUNT))?;
                let records = stored(kafka, "mqtt", &topic).await?;
                same("records", &each(records), &numbers(0, COUNT))
            }

            pub async fn kafka_topics(kafka: &str, host: &str) -> Outcome {
                let topic = format!("rumqttc-orders-{}", $number);
                let (name, filter) = (format!("$kafka/{topic}/7"), format!("$kafka/{topic}/#"));
                let (writer, _, _writes) = connect(host, "rumqttc-w", false);
                let (reader, got, _reads) = connect(host, "rumqttc-r", false);
                subscribe(&reader, &filter, 1).await?;
                publish(&writer, &name, 1, numbers(0, 10)).await?;
                until(|| got.of(&name).len() >= 10, &name).await?;
                same(&name, &got.of(&name), &numbers(0, 10))?;
                same("records", &stored(kafka, &topic, "7").await?, &numbers(0, 10))
            }
        }
    };
}

version!(
    old,
    "4",
    [use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};],
    |options, is_kept| {
        options.set_clean_session(!is_kept);
    }
);
version!(
    new,
    "5",
    [
        use rumqttc::v5::mqttbytes::QoS;
        use rumqttc::v5::mqttbytes::v5::Packet;
        use rumqttc::v5::{AsyncClient, Event, MqttOptions};
    ],
    |options, is_kept| {
        options.set_clean_start(!is_kept);
        options.set_session_expiry_interval(is_kept.then_some(300));
    }
);

/// The values of a Kafka topic's records with this key, in order.
async fn stored(kafka: &str, topic: &str, key: &str) -> Result<Vec<String>, Failure> {
    let client = ClientBuilder::new(vec![kafka.to_owned()]).build().await?;
    let topics = client.list_topics().await?;
    let found = topics.iter().find(|it| it.name == topic);
    let found = found.ok_or("the topic is not there")?;
    let mut values = Vec::new();
    for partition in &found.partitions {
        let of = client
            .partition_client(topic, *partition, UnknownTopicHandling::Retry)
            .await?;
        let end = of.get_offset(OffsetAt::Latest).await?;
        let mut next = 0;
        while next < end {
            let (records, _) = of.fetch_records(next, 1..1_000_000, 1000).await?;
            for found in records {
                next = found.offset + 1;
                if found.record.key.as_deref() == Some(key.as_bytes()) {
                    let value = found.record.value.unwrap_or_default();
                    values.push(String::from_utf8(value)?);
                }
            }
        }
    }
    Ok(values)
}

#[tokio::main]
async fn main() -> ExitCode {
    let kafka = std::env::args().nth(1).expect("where Kafka listens");
    let host = ask("mqtt").expect("the runner answers");
    let (kafka, host) = (kafka.as_str(), host.as_str());
    let outcomes = [
        ("3.1.1", old::there_and_back(kafka, host).await),
        ("5", new::there_and_back(kafka, host).await),
        ("3.1.1 kill", old::kill(kafka, host).await),
        ("5 kill", new::kill(kafka, host).await),
        ("3.1.1 kafka topics", old::kafka_topics(kafka, host).await),
        ("5 kafka topics", new::kafka_topics(kafka, host).await),
    ];
    let mut code = ExitCode::SUCCESS;
    for (name, outcome) in outcomes {
        match outcome {
            Ok(()) => println!("@pass {name}"),
            Err(error) => {
                let error = error.to_string();
                let words: Vec<&str> = error.split_whitespace().collect();
                println!("@fail {name}: {}", words.join(" "));
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
