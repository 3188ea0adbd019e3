"""kcat against a broker. kcat has no admin commands: topics come into being as it produces."""

import json
import re
import subprocess
import sys
import threading
import time

from desk import ask, check, run, until

BROKER = sys.argv[1]
COMMON = ["kcat", "-b", BROKER, "-X", "topic.metadata.refresh.interval.ms=1000"]


def kcat(*words, stdin=b"", to=COMMON):
    done = subprocess.run([*to, *words], input=stdin, capture_output=True, timeout=60)
    check(done.returncode == 0, f"kcat {' '.join(words)}: {done.stderr.decode()}")
    return done.stdout


def produce(topic, lines, *words):
    kcat("-P", "-t", topic, "-p", "0", "-K", ":", *words,
         stdin="".join(f"{key}:{value}\n" for key, value in lines).encode())


def consume(topic, *words):
    text = kcat("-C", "-t", topic, "-p", "0", "-e", "-q", "-J", *words).decode()
    return [json.loads(line) for line in text.splitlines()]


def lines(count):
    # Long enough for each to shrink by itself when compressed: what would not is sent plainly.
    return [(f"device-{i % 5}", f"reading {i} " * (9 + i % 13)) for i in range(count)]


def same(got, wanted):
    check([(message["key"], message["payload"]) for message in got] == wanted,
          f"{len(got)} messages, wanted {len(wanted)}: {got[:2]}")
    check([message["offset"] for message in got] == list(range(len(wanted))), "gaps in the offsets")


