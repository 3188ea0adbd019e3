"""Clients of MQTT that are not built on mosquitto's or need a loop of their own: aiomqtt and gmqtt, both for Python."""

import asyncio
import sys

import aiomqtt
import gmqtt

from desk import ask, check, run
from records import stored_by

stored = stored_by(sys.argv[1])
HOST, PORT = ask("mqtt").rsplit(":", 1)
COUNT = 200
PATIENCE = 60


class Aiomqtt:
    """A connection of aiomqtt's."""

    VERSIONS = {"3.1.1": aiomqtt.ProtocolVersion.V311, "5": aiomqtt.ProtocolVersion.V5}

    def __init__(self, name, version):
        self.client = aiomqtt.Client(HOST, int(PORT), identifier=name, protocol=self.VERSIONS[version])

    async def __aenter__(self):
        await self.client.__aenter__()
        return self

    async def __aexit__(self, *what):
        await self.client.__aexit__(*what)

    async def publish(self, topic, values, qos):
        for value in values:
            await self.client.publish(topic, value, qos=qos)

    async def subscribe(self, topic, qos):
        await self.client.subscribe(topic, qos=qos)

    async def messages(self, count):
        got = []
        async for message in self.client.messages:
            got.append((message.topic.value, message.payload.decode(), message.qos))
            if len(got) == count:
                return got


class Gmqtt:
    """A connection of gmqtt's, which acknowledges by itself."""

    def __init__(self, name, version):
        self.version = {"3.1.1": 4, "5": 5}[version]
        self.client = gmqtt.Client(name)
        self.got, self.subscribed = asyncio.Queue(), asyncio.Event()
        self.client.on_message = self.on_message
        self.client.on_subscribe = lambda *_: self.subscribed.set()

    def on_message(self, _client, topic, payload, qos, _properties):
        self.got.put_nowait((topic, payload.decode(), qos))
        return 0

    async def __aenter__(self):
        await self.client.connect(HOST, int(PORT), version=self.version)
        return self

    async def __aexit__(self, *_):
        await self.client.disconnect()

    async def publish(self, topic, values, qos):
        for value in values:
            while not self.sent(topic, value, qos):
                await asyncio.sleep(0.005)

    def sent(self, topic, value, qos):
        """It takes no more than the server's receive maximum, and says so by an error."""
        try:
            self.client.publish(topic, value, qos=qos)
            return True
        except OverflowError:
            return False

    async def subscribe(self, topic, qos):
        self.subscribed.clear()
        self.client.subscribe(topic, qos=qos)
        await self.subscribed.wait()

    async def messages(self, count):
        return [await self.got.get() for _ in range(count)]


async def there_and_back(kind, name):
    for version in ("3.1.1", "5"):
        for qos in range(3):
            topic, values = f"{name}/{version}/{qos}", [str(number) for number in range(COUNT)]
            async with kind(f"{name}-r", version) as reader, kind(f"{name}-w", version) as writer:
                await reader.subscribe(f"{name}/{version}/+", qos)
                await writer.publish(topic, values, qos)
                got = await reader.messages(COUNT)
                check(got == [(topic, value, qos) for value in values], f"{topic}: {got[:3]}")
            check([value for value, _ in stored(topic)] == values, f"records of {topic}")


async def over_a_kill(kind, name):
    """What a subscriber got is there after a SIGKILL, and a replay gives it again, with what comes after it."""
    topic, values = f"{name}/kill", [str(number) for number in range(COUNT)]
    async with kind(f"{name}-r", "5") as reader, kind(f"{name}-w", "5") as writer:
        await reader.subscribe(topic, 1)
        await writer.publish(topic, values[:100], 1)
        await reader.messages(100)
        await asyncio.to_thread(ask, "restart", "kill")
    async with kind(f"{name}-again", "5") as reader, kind(f"{name}-w2", "5") as writer:
        await reader.subscribe(f"$replay/earliest/{topic}", 2)
        await writer.publish(topic, values[100:], 2)
        got = [value for _, value, _ in await reader.messages(COUNT)]
        check(got == values, f"{topic}: {got}")
    check([value for value, _ in stored(topic)] == values, f"records of {topic}")


def scenarios():
    for kind, name in ((Aiomqtt, "aiomqtt"), (Gmqtt, "gmqtt")):
        for what, scenario in (("", there_and_back), (" kill", over_a_kill)):
            def one(kind=kind, name=name, scenario=scenario):
                asyncio.run(asyncio.wait_for(scenario(kind, name), PATIENCE))
            yield name + what, one


run(list(scenarios()))
