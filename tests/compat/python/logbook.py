"""What a member of a group under chaos tells (proof/src/chaos/member.rs): one JSON object a line on stdout, with the
time in microseconds. It is told to leave by a line on stdin, or by its end.

    assigned  generation, partitions      what it now owns, and since which generation
    revoked, lost                         that it owns nothing any more
    seen      partition, records          what it was shown, as [offset, value] pairs
    committing, then committed | refused  an attempt, with generation and offsets, and what came of it
    fenced                                another has taken its instance id; it ends
"""

import json
import logging
import os
import sys
import threading
import time

BROKER, GROUP, TOPIC, SESSION_MS, REBALANCE_MS = sys.argv[1:6]
SESSION_MS, REBALANCE_MS = int(SESSION_MS), int(REBALANCE_MS)
INSTANCE = sys.argv[6] if len(sys.argv) > 6 else None
LEAVING = threading.Event()
# To stderr, which goes to the log of this member.
logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
WORK_SECONDS = 0.1


def say(event, **facts):
    """Writes a line whole: callbacks may come from other threads."""
    line = json.dumps({"event": event, "at_us": time.time_ns() // 1000, **facts}) + "\n"
    os.write(sys.stdout.fileno(), line.encode())


def commit(attempt, generation, offsets):
    """Commits synchronously and tells about it. `attempt` returns why it was refused, or None. What was seen takes some
    time to work on: a member that is stalled meanwhile, and wakes when the group has gone on, commits as a stranger."""
    time.sleep(WORK_SECONDS)
    say("committing", generation=generation(), offsets={str(partition): offset for partition, offset in offsets.items()})
    why = attempt()
    if why is None:
        say("committed", generation=generation())
    else:
        say("refused", why=str(why))


def wait_to_be_told():
    sys.stdin.readline()
    LEAVING.set()


threading.Thread(target=wait_to_be_told, daemon=True).start()
