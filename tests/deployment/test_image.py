"""The container image, built from the Dockerfile and run once: without a daemon, and without a registry of images."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deployment.image import ALONE, Buildah, require_namespaces
from tests.patience import PATIENCE_SECONDS, until

pytestmark = pytest.mark.container

PROJECT = Path(__file__).parents[2]
USER = 10001
STATE = "/var/lib/anyclaude"
BODY = '{"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}'


class Container:
    """The image's own command, which runs in a network of its own."""

    def __init__(self, buildah: Buildah, name: str, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self._buildah = buildah
        self._name = name
        self._beside = ["nsenter", "--net", "--target", str(process.pid), "--"]

    def curl(self, *arguments: str) -> str:
        return self._output("curl", "--silent", *arguments)

    def run(self, *command: str) -> str:
        return self._output(*self._buildah.inside(self._name, *command))

    def is_healthy(self) -> bool:
        """Runs the image's own health check."""
        assert self.process.poll() is None
        _, *check = self._buildah.settings(self._name)["Healthcheck"]["Test"]
        command = [*self._beside, *self._buildah.inside(self._name, *check)]
        return subprocess.run(command, capture_output=True).returncode == 0

    def servers(self) -> list[Path]:
        """Returns the folders in /proc of anyclaude's processes, the server first."""
        if self.process.poll() is not None:
            return []
        network = os.readlink(f"/proc/{self.process.pid}/ns/net")
        found = []
        for folder in sorted(Path("/proc").glob("[0-9]*"), key=lambda folder: int(folder.name)):
            try:
                ours = os.readlink(folder / "ns" / "net") == network
                if ours and (folder / "cmdline").read_bytes().startswith(b"/opt/anyclaude/bin/"):
                    found.append(folder)
            except OSError:  # it has ended
                continue
        return found

    def _output(self, *command: str) -> str:
        done = subprocess.run([*self._beside, *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory, demo_model: Path) -> Iterator[Container]:
    require_namespaces()
    folder = tmp_path_factory.mktemp("containers")
    buildah = Buildah(folder)
    try:
        buildah.build(PROJECT, "anyclaude")
        name = buildah("from", "--pull=never", "anyclaude")
        models = f"{STATE}/models/{demo_model.name}"
        buildah("copy", "--quiet", f"--chown={USER}:{USER}", name, str(demo_model), models)
        settings = buildah.settings(name)
        command = buildah.inside(name, *settings["Entrypoint"], *settings["Cmd"])
        with subprocess.Popen([*ALONE, *command]) as process:
            running = Container(buildah, name, process)
            try:
                until(running.is_healthy, "the container to be healthy")
                yield running
            finally:
                for server in running.servers():
                    os.kill(int(server.name), signal.SIGKILL)
                process.wait(PATIENCE_SECONDS)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_miss_then_a_hit(container: Container) -> None:
    ask = ("--include", "http://127.0.0.1:8081/v1/chat/completions", "--json", BODY)
    first, second = container.curl(*ask), container.curl(*ask)
    assert "cache-status: anyclaude; fwd=uri-miss; stored" in first
    assert "cache-status: anyclaude; hit" in second
    assert "The capital of France is Paris." in first
    assert first.split('"choices"')[1] == second.split('"choices"')[1]
    health = json.loads(container.curl("http://127.0.0.1:8081/health"))
    assert (health["status"], health["cache"]["hit_rate"]) == ("healthy", "50.0%")


def test_nothing_runs_as_root_and_nobody_else_reads_the_state(container: Container) -> None:
    assert {folder.stat().st_uid for folder in container.servers()} == {USER}
    assert container.run("id", "-u").strip() == str(USER)
    kept = container.run("find", STATE, "-printf", "%U %m %y %P\n").splitlines()
    assert f"{USER} 700 d " in kept
    assert {line.split()[0] for line in kept} == {str(USER)}
    written = [line.split() for line in kept if "models" not in line]
    assert {mode for _, mode, kind, *_ in written if kind == "d"} == {"700"}
    assert {mode for _, mode, kind, *_ in written if kind == "f"} <= {"600"}


def test_sigterm_ends_it_well(container: Container) -> None:
    os.kill(int(container.servers()[0].name), signal.SIGTERM)
    assert container.process.wait(PATIENCE_SECONDS) == 0
