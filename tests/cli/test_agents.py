"""Every agent of the table, with a small program in its place that reports how it was started."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.agents.agent import OTHER_PLACES
from service.agents.table import AGENTS
from tests.cli.terminal import Terminal
from tests.patience import until

REPORT = f"""#!{sys.executable}
import json, os, pathlib, sys
given = sys.argv[1:] + list(os.environ.values())
places = [pathlib.Path(path) for path in given if path.startswith("/") and "/run/" in path]
found = [file for place in places for file in ([place] if place.is_file() else place.rglob("*")) if file.is_file()]
files = {{str(file): file.read_text() for file in found}}
report = {{"arguments": sys.argv[1:], "environment": dict(os.environ), "files": files}}
pathlib.Path(os.environ["FAKE_FOLDER"], "agent.json").write_text(json.dumps(report))
sys.exit(5)
"""
OTHERS = sorted(AGENTS.keys() - {"claude"})


@pytest.fixture
def user(terminal: Terminal) -> Terminal:
    for agent in AGENTS.values():
        (terminal.bin / agent.name).write_text(REPORT)
        (terminal.bin / agent.name).chmod(0o755)
    terminal.configure(executor="scripted", apiKey="a key")
    return terminal


def report(user: Terminal) -> Any:
    return json.loads((user.folder / "agent.json").read_text())


@pytest.mark.parametrize("name", OTHERS)
def test_an_agent_is_pointed_to_the_server_for_one_run(user: Terminal, name: str) -> None:
    done = user.run(name, "--model", "--help", "-p", "two words", OPENAI_API_KEY="the user's own")
    found = report(user)
    everything = json.dumps(found)
    assert done.returncode == 5, done.stderr
    assert found["arguments"][-4:] == ["--model", "--help", "-p", "two words"]
    assert f"{user.url}/v1" in everything
    assert "a key" in everything
    assert "scripted" in everything
    assert "200000" in everything or "175000" in everything or name == "cline"
    assert found["environment"]["NO_PROXY"] == "localhost,127.0.0.1,::1"
    assert not [path for path in found["files"] if Path(path).exists()]
    assert sorted(path.name for path in user.home.iterdir()) == [".anyclaude", ".anyclauderc.json"]


def test_claude_is_the_launcher_by_its_name(user: Terminal) -> None:
    assert user.run("claude", "--", "-p", "hello").returncode == 5
    assert report(user)["arguments"] == ["--permission-mode", "default", "--", "-p", "hello"]


@pytest.mark.parametrize("name", sorted(AGENTS))
def test_an_agent_that_is_not_installed_names_the_way_to_install_it(terminal: Terminal, name: str) -> None:
    agent = AGENTS[name]
    if agent.find(terminal.environment):
        pytest.skip(f"{agent.name} is installed where the launcher looks besides PATH")
    done = terminal.run(name)
    assert done.returncode == 127
    missing = f"there is no '{agent.name}' on PATH or where its installers put it"
    assert done.stderr == f"Error: {agent.title} is not installed: {missing}. Try: {agent.install}\n"


@pytest.mark.parametrize(
    "place", [".claude/local", ".local/bin", ".npm-global/bin", ".nvm/versions/node/v22.1.0/bin", ".bun/bin"]
)
@pytest.mark.parametrize("name", ["claude", "qwen"])
def test_a_program_is_found_where_installers_put_it(
    name: str, place: str, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(terminal.home))
    folder = terminal.home / place
    folder.mkdir(parents=True)
    (folder / name).write_text(REPORT)
    (folder / name).chmod(0o755)
    elsewhere = {"PATH": str(terminal.bin)}
    assert AGENTS[name].find(elsewhere) == str(folder / name)
    (terminal.bin / name).symlink_to(folder / name)
    assert AGENTS[name].find(elsewhere) == str(terminal.bin / name)


def test_the_newest_of_nvms_versions_is_taken(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(terminal.home))
    for version in ("v9.11.2", "v10.24.1", "v18.20.0", "v18.3.1"):
        folder = terminal.home / ".nvm/versions/node" / version / "bin"
        folder.mkdir(parents=True)
        (folder / "qwen").write_text(REPORT)
        (folder / "qwen").chmod(0o755)
    assert AGENTS["qwen"].find({"PATH": str(terminal.bin)}) == str(
        terminal.home / ".nvm/versions/node/v18.20.0/bin/qwen"
    )


def test_a_program_finds_the_interpreter_beside_it(terminal: Terminal) -> None:
    folder = terminal.home / ".npm-global/bin"
    folder.mkdir(parents=True)
    (folder / "claude").write_text("#!/usr/bin/env helper\n")
    (folder / "helper").write_text("#!/bin/sh\necho '2.1.197 (Claude Code)'\n")
    for program in folder.iterdir():
        program.chmod(0o755)
    launched = terminal.run("-p", "hello", PATH=str(terminal.bin))
    assert (launched.returncode, launched.stdout) == (0, "2.1.197 (Claude Code)\n"), launched.stderr
    checks = json.loads(terminal.run("doctor", "--json", PATH=str(terminal.bin)).stdout)
    found = {check["name"]: check["found"] for check in checks}
    assert found["Claude Code"] == f"2.1.197 (Claude Code) ({folder}/claude)"


@pytest.mark.parametrize("place", ["/opt/homebrew/bin", "/usr/local/bin", "/home/linuxbrew/.linuxbrew/bin"])
def test_homebrews_folders_are_searched(place: str) -> None:
    assert place in OTHER_PLACES


@pytest.mark.parametrize("name", sorted(AGENTS))
def test_connect_prints_the_settings_as_a_shell_script(user: Terminal, name: str) -> None:
    with user.start("serve"):
        until(user.health, "the server")
        printed = user.run("connect", name)
    assert printed.returncode == 0
    assert AGENTS[name].install in printed.stdout.splitlines()[0]
    script = subprocess.run(["/bin/sh", "-e"], input=printed.stdout, env=user.environment, text=True)
    assert script.returncode == 5
    found = json.dumps(report(user)) + "".join(
        path.read_text() for path in (user.home / ".anyclaude").rglob("*") if "agents" in path.parts and path.is_file()
    )
    assert user.url in found
    assert "a key" in found
    assert os.sep in found


def test_connect_without_a_server(user: Terminal) -> None:
    done = user.run("connect", "codex")
    assert done.returncode == 69
    assert "Start one with 'anyclaude serve'" in done.stderr
