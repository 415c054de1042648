"""Each worker of pytest-xdist uses ports of its own."""

import os

from benchmarks.ports import PortRange

FIRST_PORT = 16_384
PORTS_OF_A_WORKER = 2_048
WORKERS = 8

_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS

free_port = PortRange(FIRST_PORT + _worker * PORTS_OF_A_WORKER, PORTS_OF_A_WORKER).free
