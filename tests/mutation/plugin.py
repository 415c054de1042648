"""A pytest plugin: collects the tests once, and tries each mutant in a forked process. A mutant costs a tenth of a
second if one of its first tests notices it."""

import fcntl
import gc
import os
import random
import resource
import signal
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from fnmatch import fnmatch
from itertools import accumulate
from pathlib import Path

import msgspec
import pytest
from _pytest.runner import runtestprotocol
from mutmut.mutation import trampoline
from mutmut.state import state

from tests.mutation.results import RESULTS, Result, function_of, module_of, read_results

PLAN = "MUTATION_PLAN"
REACHED = Path("reached.json")
LOCK = Path("reached.lock")

# A test that does nothing for so long, or works that much longer than usual, will not end.
LOOK_SECONDS = 4.0
LEAST_WORK_SECONDS = 0.03
MORE_WORK_SECONDS = 3.0
TIMES_USUAL = 4
MOST_SECONDS = 60.0

Seen = Callable[[pytest.Item, bool, float], bool]


class Reached(msgspec.Struct):
    """`seconds` that each test takes, and the tests that reach each function. `failing` tests need no mutant."""

    seconds: dict[str, float] = {}
    tests: dict[str, list[str]] = {}
    failing: list[str] = []


class Plan(msgspec.Struct):
    """This process is number `job` of `jobs`. The tests of one mutant take at most `seconds` together."""

    patterns: list[str]
    seconds: float
    survivors: bool
    jobs: int
    job: int = 0

    def has(self, mutant: str) -> bool:
        return zlib.crc32(mutant.encode()) % self.jobs == self.job and any(fnmatch(mutant, p) for p in self.patterns)


class Meta(msgspec.Struct):
    """A part of mutmut's file."""

    exit_code_by_key: dict[str, int | None]


def pytest_runtestloop(session: pytest.Session) -> bool:
    items = {item.nodeid: item for item in session.items}
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        reached = read_reached()
        measure(session, [item for name, item in items.items() if name not in reached.seconds], reached)
    reached = read_reached()
    if reached.failing:
        pytest.exit(f"These tests fail without a mutant: {', '.join(reached.failing)}", 1)
    plan = msgspec.json.decode(os.environ[PLAN], type=Plan)
    tried = {each.mutant for each in read_results(RESULTS) if each.outcome == "killed" or not plan.survivors}
    left = [name for name in mutants() if name not in tried and plan.has(name)]
    random.Random(1).shuffle(left)  # so that a part of them is a sample
    print(f"{len(left)} mutants, {len(items)} tests")
    gc.freeze()  # a collection would copy the memory that forked processes share
    killers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    with RESULTS.open("ab") as file:
        for mutant in left:
            order = killers[function_of(mutant)]
            names = [name for name in reached.tests.get(function_of(mutant), []) if name in items]
            names.sort(key=lambda name: (-order[name], reached.seconds[name] * distance(mutant, name)))
            chosen = in_time([items[name] for name in names], reached.seconds, plan.seconds)
            result = attempt(session, mutant, chosen, reached.seconds, left=len(names) - len(chosen))
            order[result.by] += 1
            file.write(msgspec.json.encode(result) + b"\n")
            file.flush()
    return True


def read_reached() -> Reached:
    return msgspec.json.decode(REACHED.read_bytes(), type=Reached) if REACHED.exists() else Reached()


def mutants() -> list[str]:
    found = (msgspec.json.decode(path.read_bytes(), type=Meta) for path in sorted(Path().rglob("*.meta")))
    return [name for meta in found for name in meta.exit_code_by_key]


def distance(mutant: str, test: str) -> float:
    """Tests of the module's own file come first."""
    *_, package, module = module_of(mutant).split(".")
    file = test.partition("::")[0]
    return 0.05 if f"test_{module}" in file else 0.5 if package in file else 1.0


def measure(session: pytest.Session, items: Sequence[pytest.Item], reached: Reached) -> None:
    def seen(item: pytest.Item, failed: bool, seconds: float) -> bool:
        if failed:
            reached.failing.append(item.nodeid)
        reached.seconds[item.nodeid] = seconds
        for function in state()._stats:
            reached.tests.setdefault(function, []).append(item.nodeid)
        state()._stats.clear()
        return False

    def work() -> None:
        run(session, items, {}, seen)
        REACHED.write_bytes(msgspec.json.encode(reached))

    status = forked("stats", work, float("inf")) if items else 0
    if status:
        pytest.exit("The tests could not be measured.", status)


def in_time(items: Sequence[pytest.Item], usual: dict[str, float], seconds: float) -> Sequence[pytest.Item]:
    """Returns those that take `seconds` together, at least one."""
    ends = accumulate(usual[item.nodeid] for item in items)
    return items[: max(1, sum(end <= seconds for end in ends))]


def attempt(
    session: pytest.Session, mutant: str, chosen: Sequence[pytest.Item], usual: dict[str, float], *, left: int
) -> Result:
    if not chosen:
        return Result(mutant, "reached by no test")
    reading, writing = os.pipe()

    def seen(item: pytest.Item, failed: bool, seconds: float) -> bool:
        os.write(writing, b"!" if failed else b".")
        return failed

    status = forked(mutant, lambda: run(session, chosen, usual, seen), MOST_SECONDS)
    os.close(writing)
    with open(reading, "rb") as pipe:
        passed = pipe.read().count(b".")
    if status == 0 and passed == len(chosen):
        return Result(mutant, "survived", left=left)
    return Result(mutant, "killed", chosen[min(passed, len(chosen) - 1)].nodeid)


def forked(mutant: str, work: Callable[[], None], most_seconds: float) -> int:
    """Returns the exit status. What the tests started, such as a Redis, ends with them."""
    process = os.fork()
    if process == 0:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        trampoline.set_mutant_under_test(mutant)
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    until = time.monotonic() + most_seconds
    ended, status = 0, 0
    while not ended and time.monotonic() < until:
        time.sleep(0.005)
        ended, status = os.waitpid(process, os.WNOHANG)
    with suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)
    if not ended:
        _, status = os.waitpid(process, 0)
    return status


def run(session: pytest.Session, items: Sequence[pytest.Item], usual: dict[str, float], seen: Seen) -> None:
    for item, following in zip(items, [*items[1:], None], strict=True):
        limit(usual.get(item.nodeid, MOST_SECONDS))
        began = time.monotonic()
        reports = runtestprotocol(item, log=False, nextitem=following)
        if seen(item, any(report.failed for report in reports), time.monotonic() - began):
            break


def limit(usual_seconds: float) -> None:
    """From now on, this process ends if it does nothing, or too much."""
    began = before = time.process_time()

    def look(*_: object) -> None:
        nonlocal before
        now = time.process_time()
        if now - before < LEAST_WORK_SECONDS or now - began > MORE_WORK_SECONDS + TIMES_USUAL * usual_seconds:
            os._exit(1)
        before = now

    signal.signal(signal.SIGALRM, look)
    # The first look is later: a test may begin with a pause.
    signal.setitimer(signal.ITIMER_REAL, 2 * LOOK_SECONDS, LOOK_SECONDS)
