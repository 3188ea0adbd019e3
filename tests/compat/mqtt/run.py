"""MQTT clients against a broker: mosquitto's tools and paho's library, and Kafka's consumers and producers on the other side."""

import subprocess
import sys
import threading
import urllib.request

import paho.mqtt.client as paho
from confluent_kafka import Producer
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from desk import ask, check, run, until
from records import stored_by

KAFKA = sys.argv[1]
VERSIONS = {"mqttv311": MQTTProtocolVersion.MQTTv311, "mqttv5": MQTTProtocolVersion.MQTTv5}


stored = stored_by(KAFKA)

# It stays the same over restarts. Asked once: a scenario's threads would take each other's answers.
HOST, PORT = ask("mqtt").rsplit(":", 1)


def mosquitto(tool, version, *words, stdin=None):
    command = [f"mosquitto_{tool}", "-h", HOST, "-p", PORT, "-V", version, *words]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=60)
    check(done.returncode == 0, f"{' '.join(command)}: {done.returncode} {done.stderr.decode()}")
    return done.stdout.decode()


class Client:
    """A client of paho's that keeps what it is given."""

    def __init__(self, name, version, address=(HOST, PORT), **words):
        self.client = paho.Client(CallbackAPIVersion.VERSION2, name, protocol=VERSIONS[version], **words)
        self.got, self.subscribed = [], threading.Event()
        self.client.on_message = lambda _client, _data, message: self.got.append(message)
        self.client.on_subscribe = lambda *_: self.subscribed.set()
        self.client.connect(address[0], int(address[1]))
        self.client.loop_start()
        until(self.client.is_connected, 30, f"{name} is connected")

    def subscribe(self, *words, **named):
        self.subscribed.clear()
        self.client.subscribe(*words, **named)
        check(self.subscribed.wait(30), "no SUBACK")

    def publish(self, topic, payload, qos, properties=None):
        told = self.client.publish(topic, payload, qos, properties=properties)
        told.wait_for_publish(30)
        check(told.is_published(), f"{topic} {payload} is not acknowledged")

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


def with_mosquitto():
    for version in VERSIONS:
        topic = f"tools/{version}"
        reader = threading.Thread(target=lambda: got.append(
            mosquitto("sub", version, "-t", "tools/#", "-q", "2", "-v", "-C", "4", "-i", f"reader-{version}")))
        got = []
        reader.start()
        until(lambda: b"alluvium_mqtt_subscriptions 1\n" in metrics(), 30, "a subscription")
        for qos in "012":
            mosquitto("pub", version, "-t", topic, "-m", f"at {qos}", "-q", qos)
        mosquitto("pub", version, "-t", topic, "-l", "-q", "1", stdin=b"a line\n")
        reader.join(60)
        wanted = ["at 0", "at 1", "at 2", "a line"]
        check(got == ["".join(f"{topic} {value}\n" for value in wanted)], f"{version}: {got}")
        check([value for value, _ in stored(topic)] == wanted, f"{version}: {stored(topic)}")


def metrics():
    straight = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with straight.open(f"http://{ask('http')}/metrics", timeout=30) as answer:
        return answer.read()


def with_paho():
    for version in VERSIONS:
        reader, writer = Client(f"r-{version}", version), Client(f"w-{version}", version)
        for qos in range(3):
            topic = f"paho/{version}/{qos}"
            reader.subscribe(f"paho/{version}/+", qos)
            reader.got.clear()
            values = [f"{number}" for number in range(300)]
            told = [writer.client.publish(topic, value, qos) for value in values]
            for one in told:
                one.wait_for_publish(60)
            until(lambda: len(reader.got) >= 300, 60, f"300 messages of QoS {qos}, not {len(reader.got)}")
            check([it.payload.decode() for it in reader.got] == values, f"order at QoS {qos}")
            check({it.qos for it in reader.got} == {qos}, f"QoS {qos}")
            check([value for value, _ in stored(topic)] == values, f"records at QoS {qos}")
        reader.close()
        writer.close()


