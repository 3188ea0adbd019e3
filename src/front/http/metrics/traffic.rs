//! What goes in and out by topic, what is refused, and which errors are answered.

use super::Page;
use crate::broker::{Broker, Traffic};
use crate::front::stats::Stats;

pub(super) fn write(page: &mut Page, broker: &Broker, stats: &Stats) {
    type Value = fn(&Traffic) -> u64;
    let families: [(&str, &str, Value); 3] = [
        (
            "alluvium_topic_appended_records_total",
            "Records of the batches that were appended to a topic.",
            Traffic::appended_records,
        ),
        (
            "alluvium_topic_appended_bytes_total",
            "Bytes of the batches that were appended to a topic, as they are stored.",
            Traffic::appended_bytes,
        ),
        (
            "alluvium_topic_fetched_bytes_total",
            "Bytes of the batches of a topic that went to readers.",
            Traffic::fetched_bytes,
        ),
    ];
    let topics = broker.topics();
    for (name, help, value) in families {
        let mut family = page.many_of("counter", name, help, &["topic"]);
        for topic in &topics {
            page.one_of(&mut family, &[topic.name.as_str()], value(&topic.traffic));
        }
        page.close(family);
    }
    page.single(
        "alluvium_appends_refused_total",
        "counter",
        "Batches that were refused, whatever the reason; alluvium_kafka_errors_total has the codes.",
        broker.refused_appends(),
    );
    let name = "alluvium_kafka_errors_total";
    page.family(
        name,
        "counter",
        "Error codes in answers, by API and Kafka's name of the code. Some belong to a client's everyday life.",
    );
    for key in stats.keys() {
        for (code, count) in &key.errors {
            page.sample(name, &[("api", &key.name), ("code", code)], count);
        }
    }
}
