"""The records of a topic, as Kafka's consumer sees them."""

from confluent_kafka import Consumer, Producer, TopicPartition

from desk import check


def stored_by(kafka):
    """A function from a topic to its records."""

    def stored(topic):
        consumer = Consumer({"bootstrap.servers": kafka, "group.id": "reader", "enable.auto.commit": False})
        try:
            partitions = consumer.list_topics(topic, 30).topics[topic].partitions
            ends = {}
            for partition in partitions:
                low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), 30)
                if high > low:
                    ends[partition] = high
            consumer.assign([TopicPartition(topic, partition, 0) for partition in ends])
            records = []
            while ends:
                record = consumer.poll(30)
                check(record is not None and record.error() is None, f"records of {topic}: {record and record.error()}")
                records.append(record)
                if record.offset() + 1 >= ends[record.partition()]:
                    del ends[record.partition()]
            return records
        finally:
            consumer.close()

    return stored


def produce(kafka, topic, value, headers):
    """One record by Kafka's producer."""
    producer = Producer({"bootstrap.servers": kafka})
    producer.produce(topic, value, headers=headers)
    check(producer.flush(30) == 0, f"{topic} is not acknowledged")
