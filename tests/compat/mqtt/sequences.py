"""Runs mosquitto's packet sequences, from a checkout of it, against a broker that runs: its own code sends and compares.

Its own script ends at the first answer that does not come, and tells failures only; so this goes over the sequences one by one, and
prints for each a line of JSON. `--list` prints their names. A file with names, one a line, chooses.

    sequences.py CHECKOUT/test/broker [--list | HOST:PORT [FILE]]
"""

import json
import pathlib
import sys

BROKER = pathlib.Path(sys.argv[1]).resolve()
sys.path[:0] = [str(BROKER), str(BROKER.parent)]

import mosq_test  # noqa: E402
import msg_sequence_test as suite  # noqa: E402

from packets import CONNACK, DISCONNECT, essence, packets, read_packet  # noqa: E402


def sequences():
    """Name, the sequence as it is written, and the group that it stands in."""
    seen = {}
    for file in sorted((BROKER / "data").glob("*.json")):
        for group in json.loads(file.read_text()):
            if group.get("disable", False):
                continue
            for test in group["tests"]:
                name = " ".join(f"{file.stem}: {group['group']} {test['name']}".split())
                seen[name] = seen.get(name, 0) + 1
                yield name if seen[name] == 1 else f"{name} ({seen[name]})", test, group


class Sequence(suite.MsgSequence):
    """The suite's, which compares byte by byte with what mosquitto sends, and takes an answer before the end for no end."""

    def _recv_message(self, sock, msg):
        for wanted in packets(msg.message):
            got = read_packet(sock)
            if essence(got) != essence(wanted):
                raise ValueError(f"{msg.comment}: got {got.hex()}, not {wanted.hex()}")

    def _disconnected_check(self, sock):
        try:
            last = read_packet(sock)
            refuses = last[:1] == bytes([DISCONNECT]) or last[:1] == bytes([CONNACK]) and last[3] != 0
            if last and not refuses or sock.recv(1):
                raise ValueError(f"still connected: got {last.hex()}")
        except ConnectionResetError:
            pass


def build(test, group, port):
    said = {"ver": 4, "connect": True, "expect_disconnect": True} | group | test
    sequence = Sequence(
        f"{group['group']} {test['name']}",
        port=port,
        proto_ver=said["ver"],
        expect_disconnect=said["expect_disconnect"],
        default_connect=said["connect"],
    )
    for message in test["msgs"]:
        comment = message.get("comment", "")
        match message["type"]:
            case "send":
                sequence.add_send(suite.parse_message(message["payload"]))
            case "recv":
                sequence.add_recv(suite.parse_message(message["payload"]), comment)
            case "external_publish":
                sequence.add_external_publish(message, comment)
            case "subscribe":
                sequence.add_subscribe(message, comment)
            case "unsubscribe":
                sequence.add_unsubscribe(message, comment)
    return sequence


def outcome(test, group, host, port):
    sock = mosq_test.client_connect_only(hostname=host, port=port, timeout=5, protocol="mqtt")
    try:
        build(test, group, port).process_all(sock)
    except Exception as failure:  # Whatever it is, this sequence fails by it and the next one begins.
        return " ".join(f"{type(failure).__name__} {failure}".split())
    finally:
        sock.close()
    return None


def main():
    if sys.argv[2] == "--list":
        for name, _, _ in sequences():
            print(name)
        return
    host, port = sys.argv[2].rsplit(":", 1)
    wanted = set(pathlib.Path(sys.argv[3]).read_text().splitlines()) if len(sys.argv) > 3 else set()
    for name, test, group in sequences():
        if wanted and name not in wanted:
            continue
        print(json.dumps({"test": name, "failure": outcome(test, group, host, int(port))}), flush=True)


main()
