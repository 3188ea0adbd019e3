"""confluent-kafka (librdkafka) against a broker: the same program for every version of it."""

import sys
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from desk import Record, ask, check, records, run, same, until

BROKER = sys.argv[1]
ADMIN = AdminClient({"bootstrap.servers": BROKER})


def create_topic(name, partitions=1, config=None):
    [future] = ADMIN.create_topics([NewTopic(name, partitions, 1, config=config or {})]).values()
    future.result(20)


def producer(**settings):
    return Producer({"bootstrap.servers": BROKER, "linger.ms": 50,
                     **{name.replace("_", "."): value for name, value in settings.items()}})


def send(to, topic, batch, partition=0):
    errors = []
    for record in batch:
        to.produce(topic, record.value, record.key, partition, headers=record.headers,
                   timestamp=record.timestamp,
                   on_delivery=lambda error, _: error and errors.append(error))
    check(to.flush(40) == 0, "records are left in the queue")
    check(not errors, f"not delivered: {errors[:3]}")


def consumer(group, **settings):
    return Consumer({"bootstrap.servers": BROKER, "group.id": group, "enable.auto.commit": False,
                     "auto.offset.reset": "earliest", "session.timeout.ms": 15000,
                     "heartbeat.interval.ms": 500,
                     **{name.replace("_", "."): value for name, value in settings.items()}})


def next_records(source, count, seconds=40):
    got = []

    def poll():
        message = source.poll(0.5)
        if message is None:
            return False
        if message.error():
            # The broker may be away for a moment; the client tells and goes on.
            print("consumer:", message.error(), flush=True)
            return False
        got.append(Record(message.key(), message.value(), message.headers() or [],
                          message.timestamp()[1]))
        return len(got) == count

    until(poll, seconds, f"{count} records, have {len(got)}")
    return got


def create():
    create_topic("created", 4, {"retention.ms": "7200000"})
    topic = ADMIN.list_topics("created", 20).topics["created"]
    check(len(topic.partitions) == 4, f"{len(topic.partitions)} partitions")
    resource = ConfigResource(ConfigResource.Type.TOPIC, "created")
    [future] = ADMIN.describe_configs([resource]).values()
    value = future.result(20)["retention.ms"].value
    check(value == "7200000", f"retention.ms is {value}")
    try:
        create_topic("created")
        check(False, "a topic can be created twice")
    except KafkaException as error:
        check(error.args[0].name() == "TOPIC_ALREADY_EXISTS", str(error))


def codec(name):
    def scenario():
        topic = f"codec-{name}"
        create_topic(topic)
        sent = records(300)
        send(producer(compression_type=name), topic, sent)
        ask("codec", topic, 0, name)
        reader = consumer("none")
        reader.assign([TopicPartition(topic, 0, 0)])
        same(next_records(reader, len(sent)), sent)
        reader.close()
    return f"codec {name}", scenario


def seek_by_time():
    create_topic("seek")
    sent = records(100)
    send(producer(), "seek", sent)
    reader = consumer("none")
    for wanted, at in [(sent[0].timestamp - 1, 0), (sent[41].timestamp + 1, 42), (sent[99].timestamp, 99)]:
        [found] = reader.offsets_for_times([TopicPartition("seek", 0, wanted)], 20)
        check(found.offset == at, f"{wanted} is at {found.offset}, not {at}")
        reader.assign([found])
        same(next_records(reader, 1), [sent[at]])
        reader.unassign()
    [found] = reader.offsets_for_times([TopicPartition("seek", 0, sent[99].timestamp + 1)], 20)
    check(found.offset == -1, f"past the end is {found.offset}")
    reader.close()


def idempotent():
    create_topic("idempotent")
    sent = records(500)
    send(producer(enable_idempotence=True, batch_num_messages=20), "idempotent", sent)
    ask("idempotent", "idempotent", 0)
    reader = consumer("none")
    reader.assign([TopicPartition("idempotent", 0, 0)])
    same(next_records(reader, len(sent)), sent)
    reader.close()


def transactions():
    """Refused at once and for good; Apache Kafka begins them."""
    started = time.monotonic()
    to = producer(transactional_id="none-here")
    try:
        to.init_transactions(60)
    except KafkaException as error:
        told = error.args[0]
        check(told.name() == "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", told)
        check(told.fatal() or not told.retriable(), f"not final: {told}")
        check(time.monotonic() - started < 15, "it took too long")


def group():
    create_topic("group", 4)
    first, second = consumer("pair"), consumer("pair")
    first.subscribe(["group"])
    second.subscribe(["group"])
    got = []

    def poll(members):
        for member in members:
            message = member.poll(0.1)
            if message is not None and not message.error():
                got.append(message.value())

    def balanced():
        poll([first, second])
        return len(first.assignment()) == len(second.assignment()) == 2

    until(balanced, 40, "two members with two partitions each")
    check(not {p.partition for p in first.assignment()} & {p.partition for p in second.assignment()},
          "a partition has two owners")
    sent = [Record(None, b"%d" % i, [], 1_700_000_000_000 + i) for i in range(40)]
    to = producer()
    for partition in range(4):
        send(to, "group", sent[partition::4], partition)

    def read():
        poll([first, second])
        return len(got) >= 40

    until(read, 40, "40 records in the group")
    check(sorted(got) == sorted(record.value for record in sent), "other records than were sent")
    first.commit(asynchronous=False)
    second.commit(asynchronous=False)
    second.close()

    def taken_over():
        poll([first])
        return len(first.assignment()) == 4

    until(taken_over, 40, "the one that is left takes over")
    committed = first.committed([TopicPartition("group", p) for p in range(4)], 20)
    check([p.offset for p in committed] == [10] * 4, f"committed {committed}")
    check(len(got) == 40, "records came twice after the rebalance")
    first.close()


