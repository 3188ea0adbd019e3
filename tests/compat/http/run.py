"""The HTTP port against its own OpenAPI document, by schemathesis; its metrics, by promtool.
"""

import json
import os
import subprocess
import sys
import urllib.request

from desk import ask as told, check, run

URL = f"http://{told('http')}"
# What follows a topic has no end, and a long poll waits for as long as it is told.
SECONDS_MAX = 45
CHECKS = ["not_a_server_error", "status_code_conformance", "content_type_conformance",
          "response_schema_conformance", "response_headers_conformance"]


def ask(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(URL + path, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=SECONDS_MAX) as answer:
        return answer.read()


def document():
    described = json.loads(ask("GET", "/api/v1/openapi.json"))
    check(described["openapi"].startswith("3.1"), described["openapi"])
    check(len(described["paths"]) > 30, f"{len(described['paths'])} paths")


def conforms():
    # Something to be found: the names that the document gives as examples.
    ask("POST", "/api/v1/topics", {"name": "readings", "partitions": 2})
    ask("POST", "/api/v1/groups/dashboard/reset", {"topic": "readings", "to": "earliest"})
    program = os.path.join(os.path.dirname(sys.executable), "schemathesis")
    done = subprocess.run(
        [program, "run", f"{URL}/api/v1/openapi.json", "--checks", ",".join(CHECKS),
         "--phases", "examples,coverage,fuzzing", "--max-examples", "10", "--no-shrink",
         "--continue-on-failure", "--request-timeout", str(SECONDS_MAX), "--no-color", "--seed", "1",
         "--generation-database", "none", "--max-time", "60", "--warnings", "off",
         # Version 3 of the REST proxy calls objects one after the other JSON.
         "--exclude-path-regex", "/follow$|^/v3/.*/records$"],
        capture_output=True, text=True, timeout=200)
    print(done.stdout)
    print(done.stderr)
    check(done.returncode == 0, f"schemathesis ended with {done.returncode}; the log says why")


def metrics():
    page = ask("GET", "/metrics")
    done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True)
    said = (done.stdout + done.stderr).decode().strip()
    check(done.returncode == 0 and not said, said)


run([("document", document), ("conforms", conforms), ("metrics", metrics)])
