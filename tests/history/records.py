"""What a history consists of. A worker appends one line of JSON for each record, at once: a killed one loses none."""

import os
from pathlib import Path
from typing import Literal

import msgspec


class LeaseCall(msgspec.Struct, frozen=True, kw_only=True, tag="lease"):
    """`held`: Redis confirmed that the lease is the holder's."""

    what: Literal["acquire", "keep", "release"]
    key: str
    holder: str
    called: float
    returned: float
    ttl: float
    held: bool


class Asked(msgspec.Struct, frozen=True, kw_only=True, tag="asked"):
    """One request of a client. `text` is None if it failed."""

    worker: int
    question: str
    called: float
    returned: float
    outcome: str
    text: str | None


class Silence(msgspec.Struct, frozen=True, tag="silence"):
    """The worker ran nothing: it was stopped, or had no core although a timer was due at `begin`."""

    worker: int
    begin: float
    end: float

    def meets(self, begin: float, end: float) -> bool:
        return self.begin < end and begin < self.end


Recorded = LeaseCall | Asked | Silence


class HistoryWriter:
    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def add(self, record: Recorded) -> None:
        os.write(self._descriptor, msgspec.json.encode(record) + b"\n")


def read_history(path: Path, last_bytes: int | None = None) -> list[Recorded]:
    """Returns all records, or those that lie wholly in the last bytes. Leaves out a line that is being written."""
    with path.open("rb") as file:
        if last_bytes is not None and path.stat().st_size > last_bytes:
            file.seek(-last_bytes, os.SEEK_END)
            file.readline()
        return [msgspec.json.decode(line, type=Recorded) for line in file if line.endswith(b"\n")]
