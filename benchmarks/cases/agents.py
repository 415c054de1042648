"""Measures what coding agents wait for, against other servers. `BENCH_PEERS` adds some: `NAME=COMMAND`, separated by
semicolons, with `{model}` and `{port}` in the command."""

import asyncio
import os
import random
import shlex
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.case import Case, Measure, Run
from benchmarks.http_client import UnexpectedResponse, post_chat, stream
from benchmarks.model_folders import dense_demo
from benchmarks.processes import command_server, module_server, service
from benchmarks.request_bodies import prose

MLX_LM = "mlx_lm.server"
PLACES: dict[str, Any] = {"2 places": 2, "auto": "auto"}
PEER_PLACES = "8"


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    instruction_words: int = 1500
    turns: int = 6
    task_words: int = 20
    result_words: int = 60
    answer_tokens: int = 24
    sub_agents: int = 4


QUICK = Sizes(instruction_words=60, turns=2, result_words=10, answer_tokens=4, sub_agents=2)


class Waits(msgspec.Struct, kw_only=True):
    """`first` ends with the first token; `later` are all turns but the first of each session."""

    first: float = 0.0
    session: float = 0.0
    later: float = 0.0
    retry: float = 0.0
    sub_agents: float = 0.0


NAMES = {
    "first": "first token, cold",
    "session": "two sessions",
    "later": "later turns",
    "retry": "an identical retry",
    "sub_agents": "four sub-agents at once",
}


class Side:
    def __init__(self, name: str, port: int, sizes: Sizes) -> None:
        self.waits = Waits()
        self._name = name
        self._port = port
        self._sizes = sizes
        self._system = {"role": "system", "content": prose(random.Random(0), sizes.instruction_words)}  # noqa: S311
        self._sessions = [[self._system, self._task(number)] for number in range(2)]

    async def turn(self, number: int, session: int) -> None:
        messages = self._sessions[session]
        if number > 0:
            words = prose(random.Random(f"{session} {number}"), self._sizes.result_words)  # noqa: S311
            messages.append({"role": "user", "content": f"Output of step {number}: {words}"})
        seconds, first, text = await self._ask(messages)
        self.waits.session += seconds
        if number > 0:
            self.waits.later += seconds
        elif session == 0:
            self.waits.first = first
        messages.append({"role": "assistant", "content": text})

    async def retry(self) -> None:
        self.waits.retry, _, _ = await self._ask(self._sessions[1][:-1])

    async def ask_sub_agents(self) -> None:
        started = time.perf_counter()
        tasks = [self._task(10 + number) for number in range(self._sizes.sub_agents)]
        await asyncio.gather(*(self._ask([self._system, task]) for task in tasks))
        self.waits.sub_agents = time.perf_counter() - started

    def _task(self, number: int) -> dict[str, str]:
        words = prose(random.Random(number), self._sizes.task_words)  # noqa: S311
        return {"role": "user", "content": f"This is task {number}: {words}"}

    async def _ask(self, messages: list[dict[str, str]]) -> tuple[float, float, str]:
        body = {
            "model": "default_model",
            "messages": messages,
            "temperature": 0,
            "max_tokens": self._sizes.answer_tokens,
            "stream": True,
        }
        started = time.perf_counter()
        try:
            answer = await stream(self._port, post_chat(body))
        except UnexpectedResponse as exc:
            raise UnexpectedResponse(f"{self._name}: {exc}") from None
        return time.perf_counter() - started, answer.first_text_seconds, answer.text


async def run(run: Run) -> dict[str, float]:
    sizes = QUICK if run.quick else Sizes()
    model = await dense_demo(run)
    async with AsyncExitStack() as stack:
        ours = {
            name: Side(
                name, await stack.enter_async_context(service(run.scratch, str(model), maxConcurrency=places)), sizes
            )
            for name, places in PLACES.items()
        }
        peers = {
            name: Side(name, await _open_peer(stack, name, model, run.scratch), sizes)
            for name in (MLX_LM, *_commands())
        }
        await _work([*ours.values(), *peers.values()], sizes)
    return _figures(ours, peers)


async def _open_peer(stack: AsyncExitStack, name: str, model: Path, scratch: Path) -> int:
    if name == MLX_LM:
        module = "benchmarks.peers.mlx_lm_server"
        return await stack.enter_async_context(module_server(scratch, module, str(model), PEER_PLACES))
    command = [part.replace("{model}", str(model)) for part in shlex.split(_commands()[name])]
    return await stack.enter_async_context(command_server(scratch, name, command))


def _commands() -> dict[str, str]:
    pairs = [pair.partition("=") for pair in os.environ.get("BENCH_PEERS", "").split(";") if "=" in pair]
    return {name.strip(): command for name, _, command in pairs}


async def _work(sides: list[Side], sizes: Sizes) -> None:
    for number in range(sizes.turns):
        for session in range(2):
            await _in_turn(sides, lambda side, n=number, s=session: side.turn(n, s))
    await _in_turn(sides, Side.retry)
    await _in_turn(sides, Side.ask_sub_agents)


async def _in_turn(sides: list[Side], act: Callable[[Side], Awaitable[None]]) -> None:
    for side in sides:
        await act(side)
    sides.append(sides.pop(0))  # the machine's speed changes


def _figures(ours: dict[str, Side], peers: dict[str, Side]) -> dict[str, float]:
    values: dict[str, float] = {}
    for places, side in ours.items():
        for field, name in _measured(places):
            mine = getattr(side.waits, field)
            theirs = {peer: getattr(other.waits, field) for peer, other in peers.items()}
            values[_best(name)] = mine / min(theirs.values())
            values |= {f"{name}, over {peer}": mine / seconds for peer, seconds in theirs.items()}
            values[name] = mine
    return values


def _measured(places: str) -> list[tuple[str, str]]:
    # Sessions ask one question at a time, so the number of places matters to sub-agents only.
    if places == "auto":
        return [("sub_agents", f"{NAMES['sub_agents']}, {places}")]
    return [(field, name if field != "sub_agents" else f"{name}, {places}") for field, name in NAMES.items()]


def _best(name: str) -> str:
    return f"{name}, over the best"


ALL = [name for places in PLACES for _, name in _measured(places)]
AT_MOST = {"two sessions": 0.5, "later turns": 0.85, "four sub-agents at once, auto": 0.9}

CASE = Case(
    title="Agents, against other servers",
    measures=(
        *(Measure(name=_best(name), at_most=AT_MOST.get(name)) for name in ALL),
        *(Measure(name=f"{name}, over {peer}") for name in ALL for peer in (MLX_LM, *_commands())),
        *(Measure(name=name, unit="s") for name in ALL),
    ),
    run=run,
    timeout_seconds=900.0,
)
