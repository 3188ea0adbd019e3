"""Azure's Event Hubs client for Python against the AMQP front, and Kafka's consumer and producer on the other side."""

import sys
import threading
import time

from azure.eventhub import EventData, EventHubConsumerClient, EventHubProducerClient
from azure.eventhub.exceptions import ConnectError, EventHubError
from confluent_kafka.admin import AdminClient, NewTopic

from desk import ask, check, run, until
from records import produce, stored_by

KAFKA = sys.argv[1]
COUNT = 300
MANY = 10_000
PARTITIONS = 3
stored = stored_by(KAFKA)
# What Azure's emulator is reached by: nothing is encrypted. It stays the same over restarts.
CONNECTION = (
    f"Endpoint=sb://{ask('amqp')};SharedAccessKeyName=any;SharedAccessKey=any;UseDevelopmentEmulator=true"
)


def numbers(first, end):
    return [f"m{number}" for number in range(first, end)]


def make(topic):
    # It is kept until it was answered.
    admin = AdminClient({"bootstrap.servers": KAFKA})
    admin.create_topics([NewTopic(topic, PARTITIONS)])[topic].result(30)


def producer(topic):
    return EventHubProducerClient.from_connection_string(CONNECTION, eventhub_name=topic)


def send(client, bodies, **where):
    """As few batches as they go into."""
    batch = client.create_batch(**where)
    for body in bodies:
        try:
            batch.add(EventData(body))
        except ValueError:
            client.send_batch(batch)
            batch = client.create_batch(**where)
            batch.add(EventData(body))
    client.send_batch(batch)


class Reader:
    """A consumer in a thread of its own."""

    def __init__(self, topic, group="$Default", **how):
        self.client = EventHubConsumerClient.from_connection_string(
            CONNECTION, consumer_group=group, eventhub_name=topic, load_balancing_interval=1
        )
        self.events, self.errors = [], []
        self.thread = threading.Thread(target=self.receive, kwargs=how, daemon=True)
        self.thread.start()

    def receive(self, **how):
        # One at a time it takes a pause at each partition that has none for each.
        self.client.receive_batch(
            on_event_batch=lambda context, events: self.events.extend((context.partition_id, it) for it in events),
            on_error=lambda context, error: self.errors.append(error),
            **how,
        )

    def bodies(self):
        return [event.body_as_str() for _, event in list(self.events)]

    def close(self):
        self.client.close()
        self.thread.join(30)
        check(not self.thread.is_alive(), "the consumer ends")


def read(topic, count, **how):
    """What a consumer gets first."""
    reader = Reader(topic, **how)
    try:
        until(lambda: len(reader.events) >= count, 60, f"{count} events of {topic}: {reader.errors}")
        return list(reader.events)
    finally:
        reader.close()


def bodies_of(events):
    return [event.body_as_str() for _, event in events]


def properties():
    make("eh-properties")
    with producer("eh-properties") as client:
        hub = client.get_eventhub_properties()
        check(hub["eventhub_name"] == "eh-properties", f"{hub}")
        check(hub["partition_ids"] == ["0", "1", "2"], f"{hub}")
        send(client, numbers(0, 5), partition_id="1")
        found = client.get_partition_properties("1")
        check((found["beginning_sequence_number"], found["last_enqueued_sequence_number"]) == (0, 4), f"{found}")
        check(found["last_enqueued_offset"] == "4" and not found["is_empty"], f"{found}")
        check(abs(found["last_enqueued_time_utc"].timestamp() - time.time()) < 600, f"{found}")
        check(client.get_partition_properties("2")["is_empty"], "nothing was sent there")
    nowhere = EventHubProducerClient.from_connection_string(CONNECTION, eventhub_name="eh-properties", retry_total=0)
    with nowhere as client:
        try:
            client.get_partition_properties("9")
        except ConnectError:
            return
        check(False, "there is no such partition")


def there_and_back():
    make("eh-back")
    with producer("eh-back") as client:
        rich = EventData(b"rich")
        rich.properties = {"unit": "K", "count": 7, "good": True}
        rich.content_type, rich.correlation_id, rich.message_id = "text/plain", "c-1", "m-1"
        client.send_event(rich, partition_id="0")
        send(client, [b"\x00\x01\xff" * 100_000], partition_id="0")
        send(client, numbers(0, COUNT), partition_id="0")
    events = read("eh-back", COUNT + 2, starting_position="-1")
    first = events[0][1]
    said = {
        (name.decode() if isinstance(name, bytes) else name): value for name, value in first.properties.items()
    }
    check(said == {"unit": b"K", "count": 7, "good": True}, f"{said}")
    check((first.content_type, first.correlation_id, first.message_id) == ("text/plain", "c-1", "m-1"), f"{first}")
    check(b"".join(events[1][1].body) == b"\x00\x01\xff" * 100_000, "a long one")
    check(bodies_of(events[2:]) == numbers(0, COUNT), "in order")
    for at, (partition, event) in enumerate(events):
        check((partition, event.sequence_number, event.offset) == ("0", at, str(at)), f"{at}: {event}")
        check(abs(event.enqueued_time.timestamp() - time.time()) < 600, f"{event.enqueued_time}")
    # It settles nothing that it receives, and goes on all the same.
    with producer("eh-back") as client:
        send(client, numbers(0, MANY), partition_id="1")
    events = read("eh-back", MANY, partition_id="1", starting_position="-1")
    check(bodies_of(events) == numbers(0, MANY), "all of many in order")


