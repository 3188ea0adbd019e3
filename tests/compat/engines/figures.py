"""Figures of the HTTP port, against a server of its own: followers, produce, replay beside kcat and DuckDB, one device's
history.

    target/compat/python/engines/bin/python tests/compat/engines/figures.py BINARY DIRECTORY [PART...]

BINARY is a release build, DIRECTORY is emptied. `cargo xtask compat flights --install` makes the interpreter and the flights. Each
figure is a line: what, unit, least, median, most. A part that finds a record lost or twice ends with 1."""

import asyncio
import io
import json
import os
import pathlib
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet

BINARY, ROOT = sys.argv[1], pathlib.Path(sys.argv[2])
FLIGHTS = pathlib.Path(__file__).resolve().parents[3] / "target/compat/npm/vega-datasets/data/flights-3m.parquet"
RUNS = 3


def figure(what, unit, values):
    low, middle, high = min(values), statistics.median(values), max(values)
    load = open("/proc/loadavg").read().split()[0]
    print(f"{what} | {unit} | {low:.4g} | {middle:.4g} | {high:.4g} | (load {load})", flush=True)


def check(holds, why):
    if not holds:
        print(f"FAILED: {why}", flush=True)
        sys.exit(1)


class Server:
    """A server on its data."""

    def __init__(self, name):
        data = ROOT / name
        log = open(ROOT / f"{name}.log", "a")
        command = [BINARY, "serve", "--data", data, "--kafka", "127.0.0.1:0", "--http", "127.0.0.1:0", "--json"]
        self.child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        ready = json.loads(self.child.stdout.readline())
        self.kafka, self.http = ready["kafka"], ready["http"]

    def url(self, path):
        return f"http://{self.http}{path}"

    def get(self, path):
        return urllib.request.urlopen(self.url(path)).read()

    def post(self, path, body, kind="application/json"):
        request = urllib.request.Request(self.url(path), body, {"Content-Type": kind})
        return json.loads(urllib.request.urlopen(request).read())

    def create(self, name, partitions, **settings):
        settings = {key.replace("_", "."): str(value) for key, value in settings.items()}
        body = {"name": name, "partitions": partitions, "settings": settings}
        self.post("/api/v1/topics", json.dumps(body).encode())

    def memory(self, what="VmRSS"):
        lines = open(f"/proc/{self.child.pid}/status").read().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what))

    def end(self):
        self.child.terminate()
        check(self.child.wait(60) == 0, "the server ends in order")


async def follower(http, topic, wanted):
    """What one follower is given, in its order."""
    host, port = http.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET /api/v1/topics/{topic}/follow?from=earliest HTTP/1.0\r\nHost: {http}\r\n\r\n".encode())
    seen = []
    while len(seen) < wanted:
        line = await reader.readline()
        check(line, f"a follower's stream ended after {len(seen)}")
        if line.startswith(b'data: {"topic"'):
            record = json.loads(line[6:])
            seen.append((record["partition"], record["offset"], record["value"]["n"]))
    writer.close()
    return seen


async def follow_all(server, followers, records):
    tasks = [asyncio.create_task(follower(server.http, "followed", records)) for _ in range(followers)]
    # All are there when each of them is counted.
    while True:
        page = await asyncio.to_thread(server.get, "/metrics")
        line = next((line for line in page.decode().splitlines() if line.startswith("alluvium_http_following ")), " 0")
        if float(line.split()[-1]) >= followers:
            break
        await asyncio.sleep(0.2)
    before = server.memory()
    began = time.monotonic()
    for at in range(0, records, 20):
        body = b"\n".join(b'{"k":%d,"n":%d}' % (n % 7, n) for n in range(at, at + 20))
        await asyncio.to_thread(server.post, "/api/v1/topics/followed/records?key_field=/k", body, "application/x-ndjson")
    seen = await asyncio.gather(*tasks)
    return before, time.monotonic() - began, seen


def followers():
    """1,000 follow, and are given 200 records each."""
    count, records = 1000, 200
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    server = Server("follow")
    alone = server.memory()
    server.create("followed", 4)
    memory, seconds, seen = asyncio.run(follow_all(server, count, records))
    for one in seen:
        check(sorted(n for _, _, n in one) == list(range(records)), "each record once")
        for partition in range(4):
            offsets = [offset for of, offset, _ in one if of == partition]
            check(offsets == list(range(len(offsets))), "in the partition's order")
    figure("1,000 followers: memory of the server, alone", "MiB", [alone])
    figure("1,000 followers: memory with all of them waiting", "MiB", [memory])
    figure("1,000 followers: memory at most", "MiB", [server.memory("VmHWM")])
    figure("1,000 followers: records given, each once", "records/s", [count * records / seconds])
    server.end()


