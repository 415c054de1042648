"""Measures our cache backends against the libraries that they use, and the hit ratio of a store by its size."""

import asyncio
import itertools
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from benchmarks.case import Case, Measure, Result, Run
from benchmarks.report import number, table_of
from benchmarks.stores import Pair, Store, open_pair
from benchmarks.traffic import Entries, make_entries, zipf
from cache_backends import open_backend

STORES = ("memory", "disk", "redis", "tiers")
TASKS = (1, 8, 32)
ENTRIES = 1_000
# Calls in one round. Slower stores make fewer, so that all rounds take about as long.
ROUND_CALLS = {"memory": 4_000, "disk": 200, "redis": 400, "tiers": 400}
MAX_OVER_RAW = 1.3

HIT_RATIO_STORES = ("memory", "disk")
HIT_RATIO_SHARES = (0.05, 0.1, 0.25, 0.5)
HIT_RATIO_REQUESTS = 4_000

Call = Callable[[Store, str, Entries], Awaitable[None]]


async def _get_hit(store: Store, key: str, entries: Entries) -> None:
    if await store.get(key) is None:
        raise LookupError(f"Expected a value under {key}, which was stored")


async def _get_miss(store: Store, key: str, entries: Entries) -> None:
    if await store.get(key[::-1]) is not None:
        raise LookupError(f"Expected nothing under {key[::-1]}, which was never stored")


async def _set(store: Store, key: str, entries: Entries) -> None:
    await store.set(key, entries.values[key])


async def _read_through(store: Store, key: str, entries: Entries) -> None:
    """One request in ten writes, as in a response cache with 90 % hits."""
    if int(key[:4], 16) % 10 == 0 or await store.get(key) is None:
        await store.set(key, entries.values[key])


CALLS: dict[str, Call] = {"set": _set, "get-hit": _get_hit, "get-miss": _get_miss, "mixed": _read_through}


class Point(msgspec.Struct, frozen=True):
    """`tasks` concurrent tasks make one kind of call to one store."""

    store: str
    call: str
    tasks: int

    @property
    def ours(self) -> str:
        return f"{self.store} {self.call}, {self.tasks} at once"

    @property
    def raw(self) -> str:
        return f"{self.ours}, raw"

    @property
    def ratio(self) -> str:
        return f"{self.ours}, over raw"


POINTS = [Point(*combination) for combination in itertools.product(STORES, CALLS, TASKS)]


async def run(run: Run) -> dict[str, float]:
    entries = make_entries(run.pick(ENTRIES, 100))
    values: dict[str, float] = {}
    for store in STORES:
        async with open_pair(store, run.scratch) as pair:
            for filled, key in itertools.product((pair.ours, pair.raw), entries.keys):
                await filled.set(key, entries.values[key])
            calls = ROUND_CALLS[store] // run.pick(1, 10)
            for point in (point for point in POINTS if point.store == store):
                values |= await _compare(pair, point, zipf(entries.keys, calls), entries, rounds=run.pick(9, 1))
    requests = zipf(entries.keys, run.pick(HIT_RATIO_REQUESTS, 400))
    for store, share in itertools.product(HIT_RATIO_STORES, HIT_RATIO_SHARES):
        values[_hit_ratio_name(store, share)] = await _hit_ratio(store, share, entries, requests, run.scratch)
    return values


async def _compare(pair: Pair, point: Point, keys: list[str], entries: Entries, *, rounds: int) -> dict[str, float]:
    """Returns the microseconds of one call on each side: the median of alternating rounds."""
    seconds: dict[str, list[float]] = {point.ours: [], point.raw: []}
    for _ in range(rounds):
        for name, store in ((point.ours, pair.ours), (point.raw, pair.raw)):
            seconds[name].append(await _time(store, CALLS[point.call], point.tasks, keys, entries))
    micro = {name: statistics.median(times) / len(keys) * 1e6 for name, times in seconds.items()}
    return {**micro, point.ratio: micro[point.ours] / micro[point.raw]}


