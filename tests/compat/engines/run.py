"""Engines with columns against the HTTP port: curl, pandas, Polars, pyarrow and DuckDB read a topic by its URL, and each
result equals what was sent: counts, sums, per-key histories, time windows. The records are the recordings of
tests/data, with devices whose clocks are wrong and values of other shapes among them; sent by confluent-kafka."""

import collections
import csv
import gzip
import io
import json
import pathlib
import random
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

import confluent_kafka
import confluent_kafka.admin
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from desk import ask, check, run, until

BOOTSTRAP = sys.argv[1]
TOPIC = "fleet"
PARTITIONS = 3
DATA = pathlib.Path(__file__).resolve().parents[2] / "data"
START_MS = 1_700_000_000_000

Sent = collections.namedtuple("Sent", "partition key timestamp value")


def rows(name):
    with gzip.open(DATA / name, "rt", newline="") as file:
        yield from csv.DictReader(file)


def readings():
    """What is sent, in order: three devices by turns, and now and then something that is no reading."""
    buoy = [("buoy", {"temp": float(row["temperature (celsius)"]), "at": row["time (UTC)"]})
            for row in rows("sea_surface_temperature.csv.gz") if row["temperature (celsius)"]]
    ride = [("ride", {"pos": {"lat": int(row["position_lat"]), "long": int(row["position_long"])},
                      "power": int(float(row["power"])), "speed": float(row["speed"]), "on": int(row["cadence"]) > 0})
            for row in rows("cycling.csv.gz") if row["power"] and row["position_lat"] and row["cadence"] and row["speed"]]
    glucose = [("glucose, \"left\" arm", {"glucose": int(row["glucose"]), "isig": float(row["isig"]), "note": None})
               for row in rows("CGM.csv.gz") if row["glucose"] not in ("", "nil") and row["isig"] not in ("", "nil")]
    chance = random.Random(14)
    sent = []
    for i in range(8_000):
        for device, (key, value) in enumerate(each[i % len(each)] for each in (buoy, ride, glucose)):
            # The ride's clock jumps back and forth within ten minutes; the glucose sensor's is an hour behind.
            late = (chance.randrange(-600_000, 600_000) if device == 1 else -3_600_000 if device == 2 else 0)
            sent.append(Sent(device, key.encode(), START_MS + i * 1000 + late, json.dumps(value).encode()))
    for i, value in enumerate([b"no JSON, \"but\" text\r\n", None, b"", b"17", b"[1, 2]", '{"temp": "é"}'.encode()]):
        sent.append(Sent(0, None if i % 2 else b"odd", START_MS + i, value))
    return sent


SENT = readings()
BY_PLACE = {}


def url(path="replay", topic=TOPIC, **query):
    query = urllib.parse.urlencode({name.rstrip("_"): value for name, value in query.items()})
    return f"http://{ask('http')}/api/v1/topics/{topic}/{path}" + (f"?{query}" if query else "")


def create(topic, partitions, **config):
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": BOOTSTRAP})
    new = confluent_kafka.admin.NewTopic(topic, partitions, 1, config=config)
    for done in admin.create_topics([new]).values():
        done.result(30)


def load():
    create(TOPIC, PARTITIONS)
    producer = confluent_kafka.Producer({"bootstrap.servers": BOOTSTRAP, "compression.type": "zstd", "linger.ms": 20})

    def delivered(sent):
        def note(error, message):
            check(error is None, str(error))
            BY_PLACE[(sent.partition, message.offset())] = sent
        return note

    for sent in SENT:
        producer.produce(TOPIC, sent.value, sent.key, sent.partition, on_delivery=delivered(sent), timestamp=sent.timestamp,
                         headers=[("unit", b"K")] if sent.key == b"buoy" else [])
        producer.poll(0)
    check(producer.flush(60) == 0, "not all was sent")
    check(len(BY_PLACE) == len(SENT), f"{len(BY_PLACE)} places of {len(SENT)} records")


def curl(*arguments):
    return subprocess.run(["curl", "-sS", "--fail-with-body", *arguments], check=True, capture_output=True).stdout


def text(data):
    return None if data is None else data.decode()


def check_all(found):
    """Each place, key, time and value, of (partition, offset, key, milliseconds, value)."""
    found = {(partition, offset): (key, time, value) for partition, offset, key, time, value in found}
    wanted = {place: (text(sent.key), sent.timestamp, text(sent.value)) for place, sent in BY_PLACE.items()}
    check(len(found) == len(wanted), f"{len(found)} rows, not {len(wanted)}")
    for place, one in wanted.items():
        check(found.get(place) == one, f"{place} is {found.get(place)}, not {one}")