def to_and_from_kafka():
    reader, writer = Client("both-r", "mqttv5"), Client("both-w", "mqttv5")
    reader.subscribe("both/#", 1)
    said = Properties(PacketTypes.PUBLISH)
    said.ContentType = "text/plain"
    said.UserProperty = [("unit", "K"), ("unit", "C")]
    writer.publish("both/1", "21.5", 1, said)
    [(value, headers)] = stored("both/1")
    check(value == "21.5" and headers["mqtt.client"] == b"both-w", f"{value} {headers}")
    check(headers["mqtt.content-type"] == b"text/plain" and headers["unit"] == b"C", f"{headers}")
    producer = Producer({"bootstrap.servers": KAFKA, "partitioner": "murmur2_random"})
    producer.produce("mqtt", key="both/2", value="from Kafka", headers=[("unit", b"V")])
    check(producer.flush(30) == 0, "a record is not acknowledged")
    until(lambda: len(reader.got) == 2, 30, f"two messages, not {reader.got}")
    first, second = reader.got
    check(first.properties.UserProperty == [("unit", "K"), ("unit", "C")], f"{first.properties}")
    check((second.topic, second.payload) == ("both/2", b"from Kafka"), f"{second.topic}")
    check(second.properties.UserProperty == [("unit", "V")], f"{second.properties}")
    reader.close()
    writer.close()


def history():
    """A subscription that begins in the past, from both versions."""
    for version in VERSIONS:
        writer = Client(f"before-{version}", version)
        values = [str(number) for number in range(50)]
        for value in values:
            writer.publish(f"history/{version}/a", value, 1)
        reader = Client(f"after-{version}", version)
        reader.subscribe(f"$replay/-1h/history/{version}/#", 1)
        until(lambda: len(reader.got) >= 50, 30, f"50 messages, not {len(reader.got)}")
        check([it.payload.decode() for it in reader.got] == values, "what was there before")
        writer.publish(f"history/{version}/b", "live", 1)
        until(lambda: reader.got[-1].payload == b"live", 30, "what comes")
        check(len(reader.got) == 51, f"{len(reader.got)} messages")
        reader.close()
        writer.close()


def over_web_socket():
    """The same library in frames of WebSocket, at /mqtt of the HTTP port."""
    web = {"address": ask("http").rsplit(":", 1), "transport": "websockets"}
    for version in VERSIONS:
        reader, writer = Client(f"web-r-{version}", version, **web), Client(f"web-w-{version}", version, **web)
        # One more on the other port: both are the same broker.
        plain = Client(f"web-p-{version}", version)
        for one in (reader, plain):
            one.subscribe(f"web/{version}/+", 2)
        # From a few bytes to more than a frame has at once.
        values = [f"{qos} {'x' * length}" for qos in range(3) for length in (0, 1, 125, 126, 70_000)]
        for value in values:
            writer.publish(f"web/{version}/a", value, int(value[0]))
        for one in (reader, plain):
            until(lambda: len(one.got) >= len(values), 60, f"{len(values)} messages, not {len(one.got)}")
            check([it.payload.decode() for it in one.got] == values, f"{version}: values and their order")
            check([it.qos for it in one.got] == [int(value[0]) for value in values], f"{version}: QoS")
        check([value for value, _ in stored(f"web/{version}/a")] == values, f"{version}: records")
        for one in (reader, writer, plain):
            one.close()


def over_a_kill():
    """What was acknowledged is there, once for QoS 2 while a connection lasts, and clients go on by themselves."""
    for qos in (1, 2):
        topic, acknowledged = f"kill/{qos}", set()
        writer = Client(f"kill-{qos}", "mqttv311")
        writer.client.reconnect_delay_set(1, 1)
        writer.client.on_publish = lambda _client, _data, mid, *_: acknowledged.add(mid)
        sent = set()
        for number in range(200):
            if number == 100:
                until(lambda: sent <= acknowledged, 60, "acks before the kill")
                ask("restart", "kill")
            # While it is not connected it keeps the message, and says so by an error.
            sent.add(writer.client.publish(topic, str(number), qos).mid)
        until(lambda: sent <= acknowledged, 60, "acks after the kill")
        values = [int(value) for value, _ in stored(topic)]
        check(sorted(set(values)) == list(range(200)), f"QoS {qos}: {len(set(values))} of 200")
        firsts = list(dict.fromkeys(values))
        check(firsts[:100] == list(range(100)), f"QoS {qos}: order before the kill")
        writer.close()


run([
    ("mosquitto", with_mosquitto),
    ("paho", with_paho),
    ("kafka", to_and_from_kafka),
    ("history", history),
    ("websocket", over_web_socket),
    ("kill", over_a_kill),
])
