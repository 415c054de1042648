"""Measures the search for tool calls in text. Twice the text must take about twice the time."""

from time import process_time

from benchmarks.case import Case, Measure, Run
from service.generation import Tool
from service.tool_calling import StreamParser

TOOLS = [Tool(name="f", parameters={"properties": {"a": {"type": "string"}}})]
TOKEN = 4  # characters
ROUNDS = 7
ORDINARY = {
    "prose": "The `quick` brown fox,\nas they say, jumps [over] the {lazy} dog. ",
    "calls": '<tool_call>\n{"name": "f", "arguments": {"a": "some text\\n", "b": [1, 2, 3]}}\n</tool_call>\n',
}
HOSTILE = {
    "openings": "<tool_call>",
    "calls cut in a string": '<tool_call>{"name": "f", "arguments": {"a": "',
    "calls without a name": '<tool_call>{"arguments": {"a": "b"}, ',
    "functions without an end": "<function=f><parameter=a>",
    "Python without an end": "[f(a=[\n",
    "fences": '```json\n{"name": "f", "arguments": {}}\n```\nx\n',
    "code spans": "`<tool_call>",
    "brackets": '[{"name": ',
}


def parse_seconds(text: str, piece: int) -> float:
    """Returns processor time."""
    parser = StreamParser(TOOLS)
    started = process_time()
    for at in range(0, len(text), piece):
        parser.feed(text[at : at + piece])
    parser.finish()
    return process_time() - started


def rate(unit: str, length: int) -> float:
    """Returns tokens per second."""
    text = unit * (length // len(unit))
    return len(text) / TOKEN / min(parse_seconds(text, TOKEN) for _ in range(ROUNDS))


def growth(unit: str, length: int, piece: int) -> float:
    """The fastest of each side counts, because other work on the machine only adds time."""
    once = unit * (length // len(unit))
    rounds = [(parse_seconds(once, piece), parse_seconds(once * 2, piece)) for _ in range(ROUNDS)]
    return min(twice for _, twice in rounds) / min(single for single, _ in rounds)


async def run(run: Run) -> dict[str, float]:
    length = run.pick(50_000, 5_000)
    rates = {f"{name}, by the token": rate(unit, length) for name, unit in ORDINARY.items()}
    doubled = {
        f"twice the {name}": max(growth(unit, length, TOKEN), growth(unit, length, 2 * length))
        for name, unit in (ORDINARY | HOSTILE).items()
    }
    return rates | doubled


CASE = Case(
    title="Finding tool calls in text, every format at once",
    measures=(
        *(Measure(name=f"{name}, by the token", unit="tokens/s", at_least=10_000) for name in ORDINARY),
        *(Measure(name=f"twice the {name}", at_most=2.6) for name in (ORDINARY | HOSTILE)),
    ),
    run=run,
)