def reading(connection, index):
    """As the case http-produce has them."""
    return (f'{{"device":"sensor-{(connection * 61 + index * 7) % 2_000:04}","at":{1_700_000_000_000 + index},"temperature":{index % 40}.{index % 10},'
            f'"humidity":{index % 100}.5,"battery":3.{index % 97:02},"ok":true}}')


def answer(stream):
    """The body of an answer."""
    length = 0
    while (line := stream.readline()) != b"\r\n":
        check(line, "the connection was closed")
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    return stream.read(length)


def send_for(http, connection, seconds, counts):
    body = "\n".join(reading(connection, index) for index in range(1000)).encode()
    head = f"POST /api/v1/topics/bench/records?key_field=/device HTTP/1.1\r\nHost: {http}\r\nContent-Type: application/x-ndjson\r\nContent-Length: {len(body)}\r\n\r\n"
    host, port = http.split(":")
    wire = socket.create_connection((host, int(port)))
    stream = wire.makefile("rb", buffering=1 << 16)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        wire.sendall(head.encode() + body)
        check(b'"records":1000,' in answer(stream), "a body was refused")
        counts[connection] += 1000


def bare(seconds, block):
    """Writes of so many bytes, each with its fdatasync, a second."""
    path = ROOT / "bare"
    with open(path, "wb", buffering=0) as file:
        file.write(bytes(256 << 20))
        os.fsync(file)
        began, count = time.monotonic(), 0
        while time.monotonic() - began < seconds:
            if (count + 1) * block % (256 << 20) < block:
                file.seek(0)
            file.write(bytes(block))
            os.fdatasync(file)
            count += 1
        rate = count / (time.monotonic() - began)
    path.unlink()
    return rate