def restart():
    create_topic("restart")
    sent = records(150)
    to, reader = producer(acks="all"), consumer("lasting", session_timeout_ms=6000)
    reader.subscribe(["restart"])
    send(to, "restart", sent[:50])
    same(next_records(reader, 50), sent[:50])
    reader.commit(asynchronous=False)
    ask("restart", "term")
    send(to, "restart", sent[50:100])
    same(next_records(reader, 50), sent[50:100])
    until(lambda: committed(reader), 40, "a commit after the restart")
    ask("restart", "kill")
    send(to, "restart", sent[100:])
    reader.close()
    later = consumer("lasting", session_timeout_ms=6000)
    later.subscribe(["restart"])
    same(next_records(later, 50), sent[100:])
    later.assign([TopicPartition("restart", 0, 0)])
    same(next_records(later, 150), sent)
    later.close()


def registry():
    """A compacted topic as a registry of schemas: the latest of each subject is left, and who starts over reads that."""
    create_topic("registry", 1, {
        "cleanup.policy": "compact", "segment.ms": "200", "max.compaction.lag.ms": "500",
        "min.cleanable.dirty.ratio": "0.01", "delete.retention.ms": "0"})
    to = producer(acks="all", linger_ms="0")

    def now():
        return int(time.time() * 1000)

    def put(pairs):
        send(to, "registry", [Record(key.encode(), value and value.encode(), [], now()) for key, value in pairs])

    for version in range(5):
        put([(f"subject-{n}", f"schema {version} of {n}") for n in range(40)])
        time.sleep(0.25)
    put([(f"subject-{n}", None) for n in range(10)])
    expected = {f"subject-{n}": f"schema 4 of {n}" for n in range(10, 40)}
    refused = []
    to.produce("registry", b"keyless", on_delivery=lambda error, _: refused.append(error))
    to.flush(40)
    check(refused[0] is not None and refused[0].name() == "INVALID_RECORD", f"without a key: {refused}")

    def whole():
        """All that a reader who starts over is given."""
        reader = consumer("none")
        partition = TopicPartition("registry", 0, 0)
        _, end = reader.get_watermark_offsets(partition, 20)
        reader.assign([partition])
        got, deadline = [], time.monotonic() + 40
        while reader.position([partition])[0].offset < end:
            check(time.monotonic() < deadline, f"the end at {end} is not reached")
            message = reader.poll(0.5)
            if message is not None and not message.error():
                value = message.value()
                got.append((message.key().decode(), value and value.decode()))
        reader.close()
        return got

    def compacted():
        time.sleep(0.25)
        put([("tick", str(now()))])
        subjects = [pair for pair in whole() if pair[0] != "tick"]
        check(set(expected.items()) <= set(subjects), f"a schema is missing: {subjects}")
        return len(subjects) == len(expected)

    until(compacted, 60, "the latest of each subject alone")
    ask("restart", "kill")
    subjects = [pair for pair in whole() if pair[0] != "tick"]
    check(len(subjects) == len(expected) and dict(subjects) == expected, f"after the restart: {subjects}")


def committed(reader):
    try:
        reader.commit(asynchronous=False)
        return True
    except KafkaException as error:
        print("commit:", error, flush=True)
        reader.poll(0.2)
        return False

def secured_settings():
    """What a client of the encrypted listeners is given: (SASL_SSL, SSL), each with its address."""
    sasl_ssl, ssl, directory = ask("secured").split()
    trust = {"ssl.ca.location": f"{directory}/ca.pem"}
    return ({"bootstrap.servers": sasl_ssl, "security.protocol": "SASL_SSL", **trust},
            {"bootstrap.servers": ssl, "security.protocol": "SSL", **trust,
             "ssl.certificate.location": f"{directory}/client.crt", "ssl.key.location": f"{directory}/client.key"})


def round_trip(topic, user, settings):
    """Sends, reads back in a group, and asks whom the broker takes the connections for."""
    admin = AdminClient(settings)
    [future] = admin.create_topics([NewTopic(topic, 1, 1)]).values()
    future.result(20)
    sent = records(50)
    to = Producer(settings)
    send(to, topic, sent)
    reader = Consumer({**settings, "group.id": topic, "auto.offset.reset": "earliest"})
    reader.subscribe([topic])
    same(next_records(reader, len(sent)), sent)
    ask("caller", user)
    reader.close()


def refused(settings, why):
    errors = []
    admin = AdminClient({**settings, "error_cb": lambda error: errors.append(error.name())})
    try:
        admin.list_topics(timeout=5)
        check(False, "let in")
    except KafkaException:
        until(lambda: admin.poll(0.1) or why in errors, 10, f"{why}, but {errors}")


def sasl_ssl():
    settings, _ = secured_settings()
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]:
        login = {**settings, "sasl.mechanisms": mechanism, "sasl.username": "alice",
                 "sasl.password": "correct horse battery"}
        round_trip(f"secured-{mechanism}", "User:alice", login)
        refused({**login, "sasl.password": "wrong"}, "_AUTHENTICATION")


def mutual_tls():
    _, settings = secured_settings()
    round_trip("secured-by-certificate", "User:CN=press4", settings)
    trusting_others = {**settings, "ssl.ca.location": settings["ssl.certificate.location"]}
    refused(trusting_others, "_SSL")


run([("create", create), codec("none"), codec("gzip"), codec("snappy"), codec("lz4"), codec("zstd"),
     ("seek by time", seek_by_time), ("idempotent", idempotent), ("transactions", transactions), ("group", group), ("restart", restart),
     ("SASL_SSL", sasl_ssl), ("mTLS", mutual_tls), ("registry", registry)])
