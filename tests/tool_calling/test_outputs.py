"""What models write, in every format, and every way to cut it: the table is in `outputs/`, one file a family."""

import json
import random

import msgspec
import pytest

from service.events import ToolCallAbandoned, ToolCallDelta, ToolCallStarted
from service.tool_calling import FAMILIES, parse
from tests.tool_calling.outputs import Case, calls_of, choice_of, events, load, without_ids

TABLE = load()
IDS = [f"{family}: {case.name}" for family, case in TABLE]
each_case = pytest.mark.parametrize(("family", "case"), TABLE, ids=IDS)


def named(family: str, case: Case) -> str | None:
    return family if family in FAMILIES else case.family


def test_the_table_covers_every_family() -> None:
    assert {family for family, _ in TABLE} >= set(FAMILIES)
    assert len(TABLE) >= 150


@each_case
def test_gives_what_the_table_says(family: str, case: Case) -> None:
    for told in {named(family, case), None if case.detected else named(family, case)}:
        output = parse(case.text, case.offered, told)
        assert [(call.name, call.arguments) for call in output.tool_calls] == case.calls
        assert output.content == case.content
        assert output.reasoning == case.reasoning
        counts = {name: n for name, n in msgspec.structs.asdict(output.counts).items() if n and name != "calls"}
        assert counts == case.counts
        assert output.counts.calls == len(case.calls)


@each_case
def test_is_the_same_cut_anywhere(family: str, case: Case) -> None:
    told = named(family, case)
    whole, counts = events([case.text], told, case.offered)
    expected = without_ids(choice_of(whole))
    for at in range(len(case.text) + 1):
        found, found_counts = events([case.text[:at], case.text[at:]], told, case.offered)
        assert without_ids(choice_of(found)) == expected
        assert found_counts == counts


@each_case
def test_is_the_same_in_random_pieces_and_single_characters(family: str, case: Case) -> None:
    told = named(family, case)
    expected = without_ids(choice_of(events([case.text], told, case.offered)[0]))
    draw = random.Random(case.text)
    for _ in range(5):
        cuts = sorted(draw.choices(range(len(case.text) + 1), k=draw.randint(1, 12)))
        pieces = [case.text[a:b] for a, b in zip([0, *cuts], [*cuts, len(case.text)], strict=True)]
        assert without_ids(choice_of(events(pieces, told, case.offered)[0])) == expected
    assert without_ids(choice_of(events(case.text, told, case.offered)[0])) == expected


@each_case
def test_a_text_that_breaks_off_invents_no_call(family: str, case: Case) -> None:
    """At every place where the tokens may run out: the calls are those that were whole by then, or fewer."""
    told = named(family, case)
    for end in range(len(case.text)):
        found, _ = events([case.text[:end]], told, case.offered, truncated=True)
        calls = calls_of(choice_of(found))
        assert calls == case.calls[: len(calls)]


@each_case
def test_nothing_is_lost(family: str, case: Case) -> None:
    """Where no call comes out, the text comes out as it was."""
    framed = family in FAMILIES and FAMILIES[family].frames
    if not case.calls and not case.reasoning and not framed:
        assert parse(case.text, case.offered, named(family, case)).content == case.text


@each_case
def test_the_events_of_a_call_are_in_order(family: str, case: Case) -> None:
    found, _ = events(case.text, named(family, case), case.offered)
    ids = [event.id for event in found if isinstance(event, ToolCallStarted)]
    assert len(set(ids)) == len(ids)
    open_call = False
    for event in found:
        if isinstance(event, ToolCallDelta | ToolCallAbandoned):
            assert open_call
        open_call = isinstance(event, ToolCallStarted | ToolCallDelta)
    for call in choice_of(found).tool_calls:
        assert isinstance(json.loads(call.arguments), dict)
