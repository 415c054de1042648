import asyncio
import random
import signal
import sys
import time
from pathlib import Path

from tests.cache_backends.redis_server import RedisServer
from tests.history.proxy import Proxy

LONGEST_FAULT_SECONDS = 0.8
LONGEST_REST_SECONDS = 0.3
FAULTS = ("stop worker", "kill worker", "pause redis", "block", "delay", "drop")


class World:
    """Four workers, Redis behind a proxy, and a seed that chooses the faults. `stops` holds worker, begin and end."""

    def __init__(self, redis: RedisServer, proxy: Proxy, folder: Path, seed: int, seconds: float) -> None:
        self.stops: list[tuple[int, float, float]] = []
        self.counts = dict.fromkeys(FAULTS, 0)
        self._redis = redis
        self._proxy = proxy
        self._folder = folder
        self._draw = random.Random(seed)
        self._until = time.monotonic() + seconds
        self._workers: dict[int, asyncio.subprocess.Process] = {}

    @property
    def histories(self) -> list[Path]:
        return sorted(self._folder.glob("*.history"))

    async def run(self, workers: int) -> None:
        for number in range(workers):
            await self._start(number)
        try:
            # In turn after a first draw, so that a short run has every kind.
            order = self._draw.sample(FAULTS, len(FAULTS))
            while time.monotonic() < self._until - LONGEST_FAULT_SECONDS:
                await asyncio.sleep(self._draw.uniform(0, LONGEST_REST_SECONDS))
                await self._break(order[sum(self.counts.values()) % len(order)])
            async with asyncio.timeout(30):
                ends = [await worker.wait() for worker in self._workers.values()]
        finally:
            for worker in self._workers.values():
                if worker.returncode is None:
                    worker.kill()
                    await worker.wait()
        assert ends == [0] * workers

    async def _start(self, number: int) -> None:
        self._workers[number] = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.history.worker",
            f"redis://127.0.0.1:{self._proxy.port}/0",
            str(number),
            str(self._folder / f"{number}.history"),
            str(max(0.1, self._until - time.monotonic())),
        )

    async def _break(self, fault: str) -> None:
        self.counts[fault] += 1
        seconds = self._draw.uniform(0.05, LONGEST_FAULT_SECONDS)
        number = self._draw.choice(list(self._workers))
        worker = self._workers[number]
        match fault:
            case "stop worker":
                worker.send_signal(signal.SIGSTOP)
                begin = time.monotonic()
                await asyncio.sleep(seconds)
                worker.send_signal(signal.SIGCONT)
                self.stops.append((number, begin, time.monotonic()))
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
