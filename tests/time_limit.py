"""A pytest plugin for `make test-mutation`: a test that waits for ever or never ends its work ends its process, as a
failure."""

import os
import signal
import time
from collections.abc import Generator

import pytest

# The longest pause of a test of the selection is 3.5 seconds, and the most work 5.
PAUSE_SECONDS = 6.0
WORK_SECONDS = 30.0
LEAST_WORK_SECONDS = 0.05


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    began = seen = time.process_time()

    def look(*_: object) -> None:
        nonlocal seen
        before, seen = seen, time.process_time()
        # A busy machine gives the process little time, and not none.
        if seen - before < LEAST_WORK_SECONDS or seen - began > WORK_SECONDS:
            os._exit(pytest.ExitCode.TESTS_FAILED)

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, PAUSE_SECONDS, PAUSE_SECONDS)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
