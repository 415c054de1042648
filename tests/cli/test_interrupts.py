"""Ctrl-C at any moment ends what waits for it."""

import subprocess

from service.own_python import own_python
from tests.patience import PATIENCE_SECONDS

# The signal arrives before each line in turn that a wait executes, also those of the libraries.
INTERRUPTED = """
import itertools, signal, sys
from service.cli.stats import until_ctrl_c

interrupted = until_ctrl_c()

def ended_at(line):
    lines = itertools.count()
    def trace(frame, event, argument):
        if event == "line" and next(lines) == line:
            signal.raise_signal(signal.SIGINT)
        return trace
    sys.settrace(trace)
    try:
        return interrupted(0.01)
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)

print(next(line for line in itertools.count() if not ended_at(line)))
"""


def test_ctrl_c_at_any_line_of_a_wait_ends_it() -> None:
    done = subprocess.run(
        own_python("-c", INTERRUPTED), capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True
    )
    assert int(done.stdout) >= 2
