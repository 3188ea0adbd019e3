"""Runs one of mosquitto's tests of a broker, from a checkout of it, on ours.

They compare byte by byte with what mosquitto sends; here that is done by `packets.essence`.

    mosquitto_test.py CHECKOUT/test/broker/TEST [WORD...]
"""

import pathlib
import runpy
import sys

from packets import essence, packets, read_packet

sys.argv = sys.argv[1:]
tests = pathlib.Path(sys.argv[0]).resolve().parent
sys.path[:0] = [str(tests), str(tests.parent)]

import mosq_test  # noqa: E402

exact = mosq_test.expect_packet


def expect_packet(sock, name, expected):
    if not expected:
        return exact(sock, name, expected)
    for wanted in packets(expected):
        try:
            got = read_packet(sock)
            if not got:
                raise BrokenPipeError(f"the end, when {name} was to come")
        except TimeoutError:
            got = b""
        if essence(got) != essence(wanted):
            print(f"FAIL: {name}: got {got.hex()}, not {wanted.hex()}")
            raise mosq_test.TestError
    return True


mosq_test.expect_packet = expect_packet
runpy.run_path(sys.argv[0], run_name="__main__")
