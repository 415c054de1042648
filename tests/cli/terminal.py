"""The `anyclaude` command as a user runs it: a real process, with a home, a working folder and a PATH of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.patience import PATIENCE_SECONDS, until
from tests.ports import free_port
from tests.server_process import health_of

# tests/conftest.py sets them, for engines too.
OF_ENGINES = ("OPENBLAS_NUM_THREADS", "ANYCLAUDE_DEVICE")
ENGINE_VARIABLES = {name: os.environ[name] for name in OF_ENGINES if name in os.environ}

FAKE_CLAUDE = f"""#!{sys.executable}
# Stands in for Claude Code: writes down how it was started, does what it is told, and exits with a code.
import json, os, pathlib, signal, sys, time, urllib.request
folder = pathlib.Path(os.environ["FAKE_FOLDER"])
name = os.environ.get("FAKE_NAME", "claude")
def on_signal(number, frame):
    with (folder / f"{{name}}.signals").open("a") as file:
        file.write(signal.Signals(number).name + "\\n")
    if number != signal.SIGCONT:
        sys.exit(9)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCONT):
    signal.signal(number, on_signal)
health = json.load(urllib.request.urlopen(os.environ["ANTHROPIC_BASE_URL"] + "/health"))
report = {{"arguments": sys.argv[1:], "environment": dict(os.environ), "health": health, "pid": os.getpid()}}
(folder / f"{{name}}.tmp").write_text(json.dumps(report))
(folder / f"{{name}}.tmp").rename(folder / f"{{name}}.json")
if os.environ.get("FAKE_STOPS"):
    os.kill(os.getpid(), signal.SIGSTOP)
while os.environ.get("FAKE_WAITS") and not (folder / f"{{name}}.go").exists():
    time.sleep(0.02)
sys.exit(int(os.environ.get("FAKE_EXIT", "0")))
"""


class Terminal:
    def __init__(self, folder: Path) -> None:
        self.home, self.cwd, self.bin = folder / "home", folder / "work", folder / "bin"
        for path in (self.home, self.cwd, self.bin):
            path.mkdir()
        self.configuration = self.home / ".anyclauderc.json"  # there, no value needs approval
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            "HOME": str(self.home),
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "FAKE_FOLDER": str(folder),
            "PYTHONWARNINGS": "error",
            "COLUMNS": "200",
            **ENGINE_VARIABLES,
        }
        self.folder = folder
        self.patience_seconds = PATIENCE_SECONDS
        self.configure(executor="scripted")

    def configure(self, **keys: Any) -> None:
        document = {"backends": {"vllm-mlx": {"port": self.port, **keys}}}
        self.configuration.write_text(json.dumps(document))

    def use_server(self, url: str) -> None:
        self.url, self.port = url, int(url.rpartition(":")[2])
        self.configure()

    def install_claude(self) -> None:
        (self.bin / "claude").write_text(FAKE_CLAUDE)
        (self.bin / "claude").chmod(0o755)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "service.cli", *arguments]

    def run(self, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        return self.execute(self.command(*arguments), **variables)

    def execute(self, command: list[str], **variables: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command,
            cwd=self.cwd,
            env=self.environment | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=self.patience_seconds,
            start_new_session=True,
        )

    @contextmanager
    def start(self, *arguments: str, **variables: str) -> "Iterator[subprocess.Popen[str]]":
        """A command in the background, with no terminal. It is ended at the latest with the block."""
        process = subprocess.Popen(
            self.command(*arguments),
            cwd=self.cwd,
            env=self.environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
            process.communicate(timeout=PATIENCE_SECONDS)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, trust_env=False, timeout=PATIENCE_SECONDS)

    def post(self, path: str, body: Any) -> httpx.Response:
        return httpx.post(self.url + path, json=body, trust_env=False, timeout=PATIENCE_SECONDS)

    def claude(self, name: str = "claude") -> Any:
        """What the fake Claude Code wrote down, once it has started."""
        path = self.folder / f"{name}.json"
        return json.loads(until(lambda: path.exists() and path.read_text(), f"{name} to start"))

    def signals(self, name: str = "claude") -> list[str]:
        path = self.folder / f"{name}.signals"
        return path.read_text().split() if path.exists() else []

    def let_go(self, name: str = "claude") -> None:
        (self.folder / f"{name}.go").touch()

    def health(self) -> Any:
        """What the server at the configured port says; None when there is none."""
        try:
            return health_of(self.url, PATIENCE_SECONDS)
        except httpx.TransportError:
            return None

    def server_pid(self) -> int:
        return int((self.home / ".anyclaude" / "run" / f"{self.port}.server").read_text())