async def _time(store: Store, call: Call, tasks: int, keys: list[str], entries: Entries) -> float:
    async def work(share: list[str]) -> None:
        for key in share:
            await call(store, key, entries)

    started = time.perf_counter()
    await asyncio.gather(*(work(keys[task::tasks]) for task in range(tasks)))
    seconds = time.perf_counter() - started
    await _until_written()
    return seconds


async def _until_written() -> None:
    """Waits for background writes, which would slow down the next measurement."""
    if behind := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(behind)


async def _hit_ratio(store: str, share: float, entries: Entries, requests: list[str], scratch: Path) -> float:
    """Returns the percentage of requests found in a store that holds `share` of all bytes."""
    max_bytes = max(int(entries.total_bytes * share), 1024**2)
    place = scratch / f"hit-ratio-{share}" if store == "disk" else ""
    backend = open_backend(f"{store}://{place}?max_bytes={max_bytes}")
    hits = 0
    for key in requests:
        if await backend.get(key) is None:
            await backend.set(key, entries.values[key])
        else:
            hits += 1
    await backend.aclose()
    return 100 * hits / len(requests)


def _hit_ratio_name(store: str, share: float) -> str:
    return f"{store} hit ratio, {share:.0%} of all bytes"


def tables(result: Result) -> str:
    judged = table_of(tuple(figure for figure in result.figures if figure.target))
    return "\n\n".join((judged, _microseconds(result), _hit_ratios(result)))


def _microseconds(result: Result) -> str:
    heading = " | ".join(f"{tasks} at once" for tasks in TASKS)
    rows = [f"| µs a call, ours (raw) | {heading} |", "|---" * (len(TASKS) + 1) + "|"]
    for store, call in itertools.product(STORES, CALLS):
        points = [Point(store, call, tasks) for tasks in TASKS]
        cells = [f"{number(result.median(point.ours))} ({number(result.median(point.raw))})" for point in points]
        rows.append(f"| {store} {call} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _hit_ratios(result: Result) -> str:
    rows = ["| hit ratio | " + " | ".join(f"{share:.0%} of all bytes" for share in HIT_RATIO_SHARES) + " |"]
    rows.append("|---" * (len(HIT_RATIO_SHARES) + 1) + "|")
    for store in HIT_RATIO_STORES:
        cells = [f"{result.median(_hit_ratio_name(store, share)):.1f} %" for share in HIT_RATIO_SHARES]
        rows.append(f"| {store} | {' | '.join(cells)} |")
    return "\n".join(rows)


def plots(result: Result, folder: Path) -> list[Path]:
    from benchmarks.plots import bars, lines

    alone = [Point(store, call, 1) for store, call in itertools.product(STORES, CALLS)]
    sides = {
        "ours": [result.median(point.ours) for point in alone],
        "raw library": [result.median(point.raw) for point in alone],
    }
    concurrent = {
        store: [1e6 / result.median(Point(store, "get-hit", tasks).ours) for tasks in TASKS] for store in STORES
    }
    ratios = {
        store: [result.median(_hit_ratio_name(store, share)) for share in HIT_RATIO_SHARES]
        for store in HIT_RATIO_STORES
    }
    names = [f"{point.store}\n{point.call}" for point in alone]
    shares = [100 * share for share in HIT_RATIO_SHARES]
    return [
        bars(folder / "cache-backends-calls.png", "One task", "µs a call", names, sides),
        lines(folder / "cache-backends-tasks.png", "Hits at once", ("tasks", "gets/s"), TASKS, concurrent, log=True),
        lines(
            folder / "cache-backends-hit-ratio.png",
            "LRU under Zipf traffic",
            ("% of all bytes that fit", "hit ratio, %"),
            shares,
            ratios,
        ),
    ]


CASE = Case(
    title="Cache backends against the raw libraries",
    measures=(
        *(Measure(name=point.ratio, at_most=MAX_OVER_RAW if point.tasks == 1 else None) for point in POINTS),
        *(Measure(name=name, unit="µs") for point in POINTS for name in (point.ours, point.raw)),
        *(
            Measure(name=_hit_ratio_name(store, share), unit="%")
            for store, share in itertools.product(HIT_RATIO_STORES, HIT_RATIO_SHARES)
        ),
    ),
    run=run,
    tables=tables,
    plots=plots,
)
