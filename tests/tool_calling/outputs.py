"""The table of model outputs, and what a parse of one is compared by."""

import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from service.events import ChoiceFinished, CompletionBuilder, Done, Event
from service.generation import Choice, Text, Tool, ToolCall, Usage
from service.tallies import CallTally
from service.tool_calling import StreamParser

FOLDER = Path(__file__).parent / "outputs"


def _tool(name: str, **properties: Any) -> Tool:
    return Tool(name=name, parameters={"type": "object", "properties": properties} if properties else {})


TOOLS = (
    _tool("get_weather", city={"type": "string"}, days={"type": "integer"}, detail={"type": "boolean"}),
    _tool("write_file", path={"type": "string"}, content={"type": "string"}),
    _tool(
        "run",
        command={"type": "string"},
        timeout={"anyOf": [{"type": "number"}, {"type": "null"}]},
        env={"type": "object"},
        args={"type": "array"},
    ),
    _tool("search"),
    _tool("ping"),
)


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`text` gives `content`, `calls` (name and arguments' text) and `counts` besides their number. `detected`: also
    when the family is not told. `tools`: whether any are on offer."""

    name: str
    text: str
    calls: list[tuple[str, str]]
    content: str = ""
    reasoning: str = ""
    counts: dict[str, int] = {}
    detected: bool = True
    tools: bool = True
    family: str | None = None

    @property
    def offered(self) -> Sequence[Tool]:
        return TOOLS if self.tools else ()


def load() -> list[tuple[str, Case]]:
    """Every case with its family's name; the file `any.toml` holds those for no family."""
    return [
        (path.stem, msgspec.convert(case, Case))
        for path in sorted(FOLDER.glob("*.toml"))
        for case in tomllib.loads(path.read_text(encoding="utf-8"))["case"]
    ]


def events(
    pieces: Iterable[str], family: str | None, tools: Sequence[Tool] = TOOLS, *, truncated: bool = False
) -> tuple[list[Event], CallTally]:
    parser = StreamParser(tools, family)
    found = [event for piece in pieces for event in parser.feed(piece)]
    return found + parser.finish(truncated=truncated), parser.counts


def choice_of(found: Iterable[Event]) -> Choice:
    builder = CompletionBuilder()
    for event in (*found, ChoiceFinished(0, "stop"), Done(Usage(prompt_tokens=0, completion_tokens=0))):
        builder.feed(event)
    return builder.build().choices[0]


def without_ids(choice: Choice) -> list[object]:
    """The parts in their order; calls as name and arguments."""
    return [(p.name, p.arguments) if isinstance(p, ToolCall) else (type(p), p.text) for p in choice.parts]


def calls_of(choice: Choice) -> list[tuple[str, str]]:
    return [(call.name, call.arguments) for call in choice.tool_calls]


__all__ = ["TOOLS", "Case", "Text", "calls_of", "choice_of", "events", "load", "without_ids"]