def produce():
    """16 connections, 1,000 lines of about 110 bytes in each body, 8 partitions."""
    server = Server("produce")
    server.create("bench", 8, retention_bytes=64 << 20, segment_bytes=16 << 20)
    rates, limits = [], []
    block = sum(len(reading(0, index)) + 1 for index in range(1000)) * 16
    for _ in range(RUNS):
        limits.append(bare(3, block) * 16_000)
        counts = [0] * 16
        threads = [threading.Thread(target=send_for, args=(server.http, index, 8, counts)) for index in range(16)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rates.append(sum(counts) / (time.monotonic() - began))
    figure("NDJSON over HTTP, 16 connections, durable", "records/s", rates)
    figure("writes and fdatasync of as many bytes, bare", "records/s", limits)
    server.end()


def duck():
    import duckdb_extensions
    connection = duckdb.connect(config={"extension_directory": str(ROOT / "extensions"), "autoinstall_known_extensions": False})
    duckdb_extensions.import_extension("httpfs", con=connection)
    return connection


def timed(work):
    began = time.monotonic()
    result = work()
    return time.monotonic() - began, result


def replay():
    """The flights, and the sum of their delays: over kcat and DuckDB, as an Arrow stream, of Parquet files."""
    server = Server("replay")
    server.create("flights", 4, segment_bytes=16 << 20)
    table = pa.parquet.read_table(FLIGHTS)
    table = table.append_column("key", table["origin"].cast(pa.string()))
    table = table.append_column("timestamp", table["date"].cast(pa.timestamp("ms", tz="UTC")))
    table = table.append_column("row", pa.array(range(len(table)))).drop_columns(["date"])
    for at in range(0, len(table), 50_000):
        out = io.BytesIO()
        with pa.ipc.new_stream(out, table.schema) as stream:
            stream.write_table(table.slice(at, 50_000), max_chunksize=20_000)
        server.post("/api/v1/topics/flights/records", out.getvalue(), "application/vnd.apache.arrow.stream")
    wanted = (len(table), pc.sum(table["delay"]).as_py())
    lines = server.get("/api/v1/topics/flights/replay?columns=offset&max_records=1&where=row%20%3C%200&summary=true").splitlines()
    source_bytes = json.loads(lines[-1])["summary"]["scanned_bytes"]
    file = ROOT / "flights.json"

    def by_kcat():
        with open(file, "wb") as out:
            subprocess.run(["kcat", "-b", server.kafka, "-C", "-t", "flights", "-o", "beginning", "-e", "-q", "-J"], stdout=out, check=True)
        return duckdb.sql(f"select count(*), sum((payload::json->>'delay')::bigint) from read_json('{file}', format='newline_delimited')").fetchone()

    def by_arrow():
        flights = pa.ipc.open_stream(urllib.request.urlopen(server.url("/api/v1/topics/flights/replay?format=arrow"))).read_all()
        return duckdb.sql("select count(*), sum(delay) from flights").fetchone()

    def by_columns():
        flights = pa.ipc.open_stream(urllib.request.urlopen(server.url("/api/v1/topics/flights/replay?format=arrow&columns=delay"))).read_all()
        return duckdb.sql("select count(*), sum(delay) from flights").fetchone()

    def by_files():
        files = json.loads(server.get("/api/v1/topics/flights/files"))["files"]
        found = duck().sql(f"select count(*), sum(delay) from read_parquet({[server.url(file['url']) for file in files]!r})").fetchone()
        return found, sum(file["to_offset"] - file["from_offset"] for file in files)

    ways = {"kcat -J into a file, DuckDB read_json": by_kcat, "Arrow, all columns, DuckDB": by_arrow, "Arrow, the column asked for, DuckDB": by_columns}
    taken = {what: [] for what in ways}
    for _ in range(RUNS):
        for what, way in ways.items():
            seconds, found = timed(way)
            check(tuple(found) == wanted, f"{what}: {found}, not {wanted}")
            taken[what].append(seconds)
    file.unlink()
    for what, seconds in taken.items():
        figure(what, "s", seconds)
        figure(what, "rows/s", [wanted[0] / each for each in seconds])
        figure(what, "MB/s of the log", [source_bytes / each / 1e6 for each in seconds])
        first = taken["kcat -J into a file, DuckDB read_json"]
        figure(what, "times as fast as kcat and DuckDB in the same run", [one / each for one, each in zip(first, seconds)])
    first, (found, rows) = timed(by_files)
    check(found[0] == rows, f"the files have {found[0]} rows, not {rows}")
    figure(f"Parquet files of {rows} sealed rows, made at the first request, DuckDB", "s", [first])
    figure("Parquet files that were made before, DuckDB", "s", [timed(by_files)[0] for _ in range(RUNS)])
    server.end()


def history():
    """One device of 10,000 in a topic of 10 million records, which come by turns."""
    server = Server("history")
    server.create("fleet", 4, segment_bytes=64 << 20)
    devices, records, piece = 10_000, 10_000_000, 50_000
    began = time.monotonic()
    for at in range(0, records, piece):
        body = "\n".join(f'{{"d":"dev-{n % devices}","n":{n}}}' for n in range(at, at + piece)).encode()
        server.post("/api/v1/topics/fleet/records?key_field=/d", body, "application/x-ndjson")
    print(f"loaded in {time.monotonic() - began:.0f} s", flush=True)

    def one(device):
        lines = server.get(f"/api/v1/topics/fleet/replay?key=dev-{device}&columns=offset,n&summary=true").splitlines()
        summary = json.loads(lines.pop())["summary"]
        check([json.loads(line)["n"] for line in lines] == list(range(device, records, devices)), f"the history of {device}")
        return summary

    until = time.monotonic() + 90
    while (summary := one(0))["scanned_records"] > records // 5 and time.monotonic() < until:
        time.sleep(1)
    times = [timed(lambda: one(device))[0] * 1000 for device in range(3, devices, devices // 50)]
    figure("one device's 1,000 records of 10 million", "ms", times)
    figure("of the records, read for it", "%", [summary["scanned_records"] / records * 100])
    server.end()


PARTS = {"followers": followers, "produce": produce, "replay": replay, "history": history}

if __name__ == "__main__":
    shutil.rmtree(ROOT, ignore_errors=True)
    ROOT.mkdir(parents=True)
    for name in sys.argv[3:] or PARTS:
        print(f"== {name}: {PARTS[name].__doc__}", flush=True)
        PARTS[name]()
        for data in ROOT.iterdir():
            shutil.rmtree(data, ignore_errors=True)
