"""Ranks as real processes on loopback: under `mlx.launch`, or started one by one where single ones are to be killed."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from tests.patience import PATIENCE_SECONDS, until
from tests.ports import free_port
from tests.server_process import environment, health_of

SERVE = [sys.executable, "-m", "service.cli", "serve", "--distributed", "--port", "0"]
LAUNCH = str(Path(sys.executable).with_name("mlx.launch"))


class Ranks:
    """`process` is the launcher, or rank 0; `url` is known once rank 0 listens."""

    def __init__(self, folder: Path, processes: list[subprocess.Popen[bytes]]) -> None:
        self.processes = processes
        self.url = ""
        self._folder = folder

    @property
    def log(self) -> str:
        return "".join(file.read_text() for file in sorted(self._folder.glob("log*")))

    def wait_until_healthy(self) -> None:
        def healthy() -> bool:
            assert all(process.poll() is None for process in self.processes), self.log
            address = re.search(r"^at (http://\S+?)\. Next:", (self._folder / "out").read_text(), re.MULTILINE)
            if address is None:
                return False
            self.url = address[1]
            health = self.health()
            assert health["status"] in ("loading", "healthy"), f"{health}\n{self.log}"
            return bool(health["status"] == "healthy")

        until(healthy, f"the ranks to be healthy; what they say is in {self._folder}")

    def health(self) -> dict[str, Any]:
        return health_of(self.url)

    def process_id(self, rank: int) -> int:
        return int(re.findall(rf"Rank {rank} of \d+ \(process (\d+)\)", self.log)[0])

    def stop_launched(self) -> None:
        """What the launcher has started and a test that failed has left."""
        for rank in map(int, re.findall(r"Rank \d+ of \d+ \(process (\d+)\)", self.log)):
            if self.processes[0].poll() is None:
                with suppress(ProcessLookupError):
                    os.kill(rank, signal.SIGKILL)

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait(PATIENCE_SECONDS)
            if process.stdin is not None:
                process.stdin.close()


@contextmanager
def launched(folder: Path, count: int, *arguments: str) -> Iterator[Ranks]:
    """As an operator starts them. A launcher that is killed leaves its ranks behind: rank 0 is to be told before."""
    _prepare(folder)
    launch = [LAUNCH, "-n", str(count), "--backend", "ring", "--starting-port", str(free_port(count))]
    with ExitStack() as files:
        out, log = (files.enter_context((folder / name).open("wb")) for name in ("out", "log"))
        process = subprocess.Popen(
            [*launch, "--", *SERVE, *arguments],
            cwd=folder,
            env=environment(folder) | {"OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,  # left open: the launcher reads without a pause from one that has ended
            stdout=out,
            stderr=log,
        )
    ranks = Ranks(folder, [process])
    try:
        yield ranks
    finally:
        ranks.stop_launched()
        ranks.end()


@contextmanager
def started(folder: Path, count: int, *arguments: str) -> Iterator[Ranks]:
    """Nobody looks after them."""
    _prepare(folder)
    port = free_port(count)
    hosts = folder / "hosts.json"
    hosts.write_text(json.dumps([[f"127.0.0.1:{port + rank}"] for rank in range(count)]))
    variables = environment(folder) | {"OPENBLAS_NUM_THREADS": "1", "MLX_HOSTFILE": str(hosts)}
    ranks = Ranks(folder, [])
    try:
        for rank in range(count):
            names = ("out", "log0") if rank == 0 else (f"out{rank}", f"log{rank}")
            with ExitStack() as files:
                out, log = (files.enter_context((folder / name).open("wb")) for name in names)
                process = subprocess.Popen(
                    [*SERVE, *arguments],
                    cwd=folder,
                    env=variables | {"MLX_RANK": str(rank)},
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=log,
                )
            ranks.processes.append(process)
        yield ranks
    finally:
        ranks.end()


def _prepare(folder: Path) -> None:
    """Answers that will never end are not waited for."""
    folder.mkdir(parents=True)
    settings = {"backends": {"vllm-mlx": {"shutdownGraceSeconds": 1}}}
    (folder / ".anyclauderc.json").write_text(json.dumps(settings))


def ask(url: str, content: str, **fields: Any) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": content}], **fields}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=PATIENCE_SECONDS, trust_env=False)
    assert answer.status_code == 200, answer.text
    answered: dict[str, Any] = answer.json()
    return answered


def text(url: str, content: str, **fields: Any) -> str:
    written: str = ask(url, content, **fields)["choices"][0]["message"]["content"]
    return written


def streamed_text(url: str, content: str, *, on_text: Callable[[str], None] = lambda piece: None, **fields: Any) -> str:
    """Raises `AssertionError` for a stream that ends in an error."""
    body = {"messages": [{"role": "user", "content": content}], "stream": True, **fields}
    pieces = []
    with httpx.stream(
        "POST", f"{url}/v1/chat/completions", json=body, timeout=PATIENCE_SECONDS, trust_env=False
    ) as answer:
        for line in answer.iter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line.removeprefix("data: "))
            assert "error" not in chunk, chunk["error"]["message"]
            piece = (chunk["choices"] or [{"delta": {}}])[0]["delta"].get("content") or ""
            pieces.append(piece)
            if piece:
                on_text(piece)
    return "".join(pieces)
