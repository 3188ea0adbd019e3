"""confluent-kafka (librdkafka) as a member of a group under chaos: see python/logbook.py."""

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from logbook import BROKER, GROUP, INSTANCE, LEAVING, REBALANCE_MS, SESSION_MS, TOPIC, commit, say

FENCED = (KafkaError.FENCED_INSTANCE_ID, KafkaError._FENCED, KafkaError._FATAL)

consumer = Consumer({
    "bootstrap.servers": BROKER, "group.id": GROUP, "enable.auto.commit": False, "auto.offset.reset": "earliest",
    "session.timeout.ms": SESSION_MS, "heartbeat.interval.ms": SESSION_MS // 8, "max.poll.interval.ms": REBALANCE_MS,
    "partition.assignment.strategy": "roundrobin,range", "reconnect.backoff.max.ms": 500,
    **({"group.instance.id": INSTANCE} if INSTANCE else {})})


def generation():
    """The client shows its generation only inside what it hands to a producer: "CGMDv2:", then 4 bytes."""
    told = consumer.consumer_group_metadata()
    assert told.startswith(b"CGMDv2:"), told
    return int.from_bytes(told[7:11], "little", signed=True)


def on_assign(_, partitions):
    say("assigned", generation=generation(), partitions=sorted(each.partition for each in partitions))


def on_revoke(_, partitions):
    say("revoked")


def on_lost(_, partitions):
    say("lost")


def work():
    seen, offsets = {}, {}
    for message in consumer.consume(100, 0.2):
        if message.error() is not None:
            raise KafkaException(message.error())
        seen.setdefault(message.partition(), []).append([message.offset(), message.value().decode()])
    for partition, records in seen.items():
        say("seen", partition=partition, records=records)
        offsets[partition] = records[-1][0] + 1
    if not offsets:
        return

    def attempt():
        try:
            consumer.commit(offsets=[TopicPartition(TOPIC, partition, offset) for partition, offset in offsets.items()],
                            asynchronous=False)
        except KafkaException as error:
            if error.args[0].code() in FENCED:
                raise
            return error

    commit(attempt, generation, offsets)


consumer.subscribe([TOPIC], on_assign=on_assign, on_revoke=on_revoke, on_lost=on_lost)
while not LEAVING.is_set():
    try:
        work()
    except KafkaException as error:
        if error.args[0].code() in FENCED:
            say("fenced", why=str(error))
            break
        # The broker may be away; the client goes on with the next poll.
        say("trouble", why=str(error))
consumer.close()
