"""Three million flights (vega-datasets 3.2.1, data/flights-3m.parquet) in by four doors, and read by curl, pandas, Polars, pyarrow
and DuckDB from URLs; each result equals the source: counts, sums, the history of each airport, windows of time. FLIGHTS_ROWS
says how many of them are taken, spread over the whole set; 60,000 if it does not. The source is what pyarrow reads of the file; a flight's `row` is its
place in it."""

import gzip
import io
import json
import os
import pathlib
import random
import subprocess
import sys
import urllib.parse
import urllib.request

import confluent_kafka
import confluent_kafka.admin
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet

from desk import ask, check, run, until

BOOTSTRAP = sys.argv[1]
ROWS = int(os.environ.get("FLIGHTS_ROWS", 60_000))
FILE = pathlib.Path(os.environ["COMPAT_CACHE"]) / "npm/vega-datasets/data/flights-3m.parquet"
TOPIC = "flights"
PARTITIONS = 4
FIELDS = ["row", "delay", "distance", "origin", "destination"]
# Bodies are made in pieces of so many rows.
PIECE = 50_000
SEGMENT_BYTES = max(ROWS * 100 // PARTITIONS // 6, 256 << 10)


def source():
    """The flights, in the file's order, with the time as milliseconds since 1970."""
    table = pa.parquet.read_table(FILE)
    check(table.num_rows == 3_000_000, f"{table.num_rows} flights in the file")
    table = table.take(pa.array(range(0, 3_000_000, 3_000_000 // ROWS)).slice(0, ROWS))
    time = table["date"].cast(pa.timestamp("ms")).cast(pa.int64())
    flights = pa.table({"row": pa.array(range(ROWS)), "time": time, "delay": table["delay"], "distance": table["distance"],
                        "origin": table["origin"].cast(pa.string()), "destination": table["destination"].cast(pa.string())})
    return flights.combine_chunks()


SOURCE = source()
FRAME = SOURCE.to_pandas()


def url(path="replay", **query):
    query = urllib.parse.urlencode({name.rstrip("_"): value for name, value in query.items()})
    return f"http://{ask('http')}/api/v1/topics/{TOPIC}/{path}" + (f"?{query}" if query else "")


def curl(*arguments, **how):
    return subprocess.run(["curl", "-sS", "--fail-with-body", *arguments], check=True, capture_output=True, **how).stdout


def send(number, piece, body, content_type, **query):
    """A body, every second one compressed."""
    headers = ["-H", f"Content-Type: {content_type}", "-H", "Expect:"]
    if number % 8 < 4:
        body = gzip.compress(body, 1)
        headers += ["-H", "Content-Encoding: gzip"]
    answer = curl("--data-binary", "@-", *headers, url("records", **query), input=body)
    check(json.loads(answer)["records"] == piece.num_rows, f"piece {number}: {answer[:300]}")


def by_lines(number, piece):
    lines = "\n".join(json.dumps(row, separators=(",", ":")) for row in piece.to_pylist())
    send(number, piece, lines.encode(), "application/x-ndjson", key_field="/origin", timestamp_field="/time", timestamp_unit="ms")


def by_csv(number, piece):
    out = io.BytesIO()
    pa.csv.write_csv(piece, out)
    send(number, piece, out.getvalue(), "text/csv", key_field="/origin", timestamp_field="/time", timestamp_unit="ms")


def by_arrow(number, piece):
    table = piece.append_column("key", piece["origin"]).append_column("timestamp", piece["time"].cast(pa.timestamp("ms", tz="UTC")))
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table, max_chunksize=20_000)
    send(number, piece, out.getvalue(), "application/vnd.apache.arrow.stream")


def by_kafka(producer, piece):
    failed = []

    def delivered(error, _message):
        if error is not None:
            failed.append(str(error))
    for row in piece.to_pylist():
        value = json.dumps(row)
        while True:
            try:
                producer.produce(TOPIC, value, row["origin"], timestamp=row["time"], on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.1)
    check(producer.flush(120) == 0 and not failed, f"not all was sent: {failed[:3]}")


def load():
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": BOOTSTRAP})
    config = {"segment.bytes": str(SEGMENT_BYTES)}
    for done in admin.create_topics([confluent_kafka.admin.NewTopic(TOPIC, PARTITIONS, 1, config=config)]).values():
        done.result(30)
    # The partitioner of the Java client and of this server.
    producer = confluent_kafka.Producer({"bootstrap.servers": BOOTSTRAP, "partitioner": "murmur2_random", "compression.type": "zstd",
                                         "linger.ms": 20, "queue.buffering.max.messages": 200_000, "enable.idempotence": True})
    # In order, so that the history of an airport has one.
    doors = [by_lines, by_arrow, lambda number, piece: by_kafka(producer, piece), by_csv]
    for number, at in enumerate(range(0, ROWS, PIECE)):
        doors[number % 4](number, SOURCE.slice(at, PIECE))


def same_rows(found, wanted, what):
    """Both are arrow arrays of row numbers, in order."""
    check(len(found) == len(wanted), f"{what}: {len(found)} rows, not {len(wanted)}")
    check(found.equals(wanted), f"{what}: other rows")


REPLAYED = {}


def pyarrow_all():
    """Each field of each flight; and where it is, for what reads files."""
    columns = ["partition", "offset", "timestamp", "key", *FIELDS]
    stream = pa.ipc.open_stream(urllib.request.urlopen(url(format="arrow", columns=",".join(columns))))
    table = stream.read_all().combine_chunks()
    check(table.num_rows == ROWS, f"{table.num_rows} rows of Arrow")
    REPLAYED["table"] = table.select(["partition", "offset", "row"])
    # Within a partition in the order of the source; a key lies in one partition, whatever the door.
    for partition in range(PARTITIONS):
        rows = table.filter(pc.equal(table["partition"], partition))["row"].to_numpy()
        check((rows[1:] > rows[:-1]).all(), f"partition {partition} is out of order")
    table = table.sort_by("row")
    for name in FIELDS:
        check(table[name].combine_chunks().equals(SOURCE[name].combine_chunks()), f"other values of {name}")
    check(table["key"].combine_chunks().equals(SOURCE["origin"].combine_chunks()), "other keys")
    check(table["timestamp"].cast(pa.int64()).combine_chunks().equals(SOURCE["time"].combine_chunks()), "other times")


def pandas_all():
    table = pd.read_parquet(url(format="parquet", columns=",".join(["timestamp", *FIELDS])))
    check(len(table) == ROWS, f"{len(table)} rows of Parquet")
    found = table.groupby("origin")[["delay", "distance"]].sum().sort_index()
    check(found.equals(FRAME.groupby("origin")[["delay", "distance"]].sum().sort_index()), "sums by origin")
    found = table.groupby([table["timestamp"].dt.strftime("%Y-%m-%d"), "destination"]).size().sort_index()
    days = pd.to_datetime(FRAME["time"], unit="ms", utc=True).dt.strftime("%Y-%m-%d")
    wanted = FRAME.groupby([days, "destination"]).size().sort_index()
    check(list(found.items()) == list(wanted.items()), "flights by day and destination")
    some = pd.read_csv(url(format="csv", where="delay > 240", columns="row,delay"))
    wanted = FRAME[FRAME["delay"] > 240]
    check(sorted(some["row"]) == list(wanted["row"]) and int(some["delay"].sum()) == int(wanted["delay"].sum()), "late flights of CSV")


def curl_all():
    lines = curl(url(columns="row", summary="true")).splitlines()
    summary = json.loads(lines.pop())["summary"]
    check(summary["records"] == len(lines) == ROWS, f"{len(lines)} lines, {summary}")
    check(sum(json.loads(line)["row"] for line in lines) == ROWS * (ROWS - 1) // 2, "the sum of rows")


def polars_stream():
    table = pl.read_ipc_stream(url(format="arrow", columns="destination,delay,distance"))
    found = table.group_by("destination").agg(pl.len().alias("n"), pl.col("delay").sum(), pl.col("distance").max()).sort("destination")
    wanted = pl.from_arrow(SOURCE).group_by("destination").agg(pl.len().alias("n"), pl.col("delay").sum(), pl.col("distance").max())
    check(found.equals(wanted.sort("destination")), "Polars by destination")


def listing():
    """The files' URLs, and the flights that are in them."""
    table = REPLAYED["table"]

    def sealed():
        files = json.loads(curl(url("files")))["files"]
        ends = {file["partition"]: file["to_offset"] for file in files}
        ends = pa.array([ends.get(partition, 0) for partition in range(PARTITIONS)])
        rows = table.filter(pc.less(table["offset"], pc.take(ends, table["partition"])))
        return rows.num_rows > ROWS // 2 and (files, rows)

    files, sealed = until(sealed, 60, "segments are sealed")
    base = f"http://{ask('http')}"
    return [base + file["url"] for file in files], FRAME.iloc[sealed["row"].to_pandas().sort_values().values]


def polars_files():
    urls, wanted = listing()
    found = pl.scan_parquet(urls).select(pl.len(), pl.col("row").sum(), pl.col("delay").sum()).collect().row(0)
    check(found == (len(wanted), wanted["row"].sum(), wanted["delay"].sum()), f"Polars over {len(urls)} files: {found}")
    for origin in ["ATL", "HNL"]:
        found = pl.scan_parquet(urls).filter(pl.col("key") == origin).select(pl.len(), pl.col("distance").sum()).collect().row(0)
        of = wanted[wanted["origin"] == origin]
        check(found == (len(of), of["distance"].sum()), f"Polars of {origin}: {found}")


def duckdb_files():
    urls, wanted = listing()
    duck = duckdb.connect(config={"extension_directory": "extensions", "autoinstall_known_extensions": False})
    import duckdb_extensions
    duckdb_extensions.import_extension("httpfs", con=duck)
    found = duck.sql(f"select key, count(*), sum(delay), sum(distance) from read_parquet({urls!r}) group by key order by key").fetchall()
    by_key = wanted.groupby("origin").agg(n=("row", "size"), delay=("delay", "sum"), distance=("distance", "sum")).sort_index()
    check(found == [tuple([key, *map(int, rest)]) for key, *rest in by_key.itertuples()], "DuckDB by key")
    chance = random.Random(5)
    for _ in range(5):
        start = int(chance.choice(FRAME["time"]))
        end = start + chance.choice([60_000, 3_600_000, 86_400_000])
        sql = f"select count(*), coalesce(sum(row), 0) from read_parquet({urls!r}) where epoch_ms(timestamp) >= {start} and epoch_ms(timestamp) < {end}"
        of = wanted[(wanted["time"] >= start) & (wanted["time"] < end)]
        found = duck.sql(sql).fetchone()
        check(found == (len(of), int(of["row"].sum())), f"DuckDB in {start}..{end}: {found}, not {len(of)}, {of['row'].sum()}")


def histories():
    chance = random.Random(6)
    origins = sorted(set(FRAME["origin"]))
    for origin in chance.sample(origins, min(20, len(origins))):
        body = curl(url(format="arrow", key=origin, columns="row"))
        found = pa.ipc.open_stream(body).read_all()["row"].combine_chunks()
        same_rows(found, pa.array(FRAME[FRAME["origin"] == origin]["row"]), f"the history of {origin}")


def windows():
    chance = random.Random(7)
    times = FRAME["time"]
    for _ in range(30):
        start = int(chance.choice(times)) + chance.randrange(-60_000, 60_000)
        end = start + chance.choice([1, 60_000, 3_600_000, 86_400_000, 7 * 86_400_000])
        order = chance.choice(["offset", "time"])
        body = curl(url(format="arrow", from_=f"{start}ms", to=f"{end}ms", order=order, columns="row,timestamp"))
        table = pa.ipc.open_stream(body).read_all()
        wanted = pa.array(FRAME[(times >= start) & (times < end)]["row"])
        same_rows(table.sort_by("row")["row"].combine_chunks(), wanted, f"{start}..{end}")
        if order == "time":
            got = table["timestamp"].cast(pa.int64()).to_numpy()
            check((got[1:] >= got[:-1]).all(), "not in the order of time")


def downsampled():
    body = curl(url(resolution="1d", values="delay", format="csv", columns="key,timestamp,records,delay.sum,delay.min,delay.max"))
    found = pd.read_csv(io.BytesIO(body), keep_default_na=False)
    found = [(row[1], row[2], row[3], row[4], row[5], row[6]) for row in found.itertuples()]
    day = pd.to_datetime(FRAME["time"] // 86_400_000 * 86_400_000, unit="ms").dt.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    wanted = FRAME.groupby(["origin", day])["delay"].agg(["size", "sum", "min", "max"])
    wanted = [(*key, *(int(one) for one in row)) for key, row in zip(wanted.index, wanted.values)]
    check(sorted((*row[:3], *map(int, map(float, row[3:]))) for row in found) == sorted(wanted), "days of airports")


if __name__ == "__main__":
    run([
        ("load", load),
        ("pyarrow", pyarrow_all),
        ("pandas", pandas_all),
        ("curl", curl_all),
        ("polars", polars_stream),
        ("polars files", polars_files),
        ("duckdb files", duckdb_files),
        ("histories", histories),
        ("time windows", windows),
        ("days", downsampled),
    ])
