"""Watches memory, threads and files of a server over 10,000 mixed requests."""

import asyncio
import random
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from benchmarks.case import Case, Measure, Run, Unavailable
from benchmarks.http_client import CHAT, HOST, Connection, fetch, post, post_chat
from benchmarks.model_folders import tiny_model
from benchmarks.processes import watched_service
from benchmarks.request_bodies import story

Kind = Literal["bad", "given up", "again", "new", "new, streamed"]
WEIGHTS: dict[Kind, int] = {"bad": 5, "given up": 5, "again": 40, "new": 25, "new, streamed": 25}
REQUESTS = 10_000
CLIENTS = 8
ASKED_AGAIN = 20
TOKENS = 8
ANSWER_SECONDS = 60.0
SAMPLES = 100
WARM_UP_SHARE = 0.3
BAD_BODIES = (b"{", b"[]", b'{"messages": []}', b'{"messages": [{"role": "nobody", "content": 1}]}', b"\xff\xfe")
# The warm-up fills this prefix cache, so that later growth is a leak.
CONFIGURED = {"maxQueue": 64, "prefixCache": {"memory": "8MiB", "disk": "0"}}


class Sample(msgspec.Struct, frozen=True):
    requests: int
    resident_mb: float
    threads: int
    files: int


class Tally(msgspec.Struct):
    """`wrong` counts answers with unexpected content, `silent` requests without an answer."""

    sample_every: int
    done: int = 0
    wrong: int = 0
    silent: int = 0
    texts: dict[int, str] = {}
    samples: list[Sample] = []


async def run(run: Run) -> dict[str, float]:
    if not sys.platform.startswith("linux"):
        raise Unavailable("A process's memory, threads and files are read from /proc, which only Linux has.")
    total = run.pick(REQUESTS, 300)
    model = await tiny_model(run)
    tally = Tally(sample_every=total // SAMPLES)
    async with watched_service(run.scratch, str(model), **CONFIGURED) as (port, pid):
        kinds = iter(random.Random(5).choices(list(WEIGHTS), weights=list(WEIGHTS.values()), k=total))  # noqa: S311
        await asyncio.gather(*(_client(port, pid, kinds, tally, number) for number in range(CLIENTS)))
    return _figures(tally)


def _figures(tally: Tally) -> dict[str, float]:
    warm = [sample for sample in tally.samples if sample.requests >= WARM_UP_SHARE * tally.done]
    thousands = [sample.requests / 1000 for sample in warm]
    growth = statistics.linear_regression(thousands, [sample.resident_mb for sample in warm]).slope
    threads, files = [sample.threads for sample in warm], [sample.files for sample in warm]
    return {
        "memory, growth per 1,000 requests": growth,
        "threads, growth": statistics.median(threads[-5:]) - statistics.median(threads[:5]),
        "open files, growth": statistics.median(files[-5:]) - statistics.median(files[:5]),
        "answers that are wrong": float(tally.wrong),
        "requests without an answer": float(tally.silent),
        "requests": float(tally.done),
        "memory at the end": warm[-1].resident_mb,
    }


async def _client(port: int, pid: int, kinds: Iterator[Kind], tally: Tally, number: int) -> None:
    """Clients use different numbers, so no new request comes twice."""
    choices = random.Random(number)  # noqa: S311
    for count, kind in enumerate(kinds):
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                right = await _ask(port, kind, 1000 + CLIENTS * count + number, choices, tally.texts)
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            tally.silent += 1
        else:
            tally.wrong += not right
        tally.done += 1
        if tally.done % tally.sample_every == 0:
            tally.samples.append(_sample(pid, tally.done))


async def _ask(port: int, kind: Kind, number: int, choices: random.Random, texts: dict[int, str]) -> bool:
    """True if the answer is the expected one."""
    match kind:
        case "bad":
            async with Connection(port) as connection:
                response = await connection.exchange(post(CHAT, choices.choice(BAD_BODIES)))
            return response.status == 400 and "error" in response.json()
        case "given up":
            await _give_up(port, story(number, tokens=200, stream=True), choices.uniform(0.0, 0.1))
            return True
        case "again":
            number = choices.randrange(ASKED_AGAIN)
            answer = (await fetch(port, post_chat(story(number, TOKENS)))).json()
            text = answer["choices"][0]["message"]["content"]
            return bool(texts.setdefault(number, text) == text)
        case "new":
            answer = (await fetch(port, post_chat(story(number, TOKENS)))).json()
            return _is_whole(answer["choices"][0]["finish_reason"], answer["usage"])
        case "new, streamed":
            events = (await fetch(port, post_chat(story(number, TOKENS, stream=True)))).events()
            (reason,) = [c["finish_reason"] for event in events for c in event["choices"] if c["finish_reason"]]
            return _is_whole(reason, events[-1]["usage"])


def _is_whole(finish_reason: str, usage: dict[str, Any]) -> bool:
    return finish_reason == "stop" or (finish_reason == "length" and usage["completion_tokens"] == TOKENS)


async def _give_up(port: int, body: dict[str, Any], seconds: float) -> None:
    """Leaves while the request waits, while its prompt is read, or during its answer."""
    _, writer = await asyncio.open_connection(HOST, port)
    writer.write(post_chat(body))
    await writer.drain()
    await asyncio.sleep(seconds)
    writer.transport.abort()


def _sample(pid: int, requests: int) -> Sample:
    process = Path("/proc", str(pid))
    pages = int((process / "statm").read_text().split()[1])
    threads, files = (len(list((process / name).iterdir())) for name in ("task", "fd"))
    return Sample(requests, pages * 4096 / 1e6, threads, files)


CASE = Case(
    title="10,000 mixed requests, tiny model",
    measures=(
        Measure(name="memory, growth per 1,000 requests", unit="MB", at_most=0.1),
        Measure(name="threads, growth", unit="threads", at_most=0),
        Measure(name="open files, growth", unit="files", at_most=2),
        Measure(name="answers that are wrong", unit="answers", at_most=0),
        Measure(name="requests without an answer", unit="requests", at_most=0),
        Measure(name="requests", unit="requests"),
        Measure(name="memory at the end", unit="MB"),
    ),
    run=run,
    runs=1,
    timeout_seconds=3_000.0,
)
