"""Starts the servers under measurement. Each listens on a free loopback port and ends with its block."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.http_client import HOST, Response, UnexpectedResponse, fetch, get
from benchmarks.ports import free_port

READY_SECONDS = 90.0
POLL_SECONDS = 0.05
END_SECONDS = 15.0

NO_RESPONSE_CACHE: dict[str, Any] = {"cachePolicy": "off"}
NO_PREFIX_CACHE: dict[str, Any] = {"prefixCache": {"memory": "0", "disk": "0"}}
NO_CACHES = NO_RESPONSE_CACHE | NO_PREFIX_CACHE

# Variables of the person who runs the benchmarks that would change the figures.
OWN_VARIABLES = ("VLLM_MLX_URL", "VLLM_MLX_MODEL", "ANYCLAUDE_DEBUG", "PROXY_ONLY")


class ProcessFailed(Exception):
    """The message includes the end of the log."""


@asynccontextmanager
async def process(command: list[str], log: Path, *, talk: bool = False) -> AsyncIterator[asyncio.subprocess.Process]:
    """The output goes to `log`. With `talk`, stdin and stdout are pipes."""
    environment = {name: value for name, value in os.environ.items() if name not in OWN_VARIABLES}
    # The scratch folder contains no configuration file, so the server finds none. PYTHONPATH still finds the project.
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), environment.get("PYTHONPATH", "")])
    environment["ANYCLAUDE_HOME"] = str(log.parent / "home")
    with log.open("wb") as output:
        started = await asyncio.create_subprocess_exec(
            *command,
            cwd=log.parent,
            env=environment,
            stdin=asyncio.subprocess.PIPE if talk else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE if talk else output,
            stderr=output,
        )
    try:
        yield started
    finally:
        await _end(started)


async def _end(started: asyncio.subprocess.Process) -> None:
    if started.returncode is not None:
        return
    started.terminate()
    try:
        await asyncio.wait_for(started.wait(), END_SECONDS)
    except TimeoutError:
        started.kill()
        await started.wait()


class Worker:
    """A process that answers each line of JSON with a line of JSON."""

    def __init__(self, started: asyncio.subprocess.Process, log: Path) -> None:
        self._process = started
        self._log = log

    async def ask(self, question: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        await self._process.stdin.drain()
        return await self.answer()

    async def answer(self) -> Any:
        """Raises `ProcessFailed` if the process ends first."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise ProcessFailed(f"Expected a line of JSON, but the process has ended:\n{last_lines(self._log)}")
        return json.loads(line)


@asynccontextmanager
async def module_worker(scratch: Path, module: str, *arguments: str) -> AsyncIterator[Worker]:
    """Runs `python -m MODULE ARGUMENTS`."""
    log = scratch / f"{module}.log"
    async with process([sys.executable, "-m", module, *arguments], log, talk=True) as started:
        yield Worker(started, log)


@asynccontextmanager
async def service(scratch: Path, *arguments: str, **configured: Any) -> AsyncIterator[int]:
    """Yields the port of `anyclaude serve ARGUMENTS` once it is healthy. `configured` goes into its configuration
    file."""
    async with watched_service(scratch, *arguments, **configured) as (port, _):
        yield port


@asynccontextmanager
async def watched_service(scratch: Path, *arguments: str, **configured: Any) -> AsyncIterator[tuple[int, int]]:
    """Yields port and process id."""
    port = free_port()
    configuration = scratch / f"service-{port}.json"
    configuration.write_text(json.dumps({"backend": "vllm-mlx", "backends": {"vllm-mlx": configured}}))
    command = [sys.executable, "-m", "service.cli", "serve", *arguments]
    command += ["--host", HOST, "--port", str(port), "--config", str(configuration)]
    log = scratch / f"service-{port}.log"
    async with process(command, log) as started:
        await until_ready(started, log, port, "/health", lambda response: response.json()["status"] == "healthy")
        yield port, started.pid


@asynccontextmanager
async def module_server(scratch: Path, module: str, *arguments: str, ready: str = "/health") -> AsyncIterator[int]:
    """Yields the port of `python -m MODULE PORT ARGUMENTS` once it answers `ready`."""
    async with watched_module_server(scratch, module, *arguments, ready=ready) as (port, _):
        yield port


@asynccontextmanager
async def watched_module_server(
    scratch: Path, module: str, *arguments: str, ready: str = "/health"
) -> AsyncIterator[tuple[int, int]]:
    """Yields port and process id."""
    port = free_port()
    log = scratch / f"{module}-{port}.log"
    async with process([sys.executable, "-m", module, str(port), *arguments], log) as started:
        await until_ready(started, log, port, ready, lambda _: True)
        yield port, started.pid


@asynccontextmanager
async def command_server(
    scratch: Path, name: str, command: list[str], *, ready: str = "/v1/models"
) -> AsyncIterator[int]:
    """Yields the port, for which `{port}` stands in `command`, once it answers `ready`."""
    port = free_port()
    log = scratch / f"{name}-{port}.log"
    async with process([part.replace("{port}", str(port)) for part in command], log) as started:
        await until_ready(started, log, port, ready, lambda _: True)
        yield port


async def until_ready(
    started: asyncio.subprocess.Process, log: Path, port: int, path: str, is_ready: Callable[[Response], bool]
) -> None:
    """Raises `ProcessFailed` if the process ends or is not ready in time."""
    try:
        async with asyncio.timeout(READY_SECONDS):
            while started.returncode is None:
                try:
                    if is_ready(await fetch(port, get(path))):
                        return
                except (OSError, asyncio.IncompleteReadError, UnexpectedResponse):
                    pass
                await asyncio.sleep(POLL_SECONDS)
        found = f"it ended with exit code {started.returncode}"
    except TimeoutError:
        found = f"it was not ready within {READY_SECONDS:g} seconds"
    raise ProcessFailed(f"Expected a server on port {port}, but {found}. The end of its log:\n{last_lines(log)}")


def last_lines(log: Path, count: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:])
