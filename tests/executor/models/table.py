"""The table of model families in `docs/models.md`."""

from pathlib import Path
from typing import NamedTuple

from service.executor.loading.batching import Batching
from tests.executor.models.modes import KeptState

PAGE = Path(__file__).parents[3] / "docs" / "models.md"
BEGIN, END = "<!-- families: written by make test-models -->", "<!-- end of families -->"
TITLE = "# Models\n"


class Row(NamedTuple):
    family: str
    batching: Batching
    state: KeptState

    @property
    def text(self) -> str:
        how = "batched" if self.batching.padded else "batched, prompts read one at a time"
        how = how if self.batching.possible else f"one request at a time: {self.batching.reason.partition(' (')[0]}"
        state = self.state
        kept = "not kept" if state.kind == "not kept" else f"{state.per_turn:,}"
        return f"| {self.family} | yes | {how} | {state.kind} | {state.per_token:,} | {kept} |"


class Table:
    """`failing` families are listed with the reason why they cannot be tried."""

    def __init__(self, failing: dict[str, str]) -> None:
        self.rows: list[Row] = []
        self._failing = failing

    def write(self) -> None:
        lines = {row.family: row.text for row in self.rows}
        lines |= {name: f"| {name} | not tried: {reason} | | | | |" for name, reason in self._failing.items()}
        head = ["| family | works | how | state | bytes a token | bytes a turn |", "|---|---|---|---|---|---|"]
        table = "\n".join([BEGIN, *head, *(lines[name] for name in sorted(lines, key=str.lower)), END])
        page = PAGE.read_text() if PAGE.exists() else f"{TITLE}\n{BEGIN}{END}\n"
        before, _, rest = page.partition(BEGIN)
        PAGE.write_text(before + table + rest.partition(END)[2])
