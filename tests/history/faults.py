import asyncio
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tests.cache_backends.redis_server import RedisServer
from tests.history.proxy import Proxy
from tests.history.records import Asked, LeaseCall, Recorded, Silence, read_history
from tests.patience import PATIENCE_SECONDS

LONGEST_FAULT_SECONDS = 0.8
LONGEST_REST_SECONDS = 0.3
POLL_SECONDS = 0.01
READ_BYTES = 64 * 1024
FAULTS = ("stop worker", "stop holder", "kill worker", "pause redis", "block", "delay", "drop")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """With `stealing`, the workers' leases are broken."""

    seed: int
    seconds: float
    faults: Sequence[str] = FAULTS
    stealing: bool = False


class World:
    """Workers, Redis behind a proxy, and a seed that chooses the faults. `longest_fault` is in seconds."""

    def __init__(self, redis: RedisServer, proxy: Proxy, folder: Path, plan: Plan) -> None:
        self.stops: list[Silence] = []
        self.longest_fault = 0.0
        self.counts = dict.fromkeys(plan.faults, 0)
        self._redis = redis
        self._proxy = proxy
        self._folder = folder
        self._draw = random.Random(plan.seed)
        self._seconds = plan.seconds
        self._over = folder / "over"
        self._stealing = plan.stealing
        self._workers: dict[int, asyncio.subprocess.Process] = {}

    @property
    def histories(self) -> list[Path]:
        return sorted(self._folder.glob("*.history"))

    async def run(self, workers: int) -> None:
        for number in range(workers):
            await self._start(number)
        try:
            await self._wait_until(lambda: len(self.histories) == workers)
            until = time.monotonic() + self._seconds
            # In turn after a first draw, so that a short run has every kind.
            order = self._draw.sample(list(self.counts), len(self.counts))
            while time.monotonic() < until or not all(self.counts.values()):
                await asyncio.sleep(self._draw.uniform(0, LONGEST_REST_SECONDS))
                begin = time.monotonic()
                await self._break(order[sum(self.counts.values()) % len(order)])
                self.longest_fault = max(self.longest_fault, time.monotonic() - begin)
            # A worker asks its store again some seconds after a fault.
            await self._wait_until(self._has_hit)
            self._over.touch()
            async with asyncio.timeout(PATIENCE_SECONDS):
                ends = [await worker.wait() for worker in self._workers.values()]
        finally:
            for worker in self._workers.values():
                if worker.returncode is None:
                    worker.kill()
                    await worker.wait()
        assert ends == [0] * workers

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(POLL_SECONDS)

    async def _start(self, number: int) -> None:
        self._workers[number] = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.history.worker",
            f"redis://127.0.0.1:{self._proxy.port}/0",
            str(number),
            str(self._folder / f"{number}.history"),
            str(self._over),
            *(["stealing"] if self._stealing else []),
        )

    async def _break(self, fault: str) -> None:
        self.counts[fault] += 1
        seconds = self._draw.uniform(0.05, LONGEST_FAULT_SECONDS)
        number = self._draw.choice(list(self._workers))
        worker = self._workers[number]
        match fault:
            case "stop worker":
                with self._stopped(number):
                    await asyncio.sleep(seconds)
            case "stop holder":
                await self._stop_holder()
            case "kill worker":
                worker.kill()
                await worker.wait()
                await self._start(number)
            case "pause redis":
                self._redis.pause()
                await asyncio.sleep(seconds)
                self._redis.resume()
            case "block":
                self._proxy.open.clear()
                await asyncio.sleep(seconds)
                self._proxy.open.set()
            case "delay":
                self._proxy.delay = self._draw.uniform(0, 0.2)
                await asyncio.sleep(seconds)
                self._proxy.delay = 0.0
            case "drop":
                self._proxy.drop()

    async def _stop_holder(self) -> None:
        """Until another worker has the lease: the holder then believes that it still has it."""
        began = time.monotonic()
        until = began + LONGEST_FAULT_SECONDS
        while (held := self._acquired(began)) is None and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(POLL_SECONDS)
        if held is None:
            return
        number, key = held
        with self._stopped(number):
            stopped = time.monotonic()
            while self._acquired(stopped, key) is None and time.monotonic() < until:  # noqa: ASYNC110
                await asyncio.sleep(POLL_SECONDS)

    def _acquired(self, since: float, key: str | None = None) -> tuple[int, str] | None:
        """Returns worker and key of a lease that was acquired after `since`."""
        for number, one in self._recent():
            acquired = isinstance(one, LeaseCall) and one.what == "acquire" and one.held and one.called > since
            if acquired and key in (None, one.key):
                return number, one.key
        return None

    def _has_hit(self) -> bool:
        return any(isinstance(one, Asked) and one.outcome == "hit" for _, one in self._recent())

    def _recent(self) -> Iterator[tuple[int, Recorded]]:
        for path in self.histories:
            for one in read_history(path, READ_BYTES):
                yield int(path.stem), one

    @contextmanager
    def _stopped(self, number: int) -> Iterator[None]:
        worker = self._workers[number]
        worker.send_signal(signal.SIGSTOP)
        begin = time.monotonic()
        try:
            yield
        finally:
            worker.send_signal(signal.SIGCONT)
            self.stops.append(Silence(number, begin, time.monotonic()))