def temperatures():
    return [json.loads(sent.value)["temp"] for sent in SENT if sent.key == b"buoy"]


def curl_ndjson():
    lines = curl(url(summary="true")).decode().splitlines()
    summary = json.loads(lines.pop())["summary"]
    check(summary["records"] == len(SENT), f"the summary says {summary}")
    found = []
    for line in lines:
        row = json.loads(line)
        value = row["value"]
        if "value_encoding" not in row and value is not None:
            # Verbatim: the line holds the very bytes.
            value = line[line.rindex('"value":') + len('"value":'):-1]
        time = int(pd.Timestamp(row["timestamp"]).value // 1_000_000)
        found.append((row["partition"], row["offset"], row["key"], time, value))
    check_all(found)


def pandas_all():
    table = pd.read_csv(url(format="csv"), keep_default_na=False, dtype={"key": str, "value": str})
    check(len(table) == len(SENT), f"{len(table)} rows of CSV")
    check(table["timestamp"].iloc[0].endswith("Z"), "a time without its zone")
    numbers = pd.to_numeric(table[table["key"] == "buoy"]["temp"])
    check(list(numbers) == temperatures(), "temperatures of CSV")
    table = pd.read_parquet(url(format="parquet"))
    check(str(table["timestamp"].dtype).endswith("UTC]"), f"times are {table['timestamp'].dtype}")
    check_all((row.partition, row.offset, row.key if isinstance(row.key, str) else None,
               int(row.timestamp.value // 1_000_000), row.value if isinstance(row.value, str) else None)
              for row in table.itertuples())
    glucose = [json.loads(sent.value)["glucose"] for sent in SENT if sent.partition == 2]
    check(int(table["glucose"].sum()) == sum(glucose), "the sum of glucose")
    lines = pd.read_json(url(columns="key,temp", key="buoy"), lines=True, precise_float=True)
    check(list(lines["temp"]) == temperatures(), "temperatures of NDJSON")


def pyarrow_all():
    table = pa.ipc.open_stream(urllib.request.urlopen(url(format="arrow"))).read_all()
    check(table.schema.field("timestamp").type == pa.timestamp("ms", tz="UTC"), str(table.schema))
    check(table.schema.field("temp").type == pa.string(), "temp holds a text too")
    check(table.schema.field("power").type == pa.int64() and table.schema.field("on").type == pa.bool_(), str(table.schema))
    names = ["partition", "offset", "key", "timestamp", "value"]
    columns = [table.column(name).cast(pa.int64()) if name == "timestamp" else table.column(name) for name in names]
    check_all(zip(*(column.to_pylist() for column in columns)))
    powers = [json.loads(sent.value)["power"] for sent in SENT if sent.partition == 1]
    check(sum(value or 0 for value in table.column("power").to_pylist()) == sum(powers), "the sum of power")
    lats = [json.loads(sent.value)["pos"]["lat"] for sent in SENT if sent.partition == 1]
    check([value for value in table.column("pos.lat").to_pylist() if value is not None] == lats, "nested fields")
    headers = set(table.column("headers").to_pylist())
    check(headers == {None, '[{"key":"unit","value":"K"}]'}, str(headers))


def polars_all():
    table = pl.read_ipc_stream(url(format="arrow", partition="0,2"))
    counts = {key: count for key, count in table.group_by("key").len().iter_rows()}
    wanted = collections.Counter(text(sent.key) for sent in SENT if sent.partition != 1)
    check(counts == dict(wanted), f"{counts}, not {wanted}")
    isig = sum(json.loads(sent.value)["isig"] for sent in SENT if sent.partition == 2)
    check(abs(table["isig"].sum() - isig) < 1e-6 * isig, "the sum of isig")


def duckdb_all():
    fleet = pa.ipc.open_stream(urllib.request.urlopen(url(format="arrow"))).read_all()
    check(len(fleet) == len(SENT), "a table for DuckDB")
    found = duckdb.sql("select key, count(*), min(epoch_ms(timestamp)), max(epoch_ms(timestamp)) from fleet group by key").fetchall()
    wanted = {}
    for sent in SENT:
        wanted.setdefault(text(sent.key), []).append(sent.timestamp)
    wanted = {key: (len(times), min(times), max(times)) for key, times in wanted.items()}
    check({key: tuple(rest) for key, *rest in found} == wanted, f"{found}, not {wanted}")
    file = pathlib.Path("fleet.parquet")
    file.write_bytes(curl(url(format="parquet")))
    found = duckdb.sql(f"select count(*), sum(power), count(\"pos.lat\") from '{file}'").fetchone()
    powers = [json.loads(sent.value)["power"] for sent in SENT if sent.partition == 1]
    check(found == (len(SENT), sum(powers), len(powers)), f"DuckDB has {found}")
    lines = pathlib.Path("fleet.csv")
    lines.write_bytes(curl(url(format="csv")))
    found = duckdb.sql(f"select count(*), sum(glucose), count(value) from read_csv('{lines}', header=true, sample_size=-1, allow_quoted_nulls=false)").fetchone()
    glucose = sum(json.loads(sent.value)["glucose"] for sent in SENT if sent.partition == 2)
    check(found == (len(SENT), glucose, len(SENT) - 1), f"of CSV DuckDB has {found}")


def stamp(time):
    return f"{time}ms"


def windows():
    chance = random.Random(15)
    times = sorted(sent.timestamp for sent in SENT)
    for _ in range(40):
        start = chance.randrange(times[0] - 1000, times[-1])
        end = start + chance.choice([1, 1000, 60_000, 3_600_000])
        order = chance.choice(["offset", "time"])
        body = curl(url(format="arrow", from_=stamp(start), to=stamp(end), order=order, columns="partition,offset,timestamp"))
        table = pa.ipc.open_stream(body).read_all()
        found = list(zip(table.column("partition").to_pylist(), table.column("offset").to_pylist()))
        wanted = [place for place, sent in BY_PLACE.items() if start <= sent.timestamp < end]
        check(sorted(found) == sorted(wanted), f"{len(found)} records in {start}..{end}, not {len(wanted)}")
        if order == "time":
            got = table.column("timestamp").cast(pa.int64()).to_pylist()
            check(got == sorted(got), "not in the order of time")


def histories():
    for key in {sent.key for sent in SENT if sent.key}:
        table = pl.read_ipc_stream(io.BytesIO(curl(url(format="arrow", key=key.decode()))))
        wanted = [text(sent.value) for sent in SENT if sent.key == key]
        check(table["value"].to_list() == wanted, f"the history of {key}")
    body = curl(url(key_prefix="r", where="power > 200 and on = true", columns="power", format="csv")).decode()
    wanted = [value["power"] for value in (json.loads(sent.value) for sent in SENT if sent.key == b"ride")
              if value["power"] > 200 and value["on"]]
    check([int(line) for line in body.splitlines()[1:]] == wanted, "where")


def pages():
    found, resume = 0, {}
    while True:
        lines = curl(url(max_records=7_001, columns="offset", summary="true", **resume)).decode().splitlines()
        found += len(lines) - 1
        if len(lines) == 1:
            break
        places = json.loads(lines[-1])["summary"]["next_offset"]
        resume = {"resume": ",".join(f"{partition}:{offset}" for partition, offset in places.items())}
    check(found == len(SENT), f"{found} rows in pages")


def refusals():
    for query, status, code in [({"where": "power >"}, 400, "invalid_condition"), ({"columns": "powr", "format": "arrow"}, 400, "unknown_column"),
                                ({"partition": "9"}, 404, "unknown_partition"), ({"format": "xls"}, 400, "invalid_query"),
                                ({"from_": "soon"}, 400, "invalid_query")]:
        try:
            urllib.request.urlopen(url(**query))
            check(False, f"{query} is taken")
        except urllib.error.HTTPError as error:
            problem = json.load(error)
            check((error.code, problem["code"]) == (status, code), f"{query}: {error.code} {problem}")


LONG = 60_000


def long():
    """A topic of many segments, for what is sealed and for what takes its time."""
    create("long", 1, **{"segment.bytes": "1048576"})
    producer = confluent_kafka.Producer({"bootstrap.servers": BOOTSTRAP, "linger.ms": 20})
    chance = random.Random(16)
    for i in range(LONG):
        value = {"n": i, "noise": "%0400x" % chance.getrandbits(1600)}
        producer.produce("long", json.dumps(value), f"device-{i // 10_000}", timestamp=START_MS + i * 10)
        producer.poll(0)
    check(producer.flush(60) == 0, "not all was sent")


def files():
    """Files of what is sealed: the same bytes again, by ranges, and over several files at once."""
    def sealed():
        listing = json.loads(curl(url("files", "long")))["files"]
        return listing if listing and listing[-1]["to_offset"] > LONG * 8 // 10 else None

    listing = until(sealed, 60, "segments are sealed")
    base = f"http://{ask('http')}"
    urls = [base + file["url"] for file in listing]
    ends = [(file["from_offset"], file["to_offset"]) for file in listing]
    check(ends[0][0] == 0 and all(left[1] == right[0] for left, right in zip(ends, ends[1:])), f"files of {ends}")
    count, end = ends[-1][1], listing[-1]["to_offset"]
    for one in urls[:2]:
        whole = curl(one)
        head = urllib.request.urlopen(urllib.request.Request(one, method="HEAD"))
        check(int(head.headers["Content-Length"]) == len(whole), "the length of HEAD")
        check(curl("-r", "-8", one) == whole[-8:] and curl("-r", "4-99", one) == whole[4:100], "ranges")
        check(curl("-r", "0-1,4-5", one) == whole, "several ranges are answered by all")
        tag = head.headers["ETag"]
        code = ["-o", "part", "-w", "%{http_code}"]
        check(subprocess.run(["curl", "-s", *code, "-H", f"If-None-Match: {tag}", one], capture_output=True).stdout == b"304", "304")
        check(subprocess.run(["curl", "-s", *code, "-r", "99999999-", one], capture_output=True).stdout == b"416", "416")
        check(subprocess.run(["curl", "-s", *code, "-r", "0-3", "-H", "If-Range: \"x\"", one], capture_output=True).stdout == b"200", "If-Range")
        file = pa.parquet.ParquetFile(io.BytesIO(whole))
        at = file.schema_arrow.get_field_index("offset")
        stats = file.metadata.row_group(0).column(at).statistics
        check(stats.min == ends[urls.index(one)][0], "statistics of offsets")
    table = pl.scan_parquet(urls).select(pl.len(), pl.col("n").sum(), pl.col("offset").max()).collect()
    check(table.row(0) == (count, sum(range(count)), end - 1), f"Polars over all files: {table.row(0)}")
    some = pl.scan_parquet(urls).filter((pl.col("offset") >= 20_000) & (pl.col("offset") < 20_100)).select("n", "key").collect()
    check(some["n"].to_list() == list(range(20_000, 20_100)) and set(some["key"]) == {"device-2"}, "Polars by offset")
    before = {one: curl(one) for one in urls[:3]}
    ask("restart", "kill")
    again = f"http://{ask('http')}"
    for one, whole in before.items():
        check(curl(one.replace(base, again)) == whole, "other bytes after a restart")
    urls = [one.replace(base, again) for one in urls]
    duck = duckdb.connect(config={"extension_directory": "extensions", "autoinstall_known_extensions": False})
    import duckdb_extensions
    duckdb_extensions.import_extension("httpfs", con=duck)
    found = duck.sql(f"select count(*), sum(n), epoch_ms(max(timestamp)) from read_parquet({urls!r})").fetchone()
    check(found == (count, sum(range(count)), START_MS + (count - 1) * 10), f"DuckDB over all files: {found}")
    found = duck.sql(f"select count(*) from read_parquet({urls!r}) where key = 'device-1' and \"offset\" < 15000").fetchone()
    check(found == (5_000,), f"DuckDB by key: {found}")
    check(curl(url("files", "long")).count(b".parquet") >= len(urls), "the list after a restart")


def cut():
    """A body that breaks off looks broken to those who read it."""
    answer = urllib.request.urlopen(url("replay", "long", format="arrow"))
    stream = pa.ipc.open_stream(answer)
    stream.read_next_batch()
    ask("restart", "kill")
    try:
        while True:
            stream.read_next_batch()
    except StopIteration:
        check(False, "a cut stream was taken for a whole one")
    except Exception as error:
        print(f"as it should be: {error!r}")


def schema_stays():
    """What was learned of a topic is there after a restart, and the same columns come in the same order."""
    before = json.loads(curl(url("schema")))
    ask("restart", "kill")
    check(json.loads(curl(url("schema"))) == before, "another schema after a restart")
    names = [column["name"] for column in before["columns"]]
    table = pl.read_ipc_stream(io.BytesIO(curl(url(format="arrow", max_records=1))))
    check(table.columns == names, f"{table.columns}, not {names}")


if __name__ == "__main__":
    run([
        ("load", load),
        ("curl", curl_ndjson),
        ("pyarrow", pyarrow_all),
        ("pandas", pandas_all),
        ("polars", polars_all),
        ("duckdb", duckdb_all),
        ("time windows", windows),
        ("histories", histories),
        ("pages", pages),
        ("refusals", refusals),
        ("long", long),
        ("files", files),
        ("cut", cut),
        ("schema", schema_stays),
    ])
