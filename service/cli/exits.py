"""The exit codes of our own. Whatever Claude Code exits with is passed on as it is.

Away from the small numbers, so that a script can tell our failures from Claude Code's; meanings after `sysexits.h`.
"""

from enum import IntEnum

import click


class Exit(IntEnum):
    """`FAILED` is a check of ours that did not pass (doctor); 2 is click's own, for wrong usage."""

    FAILED = 1
    USAGE = 2
    NO_MODEL = 66
    UNAVAILABLE = 69
    PORT_IN_USE = 75
    CONFIG = 78
    NO_CLAUDE = 127


class Failure(click.ClickException):
    """Ends the command with one line for the user, which says the next step, and with an exit code of ours."""

    def __init__(self, code: Exit, message: str) -> None:
        super().__init__(message)
        self.exit_code = code  # type: ignore[misc]  # click declares it on the class, and reads it from the instance
