"""Qpid Proton's Python client against the AMQP front, and Kafka's consumer and producer on the other side."""

import sys
import time

from proton import ConnectionException, Delivery, Described, Message, ProtonException, Timeout, int32, symbol, ulong
from proton.handlers import MessagingHandler, TransactionHandler
from proton.reactor import Container, Filter
from proton.utils import BlockingConnection, LinkDetached

from desk import ask, check, run, until
from records import produce, stored_by

KAFKA = sys.argv[1]
COUNT = 200
stored = stored_by(KAFKA)
# It stays the same over restarts.
URL = "amqp://" + ask("amqp")

BODIES = [
    (False, "text äöü"),
    (False, b"\x00\x01\xff"),
    (False, int32(-7)),
    (False, ulong(1 << 40)),
    (False, True),
    (False, 6.5),
    (False, ["a", 1, None]),
    (False, {"k": "v"}),
    (False, None),
    (True, b"data"),
    (True, ["x", "y"]),
    (True, b"\x09" * 700_000),
]


def numbers(first, end):
    return [f"m{number}" for number in range(first, end)]


class First(Filter):
    """From the beginning of the log on."""

    def __init__(self):
        name = symbol("rabbitmq:stream-offset-spec")
        super().__init__({name: Described(name, "first")})


def connected(work):
    connection = BlockingConnection(URL, timeout=40)
    try:
        work(connection)
    finally:
        connection.close()


def send(connection, target, messages):
    """Each is accepted before the next is sent."""
    sender = connection.create_sender(target)
    for message in messages:
        check(sender.send(message).remote_state == Delivery.ACCEPTED, "not accepted")
    sender.close()


def receive(receiver, count):
    found = []
    for _ in range(count):
        message = receiver.receive(timeout=40)
        if isinstance(message.body, memoryview):
            # It is the client's own memory, which the next message has.
            message.body = bytes(message.body)
        found.append(message)
        receiver.accept()
    return found


def nothing(receiver):
    try:
        found = receiver.receive(timeout=0.5)
    except Timeout:
        return
    check(False, f"something comes: {found}")


def bodies():
    for name, options in [("proton-queue", None), ("proton-log", First())]:
        def there_and_back(connection):
            send(connection, name, [Message(body=body, inferred=inferred) for inferred, body in BODIES])
            receiver = connection.create_receiver(name, credit=100, options=options)
            found = [(it.inferred, it.body) for it in receive(receiver, len(BODIES))]
            for got, wanted in zip(found, BODIES):
                check(got == wanted, f"{got} in the place of {wanted}"[:500])
        connected(there_and_back)


def credit():
    def work(connection):
        send(connection, "proton-credit", [Message(body=it) for it in numbers(0, COUNT)])
        one = connection.create_receiver("proton-credit", credit=0)
        found = receive(one, 3)
        one.close()
        many = connection.create_receiver("proton-credit", credit=1000)
        found += receive(many, COUNT - 3)
        nothing(many)
        check([it.body for it in found] == numbers(0, COUNT), "they come in order")
    connected(work)


class Mover(MessagingHandler, TransactionHandler):
    """Moves messages between queues, each in a transaction, and ends those as it is told."""

    def __init__(self, source, target, plan):
        MessagingHandler.__init__(self, prefetch=0, auto_accept=False)
        self.source, self.target, self.plan = source, target, list(plan)
        self.seen, self.trouble = [], None

    def on_start(self, event):
        self.container = event.container
        self.connection = event.container.connect(URL)
        self.receiver = event.container.create_receiver(self.connection, self.source)
        self.sender = event.container.create_sender(self.connection, self.target)
        self.begin()

    def begin(self):
        if self.plan:
            self.container.declare_transaction(self.connection, handler=self)
        else:
            self.connection.close()

    def on_transaction_declared(self, event):
        self.transaction = event.transaction
        self.receiver.flow(1)

    def on_message(self, event):
        self.seen.append((event.message.body, event.message.delivery_count))
        self.transaction.accept(event.delivery)
        self.transaction.send(self.sender, Message(body=event.message.body))
        if self.plan.pop(0) == "commit":
            self.transaction.commit()
        else:
            self.transaction.abort()

    def on_transaction_committed(self, event):
        self.begin()

    def on_transaction_aborted(self, event):
        self.begin()

    def on_transaction_declare_failed(self, event):
        self.fails("declare")

    def on_transaction_commit_failed(self, event):
        self.fails("commit")

    def on_transport_error(self, event):
        self.fails("transport")

    def on_link_error(self, event):
        self.fails("link")

    def fails(self, what):
        self.trouble = what
        self.connection.close()


