"""`anyclaude serve` as a process of its own, on a free loopback port, with a home of its own."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.patience import PATIENCE_SECONDS, until

PROJECT = Path(__file__).parents[1]
OWN_VARIABLES = ("VLLM_MLX_URL", "VLLM_MLX_MODEL", "ANYCLAUDE_DEBUG", "PROXY_ONLY")


class ServerProcess:
    """`url` is its root. What it logs can be read while it runs."""

    def __init__(self, url: str, log: Path, pid: int) -> None:
        self.url = url
        self.pid = pid
        self._log = log
        self._seen = 0

    def health(self) -> dict[str, Any]:
        return health_of(self.url)

    def new_requests(self, count: int) -> list[dict[str, Any]]:
        """The log's fields of the requests since the last call, waiting until there are at least `count`: a line is
        written when the client may already have its answer."""
        new = until(lambda: found if len(found := self._requests()[self._seen :]) >= count else None, "requests")
        self._seen += len(new)
        return new

    def messages(self) -> list[str]:
        """Everything that it has logged."""
        return [line["message"] for line in self._lines()]

    def _requests(self) -> list[dict[str, Any]]:
        return [line for line in self._lines() if line["logger"] == "anyclaude.request"]

    def _lines(self) -> list[dict[str, Any]]:
        whole, _, _ = self._log.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[ServerProcess]:
    """`anyclaude serve ARGUMENTS`, healthy. Its state and its logs are in `folder`, where a later server finds them."""
    folder.mkdir(parents=True, exist_ok=True)
    out, log = folder / "out", folder / "log"
    command = [sys.executable, "-m", "service.cli", "serve", *arguments]
    command += ["--port", "0", "--debug", "1", "--log-format", "json"]
    with out.open("wb") as out_file, log.open("wb") as log_file:
        process = subprocess.Popen(
            command, cwd=folder, env=environment(folder), stdin=subprocess.DEVNULL, stdout=out_file, stderr=log_file
        )
    try:
        yield _when_healthy(process, out, log)
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


def environment(home: Path) -> dict[str, str]:
    """Ours without what its user has configured, with `home` as home."""
    kept = {name: value for name, value in os.environ.items() if name not in OWN_VARIABLES}
    paths = [str(PROJECT), *filter(None, [kept.get("PYTHONPATH")])]
    return kept | {"HOME": str(home), "ANYCLAUDE_HOME": str(home / "state"), "PYTHONPATH": os.pathsep.join(paths)}


def health_of(url: str, seconds: float = PATIENCE_SECONDS) -> dict[str, Any]:
    # Tests ask again and again. Without a context for TLS, that takes a tenth of the processor time.
    answer = httpx.get(f"{url}/health", timeout=seconds, trust_env=False, verify=False)  # noqa: S501
    health: dict[str, Any] = answer.json()
    return health


def _when_healthy(process: subprocess.Popen[bytes], out: Path, log: Path) -> ServerProcess:
    def healthy() -> ServerProcess | None:
        assert process.poll() is None, f"the server has ended:\n{log.read_text()}"
        address = re.search(r"^at (http://\S+?)\. Next:", out.read_text(), re.MULTILINE)
        if address is None:
            return None
        server = ServerProcess(address[1], log, process.pid)
        health = server.health()
        assert health.get("status") in ("loading", "healthy"), f"{health}\n{log.read_text()}"
        return server if health["status"] == "healthy" else None

    return until(healthy, f"the server to be healthy; its log is {log}")
