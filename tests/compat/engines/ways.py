"""One way to get a sum over a topic's readings into DuckDB, timed: prints seconds, rows and the sum as JSON.

    python ways.py WAY KAFKA HTTP TOPIC DIRECTORY

Caller: `cargo xtask bench http-replay`, with the environment of `cargo xtask compat engines --install`."""

import json
import pathlib
import subprocess
import sys
import time
import urllib.request

import duckdb
import pyarrow.ipc

WAY, KAFKA, HTTP, TOPIC, DIRECTORY = sys.argv[1:]
COUNT = "select count(*), sum(count)"


def replay(query):
    return urllib.request.urlopen(f"http://{HTTP}/api/v1/topics/{TOPIC}/replay?{query}")


def kcat():
    """What a user does today: each record's JSON in a JSON text, into a file, and DuckDB over that."""
    file = pathlib.Path(DIRECTORY) / "records.json"
    with open(file, "wb") as out:
        subprocess.run(["kcat", "-b", KAFKA, "-C", "-t", TOPIC, "-o", "beginning", "-e", "-q", "-J"], stdout=out, check=True)
    reading = f"select (payload::json->>'count')::bigint as count from read_json('{file}', format='newline_delimited')"
    found = duckdb.sql(f"{COUNT} from ({reading})").fetchone()
    file.unlink()
    return found


def arrow(query=""):
    readings = pyarrow.ipc.open_stream(replay(f"format=arrow{query}")).read_all()
    return duckdb.sql(f"{COUNT} from readings").fetchone()


def parquet(query=""):
    file = pathlib.Path(DIRECTORY) / "records.parquet"
    with replay(f"format=parquet{query}") as answer, open(file, "wb") as out:
        while piece := answer.read(1 << 20):
            out.write(piece)
    found = duckdb.sql(f"{COUNT} from '{file}'").fetchone()
    file.unlink()
    return found


def files():
    """Parquet files of what is sealed, by DuckDB's own requests."""
    import duckdb_extensions

    connection = duckdb.connect(config={"extension_directory": f"{DIRECTORY}/extensions", "autoinstall_known_extensions": False})
    duckdb_extensions.import_extension("httpfs", con=connection)
    began = time.monotonic()
    listed = json.loads(urllib.request.urlopen(f"http://{HTTP}/api/v1/topics/{TOPIC}/files").read())["files"]
    urls = [f"http://{HTTP}{file['url']}" for file in listed]
    found = connection.sql(f"{COUNT} from read_parquet({urls!r})").fetchone()
    return time.monotonic() - began, found


WAYS = {
    "kcat": kcat,
    "arrow": arrow,
    "arrow-column": lambda: arrow("&columns=count"),
    "parquet": parquet,
    "parquet-column": lambda: parquet("&columns=count"),
}

if WAY == "files":
    seconds, (rows, total) = files()
else:
    began = time.monotonic()
    rows, total = WAYS[WAY]()
    seconds = time.monotonic() - began
print(json.dumps({"seconds": seconds, "rows": rows, "sum": int(total)}))
