"""The line to the matrix runner (proof/src/compat/session.rs): what it can be asked, how a
scenario is reported, and the records that every Python program sends and expects back."""

import sys
import time
import traceback


class Record:
    """A record as it is sent, and as it must come back."""

    def __init__(self, key, value, headers, timestamp):
        self.key, self.value, self.headers, self.timestamp = key, value, headers, timestamp

    def __eq__(self, other):
        return (self.key, self.value, self.headers, self.timestamp) == (
            other.key, other.value, other.headers, other.timestamp)

    def __repr__(self):
        return f"Record({self.key!r}, {self.value!r}, {self.headers!r}, {self.timestamp})"


def records(count, first_timestamp=1_700_000_000_000, step_ms=1000):
    """Records that differ in all they can: no key, no value, headers, longer and shorter ones.
    Each is long enough to shrink when compressed: some clients send plainly what would not, and
    how a client cuts its batches is its own affair."""
    made = []
    for i in range(count):
        key = None if i % 7 == 3 else f"device-{i % 5} ".encode() * 10
        value = None if i % 11 == 5 and key else f"reading {i} ".encode() * (9 + i % 13)
        headers = [("unit", b"K"), ("n", str(i).encode())] if i % 3 == 0 else []
        made.append(Record(key, value, headers, first_timestamp + i * step_ms))
    return made


def same(got, wanted):
    """Fails at the first record that differs."""
    for at, (left, right) in enumerate(zip(got, wanted)):
        check(left == right, f"record {at} is {left}, not {right}")
    check(len(got) == len(wanted), f"{len(got)} records, not {len(wanted)}")


def check(holds, why):
    """An assertion that no interpreter flag takes out."""
    if not holds:
        raise AssertionError(why)


def ask(*words):
    """Asks the runner and returns what follows its ok; anything else fails the scenario."""
    print("@" + " ".join(str(word) for word in words), flush=True)
    reply = sys.stdin.readline().strip()
    check(reply == "ok" or reply.startswith("ok "), f"{' '.join(map(str, words))}: {reply}")
    return reply[3:]


def until(condition, seconds, what):
    """Calls until it returns something true, and returns that."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        result = condition()
        if result:
            return result
    raise AssertionError(f"not within {seconds} s: {what}")


def run(scenarios):
    """Runs (name, function) pairs in order, reports each, and exits with 1 if any failed."""
    failed = 0
    for name, scenario in scenarios:
        started = time.monotonic()
        try:
            scenario()
            print(f"@pass {name}", flush=True)
        except Exception as error:
            failed += 1
            traceback.print_exc()
            why = " ".join(f"{type(error).__name__}: {error}".split())
            print(f"@fail {name}: {why}", flush=True)
        print(f"{name}: {time.monotonic() - started:.1f} s", flush=True)
    sys.exit(1 if failed else 0)