def transactions():
    connected(lambda connection: send(connection, "proton-from", [Message(body=it) for it in numbers(0, 3)]))
    mover = Mover("proton-from", "proton-to", ["commit", "abort", "commit", "commit"])
    Container(mover).run()
    check(mover.trouble is None, f"{mover.trouble} failed")
    # It has not settled what it has accepted when it ends a transaction, and gives it back.
    check(mover.seen == [("m0", 0), ("m1", 0), ("m1", 0), ("m2", 0)], f"seen: {mover.seen}")

    def work(connection):
        moved = connection.create_receiver("proton-to", credit=10)
        check([it.body for it in receive(moved, 3)] == numbers(0, 3), "each is moved once")
        nothing(moved)
        nothing(connection.create_receiver("proton-from", credit=10))
    connected(work)
    check([it.value().decode() for it in stored("proton-to")] == numbers(0, 3), "what is rolled back is no record")


def kafka():
    def work(connection):
        annotations = {symbol("x-opt-partition-key"): "key"}
        messages = [
            Message(body=it, subject="reading", properties={"unit": "K"}, annotations=annotations)
            for it in numbers(0, COUNT)
        ]
        send(connection, "proton-kafka", messages)
        records = stored("proton-kafka")
        check([it.value().decode() for it in records] == numbers(0, COUNT), "the values")
        check(all(it.key() == b"key" and ("unit", b"K") in it.headers() for it in records), "key and headers")
        produce(KAFKA, "proton-kafka", b"from kafka", [("unit", b"C")])
        found = receive(connection.create_receiver("proton-kafka", credit=1000), COUNT + 1)
        check(found[-1].body == b"from kafka" and found[-1].properties["unit"] == "C", f"{found[-1]}")
        check(found[0].subject == "reading", "the subject")
    connected(work)


def again(connect, work):
    """Until it is done, over the end of a connection."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return work(connect[0])
        except (ProtonException, ConnectionException, LinkDetached, Timeout):
            check(time.monotonic() < deadline, "the broker does not come back")
            time.sleep(0.1)
            try:
                connect[0] = BlockingConnection(URL, timeout=10)
            except (ProtonException, OSError):
                pass


def kill():
    writing, reading = [BlockingConnection(URL, timeout=10)], [BlockingConnection(URL, timeout=10)]
    for number in range(COUNT):
        if number == COUNT // 2:
            ask("restart", "kill")
        again(writing, lambda it: send(it, "proton-kill", [Message(body=f"m{number}")]))
    found, link = set(), {}

    def next_one(connection):
        if link.get("of") is not connection:
            link.update(of=connection, receiver=connection.create_receiver("proton-kill", credit=10))
        message = link["receiver"].receive(timeout=5)
        link["receiver"].accept()
        found.add(message.body)

    while len(found) < COUNT:
        if len(found) == COUNT // 2 and not link.get("killed"):
            link["killed"] = True
            ask("restart", "kill")
        again(reading, next_one)
    check(found == set(numbers(0, COUNT)), "all come")
    records = {it.value().decode() for it in stored("proton-kill")}
    check(records == set(numbers(0, COUNT)), "all are stored")


run([("bodies", bodies), ("credit", credit), ("transactions", transactions), ("kafka", kafka), ("kill", kill)])
