"""Measures the effect of guessing on the speed of one answer.

There is no smaller model with the demo model's vocabulary, so a draft model is not measured.
"""

import itertools
import statistics
import time
from typing import Any

import msgspec

from benchmarks.case import Case, Measure, Run
from benchmarks.http_client import UnexpectedResponse, fetch, post_chat
from benchmarks.model_folders import dense_demo
from benchmarks.processes import NO_CACHES, service

CODE = '''class Basket:
    """What a customer wants to buy."""

    def __init__(self, customer, currency="EUR"):
        self.customer = customer
        self.currency = currency
        self.items = []

    def add(self, product, quantity=1):
        if quantity < 1:
            raise ValueError("Expected a quantity of at least 1.")
        self.items.append((product, quantity))

    def remove(self, product):
        self.items = [item for item in self.items if item[0] != product]

    def total(self):
        return sum(product.price * quantity for product, quantity in self.items)

    def is_empty(self):
        return len(self.items) == 0
'''
EDIT = {
    "type": "function",
    "function": {
        "name": "replace_in_file",
        "description": "Replaces a text in a file.",
        "parameters": {
            "type": "object",
            "properties": {
                "file_path": {"type": "string", "maxLength": 24},
                "old_string": {"type": "string", "maxLength": 16},
                "new_string": {"type": "string", "maxLength": 16},
                "replace_all": {"type": "boolean"},
                "encoding": {"enum": ["utf-8", "utf-16", "latin-1"]},
            },
            "required": ["file_path", "old_string", "new_string", "replace_all", "encoding"],
            "additionalProperties": False,
        },
    },
}


class Task(msgspec.Struct, frozen=True):
    """Each prompt is asked behind `history` once with each of `forms`, which are parts of a request. An answer of less
    than half of `tokens` is an error."""

    prompts: tuple[str, ...]
    tokens: int = 160
    forms: tuple[dict[str, Any], ...] = ({},)
    history: tuple[dict[str, str], ...] = ()


# The demo model hardly follows such a request at a temperature, unless it has seen an answer.
EDITED_BEFORE = (
    {"role": "user", "content": f"Repeat this file:\n```python\n{CODE}```"},
    {"role": "assistant", "content": f"```python\n{CODE}```"},
)

# The seed decides how much of the code such an answer copies: with seed 1, it is 5 and 52 %.
DRAWN: tuple[dict[str, Any], ...] = tuple({"temperature": 0.7, "seed": seed} for seed in (1, 2, 3))
PROSE = (
    "Write a very long story about seven ships and what became of them.",
    "Explain at length how bread is made, and why it rises.",
)

TASKS = {
    "code edit": Task(
        (
            f"Repeat this file. Change nothing but the name of the class, which becomes Cart:\n```python\n{CODE}```",
            f"Repeat this file. Change nothing but the method total, which becomes price:\n```python\n{CODE}```",
        )
    ),
    "code edit, temperature 0.7": Task(
        (
            "Repeat the file. Change nothing but the name of the class, which becomes Cart.",
            "Repeat the file. Change nothing but the method total, which becomes price.",
        ),
        forms=DRAWN,
        history=EDITED_BEFORE,
    ),
    "free prose": Task(PROSE),
    "free prose, temperature 0.7": Task(PROSE, forms=DRAWN),
    "tool call": Task(
        (
            "In src/basket.py, replace the name Basket by the name Cart everywhere. The file is in UTF-8.",
            "Replace the word total by the word price in the file README.md, once. The file is in UTF-8.",
        ),
        tokens=80,
        forms=({"tools": [EDIT], "tool_choice": "required"},),
    ),
}


class Answer(msgspec.Struct, frozen=True):
    text: str
    tokens: int
    seconds: float


async def run(run: Run) -> dict[str, float]:
    model = str(await dense_demo(run))
    values: dict[str, float] = {}
    async with (
        service(run.scratch, model, promptLookup=False, **NO_CACHES) as without,
        service(run.scratch, model, promptLookup=True, **NO_CACHES) as with_lookup,
    ):
        for port in (without, with_lookup):
            await _ask(port, "Say hello.", 4, Task(()), {})
        differing = 0
        for name, whole in TASKS.items():
            task = msgspec.structs.replace(whole, tokens=run.pick(whole.tokens, 24))
            rates: list[tuple[float, float]] = []
            questions = list(itertools.product(task.prompts, task.forms))
            for prompt, form in questions[: run.pick(len(questions), 1)]:
                plain = await _decode(without, prompt, task, form)
                faster = await _decode(with_lookup, prompt, task, form)
                differing += plain.text != faster.text
                rates.append((plain.tokens / plain.seconds, faster.tokens / faster.seconds))
            slow, fast = (statistics.mean(side) for side in zip(*rates, strict=True))
            ratio = statistics.mean(fast / slow for slow, fast in rates)
            values |= {_ratio(name): ratio, _rate(name, "with"): fast, _rate(name, "without"): slow}
    return values | {DIFFERING: float(differing)}


async def _decode(port: int, prompt: str, task: Task, form: dict[str, Any]) -> Answer:
    """The first token is not timed, which excludes reading the prompt."""
    first = await _ask(port, prompt, 1, task, form)
    whole = await _ask(port, prompt, 1 + task.tokens, task, form)
    if whole.tokens < 1 + task.tokens // 2:
        raise UnexpectedResponse(f"Expected about {task.tokens} tokens, found {whole.tokens}: {whole.text!r}")
    return Answer(whole.text, whole.tokens - first.tokens, whole.seconds - first.seconds)


async def _ask(port: int, prompt: str, tokens: int, task: Task, form: dict[str, Any]) -> Answer:
    body: dict[str, Any] = {
        "model": "default_model",
        "messages": [*task.history, {"role": "user", "content": prompt}],
        "temperature": 0,
        "max_tokens": tokens,
    }
    started = time.perf_counter()
    response = await fetch(port, post_chat(body | form))
    seconds = time.perf_counter() - started
    answer = response.json()
    return Answer(_text(answer["choices"][0]["message"]), answer["usage"]["completion_tokens"], seconds)


def _text(message: dict[str, Any]) -> str:
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    return "".join([message["content"] or "", *(f"{call['name']}({call['arguments']})" for call in calls)])


def _ratio(task: str) -> str:
    return f"{task}, with guesses over without"


def _rate(task: str, side: str) -> str:
    return f"{task}, {side}"


DIFFERING = "answers that differ"

CASE = Case(
    title="Guessed tokens: tokens per second of one answer",
    measures=(
        Measure(name=_ratio("code edit"), at_least=1.5),
        Measure(name=_ratio("code edit, temperature 0.7"), at_least=2),
        Measure(name=_ratio("free prose"), at_least=0.97),
        Measure(name=_ratio("free prose, temperature 0.7"), at_least=0.97),
        Measure(name=_ratio("tool call"), at_least=1.5),
        *(Measure(name=_rate(task, side), unit="tokens/s") for task in TASKS for side in ("with", "without")),
        Measure(name=DIFFERING, unit="answers"),
    ),
    run=run,
    timeout_seconds=900.0,
)
