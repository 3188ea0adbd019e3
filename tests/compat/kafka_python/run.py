"""kafka-python against a broker."""

import sys
import threading
import time

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewTopic
from kafka.errors import KafkaError, TopicAlreadyExistsError, TransactionalIdAuthorizationFailedError
from kafka.structs import OffsetAndMetadata

from desk import Record, ask, check, records, run, same, until

BROKER = sys.argv[1]
# kafka-python 3.0.12 forgets a subscription that is made while an answer to an earlier request for metadata arrives, until the
# metadata is too old: 5 minutes unless it is told otherwise.
METADATA_MS = 2000
ADMIN = KafkaAdminClient(bootstrap_servers=BROKER)


def create_topic(name, partitions=1, config=None):
    ADMIN.create_topics([NewTopic(name, partitions, 1, topic_configs=config or {})])


def producer(**settings):
    return KafkaProducer(bootstrap_servers=BROKER, linger_ms=50, **settings)


def send(to, topic, batch, partition=0):
    sent = [to.send(topic, record.value, record.key, record.headers, partition, record.timestamp)
            for record in batch]
    to.flush(40)
    for future in sent:
        future.get(40)


def consumer(group=None, session_ms=15000):
    return KafkaConsumer(bootstrap_servers=BROKER, group_id=group, enable_auto_commit=False,
                         auto_offset_reset="earliest", session_timeout_ms=session_ms,
                         heartbeat_interval_ms=500, metadata_max_age_ms=METADATA_MS)


def next_records(source, count, seconds=40):
    got = []

    def poll():
        for messages in source.poll(500, max_records=count - len(got)).values():
            got.extend(Record(m.key, m.value, list(m.headers), m.timestamp) for m in messages)
        return len(got) >= count

    until(poll, seconds, f"{count} records, have {len(got)}")
    return got


def create():
    create_topic("created", 4, {"retention.ms": "7200000"})
    [topic] = ADMIN.describe_topics(["created"])
    check(len(topic["partitions"]) == 4, f"{len(topic['partitions'])} partitions")
    described = ADMIN.describe_configs([ConfigResource(ConfigResourceType.TOPIC, "created")])
    check("7200000" in str(described), str(described))
    try:
        create_topic("created")
        check(False, "a topic can be created twice")
    except TopicAlreadyExistsError:
        pass


def codec(name):
    def scenario():
        topic = f"codec-{name}"
        create_topic(topic)
        sent = records(300)
        to = producer(compression_type=None if name == "none" else name)
        send(to, topic, sent)
        to.close()
        ask("codec", topic, 0, name)
        reader = consumer()
        reader.assign([TopicPartition(topic, 0)])
        same(next_records(reader, len(sent)), sent)
        reader.close()
    return f"codec {name}", scenario


def seek_by_time():
    create_topic("seek")
    sent = records(100)
    to = producer()
    send(to, "seek", sent)
    to.close()
    reader, partition = consumer(), TopicPartition("seek", 0)
    reader.assign([partition])
    for wanted, at in [(sent[0].timestamp - 1, 0), (sent[41].timestamp + 1, 42), (sent[99].timestamp, 99)]:
        found = reader.offsets_for_times({partition: wanted})[partition]
        check((found.offset, found.timestamp) == (at, sent[at].timestamp), f"{wanted} is at {found}")
        reader.seek(partition, found.offset)
        same(next_records(reader, 1), [sent[at]])
    found = reader.offsets_for_times({partition: sent[99].timestamp + 1})[partition]
    check(found is None, f"past the end is {found}")
    reader.close()


def idempotent():
    create_topic("idempotent")
    sent = records(500)
    to = producer(enable_idempotence=True, batch_size=2000)
    send(to, "idempotent", sent)
    to.close()
    ask("idempotent", "idempotent", 0)
    reader = consumer()
    reader.assign([TopicPartition("idempotent", 0)])
    same(next_records(reader, len(sent)), sent)
    reader.close()


def transactions():
    """Refused at once and for good; Apache Kafka begins them."""
    started = time.monotonic()
    to = producer(transactional_id="none-here")
    try:
        to.init_transactions()
    except TransactionalIdAuthorizationFailedError:
        check(time.monotonic() - started < 15, "it took too long")
    to.close(timeout=5)


