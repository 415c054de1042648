"""What is deployed says what it should, as far as can be told without running containers."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from service.config import load_configuration
from tests.deployment.programs import require
from tests.patience import PATIENCE_SECONDS

PROJECT = Path(__file__).parents[2]
COMPOSE = PROJECT / "docker-compose.yml"
SECRETS = {"ANYCLAUDE_API_KEY": "a-secret", "GRAFANA_PASSWORD": "another"}


def compose(file: Path = COMPOSE, **variables: str) -> "subprocess.CompletedProcess[str]":
    """What Docker Compose makes of a file: it checks it against its schema first. No engine is needed."""
    return subprocess.run(
        [
            require("docker-compose"),
            "--file",
            str(file),
            "--project-directory",
            str(PROJECT),
            "config",
            "--format=json",
        ],
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **variables},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    done = compose(**SECRETS)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_what_the_compose_schema_does_not_know_is_refused(tmp_path: Path) -> None:
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text(COMPOSE.read_text().replace("stop_grace_period:", "stop_grace_time:"))
    done = compose(wrong, **SECRETS)
    assert done.returncode != 0
    assert "stop_grace_time" in done.stderr


@pytest.mark.parametrize("missing", SECRETS)
def test_no_secret_has_a_default(missing: str) -> None:
    done = compose(**{name: value for name, value in SECRETS.items() if name != missing})
    assert done.returncode != 0
    assert missing in done.stderr


def test_the_servers_configuration_is_valid_and_asks_for_the_key(composed: dict[str, Any], tmp_path: Path) -> None:
    content = composed["configs"]["anyclauderc"]["content"]
    (tmp_path / ".anyclauderc.json").write_text(content)
    settings = load_configuration({}, {}, tmp_path, tmp_path).settings
    assert (settings.host, settings.port, settings.require_api_key) == ("0.0.0.0", 8081, True)
    assert settings.api_key == SECRETS["ANYCLAUDE_API_KEY"]
    assert any(url.startswith("redis://valkey:") for url in settings.cache)


def test_two_servers_are_alike_and_the_balancer_and_prometheus_know_both(composed: dict[str, Any]) -> None:
    services = composed["services"]
    assert services["replica-1"] == services["replica-2"]
    servers = services["balancer"]["environment"]["ANYCLAUDE_SERVERS"]
    assert re.findall(r"server (\S+)", servers) == ["replica-1:8081", "replica-2:8081"]
    targets = (PROJECT / "deploy/prometheus/targets.yml").read_text()
    assert re.findall(r'"([^"]+:\d+)"', targets) == ["replica-1:8081", "replica-2:8081"]


def test_only_loopback_is_published(composed: dict[str, Any]) -> None:
    published = [port for service in composed["services"].values() for port in service.get("ports", [])]
    assert {port["host_ip"] for port in published} == {"127.0.0.1"}
    assert {port["published"] for port in published} == {"8081", "9090", "3000"}


def test_every_mounted_file_is_there(composed: dict[str, Any]) -> None:
    mounts = [mount for service in composed["services"].values() for mount in service.get("volumes", [])]
    sources = [Path(mount["source"]) for mount in mounts if mount["type"] == "bind"]
    assert len(sources) == 6
    assert [source for source in sources if not source.exists()] == []


def test_the_dockerfile_has_no_faults() -> None:
    done = subprocess.run(
        [require("hadolint"), str(PROJECT / "Dockerfile")], capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_gets_what_it_copies() -> None:
    """`.dockerignore` leaves everything out but what it names."""
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (PROJECT / "Dockerfile").read_text(), re.MULTILINE)
    names = {name for line in copied for name in line.split()}
    let_in = {line[1:] for line in (PROJECT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert names == let_in
    assert [name for name in names if not (PROJECT / name).exists()] == []


def test_prometheus_accepts_its_configuration(tmp_path: Path) -> None:
    for file in (PROJECT / "deploy/prometheus").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "api_key").write_text("a-secret")
    done = subprocess.run(
        [require("promtool"), "check", "config", str(tmp_path / "prometheus.yml")],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 rules found" in done.stdout


def test_the_homebrew_formula_is_ruby_and_needs_no_published_release() -> None:
    formula = PROJECT / "deploy" / "homebrew" / "anyclaude.rb"
    subprocess.run([require("ruby"), "-wc", str(formula)], check=True, capture_output=True)
    text = formula.read_text()
    assert "https://" not in text
    assert (PROJECT / "constraints.txt").exists()
    assert '"--constraint", "constraints.txt"' in text
