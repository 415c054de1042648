"""Exit codes of anyclaude. The launcher passes on the agent's own exit code.

The numbers are large, so that a script can tell our failures from the agent's; their meanings follow `sysexits.h`.
"""

from enum import IntEnum

import click


class Exit(IntEnum):
    """`FAILED`: a check of `doctor` failed, or nothing was found. 2 is click's code for wrong usage."""

    FAILED = 1
    USAGE = 2
    NO_MODEL = 66
    UNAVAILABLE = 69
    PORT_IN_USE = 75
    CONFIG = 78
    NO_AGENT = 127


class Failure(click.ClickException):
    """Ends the command with one line that names the next step, and with an exit code."""

    def __init__(self, code: Exit, message: str) -> None:
        super().__init__(message)
        self.exit_code = code  # type: ignore[misc]  # click declares it on the class, and reads it from the instance
