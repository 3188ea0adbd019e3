//! rskafka against a broker. It has no groups and no idempotent producer.

use chrono::{DateTime, Utc};
use rskafka::client::partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use rskafka::record::{Record, RecordAndOffset};
use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::time::Duration;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn check(holds: bool, why: impl Into<String>) -> Outcome {
    if holds {
        Ok(())
    } else {
        Err(why.into().into())
    }
}

/// Asks the matrix runner (proof/src/compat/session.rs); anything but its ok is an error.
fn ask(request: &str) -> Outcome {
    println!("@{request}");
    std::io::stdout().flush()?;
    let mut reply = String::new();
    std::io::stdin().lock().read_line(&mut reply)?;
    check(reply.trim() == "ok", format!("{request}: {reply}"))
}

fn time(milliseconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(milliseconds).expect("times here are near")
}

fn records(count: i64) -> Vec<Record> {
    (0..count)
        .map(|i| Record {
            key: (i % 7 != 3).then(|| format!("device-{} ", i % 5).repeat(10).into_bytes()),
            value: (i % 11 != 5).then(|| {
                format!("reading {i} ")
                    .repeat(9 + i as usize % 13)
                    .into_bytes()
            }),
            headers: BTreeMap::from([("n".to_string(), i.to_string().into_bytes())]),
            timestamp: time(1_700_000_000_000 + i * 1000),
        })
        .collect()
}

async fn create_topic(
    client: &Client,
    name: &str,
) -> Result<PartitionClient, Box<dyn std::error::Error>> {
    client
        .controller_client()?
        .create_topic(name, 1, 1, 5000)
        .await?;
    Ok(client
        .partition_client(name, 0, UnknownTopicHandling::Retry)
        .await?)
}

async fn read(
    from: &PartitionClient,
    mut offset: i64,
    count: usize,
) -> Result<Vec<RecordAndOffset>, Box<dyn std::error::Error>> {
    let mut got = Vec::new();
    while got.len() < count {
        let (records, _) = from.fetch_records(offset, 1..1_000_000, 1000).await?;
        if let Some(last) = records.last() {
            offset = last.offset + 1;
        }
        got.extend(records);
    }
    Ok(got)
}

fn same(got: &[RecordAndOffset], sent: &[Record]) -> Outcome {
    check(
        got.len() == sent.len(),
        format!("{} records, not {}", got.len(), sent.len()),
    )?;
    for (at, (left, right)) in got.iter().zip(sent).enumerate() {
        check(
            left.record == *right,
            format!("record {at} is {left:?}, not {right:?}"),
        )?;
    }
    Ok(())
}

async fn create(client: &Client) -> Outcome {
    client
        .controller_client()?
        .create_topic("created", 4, 1, 5000)
        .await?;
    let topics = client.list_topics().await?;
    let topic = topics
        .iter()
        .find(|topic| topic.name == "created")
        .ok_or("the topic is not listed")?;
    check(
        topic.partitions.len() == 4,
        format!("{} partitions", topic.partitions.len()),
    )?;
    let again = client
        .controller_client()?
        .create_topic("created", 1, 1, 5000)
        .await;
    check(again.is_err(), "a topic can be created twice")
}

async fn codec(client: &Client, name: &str, compression: Compression) -> Outcome {
    let topic = format!("codec-{name}");
    let partition = create_topic(client, &topic).await?;
    let sent = records(300);
    let offsets = partition.produce(sent.clone(), compression).await?;
    check(
        offsets == (0..300).collect::<Vec<i64>>(),
        format!("produced at {offsets:?}"),
    )?;
    ask(&format!("codec {topic} 0 {name}"))?;
    same(&read(&partition, 0, sent.len()).await?, &sent)
}

async fn seek_by_time(client: &Client) -> Outcome {
    let partition = create_topic(client, "seek").await?;
    let sent = records(100);
    partition
        .produce(sent.clone(), Compression::default())
        .await?;
    for (milliseconds, wanted) in [(-1, 0), (41_001, 42), (99_000, 99), (99_001, -1)] {
        let at = time(1_700_000_000_000 + milliseconds);
        let offset = partition.get_offset(OffsetAt::Timestamp(at)).await?;
        check(
            offset == wanted,
            format!("{at} is at {offset}, not {wanted}"),
        )?;
    }
    // Whole batches come back: a fetch in the middle of one starts at its beginning.
    let got = read(&partition, 42, 58).await?;
    let got: Vec<_> = got
        .into_iter()
        .filter(|record| record.offset >= 42)
        .collect();
    same(&got, &sent[42..])
}

async fn delete_records(client: &Client) -> Outcome {
    let partition = create_topic(client, "deleted").await?;
    for record in records(20) {
        partition
            .produce(vec![record], Compression::default())
            .await?;
    }
    partition.delete_records(7, 5000).await?;
    let earliest = partition.get_offset(OffsetAt::Earliest).await?;
    check(earliest == 7, format!("the log starts at {earliest}"))?;
    check(
        partition.fetch_records(3, 1..1000, 100).await.is_err(),
        "a deleted offset can be read",
    )
}

async fn restart(client: &Client) -> Outcome {
    let partition = create_topic(client, "restart").await?;
    let sent = records(150);
    for (round, how) in ["term", "kill", ""].into_iter().enumerate() {
        let part = &sent[round * 50..(round + 1) * 50];
        partition
            .produce(part.to_vec(), Compression::default())
            .await?;
        if !how.is_empty() {
            ask(&format!("restart {how}"))?;
        }
        same(&read(&partition, round as i64 * 50, 50).await?, part)?;
    }
    same(&read(&partition, 0, 150).await?, &sent)
}

/// Runs a scenario to its end or for a minute: the client itself never gives up.
async fn report(name: &str, scenario: impl Future<Output = Outcome>) -> bool {
    let outcome = match tokio::time::timeout(Duration::from_secs(60), scenario).await {
        Ok(outcome) => outcome,
        Err(_) => Err("not within 60 s".into()),
    };
    match &outcome {
        Ok(()) => println!("@pass {name}"),
        Err(error) => println!("@fail {name}: {}", error.to_string().replace('\n', " ")),
    }
    outcome.is_ok()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let broker = std::env::args().nth(1).expect("the broker's address");
    let client = ClientBuilder::new(vec![broker])
        .build()
        .await
        .expect("the broker answers");
    let mut passed = report("create", create(&client)).await;
    for (name, compression) in [
        ("none", Compression::NoCompression),
        ("gzip", Compression::Gzip),
        ("snappy", Compression::Snappy),
        ("lz4", Compression::Lz4),
        ("zstd", Compression::Zstd),
    ] {
        passed &= report(&format!("codec {name}"), codec(&client, name, compression)).await;
    }
    passed &= report("seek by time", seek_by_time(&client)).await;
    passed &= report("delete records", delete_records(&client)).await;
    passed &= report("restart", restart(&client)).await;
    if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
