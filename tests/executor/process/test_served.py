"""`anyclaude serve` with a model in an engine process: what the server holds, and what ends with whom."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from service.executor.process.priority import NICENESS_ON_CPU
from tests.patience import PATIENCE_SECONDS, until
from tests.server_process import ServerProcess, environment, health_of, serving

pytestmark = pytest.mark.model

log = logging.getLogger(__name__)

ORPHAN_SECONDS = 10.0
"""An engine ends some milliseconds after its server. The rest is for a machine that is busy."""

HEALTH_SECONDS = 2.0
"""Processor time of the server until it answers. It needs a quarter of this."""

DUMPING = """
import json, pathlib, signal, sys, time
def dump(number, frame):
    found = {"modules": sorted(sys.modules), "seconds": time.process_time()}
    pathlib.Path("dump.new").write_text(json.dumps(found))
    pathlib.Path("dump.new").rename("dump")
signal.signal(signal.SIGUSR2, dump)
from service.cli import main
sys.argv = ["anyclaude", *sys.argv[1:]]
main()
"""


def chat(text: str = "hello", **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 8, "temperature": 0, **fields}


def ask(server: ServerProcess, **fields: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/chat/completions", json=chat(**fields), timeout=PATIENCE_SECONDS)


def engine_pids(server: ServerProcess) -> list[int]:
    found = [re.match(r"Engine process (\d+) loads", message) for message in server.messages()]
    return [int(match[1]) for match in found if match]


def is_there(pid: int) -> bool:
    """Whether it runs: a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def niceness(pid: int) -> set[int]:
    """Returns that of each thread."""
    return {os.getpriority(os.PRIO_PROCESS, int(thread.name)) for thread in Path(f"/proc/{pid}/task").iterdir()}


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server whose SIGUSR2 writes the names of its modules and its processor time into `folder`."""
    folder.mkdir()
    command = [sys.executable, "-c", DUMPING, "serve", "--port", "0", *arguments]
    process = subprocess.Popen(command, cwd=folder, env=environment(folder), stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_SECONDS)


def dumped(process: "subprocess.Popen[bytes]", folder: Path) -> dict[str, Any]:
    process.send_signal(signal.SIGUSR2)
    file = folder / "dump"
    until(file.exists, "its modules")
    found: dict[str, Any] = json.loads(file.read_text())
    file.unlink()
    return found


def test_the_server_imports_no_model_library_and_is_healthy_soon(tiny_model: Path, tmp_path: Path) -> None:
    with started(tmp_path / "home", str(tiny_model)) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, b"")
        address = next(match[1] for line in lines if (match := re.search(rb"^at (http://\S+?)\. Next", line))).decode()
        assert health_of(address)["status"] in ("loading", "healthy")
        seconds = dumped(process, tmp_path / "home")["seconds"]
        until(lambda: health_of(address)["status"] == "healthy", "the model")
        assert httpx.post(f"{address}/v1/chat/completions", json=chat(), timeout=PATIENCE_SECONDS).status_code == 200
        modules = dumped(process, tmp_path / "home")["modules"]
    assert not {"mlx", "mlx.core", "mlx_lm", "transformers", "numpy", "llguidance"} & set(modules)
    assert "starlette" in modules
    assert seconds < HEALTH_SECONDS


@pytest.mark.skipif(sys.platform != "linux", reason="macOS computes on Metal")
def test_an_engine_on_a_cpu_gives_way_to_the_server(tiny_model: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "home", str(tiny_model)) as server:
        assert ask(server).status_code == 200
        (engine,) = engine_pids(server)
        own = os.getpriority(os.PRIO_PROCESS, 0)
        assert (niceness(engine), niceness(server.pid)) == ({own + NICENESS_ON_CPU}, {own})
        assert os.getsid(engine) == os.getsid(server.pid), "Linux compares niceness only within a session"


def test_its_engine_ends_with_a_server_that_is_killed(tiny_model: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "home", str(tiny_model)) as server:
        (engine,) = engine_pids(server)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(ask, server, text="a long one", max_tokens=4000)
            until(lambda: server.health()["running"] == 1, "the answer to begin")
            os.kill(server.pid, signal.SIGKILL)
            killed = time.monotonic()
            until(lambda: not is_there(engine), "the engine to end")
            seconds = time.monotonic() - killed
    log.info("the engine ended after %.3f s", seconds)
    assert seconds < ORPHAN_SECONDS


def test_an_engine_that_is_killed_costs_no_request_that_is_not_streamed(tiny_model: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "home", str(tiny_model), "--cache-policy", "off") as server:
        right = ask(server).json()["choices"][0]["message"]["content"]
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(ask, server) for _ in range(8)]
            os.kill(engine_pids(server)[-1], signal.SIGKILL)
            responses = [each.result() for each in asked]
        assert [response.status_code for response in responses] == [200] * 8
        assert {response.json()["choices"][0]["message"]["content"] for response in responses} == {right}
        assert ask(server).json()["choices"][0]["message"]["content"] == right
        assert len(engine_pids(server)) == 2
        assert not is_there(engine_pids(server)[0])
        assert any("it was killed by SIGKILL" in message for message in server.messages())


def test_the_prefix_cache_is_found_again_after_an_unload_and_after_a_death(demo_model: Path, tmp_path: Path) -> None:
    def usage() -> tuple[int, int]:
        found = ask(server, text=" ".join(f"word{number}" for number in range(150)), max_tokens=1).json()["usage"]
        return found["prompt_tokens"], found["prompt_tokens_details"]["cached_tokens"]

    with serving(tmp_path / "home", str(demo_model), "--cache-policy", "off") as server:
        prompt, cached = usage()
        assert cached == 0
        assert httpx.post(f"{server.url}/v1/models/default/unload", timeout=PATIENCE_SECONDS).json()["loaded"] is False
        assert usage() == (prompt, prompt - 1)
        os.kill(engine_pids(server)[-1], signal.SIGKILL)
        assert usage() == (prompt, prompt - 1)
        assert len(engine_pids(server)) == 3


def test_hits_are_served_while_the_engine_is_away(tiny_model: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "home", str(tiny_model)) as server:
        assert ask(server).status_code == 200
        for _ in range(4):
            engine = engine_pids(server)[-1]
            os.kill(engine, signal.SIGKILL)
            until(lambda gone=engine: not is_there(gone), "the engine to end")
            hit = ask(server)
            assert hit.headers["cache-status"] == "anyclaude; hit"
            until(lambda gone=engine: server.health()["status"] == "unhealthy" or engine_pids(server)[-1] != gone, "it")
        until(lambda: server.health()["status"] == "unhealthy", "the server to give up")
        assert "has ended 4 times" in server.health()["detail"]
        assert ask(server).headers["cache-status"] == "anyclaude; hit"
        refused = ask(server, text="another")
        assert (refused.status_code, "has ended 4 times" in refused.json()["error"]["message"]) == (503, True)


def test_a_folder_with_modules_of_our_names_is_not_imported_from(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("service", "click", "msgspec", "mlx", "mlx_lm", "transformers", "tokenizers", "numpy", "jinja2"):
        (folder / f"{name}.py").write_text(f"import os; open('{folder}/imported', 'a').write('{name} ')\nos._exit(66)")
    command = [str(Path(sys.executable).with_name("anyclaude")), "serve", str(tiny_model), "--port", "0"]
    process = subprocess.Popen(command, cwd=folder, env=environment(tmp_path / "home"), stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, b"")
        address = next(match[1] for line in lines if (match := re.search(rb"^at (http://\S+?)\. Next", line))).decode()
        until(lambda: health_of(address)["status"] != "loading", "the model")
        assert health_of(address)["status"] == "healthy"
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_SECONDS)
    assert not (folder / "imported").exists()


def finish_reason(server: ServerProcess, begun: threading.Event) -> str | None:
    """Streams a long answer. `begun` is set at its first chunk."""
    body = chat("a long one", max_tokens=200, stream=True)
    reason = None
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=PATIENCE_SECONDS) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                begun.set()
                reason = json.loads(line.removeprefix("data: "))["choices"][0]["finish_reason"]
    return reason


def test_ctrl_c_lets_a_running_answer_end(tiny_model: Path, tmp_path: Path) -> None:
    """A terminal sends it to the whole process group."""
    patient = ("--shutdown-grace-seconds", str(PATIENCE_SECONDS))
    with serving(tmp_path / "home", str(tiny_model), *patient) as server, ThreadPoolExecutor(1) as pool:
        begun = threading.Event()
        asked = pool.submit(finish_reason, server, begun)
        assert begun.wait(PATIENCE_SECONDS)
        (engine,) = engine_pids(server)
        os.kill(server.pid, signal.SIGINT)
        os.kill(engine, signal.SIGINT)
        assert asked.result() == "length"
        until(lambda: not is_there(engine), "the engine to end")
