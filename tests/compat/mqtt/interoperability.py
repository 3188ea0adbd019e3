"""Runs one of paho's interoperability tests, from a checkout of them, against a broker that runs.

Their own command line takes the port, and then gives what it was given to unittest, which does not know it.

    interoperability.py CHECKOUT/interoperability/client_test5.py HOST:PORT TEST
"""

import pathlib
import runpy
import sys
import unittest

file, address, test = sys.argv[1:]
host, port = address.rsplit(":", 1)
sys.path.insert(0, str(pathlib.Path(file).parent))
sys.argv = [file, "--hostname", host, "--port", port]
main = unittest.main
unittest.main = lambda: main(argv=[file, "-v", f"Test.{test}"])
runpy.run_path(file, run_name="__main__")
