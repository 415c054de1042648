"""Exit codes. Their meanings follow `sysexits.h`, and their large numbers differ from an agent's own codes."""

from enum import IntEnum

import click


class Exit(IntEnum):
    """`FAILED`: a check of `doctor` failed, or nothing was found. click uses 2 for wrong usage."""

    FAILED = 1
    USAGE = 2
    NO_MODEL = 66
    UNAVAILABLE = 69
    PORT_IN_USE = 75
    CONFIG = 78
    NO_AGENT = 127


class Failure(click.ClickException):
    """Ends the command with an exit code and one line that names the next step."""

    def __init__(self, code: Exit, message: str) -> None:
        super().__init__(message)
        self.exit_code = code  # type: ignore[misc]  # click declares it on the class, and reads it from the instance
