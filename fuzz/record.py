#!/usr/bin/env python3
"""Records what real clients and the broker say to each other, for fuzz/seeds/traffic.gz.

It stands in for the `alluvium` binary: started as `record.py serve ...`, it starts the real one behind itself on a port of
its own, and passes frames on, both ways, keeping those of a kind that it has few of.

    BROKER=target/debug/alluvium RECORD=target/record \
        cargo xtask compat --binary fuzz/record.py --jobs 1 kcat java-4
    fuzz/record.py pack target/record fuzz/seeds/traffic.gz
"""

import ctypes
import gzip
import hashlib
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading

# Of each direction, key and version so many frames are kept, the shortest and the longest among them, below so many bytes.
KEPT = 6
FRAME_BYTES_MAX = 4096
PACKED_BYTES_MAX = 200_000


def take(connection, count):
    parts = []
    while count > 0:
        part = connection.recv(min(count, 1 << 20))
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


class Recorder:
    def __init__(self, directory):
        self.directory = directory
        os.makedirs(directory, exist_ok=True)

    def keep(self, direction, key, version, frame):
        if len(frame) > FRAME_BYTES_MAX:
            return
        entry = struct.pack(">bhhI", direction, key, version, len(frame)) + frame
        # Correlation ids alone do not make frames differ.
        differing = frame[8:] if direction == 0 else frame[4:]
        digest = hashlib.sha256(differing).hexdigest()[:16]
        name = f"{key:03}-{version:02}-{direction}-{len(frame):05}-{digest}"
        with open(os.path.join(self.directory, name), "wb") as file:
            file.write(entry)


def relay(client, port, recorder):
    try:
        broker = socket.create_connection(("127.0.0.1", port))
    except OSError:
        client.close()
        return
    for side in (client, broker):
        side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    asked = {}

    def pump(source, target, direction):
        try:
            while (prefix := take(source, 4)) is not None:
                frame = take(source, struct.unpack(">i", prefix)[0])
                if frame is None:
                    break
                if direction == 0:
                    key, version, correlation = struct.unpack(">hhi", frame[:8])
                    asked[correlation] = (key, version)
                    recorder.keep(0, key, version, frame)
                else:
                    about = asked.pop(struct.unpack(">i", frame[:4])[0], None)
                    if about:
                        recorder.keep(1, *about, frame)
                target.sendall(prefix + frame)
        except OSError:
            pass
        for side in (source, target):
            try:
                side.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    there = threading.Thread(target=pump, args=(client, broker, 0), daemon=True)
    there.start()
    pump(broker, client, 1)
    there.join()
    client.close()
    broker.close()


def die_with_parent():
    death_signal = 1
    ctypes.CDLL(None).prctl(death_signal, signal.SIGKILL)


def serve(arguments):
    at = arguments.index("--kafka") + 1
    host, port = arguments[at].rsplit(":", 1)
    listener = socket.create_server((host, int(port)))
    address = f"{host}:{listener.getsockname()[1]}"
    arguments[at] = "127.0.0.1:0"
    # The broker takes variables of its prefix for settings.
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ALLUVIUM_")}
    broker = subprocess.Popen(
        [os.environ["BROKER"], *arguments, "-X", f"advertised.listeners=PLAINTEXT://{address}"],
        stdout=subprocess.PIPE,
        text=True,
        env=kept,
        preexec_fn=die_with_parent,
    )
    signal.signal(signal.SIGTERM, lambda *_: broker.terminate())
    ready = broker.stdout.readline()
    behind = re.search(r"kafka=(\S+)", ready)[1]
    print(ready.replace(behind, address), end="", flush=True)
    recorder = Recorder(os.environ["RECORD"])
    broker_port = int(behind.rsplit(":", 1)[1])

    def accept():
        while True:
            client, _ = listener.accept()
            threading.Thread(
                target=relay, args=(client, broker_port, recorder), daemon=True
            ).start()

    threading.Thread(target=accept, daemon=True).start()
    sys.exit(broker.wait())


def pack(directory, path):
    kinds = {}
    for name in sorted(os.listdir(directory)):
        kinds.setdefault(name[:8], []).append(name)
    packed = b""
    for names in kinds.values():
        # Evenly over the lengths: names sort by length.
        step = max(1, (len(names) - 1) / (KEPT - 1))
        chosen = {names[min(round(n * step), len(names) - 1)] for n in range(KEPT)}
        for name in sorted(chosen):
            with open(os.path.join(directory, name), "rb") as file:
                packed += file.read()
    squeezed = gzip.compress(packed, 9, mtime=0)
    if len(squeezed) > PACKED_BYTES_MAX:
        sys.exit(f"{len(squeezed)} bytes packed, more than {PACKED_BYTES_MAX}")
    with open(path, "wb") as file:
        file.write(squeezed)
    print(f"{len(kinds)} kinds, {len(packed)} bytes, {len(squeezed)} packed")


if __name__ == "__main__":
    if sys.argv[1] == "pack":
        pack(*sys.argv[2:])
    elif sys.argv[1] == "serve":
        serve(sys.argv[1:])
    else:
        sys.exit(__doc__)
