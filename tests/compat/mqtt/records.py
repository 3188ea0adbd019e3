"""What messages became: the records of the topic `mqtt`, by a consumer of the Kafka protocol."""

from confluent_kafka import Consumer, TopicPartition

from desk import check


def stored_by(address):
    """A function that gives the records of an MQTT topic: values, and headers."""

    def stored(topic):
        # A fetch that waits for the partition before would hold up the next one.
        consumer = Consumer({"bootstrap.servers": address, "group.id": "reader", "enable.auto.commit": False, "fetch.wait.max.ms": 10})
        partitions = consumer.list_topics("mqtt", timeout=30).topics["mqtt"].partitions
        found = []
        for number in partitions:
            partition = TopicPartition("mqtt", number, 0)
            _, end = consumer.get_watermark_offsets(partition, timeout=30)
            consumer.assign([partition])
            at = 0
            while at < end:
                message = consumer.poll(10)
                check(message is not None and not message.error(), f"partition {number} at {at} of {end}: {message}")
                at = message.offset() + 1
                if message.key() == topic.encode():
                    found.append((message.value().decode(), dict(message.headers() or [])))
        consumer.close()
        return found

    return stored