class Running:
    """A kcat that goes on while other things happen: a group member."""

    def __init__(self, *words, to=COMMON):
        self.process = subprocess.Popen([*to, *words], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.out, self.log = [], []
        for stream, into in ((self.process.stdout, self.out), (self.process.stderr, self.log)):
            threading.Thread(target=self.read, args=(stream, into), daemon=True).start()

    @staticmethod
    def read(stream, into):
        for line in stream:
            into.append(line.decode().rstrip("\n"))

    def owns(self):
        """How many topics the last rebalance assigned; each has one partition."""
        assigned = [line for line in self.log if "rebalanced" in line]
        return len(re.findall(r"\[0\]", assigned[-1])) if assigned and "assigned:" in assigned[-1] else 0

    def end(self):
        self.process.terminate()
        self.process.wait(30)


def create():
    produce("created", lines(3))
    listing = json.loads(kcat("-L", "-J", "-t", "created"))
    [topic] = listing["topics"]
    check(topic["topic"] == "created" and len(topic["partitions"]) >= 1, str(listing))
    check(listing["brokers"][0]["name"] == BROKER, str(listing["brokers"]))


def codec(name):
    def scenario():
        produce(f"codec-{name}", lines(300), "-z", name)
        ask("codec", f"codec-{name}", 0, name)
        same(consume(f"codec-{name}"), lines(300))
    return f"codec {name}", scenario


def seek_by_time():
    for at in range(3):
        produce("seek", [("k", f"{at}-{i}") for i in range(20)], "-H", f"round={at}")
        time.sleep(0.02)  # kcat stamps records with the clock; the rounds must differ
    everything = consume("seek")
    check(len(everything) == 60, f"{len(everything)} messages")
    start = everything[20]["ts"]
    check(start > everything[19]["ts"], "the rounds have the same timestamp")
    check(everything[20]["headers"] == ["round", "1"], str(everything[20]))
    got = [message["payload"] for message in consume("seek", "-o", f"s@{start}")]
    check(got == [message["payload"] for message in everything[20:]], f"from {start}: {got[:3]}")
    answer = kcat("-Q", "-t", f"seek:0:{everything[19]['ts'] + 1}").decode()
    check("offset 20" in answer, answer)
    late = kcat("-Q", "-t", f"seek:0:{everything[-1]['ts'] + 1}").decode()
    check("offset -1" in late, late)


def idempotent():
    produce("idempotent", lines(500), "-X", "enable.idempotence=true", "-X", "batch.num.messages=20")
    ask("idempotent", "idempotent", 0)
    same(consume("idempotent"), lines(500))


def group():
    # A topic to a member, as kcat cannot create a topic of several partitions.
    for topic in ("group-a", "group-b"):
        produce(topic, [("k", topic)])
    settings = ["-X", "session.timeout.ms=15000", "-X", "heartbeat.interval.ms=500",
                "-X", "auto.offset.reset=earliest", "-X", "partition.assignment.strategy=roundrobin",
                "-u", "-f", "%t %p %o %s\n"]
    first = Running("-G", "pair", *settings, "group-a", "group-b")
    second = Running("-G", "pair", *settings, "group-a", "group-b")
    until(lambda: time.sleep(0.05) or first.owns() == second.owns() == 1, 40, "one topic for each")
    until(lambda: time.sleep(0.05) or {line.split()[-1] for line in first.out + second.out}
          == {"group-a", "group-b"}, 40, "both records in the group")
    second.end()
    until(lambda: time.sleep(0.05) or first.owns() == 2, 40, "the one that is left takes over")
    for topic in ("group-a", "group-b"):
        produce(topic, [("k", "later")])
    until(lambda: time.sleep(0.05) or sum(line.endswith("later") for line in first.out) == 2, 40,
          "records of both topics")
    first.end()


def restart():
    # kcat gives up by itself when its only broker goes, so each stage is a kcat of its own.
    sent = lines(30)
    for at, how in enumerate(["term", "kill", None]):
        produce("restart", sent[at * 10:at * 10 + 10])
        reader = Running("-G", "lasting", "-u", "-f", "%k:%s\n", "-X", "auto.offset.reset=earliest",
                         "-X", "session.timeout.ms=6000", "restart")
        until(lambda: time.sleep(0.05) or len(reader.out) >= 10, 40, f"ten records of the group, {reader.log}")
        reader.end()  # commits
        check(reader.out == [f"{key}:{value}" for key, value in sent[at * 10:at * 10 + 10]],
              f"the group read {reader.out}")
        if how:
            ask("restart", how)
    same(consume("restart"), sent)


def through(topic, user, to):
    """Sends, reads back in a group, and asks whom the broker takes that connection for."""
    kcat("-P", "-t", topic, "-p", "0", stdin=b"one\ntwo\n", to=to)
    reader = Running("-G", topic, "-q", "-u", "-X", "auto.offset.reset=earliest", topic, to=to)
    until(lambda: time.sleep(0.05) or reader.out == ["one", "two"], 40, f"both records, {reader.log}")
    ask("caller", user)
    reader.end()


def refused(to, why):
    """kcat would try again until its time is over: it is told why at once."""
    trying = Running("-L", "-m", "60", to=to)
    until(lambda: time.sleep(0.05) or any(why in line for line in trying.log), 40, f"{why}, {trying.log}")
    trying.process.kill()
    trying.process.wait(30)
    check(not trying.out, f"let in: {trying.out}")


def secured():
    """What kcat is given for the encrypted listeners: SASL_SSL, SSL, and how it trusts and shows a certificate."""
    sasl_ssl, ssl, directory = ask("secured").split()
    trust = ["-X", f"ssl.ca.location={directory}/ca.pem"]
    shown = ["-X", f"ssl.certificate.location={directory}/client.crt", "-X", f"ssl.key.location={directory}/client.key"]
    return (["kcat", "-b", sasl_ssl, "-X", "security.protocol=SASL_SSL", *trust],
            ["kcat", "-b", ssl, "-X", "security.protocol=SSL", *shown], trust, directory)


def sasl_ssl():
    to, *_ = secured()
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]:
        login = [*to, "-X", f"sasl.mechanisms={mechanism}", "-X", "sasl.username=alice", "-X"]
        through(f"secured-{mechanism}", "User:alice", [*login, "sasl.password=correct horse battery"])
        refused([*login, "sasl.password=wrong"], "uthentication failed")


def mutual_tls():
    _, to, trust, directory = secured()
    through("secured-by-certificate", "User:CN=press4", [*to, *trust])
    refused([*to, "-X", f"ssl.ca.location={directory}/client.crt"], "certificate verify failed")


run([("create", create), codec("none"), codec("gzip"), codec("snappy"), codec("lz4"), codec("zstd"),
     ("seek by time", seek_by_time), ("idempotent", idempotent), ("group", group), ("restart", restart),
     ("SASL_SSL", sasl_ssl), ("mTLS", mutual_tls)])