class Member:
    """A consumer that polls in a thread of its own, as the client wants it."""

    def __init__(self, group, topic):
        self.consumer = consumer(group)
        self.consumer.subscribe([topic])
        self.got, self.owned, self.leave = [], set(), threading.Event()
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def work(self):
        while not self.leave.is_set():
            for messages in self.consumer.poll(200).values():
                self.got.extend(message.value for message in messages)
            self.owned = {partition.partition for partition in self.consumer.assignment()}
        self.consumer.commit()
        self.consumer.close()

    def end(self):
        self.leave.set()
        self.thread.join(20)
        check(not self.thread.is_alive(), "the member does not end")


def group():
    create_topic("group", 4)
    first, second = Member("pair", "group"), Member("pair", "group")

    def waiting(condition):
        return lambda: condition() or first.leave.wait(0.05)

    until(waiting(lambda: len(first.owned) == len(second.owned) == 2 and not first.owned & second.owned),
          40, "two members with two partitions each")
    sent = [Record(None, b"%d" % i, [], 1_700_000_000_000 + i) for i in range(40)]
    to = producer()
    for partition in range(4):
        send(to, "group", sent[partition::4], partition)
    to.close()
    until(waiting(lambda: len(first.got + second.got) >= 40), 40, "40 records in the group")
    check(sorted(first.got + second.got) == sorted(record.value for record in sent), "other records than were sent")
    second.end()
    until(waiting(lambda: len(first.owned) == 4), 40, "the one that is left takes over")
    first.end()
    reader = consumer("pair")
    committed = [reader.committed(TopicPartition("group", p)) for p in range(4)]
    check(committed == [10] * 4, f"committed {committed}")
    reader.close()


def restart():
    create_topic("restart")
    sent = records(150)
    to, reader = producer(acks="all"), consumer("lasting", 6000)
    partition = TopicPartition("restart", 0)
    reader.subscribe(["restart"])
    send(to, "restart", sent[:50])
    same(next_records(reader, 50), sent[:50])
    reader.commit({partition: OffsetAndMetadata(50, "half way", -1)})
    ask("restart", "term")
    send(to, "restart", sent[50:100])
    same(next_records(reader, 50), sent[50:100])
    until(lambda: committed(reader), 40, "a commit after the restart")
    ask("restart", "kill")
    send(to, "restart", sent[100:])
    to.close()
    reader.close()
    later = consumer("lasting", 6000)
    later.subscribe(["restart"])
    same(next_records(later, 50), sent[100:])
    later.close()
    whole = consumer()
    whole.assign([partition])
    same(next_records(whole, 150), sent)
    whole.close()


def committed(reader):
    try:
        reader.commit()
        return True
    except KafkaError as error:
        print("commit:", repr(error), flush=True)
        reader.poll(200)
        return False


def round_trip(topic, user, settings):
    """Sends, reads back in a group, and asks whom the broker takes the connections for."""
    admin = KafkaAdminClient(**settings)
    admin.create_topics([NewTopic(topic, 1, 1)])
    sent = records(50)
    to = KafkaProducer(**settings)
    send(to, topic, sent)
    reader = KafkaConsumer(topic, group_id=topic, auto_offset_reset="earliest", metadata_max_age_ms=METADATA_MS,
                           **settings)
    same(next_records(reader, len(sent)), sent)
    ask("caller", user)
    for client in [admin, to, reader]:
        client.close()


def refused(settings):
    try:
        KafkaAdminClient(**settings, bootstrap_timeout_ms=5000)
    except KafkaError as error:
        print("refused:", error, flush=True)
    else:
        check(False, "let in")


def sasl_ssl():
    address, _, directory = ask("secured").split()
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]:
        login = {"bootstrap_servers": address, "security_protocol": "SASL_SSL", "ssl_cafile": f"{directory}/ca.pem",
                 "sasl_mechanism": mechanism, "sasl_plain_username": "alice",
                 "sasl_plain_password": "correct horse battery"}
        round_trip(f"secured-{mechanism}", "User:alice", login)
        refused({**login, "sasl_plain_password": "wrong"})


def mutual_tls():
    _, address, directory = ask("secured").split()
    settings = {"bootstrap_servers": address, "security_protocol": "SSL", "ssl_cafile": f"{directory}/ca.pem",
                "ssl_certfile": f"{directory}/client.crt", "ssl_keyfile": f"{directory}/client.key"}
    round_trip("secured-by-certificate", "User:CN=press4", settings)
    refused({**settings, "ssl_cafile": settings["ssl_certfile"]})


run([("create", create), codec("none"), codec("gzip"), codec("snappy"), codec("lz4"), codec("zstd"),
     ("seek by time", seek_by_time), ("idempotent", idempotent),
     ("transactions", transactions), ("group", group), ("restart", restart),
     ("SASL_SSL", sasl_ssl), ("mTLS", mutual_tls)])