def positions():
    make("eh-positions")
    with producer("eh-positions") as client:
        send(client, numbers(0, 10), partition_id="0")
    events = read("eh-positions", 10, partition_id="0", starting_position="-1")
    # Times have milliseconds: what is sent now is later than what was.
    time.sleep(0.05)
    with producer("eh-positions") as client:
        send(client, numbers(10, 20), partition_id="0")
    later = read("eh-positions", 20, partition_id="0", starting_position="-1")[10][1].enqueued_time
    for how, first in [
        ({"starting_position": "4"}, 5),
        ({"starting_position": "4", "starting_position_inclusive": True}, 4),
        ({"starting_position": 11}, 12),
        ({"starting_position": 11, "starting_position_inclusive": True}, 11),
        ({"starting_position": later, "starting_position_inclusive": True}, 10),
        ({"starting_position": events[9][1].enqueued_time}, 10),
    ]:
        found = bodies_of(read("eh-positions", 20 - first, partition_id="0", **how))
        check(found == numbers(first, 20), f"{how}: {found}")
    reader = Reader("eh-positions", partition_id="0", starting_position="@latest")
    with producer("eh-positions") as client:
        # When it is attached nobody is told: what comes later does.
        def sent():
            send(client, ["new"], partition_id="0")
            return until(lambda: reader.events, 1, "an event") if reader.events else time.sleep(0.2)
        until(sent, 60, f"a new one: {reader.errors}")
    reader.close()
    check(set(reader.bodies()) == {"new"}, f"{reader.bodies()}")


def partition_keys():
    make("eh-keys")
    keys = [f"device {number}" for number in range(10)]
    with producer("eh-keys") as client:
        for number in range(20):
            for key in keys:
                send(client, [f"{key}: {number}"], partition_key=key)
    events = read("eh-keys", 200, starting_position="-1")
    places = {}
    for partition, event in events:
        key = event.partition_key.decode() if isinstance(event.partition_key, bytes) else event.partition_key
        places.setdefault(key, []).append((partition, event.body_as_str()))
    check(sorted(places) == sorted(keys), f"{sorted(places)}")
    for key, found in places.items():
        check(len({partition for partition, _ in found}) == 1, f"{key} is in one partition")
        check([body for _, body in found] == [f"{key}: {number}" for number in range(20)], f"{key} in order: {found}")
    check(len({found[0][0] for found in places.values()}) > 1, "keys are spread over partitions")
    of_kafka = {(record.key().decode(), record.partition()) for record in stored("eh-keys")}
    check(of_kafka == {(key, int(found[0][0])) for key, found in places.items()}, f"{of_kafka}")


def owner_level():
    make("eh-owner")
    with producer("eh-owner") as client:
        send(client, ["first"], partition_id="0")
        from_start = {"partition_id": "0", "starting_position": "-1"}
        low = Reader("eh-owner", owner_level=1, **from_start)
        until(lambda: low.events, 60, f"the owner reads: {low.errors}")
        other = Reader("eh-owner", group="other", **from_start)
        high = Reader("eh-owner", owner_level=2, **from_start)
        until(lambda: high.events, 60, f"the new owner reads: {high.errors}")
        until(lambda: low.errors, 60, "the old owner is told")
        check("stolen" in str(low.errors[0]).lower() or "Stolen" in str(low.errors[0]), f"{low.errors[0]}")
        none = Reader("eh-owner", **from_start)
        until(lambda: none.errors, 60, "who has no level is told")
        send(client, ["second"], partition_id="0")
        until(lambda: high.bodies() == ["first", "second"], 60, f"the owner reads on: {high.bodies()}")
        until(lambda: other.bodies() == ["first", "second"], 60, f"and another group: {other.bodies()}")
        check(low.bodies() == ["first"] and not none.events, "nobody else does")
        for reader in [low, none, other, high]:
            reader.close()
    check(not high.errors and not other.errors, f"{high.errors} {other.errors}")


def kafka():
    make("eh-kafka")
    with producer("eh-kafka") as client:
        batch = client.create_batch(partition_key="key")
        for body in numbers(0, COUNT):
            event = EventData(body)
            event.properties = {"unit": "K"}
            batch.add(event)
        client.send_batch(batch)
    records = stored("eh-kafka")
    check([it.value().decode() for it in records] == numbers(0, COUNT), "the values")
    check(all(it.key() == b"key" and ("unit", b"K") in it.headers() for it in records), "key and headers")
    produce(KAFKA, "eh-kafka", b"from kafka", [("unit", b"C")])
    events = read("eh-kafka", COUNT + 1, starting_position="-1")
    found = [event for _, event in events if event.body_as_str() == "from kafka"]
    check(len(found) == 1, f"{len(found)} of Kafka's")
    said = {name.decode() if isinstance(name, bytes) else name: value for name, value in found[0].properties.items()}
    check(said == {"unit": b"C"}, f"{said}")


def kill():
    make("eh-kill")
    reader = Reader("eh-kill", starting_position="-1")
    deadline = time.monotonic() + 120
    client = producer("eh-kill")
    for number in range(COUNT):
        if number in (COUNT // 3, 2 * COUNT // 3):
            ask("restart", "kill")
        while True:
            try:
                send(client, [f"m{number}"], partition_id=str(number % PARTITIONS))
                break
            except (EventHubError, OSError) as error:
                check(time.monotonic() < deadline, f"the broker does not come back: {error}")
                client.close()
                client = producer("eh-kill")
    client.close()
    wanted = set(numbers(0, COUNT))
    until(lambda: set(reader.bodies()) == wanted, 90, "all come, over two kills")
    reader.close()
    records = [it.value().decode() for it in stored("eh-kill")]
    check(set(records) == wanted, "all are stored")


run([
    ("properties", properties),
    ("there and back", there_and_back),
    ("positions", positions),
    ("partition keys", partition_keys),
    ("owner level", owner_level),
    ("kafka", kafka),
    ("kill", kill),
])
